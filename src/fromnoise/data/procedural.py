"""Sequences without words: random tokens arranged so that each counted one can be found by looking back.

Trained on for some hundred steps before the first document, they teach a small model to look: to find where a token stood
before and to take over what followed. Text teaches the same, but late: in text nearly every token can be guessed from its
neighbours, so that attention has little to gain for a long time, while here looking back is all there is. What is learnt
stays where a row of them goes on beside the text, and is lost within some hundred steps where none does (docs/lab-notebook.md).
Training on such sequences first: Hu et al. 2025 (arXiv 2502.19249, formal languages), Shinnick et al. 2025 (arXiv
2505.22308, repetition among others). Two kinds:

- repetition: a pattern of random tokens, again and again; the first of its repeats on counts;
- recall: pairs of a key and a value, then the keys once more in another order; the values asked for count.

Worked example of the second, two pairs, counted labels in brackets:  k1 v1 k2 v2 k2 [v2] k1 [v1]
"""

from __future__ import annotations

import numpy as np

from fromnoise.data.packing import Batch, collate
from fromnoise.run.seeds import seed_from

SHORT_LENGTHS = (12, 16, 24, 32)
LENGTHS = (16, 24, 32, 48, 64, 96)
SHORTEST = 12
REPETITION_FRAC = 0.6


def procedural_batch(seed: int, row: int, num_rows: int, row_tokens: int, token_ids: np.ndarray, pad_id: int, short: bool = False) -> Batch:
    """Rows row .. row + num_rows - 1 of an endless stream of packed sequences, a pure function of (seed, row).

    short: for a beginning, short repetitions only. Attention that is still spread evenly finds something among few tokens
    sooner: repetition is learnt in 185 steps of the default recipe's size then, in 260 among longer ones.

    token_ids (N,): the ids that tokens are drawn from, control tokens left out. Raises ValueError for a row too short to hold
    a sequence.
    """
    if row_tokens < SHORTEST:
        raise ValueError(f"a row of {row_tokens} tokens holds no sequence; {SHORTEST} are the least")
    sequences: list[np.ndarray] = []
    masks: list[np.ndarray] = []
    rows: list[list[int]] = []
    for number in range(row, row + num_rows):
        rng = np.random.default_rng(seed_from(seed, "procedural", number))
        left, members = row_tokens, []
        while left >= SHORTEST:
            length = min(left, int(rng.choice(SHORT_LENGTHS if short else LENGTHS)))
            sequence, mask = (repetition if short or rng.random() < REPETITION_FRAC else recall)(rng, length, len(token_ids))
            members.append(len(sequences))
            sequences.append(token_ids[sequence])
            masks.append(mask)
            left -= len(sequence)
        rows.append(members)
    return collate(rows, sequences, masks, row_tokens=row_tokens, num_rows=num_rows, pad_id=pad_id)


def repetition(rng: np.random.Generator, length: int, num_ids: int) -> tuple[np.ndarray, np.ndarray]:
    """(tokens in 0 .. num_ids - 1, mask), both (length,): a pattern of 2 to length / 2 - 1 tokens, repeated. The first token of the
    first repeat, which nothing announces, does not count."""
    period = int(rng.integers(2, max(3, length // 2)))
    pattern = rng.integers(num_ids, size=period)
    return np.resize(pattern, length), np.arange(length) > period


def recall(rng: np.random.Generator, length: int, num_ids: int) -> tuple[np.ndarray, np.ndarray]:
    """(tokens in 0 .. num_ids - 1, mask), both (4 n,) with 4 n <= length: n pairs of different keys and any values, then the pairs
    in another order."""
    count = min(length // 4, num_ids)
    keys, values = rng.permutation(num_ids)[:count], rng.integers(num_ids, size=count)
    order = rng.permutation(count)
    pairs = np.stack([np.concatenate([keys, keys[order]]), np.concatenate([values, values[order]])], axis=1)  # (2 n, 2)
    mask = np.zeros(pairs.shape, dtype=bool)
    mask[count:, 1] = True
    return pairs.reshape(-1), mask.reshape(-1)
