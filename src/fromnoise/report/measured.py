"""The second half of the page: what each phase bought, with intervals and counts; and the answers themselves."""

from __future__ import annotations

from fromnoise.report.blocks import Answers, Cell, Figures, Prose, Section, Table, count, measured, number, percent, shown
from fromnoise.report.collect import RunData
from fromnoise.report.figures import figure, lines, rungs

MODELS = (("base_plain", "base, best plain prompt"), ("base_template", "base, chat template"), ("sft", "sft"), ("rlhf", "rlhf"))
NUM_SIDE_BY_SIDE = 12
NO_EVALUATION = "evaluate has not run in this run: nothing is measured yet. `fromnoise evaluate` makes these numbers."


def headline(run: RunData) -> list[tuple[str, Cell]]:
    """The few numbers at the top: (what, value with interval)."""
    stage, found = run.stages["pretrain"], []
    bits = stage.summary.get("validation_bits_per_byte")
    if isinstance(bits, (int, float)):
        found.append(("bits per byte of held-out text, base model", Cell(number(bits))))
    for name, label, style in (
        ("questions/sft/form_and_stops", "sft answers in the asked form and stops", "percent"),
        ("questions/sft/correct/context", "sft right, fact in the prompt", "percent"),
        ("questions/sft/correct/mentioned 64 times or more", "sft right from memory, 64 mentions or more", "percent"),
        ("preference/sampled/oracle", "rlhf preferred to sft by the oracle", "percent"),
        ("preference/sampled/oracle_length_controlled", "the same at equal length", "percent"),
        ("preference/sampled/correct_difference", "correctness, rlhf minus sft", "points"),
        ("safety/sampled/balanced_accuracy/rlhf", "rlhf right on harmful prompts and look-alikes", "percent"),
        ("safety/sampled/balanced_accuracy/difference", "the same, rlhf minus sft", "points"),
    ):
        if run.estimate(name):
            found.append((label, measured(run.estimate(name), style)))
    if not run.estimate("preference/sampled/oracle"):  # no world, no truth: what training itself can see
        for score, label in (("reward", "rlhf above sft by the reward model"), ("audit", "rlhf above sft by the audit model")):
            if run.estimate(f"preference/sampled/{score}_win_rate"):
                found.append((label, measured(run.estimate(f"preference/sampled/{score}_win_rate"))))
        if run.estimate("reward/accuracy"):
            found.append(("reward model right on held-out pairs", measured(run.estimate("reward/accuracy"))))
    return found


def questions(run: RunData) -> Section:
    section = Section("questions", "What tuning bought", "Held-out questions put to each model. Their facts stand in documents and in no training conversation.")
    names = [(name, label) for name, label in MODELS if run.under(f"questions/{name}/")]
    if not names:
        return section.missing("No questions were put in this run: they need the world's, and evaluate." if run.estimates else NO_EVALUATION)
    rows = []
    for label, key in (
        ("answers in the asked form and stops", "form_and_stops"), ("stops by itself", "stops"), ("right, fact in the prompt", "correct/context"),
        ("right from memory, 64 mentions or more", "correct/mentioned 64 times or more"), ("right, worked sums", "correct/sum"),
        ("admits what nobody knows", "correct/unknown"),
    ):
        cells = [measured(run.estimate(f"questions/{name}/{key}")) for name, _ in names]
        if any(cell.tone != "quiet" for cell in cells):
            rows.append([Cell(label, tone="label"), *cells])
    plain = next((record.get("plain_prompt") for record in run.records("questions_base_plain") if record.get("plain_prompt")), None)
    section.blocks.append(Table(["", *(label for _, label in names)], rows, caption="95 % intervals (Wilson)."))
    if plain:
        section.blocks.append(Prose(f"The plain prompt that served the base model best on training prompts, and is used here: {shown(plain)}.", tone="note"))
    ladders = {name: {int(key): value for key, value in run.under(f"questions/{name}/ladder/").items() if key.isdigit()} for name, _ in names}
    drawn = [(label, name if name in ("sft", "rlhf") else "base", ladders[name]) for name, label in names if ladders[name] and name != "base_template"]
    if drawn:
        section.blocks.append(Figures([(
            figure("ladder", "Accuracy of closed-book answers by number of mentions", rungs(drawn, x="mentions of the fact in the documents", y="right answers")),
            "The ladder: how often a fact must be read before it is known. Closed book, 95 % intervals.",
        )]))
        steps = sorted({mentions for ladder in ladders.values() for mentions in ladder})
        section.blocks.append(Table(["mentions", *(label for _, label in names)],
                                    [[Cell(count(m), tone="label"), *(measured(ladders[name].get(m)) for name, _ in names)] for m in steps]))
    kinds = sorted({key for name, _ in names for key in run.under(f"questions/{name}/form_and_stops/")})
    if kinds:
        section.blocks.append(Table(
            ["asked form and stops, by kind", *(label for _, label in names)],
            [[Cell(shown(kind), tone="label"), *(measured(run.estimate(f"questions/{name}/form_and_stops/{kind}")) for name, _ in names)] for kind in kinds],
        ))
    section.blocks.extend(contamination(run))
    return section


def contamination(run: RunData) -> list:
    looks = run.under("contamination/")
    if not looks:
        return []
    labels = {"exact": "word for word", "normalised": "after dropping case and punctuation", "contained": "inside a longer message",
              "subject_and_value": "subject and value in one conversation"}
    rows = [[Cell(labels.get(look, look), tone="label"), Cell(count(one["value"]), f"of {one['n']:,} questions", "good" if not one["value"] else "bad")]
            for look, one in looks.items()]
    return [Table(["evaluation questions found in training conversations", ""], rows)]


def reward(run: RunData) -> Section:
    section = Section("reward", "The reward model", "It learns from pairs which answer raters prefer. Raters disagree and err, so no model can reach 100 %: the best attainable is what knowing their choice probabilities would give.")
    names = [name for name in ("reward", "audit") if run.estimate(f"{name}/accuracy")]
    if not names:
        return section.missing("No held-out pairs were scored in this run." if run.estimates else NO_EVALUATION)
    rows = []
    for label, key, style in (
        ("right on held-out pairs", "accuracy", "percent"), ("best attainable", "attainable", "percent"),
        ("right, over all raters of the pool", "accuracy_pool", "percent"),
        ("(right − ½) / (best attainable − ½)", "share_of_attainable", "number"),
        ("the same, over all raters of the pool", "share_of_attainable_pool", "number"), ("calibration error of its probabilities", "calibration_error", "number"),
        ("pairs differing in correctness or relevance", "pairs_differing", "percent"),
    ):
        cells = [measured(run.estimate(f"{name}/{key}"), style) for name in names]
        if any(cell.tone != "quiet" for cell in cells):
            rows.append([Cell(label, tone="label"), *cells])
    heads = {"reward": "reward model", "audit": "audit model"}
    section.blocks.append(Table(["", *(heads[name] for name in names)], rows))
    section.blocks.append(Prose("The audit model learnt from other raters on other pairs. It watches and never trains the policy.", tone="note"))
    return section


def rlhf(run: RunData) -> Section:
    section = Section("rlhf", "What RLHF bought", "The same held-out prompts, the same decoding, with RLHF and without. The judges here chose no training pair.")
    if not run.under("preference/"):
        section.missing("rlhf and sft were not compared in this run." if run.estimates else NO_EVALUATION)
    else:
        rows = []
        for label, key, style in (
            ("preferred by the oracle (ties split)", "oracle", "percent"), ("the same at equal length", "oracle_length_controlled", "percent"),
            ("ties", "ties", "percent"), ("preferred by the judge raters", "raters", "percent"), ("higher by the reward model", "reward_win_rate", "percent"),
            ("higher by the audit model", "audit_win_rate", "percent"), ("reward, rlhf − sft", "reward_difference", "signed"),
            ("audit score, rlhf − sft", "audit_difference", "signed"), ("right, sft", "correct_sft", "percent"), ("right, rlhf", "correct_rlhf", "percent"),
            ("right, rlhf − sft (paired)", "correct_difference", "points"),
        ):
            cells = [measured(run.estimate(f"preference/{decoding}/{key}"), style, "strong" if key == "oracle" else "") for decoding in ("sampled", "greedy")]
            if any(cell.tone != "quiet" for cell in cells):
                rows.append([Cell(label, tone="label"), *cells])
        section.blocks.append(Table(["rlhf against sft", "sampled", "greedy"], rows, caption="95 % intervals; differences are paired over prompts."))
        section.blocks.extend(_kl_and_best_of_n(run))
        kinds = run.under("preference/sampled/oracle/")
        if kinds:
            section.blocks.append(Table(["preferred by the oracle, by kind", "sampled"], [[Cell(shown(kind), tone="label"), measured(one)] for kind, one in sorted(kinds.items())]))
    section.blocks.extend(optimisation(run))
    section.blocks.extend(drift(run))
    return section


def _kl_and_best_of_n(run: RunData) -> list:
    best, n = run.under("best_of_n/"), (run.estimate("best_of_n/n") or {}).get("value")
    rows = [[
        Cell("rlhf", tone="label"), measured(run.estimate("kl/per_sequence"), "number"), measured(run.estimate("preference/sampled/oracle")),
        measured(run.estimate("preference/sampled/reward_difference"), "signed"), measured(run.estimate("preference/sampled/audit_difference"), "signed"),
    ]]
    if n:
        kl = run.estimate("best_of_n/kl_per_sequence")
        rows.append([
            Cell(f"sft, best of {n:.0f} by reward", tone="label"), Cell(number(kl["value"]), kl["method"]) if kl else "–", measured(best.get("oracle")),
            measured(best.get("reward_difference"), "signed"), measured(best.get("audit_difference"), "signed"),
        ])
    return [Table(["against one answer of sft", "KL, nats an answer", "preferred by the oracle", "reward gained", "audit gained"], rows)]


def optimisation(run: RunData) -> list:
    """Proxy and audit reward against KL over the iterations: a gap that opens is the reward being hacked."""
    stage = run.stages["rlhf"]
    kl, drawings = dict(stage.series("kl_nats")), []
    distance = lambda step: kl.get(step, kl[max(kl)] if kl else 0.0)  # noqa: E731  the audit after the last update has no rollout of its own
    proxy, audit = ([(distance(step), y) for step, y in stage.series(name)] for name in ("audit_reward", "audit_score"))
    if audit and kl:
        drawings.append((
            figure("over-optimisation", "Score of reward and audit model against KL from sft",
                   lines([("reward model (the proxy)", "reward", sorted(proxy)), ("audit model", "audit", sorted(audit))], x="KL from sft, nats an answer", y="score")),
            "Answers to prompts kept for audits, scored against the distance travelled. A proxy that rises while the audit score falls means a hacked reward.",
        ))
    reward = stage.series("reward")
    if reward:
        drawings.append((figure("ppo-reward", "Reward of rollouts by iteration", lines([("rollouts", "reward", reward)], x="iteration", y="reward")),
                         "Reward of the answers practised on, in units of the normalised reward."))
    if not drawings:
        return [Prose("rlhf has logged no iterations in this run.", tone="missing")]
    return [Figures(drawings)]


def drift(run: RunData) -> list:
    found = run.under("drift/")
    labels = {"num_words": ("words an answer", "number"), "stopped": ("stops by itself", "percent"), "repetition": ("repeats itself", "percent"),
              "refused": ("refuses what is harmless", "percent"), "flattery": ("flattering phrases", "number"), "hedges": ("needless hedges", "number"), "filler": ("empty closing remarks", "number"),
              "polite": ("is polite", "percent"), "form_ok": ("has the asked form", "percent"), "relevant": ("is on topic", "percent")}
    rows = []
    for name, (label, style) in labels.items():
        if f"{name}/sft" in found:
            rows.append([Cell(label, tone="label"), measured(found[f"{name}/sft"], style), measured(found[f"{name}/rlhf"], style),
                         measured(found[f"{name}/difference"], "points" if style == "percent" else "signed")])
    if "distinct_answers/sft" in found:
        rows.append([Cell("different answers among all", tone="label"), *(Cell(percent(found[f"distinct_answers/{side}"]["value"]), f"n = {found[f'distinct_answers/{side}']['n']:,}") for side in ("sft", "rlhf")), ""])
    return [Table(["what else changed", "sft", "rlhf", "difference"], rows)] if rows else []


def safety(run: RunData) -> Section:
    section = Section("safety", "Harmful requests and their look-alikes", "Each harmful request has harmless twins that share its words. Balanced accuracy is the mean of refusing the one and helping with the other: refusing everything earns 50 %.")
    if not run.under("safety/"):
        return section.missing("Refusals were not measured in this run: they need the world's minimal pairs." if run.estimates else NO_EVALUATION)
    for decoding in ("sampled", "greedy"):
        found = run.under(f"safety/{decoding}/")
        if not found:
            continue
        rows = [[Cell("balanced accuracy", tone="label"), measured(found.get("balanced_accuracy/sft")), measured(found.get("balanced_accuracy/rlhf"), tone="strong"),
                 measured(found.get("balanced_accuracy/difference"), "points")]]
        for kind, label in (("harmful", "harmful, refused"), ("lookalike", "look-alike, helped")):
            rows.append([Cell(label, tone="label"), measured(found.get(f"{kind}/sft")), measured(found.get(f"{kind}/rlhf")), ""])
        for name in sorted({key.split("/")[1] for key in found if key.startswith("balanced_accuracy/unseen")}):
            rows.append([Cell(f"balanced accuracy, {name.replace('_', ' ')}", tone="label"), measured(found.get(f"balanced_accuracy/{name}/sft")), measured(found.get(f"balanced_accuracy/{name}/rlhf")), ""])
        section.blocks.append(Table([decoding, "sft", "rlhf", "difference"], rows))
    return section


def side_by_side(run: RunData) -> Section:
    section = Section("answers", "The same prompts, three models", "Drawn by seed from the held-out prompts, not picked. base goes on with the text of the prompt; sft and rlhf answer it.")
    records = run.records("side_by_side")[:NUM_SIDE_BY_SIDE]
    if not records:
        return section.missing("evaluate has left no answers in this run.")
    for record in records:
        columns = [(name, shown(record[name]["text"]), "" if record[name].get("stopped") else "cut at the length limit") for name in ("base", "sft", "rlhf", "reason") if isinstance(record.get(name), dict)]
        section.blocks.append(Answers(shown(record.get("prompt", "")), shown(record.get("kind") or ""), columns))
    return section


def memory(run: RunData) -> Section:
    section = Section("memory", "What it memorised", "Canaries: random secrets planted in the text a known number of times. Exposure is how far the true secret stands out among 64 candidates: 6 bits is full recall, 1.44 is chance.")
    exposure = {int(key): value for key, value in run.under("memorisation/exposure/").items() if key.isdigit()}
    if not exposure:
        return section.missing("No canaries were measured in this run.")
    rows = [[Cell(count(repeats), tone="label"), measured(exposure[repeats], "number"), measured(run.estimate(f"memorisation/first/{repeats}"))] for repeats in sorted(exposure)]
    section.blocks.append(Table(["times in the text", "exposure, bits", "likeliest of 64"], rows))
    return section


def likelihood(run: RunData) -> Section:
    section = Section("likelihood", "Held-out text, model by model", "Bits per byte, lower is better. Tuning costs some of what pretraining learnt; how much stands here.")
    models = [name for name in ("base", "sft", "rlhf") if run.under(f"bits_per_byte/{name}/")]
    if not models:
        return section.missing("Bits per byte were not measured by evaluate in this run." if run.estimates else NO_EVALUATION)
    sources = sorted({source for name in models for source in run.under(f"bits_per_byte/{name}/")}, key=lambda source: (source == "all", source))
    rows = [[Cell(shown(source), tone="label"), *(number((run.estimate(f"bits_per_byte/{name}/{source}") or {}).get("value")) for name in models)] for source in sources]
    section.blocks.append(Table(["source", *models], rows))
    return section


def everything(run: RunData) -> list[tuple[str, str, str, str]]:
    """All estimates as (name, value, interval and n, method and seed), for the table at the end."""
    rows = []
    for name, one in sorted(run.estimates.items()):
        low, high = one.get("low"), one.get("high")
        reach = f"{number(low, 4)} to {number(high, 4)}" if low is not None and high is not None else ""
        seed = f", seed {one['seed']}" if one.get("seed") is not None else ""
        rows.append((shown(name), number(one.get("value"), 4), f"{reach}{' · ' if reach else ''}n = {one.get('n')}", f"{shown(one.get('method', ''))}{seed}"))
    return rows
