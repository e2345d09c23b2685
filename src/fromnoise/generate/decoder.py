"""The transformer once more, arranged for one token at a time: the same mathematics with fewer, larger operations.

Weights are copied once: query, key and value stacked, gate and up stacked, and each norm's scale multiplied into the
matrix that follows it. The cache (L, rows x H_kv, capacity, K) grows by blocks of positions; a step writes one position
of each row and attends over the capacity. Rows stand at different positions; a bias hides what a row has not reached.

Attention is plain batched products: for one query a row, SDPA's bf16 CPU kernel takes ten times as long (256
positions, 64 rows x 4 heads of 64, one thread: 5.0 against 0.5 ms).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fromnoise.model.attention import MINUS_LARGE, attend, plan_attention
from fromnoise.model.transformer import Transformer, rope_angles


class LayerWeights(NamedTuple):
    qkv: Tensor  # ((H + 2 H_kv) K, D)
    qk_scale: Tensor | None  # (H + H_kv, K) fp32: the QK-norms' scales; None without QK-norm
    o: Tensor  # (D, H K)
    gate_up: Tensor  # (2 F, D)
    down: Tensor  # (D, F)


class Decoder:
    """Weights, cache, `prefill` and `step`. Rows 0 .. num_rows - 1 of the cache are whoever calls it says they are."""

    def __init__(self, model: Transformer, dtype: torch.dtype):
        self.config, self.dtype = model.config, dtype
        self.device = model.norm.weight.device
        self.refresh(model)
        self.release()

    @torch.no_grad()
    def refresh(self, model: Transformer) -> None:
        """Copy the model's weights as they are now."""
        c, dtype = self.config, self.dtype

        def folded(norm: Tensor, *matrices: Tensor) -> Tensor:
            return (torch.cat([matrix.float() for matrix in matrices]) * norm.float()).to(dtype)

        self.layers = []
        for layer in model.layers:
            w = layer.weights()
            scale = None
            if w.q_norm is not None:
                heads = (w.q_norm.float().expand(c.num_heads, -1), w.k_norm.float().expand(c.num_kv_heads, -1))
                scale = torch.cat(heads).contiguous()
            self.layers.append(
                LayerWeights(
                    qkv=folded(w.attention_norm, w.q, w.k, w.v),
                    qk_scale=scale,
                    o=w.o.detach().to(dtype, copy=True),
                    gate_up=folded(w.ffn_norm, w.gate, w.up),
                    down=w.down.detach().to(dtype, copy=True),
                )
            )
        self.embedding = model.embed_tokens.weight.detach().float().clone()
        self.head = folded(model.norm.weight, model.head_weight.detach())

    def allocate(self, num_rows: int, capacity: int) -> None:
        """An empty cache of exactly this size."""
        c = self.config
        self.num_rows, self.capacity = num_rows, capacity
        shape = (c.num_layers, num_rows * c.num_kv_heads, capacity, c.head_size)
        # Zeros, not empty: hidden positions are multiplied by a weight of 0, and 0 x NaN is NaN.
        self.keys, self.values = (torch.zeros(shape, dtype=self.dtype, device=self.device) for _ in range(2))
        self.bias = torch.full((shape[1], 1, capacity), MINUS_LARGE, dtype=self.dtype, device=self.device)

    def grow(self, capacity: int) -> None:
        """More positions for every row. Attention always runs over the whole capacity: a batched product over a part of
        it would copy that part first, every layer and every step, where growing copies it once."""
        more = capacity - self.capacity
        self.keys = F.pad(self.keys, (0, 0, 0, more))  # one after the other: two copies of half the cache at a time
        self.values = F.pad(self.values, (0, 0, 0, more))
        self.bias = F.pad(self.bias, (0, more), value=MINUS_LARGE)
        self.capacity = capacity

    def release(self) -> None:
        """Let go of the cache: at 128 rows and some hundred positions it is the largest thing in a small run's memory."""
        self.keys = self.values = self.bias = None
        self.capacity = self.num_rows = 0

    def _qkv(self, x: Tensor, layer: LayerWeights, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (..., D) fp32 -> q (..., H, K), k and v (..., H_kv, K) in the compute dtype, rotated."""
        c = self.config
        h = F.rms_norm(x, (c.width,), eps=c.rms_norm_eps).to(self.dtype)
        qkv = F.linear(h, layer.qkv).unflatten(-1, (-1, c.head_size))
        qk = qkv[..., : c.num_heads + c.num_kv_heads, :].float()
        if layer.qk_scale is not None:
            qk = F.rms_norm(qk, (c.head_size,), eps=c.rms_norm_eps) * layer.qk_scale
        # `sin` carries the sign of the rotated half: rotating is one roll of half a head.
        qk = torch.addcmul(qk * cos, qk.roll(c.head_size // 2, -1), sin).to(self.dtype)
        return qk[..., : c.num_heads, :], qk[..., c.num_heads :, :], qkv[..., c.num_heads + c.num_kv_heads :, :]

    def _rest(self, x: Tensor, mixed: Tensor, layer: LayerWeights) -> Tensor:
        """The output projection and the feed-forward half. x (..., D) fp32, mixed (..., H K)."""
        c = self.config
        x = x + F.linear(mixed, layer.o)
        h = F.rms_norm(x, (c.width,), eps=c.rms_norm_eps).to(self.dtype)
        gate, up = F.linear(h, layer.gate_up).chunk(2, dim=-1)
        return x + F.linear(F.silu(gate).mul_(up), layer.down)

    def _logits(self, x: Tensor) -> Tensor:
        c = self.config
        return F.linear(F.rms_norm(x, (c.width,), eps=c.rms_norm_eps).to(self.dtype), self.head).float()

    def prefill(self, input_ids: Tensor, lengths: Tensor, rows: Tensor, sources: Tensor) -> Tensor:
        """Read prompts into the cache; returns the logits (R, V) of the token after each.

        input_ids (P, T) prompts, padded on the right with any id; lengths (P,). Row rows[i] of the cache becomes a
        continuation of prompt sources[i]: several samples of one prompt are read once.
        """
        c = self.config
        num_prompts, length = input_ids.shape
        cos, sin = rope_angles(torch.arange(length, device=self.device), c.head_size, c.rope_theta)
        plan = plan_attention(None, length, self.device)  # padding is to the right of everything that counts
        x = self.embedding[input_ids]
        slots = (rows[:, None] * c.num_kv_heads + torch.arange(c.num_kv_heads, device=self.device)).reshape(-1)
        for number, layer in enumerate(self.layers):
            q, k, v = self._qkv(x, layer, cos, sin)
            for cache, new in ((self.keys, k), (self.values, v)):
                cache[number, slots, :length] = new.transpose(1, 2)[sources].flatten(0, 1)
            x = self._rest(x, attend(q, k, v, plan).flatten(-2), layer)
        self.bias[slots] = MINUS_LARGE
        hidden = torch.arange(self.capacity, device=self.device) >= lengths[sources][:, None]
        visible = torch.where(hidden, MINUS_LARGE, 0.0).to(self.dtype)
        self.bias[slots, 0] = visible.repeat_interleave(c.num_kv_heads, dim=0)
        last = x[torch.arange(num_prompts, device=self.device), lengths - 1]
        return self._logits(last)[sources]

    def step(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """One token further for rows 0 .. S - 1: tokens (S,) stand at positions (S,); returns logits (S, V)."""
        c = self.config
        num_rows = len(tokens)
        cos, sin = rope_angles(positions, c.head_size, c.rope_theta)
        heads = torch.arange(num_rows * c.num_kv_heads, device=self.device)
        slots = heads * self.capacity + positions.repeat_interleave(c.num_kv_heads)
        self.bias.view(-1).index_fill_(0, slots, 0.0)
        group = c.num_heads // c.num_kv_heads
        bias = self.bias[: len(heads)].expand(-1, group, -1)
        x = self.embedding[tokens]
        for number, layer in enumerate(self.layers):
            q, k, v = self._qkv(x, layer, cos, sin)
            keys, values = self.keys[number], self.values[number]
            keys.view(-1, c.head_size).index_copy_(0, slots, k.flatten(0, 1))
            values.view(-1, c.head_size).index_copy_(0, slots, v.flatten(0, 1))
            q = q.reshape(len(heads), group, c.head_size)
            scores = torch.baddbmm(bias, q, keys[: len(heads)].mT, alpha=c.head_size**-0.5)
            mixed = torch.bmm(scores.softmax(-1), values[: len(heads)])
            x = self._rest(x, mixed.view(num_rows, -1), layer)
        return self._logits(x)

    def move(self, source: int, target: int, length: int) -> None:
        """Copy row `source`, `length` positions of it, over row `target`."""
        n = self.config.num_kv_heads
        for cache in (self.keys, self.values):
            cache[:, target * n : (target + 1) * n, :length] = cache[:, source * n : (source + 1) * n, :length]
        self.bias[target * n : (target + 1) * n] = self.bias[source * n : (source + 1) * n]
