"""The decoder for CPUs: `Decoder`'s interface over native.cpp, which says how it computes and why.

The machine's own C++ compiler builds it when it is first used, in a few seconds, into the cache folder. Where there is no compiler
that can, generation runs on `Decoder`; `problem` says why.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import mmap
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fromnoise.generate.sampling import sample
from fromnoise.model.transformer import Transformer, rope_angles
from fromnoise.run.native import FLAGS, build

SOURCE = Path(__file__).with_name("native.cpp")
GROUP_COLUMNS = 64  # as in native.cpp: what numbers of columns are rounded up to
BITS = {torch.float32: 32, torch.bfloat16: 16}


class _Layer(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("qkv", "o", "gate_up", "down", "qk_scale")]


class _Model(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("num_layers", "width", "num_heads", "num_kv_heads", "head_size", "ffn_width")),
        *((name, ctypes.c_int64) for name in ("vocab_size", "num_rows", "capacity")),
        ("layers", ctypes.POINTER(_Layer)),
        *((name, ctypes.c_void_p) for name in ("embedding", "head", "cos", "sin", "keys", "values")),
        ("eps", ctypes.c_float),
    ]


@cache
def library() -> ctypes.CDLL | str:
    """The compiled native.cpp, or why there is none."""
    loaded = build(SOURCE, FLAGS)
    if isinstance(loaded, str):
        return loaded
    pointer, count = ctypes.c_void_p, ctypes.c_int64
    loaded.advance.argtypes = [ctypes.POINTER(_Model), count, pointer, pointer, pointer, pointer, count, pointer]
    loaded.draw.argtypes = [pointer, count, count, count, ctypes.c_float, pointer, pointer, pointer]
    loaded.advance.restype = loaded.draw.restype = None
    loaded.element_bits.argtypes, loaded.element_bits.restype = [count], count
    for name in ("lanes", "panel_columns"):
        getattr(loaded, name).argtypes, getattr(loaded, name).restype = [], count
    return loaded


def problem(model: Transformer, dtype: torch.dtype) -> str | None:
    """Why `model` cannot be decoded natively in `dtype` here; None where it can."""
    if (why := unavailable(dtype, model.norm.weight.device.type)) is not None:
        return why
    c, lanes = model.config, library().lanes()
    if c.head_size % (2 * lanes) or c.width % lanes or c.ffn_width % lanes:
        return f"a head of {c.head_size} is not a multiple of {2 * lanes}, or widths of {c.width} and {c.ffn_width} not of {lanes}"
    return None


def unavailable(dtype: torch.dtype, device_type: str) -> str | None:
    """Why no model can be."""
    if device_type != "cpu":
        return f"the device is {device_type}"
    loaded = library()
    if isinstance(loaded, str):
        return loaded
    return None if dtype in BITS and loaded.element_bits(BITS[dtype]) else f"the processor has no products in {str(dtype).removeprefix('torch.')}"


def packed(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """matrix (N, K) -> (N / P, K / G, P, G) in `dtype`, N padded with zeros; P columns are a panel, G inputs go into one instruction."""
    rows, size = matrix.shape
    group = 32 // BITS[dtype]
    whole = torch.nn.functional.pad(matrix.float(), (0, 0, 0, -rows % GROUP_COLUMNS))
    return whole.view(-1, library().panel_columns(), size // group, group).transpose(1, 2).to(dtype).contiguous()


def zeros(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Memory for a cache, in huge pages where the system has them: a step reads all of it once, and with pages of 4 KB it spends
    more time on finding them than on reading. Zeros, since values past a row's end are multiplied by a weight of 0, and 0 x NaN is NaN."""
    memory = mmap.mmap(-1, math.prod(shape) * dtype.itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without them
            memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype).view(shape)


class NativeDecoder:
    """Weights, cache, `prefill` and `step`, as `Decoder` has them; K and V are kept in the orders of native.cpp."""

    round_rows = 1  # a step costs what its rows cost, whatever their number
    round_positions, prefill_tokens = 32, 4096  # as `Decoder`'s

    def __init__(self, model: Transformer, dtype: torch.dtype):
        if (why := problem(model, dtype)) is not None:
            raise ValueError(f"no native decoder: {why}")
        self.config, self.dtype, self.device = model.config, dtype, torch.device("cpu")
        self.lanes = library().lanes()  # positions in a block of keys
        self.num_threads = torch.get_num_threads()
        self.workers = ThreadPoolExecutor(self.num_threads - 1) if self.num_threads > 1 else None  # the calling thread is one more
        self.refresh(model)
        self.capacity = self.num_rows = 0

    @torch.no_grad()
    def refresh(self, model: Transformer) -> None:
        """Copy the model's weights as they are now."""
        c = self.config
        self.kept: list[Tensor] = []  # what the structures point to
        layers = (_Layer * c.num_layers)()
        for to, layer in zip(layers, model.layers, strict=True):
            w = layer.weights()
            to.qkv = self._packed(torch.cat((w.q, w.k, w.v)) * w.attention_norm)
            to.o, to.down = self._packed(w.o), self._packed(w.down)
            to.gate_up = self._packed(torch.cat((w.gate, w.up)) * w.ffn_norm)
            if w.q_norm is not None:
                to.qk_scale = self._keep(torch.cat((w.q_norm.float().expand(c.num_heads, -1), w.k_norm.float().expand(c.num_kv_heads, -1))).contiguous())
        cos, sin = (x.contiguous() for x in rope_angles(torch.arange(c.context_tokens), c.head_size, c.rope_theta))
        self.layers = layers
        self.pointers = {
            "embedding": self._keep(model.embed_tokens.weight.detach().float().clone()), "head": self._packed(model.head_weight * model.norm.weight),
            "cos": self._keep(cos), "sin": self._keep(sin),
        }  # fmt: skip

    def _packed(self, matrix: Tensor) -> int:
        return self._keep(packed(matrix, self.dtype))

    def _keep(self, tensor: Tensor) -> int:
        self.kept.append(tensor)
        return tensor.data_ptr()

    def allocate(self, num_rows: int, capacity: int) -> None:
        """An empty cache of at least this size."""
        self.num_rows, self.capacity = num_rows, -(-capacity // self.lanes) * self.lanes
        self.keys, self.values = (zeros(self._cache_shape(), self.dtype) for _ in range(2))

    def _cache_shape(self) -> tuple[int, ...]:
        c = self.config
        return c.num_layers, self.num_rows, c.num_kv_heads, self.capacity // self.lanes, self.lanes * c.head_size

    def grow(self, capacity: int) -> None:
        """More positions for every row."""
        blocks, self.capacity = self.capacity // self.lanes, -(-capacity // self.lanes) * self.lanes
        for name in ("keys", "values"):  # one after the other: two copies of half the cache at a time
            larger = zeros(self._cache_shape(), self.dtype)
            larger[:, :, :, :blocks] = getattr(self, name)
            setattr(self, name, larger)

    def release(self) -> None:
        self.keys = self.values = None
        self.capacity = self.num_rows = 0

    def prefill(self, input_ids: Tensor, lengths: Tensor, rows: Tensor, sources: Tensor) -> Tensor:
        """Read prompts into the cache; returns the logits (R, V) of the token after each (`Decoder.prefill`)."""
        lengths, rows, sources = lengths.numpy(), rows.numpy(), sources.numpy()
        _, readers = np.unique(sources, return_index=True)  # of each prompt, the first row that continues it
        tokens = np.concatenate([ids[:length] for ids, length in zip(input_ids.numpy(), lengths, strict=True)])
        positions = np.concatenate([np.arange(length) for length in lengths])
        wanted = np.full(len(tokens), -1)
        ends = lengths.cumsum()
        wanted[ends - 1] = np.arange(len(lengths))
        shares = np.searchsorted(ends, np.arange(1, self.num_threads) * ends[-1] / self.num_threads)  # whole prompts to each thread
        logits = self._advance(tokens, np.repeat(rows[readers], lengths), positions, wanted, [0, *(int(ends[i]) for i in shares), len(tokens)], len(lengths))
        for row, source in zip(rows, sources, strict=True):
            if row != rows[readers[source]]:
                self.move(int(rows[readers[source]]), int(row), int(lengths[source]))
        return logits[torch.from_numpy(sources)]

    def step(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """One token further for rows 0 .. S - 1: tokens (S,) stand at positions (S,); returns logits (S, V)."""
        rows = np.arange(len(tokens))
        return self._advance(tokens.numpy(), rows, positions.numpy(), rows, self._equal_cuts(len(rows)), len(rows))

    def _advance(self, tokens, rows, positions, wanted, cuts: list[int], num_logits: int) -> Tensor:
        """Tokens cuts[i] .. cuts[i + 1] - 1 go to thread i; logits (num_logits, V) of those wanted."""
        c, loaded = self.config, library()
        model = _Model(
            c.num_layers, c.width, c.num_heads, c.num_kv_heads, c.head_size, c.ffn_width, c.vocab_size, self.num_rows, self.capacity, self.layers,
            keys=self.keys.data_ptr(), values=self.values.data_ptr(), eps=c.rms_norm_eps, **self.pointers,
        )  # fmt: skip
        tokens = np.ascontiguousarray(tokens, dtype=np.int64)
        rows, positions, wanted = (np.ascontiguousarray(x, dtype=np.int32) for x in (rows, positions, wanted))
        logits = torch.empty(num_logits, -(-c.vocab_size // GROUP_COLUMNS) * GROUP_COLUMNS)

        def run(begin: int, end: int) -> None:
            arrays = (x[begin:end].ctypes.data for x in (tokens, rows, positions, wanted))
            loaded.advance(model, BITS[self.dtype], *arrays, end - begin, logits.data_ptr())

        self._share_out(run, cuts)
        return logits[:, : c.vocab_size]

    def _share_out(self, run: Callable[[int, int], None], cuts: Sequence[int]) -> None:
        """run(cuts[i], cuts[i + 1]) on thread i."""
        shares = [(begin, end) for begin, end in pairwise(cuts) if end > begin]
        others = [self.workers.submit(run, *share) for share in shares[1:]]
        run(*shares[0])
        for other in others:
            other.result()

    def sample(
        self, logits: Tensor, uniform: np.ndarray, temperature: float, top_k: int, top_p: float, penalised: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """`Decoder.sample`; by native.cpp where nothing is cut or penalised, since torch's operators for it took a third of a step's time."""
        if temperature == 0.0 or top_k > 0 or top_p < 1.0 or penalised is not None:
            return sample(logits, torch.from_numpy(uniform), temperature, top_k, top_p, penalised)
        ids, logprobs = np.empty(len(logits), dtype=np.int64), np.empty(len(logits), dtype=np.float32)

        def run(begin: int, end: int) -> None:
            arrays = (x[begin:end].ctypes.data for x in (uniform, ids, logprobs))
            library().draw(logits[begin].data_ptr(), logits.stride(0), logits.shape[1], end - begin, temperature, *arrays)

        self._share_out(run, self._equal_cuts(len(logits)))
        return torch.from_numpy(ids), torch.from_numpy(logprobs)

    def _equal_cuts(self, rows: int) -> list[int]:
        return [round(i * rows / self.num_threads) for i in range(self.num_threads + 1)]

    def move(self, source: int, target: int, length: int) -> None:
        """Copy row `source`, `length` positions of it, over row `target`."""
        blocks = -(-length // self.lanes)
        for cached in (self.keys, self.values):
            cached[:, target, :, :blocks] = cached[:, source, :, :blocks]
