"""nanoGPT's model and optimizer from a checkout, in the loop of its train.py: python nanogpt.py FOLDER CHECKOUT [--threads N]

As its README says for a CPU: --compile=False, float32 (its autocast is off there).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from pace import Pace
from shape import PRETRAIN_ROW_TOKENS, PRETRAIN_ROWS, SHAPE, VOCAB_SIZE


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("checkout", type=Path)
    arguments.add_argument("--threads", type=int)
    given = arguments.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    sys.path.insert(0, str(given.checkout))
    from model import GPT, GPTConfig

    rows, length = PRETRAIN_ROWS, PRETRAIN_ROW_TOKENS
    shape = {"n_layer": SHAPE["num_layers"], "n_head": SHAPE["num_heads"], "n_embd": SHAPE["width"]}
    model = GPT(GPTConfig(block_size=length, vocab_size=VOCAB_SIZE, **shape, dropout=0.0, bias=False))
    optimizer = model.configure_optimizers(0.1, 6e-4, (0.9, 0.95), "cpu")
    tokens = np.fromfile(given.folder / "train.bin", dtype=np.uint16).astype(np.int64)
    pace = Pace(2, 3, torch=torch.__version__, dtype="float32", num_threads=torch.get_num_threads())
    while True:
        starts = torch.randint(len(tokens) - length - 1, (rows,))
        x, y = (torch.stack([torch.from_numpy(tokens[s + shift : s + shift + length]) for s in starts.tolist()]) for shift in (0, 1))
        _, loss = model(x, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        pace.step(rows * length)


if __name__ == "__main__":
    main()
