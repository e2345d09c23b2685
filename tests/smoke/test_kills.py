"""The whole pipeline, killed again and again: it ends in the same bytes as the run that nobody touched.

Ten kills spread evenly over the uninterrupted run's wall clock, beside them one in each training stage, two inside
rollouts and one while a checkpoint is written. On the smoke recipe here; on `world`, compiled, with `-m slow`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fromnoise.pipeline import STAGES, Stage
from fromnoise.run.files import sha256_file
from fromnoise.run.metrics import read_metrics

ROOT = Path(__file__).parents[2]
TRAINING = ("pretrain", "sft", "reward", "rlhf", "reason")
NOT_COMPARED = ("stage.json", "metrics.jsonl")  # they hold times


def carry_out(folder: Path, recipe: list[str], kill_at: str = "", timeout_s: float = 300) -> tuple[int, str]:
    environment = {**os.environ, "KILL_AT": kill_at, "MODULES_TO": str(folder.with_suffix(".modules")), "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "tests.smoke.killer", "run", *recipe, "--run-dir", str(folder)]
    done = subprocess.run(command, env=environment, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout_s, check=False)
    return done.returncode, done.stdout


def artefacts(folder: Path) -> dict[str, str]:
    """sha256 of everything the stages made: weights, preferences, evaluations, shards, tokenizer."""
    found = {}
    for stage in STAGES:
        for name in stage.writes:
            for path in sorted((folder / name).rglob("*")):
                if path.is_file() and path.name not in NOT_COMPARED:
                    found[str(path.relative_to(folder))] = sha256_file(path)
    return found


def lines(folder: Path, stage: Stage) -> list[dict]:
    return [{k: v for k, v in line.items() if not k.endswith(("_s", "mfu"))} for line in read_metrics(folder / stage.writes[0] / "metrics.jsonl")]


def moments(folder: Path, count: int) -> list[str]:
    """`count` points evenly over the finished run's wall clock, each said by what the stage had done by then."""
    spans, end = [], 0.0
    for stage in STAGES:
        seconds = json.loads((folder / stage.writes[0] / "stage.json").read_text())["seconds"]
        spans.append((stage, end, end := end + seconds))
    points = []
    for number in range(count):
        at = end * (number + 0.5) / count
        stage, begin, _ = next(span for span in spans if at < span[2])
        done = sum(line["time_s"] <= at - begin for line in read_metrics(folder / stage.writes[0] / "metrics.jsonl"))
        points.append(f"step:{stage.verb}:{done}" if done > 1 else f"after:{stage.verb}:{at - begin:.2f}")
    return points


def kill_points(folder: Path) -> list[str]:
    points = moments(folder, 10)
    for stage in STAGES:
        if stage.verb in TRAINING and not any(f":{stage.verb}:" in point for point in points):
            points.append(f"step:{stage.verb}:{max(2, len(read_metrics(folder / stage.writes[0] / 'metrics.jsonl')) // 2)}")
    points += ["generate:prefer:1:9", "generate:rlhf:2:9", "generate:reason:2:3", "save:pretrain:1"]
    # As a run meets them, but that those inside a call come before those by the clock: on a fast machine, whatever a stage samples was
    # there by the end of the seconds, and no call was left to be killed in. The clock's fire at a stage's end at the latest.
    stages, kinds = [stage.verb for stage in STAGES], ["generate", "save", "after", "step"]
    return sorted(points, key=lambda point: (stages.index(point.split(":")[1]), kinds.index(point.split(":")[0])))


def check_kills(whole: Path, killed: Path, recipe: list[str], timeout_s: float) -> None:
    """whole: the run that nobody touched; killed: where it is made again."""
    points = kill_points(whole)
    assert {verb for verb in TRAINING if any(f":{verb}:" in point for point in points)} == set(TRAINING)
    for point in points:
        code, output = carry_out(killed, recipe, point, timeout_s)
        assert code == -9, f"{point} of {points} did not kill:\n{output}"
        check_resumed_at_a_checkpoint(killed, output)
    code, output = carry_out(killed, recipe, timeout_s=timeout_s)
    assert code == 0, output
    assert artefacts(killed) == artefacts(whole)
    for stage in STAGES:
        assert lines(killed, stage) == lines(whole, stage), stage.verb


def check_resumed_at_a_checkpoint(folder: Path, output: str) -> None:
    """A resume repeats at most one checkpoint interval: it begins at the newest planned checkpoint before the kill. One is also planned
    where the reward model is done and the audit model begins."""
    for verb, step in re.findall(r"^(\w+): going on after step ([\d,]+)", output, re.M):
        stage = next(stage for stage in STAGES if stage.verb == verb)
        every = json.loads((folder / stage.writes[0] / "stage.json").read_text())["decisions"]["checkpoint_every_steps"]
        done = int(step.replace(",", ""))
        models = [line["model"] for line in read_metrics(folder / "reward" / "metrics.jsonl") if "grad_norm" in line] if verb == "reward" else []
        assert done % every == 0 or done == models.count("reward")


def test_kills_on_the_smoke_recipe(smoke_run, tmp_path):
    check_kills(smoke_run, tmp_path / "whole", ["smoke"], 300)


@pytest.mark.slow
def test_kills_on_the_world(tmp_path):
    recipe = ["world", "compile=on"]
    code, output = carry_out(tmp_path / "untouched" / "whole", recipe, timeout_s=3600)
    assert code == 0, output
    check_kills(tmp_path / "untouched" / "whole", tmp_path / "whole", recipe, 3600)
