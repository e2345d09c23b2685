"""The order of data is a pure function of seed and step, and a pass holds every document once."""

import numpy as np
import pytest

from fromnoise.data.loader import PackedEpochs, PretrainStream, StepRows, prefetch
from fromnoise.run.errors import UserError

EOT = 1


class Shards:
    """Two sources of short documents whose tokens name source and document."""

    sources = ("a", "b")

    def __init__(self, counts=(7, 5)):
        self._tokens, self._offsets = {}, {}
        for s, (name, count) in enumerate(zip(self.sources, counts, strict=True)):
            documents = [[100 * (s + 1) + d] * (d + 1) + [EOT] for d in range(count)]
            self._tokens[name] = np.concatenate(documents).astype(np.uint16)
            self._offsets[name] = np.cumsum([0] + [len(d) for d in documents])

    def tokens(self, source):
        return self._tokens[source]

    def offsets(self, source):
        return self._offsets[source]


def documents(tokens):
    return [tuple(piece) for piece in np.split(tokens, np.flatnonzero(tokens == EOT) + 1)]


def test_a_pass_holds_every_document_once():
    stream = PretrainStream(Shards(), {}, seed=3, endoftext_id=EOT)
    size = stream.pass_tokens(0)
    first = stream.read(1, size)
    expected = sorted(documents(np.concatenate([Shards().tokens(s) for s in Shards.sources])))
    assert sorted(documents(first)) == expected
    second = stream.read(1 + size, size)
    assert sorted(documents(second)) == expected and second.tolist() != first.tolist()


def test_weights_are_passes():
    stream = PretrainStream(Shards(), {"a": 2.0, "b": 0.0}, seed=3, endoftext_id=EOT)
    tokens = stream.read(1, stream.pass_tokens(0))
    assert (tokens == 100).sum() == 2 and not (tokens >= 200).any()


def test_a_source_with_a_small_weight_has_a_document_in_each_pass():
    stream = PretrainStream(Shards(), {"a": 0.001, "b": 0.001}, seed=3, endoftext_id=EOT)
    size = stream.pass_tokens(0)
    assert sorted(document[0] // 100 for document in documents(stream.read(1, size)) if document) == [1, 2]


def test_no_tokens_left_to_train_on_is_the_users_to_mend():
    with pytest.raises(UserError, match=r"no tokens are left .* a \(weight 0, 7 documents\), b \(weight 0, 5 documents\), none has both; .* data\.sources"):
        PretrainStream(Shards(), {"a": 0.0, "b": 0.0}, seed=3, endoftext_id=EOT)


@pytest.mark.parametrize("start", [0, 1, 17, 63, 400])
def test_reading_anywhere_equals_reading_from_the_start(start):
    whole = PretrainStream(Shards(), {}, seed=3, endoftext_id=EOT).read(0, 500)
    assert PretrainStream(Shards(), {}, seed=3, endoftext_id=EOT).read(start, 60).tolist() == whole[start : start + 60].tolist()


def test_segments_begin_at_document_starts():
    batch = PretrainStream(Shards(), {}, seed=3, endoftext_id=EOT).batch(0, 2, 16)
    assert (batch.labels[:, :-1] == batch.input_ids[:, 1:]).all()
    starts = batch.input_ids == EOT
    assert (batch.position_ids[starts] == 0).all()
    changes = batch.segment_ids[:, 1:] != batch.segment_ids[:, :-1]
    assert (changes == starts[:, 1:]).all()


def test_an_epoch_holds_every_sequence_once():
    sequences = [[i + 2] * (i % 9 + 2) for i in range(50)]
    epochs = PackedEpochs(sequences, None, row_tokens=16, rows_per_step=4, pad_id=0, seed=1)
    for size in (4, 2):
        seen = []
        for step in range(epochs.steps_per_epoch):
            for first in range(0, 4, size):
                batch = epochs.batch(step, first, size)
                assert batch.input_ids.shape == (size, 16)
                seen += batch.sequence_ids.tolist()
        assert sorted(seen) == list(range(50))
    again = epochs.batch(epochs.steps_per_epoch, 0, 4)
    assert again.sequence_ids.tolist() != epochs.batch(0, 0, 4).sequence_ids.tolist()


@pytest.mark.parametrize("frac, beside", [(0.0, 0), (0.01, 1), (0.0625, 1), (0.25, 2), (0.9, 7)])
def test_the_mixture_of_a_step_is_the_same_on_any_number_of_ranks_and_in_micro_batches_of_any_size(frac, beside):
    for world_size in (1, 2, 4, 8):
        for micro in (1, 2, 8):
            if (8 // world_size) % min(micro, 8 // world_size):
                continue
            shared = [StepRows("sft", 512, 64, micro, frac, rank, world_size) for rank in range(world_size)]
            assert {(rows.per_step, rows.main, rows.beside) for rows in shared} == {(8, 8 - beside, beside)}
            covered = [row for rows in shared for first, end in rows.here for row in range(first, end)]
            assert covered == list(range(8))  # each row once: none is left out, none trained on twice
            assert len({end - first for rows in shared for first, end in rows.here}) == 1  # one shape to compile


@pytest.mark.parametrize(
    "given, said",
    [
        ((32, 64, 8, 0.0), "sft.batch_tokens = 32 is less than one row of sft.row_tokens = 64"),
        ((512, 64, 3, 0.0), "sft.micro_batch_rows = 3 does not divide a rank's 8 rows of a step; 2 does"),
        ((512, 64, 8, 0.0, 0, 3), "a step of 8 rows .* over 3 ranks; sft.batch_tokens = 576 can"),
        ((512, 64, 8, 0.99), "leaves none for what is trained"),
        ((64, 64, 8, 0.1), "leaves none for what is trained"),
    ],
)
def test_rows_that_cannot_be_shared_out_evenly_are_refused(given, said):
    with pytest.raises(UserError, match=said):
        StepRows("sft", *given)


def test_prefetch_gives_each_step_in_order():
    assert list(prefetch(lambda step: step * step, 2, 6)) == [(2, 4), (3, 9), (4, 16), (5, 25)]
    assert list(prefetch(lambda step: step, 4, 4)) == []
