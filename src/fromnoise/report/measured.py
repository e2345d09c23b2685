"""The second half of the page: what each phase bought, with intervals and counts; and the answers themselves."""

from __future__ import annotations

import math

from fromnoise.evaluate.memorisation import CHANCE_EXPOSURE, NUM_CANDIDATES
from fromnoise.report.blocks import Answers, Cell, Figures, Prose, Section, Table, count, measured, number, shown
from fromnoise.report.collect import RunData
from fromnoise.report.figures import figure, rungs

MODELS = (("base_plain", "base, best plain prompt"), ("base_template", "base, chat template"), ("sft", "sft"), ("rlhf", "rlhf"), ("reason", "reason"))
MEASURED_SETS = {"questions": "questions", "prompts": "prompts of RLHF against SFT", "requests": "harmful requests and look-alikes",
                 "sums": "sums", "problems": "problems", "pairs": "prompts of held-out pairs"}  # fmt: skip
MATERIALS = {"conversations": "training conversations", "training_prompts": "training prompts"}
PLAIN_FORMS = {"bare": "the question alone", "question and answer": "“Question: ... Answer:”", "the task's own": "the form that documents use",
               "three worked examples": "three questions with their answers before it"}  # fmt: skip
LOOKS = {"exact": "word for word", "normalised": "but for case and punctuation", "contained": "in a longer message"}
NUM_SIDE_BY_SIDE = 12
NO_EVALUATION = "evaluate has not run in this run: nothing is measured yet. `fromnoise evaluate` makes these numbers."


def headline(run: RunData) -> list[tuple[str, Cell]]:
    """The few numbers at the top: (what, value with interval)."""
    stage, found = run.stages["pretrain"], []
    bits, label = stage.summary.get("validation_bits_per_byte"), f"bits per byte of {'text' if run.recipe.get('from') else 'held-out text, base model'}"
    if run.estimate("bits_per_byte/base/all"):
        found.append((label, measured(run.estimate("bits_per_byte/base/all"), "number")))
    elif isinstance(bits, (int, float)):  # not evaluated yet: what training saw, without an interval
        found.append((label, Cell(number(bits))))
    for name, label, style in (
        ("questions/sft/form_and_stops", "sft answers in the asked form and stops", "percent"),
        ("questions/sft/correct/context", "sft right, fact in the prompt", "percent"),
        ("questions/sft/correct/mentioned 64 times or more", "sft right from memory, 64 mentions or more", "percent"),
        ("preference/sampled/oracle", "rlhf preferred to sft by the oracle, the world's truth", "percent"),
        ("preference/sampled/oracle_length_controlled", "rlhf preferred by the oracle at equal length", "percent"),
        ("preference/sampled/correct_difference", "correctness, rlhf minus sft", "points"),
        ("reason/sums/base", "problems of the file right", "percent"),
        ("reason/sums/sft", f"{run.problems_asked} right, sft", "percent"),
        ("reason/minus_sft/sums", f"{run.problems_asked} right, reason minus sft", "points"),
        ("safety/sampled/balanced_accuracy/rlhf", "rlhf right on harmful requests and look-alikes", "percent"),
        ("safety/sampled/balanced_accuracy/difference", "harmful requests and look-alikes, rlhf minus sft", "points"),
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
    section = Section(
        "questions", "What tuning bought", "Held-out questions put to each model. Their facts stand in documents and in no training conversation."
    )
    names = [(name, label) for name, label in MODELS if run.under(f"questions/{name}/")]
    if not names:
        return section.missing("No questions were put in this run: they need the world's, and evaluate." if run.estimates else NO_EVALUATION)
    rows = []
    for label, key in (
        ("answers in the asked form and stops", "form_and_stops"),
        ("stops by itself", "stops"),
        ("right, fact in the prompt", "correct/context"),
        ("right from memory, 64 mentions or more", "correct/mentioned 64 times or more"),
        ("right, worked sums", "correct/sum"),
        ("admits what nobody knows", "correct/unknown"),
    ):
        cells = [measured(run.estimate(f"questions/{name}/{key}")) for name, _ in names]
        if any(cell.tone != "quiet" for cell in cells):
            rows.append([Cell(label, tone="label"), *cells])
    plain = next((record.get("plain_prompt") for record in run.records("questions_base_plain") if record.get("plain_prompt")), None)
    section.blocks.append(Table(["", *(label for _, label in names)], rows, caption="95 % intervals (Wilson)."))
    if plain:
        said = f"The base model's plain prompt was chosen among several on other questions: {PLAIN_FORMS.get(plain, shown(plain))}."
        section.blocks.append(Prose(said, tone="note"))
    ladders = {name: {int(key): value for key, value in run.under(f"questions/{name}/ladder/").items() if key.isdigit()} for name, _ in names}
    drawn = [(label, name.removesuffix("_plain"), ladders[name]) for name, label in names if ladders[name] and name != "base_template"]
    if drawn:
        section.blocks.append(
            Figures(
                [
                    (
                        figure(
                            "ladder",
                            "Accuracy of closed-book answers by number of mentions",
                            rungs(drawn, x="mentions of the fact in the documents", y="right answers"),
                        ),
                        "The ladder: how often a fact must be read before it is known. Closed book, 95 % intervals.",
                    )
                ]
            )
        )
        steps = sorted({mentions for ladder in ladders.values() for mentions in ladder})
        section.blocks.append(
            Table(
                ["mentions", *(label for _, label in names)],
                [[Cell(count(m), tone="label"), *(measured(ladders[name].get(m)) for name, _ in names)] for m in steps],
            )
        )
    kinds = sorted({key for name, _ in names for key in run.under(f"questions/{name}/form_and_stops/")})
    if kinds:
        section.blocks.append(
            Table(
                ["asked form and stops, by kind", *(label for _, label in names)],
                [
                    [Cell(shown(kind), tone="label"), *(measured(run.estimate(f"questions/{name}/form_and_stops/{kind}")) for name, _ in names)]
                    for kind in kinds
                ],
            )
        )
    return section


def contamination(run: RunData) -> Section:
    """How often what is measured was found in what was trained on, by set of prompts, and what that means."""
    section = Section(
        "contamination",
        "Was any of it trained on?",
        "Every prompt that is measured was looked for in the conversations of instruction tuning and in the prompts that reward models, rlhf and "
        "reason may learn on: word for word, but for case and punctuation, and as part of longer messages.",
    )
    found = run.under("contamination/")
    if not found:
        return section.missing("Nothing was looked for in this run." if run.estimates else NO_EVALUATION)
    sets = [(name, label) for name, label in MEASURED_SETS.items() if any(key.startswith(f"{name}/") for key in found)]
    materials = [(name, label) for name, label in MATERIALS.items() if any(f"/{name}/" in key for key in found)]
    head = ["", "n", *(f"{label}, {words}" for _, label in materials for words in LOOKS.values())]
    rows, alarms = [], []
    for name, label in sets:
        row = []
        for material, where in materials:
            looks = {look: found[f"{name}/{material}/{look}"] for look in LOOKS}
            forbidden = (name, material) != ("pairs", "conversations")
            for look, one in looks.items():
                tone = "bad" if one["value"] else "good"
                row.append(Cell(count(one["value"]), tone=tone if forbidden and look != "contained" else ""))
            if forbidden and looks["normalised"]["value"]:
                alarms.append(f"{count(looks['normalised']['value'])} of {count(looks['normalised']['n'])} {label} stand in the {where}")
        rows.append([Cell(label, tone="label"), count(looks["exact"]["n"]), *row])
    if rows:
        section.blocks += [Table(head, rows), Prose(_said_of(alarms, [name for name, _ in materials], [name for name, _ in sets]), tone="note")]
    if named := found.get("subject_and_value"):
        said = f"Of {count(named['n'])} questions about facts, whom they ask about and the answer are named in one training conversation for"
        section.blocks.append(Prose(f"{said} {count(named['value'])}: where names repeat, a few are by chance.", tone="note"))
    return section


def _said_of(alarms: list[str], materials: list[str], sets: list[str]) -> str:
    if alarms:
        words = [f"Found where it must not be: {'; '.join(alarms)}. What is measured on these may be remembered rather than known."]
    else:
        words = ["No prompt stands where it must not, word for word or but for case and punctuation."]
    words.append("Parts of longer messages are found by chance where prompts are short.")
    if "pairs" in sets and "conversations" in materials:
        words.append("The prompt of a held-out pair may stand in a conversation: what is held out there is the comparison of its answers.")
    words += [f"The {label} were not looked through: there are none, or their files are gone." for name, label in MATERIALS.items() if name not in materials]
    return " ".join([*words, "The text of pretraining was not looked through."])


def side_by_side(run: RunData) -> Section:
    section = Section(
        "answers",
        "The same prompts, every model",
        "Drawn by seed from the held-out prompts, not picked. base goes on with the text of the prompt; the others answer it.",
    )
    records = run.records("side_by_side")[:NUM_SIDE_BY_SIDE]
    if not records:
        return section.missing("evaluate has left no answers in this run.")
    for record in records:
        columns = [
            (name, shown(record[name]["text"]), "" if record[name].get("stopped") else "cut at the length limit")
            for name in ("base", "sft", "rlhf", "reason")
            if isinstance(record.get(name), dict)
        ]
        section.blocks.append(Answers(shown(record.get("prompt", "")), shown(record.get("kind") or ""), columns))
    return section


def memory(run: RunData) -> Section:
    section = Section(
        "memory",
        "What it memorised",
        "Canaries: random secrets planted in the text a known number of times. Exposure is how far the true secret stands out "
        f"among {NUM_CANDIDATES} candidates: {math.log2(NUM_CANDIDATES):g} bits is full recall, {CHANCE_EXPOSURE:.2f} is chance.",
    )
    exposure = {int(key): value for key, value in run.under("memorisation/exposure/").items() if key.isdigit()}
    if not exposure:
        return section.missing("No canaries were measured in this run.")
    rows = [
        [Cell(count(repeats), tone="label"), measured(exposure[repeats], "number"), measured(run.estimate(f"memorisation/first/{repeats}"))]
        for repeats in sorted(exposure)
    ]
    section.blocks.append(Table(["times in the text", "exposure, bits", f"likeliest of {NUM_CANDIDATES}"], rows))
    return section


def likelihood(run: RunData) -> Section:
    section = Section(
        "likelihood", "Held-out text, model by model", "Bits per byte, lower is better. Tuning costs some of what pretraining learnt; how much stands here."
    )
    if run.alone:
        section.title = "The texts"
        section.lede = "Bits per byte, lower is better, of texts as they are. Whether the model was trained on any of them is not known here."
    models = [name for name in ("base", "sft", "rlhf", "reason") if run.under(f"bits_per_byte/{name}/")]
    if not models:
        return section.missing("Bits per byte were not measured by evaluate in this run." if run.estimates else NO_EVALUATION)
    sources = sorted({source for name in models for source in run.under(f"bits_per_byte/{name}/")}, key=lambda source: (source == "all", source))
    rows = [
        [Cell(shown(source), tone="label"), *(measured(run.estimate(f"bits_per_byte/{name}/{source}"), "number") for name in models)]
        for source in sources
    ]
    section.blocks.append(Table(["source", *models], rows, caption="95 % intervals (bootstrap over rows of text); n counts rows."))
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
