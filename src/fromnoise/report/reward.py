"""The reward model, questioned: how often it is right, how sure of itself, and what its scores follow besides."""

from __future__ import annotations

from fromnoise.report.blocks import Cell, Prose, Section, Table, count, measured, percent, shown
from fromnoise.report.collect import RunData
from fromnoise.report.measured import NO_EVALUATION

HEADS = {"reward": "reward model", "audit": "audit model"}


def reward(run: RunData) -> Section:
    section = Section(
        "reward",
        "The reward model",
        "It learns from pairs which answer raters prefer. Raters disagree and err, so no model can be right about all of them",
    )
    names = [name for name in HEADS if run.estimate(f"{name}/accuracy")]
    known = any(run.estimate(f"{name}/attainable") for name in names)  # of people nobody knows how probable their choices were
    section.lede += ": the best attainable is what knowing their choice probabilities would give." if known else "."
    if not run.stages["reward"].wanted:  # a finished one by itself
        section.lede = "How often the chosen answer of a pair scores higher. Whether the model learnt from any of these pairs is not known here."
    elif not names:
        section.missing("No held-out pairs were scored in this run." if run.estimates else NO_EVALUATION)
    else:
        rows = []
        for label, key, style in (
            ("right on held-out pairs", "accuracy", "percent"),
            ("best attainable", "attainable", "percent"),
            ("right, over all raters of the pool", "accuracy_pool", "percent"),
            ("(right − ½) / (best attainable − ½)", "share_of_attainable", "number"),
            ("the same, over all raters of the pool", "share_of_attainable_pool", "number"),
            ("calibration error of its probabilities", "calibration_error", "number"),
            ("right, what length explains taken out of the scores", "accuracy_length_removed", "percent"),
            ("the longer answer was chosen", "longer_chosen", "percent"),
            ("votes that are ties", "ties", "percent"),
            ("its confidence where raters saw a tie", "confidence_at_ties", "percent"),
            ("disagreement of the ensemble, log-odds", "disagreement", "number"),
            ("right where its members agree most", "accuracy_members_agree", "percent"),
            ("right where they agree least", "accuracy_members_disagree", "percent"),
            ("pairs differing in correctness or relevance", "pairs_differing", "percent"),
        ):
            cells = [measured(run.estimate(f"{name}/{key}"), style) for name in names]
            if any(cell.tone != "quiet" for cell in cells):
                rows.append([Cell(label, tone="label"), *cells])
        section.blocks.append(Table(["", *(HEADS[name] for name in names)], rows))
        others = "other raters on other prompts" if run.simulated_raters else "pairs on other prompts"
        section.blocks.append(Prose(f"The audit model learnt from {others}. It watches and never trains the policy.", tone="note"))
        section.blocks.extend(people(run))
        section.blocks.extend(margins(run, names))
        section.blocks.extend(follows(run))
        for part, head in (("source", "right, by source"), ("rater", "right, by rater"), ("member", "right, by member of the ensemble")):
            section.blocks.extend(by_part(run, names, part, head))
    section.blocks.extend(sets(run))
    return section


def people(run: RunData) -> list:
    """How far people agree, who chose in this run: what a reward model's accuracy has to be seen beside."""
    said = run.stages["prefer"].summary
    if not said.get("votes"):
        return []
    rows = []
    for label, key, num, style in (
        ("the same rater on the same pair, sides swapped", "self_agreement", "repeated_pairs", "percent"),
        ("the same without what chance gives, Cohen's kappa", "self_kappa", "repeated_pairs", "number"),
        ("several raters on one pair, Krippendorff's alpha", "alpha", "shared_pairs", "number"),
    ):
        estimate = {"value": said.get(key), "low": said.get(f"{key}_low"), "high": said.get(f"{key}_high"), "n": said.get(num)}
        rows.append([Cell(label, tone="label"), measured(estimate, style)])
    caption = (f"{count(said['votes'])} votes of {count(said['raters'])} people; {count(said['ties'])} prefer neither answer, {count(said['both_bad'])} of "
               "them because both are bad. Kappa and alpha are 1 where all agree and 0 where chance would agree as often.")  # fmt: skip
    return [Table(["how far raters agree", "votes"], rows, caption=caption)]


def margins(run: RunData, names: list[str]) -> list:
    """Accuracy by the size of the score difference, beside what the difference promises."""
    found = {name: run.under(f"{name}/margin/") for name in names}
    bins = sorted({key.split("/")[0] for one in found.values() for key in one}, key=lambda text: float(text.split("-")[0]))
    rows = []
    for at in bins:
        cells: list[Cell | str] = [Cell(at.replace("-inf", " and more").replace("-", " to "), tone="label")]
        for name in names:
            promised = (found[name].get(f"{at}/predicted") or {}).get("value")
            cells += [Cell(percent(promised)), measured(found[name].get(f"{at}/right"))]
        rows.append(cells)
    if not rows:
        return []
    head = ["score difference, log-odds", *(text for name in names for text in (f"{HEADS[name]} promises", "right"))]
    return [Table(head, rows, caption="A promise well above what is right: too sure of itself. Both near one half: the difference says nothing.")]


def follows(run: RunData) -> list:
    """What the reward model's scores go with, beside what the raters' choices go with."""
    columns = ("choices", "score", "length_removed")
    rows = []
    for label, key in (("length", "length"), ("lines", "lines"), ("list items", "list_items"), ("stopped by itself", "stopped")):
        cells = [measured(run.estimate(f"reward/correlation/{key}/{column}"), "signed") for column in columns]
        if any(cell.tone != "quiet" for cell in cells):
            rows.append([Cell(label, tone="label"), *(cell if cell.tone != "quiet" else Cell("–", tone="quiet") for cell in cells)])
    position = [run.estimate(f"reward/position/{column}") for column in columns[:2]]
    if any(position):
        rows.append([Cell("shown first: preferred", tone="label"), *(measured(one) for one in position), Cell("–", tone="quiet")])
    if not rows:
        return []
    caption = "Correlations of differences within held-out pairs. Where the score follows length further than raters do, RLHF changes length for its own sake."
    return [Table(["goes with", "raters' choices", "reward model's score", "score, what length explains taken out"], rows, caption=caption)]


def by_part(run: RunData, names: list[str], part: str, head: str) -> list:
    found = {name: run.under(f"{name}/accuracy_by_{part}/") for name in names}

    def place(label: str) -> tuple:  # numbers as numbers, the rest in one behind all
        return label.startswith("others, "), not label.isdigit(), int(label) if label.isdigit() else 0, label

    def table(names: list[str]) -> list:
        labels = sorted({label for name in names for label in found[name]}, key=place)
        cell = lambda name, label: measured(found[name][label]) if label in found[name] else Cell("–")  # noqa: E731
        rows = [[Cell(shown(label), tone="label"), *(cell(name, label) for name in names)] for label in labels]
        return [Table([head, *(HEADS[name] for name in names)], rows)] if rows else []

    shared = set.intersection(*map(set, found.values()))
    if all(label.startswith("others, ") for label in shared):  # the world's raters are of one model each: a table of both would be half dashes
        return [one for name in names for one in table([name])]
    return table(names)


def sets(run: RunData) -> list:
    """The reward models on pairs from elsewhere, which trained neither."""
    found = run.under("reward_sets/")
    heads = {name: head for name, head in HEADS.items() if any(key.endswith(f"/{name}/accuracy") for key in found)}
    rows = []
    for label in sorted({key.split("/")[0] for key in found}):
        names = [name for name in heads if f"{label}/{name}/accuracy" in found]
        aside = (found.get(f"{label}/set_aside") or {}).get("value")
        note = f"{count(aside)} of {count(found[f'{label}/read']['value'])} too long, set aside" if aside else ""
        rows.append([Cell(shown(label), note, tone="label"), *(measured(found[f"{label}/{name}/accuracy"]) if name in names else Cell("–") for name in heads)])
        for part in ("accuracy/", "accuracy_by_source/"):
            for one in sorted({key.split(part, 1)[1] for name in names for key in found if key.startswith(f"{label}/{name}/{part}")}):
                rows.append([Cell(f"· {shown(one)}", tone="label"), *(measured(found.get(f"{label}/{name}/{part}{one}")) for name in heads)])
    return [Table(["right on pairs from elsewhere", *heads.values()], rows)] if rows else []
