"""What ranks must agree on, and what becomes of them where they do not: two of them as threads of one process, on the toy pipeline."""

from __future__ import annotations

import shutil
import signal
import socket
import threading
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from pathlib import Path

import pytest

from fromnoise import api
from fromnoise.parallel import process as processes
from fromnoise.parallel.process import Process
from fromnoise.run.console import Console
from fromnoise.run.errors import Interrupted, UserError
from fromnoise.run.execute import execute, follow
from fromnoise.run.folder import RunFolder
from tests.run import toy_make
from tests.run.toy import patched, patched_ranks, toy_recipe


class Meeting:
    """Where two threads wait for each other; a rank that ends breaks it, as a process that ends closes its connections."""

    def __init__(self):
        self.gate, self.said = threading.Barrier(2, timeout=300), None

    def wait(self) -> None:
        try:
            self.gate.wait()
        except threading.BrokenBarrierError:
            raise UserError("another rank has ended") from None


@dataclass(frozen=True)
class Threaded(Process):
    meeting: Meeting = None

    def broadcast(self, value):
        if self.is_main:
            self.meeting.said = value
        self.meeting.wait()
        said = self.meeting.said
        self.meeting.wait()
        return said

    def barrier(self):
        self.meeting.wait()

    def all_reduce_sum(self, tensor):
        self.meeting.wait()
        return tensor


def two_ranks(*started: tuple) -> list:
    """What became of rank 0 and rank 1, each started in a folder with settings: None, or the error that it ended with."""
    meeting, ends = Meeting(), [None, None]

    def carry_out(rank: int, folder: Path, *overrides: str) -> None:
        try:
            execute(toy_recipe(*overrides), RunFolder(folder), console=Console(quiet=True), process=Threaded(rank, 2, meeting))
        except Exception as error:
            ends[rank] = error
            meeting.gate.abort()

    threads = [threading.Thread(target=carry_out, args=(rank, *words), name=f"rank {rank}") for rank, words in enumerate(started)]
    first, second = patched()
    with first, second, patched_ranks():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return ends


@pytest.fixture
def run(tmp_path, monkeypatch) -> Path:
    """A folder for a run whose second stage is all ranks'."""
    monkeypatch.setenv("TOY_RANKS", "1")
    return tmp_path / "run"


def check_refused(ends: list, what: str) -> None:
    assert isinstance(ends[1], UserError) and what in str(ends[1]) and "a file system that they share" in str(ends[1])
    assert isinstance(ends[0], UserError) and "another rank has ended" in str(ends[0])


def test_a_rank_with_another_recipe_is_refused(run):
    check_refused(two_ranks((run,), (run, "sft.max_tokens=30")), "rank 1 was not started with what rank 0 was: sft.max_tokens 40 -> 30")
    assert not (run / "learnt/stage.json").exists()
    assert two_ranks((run,), (run, "sft.checkpoint_every_s=7")) == [None, None]  # what the main rank alone decides


def test_a_rank_that_lacks_a_file_ends_the_main_one_before_any_work(run):
    ends = two_ranks((run,), (run, 'data.conversations=["/nowhere.jsonl"]'))
    assert "'/nowhere.jsonl': no such file" in str(ends[1]) and "another rank has ended" in str(ends[0])
    assert not run.exists()


def test_a_rank_that_sees_an_older_copy_of_the_run_is_refused(run, tmp_path):
    assert two_ranks((run, "prepare.min_chars=7"), (run, "prepare.min_chars=7")) == [None, None]
    older = shutil.copytree(run, tmp_path / "older")
    shutil.rmtree(run)
    check_refused(two_ranks((run,), (older,)), "rank 1 was not started with what rank 0 was: input made/ changed")


def test_a_rank_that_sees_no_checkpoint_or_another_one_is_refused(run, tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_FAILS", "0")
    often = "sft.checkpoint_every_s=1"
    assert "rank 0 found a damaged file" in str(two_ranks((run, often), (run, often))[0])
    monkeypatch.delenv("TOY_FAILS")
    own = shutil.copytree(run, tmp_path / "own", ignore=shutil.ignore_patterns("train_state"))
    check_refused(two_ranks((run, often), (own, often)), "rank 1 finds a checkpoint of 0 steps there, rank 0 one of 3;")
    assert two_ranks((run, often), (run, often)) == [None, None]


def test_a_rank_beside_the_main_one_looks_at_no_folder_that_the_main_one_removes(run, monkeypatch):
    outputs = RunFolder.outputs

    def gone(self, stage):
        if threading.current_thread().name == "rank 1":
            raise FileNotFoundError(self.stage_dir(stage.writes[0]))
        return outputs(self, stage)

    monkeypatch.setattr(RunFolder, "outputs", gone)
    monkeypatch.setenv("TOY_FAILS", "1")
    assert str(two_ranks((run,), (run,))[1]) == "rank 1 found a damaged file"


def test_the_main_rank_says_why_it_stopped_though_another_one_has_ended(tmp_path, monkeypatch):
    meeting = Meeting()

    def stopped(ctx):
        meeting.gate.abort()
        raise KeyboardInterrupt("SIGTERM")

    monkeypatch.setattr(Threaded, "barrier", lambda self: None)  # before its end
    monkeypatch.setattr(toy_make, "run", stopped)
    first, second = patched()
    with first, second, pytest.raises(Interrupted, match=r"^SIGTERM. Go on with: torchrun \.\.\. -m fromnoise run "):
        execute(toy_recipe(), RunFolder(tmp_path / "run"), console=Console(quiet=True), process=Threaded(0, 2, meeting))


@pytest.mark.parametrize("wrong", [{"WORLD_SIZE": "2"}, {"WORLD_SIZE": "two", "RANK": "0"}, {"WORLD_SIZE": "2", "RANK": "0", "MASTER_PORT": "taken"}])
def test_an_environment_in_which_ranks_cannot_meet_is_named(monkeypatch, wrong):
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, **wrong}.items():
            monkeypatch.setenv(name, port if value == "taken" else value)
        with pytest.raises(UserError, match=rf"the ranks cannot meet: .*RANK=\w+, WORLD_SIZE={wrong['WORLD_SIZE']}, .*start them with torchrun"):
            Process.from_environment()


def test_ranks_that_never_come_are_not_waited_for_for_ever(monkeypatch):
    monkeypatch.setattr(processes, "MEETING", timedelta(seconds=1))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="the ranks cannot meet"):
        Process.from_environment()


def test_ctrl_c_ends_a_rank_that_waits_for_others(tmp_path, monkeypatch):
    """Python's own handler waits for the end of a call into C++: of the meeting after half an hour, of a message when the main rank's stage has ended."""
    found = []

    def waiting(*_, **__):
        found.append(signal.getsignal(signal.SIGINT))
        raise ValueError("nobody came")

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(import_module("torch.distributed.rendezvous"), "rendezvous", waiting)  # a function of that name hides the module
    with pytest.raises(UserError, match="the ranks cannot meet: nobody came"):
        Process.from_environment()
    monkeypatch.setattr(Process, "broadcast", waiting)
    with pytest.raises(ValueError, match="nobody came"):
        follow(toy_recipe(), RunFolder(tmp_path / "run"), Process(1, 2), allow_different_numerics=False)
    assert found == [signal.SIG_DFL, signal.SIG_DFL] and signal.getsignal(signal.SIGINT) == before


def test_one_rank_alone_writes_the_report(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(api, "execute", lambda *_, **__: None)
    monkeypatch.setattr(api, "make_report", lambda folder, console: written.append(folder.path))
    for rank in (1, 0):
        monkeypatch.setattr(Process, "from_environment", lambda rank=rank: Process(rank, 2))
        api.run_recipe("smoke", run_dir=tmp_path / "run")
        assert len(written) == (rank == 0)
