"""Every stage on a CUDA device, with every method of preference learning."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch

from tests.smoke.test_kills import ROOT, carry_out

pytestmark = pytest.mark.gpu
ON_GPU = ["device=cuda", "dtype=bfloat16"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    if not torch.cuda.is_available():
        pytest.fail("-m gpu asks for these tests, and torch finds no CUDA device")
    folder = tmp_path_factory.mktemp("gpu") / "run"
    code, output = carry_out(folder, ["smoke", *ON_GPU])
    assert code == 0, output
    return folder


def test_the_whole_recipe(run):
    for stage in ("base", "sft", "reward", "rlhf", "reason", "evaluate"):
        machine = json.loads((run / stage / "stage.json").read_text())["decisions"]["machine"]
        assert machine["device_type"] == "cuda" and machine["dtype"] == "bfloat16"
    assert (run / "report.html").stat().st_size > 100_000


@pytest.mark.parametrize("method", ["grpo", "rloo", "dpo", "best_of_n"])
def test_every_method(run, method, tmp_path):
    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("rlhf", "reason", "evaluate", ".lock"))
    command = [sys.executable, "-m", "fromnoise", "rlhf", "smoke", *ON_GPU, f"rlhf.method={method}", "--run-dir", str(tmp_path / "run")]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
