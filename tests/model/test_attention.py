"""Laws of attention: nothing from the future, nothing from other documents, padding changes nothing. Each check is also
run on a broken model, which must fail it."""

import pytest
import torch

from fromnoise.algorithms.masking import PREFIX_SHIFT
from fromnoise.model import attention
from fromnoise.model.attention import AttentionPlan, attend, may_attend, plan_attention, segment_bounds
from tests.model.shapes import random_ids, random_model

SEGMENTS = [[9, 30, 1, 24], [64], [20, 44]]  # lengths in each of three rows of 64


def packed_row_ids():
    segment_ids = torch.stack([torch.repeat_interleave(torch.arange(1, len(row) + 1), torch.tensor(row)) for row in SEGMENTS])
    position_ids = torch.stack([torch.cat([torch.arange(n) for n in row]) for row in SEGMENTS])
    return segment_ids, position_ids


@torch.no_grad()
def check_causal(model):
    ids = random_ids(2, 70)
    other = ids.clone()
    other[:, 50:] = random_ids(2, 20, seed=9)
    torch.testing.assert_close(model(ids)[:, :50], model(other)[:, :50], rtol=0, atol=1e-6)
    assert (model(ids)[:, 50:] - model(other)[:, 50:]).abs().min() > 0


@torch.no_grad()
def check_packed_equals_separate(model):
    segment_ids, position_ids = packed_row_ids()
    ids = random_ids(3, 64)
    packed = model(ids, position_ids, segment_ids)
    for row, lengths in enumerate(SEGMENTS):
        for own, alone in zip(packed[row].split(lengths), ids[row].split(lengths), strict=True):
            torch.testing.assert_close(own, model(alone[None])[0], rtol=1e-5, atol=2e-5)


@torch.no_grad()
def check_padding_changes_nothing(model):
    """Behind the tokens, before them (where a causal mask alone would let them see it), and a row of padding alone."""
    ids, real = random_ids(1, 30), model(random_ids(1, 30))
    padding, places = torch.zeros(1, 34, dtype=torch.long), torch.arange(64)
    padded = torch.cat((torch.cat((ids, padding), 1), torch.cat((padding, ids), 1), torch.zeros(1, 64, dtype=torch.long)))
    segment_ids = torch.stack((places < 30, places >= 34, places < 0)).long()
    found = model(padded, torch.stack((places, (places - 34).clamp(min=0), places)), segment_ids)
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found[:1, :30], real, rtol=1e-5, atol=2e-5)
    torch.testing.assert_close(found[1:2, 34:], real, rtol=1e-5, atol=2e-5)


CHECKS = [check_causal, check_packed_equals_separate, check_padding_changes_nothing]
FORMS = {"plain": (512, 2048), "mask": (0, 2048), "spans": (0, 0)}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("check", CHECKS)
def test_laws_hold_in_every_form(monkeypatch, check, form):
    plain, masked = FORMS[form]
    monkeypatch.setattr(attention, "PLAIN_LIMIT_TOKENS", plain)
    monkeypatch.setattr(attention, "MASK_LIMIT_TOKENS", masked)
    check(random_model())
    check(random_model(qk_norm=False, num_kv_heads=4))


def leaking_plan(segment_ids, length, device, dtype, head_size):
    """Sees the next token: the mask of an off-by-one."""
    mask = torch.ones(length, length, dtype=torch.bool).tril(1)
    if segment_ids is not None:
        mask = mask & (segment_ids.unsqueeze(2) == segment_ids.unsqueeze(1))
    mask = mask.view(-1, 1, length, length)
    return AttentionPlan(bias=torch.zeros(mask.shape, dtype=torch.bfloat16).masked_fill_(~mask, attention.MINUS_LARGE))


def padding_sees_nothing_plan(segment_ids, length, device, dtype, head_size):
    """Hides padding from itself, too: a softmax over nothing."""
    mask = torch.ones(length, length, dtype=torch.bool).tril()
    if segment_ids is not None:
        mask = mask & (segment_ids.unsqueeze(2) == segment_ids.unsqueeze(1)) & (segment_ids > 0).unsqueeze(1)
    mask = mask.view(-1, 1, length, length)
    return AttentionPlan(bias=torch.zeros(mask.shape, dtype=torch.bfloat16).masked_fill_(~mask, -torch.inf))


def document_blind_plan(segment_ids, length, device, dtype, head_size):
    """Lets padding be seen, too."""
    return plan_attention(None, length, device, dtype, head_size)


TWINS = [
    (check_causal, leaking_plan),
    (check_packed_equals_separate, document_blind_plan),
    (check_padding_changes_nothing, document_blind_plan),
    (check_padding_changes_nothing, padding_sees_nothing_plan),
]


@pytest.mark.parametrize(("check", "broken"), TWINS)
def test_broken_twins_are_caught(monkeypatch, check, broken):
    assert {one for one, _ in TWINS} == set(CHECKS)
    monkeypatch.setattr("fromnoise.model.transformer.plan_attention", broken)
    with pytest.raises(AssertionError):
        check(random_model())


def forms(length=80, heads=4, kv_heads=2):
    generator = torch.Generator().manual_seed(3)
    q, k, v = (torch.randn(2, length, h, 16, generator=generator, dtype=torch.float64).requires_grad_() for h in (heads, kv_heads, kv_heads))
    segment_ids = torch.randint(1, 5, (2, length), generator=generator).sort(1).values
    mask = torch.ones(length, length, dtype=torch.bool).tril() & (segment_ids.unsqueeze(2) == segment_ids.unsqueeze(1))
    return (q, k, v), segment_ids, mask.unsqueeze(1)


def test_the_compiled_form_and_its_gradients_equal_autograd():
    """`_PlainAttention` has hand-written gradients; the reference is the softmax of one (T, T) matrix, in float64."""
    (q, k, v), segment_ids, mask = forms(kv_heads=4)
    bias = plan_attention(segment_ids, q.shape[1], q.device).bias
    q, k, v = (x.detach().transpose(1, 2).requires_grad_() for x in (q, k, v))

    def reference(q, k, v):
        return ((q @ k.mT) / 4).masked_fill(~mask, -torch.inf).softmax(-1) @ v

    weight = torch.randn(q.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    found, expected = attention._PlainAttention.apply(q, k, v, bias), reference(q, k, v)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)  # the softmax is in fp32
    for a, b in zip(torch.autograd.grad((found * weight).sum(), (q, k, v)), torch.autograd.grad((expected * weight).sum(), (q, k, v)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_all_forms_agree():
    (q, k, v), segment_ids, mask = forms()
    bias = torch.zeros(mask.shape, dtype=torch.bfloat16).masked_fill(~mask, attention.MINUS_LARGE)
    spans = []
    for row in range(2):
        counts = torch.unique_consecutive(segment_ids[row], return_counts=True)[1].tolist()
        spans += [(row, sum(counts[:i]), sum(counts[: i + 1])) for i in range(len(counts))]
    results = [attend(q, k, v, plan) for plan in (AttentionPlan(bias=bias), AttentionPlan(mask=mask), AttentionPlan(spans=tuple(spans)))]
    torch.testing.assert_close(results[0], results[1], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(results[1], results[2], rtol=1e-6, atol=1e-6)


def test_a_shared_prefix_is_seen_by_those_who_name_it_and_needs_a_mask():
    p = 1 << PREFIX_SHIFT
    seen = may_attend(torch.tensor([[1, 1, p + 2, p + 3, 4, 0]]))[0]
    expected = [[0, 1], [0, 1], [0, 1, 2], [0, 1, 3], [4], [5]]
    assert [row.nonzero().flatten().tolist() for row in seen] == expected
    with pytest.raises(ValueError, match=r"share a prefix need a mask, and a row of 2049 tokens has none \(at most 2048\)"):
        plan_attention(torch.full((1, 2049), p + 2), 2049, torch.device("cpu"))


def test_bounds_of_segments_are_those_of_all_rows_and_padded_by_empty_ones():
    segment_ids, _ = packed_row_ids()
    bounds = segment_bounds(segment_ids)
    assert bounds.dtype == torch.int32 and len(bounds) == attention.MIN_SEGMENTS + 1
    assert bounds[:8].tolist() == [0, 9, 39, 40, 64, 128, 148, 192] and bounds[8:].unique().tolist() == [192]
    assert segment_bounds(torch.ones(2, 64)).tolist()[:3] == [0, 64, 128]  # equal ids at a row's end and the next one's begin are two
    alone = segment_bounds(torch.arange(96).expand(3, -1))
    assert alone[:289].tolist() == list(range(289)) and len(alone) == 512 + 1
    assert len(segment_bounds(torch.ones(64, 1024))) == 1024 + 1  # a 64th of the tokens: most batches of a shape have the number in common


def test_rows_of_spans_leave_compiled_code_alone(monkeypatch):
    """Spans are plain numbers, other ones in every batch: code would be compiled for each until the compiler refused."""
    model, ids = random_model(), random_ids(3, 64)
    expected = model(ids, None, packed_row_ids()[0])

    def compiled(*_):
        raise AssertionError("compiled code was asked")

    model.block_forward = compiled
    with pytest.raises(AssertionError, match="compiled"):
        model(ids, None, packed_row_ids()[0])
    monkeypatch.setattr(attention, "PLAIN_LIMIT_TOKENS", 0)
    monkeypatch.setattr(attention, "MASK_LIMIT_TOKENS", 0)
    torch.testing.assert_close(model(ids, None, packed_row_ids()[0]), expected, rtol=1e-4, atol=1e-4)
