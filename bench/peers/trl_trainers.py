"""TRL's trainers on the fixture: python trl_trainers.py sft|reward|dpo|grpo FOLDER [--best] [--threads N]

As pip installs it: every option left at its default except batch, longest sequence, number of new tokens and group, the
coefficient of the KL penalty, and what would leave the machine (logging, checkpoints). --best: without recomputing
activations, and for SFT packed into full rows. --float32: computing in it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
import transformers
import trl
from datasets import Dataset
from pace import Pace
from shape import BATCH, GROUP, GRPO_NEW_TOKENS, KL_COEF, ROW_TOKENS

WARMUP, STEPS = 2, 2


class Steps(transformers.TrainerCallback):
    """Tells the measurement of each whole step, optimizer included."""

    def __init__(self, pace: Pace):
        self.pace, self.units = pace, 0.0

    def on_step_end(self, *arguments, **keywords) -> None:
        self.pace.step(self.units)
        self.units = 0.0


def counting(trainer_class, callback: Steps, count):
    """The trainer with one addition: what a step's inputs amount to is noted."""

    class Counting(trainer_class):
        def training_step(self, model, inputs, *arguments, **keywords):
            callback.units += count(inputs)
            return super().training_step(model, inputs, *arguments, **keywords)

    return Counting


def real_tokens(inputs) -> float:
    return float(inputs["attention_mask"].sum() if "attention_mask" in inputs else inputs["input_ids"].numel())


def pairs(inputs) -> float:
    return len(inputs["input_ids"]) / 2


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("row", choices=("sft", "reward", "dpo", "grpo"))
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--best", action="store_true")
    arguments.add_argument("--float32", action="store_true", help="where bf16, the default, is slower")
    arguments.add_argument("--threads", type=int)
    given = arguments.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    model = str(given.folder / "run" / "sft")
    common = {
        "output_dir": str(given.folder / f"trl-{given.row}"), "per_device_train_batch_size": BATCH, "max_steps": 100_000, "report_to": "none",
        "save_strategy": "no", "disable_tqdm": True, "use_cpu": not torch.cuda.is_available(), **({"gradient_checkpointing": False} if given.best else {}),
        **({"bf16": False} if given.float32 else {}),
    }  # fmt: skip
    records = [json.loads(line) for line in (given.folder / ("sft.jsonl" if given.row == "sft" else "pairs.jsonl")).read_text().splitlines()]
    callback = Steps(None)
    if given.row == "sft":
        data = Dataset.from_list([{"prompt": r["messages"][:-1], "completion": r["messages"][-1:]} for r in records])
        config = trl.SFTConfig(**common, max_length=ROW_TOKENS, packing=given.best)
        trainer = counting(trl.SFTTrainer, callback, real_tokens)(model, args=config, train_dataset=data, callbacks=[callback])
    elif given.row == "reward":
        config = trl.RewardConfig(**common, max_length=ROW_TOKENS)
        trainer = counting(trl.RewardTrainer, callback, pairs)(model, args=config, train_dataset=Dataset.from_list(records), callbacks=[callback])
    elif given.row == "dpo":
        config = trl.DPOConfig(**common, max_length=ROW_TOKENS)
        trainer = counting(trl.DPOTrainer, callback, pairs)(model, args=config, train_dataset=Dataset.from_list(records), callbacks=[callback])
    else:
        config = trl.GRPOConfig(**common, num_generations=GROUP, max_completion_length=GRPO_NEW_TOKENS, beta=KL_COEF)
        data = Dataset.from_list([{"prompt": r["prompt"]} for r in records])
        trainer = counting(trl.GRPOTrainer, callback, lambda inputs: BATCH)(
            model, reward_funcs=str(given.folder / "run" / "reward"), args=config, train_dataset=data, callbacks=[callback]
        )
    callback.pace = Pace(
        WARMUP, STEPS, trl=trl.__version__, transformers=transformers.__version__, torch=torch.__version__, bf16=trainer.args.bf16,
        gradient_checkpointing=trainer.args.gradient_checkpointing, num_threads=torch.get_num_threads(),
    )  # fmt: skip
    trainer.train()


if __name__ == "__main__":
    main()
