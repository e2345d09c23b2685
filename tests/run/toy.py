"""A pipeline of two tiny stages on the real machinery, for tests of resuming, locks and verdicts.

    python -m tests.run.toy RUN_FOLDER [key.sub=value ...] [--rerun] [--different]

`make` writes a file; `learn` takes `sft.max_tokens` steps of a made-up recurrence, with checkpoints and metrics. TOY_SLEEP_S slows
its steps down so that a test can kill it in the middle; the rank TOY_FAILS refuses at its fourth.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from unittest import mock

import torch
from safetensors.torch import save_file

from fromnoise.parallel.process import Process
from fromnoise.pipeline import Stage
from fromnoise.run.budget import steps_for
from fromnoise.run.console import Console
from fromnoise.run.errors import Interrupted, UserError
from fromnoise.run.execute import execute
from fromnoise.run.folder import RunFolder
from fromnoise.run.recipe import Recipe
from fromnoise.run.recipe_load import load_recipe
from fromnoise.run.verdict import verdicts

STAGES = (
    Stage("make", "tests.run.toy_make", (), ("made",), ("seed", "data.world", "prepare"), "1", "nothing to numbers"),
    Stage("learn", "tests.run.toy_learn", ("made",), ("learnt", "beside"), ("seed", "sft", "dtype"), "1", "numbers to weights"),
)


def run_make(ctx) -> None:
    (ctx.folder / "numbers.txt").write_text(f"{ctx.recipe.seed} {ctx.recipe.prepare.min_chars}\n")
    ctx.finish({"tokens": 10})


def run_learn(ctx) -> None:
    numbers = ctx.path("made").joinpath("numbers.txt").read_text().split()
    generator = torch.Generator()
    weight, momentum = torch.full((4, 4), float(numbers[1])), torch.zeros(4, 4)
    num_steps = steps_for(ctx, "sft", ctx.recipe.sft.max_tokens, seconds_per_step=0.01)
    ctx.decide("clock", time.time)
    ctx.checkpoint.plan(step_s=1.0, every_s=ctx.recipe.sft.checkpoint_every_s)
    saved = ctx.checkpoint.load()
    if saved:
        weight, momentum = saved.group("model")["weight"], saved.group("optimizer")["momentum"]
    start = saved.step if saved else 0
    with ctx.progress(num_steps, "step", start) as progress:
        for step in range(start, num_steps):
            generator.manual_seed(ctx.seed + step)
            momentum = 0.9 * momentum + torch.randn(4, 4, generator=generator) * weight.cos()
            weight = weight - 0.1 * momentum
            time.sleep(float(os.environ.get("TOY_SLEEP_S", "0")))
            if step == 3 and os.environ.get("TOY_FAILS") == str(ctx.process.rank):
                raise UserError(f"rank {ctx.process.rank} found a damaged file")
            ctx.process.all_reduce_sum(torch.zeros(1))
            ctx.log(step, loss_nats=weight.sum(), skipped=False)
            progress.advance(1, loss=float(weight.sum()))
            if ctx.checkpoint.due(step + 1):
                tensors = {"model": {"weight": weight, "tied": weight}, "optimizer": {"momentum": momentum}, "best": None}
                ctx.checkpoint.save(step + 1, tensors, {"seen": step + 1})
    if ctx.process.is_main:
        save_file({"weight": weight}, ctx.folder / "model.safetensors")
        ctx.path("beside").joinpath("copy.txt").write_text(f"{weight.sum().item()!r}\n")
    ctx.finish({"tokens": num_steps, "final": weight.sum(), "steps_from": start})


def patched():
    """The real pipeline replaced by the toy one, wherever it is looked up."""
    stack = mock.patch.multiple
    return [stack("fromnoise.run.folder", STAGES=STAGES), stack("fromnoise.run.verdict", STAGES=STAGES)]


def patched_ranks():
    """`learn` counted among the stages that all ranks take part in."""
    return mock.patch("fromnoise.run.execute.DISTRIBUTED", ("learn",) if os.environ.get("TOY_RANKS") else ())


def toy_recipe(*overrides: str) -> Recipe:
    defaults = ["data.world=true", "sft.max_tokens=40", "sft.checkpoint_every_s=5", "num_threads=1", "dtype=float32", "compile=off"]
    return load_recipe(None, [*defaults, *overrides])


def toy_run(folder: Path, *overrides: str, **options) -> None:
    first, second = patched()
    with first, second, patched_ranks():
        execute(toy_recipe(*overrides), RunFolder(folder), console=options.pop("console", Console(quiet=True)), **options)


def toy_verdicts(folder: Path, *overrides: str) -> dict[str, str]:
    first, second = patched()
    with first, second:
        return {verdict.stage.verb: str(verdict).removeprefix(verdict.stage.verb).strip() for verdict in verdicts(RunFolder(folder), toy_recipe(*overrides))}


if __name__ == "__main__":
    words = [word for word in sys.argv[2:] if not word.startswith("--")]
    try:
        ranks = Process.from_environment()
        toy_run(Path(sys.argv[1]), *words, rerun="--rerun" in sys.argv, allow_different_numerics="--different" in sys.argv, console=Console(), process=ranks)
        ranks.leave()
    except UserError as error:
        sys.exit(f"refused: {error}")
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        sys.exit(130)
