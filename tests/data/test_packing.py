"""Packing loses nothing, overlaps nothing, and counts exactly what the masks say."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fromnoise.algorithms.masking import IGNORE_INDEX
from fromnoise.data.packing import collate, collate_all, pack_sequences, stack_rows


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 32), max_size=60))
def test_every_sequence_is_packed_once_and_no_row_overflows(lengths):
    rows = pack_sequences(lengths, 32)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in row) <= 32 for row in rows)


def test_best_fit_wastes_little():
    lengths = np.random.default_rng(0).integers(10, 120, 2000).tolist()
    rows = pack_sequences(lengths, 256)
    assert sum(lengths) / (len(rows) * 256) > 0.97


def test_a_sequence_longer_than_a_row_is_refused():
    with pytest.raises(ValueError, match="9 tokens, a row holds 8"):
        pack_sequences([3, 9], 8)


def test_the_docstring_example():
    batch = collate([[0, 1]], [[5, 6, 7], [8, 9]], None, row_tokens=8, num_rows=1, pad_id=0)
    x = IGNORE_INDEX
    assert batch.input_ids.tolist() == [[5, 6, 7, 8, 9, 0, 0, 0]]
    assert batch.labels.tolist() == [[6, 7, x, 9, x, x, x, x]]
    assert batch.segment_ids.tolist() == [[1, 1, 1, 2, 2, 0, 0, 0]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 0, 1, 0, 0, 0]]
    assert batch.last_index.tolist() == [2, 4] and batch.start_index.tolist() == [0, 3]
    assert batch.num_targets == 3


def test_masks_choose_targets_and_extras_stand_at_their_label():
    sequences, masks = [[5, 6, 7], [8, 9]], [[False, False, True], [False, True]]
    extra = {"advantages": [[0.0, 0.0, 1.5], [0.0, -2.0]]}
    batch = collate([[0, 1]], sequences, masks, row_tokens=6, num_rows=2, pad_id=0, extra=extra)
    counted = batch.labels != IGNORE_INDEX
    assert batch.labels[counted].tolist() == [7, 9]
    assert batch.extra["advantages"][counted].tolist() == [1.5, -2.0]
    assert batch.input_ids.shape == (2, 6)  # the missing row is padding: compiled shapes never change


def test_collate_all_has_one_shape():
    sequences = [[1] * n for n in range(1, 30)]
    batches = collate_all(sequences, None, row_tokens=32, num_rows=4, pad_id=0)
    assert {tuple(batch.input_ids.shape) for batch in batches} == {(4, 32)}
    assert torch.cat([batch.sequence_ids for batch in batches]).sort().values.tolist() == list(range(29))


def test_stacked_rows_keep_their_places():
    parts = [collate([[0]], [[5, 6, 7]], None, row_tokens=4, num_rows=1, pad_id=0), collate([[0], []], [[8, 9]], None, row_tokens=4, num_rows=2, pad_id=0)]
    batch = stack_rows(parts)
    assert batch.input_ids.shape == (3, 4) and batch.num_targets == 3
    assert batch.input_ids.flatten()[batch.last_index].tolist() == [7, 9]
