"""Preference pairs as packed batches: both answers of a pair in one micro-batch, because its loss needs both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch

from fromnoise.data.packing import Batch, chunk_lengths, collate, pack_sequences, pack_sharing
from fromnoise.data.preferences import FOR_FIRST, votes_of


class Shape(Protocol):
    """What `generate.rollout.RowShape` offers."""

    row_tokens: int
    num_rows: int
    pad_id: int
    device: torch.device | str


def sequences_of(pair: dict) -> list[list[int]]:
    """The two token sequences of a pair (a line of prefer/pairs.jsonl), prompt and answer, in the order of its answers."""
    return [[*pair["prompt_ids"], *answer["token_ids"]] for answer in pair["answers"]]


def tallied(pair: dict, weight_of: Mapping[str | None, float] | None = None) -> dict:
    """The pair with its votes counted: `chosen` by most of them (None for a tie), `against` the share that went the other way.

    weight_of: what each rater's vote counts for; the pair's weight is then multiplied by their mean. A vote for neither is half
    a vote each way.
    """
    votes = votes_of(pair)
    weights = [weight_of[rater] if weight_of else 1.0 for rater, _ in votes]
    first = sum(weight * FOR_FIRST[choice] for weight, (_, choice) in zip(weights, votes, strict=True)) / sum(weights)
    chosen = None if first == 0.5 else int(first < 0.5)
    return {**pair, "chosen": chosen, "against": min(first, 1.0 - first), "weight": pair["weight"] * sum(weights) / len(weights)}


def against(pair: dict) -> float:
    """The share of a pair's votes that its `chosen` answer did not get; half for a tie."""
    return 0.5 if pair["chosen"] is None else pair.get("against", 0.0)


def longest(pair: dict) -> int:
    return max(map(len, sequences_of(pair)))


def chunks_of(pair: dict, row_tokens: int) -> list[int]:
    """Positions that a pair takes: one chunk where both answers fit a row behind the prompt that they share, else two."""
    lengths = [len(sequence) for sequence in sequences_of(pair)]
    return [positions for _, positions in chunk_lengths(lengths, len(pair["prompt_ids"]), row_tokens)]


def pack_pairs(pairs: Sequence[dict], shape: Shape, names: Sequence[int]) -> list[list[int]]:
    """Pairs in their order, cut into micro-batches as full as they get; each a list of `names`.

    The two answers of a pair are always in one micro-batch; not always in one row.
    """
    groups: list[list[int]] = []
    group: list[int] = []
    lengths: list[int] = []
    for pair, name in zip(pairs, names, strict=True):
        more = chunks_of(pair, shape.row_tokens)
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
    prompt_lengths = [len(pair["prompt_ids"]) for pair in pairs for _ in range(2)]
    rows, _ = pack_sharing(sequences, prompt_lengths, shape.row_tokens)
    batch = collate(
        rows, sequences, masks, row_tokens=shape.row_tokens, num_rows=shape.num_rows, pad_id=shape.pad_id, prompt_lengths=prompt_lengths
    )  # fmt: skip
    return batch.to(torch.device(shape.device))
