"""Products in 8 bits: near the exact ones, exactly those of the rounded factors, and refused where they cannot be."""

import pytest
import torch

from fromnoise.model import fp8
from fromnoise.model.compiled import autocast
from tests.model.shapes import config, random_ids, random_model


def pair(seed=0, rows=64, inputs=48, outputs=32):
    generator = torch.Generator().manual_seed(seed)
    x, w, grad = (torch.randn(n, m, generator=generator) for n, m in ((rows, inputs), (outputs, inputs), (rows, outputs)))
    return (100 * x).bfloat16().requires_grad_(), (0.001 * w).requires_grad_(), grad.bfloat16()


def relative(found, expected):
    return float((found.detach().double() - expected.detach().double()).norm() / expected.detach().double().norm())


def test_values_and_gradients_are_near_the_exact_ones_at_any_scale():
    x, w, grad = pair()
    y = fp8.linear(x, w)
    y.backward(grad)
    assert y.dtype == torch.bfloat16 and x.grad.dtype == torch.bfloat16 and w.grad.dtype == torch.float32
    exact = [v.detach().double() for v in (x, w, grad)]
    for found, expected in ((y, exact[0] @ exact[1].T), (x.grad, exact[2] @ exact[1]), (w.grad, exact[2].T @ exact[0])):
        assert 1e-3 < relative(found, expected) < 0.08  # 8 bits: not better than 3 of mantissa, not much worse


def test_they_are_the_products_of_the_rounded_factors():
    x, w, _ = pair()
    (x8, x_scale), (w8, w_scale) = fp8.scaled(x.detach(), fp8.VALUES), fp8.scaled(w.detach(), fp8.VALUES)
    assert float(x8.float().abs().max()) == torch.finfo(fp8.VALUES).max
    expected = (x8.double() * x_scale.double()) @ (w8.double() * w_scale.double()).T
    assert relative(fp8.linear(x, w), expected) < 5e-3  # bf16's rounding


def test_a_tensor_of_zeros_stays_one():
    x, w, _ = pair()
    assert not fp8.linear(torch.zeros_like(x), w).any()


def test_only_training_rounds_and_it_moves_every_weight_nearly_as_exact_products_do():
    ids, model = random_ids(2, 32), random_model()
    gradients = []
    for rounds in (False, True):
        model.fp8 = rounds
        model.zero_grad()
        with autocast(torch.bfloat16):
            with torch.no_grad():
                gradients.append([model(ids).float()])
            model(ids).float().square().mean().backward()
        gradients[-1] += [parameter.grad.clone() for parameter in model.parameters()]
    assert torch.equal(gradients[0][0], gradients[1][0])  # without gradients, as ever
    assert all(0 < relative(found, expected) < 0.3 for expected, found in zip(gradients[0][1:], gradients[1][1:], strict=True))


@pytest.mark.parametrize(("changes", "tokens", "dtype", "why"), [
    ({}, 64, torch.float32, "dtype=bfloat16"), ({"ffn_width": 100}, 64, torch.bfloat16, "ffn_width 100"), ({}, 65, torch.bfloat16, "tokens 65"),
])  # fmt: skip
def test_where_it_cannot_be_the_reason_is_given(changes, tokens, dtype, why):
    assert why in fp8.problem(config(**changes), tokens, torch.device("cpu"), dtype)
    assert fp8.problem(config(), 64, torch.device("cpu"), torch.bfloat16) is None
