"""The Hugging Face Trainer, pretraining the fixture's model in its default dtype: python hf_trainer.py FOLDER [--threads N]"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
import transformers
from pace import Pace
from shape import PRETRAIN_ROW_TOKENS, PRETRAIN_ROWS


class Rows(torch.utils.data.Dataset):
    def __init__(self, path: Path):
        self.tokens = np.fromfile(path, dtype=np.uint16)

    def __len__(self) -> int:
        return len(self.tokens) // PRETRAIN_ROW_TOKENS

    def __getitem__(self, row: int) -> dict:
        ids = torch.from_numpy(self.tokens[row * PRETRAIN_ROW_TOKENS : (row + 1) * PRETRAIN_ROW_TOKENS].astype(np.int64))
        return {"input_ids": ids, "labels": ids}


class Steps(transformers.TrainerCallback):
    def __init__(self, pace: Pace):
        self.pace = pace

    def on_step_end(self, *arguments, **keywords) -> None:
        self.pace.step(PRETRAIN_ROWS * PRETRAIN_ROW_TOKENS)


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--threads", type=int)
    given = arguments.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.from_pretrained(given.folder / "run" / "base"))
    config = transformers.TrainingArguments(
        output_dir=str(given.folder / "hf-trainer"), per_device_train_batch_size=PRETRAIN_ROWS, max_steps=100_000, report_to="none", save_strategy="no",
        disable_tqdm=True, use_cpu=not torch.cuda.is_available(),
    )  # fmt: skip
    versions = {"transformers": transformers.__version__, "torch": torch.__version__}
    pace = Pace(2, 2, **versions, dtype=str(model.dtype), bf16=config.bf16, num_threads=torch.get_num_threads())
    transformers.Trainer(model=model, args=config, train_dataset=Rows(given.folder / "train.bin"), callbacks=[Steps(pace)]).train()


if __name__ == "__main__":
    main()
