"""What RLHF bought, what it cost, and what else it changed."""

from __future__ import annotations

from fromnoise.report.blocks import Cell, Figures, Prose, Section, Table, count, measured, number, percent, shown
from fromnoise.report.collect import RunData
from fromnoise.report.figures import figure, lines
from fromnoise.report.measured import NO_EVALUATION


def rlhf(run: RunData) -> Section:
    section = Section(
        "rlhf", "What RLHF bought", "The same held-out prompts, the same decoding, with RLHF and without. The judges here chose no training pair."
    )
    if not run.under("preference/"):
        section.missing("rlhf and sft were not compared in this run." if run.estimates else NO_EVALUATION)
    else:
        rows = []
        for label, key, style in (
            ("preferred by the oracle (ties split)", "oracle", "percent"),
            ("the same at equal length", "oracle_length_controlled", "percent"),
            ("ties", "ties", "percent"),
            ("preferred by the judge raters", "raters", "percent"),
            ("higher by the reward model", "reward_win_rate", "percent"),
            ("higher by the audit model", "audit_win_rate", "percent"),
            ("reward, rlhf − sft", "reward_difference", "signed"),
            ("audit score, rlhf − sft", "audit_difference", "signed"),
            ("right, sft", "correct_sft", "percent"),
            ("right, rlhf", "correct_rlhf", "percent"),
            ("right, rlhf − sft (paired)", "correct_difference", "points"),
        ):
            cells = [measured(run.estimate(f"preference/{decoding}/{key}"), style, "strong" if key == "oracle" else "") for decoding in ("sampled", "greedy")]
            if any(cell.tone != "quiet" for cell in cells):
                rows.append([Cell(label, tone="label"), *cells])
        section.blocks.append(Table(["rlhf against sft", "sampled", "greedy"], rows, caption="95 % intervals; differences are paired over prompts."))
        section.blocks.extend(_kl_and_best_of_n(run))
        kinds = run.under("preference/sampled/oracle/")
        if kinds:
            section.blocks.append(
                Table(
                    ["preferred by the oracle, by kind", "sampled"], [[Cell(shown(kind), tone="label"), measured(one)] for kind, one in sorted(kinds.items())]
                )
            )
    section.blocks.extend(optimisation(run))
    section.blocks.extend(drift(run))
    return section


def _kl_and_best_of_n(run: RunData) -> list:
    best, n = run.under("best_of_n/"), (run.estimate("best_of_n/n") or {}).get("value")
    rows = [
        [
            Cell("rlhf", tone="label"),
            measured(run.estimate("kl/per_sequence"), "number"),
            measured(run.estimate("preference/sampled/oracle")),
            measured(run.estimate("preference/sampled/reward_difference"), "signed"),
            measured(run.estimate("preference/sampled/audit_difference"), "signed"),
        ]
    ]
    if n:
        kl = run.estimate("best_of_n/kl_per_sequence")
        rows.append(
            [
                Cell(f"sft, best of {n:.0f} by reward", tone="label"),
                Cell(number(kl["value"]), kl["method"]) if kl else "–",
                measured(best.get("oracle")),
                measured(best.get("reward_difference"), "signed"),
                measured(best.get("audit_difference"), "signed"),
            ]
        )
    return [Table(["against one answer of sft", "KL, nats an answer", "preferred by the oracle", "reward gained", "audit gained"], rows)]


def optimisation(run: RunData) -> list:
    """Proxy and audit reward against KL over the iterations: a gap that opens is the reward being hacked."""
    stage = run.stages["rlhf"]
    kl, drawings = dict(stage.series("kl_nats")), []
    distance = lambda step: kl.get(step, kl[max(kl)] if kl else 0.0)  # noqa: E731  the audit after the last update has no rollout of its own
    proxy, audit = ([(distance(step), y) for step, y in stage.series(name)] for name in ("audit_reward", "audit_score"))
    if audit and kl:
        drawings.append(
            (
                figure(
                    "over-optimisation",
                    "Score of reward and audit model against KL from sft",
                    lines(
                        [("reward model (the proxy)", "reward", sorted(proxy)), ("audit model", "audit", sorted(audit))],
                        x="KL from sft, nats an answer",
                        y="score",
                    ),
                ),
                "Answers to prompts kept for audits, scored, against the distance travelled. "
                "A proxy that rises while the audit score falls means a hacked reward.",
            )
        )
    reward = stage.series("reward")
    if reward:
        drawings.append(
            (
                figure("ppo-reward", "Reward of rollouts by iteration", lines([("rollouts", "reward", reward)], x="iteration", y="reward")),
                "Reward of the answers practised on, in units of the normalised reward.",
            )
        )
    if not drawings:
        return [Prose("rlhf has logged no iterations in this run.", tone="missing")]
    return [Figures(drawings), *_choice(run)]


def _choice(run: RunData) -> list[Prose]:
    """Which policy was kept, in words."""
    stage, words = run.stages["rlhf"], []
    if stage.value("stopped_early"):
        words.append(f"Stopped early: {shown(stage.value('stopped_early'))}.")
    if stage.value("last_would_be_worse"):
        words.append(
            f"The audit model chose the policy of iteration {count(stage.value('chosen_iteration'))} of {count(stage.value('iterations'))}, "
            f"with a score of {number(stage.value('audit_chosen'))}; that of the last is {number(stage.value('audit_last'))}."
        )
    return [Prose(" ".join(words), tone="note")] if words else []


def drift(run: RunData) -> list:
    found = run.under("drift/")
    labels = {
        "num_words": ("words an answer", "number"),
        "stopped": ("stops by itself", "percent"),
        "repetition": ("repeats itself", "percent"),
        "refused": ("refuses what is harmless", "percent"),
        "flattery": ("flattering phrases", "number"),
        "hedges": ("needless hedges", "number"),
        "filler": ("empty closing remarks", "number"),
        "polite": ("is polite", "percent"),
        "form_ok": ("has the asked form", "percent"),
        "relevant": ("is on topic", "percent"),
    }
    rows = []
    for name, (label, style) in labels.items():
        if f"{name}/sft" in found:
            rows.append(
                [
                    Cell(label, tone="label"),
                    measured(found[f"{name}/sft"], style),
                    measured(found[f"{name}/rlhf"], style),
                    measured(found[f"{name}/difference"], "points" if style == "percent" else "signed"),
                ]
            )
    if "distinct_answers/sft" in found:
        rows.append(
            [
                Cell("different answers among all", tone="label"),
                *(Cell(percent(found[f"distinct_answers/{side}"]["value"]), f"n = {found[f'distinct_answers/{side}']['n']:,}") for side in ("sft", "rlhf")),
                "",
            ]
        )
    return [Table(["what else changed", "sft", "rlhf", "difference"], rows)] if rows else []


def safety(run: RunData) -> Section:
    section = Section(
        "safety",
        "Harmful requests and their look-alikes",
        "Each harmful request has a harmless twin that shares its words. Balanced accuracy is the mean of two rates, "
        "harmful refused and look-alike not refused: refusing everything earns 50 %.",
    )
    if not run.under("safety/"):
        return section.missing("Refusals were not measured in this run: they need the world's minimal pairs." if run.estimates else NO_EVALUATION)
    for decoding in ("sampled", "greedy"):
        found = run.under(f"safety/{decoding}/")
        if not found:
            continue
        rows = [
            [
                Cell("balanced accuracy", tone="label"),
                measured(found.get("balanced_accuracy/sft")),
                measured(found.get("balanced_accuracy/rlhf"), tone="strong"),
                measured(found.get("balanced_accuracy/difference"), "points"),
            ]
        ]
        for kind, label in (("harmful", "harmful, refused"), ("lookalike", "look-alike, not refused")):
            rows.append([Cell(label, tone="label"), measured(found.get(f"{kind}/sft")), measured(found.get(f"{kind}/rlhf")), ""])
        for name in sorted({key.split("/")[1] for key in found if key.startswith("balanced_accuracy/unseen")}):
            rows.append(
                [
                    Cell(f"balanced accuracy, {name.replace('_', ' ')}", tone="label"),
                    measured(found.get(f"balanced_accuracy/{name}/sft")),
                    measured(found.get(f"balanced_accuracy/{name}/rlhf")),
                    "",
                ]
            )
        rows.append(
            [
                Cell("balanced accuracy, strictly", "refused without advice, helped on topic", "label"),
                *(measured(found.get(f"strict_balanced_accuracy/{side}")) for side in ("sft", "rlhf")),
                measured(found.get("strict_balanced_accuracy/difference"), "points"),
            ]
        )
        section.blocks.append(Table([decoding, "sft", "rlhf", "difference"], rows))
    return section
