"""attention.cpp against attention written out in float64; its laws, to the bit; and the model with and without it."""

import pytest
import torch

from fromnoise.algorithms.masking import PREFIX_SHIFT
from fromnoise.model import segment_attention as native
from fromnoise.model.attention import attend, may_attend, plan_attention
from fromnoise.model.compiled import autocast, compile_blocks
from fromnoise.model.segment_attention import segment_attention
from fromnoise.run.native import attention
from tests.model.shapes import random_ids, random_model

P = 1 << PREFIX_SHIFT
# rows, heads, heads of keys, head size, and the segments of every row as (id, tokens)
CASES = {
    "short and long": (2, 3, 3, 64, ((1, 9), (2, 70), (3, 1), (4, 20))),
    "grouped": (2, 4, 2, 32, ((1, 130), (2, 64), (3, 3))),
    "one segment, large heads": (1, 2, 1, 128, ((0, 300),)),
    "a shared prefix": (3, 3, 3, 64, ((1, 40), (P + 2, 30), (P + 3, 25), (4, 33), (5, 7), (5 * P + 6, 70), (0, 12))),
    "one token": (1, 1, 1, 64, ((1, 1),)),
}


@pytest.fixture(autouse=True)
def library(monkeypatch):
    if attention() is None:
        pytest.skip("needs a C++ compiler and a processor with AVX-512 BF16")
    monkeypatch.setattr(native, "library", attention())


def inputs(case, seed=0):
    """(q, k, v), segment ids and a gradient of what is mixed."""
    rows, heads, kv_heads, size, segments = CASES[case]
    generator = torch.Generator().manual_seed(seed)
    length = sum(count for _, count in segments)
    ids = torch.cat([torch.full((count,), name) for name, count in segments]).expand(rows, -1)
    q, k, v, grad = (torch.randn(rows, length, h, size, generator=generator).bfloat16() for h in (heads, kv_heads, kv_heads, heads))
    return [x.requires_grad_() for x in (q, k, v)], ids, grad


def written_out(q, k, v, ids, mask=None):
    mask = may_attend(ids).tril() if mask is None else mask
    k, v = (x.repeat_interleave(q.shape[2] // x.shape[2], dim=2) for x in (k, v))
    scores = torch.einsum("bthk,bshk->bhts", q, k) * q.shape[-1] ** -0.5
    return torch.einsum("bhts,bshk->bthk", scores.masked_fill(~mask.unsqueeze(1), -torch.inf).softmax(-1), v)


def distance(found, expected):
    return float((found.double() - expected).norm() / expected.norm())


def results(xs, ids, grad):
    for x in xs:
        x.grad = None
    mixed = segment_attention(*xs, ids)[0]
    mixed.backward(grad)
    return [mixed.detach(), *(x.grad.clone() for x in xs)]


@pytest.mark.parametrize("case", CASES)
def test_it_is_attention_and_its_gradients(case):
    xs, ids, grad = inputs(case)
    wide = [x.detach().double().requires_grad_() for x in xs]

    def expected(mask=None):
        for x in wide:
            x.grad = None
        mixed = written_out(*wide, ids, mask)
        mixed.backward(grad.double())
        return [mixed.detach(), *(x.grad for x in wide)]

    found = results(xs, ids, grad)
    assert all(distance(*pair) < 2**-7 for pair in zip(found, expected(), strict=True) if pair[1].norm() > 0)
    if ids.shape[1] > 1:  # broken twins: one that looks ahead, one that sees other documents
        for mask in (may_attend(ids), torch.ones_like(may_attend(ids)).tril()):
            if not torch.equal(mask, may_attend(ids).tril()):
                assert distance(found[0], expected(mask)[0]) > 0.1


@pytest.mark.parametrize("case", ["short and long", "a shared prefix"])
def test_neither_threads_nor_what_else_is_there_change_a_bit(case):
    xs, ids, grad = inputs(case)
    found, threads = results(xs, ids, grad), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = results(xs, ids, grad)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(*pair) for pair in zip(found, alone, strict=True))
    with torch.no_grad():
        apart = [x[1:, :9].contiguous() for x in xs]  # the first segment's beginning by itself
    assert torch.equal(segment_attention(*apart, ids[1:, :9])[0], found[0][1:, :9])
    for x in xs:
        x.data[:, 9:] += 1  # what comes later is not seen
    assert torch.equal(segment_attention(*xs, ids)[0][:, :9], found[0][:, :9])


def test_an_answer_behind_a_shared_prompt_is_what_it_is_behind_its_own():
    generator = torch.Generator().manual_seed(3)
    x = [torch.randn(1, 40, 2, 64, generator=generator).bfloat16() for _ in range(3)]  # 20 of the prompt, 12 and 8 of two answers
    shared = torch.cat([torch.full((count,), name) for name, count in ((1, 20), (P + 2, 12), (P + 3, 8))])[None]
    second = [torch.cat((y[:, :20], y[:, 32:]), dim=1) for y in x]
    torch.testing.assert_close(segment_attention(*x, shared)[0][:, 32:], segment_attention(*second, torch.ones(1, 28).long())[0][:, 20:])


def test_views_are_taken_as_they_are():
    qkv = torch.randn(2, 50, 6, 64, generator=torch.Generator().manual_seed(1)).bfloat16()
    views, ids = qkv.split(2, dim=2), torch.arange(50).div(20, rounding_mode="floor").expand(2, -1)
    assert torch.equal(segment_attention(*views, ids)[0], segment_attention(*(x.contiguous() for x in views), ids)[0])
    turned = [x.transpose(1, 3).contiguous().transpose(1, 3) for x in views]  # a head's elements far apart
    assert torch.equal(segment_attention(*turned, ids)[0], segment_attention(*views, ids)[0])


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_model_with_it_is_the_model_without(monkeypatch, compiled):
    model = random_model(head_size=32)
    ids = random_ids(2, 90)
    segments = torch.arange(90).div(37, rounding_mode="floor").expand(2, -1)
    assert plan_attention(segments, 90, ids.device, torch.bfloat16, 32).segments is segments
    if compiled:
        compile_blocks(model)

    def run():
        model.zero_grad()
        with autocast(torch.bfloat16):
            hidden = model(ids, segment_ids=segments)
        hidden.float().square().sum().backward()
        return [hidden.detach(), *(p.grad.clone() for p in model.parameters())]

    found = run()
    monkeypatch.setattr(native, "library", None)
    for one, other in zip(found, run(), strict=True):
        assert distance(one, other.double()) < 0.03
    plan = plan_attention(segments, 90, ids.device, torch.bfloat16, 32)
    assert plan.segments is None


def test_where_it_does_not_fit_attention_is_as_before():
    for dtype, size in ((torch.float32, 64), (torch.bfloat16, 48), (torch.bfloat16, 288)):
        assert plan_attention(None, 16, torch.device("cpu"), dtype, size).segments is None
    plan = plan_attention(None, 16, torch.device("cpu"), torch.bfloat16, 64)
    x = torch.randn(3, 16, 2, 64).bfloat16()
    assert distance(attend(x, x, x, plan), written_out(x, x, x, torch.zeros(3, 16).long()).double()) < 0.02
