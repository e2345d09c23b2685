"""The transformer once more, arranged for one token at a time: the same mathematics with fewer, larger operations.

Weights are copied once: query, key and value stacked, gate and up stacked, and each norm's scale multiplied into the
matrix that follows it. The cache (L, rows x H_kv, capacity, K) grows by blocks of positions; a step writes one position
of each row and attends over the capacity. Rows stand at different positions; a bias hides what a row has not reached.

Attention is plain batched products: for one query a row, SDPA's bf16 CPU kernel takes ten times as long (256
positions, 64 rows x 4 heads of 64, one thread: 5.0 against 0.5 ms), and a kernel compiled from multiplications and sums
up to three times as long. Compiling what stands between two layers' attention gained nothing (64 rows: 5,475 against 5,434
tokens/s): what a step costs is the operators' number, and on a CPU that can, native.py has none of them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fromnoise.generate.sampling import sample
from fromnoise.model.attention import MINUS_LARGE, attend, plan_attention
from fromnoise.model.transformer import Transformer, rope_angles, swap_halves


class LayerWeights(NamedTuple):
    qkv: Tensor  # ((H + 2 H_kv) K, D)
    qk_scale: Tensor | None  # (H + H_kv, K) fp32: the QK-norms' scales; None without QK-norm
    o: Tensor  # (D, H K)
    gate_up: Tensor  # (2 F, D)
    down: Tensor  # (D, F)


class Fixed(NamedTuple):
    """What the pieces of a layer need beside its weights."""

    num_heads: int
    num_kv_heads: int
    head_size: int
    eps: float
    dtype: torch.dtype  # of the products and of q, k and v; x, norms and rotation are fp32


def enter(x: Tensor, cos: Tensor, sin: Tensor, layer: LayerWeights, fixed: Fixed) -> tuple[Tensor, Tensor, Tensor]:
    """A layer up to its attention: x (..., D) -> q (..., H, K), k and v (..., H_kv, K), normalised and rotated."""
    num_qk = fixed.num_heads + fixed.num_kv_heads
    h = F.rms_norm(x, (x.shape[-1],), eps=fixed.eps).to(fixed.dtype)
    qkv = F.linear(h, layer.qkv).unflatten(-1, (-1, fixed.head_size))
    qk = qkv[..., :num_qk, :].float()
    if layer.qk_scale is not None:
        qk = F.rms_norm(qk, (fixed.head_size,), eps=fixed.eps) * layer.qk_scale
    qk = torch.addcmul(qk * cos, swap_halves(qk), sin).to(fixed.dtype)
    return qk[..., : fixed.num_heads, :], qk[..., fixed.num_heads :, :], qkv[..., num_qk:, :]


def leave(x: Tensor, mixed: Tensor, layer: LayerWeights, fixed: Fixed) -> Tensor:
    """A layer after its attention: the output projection and the feed-forward half. mixed (..., H K)."""
    x = x + F.linear(mixed, layer.o)
    h = F.rms_norm(x, (x.shape[-1],), eps=fixed.eps).to(fixed.dtype)
    gate, up = F.linear(h, layer.gate_up).chunk(2, dim=-1)
    return x + F.linear(F.silu(gate) * up, layer.down)


def score(x: Tensor, head: Tensor, fixed: Fixed) -> Tensor:
    """Logits (..., V) in fp32."""
    return F.linear(F.rms_norm(x, (x.shape[-1],), eps=fixed.eps).to(fixed.dtype), head).float()


class Decoder:
    """Weights, cache, `prefill` and `step`. Rows 0 .. num_rows - 1 of the cache are whoever calls it says they are."""

    round_rows = 8  # steps run on a multiple of this many rows: every new shape costs a kernel's preparation
    round_positions = 32  # the cache grows by a multiple of this
    prefill_tokens = 4096  # prompts are read in batches of about this many positions

    def __init__(self, model: Transformer, dtype: torch.dtype):
        c = model.config
        self.config, self.dtype = c, dtype
        self.fixed = Fixed(c.num_heads, c.num_kv_heads, c.head_size, c.rms_norm_eps, dtype)
        self.device = model.norm.weight.device
        self.refresh(model)
        self.capacity = self.num_rows = 0

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

    def grow(self, capacity: int) -> None:
        """More positions for every row. Attention always runs over the whole capacity: a batched product over a part of
        it would copy that part first, every layer and every step, where growing copies it once."""
        more = capacity - self.capacity
        self.keys = F.pad(self.keys, (0, 0, 0, more))  # one after the other: two copies of half the cache at a time
        self.values = F.pad(self.values, (0, 0, 0, more))
        self.capacity = capacity

    def release(self) -> None:
        """Let go of the cache: at 128 rows and some hundred positions it is the largest thing in a small run's memory."""
        self.keys = self.values = None
        self.capacity = self.num_rows = 0

    def prefill(self, input_ids: Tensor, lengths: Tensor, rows: Tensor, sources: Tensor) -> Tensor:
        """Read prompts into the cache; returns the logits (R, V) of the token after each.

        input_ids (P, T) prompts, padded on the right with any id; lengths (P,). Row rows[i] of the cache becomes a
        continuation of prompt sources[i]: several samples of one prompt are read once.
        """
        c = self.config
        num_prompts, length = input_ids.shape
        cos, sin = rope_angles(torch.arange(length, device=self.device), c.head_size, c.rope_theta)
        plan = plan_attention(None, length, self.device)  # padding is to the right of everything that counts
        slots = (rows[:, None] * c.num_kv_heads + torch.arange(c.num_kv_heads, device=self.device)).reshape(-1)
        x = self.embedding[input_ids]
        for number, layer in enumerate(self.layers):
            q, k, v = enter(x, cos, sin, layer, self.fixed)
            for cached, new in ((self.keys, k), (self.values, v)):
                cached[number, slots, :length] = new.transpose(1, 2)[sources].flatten(0, 1)
            x = leave(x, attend(q, k, v, plan).flatten(-2), layer, self.fixed)
        last = x[torch.arange(num_prompts, device=self.device), lengths - 1]
        return score(last, self.head, self.fixed)[sources]

    def step(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """One token further for rows 0 .. S - 1: tokens (S,) stand at positions (S,); returns logits (S, V)."""
        c, fixed = self.config, self.fixed
        cos, sin = rope_angles(positions, c.head_size, c.rope_theta)
        at = positions.repeat_interleave(c.num_kv_heads)
        slots = torch.arange(len(at), device=self.device) * self.capacity + at
        group = (len(at), c.num_heads // c.num_kv_heads, c.head_size)
        hidden = torch.arange(self.capacity, device=self.device) > at[:, None]
        bias = torch.zeros(hidden.shape, dtype=self.dtype, device=self.device).masked_fill_(hidden, MINUS_LARGE)
        bias = bias.unsqueeze(1).expand(-1, group[1], -1)
        x = self.embedding[tokens]
        for number, layer in enumerate(self.layers):
            q, k, v = enter(x, cos, sin, layer, fixed)
            keys, values = self.keys[number], self.values[number]
            keys.view(-1, c.head_size).index_copy_(0, slots, k.reshape(-1, c.head_size))
            values.view(-1, c.head_size).index_copy_(0, slots, v.reshape(-1, c.head_size))
            scores = torch.baddbmm(bias, q.reshape(group), keys[: len(at)].mT, alpha=c.head_size**-0.5)
            mixed = torch.bmm(scores.softmax(-1), values[: len(at)]).view(len(tokens), -1)
            x = leave(x, mixed, layer, fixed)
        return score(x, self.head, fixed)

    def sample(
        self, logits: Tensor, uniform: np.ndarray, temperature: float, top_k: int, top_p: float, penalised: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(ids (S,), logprobs (S,)) drawn from logits (S, V) with uniform (S, 2) float64 in [0, 1): sampling.py's `sample`."""
        return sample(logits, torch.from_numpy(uniform).to(logits.device), temperature, top_k, top_p, penalised)

    def move(self, source: int, target: int, length: int) -> None:
        """Copy row `source`, `length` positions of it, over row `target`."""
        n = self.config.num_kv_heads
        for cached in (self.keys, self.values):
            cached[:, target * n : (target + 1) * n, :length] = cached[:, source * n : (source + 1) * n, :length]


class GraphDecoder(Decoder):
    """On a CUDA device: a step is one launch of a captured graph instead of twenty kernels a layer, whose launching takes longer
    than they do (docs/lab-notebook.md). A graph belongs to a number of rows and to this very cache and these weights, so rows
    and positions come in large steps, and a graph is captured only when its number of rows has come up a few times.
    """

    round_rows, round_positions, prefill_tokens = 64, 128, 65_536
    steps_before_capture = 8  # a capture takes as long as about eight steps without one

    def __init__(self, model: Transformer, dtype: torch.dtype):
        self.graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensor, Tensor, Tensor]] = {}  # rows: graph, tokens, positions, logits
        self.eager_steps: dict[int, int] = {}  # rows: steps without a graph since the last change of cache or weights
        self.stream = torch.cuda.Stream(model.norm.weight.device)  # one for all captures: cuBLAS keeps a workspace for each, for ever
        super().__init__(model, dtype)

    def _forget(self) -> None:
        self.graphs.clear()
        self.eager_steps.clear()

    def refresh(self, model: Transformer) -> None:
        self._forget()
        super().refresh(model)

    def allocate(self, num_rows: int, capacity: int) -> None:
        self._forget()
        super().allocate(num_rows, capacity)

    def grow(self, capacity: int) -> None:
        self._forget()
        super().grow(capacity)

    def release(self) -> None:
        self._forget()
        super().release()

    def step(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """`Decoder.step`; the logits may be overwritten by the next step."""
        rows = len(tokens)
        if rows not in self.graphs:
            if self.eager_steps.get(rows, 0) < self.steps_before_capture:
                self.eager_steps[rows] = self.eager_steps.get(rows, 0) + 1
                return super().step(tokens, positions)
            self.graphs[rows] = self._capture(tokens.clone(), positions.clone())
        graph, own_tokens, own_positions, logits = self.graphs[rows]
        own_tokens.copy_(tokens)
        own_positions.copy_(positions)
        graph.replay()
        return logits

    def _capture(self, tokens: Tensor, positions: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor, Tensor]:
        # The slots that a step writes are all different, so its result is fixed without deterministic mode, whose way of writing
        # them sorts first.
        mode = torch.get_deterministic_debug_mode()
        torch.set_deterministic_debug_mode("default")
        try:
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                super().step(tokens, positions)  # libraries prepare themselves at a stream's first call, which a capture must not contain
            torch.cuda.current_stream().wait_stream(self.stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=self.stream):
                logits = super().step(tokens, positions)
        finally:
            torch.set_deterministic_debug_mode(mode)
        return graph, tokens, positions, logits
