"""What is done, stale, partial or missing in a run, and why: by content hashes, never by dates.

done     inputs, result-changing configuration and outputs hash to what stage.json recorded
partial  cut off; inputs and configuration are what they were, so it resumes
waiting  as partial, but for people: it ended its turn, and goes on when they have done their part
stale    finished or cut off with other inputs or settings; nothing is touched until --rerun
missing  not begun
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fromnoise.data.files import data_files, file_kind, files_named
from fromnoise.pipeline import EVALUATE_ALONE, STAGES, Stage
from fromnoise.run.errors import UserError
from fromnoise.run.files import HashCache, digest_of, local_model
from fromnoise.run.folder import RunFolder, folder_digest, is_made, stage_of, writer_of
from fromnoise.run.recipe import Recipe
from fromnoise.run.recipe_load import load_recipe

MODELS = ("base", "sft", "rlhf", "reason")
# Settings that change when something is saved, or whether a stage refuses what it reads, not what it makes.
NEUTRAL = ("checkpoint_every_s", "max_bad_frac")
# Settings that name files: what counts is the files' content, which is among the inputs.
FILES = ("data.path", "data.sources", "data.conversations", "data.preferences", "data.prompts", "evaluate.reward_sets", "reason.problems")


@dataclass(frozen=True, slots=True)
class Verdict:
    stage: Stage
    state: Literal["done", "stale", "partial", "waiting", "missing"]
    causes: tuple[str, ...] = ()  # why it is stale, or what it waits for
    waits_for: tuple[str, ...] = ()  # inputs that other stages have yet to make; whether it is stale shows when they have

    def __str__(self) -> str:
        reasons = list(self.causes)
        if self.waits_for and self.state != "missing":
            reasons.append("inputs still to be made: " + ", ".join(f"{name}/" for name in self.waits_for))
        return f"{self.stage.verb:<10} {self.state:<8} {'; '.join(reasons)}".rstrip()


def stages_of(recipe: Recipe) -> list[Stage]:
    """The stages a recipe has. A run that starts `from` a finished model makes no tokenizer and no base model; one on text alone
    ends with the base model, one without preferences or prompts with the tuned one; one without problems to reason about
    has nothing to practise on. One that only measures a finished model has one stage, where there is something to measure it on."""
    if evaluates_alone(recipe):
        return [EVALUATE_ALONE] if has_documents(recipe) or recipe.reason.problems is not None or recipe.evaluate.reward_sets else []
    left_out: set[str] = set()
    if missing_data(recipe):
        left_out |= {"prefer", "reward", "rlhf", "reason", "evaluate"}
        if not recipe.data.conversations:
            left_out.add("sft")
    if recipe.sft_from is not None:
        left_out |= {"tokenizer", "pretrain"}
        if not has_documents(recipe):
            left_out.add("prepare")
    if not recipe.data.world and recipe.reason.problems is None:
        left_out.add("reason")
    return [stage for stage in STAGES if stage.verb not in left_out]


def stages_of_run(folder: Path) -> list[Stage]:
    """The stages that the recipe in a run's folder has; all of them where it cannot be read (an older version's, say). What another
    recipe left there belongs to other models."""
    try:
        return stages_of(load_recipe(folder / "recipe.toml"))
    except UserError:
        return list(STAGES)


def models_of_run(folder: Path) -> list[tuple[str, Path]]:
    """(name, model folder) of a run's finished models, in the order they were made, without those that an earlier recipe left behind."""
    wanted = {name for stage in stages_of_run(folder) for name in stage.writes}
    return [(name, folder / name) for name in MODELS if name in wanted and (folder / name / "config.json").is_file()]


def evaluates_alone(recipe: Recipe) -> bool:
    """Whether there is a finished model to start `from` and nothing to train it on, so that it is measured by itself."""
    return recipe.sft_from is not None and not recipe.data.world and not recipe.data.conversations


def missing_data(recipe: Recipe) -> str | None:
    """What would have to be given for the stages that a run of the user's own data cannot have without it."""
    data = recipe.data
    if data.world:
        return None
    if not data.conversations:
        return "data.conversations=FILE to tune on (and data.preferences=FILE, or data.prompts=FILE with prefer.raters=people, for RLHF)"
    return None if data.preferences or data.prompts else "data.preferences=FILE (pairs), or data.prompts=FILE with prefer.raters=people, for RLHF"


def has_documents(recipe: Recipe) -> bool:
    return recipe.data.world or recipe.data.path is not None or bool(recipe.data.sources)


def verdicts(run: RunFolder, recipe: Recipe) -> list[Verdict]:
    """The verdict for each stage of the recipe, in order."""
    found: list[Verdict] = []
    for stage in stages_of(recipe):
        found.append(verdict(run, recipe, stage, found))
    run.hashes.save()
    return found


def verdict(run: RunFolder, recipe: Recipe, stage: Stage, earlier: list[Verdict]) -> Verdict:
    """The verdict for one stage, given those of the stages before it."""
    folder = run.stage_dir(stage.writes[0])
    unfinished = {name for other in earlier if other.state != "done" for name in other.stage.writes}
    waits_for = tuple(name for name in reads(recipe, stage) if name in unfinished)
    record = run.record(stage)
    if record is None:
        if folder.is_dir() and any(is_made(path) for path in folder.iterdir()):
            return Verdict(stage, "stale", (f"{folder} holds files but no stage.json, so this run did not make them",), waits_for)
        return Verdict(stage, "missing", waits_for=waits_for)
    causes = config_changes(record, config_of(recipe, stage))
    causes += input_changes(record, inputs_of(run, recipe, stage, leave_out=waits_for))
    if record["status"] == "done":
        causes += output_changes(record["outputs"], run.outputs(stage))
    if causes or waits_for:
        return Verdict(stage, "stale", tuple(causes), waits_for)
    if record["status"] == "waiting":
        return Verdict(stage, "waiting", (f"{record['waiting']} when last asked",))
    return Verdict(stage, "done" if record["status"] == "done" else "partial")


def reads(recipe: Recipe, stage: Stage) -> list[str]:
    """The folders of the run that a stage reads under this recipe."""
    made = {name for other in stages_of(recipe) for name in other.writes}
    return [name for name in stage.reads if name in made]


def config_of(recipe: Recipe, stage: Stage) -> dict[str, Any]:
    """The settings that change the stage's result: dotted key -> value, in a fixed order."""
    tree = recipe.model_dump(mode="json", by_alias=True)
    config: dict[str, Any] = {}
    for key in stage.config:
        value: Any = tree
        for part in key.split("."):
            value = value[part]
        if key == "from" and value is not None and Path(value).is_dir():
            continue  # as for FILES
        if key not in FILES:
            _flatten(key, value, config)
        elif key == "data.sources":
            for number, source in enumerate(value):
                source = {name: setting for name, setting in source.items() if name != "path"}
                _flatten(f"{key}.{number}", source, config)
    return config


def _flatten(key: str, value: Any, config: dict[str, Any]) -> None:
    if key in FILES or _is_neutral(key):
        return
    if isinstance(value, dict):
        for name, item in value.items():
            _flatten(f"{key}.{name}", item, config)
    else:
        config[key] = value


def _is_neutral(key: str) -> bool:
    return key.rsplit(".", 1)[-1] in NEUTRAL


def inputs_of(run: RunFolder, recipe: Recipe, stage: Stage, leave_out: tuple[str, ...] = ()) -> dict[str, str]:
    """Content hashes of everything the stage reads: folders of the run by name, files of the user by their recipe key."""
    inputs = {name: run.digest(name) for name in reads(recipe, stage) if name not in leave_out}
    for key in stage.config:
        if key in FILES:
            inputs.update(_hash_user_files(key, recipe, run.hashes))
    if recipe.sft_from is not None and "base" in stage.reads and Path(recipe.sft_from).is_dir():
        inputs["from"] = folder_digest(Path(recipe.sft_from), run.hashes)
    return inputs


def _hash_user_files(key: str, recipe: Recipe, hashes: HashCache) -> dict[str, str]:
    section, name = key.split(".")
    value = getattr(getattr(recipe, section), name)
    if value is None:
        return {}
    if isinstance(value, str):
        return {key: digest_path(value, key, hashes)}
    if key == "data.sources":
        return {f"{key}.{source.name}": digest_path(source.path, f"{key}.{source.name}", hashes) for source in value}
    return {f"{key}.{number}": digest_path(path, key, hashes) for number, path in enumerate(value)}


def digest_path(pattern: str, key: str, hashes: HashCache) -> str:
    """The content hash of a file, a folder's files, or a glob's; names below the folder (of a glob: below what all its files
    share) count, where it lies does not. A file that cannot be read is for the stage to report; it counts when it can be. Of one of
    a kind that is not read (the recipe beside its texts) the name counts alone."""

    def content(file: Path) -> str:
        if file_kind(file)[0] is None:
            return "of no kind that is read"
        try:
            return hashes.sha256(file)
        except OSError:
            return "unreadable"

    root, files = files_named(pattern)
    if not files and not root.is_dir():
        raise UserError(f"{key} = {pattern!r}: no such file or folder, or none that can be read")
    return digest_of({str(file.relative_to(root)): content(file) for file in files})


def check_user_files(recipe: Recipe) -> None:
    """Raise UserError for a file the recipe names that is not there, none of a kind that is read, or without one record of the form that is: before
    a long run, not in the middle of it."""
    from fromnoise.data.conversation import conversations_of, read_conversations
    from fromnoise.data.preferences import pairs_of, read_preferences
    from fromnoise.data.problems import problem_of, read_problems
    from fromnoise.data.prompts import prompt_messages, read_prompts
    from fromnoise.data.readers import first_of

    forms = {
        "data.conversations": (conversations_of, read_conversations), "data.prompts": (prompt_messages, read_prompts),
        "reason.problems": (problem_of, read_problems),
        **dict.fromkeys(("data.preferences", "evaluate.reward_sets"), (lambda record: pairs_of(record, ""), read_preferences)),
    }  # fmt: skip
    data, model = recipe.data, recipe.sft_from
    if model is not None:
        local_model(model, "from = ")
    named = [("data.path", data.path), ("data.preferences", data.preferences), ("data.prompts", data.prompts), ("reason.problems", recipe.reason.problems)]
    named += [("data.conversations", path) for path in data.conversations]
    named += [("evaluate.reward_sets", path) for path in recipe.evaluate.reward_sets]
    named += [(f"data.sources {source.name}", source.path) for source in data.sources]
    for key, path in named:
        if path is not None and not os.path.exists(path) and not files_named(path)[1]:
            raise UserError(f"{key} = {path!r}: no such file or folder")
        if path is not None and not key.startswith(("data.path", "data.sources")):  # those are what a run reads first
            data_files(path, lambda bad: None, key)
            parse, read = forms[key]
            if not first_of(path, parse):
                read(path, lambda bad: None)  # raises, and says why


def config_changes(record: dict[str, Any], config: dict[str, Any]) -> list[str]:
    """`sft.epochs 2.0 -> 3.0` for each setting that is not what it was."""
    old, dtype = record["config"], (record.get("numerics") or {}).get("dtype")
    changes = []
    for key in sorted(old.keys() | config.keys()):
        before, after = old.get(key), config.get(key)
        moved = key == "from" and after is None and "from" in record["inputs"]  # a folder then, and now: its content is compared
        if before == after or _is_neutral(key) or moved:  # older records hold what no longer counts
            continue
        if key == "dtype" and dtype in (before, after) and "auto" in (before, after):
            continue  # the same choice, once measured and once written down
        changes.append(f"{key} {_show(before)} -> {_show(after)}")
    return changes


def input_changes(record: dict[str, Any], inputs: dict[str, str]) -> list[str]:
    old = record["inputs"]
    changes = []
    for name in sorted(inputs):
        label = name if "." in name or name == "from" else f"{name}/"
        if name not in old:
            changes.append(f"input {label} is new")
        elif old[name] != inputs[name]:
            changes.append(f"input {label} changed ({old[name][:8]} -> {inputs[name][:8]})")
    gone = [name for name in sorted(old) if name not in inputs and ("." in name or name == "from")]
    return changes + [f"input {name} is no longer given" for name in gone]


def output_changes(recorded: dict[str, str], found: dict[str, str]) -> list[str]:
    """Artefacts that went missing or changed since the stage finished. Files added beside them are no concern."""
    gone = [f"output {name} is gone" for name in sorted(recorded) if name not in found]
    return gone + [f"output {name} was changed" for name in sorted(recorded) if name in found and recorded[name] != found[name]]


def _show(value: Any) -> str:
    text = "unset" if value is None else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def required(run: RunFolder, recipe: Recipe, verb: str, found: list[Verdict]) -> None:
    """Refuse a single stage whose inputs are not all there, naming the command that makes them."""
    states = {verdict.stage.verb: verdict.state for verdict in found}
    for name in reads(recipe, stage_of(verb)):
        writer = writer_of(name).verb
        if states.get(writer) != "done":
            again = " --rerun" if states[writer] == "stale" else ""
            how = f"make it with `fromnoise {writer}{again}` and the same recipe, or all with `fromnoise run{again}`"
            raise UserError(f"{verb} needs {run.stage_dir(name)}, which is {states[writer]}: {how}")
