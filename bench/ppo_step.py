"""How long an iteration of PPO takes: python bench/ppo_step.py [--shape 12x768] [--rollouts 512] [--device auto] [--compile on]

The real stage (`fromnoise rlhf`) on random weights: a policy, its reference, a critic and two reward models of one shape, prompts
of about 30 tokens, answers of 128 (random weights hardly ever stop), two passes over them in eight minibatches. Told are the
medians of the iterations after the first two, which compile: seconds to sample, to score (one forward pass of each model)
and to learn, and answers a second over all three.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from fromnoise.run.machine import prepare_environment

prepare_environment()

import torch  # noqa: E402
from training_step import SHAPES, config_of  # noqa: E402

from fromnoise.data.tokenizer import Tokenizer  # noqa: E402
from fromnoise.model.heads import ScoreModel  # noqa: E402
from fromnoise.model.hf import save_model, save_reward  # noqa: E402
from fromnoise.model.initialize import initialize  # noqa: E402
from fromnoise.model.transformer import Transformer  # noqa: E402
from fromnoise.run.console import Console  # noqa: E402
from fromnoise.run.context import StageContext  # noqa: E402
from fromnoise.run.folder import RunFolder, stage_of  # noqa: E402
from fromnoise.run.recipe import Recipe  # noqa: E402
from fromnoise.stages import rlhf  # noqa: E402

NEW_TOKENS, TO_WARM_UP = 128, 2


def make(folder: Path, shape: str) -> RunFolder:
    run = RunFolder(folder)
    run.create()
    questions = [f"Mara has {i} red plums and {i + 7} green ones, and gives {i // 2} away; how many plums has she left?" for i in range(2000)]
    (folder / "prefer").mkdir()
    records = [{"id": f"p{i}", "split": "train", "messages": [{"role": "user", "content": text}]} for i, text in enumerate(questions)]
    (folder / "prefer" / "prompts.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    tokenizer = Tokenizer.train(questions, 512)
    config = config_of(shape, context_tokens=256)
    save_model(folder / "sft", initialize(Transformer(config), 0), tokenizer)
    for seed, name in enumerate(("reward", "audit"), start=1):
        scorer = ScoreModel(initialize(Transformer(config), seed))
        torch.nn.init.normal_(scorer.score.weight, generator=torch.Generator().manual_seed(seed))
        save_reward(folder / name, scorer, tokenizer)
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="12x768")
    parser.add_argument("--rollouts", type=int, default=512)
    parser.add_argument("--iterations", type=int, default=6)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--compile", choices=("on", "off"), default="on")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    settings = {
        "num_iterations": TO_WARM_UP + options.iterations, "rollouts_per_iteration": options.rollouts, "minibatches": 8, "ppo_epochs": 2,
        "micro_batch_rows": min(64, max(8, options.rollouts // 16)), "audit_every": 1000, "audit_prompts": 8, "critic_warmup_iterations": 0,
        "max_kl_nats": 1e9, "checkpoint_every_s": 3600.0, "sampling": {"max_new_tokens": NEW_TOKENS},
    }  # fmt: skip
    recipe = Recipe.model_validate({"device": options.device, "compile": options.compile, "num_threads": options.threads, "data": {"world": True},
                                    "rlhf": settings})  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        run = make(Path(folder) / "run", options.shape)
        ctx = StageContext(stage_of("rlhf"), recipe, run, console=Console(quiet=True))
        rlhf.run(ctx)
        lines = [json.loads(line) for line in (ctx.folder / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "sample_s" in line][TO_WARM_UP:]
    parts = {name: statistics.median(line[name] for line in steps) for name in ("sample_s", "score_s", "update_s")}
    tokens = statistics.median(line["answer_tokens"] for line in steps)
    machine = ctx.machine
    how = "compiled" if machine.compile else "eager"
    print(
        f"ppo, {options.shape}, {machine.dtype} on {machine.device_type}, {how}: {options.rollouts} answers of {tokens:.0f} tokens, "
        f"sample {parts['sample_s']:.2f} s, score {parts['score_s']:.2f} s, learn {parts['update_s']:.2f} s: "
        f"{options.rollouts / sum(parts.values()):,.0f} answers/s"
    )


if __name__ == "__main__":
    main()
