"""Where a step's time goes: python bench/profile_step.py pretrain|generate [--dtype D] [--threads N]

Self time of each operator over a few steps of the bench's model on random tokens, not compiled (a compiled step's kernels
have no names that a reader knows), the smallest left out.
"""

from __future__ import annotations

import argparse
import time

import torch
from shape import BATCH, CONTEXT_TOKENS, NUM_PROMPTS, PRETRAIN_ROW_TOKENS, PROMPT_TOKENS, SHAPE, VOCAB_SIZE

from fromnoise.algorithms.logprobs import linear_cross_entropy
from fromnoise.generate.engine import Engine
from fromnoise.model.compiled import autocast
from fromnoise.model.config import ModelConfig
from fromnoise.model.initialize import initialize
from fromnoise.model.transformer import Transformer
from fromnoise.optim.groups import make_optimizer
from fromnoise.run.recipe import OptimizerSection, SamplingSection
from fromnoise.run.update import Loss, update

NUM_STEPS = 4


def pretrain(model: Transformer, dtype: torch.dtype):
    ids = torch.randint(0, VOCAB_SIZE, (BATCH, PRETRAIN_ROW_TOKENS + 1), generator=torch.Generator().manual_seed(0))
    optimizer = make_optimizer(model, OptimizerSection(), dtype)

    def losses(batch) -> dict[str, Loss]:
        with autocast(dtype):
            total = linear_cross_entropy(model(batch[:, :-1]), model.head_weight, batch[:, 1:], batch[:, 1:].numel())
        return {"loss": Loss(total, batch[:, 1:].numel(), "token")}

    def step() -> None:
        update(list(model.parameters()), optimizer, [ids], losses, {"loss": BATCH * PRETRAIN_ROW_TOKENS}, lr_scale=1.0, max_grad_norm=1.0)

    return step


def generate(model: Transformer, dtype: torch.dtype):
    engine = Engine(model, dtype)
    prompts = torch.randint(0, VOCAB_SIZE, (NUM_PROMPTS, PROMPT_TOKENS), generator=torch.Generator().manual_seed(0)).tolist()
    return lambda: engine.generate(prompts, 32, frozenset(), SamplingSection(), seed=0)


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("what", choices=("pretrain", "generate"))
    arguments.add_argument("--dtype", default="bfloat16")
    arguments.add_argument("--threads", type=int)
    given = arguments.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    model = initialize(Transformer(ModelConfig(vocab_size=VOCAB_SIZE, **SHAPE, context_tokens=CONTEXT_TOKENS)), seed=0)
    step = {"pretrain": pretrain, "generate": generate}[given.what](model, getattr(torch, given.dtype))
    step()
    start = time.perf_counter()
    for _ in range(NUM_STEPS):
        step()
    seconds = (time.perf_counter() - start) / NUM_STEPS
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        step()
    events = sorted(profile.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    print(f"{given.what}, {given.dtype}, {torch.get_num_threads()} threads: {seconds * 1e3:.1f} ms a step (unprofiled)")
    for event in events:
        if event.self_cpu_time_total < 0.01 * total:
            break
        print(f"{event.self_cpu_time_total / total:6.1%}  {event.self_cpu_time_total / 1e3:8.2f} ms  {event.count:6d} x  {event.key}")


if __name__ == "__main__":
    main()
