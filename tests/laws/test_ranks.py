"""One rank equals two, through the whole of the stages whose work is shared out: data, losses, weights and what is logged."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from fromnoise.run.execute import DISTRIBUTED
from fromnoise.run.metrics import read_metrics

ROOT = Path(__file__).parents[2]
WRITES = {"pretrain": "base", "sft": "sft"}
TIMES = ("time_s", "tokens_per_s", "mfu")


def carry_out(folder: Path, *verbs: str, ranks: int = 1, divide_locally: bool = False) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "DIVIDE_LOCALLY": "1" * divide_locally}
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks > 1 else []
    command = [sys.executable, *launcher, "-m", "tests.laws.two_stages", str(folder), *verbs]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def copy_of(folder: Path, to: Path, *without: str) -> Path:
    return shutil.copytree(folder, to, ignore=shutil.ignore_patterns(*without))


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("one") / "run"
    carry_out(folder, "prepare", "tokenizer", *DISTRIBUTED)
    return folder


def lines(folder: Path, verb: str) -> list[dict]:
    return [{name: value for name, value in line.items() if name not in TIMES} for line in read_metrics(folder / WRITES[verb] / "metrics.jsonl")]


def check_same(found: Path, expected: Path, verb: str) -> None:
    """Weights and every logged number to 1e-5 relative: only the order in which fp32 gradients and losses are added may differ."""
    ours, theirs = (load_file(folder / WRITES[verb] / "model.safetensors") for folder in (found, expected))
    for name in theirs:
        assert float((ours[name] - theirs[name]).norm()) <= 1e-5 * float(theirs[name].norm()), name
    for line, same in zip(lines(found, verb), lines(expected, verb), strict=True):
        assert line == {name: pytest.approx(value, rel=1e-5) if isinstance(value, float) else value for name, value in same.items()}


@pytest.mark.dist
def test_one_rank_equals_two(one, tmp_path):
    assert set(WRITES) == set(DISTRIBUTED)
    two = copy_of(one, tmp_path / "run", *WRITES.values())
    carry_out(two, *DISTRIBUTED, ranks=2)
    for verb in DISTRIBUTED:
        check_same(two, one, verb)
        record = json.loads((two / WRITES[verb] / "stage.json").read_text())
        assert record["numerics"]["world_size"] == 2
        per_token = record["flops"] / record["tokens"]
        for line in read_metrics(two / WRITES[verb] / "metrics.jsonl"):
            if "mfu" in line:  # of what both ranks can do
                assert line["mfu"] == pytest.approx(line["tokens_per_s"] * per_token / (2 * record["decisions"]["machine"]["peak_flops"]))


@pytest.mark.slow
@pytest.mark.dist
def test_ranks_that_divide_by_their_own_counts_are_caught(one, tmp_path):
    """The broken twin. Conversations are of different lengths, so that a rank's share of the counted tokens is not its share of the rows."""
    two = copy_of(one, tmp_path / "run", "sft")
    carry_out(two, "sft", ranks=2, divide_locally=True)
    with pytest.raises(AssertionError):
        check_same(two, one, "sft")
