"""Choosing the next token from logits, reproducibly.

The random numbers are a function of (seed, row, position) and not of a generator's state, so what a prompt is answered
does not depend on which other prompts were in the batch, on the batch's size, or on when a row entered it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_MASK_SCALE = float(1 << 40)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(x: np.ndarray) -> np.ndarray:
    """The finalizer of SplitMix64 (Steele, Lea & Flood 2014): a bijection of 64-bit integers that scatters counters."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def row_key(seed: int, row: int) -> np.uint64:
    """The random stream of one row under one seed."""
    base = _mix(np.array([int(seed) % (1 << 64)], dtype=np.uint64) + _GOLDEN)
    return _mix(base ^ (np.array([row % (1 << 64)], dtype=np.uint64) + _GOLDEN))[0]


def uniforms(keys: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """keys (S,) uint64, positions (S,) -> (S, 2) float64 in [0, 1), two independent numbers for each row and position."""
    counters = 2 * positions.astype(np.uint64)[:, None] + np.arange(1, 3, dtype=np.uint64)
    bits = _mix(keys[:, None] + counters * _GOLDEN)
    return (bits >> np.uint64(11)) * 2.0**-53


def sample(
    logits: Tensor, uniform: Tensor, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, penalised: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """logits (S, V) fp32, uniform (S, 2) float64 -> (ids (S,) int64, logprobs (S,) fp32).

    temperature 0 takes the likeliest token. top_k = 0 and top_p = 1 leave the distribution whole; top_p keeps the
    smallest set of likeliest tokens whose share of what top_k left reaches it, as in transformers. penalised: logits (S, V)
    to choose by instead (`penalise_repeats`).
    `logprobs` are those of `logits`' whole distribution at this temperature (at temperature 1 for greedy), whatever was cut or
    penalised: what a trainer's forward pass computes.
    """
    if temperature == 0.0:
        probs = torch.softmax(logits, dim=-1)
        ids = (logits if penalised is None else penalised).argmax(dim=-1)
    else:
        probs = _softmax(logits, temperature)
        ids = _invert(_restrict(probs if penalised is None else _softmax(penalised, temperature), top_k, top_p), uniform)
    return ids, probs.gather(1, ids[:, None]).squeeze(1).log()


def penalise_repeats(logits: Tensor, seen: Sequence[Sequence[int]], penalty: float) -> Tensor:
    """logits (S, V) with those of each row's `seen` tokens made smaller: divided by `penalty` where positive, else multiplied by it.

    Keskar et al. 2019, CTRL (arXiv:1909.05858), section 4.1, whose division makes a negative score larger; with the sign, as in their
    code and in transformers. A token that was seen twice is penalised once.
    """
    repeated = torch.zeros(logits.shape, dtype=torch.bool)
    rows = [row for row, ids in enumerate(seen) for _ in ids]
    repeated[rows, [token for ids in seen for token in ids]] = True
    return torch.where(repeated.to(logits.device), torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def _softmax(logits: Tensor, temperature: float) -> Tensor:
    return torch.softmax(logits if temperature == 1.0 else logits / temperature, dim=-1)


def _restrict(probs: Tensor, top_k: int, top_p: float) -> Tensor:
    """probs with everything outside the top k and the nucleus (Holtzman et al. 2020, arXiv:1904.09751) set to 0."""
    k = min(top_k, probs.shape[-1]) if top_k > 0 else probs.shape[-1]
    if k == probs.shape[-1] and top_p >= 1.0:
        return probs
    top, order = probs.topk(k, dim=-1)  # sorted
    if top_p < 1.0:
        masses = (top.double() * _MASK_SCALE).long()  # whole numbers, as in `_invert`: a GPU adds fractions in no fixed order
        before = masses.cumsum(-1) - masses
        top = torch.where(before < top_p * masses.sum(-1, keepdim=True), top, 0.0)
        top[:, 0] = probs.amax(-1)  # also for top_p = 0
    return torch.zeros_like(probs).scatter_(1, order, top)


def _invert(probs: Tensor, uniform: Tensor) -> Tensor:
    """Inverse of the cumulative distribution in two levels: a block of tokens, then a token in it.

    A running sum over the whole vocabulary costs as much as a layer of a small model; two of sqrt(V) do not. Masses
    are rounded to integers of 2^-40 before they are added up: the sums are exact and monotone, so a token of zero
    probability is never chosen and the result does not depend on the order of addition.
    """
    rows, vocab = probs.shape
    block = 64 if vocab <= 16_384 else 512
    if vocab % block:
        probs = torch.nn.functional.pad(probs, (0, block - vocab % block))
    blocks = probs.view(rows, -1, block)
    first = _pick(blocks.sum(-1), uniform[:, 0])
    inside = blocks[torch.arange(rows, device=probs.device), first]
    return (first * block + _pick(inside, uniform[:, 1])).clamp_(max=vocab - 1)


def _pick(masses: Tensor, uniform: Tensor) -> Tensor:
    """masses (S, N) >= 0, uniform (S,) in [0, 1) -> (S,) index drawn in proportion to the masses."""
    masses = masses / masses.sum(-1, keepdim=True)
    running = (masses.double() * _MASK_SCALE).long().cumsum(-1)
    target = (uniform * running[:, -1]).long()
    return (running <= target[:, None]).sum(-1).clamp_(max=masses.shape[-1] - 1)
