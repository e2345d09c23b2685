"""Sequences without words: what counts can be found by looking back, and nothing else can."""

import numpy as np
import pytest
import torch

from fromnoise.algorithms.masking import IGNORE_INDEX
from fromnoise.data.procedural import procedural_batch, recall, repetition

IDS = np.arange(10, 500)


def batch(row=0, rows=6, seed=3, tokens=128):
    return procedural_batch(seed, row, rows, tokens, IDS, pad_id=0)


def segments(found):
    """(ids, labels) of each packed sequence."""
    for b in range(len(found.input_ids)):
        for number in range(1, int(found.segment_ids[b].max()) + 1):
            here = found.segment_ids[b] == number
            yield found.input_ids[b][here].tolist(), found.labels[b][here].tolist()


def test_every_counted_label_follows_an_earlier_occurrence_of_the_token_before_it():
    counted = 0
    for ids, labels in segments(batch()):
        for t, label in enumerate(labels):
            if label == IGNORE_INDEX:
                continue
            counted += 1
            assert any(ids[s] == ids[t] and ids[s + 1] == label for s in range(t)), (ids, t)
    assert counted > 200


def test_a_sequence_with_its_past_shuffled_breaks_the_law_above():
    ids, mask = recall(np.random.default_rng(0), 64, len(IDS))
    shuffled = np.concatenate([np.random.default_rng(1).permutation(ids[:32]), ids[32:]])
    assert any(not any(shuffled[s] == shuffled[t - 1] and shuffled[s + 1] == shuffled[t] for s in range(t - 1)) for t in np.flatnonzero(mask))


def test_for_a_beginning_they_are_short_repetitions():
    for ids, labels in segments(procedural_batch(3, 0, 6, 128, IDS, pad_id=0, short=True)):
        period = next(p for p in range(1, len(ids)) if ids[p:] == ids[:-p])
        assert len(ids) <= 32 and 2 <= period < 16 and [label for label in labels if label != IGNORE_INDEX] == ids[period + 1 :]
    assert max(len(ids) for ids, _ in segments(batch(rows=20))) > 32


def test_rows_are_a_pure_function_of_seed_and_row():
    again = procedural_batch(3, 2, 2, 128, IDS, pad_id=0)
    assert torch.equal(batch().input_ids[2:4], again.input_ids) and torch.equal(batch().labels[2:4], again.labels)
    assert not torch.equal(batch().input_ids, batch(seed=4).input_ids) and not torch.equal(batch().input_ids[:1], batch(row=1).input_ids[:1])


def test_ids_stay_in_their_range_and_special_tokens_never_appear():
    found = batch(rows=20)
    real = found.input_ids[found.segment_ids > 0]
    assert int(real.min()) >= IDS[0] and int(real.max()) <= IDS[-1]


@pytest.mark.parametrize("make", [repetition, recall])
@pytest.mark.parametrize("length", [12, 16, 97])
def test_lengths_fit_and_something_counts(make, length):
    ids, mask = make(np.random.default_rng(0), length, len(IDS))
    assert len(ids) == len(mask) <= length and len(ids) >= 12 and mask.any() and not mask[0]


def test_a_row_too_short_is_refused():
    with pytest.raises(ValueError, match="12 are the least"):
        batch(tokens=8)
