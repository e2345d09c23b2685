"""Supervised losses at equal steps, TRL's side: python trl_losses.py FOLDER (see ../losses.py)"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import trl
from datasets import Dataset
from pace import say
from shape import BATCH, LOSS_LR, LOSS_STEPS, ROW_TOKENS


def main(folder: Path) -> None:
    records = [json.loads(line)["messages"] for line in (folder / "sft.jsonl").read_text().splitlines()[: BATCH * LOSS_STEPS]]
    config = trl.SFTConfig(
        output_dir=str(folder / "trl-losses"), per_device_train_batch_size=BATCH, max_steps=LOSS_STEPS, learning_rate=LOSS_LR, lr_scheduler_type="constant",
        weight_decay=0.0, max_grad_norm=1.0, max_length=ROW_TOKENS, bf16=False, logging_steps=1, report_to="none", save_strategy="no", disable_tqdm=True,
        use_cpu=True, train_sampling_strategy="sequential",
    )  # fmt: skip
    data = Dataset.from_list([{"prompt": messages[:-1], "completion": messages[-1:]} for messages in records])
    trainer = trl.SFTTrainer(str(folder / "run" / "sft"), args=config, train_dataset=data)
    trainer.train()
    say(losses=[entry["loss"] for entry in trainer.state.log_history if "loss" in entry])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
