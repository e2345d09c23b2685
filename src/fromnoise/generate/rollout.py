"""Answers with their prompts, in the two forms that learning from preferences needs.

Packed: prompt and answer of each sequence in rows of a fixed shape, for the models; labels count at answer tokens
only. Padded: (S, L), one line an answer, for rewards and advantages. `Answers` goes from one to the other exactly, and
no token is ever encoded again: what the engine sampled is what is scored and trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fromnoise.algorithms.advantages import answer_mask, pack, unpack
from fromnoise.algorithms.logprobs import linear_logprobs_and_entropy
from fromnoise.data.packing import Batch, collate, pack_sharing
from fromnoise.data.tokenizer import Tokenizer
from fromnoise.generate.engine import Engine


@dataclass(frozen=True, slots=True)
class RowShape:
    """The one shape (num_rows, row_tokens) that every forward pass of a stage has, so that it is compiled once."""

    row_tokens: int
    num_rows: int
    pad_id: int
    device: torch.device | str = "cpu"


class Answers:
    """S answers with their prompts. An answer's tokens include the stop token when it has one.

    prompt_ids, answer_ids: S lists of token ids; mask (S, L) is True at an answer's tokens. counted: S lists of bool, False
    where a token of the answer was put there by somebody else (a tool's result): no loss and no sum sees it.
    """

    def __init__(
        self, prompt_ids: Sequence[Sequence[int]], answer_ids: Sequence[Sequence[int]], shape: RowShape, counted: Sequence[Sequence[bool]] | None = None
    ):
        self.prompt_ids, self.answer_ids, self.shape = prompt_ids, answer_ids, shape
        self.sequences = [[*prompt, *answer] for prompt, answer in zip(prompt_ids, answer_ids, strict=True)]
        counted = counted if counted is not None else [[True] * len(answer) for answer in answer_ids]
        self.token_masks = [[False] * len(prompt) + list(own) for prompt, own in zip(prompt_ids, counted, strict=True)]
        prompt_lengths = [len(prompt) for prompt in prompt_ids]
        self.prompt_lengths = torch.tensor(prompt_lengths)
        self.lengths = torch.tensor([len(answer) for answer in answer_ids])
        self.mask = answer_mask(self.lengths)
        self.mask[self.mask.clone()] = torch.tensor([flag for own in counted for flag in own], dtype=torch.bool)
        self.rows, self.num_tokens = pack_sharing(self.sequences, prompt_lengths, shape.row_tokens)  # answers to one prompt, if neighbours, share it

    def batches(self, padded: Mapping[str, Tensor] | None = None, order: Sequence[int] | None = None) -> list[Batch]:
        """Answers in packed batches of the fixed shape; `padded` (S, L) tensors come along as `extra`.

        order: which rows, of `len(self.rows)`; all of them, as packed, when None.
        """
        rows = [self.rows[i] for i in (order if order is not None else range(len(self.rows)))]
        shape = self.shape
        batches = []
        for at in range(0, len(rows), shape.num_rows):
            batch = collate(
                rows[at : at + shape.num_rows], self.sequences, self.token_masks,
                row_tokens=shape.row_tokens, num_rows=shape.num_rows, pad_id=shape.pad_id, prompt_lengths=self.prompt_lengths.tolist(),
            )
            ids, first = batch.sequence_ids, self._first_index(batch)
            for name, values in (padded or {}).items():
                batch.extra[name] = pack(values[ids], first, self.mask[ids], tuple(batch.labels.shape))
            batches.append(batch.to(torch.device(shape.device)))
        return batches

    def minibatches(self, padded: Mapping[str, Tensor], order: Sequence[int], parts: int) -> list[list[Batch]]:
        """The rows in `order`, shared out evenly over at most `parts` lists of batches. By rows, not by batches: a batch that a few
        rows were left for would be an update of its own, on a tenth of the answers."""
        return [self.batches(padded, rows) for rows in split(order, parts)]

    def per_token(self, batches: Sequence[Batch], compute: Callable[[Batch], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """`compute(batch)` gives tensors (B, T) aligned with labels; returned padded, (S, L) each, on the CPU."""
        results: tuple[Tensor, ...] = ()
        for batch in batches:
            found = tuple(values.detach().cpu() for values in compute(batch))
            results = results or tuple(torch.zeros(self.mask.shape, dtype=values.dtype) for values in found)
            ids = batch.sequence_ids.cpu()
            for padded, values in zip(results, found, strict=True):
                padded[ids] = unpack(values, self._first_index(batch), self.mask[ids])
        return results

    def per_answer(self, batches: Sequence[Batch], compute: Callable[[Batch], Tensor]) -> Tensor:
        """`compute(batch)` gives (B, T); returns (S,) on the CPU: its value at each sequence's last token."""
        result = torch.zeros(len(self.sequences))
        for batch in batches:
            values = compute(batch).detach().float().cpu().reshape(-1)
            result[batch.sequence_ids.cpu()] = values[batch.last_index.cpu()]
        return result

    def _first_index(self, batch: Batch) -> Tensor:
        """Flat position whose label is the answer's first token: that of the prompt's last token."""
        return batch.start_index.cpu() + self.prompt_lengths[batch.sequence_ids.cpu()] - 1 - batch.shared_tokens.cpu()


class Rollout(NamedTuple):
    answers: Answers
    stopped: Tensor  # (S,) bool
    sampler_logprobs: Tensor  # (S, L), the engine's own; for their gap to the trainer's, never for the loss


def sample(engine: Engine, prompts: Sequence[dict], tokenizer: Tokenizer, sampling, seed: int, shape: RowShape) -> Rollout:
    """One answer for each prompt (records with `ids`), drawn from the whole distribution at the recipe's temperature."""
    stops = set(tokenizer.chat_stop_ids)
    found = engine.generate([prompt["ids"] for prompt in prompts], sampling.max_new_tokens, stops, sampling, seed)
    answers = Answers([prompt["ids"] for prompt in prompts], [generation.token_ids for generation in found], shape)
    logprobs = torch.zeros(answers.mask.shape)
    logprobs[answers.mask] = torch.tensor([value for generation in found for value in generation.logprobs], dtype=torch.float32)
    return Rollout(answers, torch.tensor([generation.stopped for generation in found]), logprobs)


@torch.no_grad()
def answer_logprobs(model, answers: Answers, batches: Sequence[Batch], temperature: float, autocast) -> tuple[Tensor, Tensor]:
    """(logprobs, entropy), (S, L) each, in nats, of the distribution that was sampled from (temperature applied)."""

    def compute(batch: Batch) -> tuple[Tensor, Tensor]:
        with autocast():
            hidden = model(batch.input_ids, batch.position_ids, batch.segment_ids)
            return linear_logprobs_and_entropy(hidden, model.head_weight, batch.labels, temperature, counted=batch.num_targets)

    return answers.per_token(batches, compute)


def normalised_values(model, batch: Batch, autocast) -> Tensor:
    """(B, T) of a ScoreModel's output in units of its normalisation, (score - mean) / std; differentiable."""
    with autocast():
        scores = model(batch.input_ids, batch.position_ids, batch.segment_ids)
    return (scores - model.mean) / model.std


@torch.no_grad()
def answer_values(critic, answers: Answers, batches: Sequence[Batch], autocast) -> Tensor:
    """(S, L): the critic's value before each answer token."""
    return answers.per_token(batches, lambda batch: (normalised_values(critic, batch, autocast),))[0]


@torch.no_grad()
def answer_scores(reward_model, answers: Answers, batches: Sequence[Batch], autocast) -> Tensor:
    """(S,): the normalised score of each answer, read at its last token."""
    return answers.per_answer(batches, lambda batch: normalised_values(reward_model, batch, autocast))


def penalised_scores(scores: Tensor, stopped: Tensor, missing_stop_penalty: float) -> Tensor:
    """min(score, 0) - penalty for an answer that never stopped, the score itself otherwise. All (S,).

    The reward model has hardly seen answers cut in the middle, so what it says of one is not to be trusted upwards:
    otherwise a policy can earn more by never stopping than by answering. After the missing-EOS penalty of Huang et
    al. 2024 (arXiv 2403.17031), which replaces the score; taking the minimum keeps a bad answer bad.
    """
    return torch.where(stopped, scores, scores.clamp(max=0.0) - missing_stop_penalty)


def rollout_scores(model, found: Rollout, missing_stop_penalty: float, autocast) -> Tensor:
    """(S,): what a reward model's score of each answer is worth, the penalty for not stopping included."""
    return penalised_scores(answer_scores(model, found.answers, found.answers.batches(), autocast), found.stopped, missing_stop_penalty)


def shuffled_rows(num_rows: int, seed: int) -> list[int]:
    return np.random.default_rng(seed).permutation(num_rows).tolist()


def split(items: Sequence, parts: int) -> list[Sequence]:
    """Items in at most `parts` groups of nearly equal size, in order, none of them empty."""
    parts = min(parts, len(items))
    bounds = [round(i * len(items) / parts) for i in range(parts + 1)] if items else []
    return [items[a:b] for a, b in pairwise(bounds)]
