"""The loss head's C++ part against torch, and what happens where it cannot be built."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from fromnoise.algorithms import logprobs
from fromnoise.algorithms.masking import IGNORE_INDEX
from fromnoise.run import native
from fromnoise.run.machine import Machine, apply, cxx


@pytest.fixture
def cross_entropy(monkeypatch):
    if cxx() is None:
        pytest.skip("needs a C++ compiler")
    function = native.cross_entropy()
    assert function is not None
    monkeypatch.setattr(logprobs, "native_nll_and_gradient", function)
    return function


@pytest.mark.parametrize(("vocab_size", "scale"), [(4096, 3.0), (300, 30.0), (17, 1.0), (1, 1.0), (1000, 0.0)])
def test_it_is_the_cross_entropy_and_its_gradient(cross_entropy, vocab_size, scale):
    generator = torch.Generator().manual_seed(vocab_size)
    logits = (torch.randn(64, vocab_size, generator=generator) * scale).bfloat16()
    labels = torch.randint(0, vocab_size, (64,), generator=generator)
    labels[0], labels[1] = logits[0].argmax(), logits[1].argmin()
    wide = logits.double().requires_grad_()
    expected = F.cross_entropy(wide, labels, reduction="none")
    expected.sum().backward()
    gradient, nll = logits.clone(), torch.empty(64)
    cross_entropy(gradient, labels, nll)
    torch.testing.assert_close(nll.double(), expected.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient.double(), wide.grad, rtol=2**-8, atol=1e-6)  # half a unit of bf16
    twin = logits.clone()
    cross_entropy(twin, labels.roll(1), nll)  # broken: each row with another's label
    assert vocab_size == 1 or not torch.allclose(twin.double(), wide.grad, rtol=2**-8, atol=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_does_not_look_sound(cross_entropy, bad):
    logits = torch.zeros(2, 40, dtype=torch.bfloat16)
    logits[1, 7] = bad
    nll = torch.empty(2)
    cross_entropy(logits, torch.tensor([3, 3]), nll)
    assert nll[0] == pytest.approx(math.log(40)) and not torch.isfinite(nll[1])


def test_the_head_with_it_is_the_head_without(cross_entropy, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(3, 100, 32, generator=generator), torch.randn(500, 32, generator=generator) * 0.2
    labels = torch.randint(0, 500, (3, 100), generator=generator)
    labels[:, ::7] = IGNORE_INDEX

    def results() -> list[torch.Tensor]:
        leaves = [hidden.clone().requires_grad_(), weight.clone().requires_grad_()]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            total = logprobs.linear_cross_entropy(*leaves, labels)
        total.backward()
        return [total.detach(), *(leaf.grad for leaf in leaves)]

    calls = []
    monkeypatch.setattr(logprobs, "native_nll_and_gradient", lambda *given: (calls.append(1), cross_entropy(*given)))
    taken = results()
    assert calls
    monkeypatch.setattr(logprobs, "native_nll_and_gradient", None)
    for one, other in zip(taken, results(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=2e-3)
    assert (taken[1][labels == IGNORE_INDEX] == 0).all()


def test_a_machine_without_bf16_or_compiler_does_without(monkeypatch):
    threads = torch.get_num_threads()
    monkeypatch.setattr(logprobs, "native_nll_and_gradient", None)
    apply(Machine("cpu", "float32", False, threads, 1.0))
    assert logprobs.native_nll_and_gradient is None
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(Path(__file__).parent))
    assert native.cross_entropy.__wrapped__() is None
    assert "no C++ compiler" in native.build(native.CROSS_ENTROPY)
