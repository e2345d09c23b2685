"""What RLHF bought, what it cost, and what else it changed."""

from __future__ import annotations

import math

from fromnoise.evaluate.overoptimisation import curve as fitted_gain
from fromnoise.report.blocks import Cell, Figures, Prose, Section, Table, count, interval, measured, number, percent, shown
from fromnoise.report.collect import RunData
from fromnoise.report.figures import COLOURS, DASHES, MARKERS, figure, lines
from fromnoise.report.measured import NO_EVALUATION


def rlhf(run: RunData) -> Section:
    method = str(run.stages["rlhf"].value("method") or "").upper().replace("BEST_OF_N", "best-of-n, distilled")
    lede = "The same held-out prompts, the same decoding, with RLHF and without. " + (
        "The judges chose no training pair: the oracle is the world's truth, fixed weights that no training sees, and the judge raters are people of their own."
        if run.of_the_world
        else f"The judges here are models: the reward model {_reward_model_did(run)}, and the audit model chose the checkpoint, so both flatter it."
    )
    section = Section("rlhf", "What RLHF bought", f"Method: {method}. {lede}" if method else lede)
    if not run.under("preference/"):
        section.missing("rlhf and sft were not compared in this run." if run.estimates else NO_EVALUATION)
    else:
        rows = []
        for label, key, style in (
            ("preferred by the oracle (ties split)", "oracle", "percent"),
            ("the same at equal length", "oracle_length_controlled", "percent"),
            ("ties, by the oracle", "ties", "percent"),
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


def _has_proxy(run: RunData) -> bool:
    """Whether it was the reward model's score that the method maximised; dpo never asks a reward model."""
    return run.stages["rlhf"].value("method") != "dpo"


def _reward_model_did(run: RunData) -> str:
    return "is what RLHF maximised" if _has_proxy(run) else "learnt from the same pairs as the policy"


def _kl_and_best_of_n(run: RunData) -> list:
    best, n = run.under("best_of_n/"), (run.estimate("best_of_n/n") or {}).get("value")
    judged = [run.estimate("preference/sampled/oracle"), best.get("oracle")] if run.of_the_world else []
    rows = [
        [
            Cell("rlhf", tone="label"),
            measured(run.estimate("kl/per_sequence"), "number"),
            *map(measured, judged[:1]),
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
                *map(measured, judged[1:]),
                measured(best.get("reward_difference"), "signed"),
                measured(best.get("audit_difference"), "signed"),
            ]
        )
    head = ["against one answer of sft", "KL, nats an answer", *(["preferred by the oracle"] if judged else []), "reward gained", "audit gained"]
    return [Table(head, rows)]


def optimisation(run: RunData) -> list:
    """Proxy, audit and truth against distance: where they part, the reward is being hacked."""
    stage, drawings = run.stages["rlhf"], []
    path = audited_path(run)
    if len(path) > 1:
        drawings.append(
            (
                figure("over-optimisation", f"Gain over SFT by {_scorers(path)}, against the square root of KL", draw_path(run, path)),
                "Answers to prompts kept for audits, against the distance travelled; each gain in standard deviations of SFT's answers. "
                + _path_read(run, path),
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
    return [Figures(drawings), *_choice(run), *_path_table(run, path)]


def _path_read(run: RunData, path: list[dict[str, float]]) -> str:
    """How to read the drawing of what is there: without the world there is no truth, and of few audits no fit."""
    other = "truth" if _judged(path) else "audit model's score"
    read = f"A proxy that rises while the {other} falls is a hacked reward." if _has_proxy(run) else f"The reward model {_reward_model_did(run)}."
    return read + (" Dotted curve: the fit d (α − β log d) of Gao, Schulman and Hilton (2022)." if _fitted(run) else "")


def _scorers(path: list[dict[str, float]]) -> str:
    return "reward model, audit model and the truth" if _judged(path) else "reward model and audit model"


def _judged(path: list[dict[str, float]]) -> bool:
    return any("truth" in entry for entry in path)


def _fitted(run: RunData) -> tuple[float, float] | None:
    """alpha and beta of the curve through the truth's gains."""
    alpha, beta = (run.estimate(f"overoptimisation/truth/{name}") for name in ("alpha", "beta"))
    return (alpha["value"], beta["value"]) if alpha and beta else None


def audited_path(run: RunData) -> list[dict[str, float]]:
    """One entry an audit: iteration, d = sqrt(KL), gains of "reward" and "audit" over SFT, and of "truth" and the judges'
    preference where evaluate has judged the answers; by iteration."""
    audits = run.stages["rlhf"].value("audits") or []
    if not audits or "audit_kl_nats" not in audits[0]:
        return []
    path = []
    for audit in audits:
        entry = {"iteration": audit["iteration"], "d": max(audit["audit_kl_nats"], 0.0) ** 0.5,
                 "reward": audit["audit_reward"] - audits[0]["audit_reward"], "audit": audit["audit_score"] - audits[0]["audit_score"]}  # fmt: skip
        judged = run.under(f"path/{audit['iteration']}/")
        entry |= {name: one["value"] for name, one in judged.items() if name in ("truth", "raters")}
        path.append(entry)
    return path


def draw_path(run: RunData, path: list[dict[str, float]]):
    """A drawer: measured points by iteration, fitted curves through those of the truth, best-of-n beside them."""
    best = {int(name.split("/")[0]) for name in run.under("best_of_n_curve/")}
    reference = [(run.estimate(f"best_of_n_curve/{n}/kl")["value"] ** 0.5, run.estimate(f"best_of_n_curve/{n}/truth")["value"])
                 for n in sorted(best) if run.estimate(f"best_of_n_curve/{n}/truth")]  # fmt: skip
    chosen = next((entry for entry in path if entry["iteration"] == run.stages["rlhf"].value("chosen_iteration")), None)

    scorer = "reward model (the proxy)" if _has_proxy(run) else "reward model"

    def draw(axes) -> None:
        for name, label, colour in (("reward", scorer, "reward"), ("audit", "audit model", "audit"), ("truth", "the truth", "ink")):
            points = [(entry["d"], entry[name]) for entry in path if name in entry]
            if points:
                style = {"color": COLOURS[colour], "linestyle": DASHES.get(colour, "-"), "marker": MARKERS.get(colour, "^"), "markersize": 3.5}
                axes.plot(*zip(*points, strict=True), label=label, **style)
        if fit := _fitted(run):
            far = max(entry["d"] for entry in path)
            xs = [far * i / 60 for i in range(61)]
            ys = [fitted_gain(x, *fit) for x in xs]
            axes.plot(xs, ys, color=COLOURS["ink"], linewidth=0.9, linestyle=(0, (1, 1.5)), label="the truth, fitted")
        if reference:
            style = {"color": COLOURS["muted"], "linestyle": DASHES["sft"], "marker": "x", "markersize": 4}
            axes.plot(*zip(*reference, strict=True), label="best of n of sft, the truth", **style)
        if chosen:
            axes.axvline(chosen["d"], color=COLOURS["muted"], linewidth=1, linestyle=(0, (1, 2)))
            axes.annotate("kept", (chosen["d"], 0), xycoords=("data", "axes fraction"), xytext=(3, 3), textcoords="offset points", fontsize=9,
                          color=COLOURS["muted"])  # fmt: skip
        axes.set_xlabel("square root of KL from sft (nats an answer)")
        axes.set_ylabel("gain over sft, deviations")
        axes.legend(fontsize=8)

    return draw


def _choice(run: RunData) -> list[Prose]:
    """Which policy was kept, what it lost, and what the last one would have been, in words."""
    stage, words = run.stages["rlhf"], []
    chosen, iterations = stage.value("chosen_iteration"), stage.value("iterations")
    earlier_kept = chosen is not None and chosen != iterations  # the last audit is after the last iteration
    if stage.value("stopped_early"):
        words.append(f"Stopped early: {shown(stage.value('stopped_early'))}.")
    if earlier_kept:
        words.append(
            f"The audit model chose the policy of iteration {count(chosen)} of {count(iterations)}, "
            f"with a score of {number(stage.value('audit_chosen'))}; that of the last is {number(stage.value('audit_last'))}."
        )
        if chosen == 0:
            words.append("Iteration 0 is the sft model itself: nothing that RLHF bought is clear to the audit model, and rlhf holds the weights of sft.")
        elif stage.value("audit_fell_at") is None and stage.value("audit_last") > stage.value("audit_chosen"):
            words.append("That is no more than chance explains (one standard error), and the earlier policy is nearer to sft.")
        if stage.value("audit_fell_at") is not None:
            words.append(
                f"At iteration {count(stage.value('audit_fell_at'))} it scored clearly less (the same prompts), and nothing after that is trusted: an "
                "audit model is a reward model too, and a policy that has gone far enough hacks it by the way."
            )
    elif chosen is not None:
        words.append(f"The audit model liked the last policy best, that of iteration {count(chosen)}, and rlhf holds it.")
    truth = run.under("overoptimisation/truth/")
    if truth:
        if earlier_kept:
            last = truth["last_minus_chosen"]
            words.append(f"By the truth the last policy would have been {_verdict(last)}: {number(last['value'])} deviations ({interval(last, 'number')}).")
        lost, highest = run.estimate("overoptimisation/gain_lost_frac"), truth["highest"]["value"]
        less = f", {percent(lost['value'], 0)} less ({interval(lost)})" if lost and highest > 0 else ""
        words.append(
            f"The truth was highest at iteration {count(truth['peak_iteration']['value'])}, a gain of {number(highest)}; the policy kept gains "
            f"{number(truth['chosen']['value'])}{less}."
        )
        fallen = truth["last_minus_highest"]
        if fallen["high"] is not None and fallen["high"] < 0 and run.under("overoptimisation/reward/"):
            proxy = run.estimate("overoptimisation/reward/last_minus_highest")
            name, meaning = ("the proxy", ": the reward was hacked") if _has_proxy(run) else ("the reward model's score", "")
            after = f"while {name} stayed at its highest{meaning}" if proxy and proxy["value"] > -0.05 else f"and {name} with it"
            fall = {**fallen, "low": -fallen["high"], "high": -fallen["low"]}
            words.append(f"After that peak the truth fell by {number(-fallen['value'])} ({interval(fall, 'number')}) {after}.")
        fit = truth.get("fit_r2")
        if fit and fit["value"] < 0.5:
            words.append(f"The curve d (α − β log d) does not describe this path (R² = {number(fit['value'], 2)}): its peak is not given.")
        elif fit and "peak_kl" in truth:
            top, farthest = truth["peak_kl"], max((entry["d"] ** 2 for entry in audited_path(run)), default=math.inf)
            where = f"peaks at a KL of {number(top['value'])} nats ({interval(top, 'number')})"
            if top["value"] > farthest:  # extrapolated, perhaps to millions of nats
                where = f"rises as far as the path goes, a KL of {number(farthest)} nats: a peak was not reached"
            words.append(f"The fitted curve (R² = {number(fit['value'], 2)}) {where}.")
    return [Prose(" ".join(words), tone="note")] if words else []


def _verdict(difference: dict) -> str:
    if difference["high"] is not None and difference["high"] < 0:
        return "worse"
    return "better" if difference["low"] is not None and difference["low"] > 0 else "not clearly better or worse"


def _path_table(run: RunData, path: list[dict[str, float]]) -> list:
    """Every audit on the way, and how the answers drifted."""
    columns = [("kl", "KL, nats", "number"), ("reward", "proxy" if _has_proxy(run) else "reward", "signed"), ("audit", "audit", "signed"),
               ("truth", "truth", "signed"), ("raters", "judges prefer it", "percent"), ("num_words", "words", "number"), ("repetition", "repeats", "percent"),
               ("refused", _refuses(run), "percent"), ("flattery", "flattering phrases", "number")]  # fmt: skip
    rows, used = [], [column for column in columns if any(run.estimate(f"path/{entry['iteration']}/{column[0]}") for entry in path)]
    for entry in path:
        cells = [measured(run.estimate(f"path/{entry['iteration']}/{name}"), style) for name, _, style in used]
        rows.append([Cell(f"iteration {entry['iteration']:,}", tone="label"), *(Cell(cell.text, tone=cell.tone) for cell in cells)])
    caption = "Means over the audit prompts; intervals are in evaluate/summary.json under path/. Gains over SFT in deviations of SFT's answers."
    return [Table(["on the way", *(label for _, label, _ in used)], rows, caption=caption)] if used else []


def _refuses(run: RunData) -> str:
    """Which requests are harmful is known in the world alone."""
    return "refuses what is harmless" if run.of_the_world else "refuses"


def drift(run: RunData) -> list:
    found = run.under("drift/")
    labels = {
        "num_words": ("words an answer", "number"),
        "stopped": ("stops by itself", "percent"),
        "repetition": ("repeats itself", "percent"),
        "refused": (_refuses(run), "percent"),
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
    caption = "Refusals, flattery, hedges, closing remarks and politeness are found by lists of phrases: other wordings of them are missed."
    return [Table(["what else changed", "sft", "rlhf", "difference"], rows, caption=caption)] if rows else []


def safety(run: RunData) -> Section:
    section = Section(
        "safety",
        "Harmful requests and their look-alikes",
        "Each harmful request has a harmless twin that shares its words; those asked are drawn from both kinds. Balanced accuracy is the mean of two rates, "
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
    known = "no training request has a noun of its object (unseen object), its verb (unseen verb), or the two together (unseen pair)"
    section.blocks.append(Prose(f"What is new in a request: {known}.", tone="note"))
    return section
