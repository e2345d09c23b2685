"""Packing loses nothing, overlaps nothing, and counts exactly what the masks say."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fromnoise.algorithms.masking import IGNORE_INDEX, PREFIX_SHIFT
from fromnoise.data.packing import collate, collate_all, pack_sequences, pack_sharing, stack_rows


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


def test_masks_choose_targets():
    sequences, masks = [[5, 6, 7], [8, 9]], [[False, False, True], [False, True]]
    batch = collate([[0, 1]], sequences, masks, row_tokens=6, num_rows=2, pad_id=0)
    assert batch.labels[batch.labels != IGNORE_INDEX].tolist() == [7, 9]
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


def test_the_worked_example_of_a_shared_prompt():
    sequences, prompt_lengths = [[5, 6, 7, 8], [5, 6, 9]], [2, 2]
    rows, positions = pack_sharing(sequences, prompt_lengths, row_tokens=8)
    assert rows == [[0, 1]] and positions == 6
    masks = [[False, False, True, True], [False, False, True]]
    batch = collate(rows, sequences, masks, row_tokens=8, num_rows=1, pad_id=0, prompt_lengths=prompt_lengths)
    p = 1 << PREFIX_SHIFT
    assert batch.input_ids.tolist() == [[5, 6, 7, 8, 6, 9, 0, 0]]
    assert batch.labels.tolist() == [[IGNORE_INDEX, 7, 8, IGNORE_INDEX, 9, IGNORE_INDEX, IGNORE_INDEX, IGNORE_INDEX]]
    assert batch.segment_ids.tolist() == [[1, p + 2, p + 2, p + 2, p + 3, p + 3, 0, 0]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 1, 2, 0, 0]]
    assert [batch.start_index.tolist(), batch.last_index.tolist(), batch.shared_tokens.tolist()] == [[0, 4], [3, 5], [0, 1]]


@pytest.mark.parametrize("row_tokens", [12, 20, 4096])
def test_sharing_loses_no_sequence_and_fills_no_row_too_far(row_tokens):
    rng = np.random.default_rng(0)
    prompts = [rng.integers(10, size=rng.integers(1, 8)).tolist() for _ in range(20)]
    sequences = [prompt + rng.integers(10, size=rng.integers(5)).tolist() for prompt in prompts for _ in range(4)]
    prompt_lengths = [len(prompt) for prompt in prompts for _ in range(4)]
    rows, positions = pack_sharing(sequences, prompt_lengths, row_tokens)
    assert sorted(index for row in rows for index in row) == list(range(80))
    batch = collate(rows, sequences, None, row_tokens=row_tokens, num_rows=len(rows), pad_id=0, prompt_lengths=prompt_lengths)
    assert int((batch.segment_ids > 0).sum()) <= positions  # neighbours of two chunks may share as well
    separate = sum(map(len, sequences))
    assert positions == separate if row_tokens > 2048 else positions < 0.8 * separate
    for index, start, last, shared in zip(batch.sequence_ids, batch.start_index, batch.last_index, batch.shared_tokens, strict=True):
        assert batch.input_ids.flatten()[start : last + 1].tolist() == sequences[index][shared:]
