"""A run killed at any moment and started again ends in the same bytes as one never interrupted, in its metrics too."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fromnoise.run.checkpoint import Checkpointer
from fromnoise.run.console import Console
from fromnoise.run.context import StageContext
from fromnoise.run.errors import Interrupted
from fromnoise.run.files import sha256_file
from fromnoise.run.folder import RunFolder, stage_of
from fromnoise.run.metrics import read_metrics
from tests.run import toy, toy_make
from tests.run.toy import toy_run, toy_verdicts

ROOT = Path(__file__).parents[2]


def start(folder: Path, *words: str, sleep_s: float = 0.0) -> subprocess.Popen:
    environment = {**os.environ, "TOY_SLEEP_S": str(sleep_s), "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "tests.run.toy", str(folder), *words]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)


def finish(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=120)
    return output


def wait_for(condition, process: subprocess.Popen, timeout_s: float = 60.0) -> None:
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until and process.poll() is None, finish(process)
        time.sleep(0.005)


def losses(folder: Path) -> list:
    return [(line["step"], line["loss_nats"]) for line in read_metrics(folder / "learnt" / "metrics.jsonl")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run never interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    toy_run(folder)
    return folder


def test_what_follows_from_the_machine_is_said_once_and_when_it_changes(tmp_path, capsys):
    said = []
    for options in ((), (), ("sft.max_tokens=30",), ("dtype=bfloat16",)):
        toy_run(tmp_path / "run", *options, rerun=True, console=Console())
        said.append([line for line in capsys.readouterr().out.splitlines() if line.startswith("dtype: ")])
    first, again, other_length, other_dtype = said
    assert again == other_length == [] and len(first) == len(other_dtype) == 1
    assert first[0].startswith("dtype: float32 (recipe: dtype=float32); decoding: ")
    assert first[0].endswith("; threads: 1 (recipe: num_threads); compile: off (recipe: compile=off)")
    assert "attention: " in other_dtype[0] and json.loads((tmp_path / "run" / "run.json").read_text())["choices"] == other_dtype[0]


def test_a_long_stage_measures_again_and_the_best_of_both_counts(tmp_path, monkeypatch):
    from fromnoise.run import context, machine

    found = iter([(1e10, 2e10), (9e10, 1e10), (1e9, 1e9)])

    def measure(device, num_threads):
        return {"fingerprint": machine.fingerprint(device, num_threads), "matmul_flops_per_s": dict(zip(("float32", "bfloat16"), next(found), strict=True))}

    monkeypatch.setattr(machine, "measure", measure)
    folder = tmp_path / "run"

    def peaks() -> tuple[float, dict]:
        record = json.loads((folder / "learnt" / "stage.json").read_text())
        return record["decisions"]["machine"]["peak_flops"], json.loads((folder / "run.json").read_text())["machine"]["matmul_flops_per_s"]

    toy_run(folder)
    assert peaks() == (1e10, {"float32": 1e10, "bfloat16": 2e10})
    toy_run(folder, "sft.max_tokens=30", rerun=True)  # a short stage takes what the run has
    assert peaks()[0] == 1e10
    monkeypatch.setattr(context, "expected_s", lambda *arguments: 600.0)
    toy_run(folder, "sft.max_tokens=31", rerun=True)
    assert peaks() == (9e10, {"float32": 9e10, "bfloat16": 2e10})
    toy_run(folder, "sft.max_tokens=32", rerun=True)  # and one held up by a neighbour changes nothing
    assert peaks() == (9e10, {"float32": 9e10, "bfloat16": 2e10})


def assert_same(folder: Path, whole: Path) -> None:
    for name in ("learnt/model.safetensors", "beside/copy.txt", "made/numbers.txt"):
        assert sha256_file(folder / name) == sha256_file(whole / name), name
    assert losses(folder) == losses(whole)
    assert [step for step, _ in losses(folder)] == list(range(40))
    assert not (folder / "learnt" / "train_state").exists()


def test_killed_again_and_again(tmp_path, whole):
    folder = tmp_path / "run"
    rng = random.Random("kills")
    steps_seen = [0]
    for _ in range(3):
        process = start(folder, sleep_s=0.06)
        metrics = folder / "learnt" / "metrics.jsonl"
        wanted = min(steps_seen[-1] + rng.randint(6, 9), 38)
        wait_for(lambda: metrics.exists() and len(read_metrics(metrics)) >= wanted, process)  # noqa: B023
        process.kill()
        finish(process)
        steps_seen.append(len(read_metrics(metrics)))
    assert "partial" in toy_verdicts(folder)["learn"]
    output = finish(start(folder))
    assert "going on after step" in output
    assert_same(folder, whole)
    record = json.loads((folder / "learnt" / "stage.json").read_text())
    assert record["summary"]["steps_from"] >= steps_seen[-1] - 5 - 1  # at most one checkpoint interval repeated


def test_a_resume_that_forgets_the_momentum_is_caught(tmp_path, whole, monkeypatch):
    """The broken twin: were a part of the state not restored, the bytes would differ, so the comparison has teeth."""
    from fromnoise.run import checkpoint

    process = start(tmp_path / "run", sleep_s=0.06)
    wait_for(lambda: (tmp_path / "run/learnt/train_state/step-000010").exists(), process)
    process.kill()
    finish(process)
    honest = checkpoint.Saved.group
    monkeypatch.setattr(checkpoint.Saved, "group", lambda self, name: {k: v * (name != "optimizer") for k, v in honest(self, name).items()})
    toy_run(tmp_path / "run")
    assert sha256_file(tmp_path / "run/learnt/model.safetensors") != sha256_file(whole / "learnt/model.safetensors")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_request_to_stop_saves_at_the_next_step(tmp_path, whole, number):
    folder = tmp_path / "run"
    process = start(folder, "sft.checkpoint_every_s=1000", sleep_s=0.05)
    wait_for(lambda: (folder / "learnt/metrics.jsonl").exists() and len(losses(folder)) >= 3, process)
    process.send_signal(number)
    output = finish(process)
    assert process.returncode == 130
    assert f"fromnoise run {folder}" in output
    (checkpoint,) = (folder / "learnt/train_state").iterdir()
    assert 3 <= int(checkpoint.name[5:]) <= 10
    toy_run(folder, "sft.checkpoint_every_s=1000")
    assert_same(folder, whole)


def test_a_stop_before_the_first_step_is_immediate(tmp_path):
    process = start(tmp_path / "run", sleep_s=30)
    wait_for(lambda: (tmp_path / "run/learnt/stage.json").exists(), process)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    finish(process)
    assert process.returncode == 130


def test_a_stop_asked_for_after_the_last_step_comes_before_the_next_stage(tmp_path, whole, monkeypatch):
    """Stages without steps (evaluate) ran to their end all the same, and the others to their first step."""
    def make(ctx) -> None:
        ctx.checkpoint.plan(step_s=1.0, every_s=5.0)
        assert not ctx.checkpoint.due(1)
        os.kill(os.getpid(), signal.SIGINT)
        toy.run_make(ctx)

    with monkeypatch.context() as patch:
        patch.setattr(toy_make, "run", make)
        with pytest.raises(Interrupted, match=r"stopped by Ctrl-C before learn\. Go on with: fromnoise run "):
            toy_run(tmp_path / "run")
    assert toy_verdicts(tmp_path / "run") == {"make": "done", "learn": "missing"}
    toy_run(tmp_path / "run")
    assert_same(tmp_path / "run", whole)


def test_a_kill_behind_a_stages_end_loses_none_of_its_lineage(tmp_path, whole, monkeypatch):
    folder = tmp_path / "run"

    def killed(*arguments) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write_lineage", killed)
        with pytest.raises(Interrupted):
            toy_run(folder)
    toy_run(folder)
    names = {run: json.loads((run / "run.json").read_text())["stages"].keys() for run in (folder, whole)}
    assert names[folder] == names[whole] == {"make", "learn"}


@pytest.mark.parametrize(
    ("verb", "said"),
    [("evaluate", "evaluate: going on with the parts that are missing"), ("pretrain", "pretrain: cut off before a checkpoint, begun again")],
)
def test_what_a_stage_goes_on_with_is_said_as_it_is(tmp_path, capsys, verb, said):
    """Of an evaluation that has most of its parts it was said that it begins again."""
    for _ in range(2):
        StageContext(stage_of(verb), toy.toy_recipe(), RunFolder(tmp_path))
    assert capsys.readouterr().out.splitlines() == [said]


def test_damaged_checkpoints_are_passed_over(tmp_path, whole, capsys):
    folder = tmp_path / "run"
    process = start(folder, sleep_s=0.06)
    state = folder / "learnt/train_state"
    wait_for(lambda: (state / "step-000015").exists(), process)
    process.kill()
    finish(process)
    newest, older, *_ = sorted(state.glob("step-*"))[::-1]
    tensors = newest / "tensors.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-7])  # as after a power cut on a file system that lies about fsync
    (state / ".tmp-step-000099").mkdir()  # what a kill inside `save` leaves behind
    toy_run(folder)
    warned = capsys.readouterr().err
    assert str(newest) in warned and "damaged" in warned
    assert json.loads((folder / "learnt/stage.json").read_text())["summary"]["steps_from"] == int(older.name[5:])
    assert_same(folder, whole)


def test_where_no_checkpoint_is_whole_none_is_promised(tmp_path):
    warned = []
    ours = Checkpointer(tmp_path, decide=lambda name, make: make(), warn=warned.append)
    for step in (1, 2):
        ours.save(step, {"weight": torch.ones(1)})
        (tmp_path / f"step-{step:06d}/state.json").write_bytes(b"")
    assert ours.load() is None
    newest, oldest = warned
    assert "step-000002 is damaged" in newest and newest.endswith("; using the checkpoint before it")
    assert "step-000001 is damaged" in oldest and oldest.endswith("; there is none before it")


def test_a_full_disk_stops_with_nothing_corrupt(tmp_path, whole, monkeypatch):
    import errno

    import safetensors.torch

    from fromnoise.run.errors import UserError

    folder, honest, calls = tmp_path / "run", safetensors.torch.save_file, []

    def full(tensors, path, *rest):
        calls.append(path)
        if len(calls) in (1, 4):
            Path(path).write_bytes(b"half of it")
            raise OSError(errno.ENOSPC, "No space left on device")
        return honest(tensors, path, *rest)

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(UserError, match=r"disk is full.*there is none yet"):
        toy_run(folder)
    with pytest.raises(UserError, match=r"disk is full.*goes on from the last one"):
        toy_run(folder)
    assert sorted(path.name for path in (folder / "learnt/train_state").iterdir()) == ["step-000005", "step-000010"]
    monkeypatch.setattr(safetensors.torch, "save_file", honest)
    toy_run(folder)
    assert_same(folder, whole)


def test_two_checkpoints_are_kept_and_hold_no_pickle(tmp_path):
    process = start(tmp_path / "run", sleep_s=0.06)
    state = tmp_path / "run/learnt/train_state"
    wait_for(lambda: (state / "step-000020").exists(), process)
    process.kill()
    finish(process)
    found = sorted(path.name for path in state.glob("step-*"))
    assert len(found) in (2, 3) and found[-1] >= "step-000020"  # three only when the kill fell between the rename and the removal
    assert {path.name for path in (state / found[-1]).iterdir()} == {"tensors.safetensors", "state.json"}
    tensors = load_file(state / found[-1] / "tensors.safetensors")
    assert set(tensors) == {"model/weight", "model/tied", "optimizer/momentum"}


def test_a_state_that_is_not_finite_can_be_saved(tmp_path):
    """The loss of an update that was skipped: it stopped the stage at its checkpoint, again after every resume."""
    ours = Checkpointer(tmp_path, decide=lambda name, make: make(), metrics_bytes=lambda: 0, elapsed_s=lambda: 0.0, interrupted=lambda: None, warn=print)
    ours.plan(1.0, 1.0)
    ours.save(1, {"weight": torch.ones(1)}, {"loss_nats": float("nan"), "nonfinite": 1})
    assert ours.peek().state == {"loss_nats": None, "nonfinite": 1}


def test_other_numerics_are_refused(tmp_path, whole):
    folder = tmp_path / "run"
    process = start(folder, sleep_s=0.1)
    wait_for(lambda: (folder / "learnt/train_state/step-000005").exists(), process)
    process.kill()
    finish(process)
    before = sorted((path, path.read_bytes()) for path in (folder / "learnt").rglob("*") if path.is_file())
    refused = finish(start(folder, "num_threads=2"))
    assert "num_threads 1 -> 2" in refused and "--allow-different-numerics" in refused
    assert sorted((path, path.read_bytes()) for path in (folder / "learnt").rglob("*") if path.is_file()) == before
    assert "goes on with other numerics" in finish(start(folder, "num_threads=2", "--different"))
    (change,) = json.loads((folder / "learnt/stage.json").read_text())["numerics_changes"]
    assert (change["before"]["num_threads"], change["after"]["num_threads"]) == (1, 2)


def test_a_second_process_is_refused(tmp_path):
    folder = tmp_path / "run"
    process = start(folder, sleep_s=0.5)
    wait_for(lambda: (folder / "learnt/stage.json").exists(), process)
    refused = finish(start(folder))
    assert f"process {process.pid}" in refused and "in use" in refused
    process.kill()
    finish(process)
    assert "done in" in finish(start(folder))  # the kernel let go of the lock


def two_ranks(folder: Path, timeout_s: float = 120, **environment: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "TOY_RANKS": "1", **environment}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "tests.run.toy", str(folder)]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False)


@pytest.mark.dist
def test_two_ranks_share_one_run_folder(tmp_path, whole):
    """Decisions, folder and checkpoints belong to the main rank; the other follows, and neither waits for ever."""
    done = two_ranks(tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("learn: done in") == 1
    assert_same(tmp_path / "run", whole)
    assert json.loads((tmp_path / "run/learnt/stage.json").read_text())["numerics"]["world_size"] == 2


@pytest.mark.dist
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_refuses_ends_the_others_too(tmp_path, rank):
    """A disk that is full where the main rank saves, a file that is not on the second machine: the others would wait for ever for its numbers."""
    done = two_ranks(tmp_path / "run", TOY_FAILS=str(rank))
    assert done.returncode != 0 and f"refused: rank {rank} found a damaged file" in done.stderr
    assert "RuntimeError" not in done.stderr  # the other rank says in words that it is alone, unless it is stopped before
    assert json.loads((tmp_path / "run/learnt/stage.json").read_text())["status"] == "running"  # and goes on when called again
