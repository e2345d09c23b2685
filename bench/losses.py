"""Supervised losses at equal steps, fromnoise's side: python bench/losses.py FOLDER

Same weights, records in the same order, batch, AdamW and learning rate as peers/trl_losses.py, everything in float32; packed
rows here, padded ones there. Prints the losses (nats a token of the completion) as one line of JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from pace import say
from shape import BATCH, LOSS_LR, LOSS_STEPS, ROW_TOKENS

from fromnoise.algorithms.logprobs import linear_cross_entropy
from fromnoise.data.packing import collate_all
from fromnoise.data.tokenizer import Tokenizer
from fromnoise.model.hf import load_model
from fromnoise.run.update import Loss, update


class AdamW(torch.optim.AdamW):
    def step(self, lr_scale: float = 1.0) -> None:
        super().step()


def main(folder: Path) -> None:
    model, tokenizer = load_model(folder / "run" / "sft"), Tokenizer.load(folder / "run" / "sft")
    optimizer = AdamW(model.parameters(), lr=LOSS_LR, weight_decay=0.0)
    records = [json.loads(line)["messages"] for line in (folder / "sft.jsonl").read_text().splitlines()[: BATCH * LOSS_STEPS]]
    found = []
    for step in range(LOSS_STEPS):
        sequences, masks = [], []
        for messages in records[step * BATCH : (step + 1) * BATCH]:
            ids = tokenizer.encode_messages(messages)[0]
            begin = len(tokenizer.encode_messages(messages[:-1], add_generation_prompt=True)[0])
            sequences.append(ids)
            masks.append([position >= begin for position in range(len(ids))])  # as TRL counts: the line end after the turn too
        batches = collate_all(sequences, masks, row_tokens=ROW_TOKENS, num_rows=4, pad_id=tokenizer.pad_id)

        def losses(batch) -> dict[str, Loss]:
            total = linear_cross_entropy(model(batch.input_ids, batch.position_ids, batch.segment_ids), model.head_weight, batch.labels)
            return {"loss": Loss(total, batch.num_targets, "token")}

        counts = {"loss": sum(batch.num_targets for batch in batches)}
        found.append(update(list(model.parameters()), optimizer, batches, losses, counts, lr_scale=1.0, max_grad_norm=1.0).losses["loss"])
    say(losses=found)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
