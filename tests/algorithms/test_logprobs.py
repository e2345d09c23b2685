"""The chunked head against F.cross_entropy, values and gradients, and the KL estimators against the exact KL."""

import math

import pytest
import torch
import torch.nn.functional as F

from fromnoise.algorithms import logprobs
from fromnoise.algorithms.logprobs import _nll_and_gradient, kl_estimates, linear_cross_entropy, linear_logprobs_and_entropy
from fromnoise.algorithms.masking import IGNORE_INDEX


def problem(dtype, tokens=45, width=8, vocab=37):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(tokens, width, generator=generator, dtype=dtype).requires_grad_()
    weight = torch.randn(vocab, width, generator=generator, dtype=dtype).requires_grad_()
    labels = torch.randint(0, vocab, (tokens,), generator=generator)
    labels[::3] = IGNORE_INDEX
    return hidden, weight, labels


def grads(value, *inputs):
    return torch.autograd.grad(value, inputs)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("chunk_tokens", [1, 7, 1000])
@pytest.mark.parametrize("which", ["some", "all", "none"])
def test_cross_entropy_equals_torch(dtype, tolerance, chunk_tokens, which):
    hidden, weight, labels = problem(dtype)
    labels = {"some": labels, "all": labels.clamp(min=0), "none": torch.full_like(labels, IGNORE_INDEX)}[which]
    expected = F.cross_entropy(hidden @ weight.t(), labels, reduction="sum", ignore_index=IGNORE_INDEX)
    for counted in (None, int((labels != IGNORE_INDEX).sum())):
        total = linear_cross_entropy(hidden, weight, labels, counted, chunk_tokens)
        torch.testing.assert_close(total, expected, rtol=tolerance, atol=tolerance)
        for ours, theirs in zip(grads(total / 7, hidden, weight), grads(expected / 7, hidden, weight), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=10 * tolerance)
            expected = F.cross_entropy(hidden @ weight.t(), labels, reduction="sum", ignore_index=IGNORE_INDEX)


def test_a_wrong_count_is_refused():
    hidden, weight, labels = problem(torch.float32)
    for counted in (29, 31):
        with pytest.raises(ValueError, match=f"{counted} labels were said to count, and 30 do"):
            linear_cross_entropy(hidden, weight, labels, counted)


def test_the_form_for_the_compiler_equals_torch():
    hidden, weight, labels = problem(torch.float32)
    logits, labels = (hidden @ weight.t()).detach().requires_grad_(), labels.clamp(min=0)
    nll, gradient = _nll_and_gradient(logits.detach(), labels)
    expected = F.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(nll, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient, *grads(expected.sum(), logits), rtol=1e-5, atol=1e-6)


def test_no_counted_label_gives_zero_loss_and_zero_gradient():
    hidden, weight, labels = problem(torch.float32)
    labels = torch.full_like(labels, IGNORE_INDEX)
    for value in (linear_cross_entropy(hidden, weight, labels), linear_logprobs_and_entropy(hidden, weight, labels)[0].sum()):
        assert value == 0
        for grad in grads(value, hidden, weight):
            assert not grad.any()


def test_masked_token_gets_no_gradient_even_when_it_is_not_finite():
    hidden, weight, labels = problem(torch.float32)
    with torch.no_grad():
        hidden[0] = float("inf")  # labels[0] is ignored
    for value in (linear_cross_entropy(hidden, weight, labels), linear_logprobs_and_entropy(hidden, weight, labels)[0].sum()):
        grad_hidden, grad_weight = grads(value, hidden, weight)
        assert not grad_hidden[::3].any()
        assert grad_weight.isfinite().all()
    twin = (F.cross_entropy(torch.nan_to_num(hidden, posinf=9.0) @ weight.t(), labels.clamp(min=0), reduction="none")).sum()
    assert grads(twin, hidden)[0][3].any()  # a twin that forgets the mask trains on it


def test_without_grad_no_gradient_is_computed(monkeypatch):
    hidden, weight, labels = problem(torch.float32)
    compute, computed = logprobs._cross_entropy_chunks, []
    monkeypatch.setattr(logprobs, "_cross_entropy_chunks", lambda *given: computed.append(compute(*given)) or computed[-1])
    value = linear_cross_entropy(hidden, weight, labels)
    with torch.no_grad():
        assert linear_cross_entropy(hidden, weight, labels) == pytest.approx(value.item(), rel=1e-6)
    assert [[grad is None for grad in grads] for _, *grads in computed] == [[False, False], [True, True]]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_and_entropy_equal_torch(temperature):
    hidden, weight, labels = problem(torch.float64)
    full = torch.log_softmax(hidden @ weight.t() / temperature, dim=-1)
    counted = labels != IGNORE_INDEX
    expected_logprobs = torch.where(counted, full.gather(1, labels.clamp(min=0)[:, None]).squeeze(1), 0.0)
    expected_entropy = torch.where(counted, torch.distributions.Categorical(logits=full).entropy(), 0.0)
    logprobs, entropy = linear_logprobs_and_entropy(hidden, weight, labels, temperature, chunk_tokens=7)
    torch.testing.assert_close(logprobs, expected_logprobs, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(entropy, expected_entropy, rtol=1e-12, atol=1e-12)
    scale = torch.linspace(-1, 2, len(labels), dtype=torch.float64)
    for ours, theirs in zip(
        grads((logprobs * scale + 0.3 * entropy * scale.flip(0)).sum(), hidden, weight),
        grads((expected_logprobs * scale + 0.3 * expected_entropy * scale.flip(0)).sum(), hidden, weight),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_shapes_are_kept_and_checked():
    hidden, weight, labels = problem(torch.float32, tokens=12)
    assert linear_cross_entropy(hidden.reshape(3, 4, -1), weight, labels.reshape(3, 4)).shape == ()
    assert all(x.shape == (3, 4) for x in linear_logprobs_and_entropy(hidden.reshape(3, 4, -1), weight, labels.reshape(3, 4)))
    with pytest.raises(ValueError, match="do not belong together"):
        linear_cross_entropy(hidden, weight, labels[:-1])


def test_under_bf16_autocast_close_to_fp32():
    hidden, weight, labels = problem(torch.float32, tokens=64, width=64)
    exact = linear_cross_entropy(hidden, weight * 0.1, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = linear_cross_entropy(hidden, weight * 0.1, labels)
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, rtol=0.02, atol=0.02)  # bf16 keeps 8 bits
    for grad in grads(rounded, hidden, weight):
        assert grad.isfinite().all() and grad.dtype == torch.float32


def test_kl_estimators_against_the_exact_kl():
    """Expectations under the policy, computed over the whole vocabulary: k1 and k3 are unbiased, k2 is not."""
    policy = torch.log_softmax(torch.tensor([0.3, -1.2, 2.0, 0.1], dtype=torch.float64), 0)
    reference = torch.log_softmax(torch.tensor([1.0, 0.4, 0.2, -0.5], dtype=torch.float64), 0)
    exact = float((policy.exp() * (policy - reference)).sum())
    k1, k2, k3 = (float((policy.exp() * k).sum()) for k in kl_estimates(policy, reference))
    assert math.isclose(k1, exact, rel_tol=1e-12) and math.isclose(k3, exact, rel_tol=1e-12)
    assert not math.isclose(k2, exact, rel_tol=1e-3)
    assert (kl_estimates(policy, reference)[2] >= 0).all() and (kl_estimates(policy, reference)[0] < 0).any()
