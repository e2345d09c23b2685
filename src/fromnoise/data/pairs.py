"""Preference pairs as packed batches: both answers of a pair in one micro-batch, because its loss needs both."""

from __future__ import annotations

from collections.abc import Sequence

from fromnoise.data.packing import Batch, collate, pack_sequences


def sequences_of(pair: dict) -> list[list[int]]:
    """The two token sequences of a pair (a line of prefer/pairs.jsonl), prompt and answer, in the order of its answers."""
    return [[*pair["prompt_ids"], *answer["token_ids"]] for answer in pair["answers"]]


def longest(pair: dict) -> int:
    return max(map(len, sequences_of(pair)))


def group_pairs(pairs: Sequence[dict], num_rows: int, row_tokens: int, names: Sequence[int]) -> list[list[int]]:
    """Pairs in their order, cut into micro-batches of (num_rows, row_tokens) as full as they get; each a list of `names`."""
    groups: list[list[int]] = []
    group: list[int] = []
    lengths: list[int] = []
    for pair, name in zip(pairs, names, strict=True):
        more = [len(sequence) for sequence in sequences_of(pair)]
        full = sum(lengths) + sum(more) > num_rows * row_tokens
        if group and (full or len(pack_sequences([*lengths, *more], row_tokens)) > num_rows):
            groups.append(group)
            group, lengths = [], []
        group.append(name)
        lengths += more
    return [*groups, group] if group else groups


def answers_batch(pairs: Sequence[dict], num_rows: int, row_tokens: int, pad_id: int) -> Batch:
    """Pairs packed in one micro-batch whose labels count at answer tokens; sequences 2 i and 2 i + 1 are those of pair i."""
    sequences = [sequence for pair in pairs for sequence in sequences_of(pair)]
    masks = [[False] * len(pair["prompt_ids"]) + [True] * len(answer["token_ids"]) for pair in pairs for answer in pair["answers"]]
    rows = pack_sequences([len(sequence) for sequence in sequences], row_tokens)
    return collate(rows, sequences, masks, row_tokens=row_tokens, num_rows=num_rows, pad_id=pad_id)
