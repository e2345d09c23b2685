"""Attention inside segments on a CPU: attention.cpp as an operator that autograd and the compiler know.

Rows of 256 tokens hold four conversations, and rows as a whole cost four times what their segments do (attention.py). The
compiler sees one call with tensors in and out, forward and backward, and makes no kernels of its own for attention.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from fromnoise.algorithms.masking import PREFIX_SHIFT

SIZE_MULTIPLE, LARGEST_HEAD = 32, 256  # as in attention.cpp: a head's elements are taken by 32

library: ctypes.CDLL | None = None  # set by run/machine.py: attention.cpp, where it could be built and bf16 is used


def takes(device: torch.device, dtype: torch.dtype, head_size: int) -> bool:
    """Whether queries, keys and values of this kind can be given to `segment_attention` here."""
    return library is not None and device.type == "cpu" and dtype == torch.bfloat16 and head_size % SIZE_MULTIPLE == 0 and head_size <= LARGEST_HEAD


@torch.library.custom_op("fromnoise::segment_attention", mutates_args=())
def segment_attention(q: Tensor, k: Tensor, v: Tensor, segment_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Causal attention of each token to its own segment and the one that its id names (attention.plan_attention).

    q (B, T, H, K), k and v (B, T, H_kv, K) in bf16, segment_ids (B, T) int64 -> what is mixed, (B, T, H, K) in bf16, and log2
    of the softmax's sums, (B, H, T) in fp32.
    """
    mixed = torch.empty(q.shape, dtype=q.dtype)
    sums = torch.empty((q.shape[0], q.shape[2], q.shape[1]), dtype=torch.float32)
    _call("attention_forward", (q, k, v, mixed), sums, segment_ids)
    return mixed, sums


@segment_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, segment_ids: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty(q.shape, dtype=q.dtype, device=q.device), q.new_empty((q.shape[0], q.shape[2], q.shape[1]), dtype=torch.float32)


@torch.library.custom_op("fromnoise::segment_attention_backward", mutates_args=())
def segment_attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, mixed: Tensor, sums: Tensor, segment_ids: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of q, k and v from that of what was mixed."""
    dq, dk, dv = (torch.empty(x.shape, dtype=x.dtype) for x in (q, k, v))
    _call("attention_backward", (q, k, v, mixed, grad, dq, dk, dv), sums, segment_ids)
    return dq, dk, dv


@segment_attention_backward.register_fake
def _(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, mixed: Tensor, sums: Tensor, segment_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return tuple(torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))


def _keep(ctx, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)


def _backward(ctx, grad: Tensor, _: Tensor | None) -> tuple[Tensor, Tensor, Tensor, None]:
    q, k, v, segment_ids, mixed, sums = ctx.saved_tensors
    return *segment_attention_backward(grad, q, k, v, mixed, sums, segment_ids), None


segment_attention.register_autograd(_backward, setup_context=_keep)


def _call(name: str, tensors: tuple[Tensor, ...], sums: Tensor, segment_ids: Tensor) -> None:
    tensors = tuple(x if x.stride(-1) == 1 else x.contiguous() for x in tensors)
    segment_ids = segment_ids.contiguous()
    q, k = tensors[:2]
    strides = [stride for x in tensors for stride in x.stride()[:3]]
    shape = (*q.shape[:3], k.shape[2], q.shape[3], PREFIX_SHIFT, torch.get_num_threads())
    pointers = (ctypes.c_void_p * len(tensors))(*(x.data_ptr() for x in tensors))
    getattr(library, name)(
        pointers, (ctypes.c_int64 * len(strides))(*strides), ctypes.c_void_p(segment_ids.data_ptr()), ctypes.c_void_p(sums.data_ptr()),
        (ctypes.c_int64 * len(shape))(*shape),
    )  # fmt: skip
