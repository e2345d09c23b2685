"""The page: sections in the order of the pipeline, one template, everything escaped."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from fromnoise.report import making, measured, reason, reward, rlhf
from fromnoise.report.blocks import Section, count, duration, large, shown
from fromnoise.report.collect import RunData, collect


def render(run_folder: Path) -> str:
    """The HTML of a run's report: the same files give the same bytes. Missing stages are said to be missing."""
    import jinja2
    from markupsafe import Markup

    run = collect(run_folder)
    files = resources.files("fromnoise.report")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    template = environment.from_string(files.joinpath("template.html").read_text(encoding="utf-8"))
    page = template.render(
        title=shown(run.name), lede=lede(run), css=Markup(files.joinpath("style.css").read_text(encoding="utf-8")),
        headline=measured.headline(run), sections=sections_of(run), everything=measured.everything(run),
    )  # fmt: skip
    return page.encode("utf-8", "replace").decode("utf-8")


def sections_of(run: RunData) -> list[Section]:
    """In the order of the pipeline. What the recipe has no stage or no data for is left out, unless something of it was measured all the same."""
    has = {verb for verb, stage in run.stages.items() if stage.wanted}
    evaluates, world = "evaluate" in has, run.of_the_world
    wanted = [
        (making.lineage, True),
        (making.data, "prepare" in has),
        (making.tokenizer, "tokenizer" in has),
        (making.pretraining, "pretrain" in has),
        (making.tuning, "sft" in has),
        (measured.questions, (world and evaluates) or run.under("questions/")),
        (reward.reward, "reward" in has or run.under("reward_sets/")),
        (rlhf.rlhf, "rlhf" in has),
        (rlhf.safety, (world and evaluates) or run.under("safety/")),
        (reason.reason, "reason" in has or run.under("reason/")),
        (measured.side_by_side, evaluates and not run.alone),
        (measured.likelihood, (evaluates and not run.alone) or run.under("bits_per_byte/")),
        (measured.memory, (world and evaluates) or run.under("memorisation/")),
        (measured.contamination, evaluates and not run.alone),
        (making.machine, True),  # last: it lists what could not be read in any of the others
    ]
    return [section(run) for section, is_wanted in wanted if is_wanted]


def lede(run: RunData) -> str:
    """One sentence that says what this run was."""
    base, seconds = run.stages["pretrain"], sum(stage.value("seconds") or 0 for stage in run.stages.values())
    parameters, tokens = base.value("num_parameters"), base.value("tokens")
    if parameters and tokens:
        wordless = base.value("procedural_tokens") or 0
        beside = f" and {large(wordless)} of sequences without words" if wordless else ""
        made = f"{large(parameters)} parameters, from random noise, on {large(tokens - wordless)} tokens of text{beside}"
    elif run.recipe.get("from"):
        made = f"{shown(run.recipe['from'])}, a finished model, measured by itself" if run.alone else f"From {shown(run.recipe['from'])}"
    else:
        made = "A run that has not pretrained yet"
    said = {"sft": "taught to answer", "rlhf": "tuned on what raters prefer", "reason": "practised on problems"}
    steps = [words for verb, words in said.items() if run.stages[verb].state == "done"]
    cores = (run.info.get("hardware") or {}).get("num_cores")
    numerics = (base.record or run.stages["sft"].record or {}).get("numerics") or {}
    where = shown(numerics["gpu"]) if numerics.get("gpu") else f"{count(cores)} CPU cores" if cores else ""
    took = f" {duration(seconds)} altogether{f' on {where}' if where else ''}." if seconds else ""
    stale = [verb for verb, stage in run.stages.items() if stage.state == "stale"]
    other = f" Stale: {', '.join(stale)}: made before a stage that they read was made again, so their numbers are of other models." if stale else ""
    return f"{made}{'; then ' if steps else ''}{', and '.join(steps)}.{took}{other}"
