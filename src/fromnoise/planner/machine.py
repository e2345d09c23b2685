"""How fast this machine is, and what fromnoise makes of it: `fromnoise plan --machine` measures and says it, a run says what it decided."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

from fromnoise.run import machine
from fromnoise.run.budget import expected_s
from fromnoise.run.machine import Machine
from fromnoise.run.recipe import Recipe


def describe(recipe: Recipe) -> Iterator[str]:
    """Lines for a terminal, each yielded when it has been measured: a few seconds in all, half a minute where nothing was compiled before.

    Raises UserError for a device that is not there.
    """
    machine.prepare_environment()
    device, num_threads = machine.resolve_device(recipe.device), machine.threads(recipe.num_threads)
    counts = [1, num_threads] if device == "cpu" and num_threads > 1 else [num_threads]
    for count in counts:
        profile = machine.measure(device, count)  # the last one is what a run would measure
        if count == counts[0]:
            marks = profile["fingerprint"]
            yield f"{device}: {marks['processor']}, {os.cpu_count()} cores, torch {marks['torch']}"
        speeds = profile["matmul_flops_per_s"]
        bandwidth = machine.memory_bytes_per_s(device)
        where = f"{count} thread{'s' if count > 1 else ''}" if device == "cpu" else "device"
        yield (
            f"  {where}: matrix products {speeds['bfloat16'] / 1e9:,.0f} GFLOP/s in bf16, {speeds['float32'] / 1e9:,.0f} in fp32; "
            f"memory {bandwidth / 1e9:,.1f} GB/s"
        )  # fmt: skip
    chosen = machine.choose(recipe.model_copy(update={"compile": "off"}), profile, 0.0)
    yield from choices(recipe, chosen, profile, lambda: machine.compile_problem(device))


def choices(recipe: Recipe, chosen: Machine, profile: dict[str, Any], problem: Callable[[], str | None]) -> Iterator[str]:
    """What follows from the profile, and why: dtype, decoding, attention, threads, compiling. problem(): why compiling does not work, asked last."""
    from fromnoise.generate import native
    from fromnoise.run.native import ATTENTION, build

    device, speeds = chosen.device_type, profile["matmul_flops_per_s"]
    gain = speeds["bfloat16"] / speeds["float32"]
    why = f"recipe: dtype={recipe.dtype}" if recipe.dtype != "auto" else f"bf16 is {gain:.1f} x as fast as fp32 here; from {machine.BF16_PAYS} x on it is used"
    yield f"dtype: {chosen.dtype} ({why})"
    why_not = native.unavailable(chosen.torch_dtype, device)
    by_torch = "by torch, a step captured as one CUDA graph" if device == "cuda" else f"by torch ({why_not})"
    yield f"decoding: {by_torch if why_not else f'native (built by {machine.cxx()})'}"
    if chosen.dtype == "bfloat16" and device == "cpu":
        built = build(ATTENTION)
        yield f"attention: {f'by torch ({built})' if isinstance(built, str) else 'native, each segment of a row by itself'}"
    yield f"threads: {chosen.num_threads} ({'recipe: num_threads' if recipe.num_threads else 'all that torch finds'})"
    if recipe.compile == "off":
        yield "compile: off (recipe: compile=off)"
    elif found := problem():
        yield f"compile: off (torch.compile does not work here: {found})"
    elif recipe.compile == "on":
        yield "compile: on (recipe: compile=on)"
    else:
        yield f"compile: in stages expected to take {machine.COMPILE_PAYS_S:.0f} s or more (shorter ones would not repay it)"


def stage_choices(recipe: Recipe, verb: str, chosen: Machine, profile: dict[str, Any]) -> str:
    """The same in one line, of a stage that has decided already: whether compiling works is asked only where a stage wanted it and does without."""
    wanted = expected_s(recipe, verb, max(profile["matmul_flops_per_s"].values())) >= machine.COMPILE_PAYS_S
    failed = wanted and not chosen.compile
    return "; ".join(choices(recipe, chosen, profile, lambda: machine.compile_problem(chosen.device_type) if failed else None))
