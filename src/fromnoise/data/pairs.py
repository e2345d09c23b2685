"""Preference pairs as packed batches: both answers of a pair in one micro-batch, because its loss needs both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch

from fromnoise.data.packing import Batch, chunk_lengths, collate, pack_chunks, pack_sequences
from fromnoise.data.preferences import FOR_FIRST, rater_weights, votes_of
from fromnoise.run.errors import UserError


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


def tallied_all(pairs: Sequence[dict], rater_weights_by: str) -> tuple[list[dict], list[dict]]:
    """(the pairs with their votes counted, what `data.preferences.rater_weights` says of each rater), the latter empty unless
    `rater_weights_by` is "agreement"."""
    raters = []
    if rater_weights_by == "agreement":
        raters = rater_weights([{**pair, "rater": rater, "chosen": chosen} for pair in pairs for rater, chosen in votes_of(pair)])
    weights = {one["rater"]: one["weight"] for one in raters}
    return [tallied(pair, weights or None) for pair in pairs], raters


def against(pair: dict) -> float:
    """The share of a pair's votes that its `chosen` answer did not get; half for a tie."""
    return 0.5 if pair["chosen"] is None else pair.get("against", 0.0)


def longest(pair: dict) -> int:
    return max(map(len, sequences_of(pair)))


def chunks_of(pair: dict, row_tokens: int) -> list[tuple[int, int]]:
    """(answers, positions) of a pair's chunks: one where both answers fit a row behind the prompt that they share, else two."""
    return chunk_lengths([len(sequence) for sequence in sequences_of(pair)], len(pair["prompt_ids"]), row_tokens)


def positions_of(pair: dict, row_tokens: int) -> int:
    """Positions of a micro-batch that a pair takes."""
    return sum(positions for _, positions in chunks_of(pair, row_tokens))


def pack_pairs(pairs: Sequence[dict], shape: Shape, names: Sequence[int]) -> list[list[int]]:
    """Pairs in their order, cut into micro-batches as full as they get; each a list of `names`.

    The two answers of a pair are always in one micro-batch; not always in one row: UserError where there is only one.
    """
    groups: list[list[int]] = []
    group: list[int] = []
    lengths: list[int] = []
    for pair, name in zip(pairs, names, strict=True):
        more = [positions for _, positions in chunks_of(pair, shape.row_tokens)]
        if len(more) > shape.num_rows:
            sizes = " and ".join(str(len(answer["token_ids"])) for answer in pair["answers"])
            raise UserError(
                f"micro_batch_rows = {shape.num_rows}: a pair of answers of {sizes} tokens does not fit one row of {shape.row_tokens} with its prompt, "
                f"and its loss needs both at once; set micro_batch_rows to 2 or more, or raise row_tokens"
            )
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
    # Rows as `pack_pairs` counted them, pair by pair. Planning them anew over neighbours with one prompt makes fewer but larger chunks, which
    # may want a row more than there is; such neighbours still share their prompt where they meet in a row.
    rows = pack_chunks([chunk for pair in pairs for chunk in chunks_of(pair, shape.row_tokens)], shape.row_tokens)
    batch = collate(
        rows, sequences, masks, row_tokens=shape.row_tokens, num_rows=shape.num_rows, pad_id=shape.pad_id, prompt_lengths=prompt_lengths
    )  # fmt: skip
    return batch.to(torch.device(shape.device))
