"""Packing: several sequences in one row, none of them seeing another, no token dropped.

A sequence of n tokens takes n positions of a row. Position t holds input token t and the label token t + 1; the
label of a sequence's last position is IGNORE_INDEX, so nothing is predicted across a boundary. `segment_ids` keep
attention inside a sequence (0 is padding) and `position_ids` restart at 0 with each, so a packed sequence gives
the numbers that it gives alone.

Worked example, row_tokens = 8, sequences A = [5 6 7] and B = [8 9], all tokens counted:

    input_ids     5 6 7 8 9 0 0 0
    labels        6 7 . 9 . . . .      (. is IGNORE_INDEX)
    segment_ids   1 1 1 2 2 0 0 0
    position_ids  0 1 2 0 1 0 0 0
    last_index    2, 4                  (flat positions of 7 and 9)

Answers to one prompt can share it: the prompt stands once, and each answer begins with a copy of the prompt's last token, which
attends to the prompt's other tokens and to its own answer. Sequences [5 6 | 7 8] and [5 6 | 9], answers counted, P = 2^PREFIX_SHIFT:

    input_ids     5 6   7   8   6   9
    labels        . 7   8   .   9   .
    segment_ids   1 P+2 P+2 P+2 P+3 P+3
    position_ids  0 1   2   3   1   2
    start_index   0, 4      last_index  3, 5      shared_tokens  0, 1
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from fromnoise.algorithms.masking import IGNORE_INDEX, MASK_LIMIT_TOKENS, PREFIX_SHIFT


@dataclass(slots=True)
class Batch:
    input_ids: Tensor  # (B, T) int64; the pad id at padding
    labels: Tensor  # (B, T) int64, already shifted; IGNORE_INDEX where nothing counts
    position_ids: Tensor  # (B, T) int64, from 0 in each segment; 0 at padding
    segment_ids: Tensor  # (B, T) int64, 1, 2, ... within a row, plus a shared prefix's id << PREFIX_SHIFT; 0 at padding
    sequence_ids: Tensor  # (S,) int64, which of the caller's sequences these are, in packed order
    start_index: Tensor  # (S,) int64, flat position b * T + t of each sequence's first token, shared ones left out
    last_index: Tensor  # (S,) int64, flat position of each sequence's last token
    shared_tokens: Tensor  # (S,) int64, how many of its first tokens stand before start_index, with the first sequence of its prompt
    extra: dict[str, Tensor] = field(default_factory=dict)  # (B, T) float32, 0 where no label counts; aligned with labels
    row_targets: tuple[int, ...] | None = None  # labels that count in each row, once they are known; asking a GPU waits for it

    def targets(self, rows: slice = slice(None)) -> int:
        """Tokens that count in a next-token loss over these rows."""
        if self.row_targets is None:
            self.row_targets = tuple((self.labels != IGNORE_INDEX).sum(1).tolist())
        return sum(self.row_targets[rows])

    @property
    def num_targets(self) -> int:
        return self.targets()

    @property
    def num_tokens(self) -> int:
        """Positions that hold a token; padding does not. Asking a GPU waits for it."""
        return int((self.segment_ids > 0).sum())

    def to(self, device: torch.device | str) -> Batch:
        if torch.device(device) == self.input_ids.device:
            return self
        self.targets()  # counted before it leaves
        moved = {name: getattr(self, name).to(device, non_blocking=True) for name in self.__slots__ if name not in ("extra", "row_targets")}
        return Batch(**moved, extra={name: value.to(device, non_blocking=True) for name, value in self.extra.items()}, row_targets=self.row_targets)


def pack_sequences(lengths: Sequence[int], row_tokens: int) -> list[list[int]]:
    """Best-fit decreasing bin packing: which sequences share a row.

    Returns rows of indices into `lengths`; every index appears exactly once. The order is a function of the lengths
    alone (ties by index). O(n log n). Raises ValueError for a sequence longer than a row: cutting is the caller's
    decision, and a silent cut would drop a stop token.
    """
    rows: list[list[int]] = []
    open_rows: list[tuple[int, int]] = []  # (free tokens, row), sorted: the first that fits is the tightest
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        length = lengths[index]
        if length > row_tokens:
            raise ValueError(f"sequence {index} has {length} tokens, a row holds {row_tokens}")
        at = bisect_left(open_rows, (length, -1))
        if at == len(open_rows):
            free, row = row_tokens, len(rows)
            rows.append([])
        else:
            free, row = open_rows.pop(at)
        rows[row].append(index)
        if free > length:
            remaining = (free - length, row)
            open_rows.insert(bisect_left(open_rows, remaining), remaining)
    return rows


def chunk_lengths(lengths: Sequence[int], prompt_tokens: int, row_tokens: int) -> list[tuple[int, int]]:
    """How sequences share a prompt of `prompt_tokens`: (sequences, positions) of each chunk that fits a row."""
    if prompt_tokens < 2 or row_tokens > MASK_LIMIT_TOKENS:
        return [(1, length) for length in lengths]
    chunks: list[tuple[int, int]] = []
    for length in lengths:
        own = length - prompt_tokens + 1
        if chunks and chunks[-1][1] + own <= row_tokens:
            chunks[-1] = (chunks[-1][0] + 1, chunks[-1][1] + own)
        else:
            chunks.append((1, length))
    return chunks


def pack_sharing(sequences: Sequence[Sequence[int]], prompt_lengths: Sequence[int], row_tokens: int) -> tuple[list[list[int]], int]:
    """`pack_sequences` where neighbours with the same prompt share it; (rows of indices, positions that hold a token)."""
    chunks: list[tuple[int, int]] = []
    first = 0
    for at in range(1, len(sequences) + 1):
        if at == len(sequences) or not shared_prompt(sequences, prompt_lengths, at - 1, at, row_tokens):
            chunks += chunk_lengths([len(sequences[i]) for i in range(first, at)], prompt_lengths[first], row_tokens)
            first = at
    return pack_chunks(chunks, row_tokens), sum(positions for _, positions in chunks)


def pack_chunks(chunks: Sequence[tuple[int, int]], row_tokens: int) -> list[list[int]]:
    """`pack_sequences` of chunks, each (sequences, positions), all sequences in their order; rows of sequence indices."""
    starts = [0, *accumulate(count for count, _ in chunks)]
    packed = pack_sequences([positions for _, positions in chunks], row_tokens)
    return [[index for chunk in row for index in range(starts[chunk], starts[chunk + 1])] for row in packed]


def shared_prompt(sequences: Sequence[Sequence[int]], prompt_lengths: Sequence[int] | None, one: int, other: int, row_tokens: int) -> bool:
    """Whether two neighbours have a prompt in common that is worth sharing: of two tokens or more."""
    if prompt_lengths is None or row_tokens > MASK_LIMIT_TOKENS or prompt_lengths[one] != prompt_lengths[other]:
        return False
    count = prompt_lengths[one]
    return count > 1 and list(sequences[one][:count]) == list(sequences[other][:count])


def shared_in_row(
    row: Sequence[int], sequences: Sequence[Sequence[int]], prompt_lengths: Sequence[int] | None, row_tokens: int
) -> list[tuple[int, int]]:
    """For each sequence of a row: (tokens of its prompt that stand once for all who share it, how many of them it skips for that)."""
    again = [place > 0 and shared_prompt(sequences, prompt_lengths, row[place - 1], row[place], row_tokens) for place in range(len(row))]
    shares = [now or then for now, then in zip(again, [*again, False][1:], strict=True)]
    cuts = [prompt_lengths[index] - 1 if share else 0 for index, share in zip(row, shares, strict=True)]
    return [(cut, cut if now else 0) for cut, now in zip(cuts, again, strict=True)]


def collate(
    rows: Sequence[Sequence[int]],
    sequences: Sequence[Sequence[int]],
    masks: Sequence[Sequence[bool]] | None,
    *,
    row_tokens: int,
    num_rows: int,
    pad_id: int,
    prompt_lengths: Sequence[int] | None = None,
) -> Batch:
    """Rows of sequence indices to one Batch of the fixed shape (num_rows, row_tokens).

    `masks[i][t]` says whether token t of sequence i counts as a target (the chat template's assistant mask); None
    counts every token but the first, which nothing predicts. Rows beyond those given are padding, so that compiled
    shapes never change.

    prompt_lengths: neighbours in a row whose first so many tokens are equal share them, as `pack_sharing` planned; none
    of these tokens may count as a target.
    """
    shape = (num_rows, row_tokens)
    filled = {"input_ids": pad_id, "labels": IGNORE_INDEX, "position_ids": 0, "segment_ids": 0}
    grids = {name: np.full(shape, value, dtype=np.int64) for name, value in filled.items()}
    flat: dict[str, list[int]] = {"sequence_ids": [], "start_index": [], "last_index": [], "shared_tokens": []}
    for b, row in enumerate(rows):
        at = segment = prefix = 0
        for index, (cut, skipped) in zip(row, shared_in_row(row, sequences, prompt_lengths, row_tokens), strict=True):
            tokens = np.asarray(sequences[index], dtype=np.int64)
            targets = np.append(tokens[1:], IGNORE_INDEX)
            if masks is not None:
                targets[:-1] = np.where(np.asarray(masks[index], dtype=bool)[1:], targets[:-1], IGNORE_INDEX)
            end = at + len(tokens) - skipped
            for name, values in (("input_ids", tokens), ("labels", targets), ("position_ids", np.arange(len(tokens)))):
                grids[name][b, at:end] = values[skipped:]
            if not skipped:
                prefix = segment + 1 if cut else 0
                segment += 1 if cut else 0
                grids["segment_ids"][b, at : at + cut] = prefix
            segment += 1
            grids["segment_ids"][b, at + cut - skipped : end] = segment + (prefix << PREFIX_SHIFT)
            for name, value in (("sequence_ids", index), ("start_index", b * row_tokens + at), ("last_index", b * row_tokens + end - 1)):
                flat[name].append(value)
            flat["shared_tokens"].append(skipped)
            at = end
    return Batch(
        **{name: torch.from_numpy(values) for name, values in grids.items()},
        **{name: torch.tensor(values, dtype=torch.int64) for name, values in flat.items()},
    )


def collate_all(
    sequences: Sequence[Sequence[int]],
    masks: Sequence[Sequence[bool]] | None,
    *,
    row_tokens: int,
    num_rows: int,
    pad_id: int,
) -> list[Batch]:
    """All sequences, packed, in as many batches of the fixed shape as they need."""
    rows = pack_sequences([len(sequence) for sequence in sequences], row_tokens)
    return [
        collate(rows[at : at + num_rows], sequences, masks, row_tokens=row_tokens, num_rows=num_rows, pad_id=pad_id)
        for at in range(0, len(rows), num_rows)
    ]


def stack_rows(batches: Sequence[Batch]) -> Batch:
    """Batches of one row length as one batch, rows in order. Sequence ids stay their own callers'."""
    row_tokens = batches[0].input_ids.shape[1]
    offsets = np.cumsum([0] + [len(batch.input_ids) * row_tokens for batch in batches[:-1]]).tolist()
    names = ("input_ids", "labels", "position_ids", "segment_ids", "sequence_ids", "shared_tokens")
    rows = {name: torch.cat([getattr(batch, name) for batch in batches]) for name in names}
    flat = {name: torch.cat([getattr(b, name) + at for b, at in zip(batches, offsets, strict=True)]) for name in ("start_index", "last_index")}
    return Batch(**rows, **flat)
