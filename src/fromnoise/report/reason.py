"""What practising problems bought: right answers before and after, level by level, and what else it changed."""

from __future__ import annotations

from fromnoise.report.blocks import Cell, Figures, Prose, Section, Table, count, measured, shown
from fromnoise.report.collect import RunData
from fromnoise.report.figures import figure, lines, thinned
from fromnoise.tasks.problems import BY_NUMBER, FILE_LEVELS

MODELS = ("base", "sft", "rlhf", "reason")  # base: a finished model that was measured by itself


def reason(run: RunData) -> Section:
    section = Section(
        "reason", "What reasoning bought",
        "Problems whose answers can be checked, the world's in every step. None of those measured was ever practised: which these are is decided by a "
        "sum's operands, or by a file's questions.",
    )  # fmt: skip
    asked = run.problems_asked
    names = [name for name in MODELS if run.estimate(f"reason/sums/{name}")]
    if names == ["base"]:
        section.title, section.lede = "Problems with checkable answers", "Whether the model was trained on any of them is not known here."
        asked = "problems of the file"
    if not names:
        return section.missing("reason has not run in this run, or evaluate has not measured it.")
    rows = [[Cell("right, greedy", tone="label"), *(measured(run.estimate(f"reason/sums/{name}")) for name in names)]]
    section.blocks.append(Table([asked, *names], rows))
    differences = [
        [
            Cell(f"reason − {other}", tone="label"),
            *(measured(run.estimate(f"reason/minus_{other}/{key}"), "points") for key in ("sums", "everything_else", "form_and_stops")),
        ]
        for other in ("sft", "rlhf") if run.estimate(f"reason/minus_{other}/sums")
    ]  # fmt: skip
    if differences:
        section.blocks.append(
            Table(["paired differences, same problems or questions", f"{asked}, greedy", "everything else, right", "form and stops"], differences)
        )
    section.blocks.extend(by_level(run, names))
    section.blocks.extend(others(run))
    section.blocks.extend(practice(run))
    return section


def by_level(run: RunData, names: list[str]) -> list:
    levels = sorted({int(key) for name in names for key in run.under(f"reason/pass_1/{name}/") if key.isdigit()})
    practised = set(run.stages["reason"].summary.get("levels") or levels)
    if not levels:
        return []
    rows = []
    for level in levels:
        name = BY_NUMBER[level].name if level in BY_NUMBER else FILE_LEVELS.get(level, "problems of the file")
        cells = [measured(run.estimate(f"reason/{key}/{model}/{level}")) for key in ("pass_1", "pass_k") for model in names]
        rows.append([Cell(f"{level} {shown(name)}", "" if level in practised else "not practised", "label"), *cells])
    k = (run.recipe.get("evaluate") or {}).get("pass_k", "k")
    head = ["level", *(f"pass@1, {name}" for name in names), *(f"pass@{k}, {name}" for name in names)]
    caption = f"Sampled answers; pass@{k}: at least one of {k} is right (unbiased estimate, Chen et al. 2021). 95 % intervals over problems."
    return [Table(head, rows, caption=caption)]


def others(run: RunData) -> list:
    found = {other: run.under(f"reason/minus_{other}/correct/") for other in ("sft", "rlhf")}
    kinds = sorted({kind for one in found.values() for kind in one})
    if not kinds:
        return []
    rows = [[Cell(shown(kind), tone="label"), *(measured(found[other].get(kind), "points") for other in found)] for kind in kinds]
    return [Table(["right answers to held-out questions, by kind", *(f"reason − {other}" for other in found)], rows)]


def practice(run: RunData) -> list:
    stage = run.stages["reason"]
    drawings = []
    found, held = stage.series("correct_frac"), stage.series("validation_correct_frac")
    if found:
        series = [("practised, sampled", "sft", thinned(found)), ("validation, greedy", "rlhf", held)]
        drawings.append((figure("reason-correct", "Right answers by iteration", lines([one for one in series if one[2]], x="iteration", y="right answers")),
                         "Right answers while practising. The curriculum moves to harder levels as easier ones are solved."))  # fmt: skip
    anchor = stage.series("anchor_kl_nats")
    if anchor:
        drawer = lines([("anchor", "rlhf", thinned(anchor))], x="iteration", y="nats a token")
        drawings.append((figure("reason-anchor", "Distance from the rlhf model on other prompts", drawer),
                         "How far the model has moved from rlhf where nothing was practised: KL a token on the rlhf model's own answers."))  # fmt: skip
    blocks = [Figures(drawings)] if drawings else []
    taught, old = stage.series("groups_taught"), stage.series("groups_from_buffer")
    if taught:
        groups, waited = (count(sum(y for _, y in series)) for series in (taught, old))
        text = f"In {groups} groups the answers earned differently, without which a group teaches nothing"
        text += f"; {waited} times one that had waited stood in for a group that earned the same." if waited != "0" else "."
        blocks.append(Prose(text, tone="note"))
    if stage.value("chosen_iteration") == 0:
        blocks.append(Prose("No later policy solved more of the problems set aside than rlhf did, so reason holds the weights of rlhf.", tone="note"))
    return blocks
