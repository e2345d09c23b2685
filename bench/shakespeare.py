"""How well a text can be learnt in three minutes: python bench/shakespeare.py FILE [--seconds 180] [--seed 0] [--out FOLDER]

nanoGPT's split of tiny Shakespeare: the first nine tenths of the characters train, the rest validate. The clock starts with the
process and stops when the weights are written: imports, learning the tokenizer (from the training part alone), compiling and
measuring the rate included. The rate falls with the clock, so the run ends where it should whatever the machine is doing.

Then the validation part is cut into windows of the training length, none overlapping; every character is counted once, a
window's first token being predicted from the one before it alone. Nats a character compare across tokenizers.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from fromnoise.run.machine import apply, choose, measure, prepare_environment, threads

prepare_environment()

import numpy as np  # noqa: E402
import torch  # noqa: E402

from fromnoise.algorithms.logprobs import linear_cross_entropy  # noqa: E402
from fromnoise.algorithms.schedules import lr_scale  # noqa: E402
from fromnoise.data.loader import stream_batch  # noqa: E402
from fromnoise.data.packing import Batch  # noqa: E402
from fromnoise.data.tokenizer import Tokenizer  # noqa: E402
from fromnoise.model.compiled import compile_blocks  # noqa: E402
from fromnoise.model.config import ModelConfig  # noqa: E402
from fromnoise.model.flops import num_parameters, training_flops_per_token  # noqa: E402
from fromnoise.model.hf import save_model  # noqa: E402
from fromnoise.model.initialize import initialize  # noqa: E402
from fromnoise.model.transformer import Transformer  # noqa: E402
from fromnoise.optim.groups import make_optimizer  # noqa: E402
from fromnoise.run.recipe import OptimizerSection, Recipe  # noqa: E402
from fromnoise.run.update import Loss, update  # noqa: E402

SAVING_S = 1.5  # kept for writing the weights
TICKS = 1000  # of the clock, for the schedule


def process_age_s() -> float:
    """Seconds since this process began (Linux); imports count."""
    ticks = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
    return float(Path("/proc/uptime").read_text().split()[0]) - ticks / 100


class Rows:
    """Endless rows of one text: each pass is cut anew from another offset and shuffled, a pure function of (seed, pass)."""

    def __init__(self, ids: np.ndarray, row_tokens: int, seed: int):
        self.ids, self.row_tokens, self.seed, self.number, self.left = ids, row_tokens, seed, 0, []

    def batch(self, num_rows: int, endoftext_id: int) -> Batch:
        while len(self.left) < num_rows:
            rng = np.random.default_rng([self.seed, self.number])
            offset = int(rng.integers(self.row_tokens)) if self.number else 0
            starts = np.arange(offset, len(self.ids) - self.row_tokens, self.row_tokens)
            self.left += rng.permutation(starts).tolist()
            self.number += 1
        starts, self.left = self.left[:num_rows], self.left[num_rows:]
        rows = np.stack([self.ids[start : start + self.row_tokens + 1] for start in starts])
        return stream_batch(rows[:, :-1].copy(), rows[:, 1:].copy(), endoftext_id)


def total_nats(model: Transformer, ids: np.ndarray, row_tokens: int, endoftext_id: int) -> float:
    """Nats of all of `ids` after an `<|endoftext|>`, in windows that do not overlap."""
    whole = np.concatenate([[endoftext_id], ids])
    total = 0.0
    with torch.no_grad():
        for start in range(0, len(ids), row_tokens):
            window = whole[start : start + row_tokens + 1]
            batch = stream_batch(window[None, :-1].copy(), window[None, 1:].copy(), endoftext_id)
            hidden = model(batch.input_ids, batch.position_ids, batch.segment_ids)
            total += float(linear_cross_entropy(hidden, model.head_weight, batch.labels).sum())
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="where the weights go; a temporary folder otherwise")
    parser.add_argument("--vocab", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--ffn", type=int, default=384)
    parser.add_argument("--row-tokens", type=int, default=256)
    parser.add_argument("--rows", type=int, default=8, help="a step")
    parser.add_argument("--muon-lr", type=float, default=0.02)
    parser.add_argument("--adamw-lr", type=float, default=0.025)
    parser.add_argument("--embedding-lr", type=float, default=0.1)
    parser.add_argument("--weight-decay", type=float, default=0.0)
    options = parser.parse_args()

    text = options.file.read_text("utf-8")
    cut = int(0.9 * len(text))
    tokenizer = Tokenizer.train([text[:cut]], options.vocab)
    train, held_out = (np.array(tokenizer.encode(part)) for part in (text[:cut], text[cut:]))
    machine = choose(Recipe(), measure("cpu", threads(None)), options.seconds)
    apply(machine)
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, num_layers=options.layers, width=options.width, num_heads=options.width // 64,
        num_kv_heads=options.width // 64, head_size=64, ffn_width=options.ffn, context_tokens=options.row_tokens,
    )  # fmt: skip
    model = initialize(Transformer(config), options.seed)
    section = OptimizerSection(muon_lr=options.muon_lr, adamw_lr=options.adamw_lr, embedding_lr=options.embedding_lr, weight_decay=options.weight_decay)
    optimizer = make_optimizer(model, section, machine.torch_dtype)
    if machine.compile:
        compile_blocks(model)
    rows, step_tokens = Rows(train, options.row_tokens, options.seed), options.rows * options.row_tokens

    def losses(batch: Batch) -> dict[str, Loss]:
        with machine.autocast():
            hidden = model(batch.input_ids, batch.position_ids, batch.segment_ids)
            nll = linear_cross_entropy(hidden, model.head_weight, batch.labels)
        return {"loss": Loss(nll.sum(), float(nll.numel()), "token")}

    step, began = 0, process_age_s()
    stop_s, step_s, last = options.seconds - SAVING_S, 0.0, began
    while last + step_s < stop_s:
        tick = min(TICKS - 1, int(TICKS * (last - began) / (stop_s - began)))
        scale = lr_scale(tick, TICKS, section.warmup_frac, section.decay_frac, section.final_lr_frac)
        batch = rows.batch(options.rows, tokenizer.endoftext_id)
        stats = update(list(model.parameters()), optimizer, [batch], losses, {"loss": float(step_tokens)}, lr_scale=scale, max_grad_norm=1.0)
        now = process_age_s()
        step, step_s, last = step + 1, 0.9 * step_s + 0.1 * (now - last) if step else 0.0, now
        if step % 200 == 0:
            print(f"step {step}, {now:.0f} s, loss {stats.losses['loss']:.3f} nats a token", flush=True)
    out = options.out or Path(tempfile.gettempdir()) / f"shakespeare-{options.seed}"
    save_model(out, model, tokenizer)
    done_s = process_age_s()
    passes, flops = step * step_tokens / len(train), step * step_tokens * training_flops_per_token(config, options.row_tokens)
    start = time.perf_counter()
    nats = total_nats(model, held_out, options.row_tokens, tokenizer.endoftext_id) / (len(text) - cut)
    print(
        f"{nats:.4f} nats a character of the held-out {len(text) - cut:,}, {done_s:.1f} s from process start to weights (seed {options.seed}; "
        f"{num_parameters(config):,} parameters, {machine.dtype}, {step:,} steps, {passes:.1f} passes of {len(train):,} tokens, {flops:.2e} FLOPs; "
        f"training began at {began:.1f} s; measured in {time.perf_counter() - start:.0f} s)"
    )


if __name__ == "__main__":
    main()
