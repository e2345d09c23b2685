"""What a model finds likely: bits per byte of held-out text, and how probe sentences go on.

Bits per byte = nats of the text's tokens / ln 2 / bytes of the text. Unlike nats per token it does not depend on the
tokenizer, so models with different vocabularies compare. `<|endoftext|>` stands for no bytes and is left out of both
sums.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from fromnoise.algorithms.logprobs import linear_logprobs_and_entropy
from fromnoise.algorithms.masking import IGNORE_INDEX
from fromnoise.data.loader import stream_batch
from fromnoise.data.packing import Batch
from fromnoise.evaluate.intervals import Estimate, ratio
from fromnoise.model.compiled import uncompiled

if TYPE_CHECKING:  # names for the reader; nothing here needs the classes at run time
    from fromnoise.data.shards import TokenShards
    from fromnoise.data.tokenizer import Tokenizer
    from fromnoise.model.transformer import Transformer

Autocast = Callable[[], AbstractContextManager]
ENDOFTEXT_ID = 1  # of this program's own tokenizers; a document stream begins with it


def bits_per_byte(*args, **settings) -> dict[str, float]:
    """Bits per byte of each source of `shards`, and under "all" their mean weighted by each source's bytes. Arguments as `scored_rows`."""
    rows = scored_rows(*args, **settings)
    return {source: sum(weight * _bits(nats, num_bytes) for nats, num_bytes, weight in parts) for source, parts in _parts(rows).items()}


def summarise(name: str, rows: Sequence[dict], seed: int) -> dict[str, Estimate]:
    """`bits_per_byte/NAME/SOURCE`: the numbers of `bits_per_byte`, the interval by drawing rows anew within each source."""
    bits = {source: [(nats / math.log(2), num_bytes, weight) for nats, num_bytes, weight in parts] for source, parts in _parts(rows).items()}
    return {f"bits_per_byte/{name}/{source}": ratio(parts, seed, method="bootstrap over rows of held-out text") for source, parts in bits.items()}


def _parts(rows: Sequence[dict]) -> dict[str, list[tuple[np.ndarray, np.ndarray, float]]]:
    """For each source, and for "all": [(nats (n,), bytes (n,), weight), ...], weights summing to 1."""
    found = {}
    for source in dict.fromkeys(row["source"] for row in rows):
        own = [row for row in rows if row["source"] == source]
        found[source] = np.array([row["nats"] for row in own]), np.array([row["bytes"] for row in own]), own[0]["source_bytes"]
    total = sum(weight for _, _, weight in found.values())
    parts = {source: [(nats, num_bytes, 1.0)] for source, (nats, num_bytes, _) in found.items()}
    return parts | ({"all": [(nats, num_bytes, weight / total) for nats, num_bytes, weight in found.values()]} if found else {})


def _bits(nats: np.ndarray, num_bytes: np.ndarray) -> float:
    return float(nats.sum() / math.log(2) / num_bytes.sum())


def scored_rows(
    model: Transformer,
    shards: TokenShards,
    token_bytes: np.ndarray,
    max_tokens: int,
    batch_rows: int,
    row_tokens: int,
    autocast: Autocast = nullcontext,
    forward: Callable[..., Tensor] | None = None,
    endoftext_id: int = ENDOFTEXT_ID,
) -> list[dict]:
    """One {"source", "nats", "bytes", "tokens", "source_bytes"} a row: what its tokens cost, the bytes they stand for, how many they
    are, and the bytes of its whole source. Rows without a byte are left out.

    token_bytes (V,): bytes each token stands for, 0 for special tokens. The stream of each source is cut into rows of
    `row_tokens` targets, as in training (a row that begins inside a document lacks what came before it, so longer rows
    read lower). When there is more text than `max_tokens`, evenly spaced rows are taken, each source in proportion to
    its tokens and at least one row; they are the same rows at every call. Each chosen byte is counted once.
    Batches always have the shape (batch_rows, row_tokens), the last one filled up, so that a compiled model
    meets no new shape; `forward` is the compiled form of `model` where there is one. (No switch to eval mode: these models
    have no dropout, and the switch would make the compiler start again.)
    """
    forward, device = forward or model, model.head_weight.device
    token_bytes = np.asarray(token_bytes, dtype=np.int64)
    source_bytes: dict[str, int] = {}
    rows: list[tuple[str, np.ndarray]] = []
    sizes = {source: len(shards.tokens(source)) for source in shards.sources}
    total = sum(sizes.values())
    for source, size in sizes.items():
        if size == 0:
            continue
        source_bytes[source] = _count_bytes(shards.tokens(source), token_bytes)
        share = max(1, int(max_tokens * size / total / row_tokens))
        rows.extend((source, row) for row in _rows(shards.tokens(source), row_tokens, share, endoftext_id))
    found = []
    with torch.no_grad():
        for at in range(0, len(rows), batch_rows):
            chunk = rows[at : at + batch_rows]
            batch, num_bytes = _window_batch([row for _, row in chunk], token_bytes, (batch_rows, row_tokens), endoftext_id)
            batch = batch.to(device)
            with autocast():
                hidden = forward(batch.input_ids, batch.position_ids, batch.segment_ids)
                logprobs, _ = linear_logprobs_and_entropy(hidden, model.head_weight, batch.labels, with_entropy=False, counted=batch.num_targets)
            row_nats = logprobs.double().sum(dim=1).neg().tolist()
            for (source, _), nats, of_tokens in zip(chunk, row_nats, num_bytes, strict=False):  # behind the chunk the batch is filled up
                one = {"source": source, "nats": nats, "bytes": int(of_tokens.sum()), "tokens": int((of_tokens > 0).sum())}
                found.append(one | {"source_bytes": source_bytes[source]})
    return [row for row in found if row["bytes"]]


def _window_batch(rows: Sequence[np.ndarray], token_bytes: np.ndarray, shape: tuple[int, int], endoftext_id: int) -> tuple[Batch, np.ndarray]:
    """Rows of the stream as one Batch of a fixed shape, and (B, T) the bytes each label stands for, 0 where none counts:
    at `<|endoftext|>` and past the end of a row's text."""
    num_rows, row_tokens = shape
    filling = 0 if endoftext_id else 1  # any id but <|endoftext|>, at each of which a segment would begin
    window = np.full((num_rows, row_tokens + 1), filling, dtype=np.int64)
    for b, row in enumerate(rows):
        window[b, : len(row)] = row
    labels = window[:, 1:].copy()
    num_bytes = token_bytes[labels]
    for b in range(num_rows):
        num_bytes[b, len(rows[b]) - 1 if b < len(rows) else 0 :] = 0
    labels[num_bytes == 0] = IGNORE_INDEX
    return stream_batch(window[:, :-1], labels, endoftext_id), num_bytes


def _rows(tokens: np.ndarray, row_tokens: int, count: int, endoftext_id: int) -> Iterator[np.ndarray]:
    """At most `count` evenly spaced windows of row_tokens + 1 tokens of the stream `<|endoftext|>` + tokens."""
    available = -(-len(tokens) // row_tokens)
    chosen = range(available) if count >= available else np.unique(np.linspace(0, available - 1, count).astype(np.int64))
    for index in chosen:
        start = int(index) * row_tokens  # targets start .. start + row_tokens; the input before the first is start - 1
        piece = np.asarray(tokens[max(start - 1, 0) : start + row_tokens], dtype=np.int64)
        yield np.concatenate([[endoftext_id], piece]) if start == 0 else piece


def _count_bytes(tokens: np.ndarray, token_bytes: np.ndarray, chunk: int = 1 << 20) -> int:
    return sum(int(token_bytes[np.asarray(tokens[at : at + chunk])].sum()) for at in range(0, len(tokens), chunk))


def probes(model: Transformer, tokenizer: Tokenizer, texts: Sequence[str], max_new_tokens: int = 24) -> list[dict]:
    """For each beginning: the five likeliest next tokens with their probabilities, and the greedy continuation.

    Returns [{"text", "top5": [(token, probability), ...], "completion"}]. Runs in fp32 without compiled code (short
    rows of a growing length would make the compiler compile each length), a few dozen forward passes for all texts
    together. Rows are padded on the right: with causal attention what stands after a position cannot change it.
    """
    if not texts:
        return []
    device = model.head_weight.device
    prompts = [tokenizer.encode_beginning(text) for text in texts]
    width = max(map(len, prompts)) + max_new_tokens
    ids = torch.full((len(prompts), width), tokenizer.pad_id, dtype=torch.int64)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)] = torch.tensor(prompt)
    ids = ids.to(device)
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    rows = torch.arange(len(prompts), device=device)
    stopped = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    known = len(tokenizer)  # the vocabulary is padded; ids beyond stand for nothing
    top5: list[list[tuple[str, float]]] = []
    with torch.no_grad(), uncompiled():
        for step in range(max_new_tokens):
            hidden = model(ids[:, : int(lengths.max())])
            logits = model.logits(hidden[rows, lengths - 1]).float()
            if step == 0:
                top5 = _top5(logits, tokenizer, known)
            following = logits[:, :known].argmax(dim=-1)
            stopped |= following == tokenizer.endoftext_id
            if bool(stopped.all()):
                break
            ids[rows, lengths] = torch.where(stopped, ids[rows, lengths], following)
            lengths = torch.where(stopped, lengths, lengths + 1)
    return [
        {"text": text, "top5": top5[row], "completion": tokenizer.decode(ids[row, len(prompts[row]) : int(lengths[row])].tolist())}
        for row, text in enumerate(texts)
    ]


def _top5(logits: Tensor, tokenizer: Tokenizer, known: int) -> list[list[tuple[str, float]]]:
    """logits (S, V) -> for each row the five likeliest tokens, as text a person can read, and their probabilities."""
    values, indices = logits.softmax(dim=-1)[:, :known].topk(min(5, known), dim=-1)
    return [
        [(tokenizer.decode([i], skip_special=False), round(p, 5)) for p, i in zip(ps, ids, strict=True)]
        for ps, ids in zip(values.tolist(), indices.tolist(), strict=True)
    ]
