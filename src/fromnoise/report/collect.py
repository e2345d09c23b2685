"""Reading a run folder: everything the report shows, as plain data. A file that is missing or damaged is said, not hidden."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fromnoise.pipeline import STAGES, Stage
from fromnoise.run.files import digest_of
from fromnoise.run.verdict import stages_of_run


@dataclass
class StageData:
    """One stage of the run as its folder tells it."""

    verb: str
    folder: str
    phase: str
    what: str  # the stage's line of `pipeline.py`
    record: dict[str, Any] | None  # stage.json
    metrics: list[dict[str, Any]]  # metrics.jsonl, oldest first
    wanted: bool = True  # whether the recipe has this stage
    stale: bool = False  # whether what it was made from has been made again since

    @property
    def state(self) -> str:
        """ "done", "stale", "waiting" (for people), "partial" or "missing"; "not wanted": no part of this recipe."""
        if self.record is None:
            return "missing" if self.wanted else "not wanted"
        if self.stale:
            return "stale"
        return {"done": "done", "waiting": "waiting"}.get(str(self.record.get("status")), "partial")

    @property
    def summary(self) -> dict[str, Any]:
        return (self.record or {}).get("summary") or {}

    def value(self, name: str) -> Any:
        """A number of the stage: from stage.json itself, else from its summary."""
        value = (self.record or {}).get(name)
        return self.summary.get(name) if value is None else value

    def series(self, name: str) -> list[tuple[float, float]]:
        """(step, value) of every metrics line that has both numbers."""
        return [(line["step"], line[name]) for line in self.metrics if _is_number(line.get("step")) and _is_number(line.get(name))]


@dataclass
class RunData:
    name: str
    path: Path
    recipe: dict[str, Any]
    info: dict[str, Any]  # run.json
    stages: dict[str, StageData]
    ledger: dict[str, Any]
    compression: dict[str, Any]
    estimates: dict[str, dict[str, Any]]  # evaluate/summary.json
    problems: list[str] = field(default_factory=list)

    def estimate(self, name: str) -> dict[str, Any] | None:
        found = self.estimates.get(name)
        return found if found and found.get("value") is not None else None

    def under(self, prefix: str) -> dict[str, dict[str, Any]]:
        """Estimates whose name begins with `prefix`, by what follows it."""
        return {name[len(prefix) :]: value for name, value in self.estimates.items() if name.startswith(prefix)}

    @property
    def of_the_world(self) -> bool:
        return bool(self.recipe.get("data", {}).get("world"))

    @property
    def alone(self) -> bool:
        """Whether it measures a finished model by itself, and made none."""
        return [verb for verb, stage in self.stages.items() if stage.wanted] == ["evaluate"]

    @property
    def simulated_raters(self) -> bool:
        """Whether the world's raters chose, of whom the audit model has others than the reward model; people judge for both."""
        given = self.recipe.get("prefer", {}).get("raters", "world"), self.recipe.get("data", {}).get("preferences")
        return self.of_the_world and given == ("world", None)

    @property
    def problems_asked(self) -> str:
        """What `reason/sums` counts."""
        return "sums of two and three digits" if self.of_the_world else "held-out problems of the file"

    def records(self, name: str) -> list[dict[str, Any]]:
        """evaluate/records/NAME.jsonl."""
        return read_lines(self.path / "evaluate" / "records" / f"{name}.jsonl", self.problems)


def collect(path: Path) -> RunData:
    problems: list[str] = []
    recipe: dict[str, Any] = {}
    recipe_path = path / "recipe.toml"
    if recipe_path.exists():
        try:
            recipe = tomllib.loads(recipe_path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            problems.append(f"recipe.toml could not be read: {error}")
    stages, wanted = {}, {stage.verb for stage in stages_of_run(path)}
    for stage in STAGES:
        folder = path / stage.writes[0]
        found = StageData(stage.verb, stage.writes[0], stage.phase, stage.summary, None, [], stage.verb in wanted)
        if found.wanted:  # else what lies there is of an earlier recipe, and of other models
            found.record = read_object(folder / "stage.json", problems)
            found.metrics = read_lines(folder / "metrics.jsonl", problems)
            found.stale = is_stale(stage, stages | {stage.verb: found})
        stages[stage.verb] = found
    return RunData(
        name=str(recipe.get("name") or path.resolve().name),
        path=path,
        recipe=recipe,
        info=read_object(path / "run.json", problems) or {},
        stages=stages,
        ledger=read_object(path / "prepare" / "ledger.json", problems) or {},
        compression=read_object(path / "tokenizer" / "compression.json", problems) or {},
        estimates=(read_object(path / "evaluate" / "summary.json", problems) if "evaluate" in wanted else None) or {},
        problems=problems,
    )


def is_stale(stage: Stage, stages: Mapping[str, StageData]) -> bool:
    """Whether a stage read other contents than lie in the run now, by what the records say; so is what read a stale stage's."""
    inputs = (stages[stage.verb].record or {}).get("inputs")
    for name, digest in inputs.items() if isinstance(inputs, dict) else ():
        writer = next((other for other in STAGES if name in other.writes and other.verb in stages), None)
        outputs = (stages[writer.verb].record or {}).get("outputs") if writer else None
        if not outputs or not isinstance(outputs, dict):
            continue  # a file of the user's, or a stage that is under way
        within = {path.removeprefix(f"{name}/"): content for path, content in outputs.items() if path.startswith(f"{name}/")}
        if stages[writer.verb].stale or digest_of(within) != digest:
            return True
    return False


def read_object(path: Path, problems: list[str]) -> dict[str, Any] | None:
    """A JSON object, None when the file is not there; damage goes into `problems`."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        problems.append(f"{path.parent.name}/{path.name} could not be read: {error}")
        return None
    if not isinstance(value, dict):
        problems.append(f"{path.parent.name}/{path.name} is not a JSON object")
        return None
    return value


def read_lines(path: Path, problems: list[str]) -> list[dict[str, Any]]:
    """The objects of a JSON lines file; lines that are none (one still being written) are counted in `problems`."""
    if not path.exists():
        return []
    found, bad = [], 0
    for line in path.read_bytes().splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        if isinstance(value, dict):
            found.append(value)
        elif line.strip():
            bad += 1
    if bad:
        problems.append(f"{path.parent.name}/{path.name}: {bad} lines are not JSON objects")
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
