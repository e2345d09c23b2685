"""Preference pairs in micro-batches: what was planned fits, whoever the neighbours are."""

import random

import pytest

from fromnoise.data.pairs import batch_of, pack_pairs, positions_of, sequences_of
from fromnoise.generate.rollout import RowShape
from fromnoise.run.errors import UserError


def pair(rng: random.Random, prompt: list[int], longest: int = 60) -> dict:
    return {"prompt_ids": prompt, "answers": [{"token_ids": [rng.randrange(5, 90) for _ in range(rng.randrange(1, longest))]} for _ in range(2)]}


@pytest.mark.parametrize(("num_prompts", "each", "rows"), [(100, 20, 16), (300, 6, 8), (400, 1, 8)])
def test_pairs_that_share_a_prompt_fit_the_rows_they_were_given(num_prompts, each, rows):
    """Several votes or pairs on one prompt, neighbours by chance or in a row: every sequence is in the batch, once and whole."""
    rng = random.Random(0)
    shape = RowShape(256, rows, 0)
    prompts = [[rng.randrange(5, 90) for _ in range(rng.randrange(2, 120))] for _ in range(num_prompts)]
    pairs = [pair(rng, prompt) for prompt in prompts for _ in range(each)]
    for order in (list(range(len(pairs))), rng.sample(range(len(pairs)), len(pairs))):
        groups = pack_pairs([pairs[i] for i in order], shape, order)
        assert [i for group in groups for i in group] == order
        for group in groups:
            members = [pairs[i] for i in group]
            batch = batch_of(members, shape)
            assert batch.input_ids.shape == (rows, 256) and int((batch.labels >= 0).sum()) == sum(
                len(answer["token_ids"]) for one in members for answer in one["answers"]
            )
            assert int((batch.segment_ids > 0).sum()) <= sum(positions_of(one, 256) for one in members)
            ids, sequences = batch.input_ids.flatten(), [sequence for one in members for sequence in sequences_of(one)]
            answers = [answer["token_ids"] for one in members for answer in one["answers"]]
            assert sorted(batch.sequence_ids.tolist()) == list(range(len(sequences)))
            for index, last in zip(batch.sequence_ids.tolist(), batch.last_index.tolist(), strict=True):
                assert ids[last + 1 - len(answers[index]) : last + 1].tolist() == answers[index]


def test_a_pair_that_needs_two_rows_where_there_is_one_is_refused_when_it_is_planned():
    short, long = ({"prompt_ids": [5] * 6, "answers": [{"token_ids": [7] * n}, {"token_ids": [8] * n}]} for n in (3, 9))
    batch_of([short], RowShape(16, 1, 0))
    with pytest.raises(UserError, match=r"micro_batch_rows = 1: .* 9 and 9 tokens .* one row of 16"):
        for group in pack_pairs([short, long], RowShape(16, 1, 0), range(2)):
            batch_of([(short, long)[i] for i in group], RowShape(16, 1, 0))
    assert pack_pairs([short, long], RowShape(16, 2, 0), range(2)) == [[0], [1]]
