"""A run folder with a tiny SFT model and prompts, as the stages of phase 3 find it. Made in a second, on one thread."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import torch

from fromnoise.data.tokenizer import Tokenizer
from fromnoise.model.config import ModelConfig
from fromnoise.model.hf import save_model
from fromnoise.model.initialize import initialize
from fromnoise.model.transformer import Transformer
from fromnoise.run.console import Console
from fromnoise.run.context import StageContext
from fromnoise.run.errors import Interrupted
from fromnoise.run.folder import RunFolder, stage_of
from fromnoise.run.recipe import Recipe
from fromnoise.tasks import sums

OPTIMIZER = {"muon_lr": 0.02, "adamw_lr": 0.01}
RECIPE = {
    "dtype": "float32", "compile": "off", "num_threads": 1, "data": {"world": True},
    "prefer": {"num_pairs": 60, "batch_prompts": 25, "row_tokens": 64, "held_out_frac": 0.3, "sampling": {"max_new_tokens": 8}},
    "reward": {"row_tokens": 64, "micro_batch_rows": 4, "batch_pairs": 6, "validation_frac": 0.3, "epochs": 2, "num_evaluations": 2, "optimizer": OPTIMIZER},
    "rlhf": {"num_iterations": 4, "rollouts_per_iteration": 12, "row_tokens": 64, "micro_batch_rows": 4, "audit_every": 2, "audit_prompts": 6,
             "critic_warmup_iterations": 1, "sampling": {"max_new_tokens": 8}, "optimizer": OPTIMIZER},
}  # fmt: skip


def recipe(**sections) -> Recipe:
    merged = {name: {**RECIPE.get(name, {}), **value} if isinstance(value, dict) else value for name, value in {**RECIPE, **sections}.items()}
    return Recipe.model_validate(merged)


def copy_of(run: RunFolder, folder: Path, without: str) -> RunFolder:
    """A copy of a run without one of its stages."""
    shutil.copytree(run.path, folder, ignore=shutil.ignore_patterns(without))
    return RunFolder(folder)


def make(folder: Path, num_prompts: int = 60, context_tokens: int = 64) -> RunFolder:
    """prepare/world/prompts.jsonl with sums, and sft/: a random model over a tiny vocabulary."""
    run = RunFolder(folder)
    run.create()
    rng = random.Random("small run")
    examples = [sums.example(rng, "Mara", "plums") for _ in range(num_prompts)]
    (folder / "prepare" / "world").mkdir(parents=True)
    with (folder / "prepare" / "world" / "prompts.jsonl").open("w") as file:
        for n, example in enumerate(examples):
            record = {"id": f"p{n}", "kind": example.kind, "split": "heldout" if n % 10 == 9 else "train",
                      "messages": [{"role": "user", "content": example.prompt}], "check": example.check}  # fmt: skip
            file.write(json.dumps(record) + "\n")
    tokenizer = Tokenizer.train([f"{example.prompt} {example.answer}" for example in examples] * 3, 320)
    config = ModelConfig(vocab_size=tokenizer.vocab_size, num_layers=1, width=64, num_heads=1, num_kv_heads=1, head_size=64, ffn_width=64, qk_norm=True,
                         tie_embeddings=True, rope_theta=1e4, rms_norm_eps=1e-6, context_tokens=context_tokens)  # fmt: skip
    model = initialize(Transformer(config), seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        model.embed_tokens.weight.mul_(0.002)  # small, and the norm at one: a model that a few updates at these rates move
        model.norm.weight.fill_(1.0)
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
        model.embed_tokens.weight[tokenizer.im_end_id] *= 3  # stops now and then, with or without meaning to
    save_model(folder / "sft", model, tokenizer, eos_ids=[tokenizer.im_end_id, tokenizer.endoftext_id])
    return run


class StopAfter:
    """Asks to stop once the checkpointer has looked `count` times, as Ctrl-C would."""

    def __init__(self, count: int):
        self.count = count

    def requested(self) -> str | None:
        self.count -= 1
        return "the test" if self.count < 0 else None

    def reset(self) -> None:
        pass


class Listening(Console):
    """Keeps what is told, each step's progress too, and prints nothing."""

    def __init__(self):
        super().__init__()
        self.is_terminal, self.lines = False, []

    def line(self, text: str = "") -> None:
        self.lines.append(text)

    def progress_lines(self, verb: str) -> list[str]:
        return [line for line in self.lines if line.startswith(f"{verb}: ") and "/s  " in line]


def context(run: RunFolder, verb: str, settings: Recipe, interrupts=None) -> StageContext:
    return StageContext(stage_of(verb), settings, run, console=Listening(), interrupts=interrupts)


def do(run: RunFolder, verb: str, settings: Recipe, stop_after: int | None = None) -> SimpleNamespace:
    """Run one stage; its summary, metrics, what it told and lines of progress. With `stop_after`, interrupted after that many steps and started again."""
    from importlib import import_module

    module = import_module(stage_of(verb).module)
    if stop_after is not None:
        try:
            module.run(context(run, verb, settings, StopAfter(stop_after)))
            raise AssertionError("the stage was not interrupted")
        except Interrupted:
            pass
    ctx = context(run, verb, settings)
    with mock.patch("fromnoise.run.console.LINE_EVERY_S", 0.0):
        module.run(ctx)
    lines = [json.loads(line) for line in (ctx.folder / "metrics.jsonl").read_text().splitlines()]
    told, progress = ctx.console.lines, ctx.console.progress_lines(verb)
    return SimpleNamespace(summary=ctx.record["summary"], outputs=ctx.record["outputs"], metrics=lines, folder=ctx.folder, told=told, progress=progress)
