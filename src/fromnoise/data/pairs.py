"""Preference pairs as packed batches: both answers of a pair in one micro-batch, because its loss needs both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from fromnoise.data.packing import Batch, collate, pack_sequences


class Shape(Protocol):
    """What `generate.rollout.RowShape` offers."""

    row_tokens: int
    num_rows: int
    pad_id: int
    device: torch.device | str


def sequences_of(pair: dict) -> list[list[int]]:
    """The two token sequences of a pair (a line of prefer/pairs.jsonl), prompt and answer, in the order of its answers."""
    return [[*pair["prompt_ids"], *answer["token_ids"]] for answer in pair["answers"]]


def longest(pair: dict) -> int:
    return max(map(len, sequences_of(pair)))


def pack_pairs(pairs: Sequence[dict], shape: Shape, names: Sequence[int]) -> list[list[int]]:
    """Pairs in their order, cut into micro-batches as full as they get; each a list of `names`.

    The two answers of a pair are always in one micro-batch; not always in one row.
    """
    groups: list[list[int]] = []
    group: list[int] = []
    lengths: list[int] = []
    for pair, name in zip(pairs, names, strict=True):
        more = [len(sequence) for sequence in sequences_of(pair)]
        full = sum(lengths) + sum(more) > shape.num_rows * shape.row_tokens
        if group and (full or len(pack_sequences([*lengths, *more], shape.row_tokens)) > shape.num_rows):
            groups.append(group)
            group, lengths = [], []
        group.append(name)
        lengths += more
    return [*groups, group] if group else groups


def batch_of(pairs: Sequence[dict], shape: Shape) -> Batch:
    """Pairs packed in one micro-batch, labels at the answers' tokens; sequences 2 i and 2 i + 1 are the first and second
    answer of pair i."""
    sequences = [sequence for pair in pairs for sequence in sequences_of(pair)]
    masks = [[False] * len(pair["prompt_ids"]) + [True] * len(answer["token_ids"]) for pair in pairs for answer in pair["answers"]]
    rows = pack_sequences([len(sequence) for sequence in sequences], shape.row_tokens)
    batch = collate(rows, sequences, masks, row_tokens=shape.row_tokens, num_rows=shape.num_rows, pad_id=shape.pad_id)
    return batch.to(torch.device(shape.device))
