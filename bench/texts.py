"""What the sides of a race against the clock share (minutes.py, peers/nanochat.py): the split of the texts, one tokenizer,
the order of the rows, the clock, and how what was held out is counted.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fromnoise.data.tokenizer import Tokenizer

TICKS = 1000  # of the clock, for schedules
SAVING_S = 1.5  # kept for writing the weights
MEASURED_ROWS = 8  # windows in one forward pass


def add_options(parser: argparse.ArgumentParser, seconds: float, vocab: int, row_tokens: int, rows: int) -> None:
    """What is asked of either side, with its own defaults."""
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--seconds", type=float, default=seconds)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, or auto")
    parser.add_argument("--vocab", type=int, default=vocab)
    parser.add_argument("--row-tokens", type=int, default=row_tokens)
    parser.add_argument("--rows", type=int, default=rows, help="a step")
    parser.add_argument("--from-first-step", action="store_true", help="the clock starts after the first step, which compiles")


def process_age_s() -> float:
    """Seconds since this process began (Linux); imports count."""
    ticks = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
    return float(Path("/proc/uptime").read_text().split()[0]) - ticks / 100


@dataclass(frozen=True)
class Texts:
    tokenizer: Tokenizer
    train: np.ndarray  # (N,) int64: every text's first nine tenths after an <|endoftext|>
    held_out: list[np.ndarray]  # the last tenth of each, by characters
    held_out_chars: int
    held_out_bytes: int

    @classmethod
    def read(cls, files: Sequence[Path], vocab_size: int) -> Texts:
        """The tokenizer learns from the training parts alone."""
        whole = [file.read_text("utf-8") for file in files]
        cuts = [int(0.9 * len(text)) for text in whole]
        train = [text[:cut] for text, cut in zip(whole, cuts, strict=True)]
        held_out = [text[cut:] for text, cut in zip(whole, cuts, strict=True)]
        tokenizer = Tokenizer.train(train, vocab_size)
        stream = np.concatenate([np.array([tokenizer.endoftext_id, *ids]) for ids in tokenizer.encode_batch(train)])
        return cls(tokenizer, stream, [np.array(ids) for ids in tokenizer.encode_batch(held_out)], sum(map(len, held_out)),
                   sum(len(text.encode()) for text in held_out))


class Rows:
    """Endless rows of one stream: each pass is cut anew from another offset and shuffled, a pure function of (seed, pass)."""

    def __init__(self, ids: np.ndarray, row_tokens: int, seed: int):
        self.ids, self.row_tokens, self.seed, self.number, self.left = ids, row_tokens, seed, 0, []

    def next(self, num_rows: int) -> np.ndarray:
        """(num_rows, row_tokens + 1) int64."""
        while len(self.left) < num_rows:
            rng = np.random.default_rng([self.seed, self.number])
            offset = int(rng.integers(self.row_tokens)) if self.number else 0
            starts = np.arange(offset, len(self.ids) - self.row_tokens, self.row_tokens)
            self.left += rng.permutation(starts).tolist()
            self.number += 1
        starts, self.left = self.left[:num_rows], self.left[num_rows:]
        return np.stack([self.ids[start : start + self.row_tokens + 1] for start in starts])


def held_out_nats(texts: Texts, row_tokens: int, nats: Callable[[np.ndarray], float]) -> float:
    """Nats of everything held out, each text after an <|endoftext|>, in windows of `row_tokens` that do not overlap: a window's
    first token is predicted from the one before it alone. `nats` gives those of the last n tokens of (B, n + 1) windows, summed."""
    full, rest = [], []
    for ids in texts.held_out:
        whole = np.concatenate([[texts.tokenizer.endoftext_id], ids])
        for start in range(0, len(ids), row_tokens):
            window = whole[start : start + row_tokens + 1]
            (full if len(window) == row_tokens + 1 else rest).append(window)
    batches = [np.stack(full[start : start + MEASURED_ROWS]) for start in range(0, len(full), MEASURED_ROWS)]
    return sum(nats(batch) for batch in [*batches, *(window[None].copy() for window in rest)])


class Clock:
    """A run of so many seconds from the process's start, or from the end of the first step: the schedule follows the clock, so it
    ends where it should whatever the machine is doing."""

    def __init__(self, seconds: float, from_first_step: bool = False):
        self.began = self.last = process_age_s()
        self.seconds, self.from_first_step = seconds - SAVING_S, from_first_step
        self.stop_s, self.step_s, self.steps = math.inf if from_first_step else self.seconds, 0.0, 0

    def another(self) -> bool:
        """Is there time for another step?"""
        return self.last + self.step_s < self.stop_s

    @property
    def tick(self) -> int:
        """How much of the time is gone, of TICKS."""
        return 0 if self.stop_s == math.inf else min(TICKS - 1, int(TICKS * (self.last - self.began) / (self.stop_s - self.began)))

    def stepped(self) -> None:
        now = process_age_s()
        if self.steps == 0 and self.from_first_step:
            self.began, self.stop_s = now, now + self.seconds
        self.step_s = 0.9 * self.step_s + 0.1 * (now - self.last) if self.steps else 0.0  # the first step compiles
        self.steps, self.last = self.steps + 1, now


def tell(texts: Texts, nats: float, clock: Clock, step_tokens: int, started: float, more: str) -> None:
    """The result, in one line: `started` is the perf_counter when the weights were written and measuring began."""
    measured_s = time.perf_counter() - started
    print(
        f"{nats / texts.held_out_chars:.4f} nats a character, {nats / texts.held_out_bytes / np.log(2):.4f} bits a byte of the {texts.held_out_chars:,} "
        f"characters held out, {process_age_s() - measured_s:.1f} s from process start to weights ({more}, {clock.steps:,} steps of "
        f"{step_tokens:,} tokens, {clock.steps * step_tokens / len(texts.train):.1f} passes of {len(texts.train):,}; the clock of training began at "
        f"{clock.began:.1f} s; measured in {measured_s:.0f} s)"
    )
