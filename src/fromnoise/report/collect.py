"""Reading a run folder: everything the report shows, as plain data. A file that is missing or damaged is said, not hidden."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fromnoise.pipeline import STAGES


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

    @property
    def state(self) -> str:
        """ "done", "waiting" (for people), "partial" or "missing"; "not wanted": missing, and not part of this recipe."""
        if self.record is None:
            return "missing" if self.wanted else "not wanted"
        return {"done": "done", "waiting": "waiting"}.get(str(self.record.get("status")), "partial")

    @property
    def summary(self) -> dict[str, Any]:
        return (self.record or {}).get("summary") or {}

    def value(self, name: str) -> Any:
        """A number of the stage: from stage.json itself, else from its summary."""
        value = (self.record or {}).get(name)
        return self.summary.get(name) if value is None else value

    def series(self, name: str, along: str = "step") -> list[tuple[float, float]]:
        """(x, y) of every metrics line that has both numbers."""
        return [(line[along], line[name]) for line in self.metrics if _is_number(line.get(along)) and _is_number(line.get(name))]


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
    stages, wanted = {}, wanted_verbs(recipe_path)
    for stage in STAGES:
        folder = path / stage.writes[0]
        record = read_object(folder / "stage.json", problems)
        metrics = read_lines(folder / "metrics.jsonl", problems)
        stages[stage.verb] = StageData(stage.verb, stage.writes[0], stage.phase, stage.summary, record, metrics, stage.verb in wanted)
    return RunData(
        name=str(recipe.get("name") or path.resolve().name),
        path=path,
        recipe=recipe,
        info=read_object(path / "run.json", problems) or {},
        stages=stages,
        ledger=read_object(path / "prepare" / "ledger.json", problems) or {},
        compression=read_object(path / "tokenizer" / "compression.json", problems) or {},
        estimates=read_object(path / "evaluate" / "summary.json", problems) or {},
        problems=problems,
    )


def wanted_verbs(recipe_path: Path) -> set[str]:
    """The stages that the run's recipe has; all of them where it cannot be read (an older version's, say)."""
    from fromnoise.run.errors import UserError
    from fromnoise.run.recipe_load import load_recipe
    from fromnoise.run.verdict import stages_of

    try:
        return {stage.verb for stage in stages_of(load_recipe(recipe_path))}
    except UserError:
        return {stage.verb for stage in STAGES}


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
