"""What `fromnoise plan --machine` says is what a run would decide."""

from __future__ import annotations

from fromnoise.generate import native
from fromnoise.planner.machine import describe, stage_choices
from fromnoise.run import machine
from fromnoise.run.recipe_load import load_recipe

SPEEDS = {1: {"float32": 6e10, "bfloat16": 2e11}, 2: {"float32": 1e11, "bfloat16": 1.1e11}}


def lines(monkeypatch, *settings: str) -> list[str]:
    def measured(device, num_threads):
        marks = {"device": device, "processor": "a processor", "num_threads": num_threads, "torch": "2"}
        return {"fingerprint": marks, "matmul_flops_per_s": SPEEDS[num_threads]}

    monkeypatch.setattr(machine, "measure", measured)
    monkeypatch.setattr(machine, "memory_bytes_per_s", lambda device: 2e10)
    return list(describe(load_recipe(None, ["device=cpu", *settings])))


def test_each_number_of_threads_is_measured_and_the_choice_is_that_of_a_run(monkeypatch):
    found = lines(monkeypatch, "num_threads=2", "compile=off")
    assert [line.split(":")[0].strip() for line in found] == ["cpu", "1 thread", "2 threads", "dtype", "decoding", "threads", "compile"]
    assert "200 GFLOP/s in bf16, 60 in fp32; memory 20.0 GB/s" in found[1] and "110 GFLOP/s in bf16, 100 in fp32" in found[2]
    assert "float32 (bf16 is 1.1 x" in found[3]  # of two threads, which is what a run would use
    assert "bfloat16 (bf16 is 3.3 x" in lines(monkeypatch, "num_threads=1", "compile=off")[2]
    assert "float32 (recipe" in lines(monkeypatch, "num_threads=1", "compile=off", "dtype=float32")[2]


def test_what_decodes_is_said(monkeypatch):
    monkeypatch.setattr(native, "library", lambda: "no C++ compiler was found")
    assert "decoding: by torch (no C++ compiler was found)" in lines(monkeypatch, "num_threads=1", "compile=off")
    monkeypatch.setattr(native, "unavailable", lambda dtype, device_type: None)
    assert any(line.startswith("decoding: native (built by ") for line in lines(monkeypatch, "num_threads=1", "compile=off"))


def test_what_attends_is_said(monkeypatch):
    monkeypatch.setattr("fromnoise.run.native.build", lambda source: "no C++ compiler was found")
    assert "attention: by torch (no C++ compiler was found)" in lines(monkeypatch, "num_threads=1", "compile=off")
    monkeypatch.setattr("fromnoise.run.native.build", lambda source: object())
    assert "attention: native, each segment of a row by itself" in lines(monkeypatch, "num_threads=1", "compile=off")
    assert not any(line.startswith("attention") for line in lines(monkeypatch, "num_threads=1", "compile=off", "dtype=float32"))


def test_compiling_that_does_not_work_is_said(monkeypatch):
    monkeypatch.setattr(machine, "compile_problem", lambda device="cpu": "no compiler")
    assert lines(monkeypatch, "num_threads=1")[-1] == "compile: off (torch.compile does not work here: no compiler)"
    monkeypatch.setattr(machine, "compile_problem", lambda device="cpu": None)
    assert "60 s or more" in lines(monkeypatch, "num_threads=1")[-1]


def test_a_run_says_it_in_the_same_words(monkeypatch):
    recipe, profile = load_recipe("world", ["num_threads=1"]), {"fingerprint": {"device": "cpu", "num_threads": 1}, "matmul_flops_per_s": SPEEDS[1]}
    monkeypatch.setattr(machine, "compile_problem", lambda device="cpu": None)
    chosen = machine.choose(recipe, profile, 1e4)
    assert stage_choices(recipe, "pretrain", chosen, profile) == "; ".join(lines(monkeypatch, "num_threads=1")[2:])
    monkeypatch.setattr(machine, "compile_problem", lambda device="cpu": "no compiler")
    chosen = machine.choose(recipe, profile, 1e4)
    assert stage_choices(recipe, "pretrain", chosen, profile).endswith("; compile: off (torch.compile does not work here: no compiler)")
    assert stage_choices(load_recipe("smoke", ["compile=auto"]), "sft", chosen, profile).endswith("(shorter ones would not repay it)")  # and never tried


def test_memory_is_measured():
    assert 1e8 < machine.memory_bytes_per_s("cpu") < 1e13
