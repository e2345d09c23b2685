"""Causal attention inside segments, in the form that is fastest for the length and the device at hand.

Measured on 2 Zen 5 cores, 16 rows x 256 positions x 3 heads of 64, bf16, forward and backward of one layer: SDPA 17.9 ms
(its CPU kernel is no faster in bf16 than in fp32), plain products compiled 6.2 ms. So on a CPU:

- in bf16, where attention.cpp could be built: each segment by itself, at every length (segment_attention.py);
- T <= 512: plain batched products, the queries in two halves so that half of the upper triangle is never computed;
- T <= 2,048: SDPA with a mask (plain products would keep (B, H, T, T) for the backward pass);
- longer: SDPA over each segment by itself; memory grows with T, work with the squares of the segments' lengths.

On a GPU: FlashAttention over the segments' bounds, whose cost is theirs alone and which needs no mask; SDPA with a mask in float32,
which Flash does not take, and where segments share a prefix. Rows that are one segment use `is_causal` wherever SDPA is used.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fromnoise.algorithms.masking import MASK_LIMIT_TOKENS, PREFIX_SHIFT
from fromnoise.model.segment_attention import segment_attention
from fromnoise.model.segment_attention import takes as native_takes

PLAIN_LIMIT_TOKENS = 512
MIN_SEGMENTS = 64
MINUS_LARGE = -1e30  # not -inf: (-inf) - (-inf) would be NaN where a whole block of keys is hidden


class AttentionPlan(NamedTuple):
    """What all layers of one forward pass share. At most one field is set; none means plain causal rows in SDPA."""

    bias: Tensor | None = None  # (B or 1, 1, T, T) bf16: 0 where a query may attend, MINUS_LARGE elsewhere
    mask: Tensor | None = None  # (B, 1, T, T) bool, True where a query may attend
    spans: tuple[tuple[int, int, int], ...] | None = None  # (row, begin, end) of each segment
    segments: Tensor | None = None  # (B or 1, T) int64: the segment ids themselves, for `segment_attention`
    bounds: Tensor | None = None  # (S + 1,) int32: where the segments of all rows, one row after another, begin and end


def plan_attention(
    segment_ids: Tensor | None, length: int, device: torch.device, dtype: torch.dtype = torch.float32, head_size: int = 64
) -> AttentionPlan:
    """segment_ids (B, T): runs of equal values are segments, and no value returns in a row once left. Values from 2^PREFIX_SHIFT
    on name a second segment to attend to (data/packing.py). Padding is a segment like any other, so every query has a key,
    itself at least. dtype, head_size: of the queries, keys and values. Raises ValueError for second segments in rows of more than
    MASK_LIMIT_TOKENS."""
    if native_takes(device, dtype, head_size):
        return AttentionPlan(segments=torch.zeros(1, length, dtype=torch.int64) if segment_ids is None else segment_ids)
    plain = device.type == "cpu" and length <= PLAIN_LIMIT_TOKENS
    if segment_ids is None and not plain:
        return AttentionPlan()
    if flash_takes(device, dtype, head_size) and not shares_prefixes(segment_ids):
        return AttentionPlan(bounds=segment_bounds(segment_ids))
    if length <= MASK_LIMIT_TOKENS:
        mask = torch.ones(1, length, length, dtype=torch.bool, device=device).tril_()
        if segment_ids is not None:
            mask = mask & may_attend(segment_ids)
        mask = mask.unsqueeze(1)
        if not plain:
            return AttentionPlan(mask=mask)
        return AttentionPlan(bias=torch.zeros(mask.shape, dtype=torch.bfloat16, device=device).masked_fill_(~mask, MINUS_LARGE))
    if shares_prefixes(segment_ids):
        raise ValueError(f"segments that share a prefix need a mask, and a row of {length} tokens has none (at most {MASK_LIMIT_TOKENS})")
    spans = []
    for row, ids in enumerate(segment_ids):
        begin = 0
        for count in torch.unique_consecutive(ids, return_counts=True)[1].tolist():
            spans.append((row, begin, begin + count))
            begin += count
    return AttentionPlan(spans=tuple(spans))


def flash_takes(device: torch.device, dtype: torch.dtype, head_size: int) -> bool:
    """Whether FlashAttention has a kernel for these: cards from Ampere on, 16 bits, heads of whole 16-byte pieces up to 256."""
    half = dtype in (torch.bfloat16, torch.float16)
    return device.type == "cuda" and half and head_size % 8 == 0 and head_size <= 256 and torch.cuda.get_device_capability(device) >= (8, 0)


def shares_prefixes(segment_ids: Tensor) -> bool:
    """Whether some segment names a second one (on a GPU the answer waits for the device)."""
    return int(segment_ids.max()) >> PREFIX_SHIFT > 0


def segment_bounds(segment_ids: Tensor) -> Tensor:
    """segment_ids (B, T) -> (S + 1,) int32: the flat positions at which segments begin, none of them crossing a row's end, and B T.
    S is rounded up to a power of two, at least a 64th of the tokens, by empty segments at the end, which cost next to nothing: code is
    compiled anew for every other S."""
    total = segment_ids.numel()
    begins = torch.ones_like(segment_ids, dtype=torch.bool)
    begins[:, 1:] = segment_ids[:, 1:] != segment_ids[:, :-1]
    found = begins.flatten().nonzero().flatten().int()
    size = 1 << (max(MIN_SEGMENTS, total // 64, len(found)) - 1).bit_length()
    return F.pad(found, (0, size + 1 - len(found)), value=total)


def may_attend(segment_ids: Tensor) -> Tensor:
    """(B, T, T) bool, [b, query, key]: the key's segment is the query's, or the one that the query's names."""
    query, key = segment_ids.unsqueeze(2), segment_ids.unsqueeze(1)
    if segment_ids.device.type == "cpu" and not shares_prefixes(segment_ids):
        return query == key  # a second comparison would be for nothing
    prefix = query >> PREFIX_SHIFT
    return (query == key) | ((prefix == key) & (prefix > 0))


def attend(q: Tensor, k: Tensor, v: Tensor, plan: AttentionPlan) -> Tensor:
    """q (B, T, H, K), k and v (B, T, H_kv, K) -> (B, T, H, K)."""
    if plan.segments is not None:
        return segment_attention(q, k, v, plan.segments.expand(q.shape[0], -1))[0]
    grouped = q.shape[2] != k.shape[2]
    if plan.bounds is not None:
        from torch.nn.attention.varlen import varlen_attn  # brings the compiler along: a second that a CPU need not wait

        rows, length = q.shape[:2]
        if grouped:  # torch 2.11's has no switch for it yet
            k, v = (x.repeat_interleave(q.shape[2] // x.shape[2], dim=2) for x in (k, v))
        q, k, v = q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)
        return varlen_attn(q, k, v, plan.bounds, plan.bounds, length, length, window_size=(-1, 0)).unflatten(0, (rows, length))
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    if plan.bias is not None:
        if grouped:
            k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
        mixed = attend_plain(q, k, v, plan.bias)
    elif plan.spans is not None:
        rows: list[list[Tensor]] = [[] for _ in range(q.shape[0])]
        for row, begin, end in plan.spans:
            at = (slice(row, row + 1), slice(None), slice(begin, end))
            rows[row].append(F.scaled_dot_product_attention(q[at], k[at], v[at], is_causal=True, enable_gqa=grouped))
        mixed = torch.cat([torch.cat(parts, dim=2) for parts in rows])
    elif plan.mask is not None:
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=plan.mask, enable_gqa=grouped)
    else:
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
    return mixed.transpose(1, 2)


def attend_plain(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(K) + bias) v with q, k, v (B, H, T, K) and bias (B or 1, 1, T, T); sums of the softmax in fp32."""
    if torch.compiler.is_compiling():
        # Contiguous first: the transposed views that the products take of them are then free.
        return _PlainAttention.apply(q.contiguous(), k.contiguous(), v.contiguous(), bias)
    bias = bias.to(q.dtype)
    mixed = []
    for begin, end in _halves(q.shape[2]):
        scores = (q[:, :, begin:end] @ k[:, :, :end].mT).mul_(q.shape[-1] ** -0.5).add_(bias[:, :, begin:end, :end])
        mixed.append(F.softmax(scores, dim=-1) @ v[:, :, :end])
    return torch.cat(mixed, dim=2)


def _halves(length: int) -> tuple[tuple[int, int], ...]:
    """Query ranges; the queries of a range need the keys up to its end."""
    return ((0, length),) if length < 64 else ((0, length // 2), (length // 2, length))


class _PlainAttention(torch.autograd.Function):
    """The form for the compiler, which fuses what stands between the products (eager code is better off with the ready
    softmax). The gradients are written out because the derived ones are slower: dK would come out transposed, the
    halves would be joined by padding and adding, and the exponentials would be taken again.

    With e = exp(s - max s), z = sum e, o = e v / z and g = do / z: dv = e^T g, ds = e (g v^T - sum(g o)), dq = ds k,
    dk = ds^T q, both divided by sqrt(K).
    """

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        exps, sums, mixed = [], [], []
        for begin, end in _halves(q.shape[2]):
            scores = (q[:, :, begin:end] @ k[:, :, :end].mT).float() * q.shape[-1] ** -0.5 + bias[:, :, begin:end, :end]
            exp = (scores - scores.amax(-1, keepdim=True)).exp().to(q.dtype)
            total = exp.float().sum(-1, keepdim=True)
            mixed.append(((exp @ v[:, :, :end]).float() / total).to(q.dtype))
            exps.append(exp)
            sums.append(total)
        out = torch.cat(mixed, dim=2)
        ctx.save_for_backward(q, k, v, out, torch.cat(sums, dim=2), *exps)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor):
        q, k, v, out, total, *exps = ctx.saved_tensors
        g = grad.float() / total
        offset = (g * out.float()).sum(-1, keepdim=True)
        g = g.to(q.dtype)
        dq, dk, dv = [], None, None
        for (begin, end), exp in zip(reversed(_halves(q.shape[2])), reversed(exps), strict=True):
            own = slice(begin, end)
            g_own = g[:, :, own]
            ds = (exp.float() * ((g_own @ v[:, :, :end].mT).float() - offset[:, :, own]) * q.shape[-1] ** -0.5).to(q.dtype)
            dq.insert(0, ds @ k[:, :, :end])
            dk_own, dv_own = ds.mT @ q[:, :, own], exp.mT @ g_own
            if dk is None:
                dk, dv = dk_own, dv_own
            else:
                dk, dv = (torch.cat((x[:, :, :end] + x_own, x[:, :, end:]), 2) for x, x_own in ((dk, dk_own), (dv, dv_own)))
        return torch.cat(dq, dim=2), dk, dv, None
