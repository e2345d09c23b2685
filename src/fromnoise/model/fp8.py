"""Matrix products in 8 bits (Micikevicius et al. 2022, arXiv:2209.05433), for cards that do them at twice the rate of 16.

Values and weights are rounded to e4m3, gradients to e5m2, which has the larger range; each tensor is first scaled by one
number, its own largest entry's, so that it fills the format. Sums are in fp32, results in bf16. Scaling costs a pass over each
tensor, so narrow models gain nothing: docs/lab-notebook.md has the widths that were measured. A CPU computes the same, slowly.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fromnoise.model.config import ModelConfig

VALUES, GRADIENTS = torch.float8_e4m3fn, torch.float8_e5m2


def problem(config: ModelConfig, num_tokens: int, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why a model cannot train in 8 bits here, on micro-batches of `num_tokens`; None where it can."""
    if dtype != torch.bfloat16:
        return f"it goes with dtype=bfloat16, and matrix products run in {str(dtype).removeprefix('torch.')} here"
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 9):
        return f"{torch.cuda.get_device_name(device)} has no such products (cards of compute capability 8.9 and later have)"
    query, key_value = config.num_heads * config.head_size, config.num_kv_heads * config.head_size
    sizes = {"width": config.width, "ffn_width": config.ffn_width, "heads x head_size": query,
             "(heads + 2 kv heads) x head_size": query + 2 * key_value, "tokens": num_tokens}  # fmt: skip
    return next((f"{name} {size} is not a multiple of 16" for name, size in sizes.items() if size % 16), None)


def scaled(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(x / scale rounded to dtype, scale): 0-d fp32, the largest entry becoming the largest number of the format."""
    largest = torch.finfo(dtype).max
    scale = (x.abs().amax().float() / largest).clamp(min=torch.finfo(torch.float32).tiny)
    return (x.float() / scale).clamp(-largest, largest).to(dtype), scale


def product(a: Tensor, b: Tensor, a_scale: Tensor, b_scale: Tensor, fast: bool) -> Tensor:
    """a (N, K) by rows, b (K, M) by columns -> (N, M) in bf16. fast: partial sums of fewer bits, good enough for forward passes."""
    return torch._scaled_mm(a, b, scale_a=a_scale, scale_b=b_scale, out_dtype=torch.bfloat16, use_fast_accum=fast)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:
        x8, x_scale = scaled(x.reshape(-1, x.shape[-1]), VALUES)
        w8, w_scale = scaled(weight, VALUES)
        ctx.save_for_backward(x8, x_scale, w8, w_scale)
        ctx.dtypes = x.dtype, weight.dtype
        return product(x8, w8.t(), x_scale, w_scale, fast=True).reshape(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:
        x8, x_scale, w8, w_scale = ctx.saved_tensors
        g8, g_scale = scaled(grad.reshape(-1, grad.shape[-1]), GRADIENTS)
        # the products want their second factor by columns, and the first of the second product by rows: two transposed copies
        dx = product(g8, w8.t().contiguous().t(), g_scale, w_scale, fast=False)
        dw = product(g8.t().contiguous(), x8.t().contiguous().t(), g_scale, x_scale, fast=False)
        return dx.reshape(*grad.shape[:-1], -1).to(ctx.dtypes[0]), dw.to(ctx.dtypes[1])


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x (..., K), weight (M, K) -> x @ weight^T (..., M) in bf16. K, M and the number of rows must be multiples of 16."""
    return _Linear.apply(x, weight)
