"""fromnoise's side of the rows: `python bench/ours.py ROW FOLDER [--dtype D] [--threads N]`.

Training rows run the real stages: only their context differs, which pauses where each step is logged (pace.py).
"""

from __future__ import annotations

import argparse
import json
import time
from importlib import import_module
from pathlib import Path

from pace import Pace, serve
from shape import BATCH, GROUP, GRPO_NEW_TOKENS, KL_COEF, NEW_TOKENS, NUM_PROMPTS, PRETRAIN_ROW_TOKENS, PRETRAIN_ROWS, PROMPT_TOKENS, ROW_TOKENS, SHAPE

from fromnoise.run.machine import prepare_environment

prepare_environment()

import numpy as np  # noqa: E402
import torch  # noqa: E402

from fromnoise.generate.engine import Engine  # noqa: E402
from fromnoise.model.hf import load_model  # noqa: E402
from fromnoise.run.console import Console  # noqa: E402
from fromnoise.run.context import StageContext  # noqa: E402
from fromnoise.run.folder import RunFolder, stage_of  # noqa: E402
from fromnoise.run.native import attention  # noqa: E402
from fromnoise.run.recipe import Recipe, SamplingSection  # noqa: E402

FOR_EVER = 1_000_000  # steps: the comparison ends a side when it has seen enough
STEPS = {  # to warm up, in a measurement
    "pretrain": (3, 4), "pretrain-adamw": (3, 4), "sft": (3, 4), "reward": (3, 3), "dpo": (3, 3), "grpo": (3, 3),
}  # fmt: skip


class PacedContext(StageContext):
    """A stage's context whose log of a training step hands the step over to the measurement."""

    pace: Pace
    units: str | float  # of a step: a logged number's name, or how many there always are

    def log(self, step: int, **metrics) -> None:
        super().log(step, **metrics)
        if "lr_scale" in metrics:
            self.pace.step(metrics[self.units] if isinstance(self.units, str) else self.units)


def recipe_for(row: str, folder: Path, threads: int | None, compiling: str) -> Recipe:
    facts = json.loads((folder / "fixture.json").read_text())
    adamw = {"matrices": "adamw"}  # the peers' optimizer, with which losses are the same (losses.py); a step of Muon takes longer, and fewer do
    rows = {"row_tokens": ROW_TOKENS, "micro_batch_rows": 8, "checkpoint_every_s": 3600.0, "optimizer": adamw}
    step_tokens = max(1, round(BATCH * (facts["mean_tokens"] or 0) / ROW_TOKENS)) * ROW_TOKENS  # as many tokens as BATCH conversations have
    # one row a step where attention costs what its segments cost, however long the row: long rows leave less empty
    sft_row_tokens = step_tokens if attention() else ROW_TOKENS
    settings = {
        "num_threads": threads, "compile": compiling, "data": {"conversations": [str(folder / "sft.jsonl")], "preferences": str(folder / "pairs.jsonl")},
        "model": {**SHAPE, "context_tokens": ROW_TOKENS},
        "pretrain": {
            "tokens": FOR_EVER * 4096, "max_passes": 1e6, "batch_tokens": PRETRAIN_ROWS * PRETRAIN_ROW_TOKENS, "row_tokens": PRETRAIN_ROW_TOKENS,
            "micro_batch_rows": PRETRAIN_ROWS, "num_evaluations": 1, "evaluation_tokens": 4096, "num_kept_checkpoints": 0, "checkpoint_every_s": 3600.0,
            "probes": [], "optimizer": adamw if row == "pretrain-adamw" else {},
        },
        "sft": {
            **rows, "row_tokens": sft_row_tokens, "epochs": 1e4, "batch_tokens": step_tokens, "micro_batch_rows": min(8, step_tokens // sft_row_tokens),
            "num_evaluations": 1,
        },
        "prefer": {"row_tokens": ROW_TOKENS},
        "reward": {**rows, "epochs": 20, "batch_pairs": BATCH, "num_evaluations": 1},
        "rlhf": {
            **rows, "micro_batch_rows": 4 if row == "grpo" else 8,  # two groups that share their prompts fill three to four rows
            "num_iterations": FOR_EVER, "rollouts_per_iteration": BATCH, "group_size": GROUP, "ppo_epochs": 1, "minibatches": 1,
            "kl_coef": KL_COEF, "max_kl_nats": 1e9, "audit_every": FOR_EVER, "audit_prompts": 8, "method": row if row in ("dpo", "grpo") else "ppo",
            "sampling": {"max_new_tokens": GRPO_NEW_TOKENS}, "dpo": {"epochs": 20, "batch_pairs": BATCH},
        },
    }  # fmt: skip
    return Recipe.model_validate(settings)


def train(row: str, folder: Path, threads: int | None, compiling: str) -> None:
    """A stage, run in a folder of its own whose inputs are the fixture's."""
    verb = {"dpo": "rlhf", "grpo": "rlhf", "pretrain-adamw": "pretrain"}.get(row, row)
    recipe, run = recipe_for(row, folder, threads, compiling), RunFolder(folder / f"ours-{row}")
    run.create()
    for name in ("tokenizer", "base", "sft", "reward", "audit", "prefer"):
        source = (folder / "run" / name).resolve()
        if name not in stage_of(verb).writes and source.exists():
            (run.path / name).symlink_to(source)
    if verb in ("reward", "rlhf") and not (run.path / "prefer").exists():
        import_module("fromnoise.stages.prefer").run(StageContext(stage_of("prefer"), recipe, run, console=Console(quiet=True)))
    ctx = PacedContext(stage_of(verb), recipe, run, console=Console(quiet=True))
    ctx.units = {"sft": "tokens", "reward": "pairs", "dpo": "counted", "grpo": BATCH}.get(row, PRETRAIN_ROWS * PRETRAIN_ROW_TOKENS)
    machine = ctx.machine
    ctx.pace = Pace(*STEPS[row], dtype=machine.dtype, compile=machine.compile, num_threads=machine.num_threads, **flops(row, folder))
    import_module(stage_of(verb).module).run(ctx)


def flops(row: str, folder: Path) -> dict:
    if row != "pretrain":
        return {}
    from fromnoise.model.flops import training_flops_per_token

    return {"flops_per_token": training_flops_per_token(load_model(folder / "run" / "base").config, PRETRAIN_ROW_TOKENS)}


def generate(folder: Path, dtype: str, num_prompts: int, threads: int | None) -> None:
    if threads:
        torch.set_num_threads(threads)
    model = load_model(folder / "run" / "sft")
    engine = Engine(model, getattr(torch, dtype))
    rng = np.random.default_rng(0)
    prompts = rng.integers(300, model.config.vocab_size, (num_prompts, PROMPT_TOKENS)).tolist()

    def measure() -> tuple[float, float]:
        start = time.perf_counter()
        answers = engine.generate(prompts, NEW_TOKENS, frozenset(), SamplingSection(), seed=0)
        seconds = time.perf_counter() - start
        assert all(len(answer.token_ids) == NEW_TOKENS for answer in answers)
        return num_prompts * NEW_TOKENS, seconds

    measure()
    serve(measure, dtype=dtype, decoder=type(engine.decoder).__name__, num_threads=torch.get_num_threads())


def peak(threads: int | None) -> None:
    """The best median over square products of 1,024, 2,048 and 4,096 in bf16 and fp32: what MFU is a fraction of."""
    if threads:
        torch.set_num_threads(threads)

    def measure() -> tuple[float, float]:
        best = 0.0
        for dtype in (torch.bfloat16, torch.float32):
            for size in (1024, 2048, 4096) if dtype == torch.bfloat16 else (1024, 2048):
                left, right = (torch.randn(size, size).to(dtype) for _ in range(2))
                times = []
                for _ in range(5):
                    start = time.perf_counter()
                    left @ right
                    times.append(time.perf_counter() - start)
                best = max(best, 2 * size**3 / sorted(times)[2])
        return best, 1.0

    serve(measure)


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("row", choices=("generate", "peak", *STEPS))
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--dtype", default="float32")
    arguments.add_argument("--num-prompts", type=int, default=NUM_PROMPTS)
    arguments.add_argument("--threads", type=int)
    arguments.add_argument("--compile", choices=("on", "off"), default="on")
    given = arguments.parse_args()
    if given.row == "generate":
        generate(given.folder, given.dtype, given.num_prompts, given.threads)
    elif given.row == "peak":
        peak(given.threads)
    else:
        train(given.row, given.folder, given.threads, given.compile)


if __name__ == "__main__":
    main()
