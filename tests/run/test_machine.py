"""What the machine is measured to be, and what follows from it."""

from __future__ import annotations

import logging
import os
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fromnoise.run import machine
from fromnoise.run.budget import GIVEN_AWAY_FRAC, SHARES, expected_s, paid_s, share_s, steps_for, tokens_in, trained_tokens, unused_s
from fromnoise.run.console import Console
from fromnoise.run.errors import UserError
from fromnoise.run.recipe_load import load_recipe
from fromnoise.run.verdict import stages_of
from tests.stages import small_run

PROFILE = {
    "fingerprint": {"device": "cpu", "processor": "x", "num_threads": 2, "torch": "2"},
    "matmul_flops_per_s": {"float32": 1e11, "bfloat16": 5e11},
}


@pytest.mark.timed
def test_measuring_is_quick_and_positive():
    import time

    import torch  # noqa: F401  importing it is not measuring

    start = time.perf_counter()
    profile = machine.measure("cpu", 1)
    assert time.perf_counter() - start < 3
    assert all(speed > 1e8 for speed in profile["matmul_flops_per_s"].values())
    assert "GFLOP/s" in machine.describe_profile(profile)


def test_more_threads_than_cores_make_no_emulated_products_faster(monkeypatch):
    """bf16 on a processor that emulates it was measured on one thread and taken times 1,000: 2,734 GFLOP/s, and so it was chosen."""
    monkeypatch.setattr(machine, "EMULATED_S", 0.0)  # any product counts as emulated
    one, many = (machine.measure("cpu", count)["matmul_flops_per_s"] for count in (1, 1000))
    assert all(many[name] < 4 * os.cpu_count() * one[name] for name in one)


def test_dtype_follows_the_measurement():
    recipe = load_recipe(None, ["compile=off"])
    assert machine.choose(recipe, PROFILE, 0).dtype == "bfloat16"
    slow = {**PROFILE, "matmul_flops_per_s": {"float32": 1e11, "bfloat16": 1.1e11}}
    assert machine.choose(recipe, slow, 0).dtype == "float32"
    assert machine.choose(load_recipe(None, ["compile=off", "dtype=float32"]), PROFILE, 0).peak_flops == 1e11


def test_compiling_is_for_long_stages_on_machines_that_can(monkeypatch):
    monkeypatch.setattr(machine, "compile_problem", lambda device="cpu": None)
    assert machine.should_compile("on", 0) and machine.should_compile("auto", 1e4)
    assert not machine.should_compile("auto", 1) and not machine.should_compile("off", 1e4)
    monkeypatch.setattr(machine, "compile_problem", lambda device="cpu": "no compiler")
    assert not machine.should_compile("auto", 1e4)
    with pytest.raises(UserError, match="no compiler"):
        machine.should_compile("on", 0)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_compiling_for_a_cpu_misses_no_cuda(device, monkeypatch, caplog):
    logger = logging.getLogger("torch.utils.cpp_extension")
    monkeypatch.setattr(logger, "filters", [])
    monkeypatch.setattr(logger, "handlers", [caplog.handler])
    monkeypatch.setattr(logger, "propagate", False)

    def compile(*_, **__):
        logger.warning("No CUDA runtime is found, using CUDA_HOME='%s'", "/usr/local")
        logger.warning("something else")
        raise RuntimeError("far enough")

    monkeypatch.setattr(torch, "compile", compile)
    monkeypatch.setattr(torch, "ones", lambda *_, **__: None)  # there may be no such device
    assert machine.compile_problem(device) == "far enough"
    assert len(caplog.messages) == (1 if device == "cpu" else 2) and caplog.messages[-1] == "something else"


def test_devices_are_there_or_refused():
    import torch

    assert machine.resolve_device("cpu") == "cpu"
    if not torch.cuda.is_available():
        assert machine.resolve_device("auto") == "cpu"
        with pytest.raises(UserError, match="device=cuda"):
            machine.resolve_device("cuda")


def test_longer_stages_are_expected_to_take_longer():
    world, smoke = load_recipe("world"), load_recipe("smoke")
    for verb in ("pretrain", "sft", "reward", "rlhf"):
        assert expected_s(world, verb, 5e11) > 10 * expected_s(smoke, verb, 5e11) > 0
    assert expected_s(load_recipe("smoke", ["budget=100s"]), "sft", 1.0) == pytest.approx(22)


def test_what_tuning_takes_is_estimated_from_what_it_reads(tmp_path):
    """The noisy edition was taken for the curated one, files beside the world for nothing, and a limit for what there is."""
    (tmp_path / "a.jsonl").write_text("x" * 3_500)

    def tokens(*settings):
        return trained_tokens(load_recipe("world", ["sft.max_tokens=none", "sft.replay_frac=0", "sft.epochs=1", *settings]))["sft"]

    curated = tokens("world.num_conversations_curated=100")
    assert curated == 10_000 and tokens("world.num_conversations_noisy=700", "sft.conversations=noisy") == 7 * curated
    assert tokens(f"data.conversations={tmp_path}/a.jsonl") == 1_000
    assert tokens("world.num_conversations_curated=100", "sft.max_tokens=1e9") == curated
    assert tokens("world.num_conversations_curated=100", "sft.max_tokens=500") == 500


PAGES = """
import resource, sys
from fromnoise.run import machine
if sys.argv[1] == "keep":
    machine.keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = bytearray(b"x") * 100_000_000
    del block
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is asked to keep memory")
@pytest.mark.parametrize("setting", ["keep", "leave"])
def test_memory_that_is_freed_serves_the_next_allocation(setting):
    """The broken twin leaves glibc as it is: every large block is then made of new pages."""
    found = subprocess.run([sys.executable, "-c", PAGES, setting], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": "src"})
    assert (int(found.stdout) < 100) is (setting == "keep")


def test_kernels_that_were_cut_off_while_written_are_removed(tmp_path):
    whole = next(path for path in Path(sys.executable).resolve().parents[1].rglob("*.so") if path.stat().st_size > 10_000).read_bytes()
    for name, data in {"whole.so": whole, "torn.so": whole[: len(whole) // 2], "empty.so": b""}.items():
        (tmp_path / name).write_bytes(data)
    assert machine.remove_torn_kernels(tmp_path) == 0  # they may still be written
    for path in tmp_path.iterdir():
        os.utime(path, (0, 0))
    assert machine.remove_torn_kernels(tmp_path) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["whole.so"]
    assert machine.remove_torn_kernels(tmp_path / "absent") == 0


def test_pretraining_gets_what_later_stages_cannot_use(tmp_path):
    """A thousand conversations and two thousand pairs need little of half an hour; a hundred times as many need their shares."""
    chats, pairs = tmp_path / "chats.jsonl", tmp_path / "pairs.jsonl"

    def left(*settings, token_s=7e-5):
        given = [f"data.path={tmp_path}", f'data.conversations=["{chats}"]', *settings]
        return unused_s(load_recipe("text", given), token_s)

    chats.write_bytes(b"x" * 1_000_000)
    pairs.write_bytes(b"x" * 2_000_000)
    few, rest = [f"data.preferences={pairs}", "budget=30m"], ("sft", "prefer", "reward", "rlhf")
    shares = {verb: share_s(load_recipe("text", [f'data.conversations=["{chats}"]', f"data.path={tmp_path}", *few]), verb) for verb in rest}
    assert 0.25 * sum(shares.values()) < left(*few) < GIVEN_AWAY_FRAC * (sum(shares.values()) - 4 * 30)
    assert left(*few, token_s=1.0) == pytest.approx(GIVEN_AWAY_FRAC * (shares["prefer"] - 30))  # a slow machine: nothing else is left
    assert left(few[0]) == 0.0  # without a budget
    chats.write_bytes(b"x" * 100_000_000)
    assert left(*few) < GIVEN_AWAY_FRAC * (sum(shares.values()) - shares["sft"])
    packed = pairs.with_suffix(".jsonl.gz")
    packed.write_bytes(b"x" * 1_000_000)
    assert tokens_in(str(packed)) == pytest.approx(2 * tokens_in(str(pairs))) and tokens_in(str(tmp_path)) > tokens_in(str(chats))


def budgeted(budget: str | None, elapsed_s: float = 0.0, step_s: float = 0.0, **took_s: float) -> SimpleNamespace:
    """A stage's context as far as budgets look at it; took_s: seconds of the stages that are done, step_s: what pretraining measured."""
    recipe = load_recipe("smoke", [f"budget={budget}"] if budget else [])
    run = SimpleNamespace(record=lambda stage: {"seconds": took_s[stage.verb], "decisions": {"step_s": step_s}} if stage.verb in took_s else None)
    return SimpleNamespace(recipe=recipe, run=run, console=Console(), elapsed_s=lambda: elapsed_s, decide=lambda name, make: make())


def test_a_budget_is_shared_out_by_the_clock():
    """Stages that take exactly what they are given end on time, whatever one of them, or what has no share, took beside it."""
    verbs = [stage.verb for stage in stages_of(load_recipe("smoke"))]

    def took(late: dict[str, float]) -> dict[str, float]:
        done: dict[str, float] = {}
        for verb in verbs:
            paid = paid_s(budgeted("1000s", **done), verb) if verb in SHARES and verb != "evaluate" else 0.0
            done[verb] = paid + late.get(verb, 0.0)
        return done

    on_time = took({})
    kept = 1000 * SHARES["evaluate"]
    assert sum(on_time.values()) == pytest.approx(1000 - kept) and on_time["pretrain"] > 2 * on_time["rlhf"]
    late = took({"prepare": 100.0, "pretrain": 200.0})
    assert sum(late.values()) == pytest.approx(1000 - kept)  # without the clock: 300 s more
    assert all(late[verb] < on_time[verb] for verb in ("sft", "reward", "rlhf", "reason"))
    assert paid_s(budgeted("1000s", elapsed_s=50.0), "pretrain") < on_time["pretrain"]  # compiling is time too
    lost = budgeted("1000s", pretrain=2000.0)
    assert paid_s(lost, "sft") == 0.0 and steps_for(lost, "sft", 10, 1.0) == 1
    assert paid_s(budgeted("60s"), "reason") == 30.0  # `evaluate` is kept half a minute at least
    slow = budgeted("1000s", step_s=2e-4 * load_recipe("smoke").pretrain.batch_tokens, pretrain=300.0)
    assert paid_s(slow, "reason") == pytest.approx(1000 - 300 - 200)  # and on a slow machine what it will take there
    assert paid_s(budgeted("1000s", step_s=100.0, pretrain=300.0), "reason") == pytest.approx(200)  # half of the whole at most


def test_a_budget_that_is_used_up_is_no_secret(capsys):
    """Where preparing took all of it, or it was a slip of the pen, a model of one step was made without a word."""
    assert steps_for(budgeted("1000s"), "pretrain", 10, 1.0) > 10 and capsys.readouterr().err == ""
    assert steps_for(budgeted("1000s"), "pretrain", 10, 1000.0) == 1
    assert capsys.readouterr().err == "warning: pretrain: its share of what is left of budget = '1000s' pays for no step; one is made all the same\n"
    assert steps_for(budgeted("1000s", prepare=1200.0), "pretrain", 10, 1.0) == 1
    said = "nothing is left of budget = '1000s' for this stage and those to come: one step of each is made all the same, and the run is likely to end late"
    assert capsys.readouterr().err == f"warning: pretrain: {said}\n"  # of the whole run, before its long part


def test_a_budget_asked_on_the_way_stands_by_what_was_planned_when_all_goes_as_measured():
    """As if a stage began there, it would get its share a second time."""
    planned = steps_for(budgeted("1000s"), "pretrain", 10, 0.1)
    for made in (planned // 20, planned // 4):
        assert steps_for(budgeted("1000s", elapsed_s=0.1 * made), "pretrain", 10, 0.1, made=(made, planned)) == pytest.approx(planned, abs=2)
        assert steps_for(budgeted("1000s", elapsed_s=0.1 * made), "pretrain", 10, 0.1, given_s=100.0, made=(made, planned + 1000)) > planned + 500
    slow = steps_for(budgeted("1000s", elapsed_s=0.2 * made), "pretrain", 10, 0.2, made=(made, planned))
    fast = steps_for(budgeted("1000s", elapsed_s=0.01 * made), "pretrain", 10, 0.01, made=(made, planned))
    assert planned / 2 < slow < 0.7 * planned and fast > 6 * planned


def test_a_budget_cuts_passes_over_few_records_and_never_adds_any():
    assert sum(SHARES.values()) == pytest.approx(1.0)
    ctx = budgeted("1000s")
    share = paid_s(ctx, "sft")
    assert steps_for(ctx, "sft", 10, share / 50) == 50 and steps_for(ctx, "sft", 10, share / 50, more=False) == 10
    assert steps_for(ctx, "sft", 10, share / 4, more=False) == 4
    assert steps_for(ctx, "sft", 10, share / 50, given_s=share) == 100
    free = budgeted(None)
    assert steps_for(free, "sft", 10, 1.0) == steps_for(free, "sft", 10, 1.0, more=False) == 10


def test_a_rank_without_a_gpu_is_refused_and_may_use_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_RANK", "1")
    for wanted in ("cuda", "auto"):
        with pytest.raises(UserError, match="1 GPU, and rank 1"):
            machine.resolve_device(wanted)
    assert machine.resolve_device("cpu") == "cpu"
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert machine.resolve_device("auto") == "cuda"


def test_a_step_that_was_held_up_once_does_not_count(monkeypatch):
    now, lengths = [0.0], iter([9.0, 1.0, 5.0, 1.2])  # the first warms up, the third is held up
    monkeypatch.setattr(machine, "clock", lambda device_type: now[0])

    def step():
        now[0] += next(lengths)

    assert machine.Machine("cpu", "float32", False, 1, 1.0).seconds_of(step) == pytest.approx(1.2)


def test_a_peak_that_is_exceeded_is_measured_again(tmp_path, monkeypatch):
    """Utilisation above 100 % says that the measurement was held up by a neighbour; it was shown for the whole stage."""
    found = iter([1e9, 8e9])

    def measure(device, num_threads):
        return {"fingerprint": machine.fingerprint(device, num_threads), "matmul_flops_per_s": {"float32": next(found), "bfloat16": 1e8}}

    monkeypatch.setattr(machine, "measure", measure)
    ctx = small_run.context(small_run.make(tmp_path / "run"), "sft", small_run.recipe())
    assert ctx.rates(100, 1.0, 5e6) == {"tokens_per_s": 100.0, "mfu": 0.5}
    assert ctx.rates(400, 1.0, 5e6)["mfu"] == 0.25 and ctx.record["decisions"]["machine"]["peak_flops"] == 8e9
    assert ctx.run.read_info()["machine"]["matmul_flops_per_s"]["float32"] == 8e9
    assert ctx.rates(4000, 1.0, 5e6)["mfu"] == 2.5  # once a stage: a product that is faster than its peak is no neighbour's doing
