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
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from fromnoise.algorithms.masking import IGNORE_INDEX


@dataclass(slots=True)
class Batch:
    input_ids: Tensor  # (B, T) int64; the pad id at padding
    labels: Tensor  # (B, T) int64, already shifted; IGNORE_INDEX where nothing counts
    position_ids: Tensor  # (B, T) int64, from 0 in each segment; 0 at padding
    segment_ids: Tensor  # (B, T) int64, 1, 2, ... within a row; 0 at padding
    sequence_ids: Tensor  # (S,) int64, which of the caller's sequences these are, in packed order
    start_index: Tensor  # (S,) int64, flat position b * T + t of each sequence's first token
    last_index: Tensor  # (S,) int64, flat position of each sequence's last token
    extra: dict[str, Tensor] = field(default_factory=dict)  # (B, T) float32, 0 at padding; aligned with labels

    @property
    def num_targets(self) -> int:
        """Tokens that count in a next-token loss."""
        return int((self.labels != IGNORE_INDEX).sum())

    def to(self, device: torch.device | str) -> Batch:
        if torch.device(device) == self.input_ids.device:
            return self
        moved = {name: getattr(self, name).to(device, non_blocking=True) for name in self.__slots__ if name != "extra"}
        return Batch(**moved, extra={name: value.to(device, non_blocking=True) for name, value in self.extra.items()})


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


def collate(
    rows: Sequence[Sequence[int]],
    sequences: Sequence[Sequence[int]],
    masks: Sequence[Sequence[bool]] | None,
    *,
    row_tokens: int,
    num_rows: int,
    pad_id: int,
    extra: Mapping[str, Sequence[Sequence[float]]] | None = None,
) -> Batch:
    """Rows of sequence indices to one Batch of the fixed shape (num_rows, row_tokens).

    `masks[i][t]` says whether token t of sequence i counts as a target (the chat template's assistant mask); None
    counts every token but the first, which nothing predicts. `extra[name][i]` holds one float for each token of
    sequence i, aligned with the *targets*: the value at token t lands where token t is the label, that is at
    position t - 1. Rows beyond those given are padding, so that compiled shapes never change.
    """
    shape = (num_rows, row_tokens)
    input_ids = np.full(shape, pad_id, dtype=np.int64)
    labels = np.full(shape, IGNORE_INDEX, dtype=np.int64)
    position_ids = np.zeros(shape, dtype=np.int64)
    segment_ids = np.zeros(shape, dtype=np.int64)
    floats = {name: np.zeros(shape, dtype=np.float32) for name in (extra or {})}
    sequence_ids, starts, lasts = [], [], []
    for b, row in enumerate(rows):
        at = 0
        for segment, index in enumerate(row, start=1):
            tokens = np.asarray(sequences[index], dtype=np.int64)
            end = at + len(tokens)
            input_ids[b, at:end] = tokens
            targets = tokens[1:]
            if masks is not None:
                targets = np.where(np.asarray(masks[index], dtype=bool)[1:], targets, IGNORE_INDEX)
            labels[b, at : end - 1] = targets
            position_ids[b, at:end] = np.arange(len(tokens))
            segment_ids[b, at:end] = segment
            for name, values in floats.items():
                values[b, at : end - 1] = np.asarray(extra[name][index], dtype=np.float32)[1:]
            sequence_ids.append(index)
            starts.append(b * row_tokens + at)
            lasts.append(b * row_tokens + end - 1)
            at = end
    as_tensor = torch.from_numpy
    return Batch(
        input_ids=as_tensor(input_ids),
        labels=as_tensor(labels),
        position_ids=as_tensor(position_ids),
        segment_ids=as_tensor(segment_ids),
        sequence_ids=torch.tensor(sequence_ids, dtype=torch.int64),
        start_index=torch.tensor(starts, dtype=torch.int64),
        last_index=torch.tensor(lasts, dtype=torch.int64),
        extra={name: as_tensor(values) for name, values in floats.items()},
    )


def collate_all(
    sequences: Sequence[Sequence[int]],
    masks: Sequence[Sequence[bool]] | None,
    *,
    row_tokens: int,
    num_rows: int,
    pad_id: int,
    extra: Mapping[str, Sequence[Sequence[float]]] | None = None,
) -> list[Batch]:
    """All sequences, packed, in as many batches of the fixed shape as they need."""
    rows = pack_sequences([len(sequence) for sequence in sequences], row_tokens)
    return [
        collate(rows[at : at + num_rows], sequences, masks, row_tokens=row_tokens, num_rows=num_rows, pad_id=pad_id, extra=extra)
        for at in range(0, len(rows), num_rows)
    ]


def stack_rows(batches: Sequence[Batch]) -> Batch:
    """Batches of one row length as one batch, rows in order. Sequence ids stay their own callers'."""
    row_tokens = batches[0].input_ids.shape[1]
    offsets = np.cumsum([0] + [len(batch.input_ids) * row_tokens for batch in batches[:-1]]).tolist()
    rows = {name: torch.cat([getattr(batch, name) for batch in batches]) for name in ("input_ids", "labels", "position_ids", "segment_ids", "sequence_ids")}
    flat = {name: torch.cat([getattr(b, name) + at for b, at in zip(batches, offsets, strict=True)]) for name in ("start_index", "last_index")}
    return Batch(**rows, **flat)
