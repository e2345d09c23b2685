"""The transformer, one code for training, evaluation and (through `generate/`) sampling.

Shape: RMSNorm before each half of a block, rotary positions, QK-norm, grouped-query attention, SwiGLU, no biases
(Qwen3; Llama when QK-norm is off). Parameters carry Hugging Face's names without their `model.` prefix.

Precision. Weights are what they were loaded as (fp32 masters when training). Under `torch.autocast` matrix products
and attention run in autocast's dtype, while the residual stream, the norms, the rotation and the softmax stay in
fp32. The casts are written out below rather than left to autocast: it would also cast element by element between the
products, and its per-op dispatch is a cost at small sizes.

The block is a pure function of tensors (`block_forward`), not a method: compiled once, its code serves all layers of
all models of the same shape in the process (policy, critic, reference, reward).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fromnoise.model.attention import AttentionPlan, attend, plan_attention
from fromnoise.model.config import ModelConfig
from fromnoise.model.fp8 import linear as fp8_linear


class Matrix(nn.Module):
    """A weight and nothing else. Zero until `initialize.initialize` or a checkpoint fills it, so that building a
    model draws no random numbers."""

    def __init__(self, *shape: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(shape))


class SelfAttention(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.q_proj = Matrix(config.num_heads * config.head_size, config.width)
        self.k_proj = Matrix(config.num_kv_heads * config.head_size, config.width)
        self.v_proj = Matrix(config.num_kv_heads * config.head_size, config.width)
        self.o_proj = Matrix(config.width, config.num_heads * config.head_size)
        if config.qk_norm:
            self.q_norm = Matrix(config.head_size)
            self.k_norm = Matrix(config.head_size)


class FeedForward(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.gate_proj = Matrix(config.ffn_width, config.width)
        self.up_proj = Matrix(config.ffn_width, config.width)
        self.down_proj = Matrix(config.width, config.ffn_width)


class BlockWeights(NamedTuple):
    attention_norm: Tensor  # (D,)
    q: Tensor  # (H * K, D)
    k: Tensor  # (H_kv * K, D)
    v: Tensor  # (H_kv * K, D)
    q_norm: Tensor | None  # (K,)
    k_norm: Tensor | None
    o: Tensor  # (D, H * K)
    ffn_norm: Tensor  # (D,)
    gate: Tensor  # (F, D)
    up: Tensor  # (F, D)
    down: Tensor  # (D, F)


class Block(nn.Module):
    """Holds one layer's parameters under Hugging Face's names; `block_forward` computes."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.input_layernorm = Matrix(config.width)
        self.self_attn = SelfAttention(config)
        self.post_attention_layernorm = Matrix(config.width)
        self.mlp = FeedForward(config)

    def weights(self) -> BlockWeights:
        """The parameters; without gradient mode detached from them, so that frozen and trainable models, which differ in
        `requires_grad` only, share one compiled forward pass."""
        attention, ffn = self.self_attn, self.mlp
        has_qk_norm = hasattr(attention, "q_norm")
        weights = BlockWeights(
            attention_norm=self.input_layernorm.weight,
            q=attention.q_proj.weight,
            k=attention.k_proj.weight,
            v=attention.v_proj.weight,
            q_norm=attention.q_norm.weight if has_qk_norm else None,
            k_norm=attention.k_norm.weight if has_qk_norm else None,
            o=attention.o_proj.weight,
            ffn_norm=self.post_attention_layernorm.weight,
            gate=ffn.gate_proj.weight,
            up=ffn.up_proj.weight,
            down=ffn.down_proj.weight,
        )
        if torch.is_grad_enabled():
            return weights
        return BlockWeights(*(weight if weight is None else weight.detach() for weight in weights))


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last axis, in fp32 (Zhang & Sennrich 2019, arXiv:1910.07467)."""
    x = x.float()
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight.float()


def swap_halves(x: Tensor) -> Tensor:
    """(a, b) -> (b, a) for the halves of the last axis."""
    if torch.compiler.is_compiling():
        # The flip of an axis of length 2 compiles to plain indexing; a roll, or cutting and joining, to masked loads
        # that take three times as long. Eager, the roll is the fastest.
        return x.unflatten(-1, (2, -1)).flip(-2).flatten(-2)
    return x.roll(x.shape[-1] // 2, -1)


class _NormRotate(torch.autograd.Function):
    """QK-norm, then rotary positions (Su et al. 2021, arXiv:2104.09864), the halves of a head being the pairs' coordinates.

    y = R(w x r) with r = 1 / rms(x) and R the rotation. The gradient is written out to save passes over the queries
    and keys: with d = R^T(dy) w, dx = r (d - x r mean(d x r)), and as R is orthogonal, mean(d x r) = mean(dy y).
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, eps: float) -> Tensor:
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
        normed = wide * scale * weight
        y = (normed * cos + swap_halves(normed) * sin).to(x.dtype)
        ctx.save_for_backward(x, y, scale, weight, cos, sin)
        return y

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, y, scale, weight, cos, sin = ctx.saved_tensors
        grad = grad.float()
        mean = (grad * y.float()).mean(-1, keepdim=True)
        unrotated = grad * cos - swap_halves(grad) * sin
        normed = x.float() * scale
        dx = scale * (unrotated * weight - normed * mean)
        dw = (unrotated * normed).sum(dim=(0, 1, 2))
        return dx.to(x.dtype), dw.to(weight.dtype), None, None, None


def norm_rotate(x: Tensor, weight: Tensor | None, cos: Tensor, sin: Tensor, eps: float) -> Tensor:
    """Queries or keys x (B, T, H, K), normalised where there is a weight (K,), and rotated; cos, sin from `rope_angles`."""
    if weight is not None:
        return _NormRotate.apply(x, weight, cos, sin, eps)
    wide = x.float()
    return (wide * cos + swap_halves(wide) * sin).to(x.dtype)


def rope_angles(positions: Tensor, head_size: int, theta: float) -> tuple[Tensor, Tensor]:
    """Of integer positions (...), cos and signed sin (..., 1, K) in fp32; the first half of sin is negative."""
    # The exponent is computed as Hugging Face does, float32 throughout: at 4,096 positions a different rounding of
    # the frequencies would already show in the fifth digit of the logits.
    exponents = torch.arange(0, head_size, 2, device=positions.device).float() / head_size
    angles = (positions.float().unsqueeze(-1) * (1.0 / theta**exponents)).unsqueeze(-2)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)


def block_forward(
    x: Tensor, cos: Tensor, sin: Tensor, plan: AttentionPlan, weights: BlockWeights, head_size: int, eps: float, dtype: torch.dtype, fp8: bool = False
) -> Tensor:
    """One layer. x (B, T, D) in fp32 (or the weights' dtype outside autocast); matrix products in `dtype`, with the weights in 8 bits
    if `fp8`."""
    rows, positions, _ = x.shape
    w = weights

    def linear(h: Tensor, weight: Tensor) -> Tensor:
        return fp8_linear(h, weight) if fp8 else F.linear(h, weight.to(dtype))

    h = rms_norm(x, w.attention_norm, eps).to(dtype)
    # One product for the three projections: at these widths a product of 192 columns runs at half the rate of one of 576.
    qkv = linear(h, torch.cat((w.q, w.k, w.v))).view(rows, positions, -1, head_size)
    num_kv_heads = w.k.shape[0] // head_size
    q, k, v = qkv.split((w.q.shape[0] // head_size, num_kv_heads, num_kv_heads), dim=2)
    q, k = norm_rotate(q, w.q_norm, cos, sin, eps), norm_rotate(k, w.k_norm, cos, sin, eps)
    mixed = attend(q, k, v, plan)
    x = x + linear(mixed.reshape(rows, positions, -1), w.o)
    h = rms_norm(x, w.ffn_norm, eps).to(dtype)
    gate, up = linear(h, torch.cat((w.gate, w.up))).chunk(2, dim=-1)
    return x + linear(F.silu(gate) * up, w.down)


def compute_dtype(weight: Tensor) -> torch.dtype:
    """The dtype of matrix products: autocast's where it is on, else the weights' own."""
    device = weight.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype


class Transformer(nn.Module):
    """Token ids to hidden states; `logits` turns those into scores of the next token.

    Losses should not call `logits` on a whole batch: `algorithms.logprobs` works from the hidden states and
    `head_weight` in chunks, so that (B, T, V) never exists.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.embed_tokens = Matrix(config.vocab_size, config.width)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = Matrix(config.width)
        if not config.tie_embeddings:
            self.lm_head = Matrix(config.vocab_size, config.width)
        self.block_forward = block_forward  # replaced by `compiled.compile_blocks`
        self.fp8 = False  # whether training may round the blocks' products to 8 bits (fp8.py); without gradients nothing is

    @property
    def head_weight(self) -> Tensor:
        """(V, D): the output head; the embedding itself when tied."""
        return self.embed_tokens.weight if self.config.tie_embeddings else self.lm_head.weight

    def forward(self, input_ids: Tensor, position_ids: Tensor | None = None, segment_ids: Tensor | None = None) -> Tensor:
        """input_ids (B, T) -> hidden states (B, T, D) after the final norm, in the compute dtype.

        segment_ids (B, T): a token attends to earlier tokens of its own segment only; equal neighbours form a
        segment. None: each row is one sequence. position_ids default to 0, 1, ... in each row, and must be given
        with segment_ids if positions are to restart. Rotary positions are relative, so what matters to the result
        is their differences inside a segment.
        """
        config = self.config
        rows, length = input_ids.shape
        if position_ids is None:
            position_ids = torch.arange(length, device=input_ids.device).expand(rows, length)
        dtype = compute_dtype(self.norm.weight)
        fp8 = self.fp8 and torch.is_grad_enabled() and dtype == torch.bfloat16
        with torch.autocast(input_ids.device.type, enabled=False):
            cos, sin = rope_angles(position_ids, config.head_size, config.rope_theta)
            plan = plan_attention(segment_ids, length, input_ids.device, dtype, config.head_size)
            # Spans are numbers of this batch alone, for which code would be compiled anew each time.
            block = self.block_forward if plan.spans is None else block_forward
            x = F.embedding(input_ids, self.embed_tokens.weight)
            for layer in self.layers:
                x = block(x, cos, sin, plan, layer.weights(), config.head_size, config.rms_norm_eps, dtype, fp8)
            return rms_norm(x, self.norm.weight, config.rms_norm_eps).to(dtype)

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden (..., D) -> (..., V) in fp32."""
        dtype = hidden.dtype
        with torch.autocast(hidden.device.type, enabled=False):
            return F.linear(hidden, self.head_weight.to(dtype)).float()
