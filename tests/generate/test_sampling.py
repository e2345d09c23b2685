import numpy as np
import pytest
import torch

from fromnoise.generate.sampling import _restrict, penalise_repeats, row_key, sample, uniforms


def noise(num, seed=0):
    return torch.from_numpy(uniforms(np.array([row_key(seed, row) for row in range(num)], dtype=np.uint64), np.zeros(num)))


def test_a_seed_of_numpy_is_the_number_it_is():
    assert row_key(np.int64(-5), 1) == row_key(-5, 1) and row_key(np.uint8(7), 0) == row_key(7, 0)


def test_uniform_numbers_are_uniform_and_independent():
    keys = np.array([row_key(3, row) for row in range(200)], dtype=np.uint64)
    drawn = np.stack([uniforms(keys, np.full(200, position)) for position in range(50)])  # (50, 200, 2)
    assert drawn.min() >= 0 and drawn.max() < 1 and len(np.unique(drawn)) == drawn.size
    counts = np.histogram(drawn, bins=20, range=(0, 1))[0]
    assert ((counts - 1000) ** 2 / 1000).sum() < 45  # chi-square, 19 degrees of freedom, p about 0.001
    flat = drawn.reshape(50, -1)
    for a, b in ((flat[1:], flat[:-1]), (drawn[:, 1:], drawn[:, :-1]), (drawn[..., 0], drawn[..., 1])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.05


@pytest.mark.parametrize("vocab", [7, 64, 300, 20_000])
def test_frequencies_follow_the_distribution(vocab):
    logits = torch.randn(vocab, generator=torch.Generator().manual_seed(0)) * 2
    logits[torch.arange(vocab) > 6] -= 30.0 if vocab > 64 else 3.0
    ids, logprobs = sample(logits.expand(4000, -1), noise(4000), temperature=0.8)
    expected = torch.softmax(logits / 0.8, -1)
    frequencies = torch.bincount(ids, minlength=vocab) / 4000
    assert (frequencies - expected).abs().max() < 4 * 0.5 / 4000**0.5
    torch.testing.assert_close(logprobs, torch.log_softmax(logits / 0.8, -1)[ids], rtol=1e-5, atol=1e-5)


def test_impossible_tokens_are_never_drawn():
    logits = torch.full((5000, 130), -torch.inf)
    logits[:, [3, 70, 129]] = 0.0
    assert set(sample(logits, noise(5000))[0].tolist()) == {3, 70, 129}
    edges = torch.tensor([[0.0, 0.0], [1 - 2**-53, 1 - 2**-53]], dtype=torch.float64)
    assert sample(logits[:2], edges)[0].tolist() == [3, 129]


def test_top_k_and_top_p_cut_the_draw_but_not_the_logprobs():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().expand(3000, -1)
    for options, allowed in (({"top_k": 2}, {0, 1}), ({"top_p": 0.8}, {0, 1}), ({"top_p": 0.81}, {0, 1, 2}), ({"top_p": 0.0}, {0}),
                             ({"top_k": 3, "top_p": 0.5}, {0}), ({"top_k": 9}, {0, 1, 2, 3})):  # fmt: skip
        ids, logprobs = sample(logits, noise(3000), **options)
        assert set(ids.tolist()) == allowed, options
        torch.testing.assert_close(logprobs, logits[0][ids], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("top_k", "top_p"), [(5, 0.5), (40, 0.9), (1, 0.9), (0, 0.9), (5, 1.0)])
def test_top_k_and_top_p_leave_the_tokens_that_transformers_leaves(top_k, top_p):
    """Of what the top k leave: taken of the whole distribution, the nucleus of a flat one was all of them."""
    from transformers import TopKLogitsWarper, TopPLogitsWarper

    logits = torch.randn(50, 1000, generator=torch.Generator().manual_seed(0)) * 2
    expected = TopKLogitsWarper(top_k)(None, logits) if top_k else logits
    expected = TopPLogitsWarper(top_p)(None, expected) if top_p < 1 else expected
    assert torch.equal(_restrict(logits.softmax(-1), top_k, top_p) > 0, expected > -torch.inf)


def test_repeats_are_penalised_as_in_transformers():
    from transformers import RepetitionPenaltyLogitsProcessor

    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(0)) * 3
    logits[0, 7] = -torch.inf
    seen = torch.tensor([[1, 7, 1, 20], [5, 5, 5, 5], [0, 49, 3, 2]])
    for penalty in (1.3, 0.5):
        found = penalise_repeats(logits, seen.tolist(), penalty)
        torch.testing.assert_close(found, RepetitionPenaltyLogitsProcessor(penalty)(seen, logits.clone()), rtol=0, atol=0)
    ragged = penalise_repeats(logits, [[1], [], [2, 3]], 1.3)
    assert (ragged != logits).nonzero().tolist() == [[0, 1], [2, 2], [2, 3]]


def test_penalised_logits_are_drawn_from_and_leave_the_logprobs_whole():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().expand(4000, -1)
    penalised = penalise_repeats(logits, [[0]] * 4000, 2.0)
    ids, logprobs = sample(logits, noise(4000), temperature=0.8, penalised=penalised)
    frequencies = torch.bincount(ids, minlength=4) / 4000
    assert (frequencies - torch.softmax(penalised[0] / 0.8, -1)).abs().max() < 4 * 0.5 / 4000**0.5
    torch.testing.assert_close(logprobs, torch.log_softmax(logits[0] / 0.8, -1)[ids], rtol=1e-5, atol=1e-5)
    assert set(sample(logits, noise(4000), temperature=0.0, penalised=penalised)[0].tolist()) == {1}


def test_temperature_zero_takes_the_likeliest():
    logits = torch.randn(10, 50, generator=torch.Generator().manual_seed(0))
    ids, logprobs = sample(logits, noise(10), temperature=0.0)
    assert torch.equal(ids, logits.argmax(-1))
    torch.testing.assert_close(logprobs, torch.log_softmax(logits, -1).amax(-1))
