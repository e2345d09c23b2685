"""The order of training data: pure functions of (seed, step), so that resuming needs only the step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch

from fromnoise.data.packing import Batch, collate, pack_sequences
from fromnoise.data.shards import TokenShards
from fromnoise.run.errors import UserError
from fromnoise.run.seeds import seed_from

T = TypeVar("T")


class PretrainStream:
    """An endless stream of tokens: `<|endoftext|>`, then the documents of a pass in a shuffled order, pass after pass.

    Each document ends with `<|endoftext|>`, so every document is preceded by one, every token is predicted, and the
    windows that rows are cut from lose nothing: a document cut by a row's end goes on in the next row (without its
    beginning as context; cropping to document starts instead would drop a third of the tokens).

    Source weights are passes over a source relative to the others: with weight 2.5 a pass holds each document of that
    source twice, and half of them (a different half each pass) a third time. A source with a weight, however small, has at
    least one document in a pass.

    Raises UserError where no source with a weight has tokens.
    """

    def __init__(self, shards: TokenShards, weights: Mapping[str, float], seed: int, endoftext_id: int):
        self.endoftext_id = endoftext_id
        self.seed = seed
        self.sources = [source for source in shards.sources if weights.get(source, 1.0) > 0]
        self.weights = [float(weights.get(source, 1.0)) for source in self.sources]
        self.tokens = [shards.tokens(source) for source in self.sources]
        self.offsets = [np.asarray(shards.offsets(source), dtype=np.int64) for source in self.sources]
        self._passes: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}  # number -> (source, document, ends)
        self._starts = [0]  # stream position, less one, at which each known pass begins
        if not sum(map(len, self.tokens)):
            found = ", ".join(f"{source} (weight {weights.get(source, 1.0):g}, {len(shards.offsets(source)) - 1:,} documents)" for source in shards.sources)
            raise UserError(f"no tokens are left to train on: of {found or 'no sources'}, none has both; give one with documents a weight in data.sources")

    def _pass(self, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if number not in self._passes:
            rng = np.random.default_rng(seed_from(self.seed, "pass", number))
            source_ids, document_ids = [], []
            for source, (weight, offsets) in enumerate(zip(self.weights, self.offsets, strict=True)):
                documents = np.arange(len(offsets) - 1)
                whole = np.tile(documents, int(weight))
                count = max(round((weight - int(weight)) * len(documents)), 1 if weight < 1 else 0)
                part = rng.permutation(documents)[:count]
                chosen = np.concatenate([whole, part])
                source_ids.append(np.full(len(chosen), source))
                document_ids.append(chosen)
            order = rng.permutation(sum(map(len, source_ids)))
            sources, documents = np.concatenate(source_ids)[order], np.concatenate(document_ids)[order]
            lengths = np.empty(len(order), dtype=np.int64)
            for source, offsets in enumerate(self.offsets):
                here = sources == source
                lengths[here] = np.diff(offsets)[documents[here]]
            self._passes = {k: v for k, v in self._passes.items() if k == number - 1}  # two passes at most in memory
            self._passes[number] = (sources, documents, np.cumsum(lengths))
        return self._passes[number]

    def pass_tokens(self, number: int) -> int:
        ends = self._pass(number)[2]
        return int(ends[-1]) if len(ends) else 0

    def tokens_once(self) -> float:
        """Tokens of the stream in which the documents of the source with the largest weight stand once: a pass, where that weight is 1."""
        return self.pass_tokens(0) / max(self.weights)

    def read(self, start: int, count: int) -> np.ndarray:
        """`count` tokens of the stream from position `start`, int64."""
        if start < 0:
            raise ValueError(f"a stream has no position {start}")
        pieces: list[np.ndarray] = []
        if start == 0:
            pieces.append(np.array([self.endoftext_id]))
            start, count = 1, count - 1
        position = start - 1
        while self._starts[-1] + self.pass_tokens(len(self._starts) - 1) <= position:
            self._starts.append(self._starts[-1] + self.pass_tokens(len(self._starts) - 1))
        number = int(np.searchsorted(self._starts, position, side="right")) - 1
        while count > 0:
            if number == len(self._starts):
                self._starts.append(self._starts[-1] + self.pass_tokens(number - 1))
            sources, documents, ends = self._pass(number)
            inside = position - self._starts[number]
            index = int(np.searchsorted(ends, inside, side="right"))
            if index == len(ends):
                number += 1
                continue
            source, document = sources[index], documents[index]
            begin, end = self.offsets[source][document], self.offsets[source][document + 1]
            begin = end - (ends[index] - inside)
            piece = np.asarray(self.tokens[source][begin : min(end, begin + count)], dtype=np.int64)
            pieces.append(piece)
            count -= len(piece)
            position += len(piece)
        return np.concatenate(pieces)

    def batch(self, first_row: int, num_rows: int, row_tokens: int) -> Batch:
        """Rows first_row .. first_row + num_rows of the stream cut into rows of `row_tokens` targets."""
        tokens = self.read(first_row * row_tokens, num_rows * row_tokens + 1)
        input_ids = tokens[:-1].reshape(num_rows, row_tokens)
        return stream_batch(input_ids, tokens[1:].reshape(num_rows, row_tokens), self.endoftext_id)


def pretraining_text(ctx, endoftext_id: int) -> PretrainStream:
    """The run's training text, in the stage's own order."""
    weights = {source.name: source.weight for source in ctx.recipe.data.sources}
    return PretrainStream(TokenShards(ctx.path("tokenizer") / "tokens", "train"), weights, ctx.seed, endoftext_id)


def stream_batch(input_ids: np.ndarray, labels: np.ndarray, endoftext_id: int) -> Batch:
    """A (B, T) window of a document stream as a Batch: a new segment begins at each `<|endoftext|>` input."""
    row_tokens = input_ids.shape[1]
    starts = input_ids == endoftext_id
    starts[:, 0] = True
    positions = np.broadcast_to(np.arange(row_tokens), input_ids.shape)
    last_start = np.maximum.accumulate(np.where(starts, positions, 0), axis=1)
    flat = np.flatnonzero(starts)
    lasts = np.append(flat[1:], input_ids.size) - 1
    return Batch(
        input_ids=torch.from_numpy(np.ascontiguousarray(input_ids)),
        labels=torch.from_numpy(np.ascontiguousarray(labels)),
        position_ids=torch.from_numpy(positions - last_start),
        segment_ids=torch.from_numpy(np.cumsum(starts, axis=1)),
        sequence_ids=torch.arange(len(flat)),
        start_index=torch.from_numpy(flat),
        last_index=torch.from_numpy(lasts),
        shared_tokens=torch.zeros(len(flat), dtype=torch.int64),
    )


class StepRows:
    """The rows of one optimizer step: what the stage is about first, `main` of them, then `beside` that are mixed in, so that the
    mixture is the step's and depends on neither ranks nor micro-batches.

    here: the micro-batches of this rank, each (first, last + 1) of the step's rows, all of `micro` rows.
    """

    def __init__(self, name: str, batch_tokens: int, row_tokens: int, micro_batch_rows: int, beside_frac: float, rank: int = 0, world_size: int = 1):
        """name: the recipe's section, for errors. Raises UserError for rows that cannot be shared out evenly: some would never be trained on."""
        self.per_step = batch_tokens // row_tokens
        if self.per_step < 1:
            raise UserError(f"{name}.batch_tokens = {batch_tokens:,} is less than one row of {name}.row_tokens = {row_tokens:,}")
        if self.per_step % world_size:
            raise UserError(
                f"{name}: a step of {self.per_step} rows (batch_tokens / row_tokens) cannot be shared out evenly over {world_size} ranks; "
                f"{name}.batch_tokens = {-(-self.per_step // world_size) * world_size * row_tokens} can"
            )
        rows_here = self.per_step // world_size
        self.micro = min(micro_batch_rows, rows_here)
        if rows_here % self.micro:
            most = next(size for size in range(self.micro, 0, -1) if rows_here % size == 0)
            raise UserError(f"{name}.micro_batch_rows = {micro_batch_rows} does not divide a rank's {rows_here} rows of a step; {most} does")
        self.beside = max(1, round(beside_frac * self.per_step)) if beside_frac else 0  # a fraction that is wanted is at least a row
        self.main = self.per_step - self.beside
        if self.main < 1:
            raise UserError(f"{name}: {beside_frac} of a step's {self.per_step} rows leaves none for what is trained; mix in less, or raise batch_tokens")
        begin = rank * rows_here
        self.here = [(first, first + self.micro) for first in range(begin, begin + rows_here, self.micro)]

    def parts(self, main: int) -> list[tuple[int, int, int]]:
        """(first, cut, end) of each micro-batch here, in rows of a step of which the first `main` are of one kind: first .. cut of it are,
        cut .. end are not."""
        return [(first, min(max(first, main), end), end) for first, end in self.here]


def row_kinds(batch: Batch, main_rows: int, names: tuple[str, str]) -> dict[str, slice]:
    """The rows of a micro-batch by what they hold, the first `main_rows` of one kind and the rest of the other; without kinds it has none of."""
    kinds = {names[0]: slice(main_rows), names[1]: slice(main_rows, None)}
    return {name: rows for name, rows in kinds.items() if len(batch.labels[rows])}


class PackedEpochs:
    """Sequences packed into rows, the rows shuffled anew each epoch, cut into steps of `rows_per_step` rows.

    The packing is made once (it depends on the lengths alone); only the order of rows changes between epochs.
    The last step of an epoch may hold fewer rows and is filled with padding: no sequence is left out of an epoch.
    """

    def __init__(
        self, sequences: Sequence[Sequence[int]], masks: Sequence[Sequence[bool]] | None, *, row_tokens: int, rows_per_step: int, pad_id: int, seed: int
    ):
        self.sequences, self.masks = sequences, masks
        self.row_tokens, self.rows_per_step, self.pad_id, self.seed = row_tokens, rows_per_step, pad_id, seed
        self.rows = pack_sequences([len(sequence) for sequence in sequences], row_tokens)
        self.steps_per_epoch = -(-len(self.rows) // rows_per_step)

    def batch(self, step: int, first_row: int, num_rows: int) -> Batch:
        """Rows first_row .. first_row + num_rows of those of a step; padding where there are no more."""
        epoch, at = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng(seed_from(self.seed, "epoch", epoch)).permutation(len(self.rows))
        chosen = order[at * self.rows_per_step : (at + 1) * self.rows_per_step][first_row : first_row + num_rows]
        rows = [self.rows[i] for i in chosen]
        return collate(rows, self.sequences, self.masks, row_tokens=self.row_tokens, num_rows=num_rows, pad_id=self.pad_id)


def prefetch(make: Callable[[int], T], start: int, stop: int) -> Iterator[tuple[int, T]]:
    """Yield (step, make(step)) for start <= step < stop, making the next item while this one is used.

    One thread, one item ahead: `make` must be a pure function of the step, so a resume repeats nothing. It works on the GPU that
    the calling thread works on (each thread has its own, and begins with the first).
    """
    own = (torch.cuda.set_device, (torch.cuda.current_device(),)) if torch.cuda.is_initialized() else (None, ())
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="loader", initializer=own[0], initargs=own[1]) as pool:
        upcoming = pool.submit(make, start) if start < stop else None
        for step in range(start, stop):
            item = upcoming.result()
            upcoming = pool.submit(make, step + 1) if step + 1 < stop else None
            yield step, item
