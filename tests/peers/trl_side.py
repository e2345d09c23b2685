"""The other side of test_trl.py, run by a Python that has TRL: same weights, same token ids, same order.

    python trl_side.py dpo|grpo FOLDER      reads FOLDER/model and FOLDER/case.json, writes FOLDER/trl.json (and trl.safetensors)

Knows nothing of this project: torch, transformers, datasets and trl only.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from datasets import Dataset
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer


def load(folder: Path):
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32, attn_implementation="sdpa")
    return model, AutoTokenizer.from_pretrained(folder / "model")


COMMON = {"report_to": "none", "use_cpu": True, "bf16": False, "fp16": False, "gradient_checkpointing": False, "save_strategy": "no", "disable_tqdm": True,
          "lr_scheduler_type": "constant", "warmup_steps": 0, "max_grad_norm": 1.0, "logging_steps": 1, "weight_decay": 0.0}  # fmt: skip


def dpo(folder: Path, case: dict) -> dict:
    from trl import DPOConfig, DPOTrainer

    class AsGiven(DPOTrainer):
        """The token ids and the order of the case, nothing encoded or shuffled again."""

        def _prepare_dataset(self, dataset, *arguments, **options):
            return dataset

        def _get_train_sampler(self, *arguments, **options):
            return torch.utils.data.SequentialSampler(self.train_dataset)

    model, tokenizer = load(folder)
    reference, _ = load(folder)
    config = DPOConfig(
        output_dir=str(folder / "out"), beta=case["beta"], loss_type=[case["variant"]],
        per_device_train_batch_size=case["batch_pairs"], max_steps=case["steps"], learning_rate=case["lr"], adam_beta1=case["betas"][0],
        adam_beta2=case["betas"][1], adam_epsilon=case["eps"], max_length=None, remove_unused_columns=False, optim="adamw_torch", **COMMON,
    )  # fmt: skip
    trainer = AsGiven(model=model, ref_model=reference, args=config, train_dataset=Dataset.from_list(case["pairs"]), processing_class=tokenizer)
    trainer.train()
    return {"losses": [line["loss"] for line in trainer.state.log_history if "loss" in line]}


def grpo(folder: Path, case: dict) -> dict:
    from trl import GRPOConfig, GRPOTrainer

    found = {}
    for name in case["loss_types"]:
        model, tokenizer = load(folder)
        config = GRPOConfig(
            output_dir=str(folder / "out"), per_device_train_batch_size=len(case["advantages"]), num_generations=case["group"], beta=case["beta"],
            epsilon=case["clip"], epsilon_high=case["clip_high"], loss_type=name, max_completion_length=case["max_tokens"], temperature=case["temperature"],
            max_steps=1, use_bias_correction_kl=case["kl_by_ratio"], **COMMON,
        )  # fmt: skip
        trainer = GRPOTrainer(model=model, reward_funcs=lambda completions, **_: [0.0] * len(completions), args=config, processing_class=tokenizer,
                              train_dataset=Dataset.from_list([{"prompt": "a"}] * 8))  # fmt: skip
        trainer.current_gradient_accumulation_steps = 1
        trainer.model.train()
        inputs = {key: torch.tensor(case[key]) for key in ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "advantages",
                                                           "old_per_token_logps", "ref_per_token_logps")}  # fmt: skip
        inputs["num_items_in_batch"] = inputs["completion_mask"].sum()
        loss = trainer._compute_loss(trainer.model, inputs)
        loss.backward()
        found[name] = float(loss)
        gradients = {key: value.grad.contiguous() for key, value in trainer.model.named_parameters() if value.grad is not None}
        save_file(gradients, folder / f"grad-{name}.safetensors")
    return {"losses": found}


if __name__ == "__main__":
    what, where = sys.argv[1], Path(sys.argv[2])
    result = {"dpo": dpo, "grpo": grpo}[what](where, json.loads((where / "case.json").read_text()))
    (where / "trl.json").write_text(json.dumps(result))
