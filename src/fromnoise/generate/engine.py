"""Batched generation: prompts go in, answers come out, in order; the same engine for chat, evaluation and RL.

Prompts wait in order of length, are read in batches, and hold a row of the cache while they are answered. An answer
that ends leaves at once: the last row moves into its place, so the rows in use stay together, and waiting prompts
enter when enough rows are free.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from fromnoise.generate import native
from fromnoise.generate.decoder import Decoder, GraphDecoder
from fromnoise.generate.sampling import penalise_repeats, row_key, uniforms
from fromnoise.model.config import ModelConfig
from fromnoise.model.transformer import Transformer

MAX_BATCH_CPU, MAX_BATCH_GPU = 128, 512  # a GPU takes a step of hundreds of rows in the time of one of ten
CACHE_BYTES_GPU = 8 << 30  # and fewer rows, not below 64, where their cache at full length would be larger


class Sampling(Protocol):
    """What `run.recipe.SamplingSection` offers."""

    temperature: float
    top_k: int
    top_p: float
    repetition_penalty: float


@dataclass(slots=True)
class Generation:
    prompt_ids: list[int]
    token_ids: list[int]  # the answer, with its stop token when it has one
    logprobs: list[float]  # of each token under the whole distribution at the sampling temperature
    stopped: bool  # it ended with a stop token, rather than at a limit


@dataclass(slots=True)
class _Request:
    index: int
    prompt: list[int]
    limit: int  # new tokens at most
    key: np.uint64
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    stopped: bool = False


class Engine:
    """Generation from a copy of a model's weights; `refresh` takes a new copy after an update.

    dtype: of the matrix products and the cache; bfloat16 where the machine is fast in it. max_batch: rows answered at once
    (by default 128, on a GPU up to 512); the cache takes 2 x L x H_kv x K x capacity x element size for each. A sequence ends
    at the model's `context_tokens`. Decoding is native where the processor and a compiler allow it (native.py), else torch's
    operators, on a CUDA device as captured graphs.
    """

    def __init__(self, model: Transformer, dtype: torch.dtype = torch.float32, max_batch: int | None = None):
        on_cuda, torch_alone = model.norm.weight.is_cuda, native.problem(model, dtype) is not None
        kind = GraphDecoder if on_cuda else Decoder if torch_alone else native.NativeDecoder
        self.decoder = kind(model, dtype)
        self.threads = nullcontext if torch_alone else _one_torch_thread
        self.context_tokens, self.vocab_size = model.config.context_tokens, model.config.vocab_size
        self.max_positions = _round_up(self.context_tokens, 32)
        self.num_tokens = 0  # read and written so far: what went through the model, a prompt asked several times at once counted once
        self.max_batch = max_batch or (_rows_that_fit(model.config, dtype) if on_cuda else MAX_BATCH_CPU)

    def refresh(self, model: Transformer) -> None:
        self.decoder.refresh(model)

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        stop_ids: set[int] | frozenset[int],
        sampling: Sampling,
        seed: int,
        ended: Callable[[int], None] = lambda number: None,
    ) -> list[Generation]:
        """Answer every prompt; results in the order of `prompts`.

        The noise of prompts[i] depends on (seed, i) alone. Equal prompts are read once and sampled separately. `ended` is told how many
        answers have ended, each time some do. Raises ValueError for an empty prompt, one that leaves no room in the context, or an id
        that the model has no row for.
        """
        requests = self._requests(prompts, max_new_tokens, seed)
        for number in self._run(requests, frozenset(stop_ids), sampling):
            if number:
                ended(number)
        return [Generation(r.prompt, r.tokens, r.logprobs, r.stopped) for r in requests]

    def stream(
        self, prompt: Sequence[int], max_new_tokens: int, stop_ids: set[int] | frozenset[int], sampling: Sampling, seed: int
    ) -> Iterator[int]:
        """The tokens of one answer as they are made, without the stop token; the same ones as `generate([prompt], ...)`."""
        (request,) = self._requests([prompt], max_new_tokens, seed)
        for _ in self._run([request], frozenset(stop_ids), sampling):
            if not request.stopped:
                yield request.tokens[-1]

    def _requests(self, prompts: Sequence[Sequence[int]], max_new_tokens: int, seed: int) -> list[_Request]:
        requests = []
        for index, prompt in enumerate(prompts):
            limit = min(max_new_tokens, self.context_tokens - len(prompt))
            if not len(prompt) or limit < 1:
                raise ValueError(f"prompt {index} has {len(prompt)} tokens; 1 to {self.context_tokens - 1} can be continued")
            if not 0 <= min(prompt) <= max(prompt) < self.vocab_size:  # native code would read whatever lies there
                raise ValueError(f"prompt {index} holds token ids of {min(prompt)} to {max(prompt)}; the model has 0 to {self.vocab_size - 1}")
            requests.append(_Request(index, list(prompt), limit, row_key(seed, index)))
        return requests

    @torch.inference_mode()
    def _run(self, requests: list[_Request], stop_ids: frozenset[int], sampling: Sampling) -> Iterator[int]:
        """Fill the requests, yielding after each new token of the batch: how many answers ended with it."""
        if not requests:
            return
        num_rows = min(self.max_batch, len(requests))
        round_rows = self.decoder.round_rows
        positions = min(self.decoder.round_positions, self.max_positions)
        self.decoder.allocate(num_rows if num_rows < round_rows else _round_up(num_rows, round_rows), positions)
        # Longest first: the last batches are then the short, quick ones. Equal prompts are neighbours.
        waiting = sorted(requests, key=lambda r: (len(r.prompt), r.prompt), reverse=True)[::-1]
        active: list[_Request] = []
        while waiting or active:
            free = num_rows - len(active)
            with self.threads():
                if waiting and (not active or free >= max(1, num_rows // 8)):
                    self._admit(waiting, active, free, sampling)
                else:
                    self._step(active, sampling)
                number = self._leave(active, stop_ids)
            yield number
        self.decoder.release()

    def _admit(self, waiting: list[_Request], active: list[_Request], free: int, sampling: Sampling) -> None:
        """Read the next prompts into the rows after the active ones and draw their first tokens."""
        device = self.decoder.device
        entering: list[_Request] = []
        prompts: list[list[int]] = []
        sources: list[int] = []
        while waiting and len(entering) < free:
            request = waiting[-1]
            if not prompts or request.prompt != prompts[-1]:
                if prompts and (len(prompts) + 1) * len(prompts[0]) > self.decoder.prefill_tokens:
                    break
                prompts.append(request.prompt)
            sources.append(len(prompts) - 1)
            entering.append(waiting.pop())
        lengths = [len(prompt) for prompt in prompts]
        self.num_tokens += sum(lengths)
        input_ids = np.zeros((len(prompts), max(lengths)), dtype=np.int64)
        for row, prompt in enumerate(prompts):
            input_ids[row, : len(prompt)] = prompt
        self._reserve(max(lengths))
        rows = torch.arange(len(active), len(active) + len(entering), device=device)
        logits = self.decoder.prefill(
            torch.from_numpy(input_ids).to(device), torch.tensor(lengths, device=device), rows, torch.tensor(sources, device=device)
        )
        active += entering
        self._draw(logits, entering, sampling)

    def _step(self, active: list[_Request], sampling: Sampling) -> None:
        device = self.decoder.device
        spare = min(_round_up(len(active), self.decoder.round_rows), self.decoder.num_rows) - len(active)
        positions = [len(r.prompt) + len(r.tokens) - 1 for r in active]
        self.num_tokens += len(active)
        self._reserve(max(positions) + 1)
        # Spare rows repeat position 0 of rows that nobody holds: the next prompt to enter them overwrites it.
        tokens = torch.tensor([r.tokens[-1] for r in active] + [0] * spare, device=device)
        logits = self.decoder.step(tokens, torch.tensor(positions + [0] * spare, device=device))
        self._draw(logits[: len(active)], active, sampling)

    def _draw(self, logits: Tensor, requests: list[_Request], sampling: Sampling) -> None:
        """Append one sampled token to each request. logits (S, V)."""
        keys = np.array([r.key for r in requests], dtype=np.uint64)
        noise = uniforms(keys, np.array([len(r.tokens) for r in requests]))
        penalty, penalised = sampling.repetition_penalty, None
        if penalty != 1.0:
            penalised = penalise_repeats(logits, [r.prompt + r.tokens for r in requests], penalty)
        ids, logprobs = self.decoder.sample(logits, noise, sampling.temperature, sampling.top_k, sampling.top_p, penalised)
        for request, token, logprob in zip(requests, ids.tolist(), logprobs.tolist(), strict=True):
            request.tokens.append(token)
            request.logprobs.append(logprob)

    def _reserve(self, positions: int) -> None:
        if positions > self.decoder.capacity:
            unit = self.decoder.round_positions
            self.decoder.grow(min(_round_up(positions, max(unit, _round_up(positions // 8, unit))), self.max_positions))

    def _leave(self, active: list[_Request], stop_ids: frozenset[int]) -> int:
        """Take out what is finished, from the back, moving the last row into each gap; returns how many that were."""
        before = len(active)
        for row in range(len(active) - 1, -1, -1):
            request = active[row]
            request.stopped = request.tokens[-1] in stop_ids
            if not request.stopped and len(request.tokens) < request.limit:
                continue
            last = active.pop()
            if last is not request:
                active[row] = last
                self.decoder.move(len(active), row, len(last.prompt) + len(last.tokens))
        return before - len(active)


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Around everything that torch does between native steps, down to the copying of a row. A thread of its pool that has had work
    spins for a while in wait of more, on a core that the decoder's own threads want (docs/lab-notebook.md)."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


def _rows_that_fit(config: ModelConfig, dtype: torch.dtype) -> int:
    """On a GPU: a function of the model alone, so that a resumed stage generates as it began."""
    row_bytes = 2 * config.num_layers * config.num_kv_heads * config.head_size * config.context_tokens * dtype.itemsize
    return min(MAX_BATCH_GPU, max(64, CACHE_BYTES_GPU // row_bytes))


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
