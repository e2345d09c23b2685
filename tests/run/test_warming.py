"""The compiler is warmed up beside `prepare` where compiling will pay, and only there."""

import subprocess
import sys

import pytest

from fromnoise.pipeline import STAGES
from fromnoise.run import execute, machine
from fromnoise.run.console import Console
from fromnoise.run.folder import RunFolder
from fromnoise.run.recipe_load import load_recipe
from fromnoise.run.verdict import Verdict


@pytest.fixture
def started(monkeypatch) -> list[list[str]]:
    calls = []
    monkeypatch.setattr(subprocess, "Popen", lambda command, **more: calls.append(command))
    return calls


def everything(**states) -> list[Verdict]:
    return [Verdict(stage, states.get(stage.verb, "missing")) for stage in STAGES]


def test_it_starts_with_a_new_run_that_is_long_enough(started):
    execute.start_warming(load_recipe("world"), everything())
    execute.start_warming(load_recipe("smoke").model_copy(update={"compile": "on"}), everything())
    assert len(started) == 2 and all(command[0] == sys.executable for command in started)
    compile(started[0][2], "command", "exec")


def test_it_does_not_where_nothing_is_gained(started):
    assert execute.start_warming(load_recipe("smoke"), everything()) is None
    assert execute.start_warming(load_recipe("world").model_copy(update={"compile": "off"}), everything()) is None
    assert execute.start_warming(load_recipe("world"), everything(prepare="done")) is None
    assert execute.start_warming(load_recipe("world"), everything(pretrain="partial")) is None
    assert execute.start_warming(load_recipe("world"), [Verdict(stage, "missing") for stage in STAGES if stage.verb == "prepare"]) is None
    assert started == []


def test_what_measures_the_machine_waits_for_it(monkeypatch, tmp_path):
    """Measured beside the compiler, the machine seemed half as fast."""
    events = []

    class Warming:
        def wait(self):
            events.append("warm")

        def poll(self):
            return 0

    monkeypatch.setattr(execute, "start_warming", lambda recipe, todo: Warming())
    monkeypatch.setattr(execute, "bring_up_to_date", lambda item, *more: events.append(item.stage.verb) or Verdict(item.stage, "done"))
    execute.execute(load_recipe("smoke"), RunFolder(tmp_path / "run"), console=Console(quiet=True))
    assert events[:4] == ["prepare", "tokenizer", "warm", "pretrain"]


def test_it_compiles_on_a_cpu_alone(monkeypatch):
    compiled = []
    monkeypatch.setattr(machine, "compile_problem", lambda: compiled.append(1))
    machine.warm_up_compiler("cpu")
    assert compiled == [1]
    monkeypatch.setattr(machine, "resolve_device", lambda device: "cuda")
    machine.warm_up_compiler("auto")
    assert compiled == [1]
