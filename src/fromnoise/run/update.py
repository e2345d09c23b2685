"""The one optimizer step: every stage that trains calls `update`, nothing else divides a loss.

Losses return a sum and a count. A mean of means over micro-batches or ranks would weigh a short micro-batch's tokens
more than a long one's, so counts are added over all micro-batches and ranks first and each sum is divided by that
total once. Eight micro-batches of one row are then the same step as one of eight, and one rank the same as two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

import torch
from torch import Tensor

from fromnoise.data.packing import Batch
from fromnoise.parallel.process import Process
from fromnoise.run.errors import UserError

MicroBatch = TypeVar("MicroBatch")


class Loss(NamedTuple):
    sum: Tensor  # 0-d, float32, differentiable
    count: float  # how many units the sum runs over in this micro-batch
    unit: Literal["token", "sequence", "pair"]


@dataclass(frozen=True, slots=True)
class UpdateStats:
    losses: dict[str, float]  # global means, one for each named loss
    grad_norm: float  # before clipping, over all parameters
    skipped: bool  # True when the loss or a gradient was not finite: the weights did not change


def update(
    parameters: Sequence[Tensor],
    optimizer,
    micro_batches: Sequence[MicroBatch],
    losses: Callable[[MicroBatch], Mapping[str, Loss]],
    counts: Mapping[str, float],
    *,
    lr_scale: float,
    max_grad_norm: float,
    weights: Mapping[str, float] | None = None,
    process: Process | None = None,
) -> UpdateStats:
    """Gradient of sum_i weight_i * sum_i / count_i over all micro-batches and ranks, clipped, applied.

    counts: for each loss name, this rank's number of units over all of `micro_batches`, known from the masks before any
    forward pass. Names of `losses(batch)` must equal those of `counts`; their counts must add up to it (ValueError).
    A non-finite loss or gradient leaves weights and optimizer state as they were and returns skipped=True.
    """
    process = process or Process.single()
    names = sorted(counts)
    totals = process.all_reduce_sum(torch.tensor([float(counts[name]) for name in names], dtype=torch.float64))
    # a count may be well below 1, where it is a sum of weights; 0 means that nothing counts
    total = {name: float(value) if value > 0 else 1.0 for name, value in zip(names, totals, strict=True)}
    optimizer.zero_grad(set_to_none=True)
    sums = dict.fromkeys(names, 0.0)
    seen = dict.fromkeys(names, 0.0)
    for batch in micro_batches:
        parts = losses(batch)
        objective = sum((weights or {}).get(name, 1.0) * part.sum / total[name] for name, part in parts.items())
        objective.backward()
        for name, part in parts.items():
            sums[name] = sums[name] + part.sum.detach()  # stays a tensor: no synchronisation inside the loop
            seen[name] += part.count
    for name in names:
        if abs(seen[name] - counts[name]) > 1e-6 * max(1.0, abs(counts[name])):
            raise ValueError(f"loss {name!r} counted {seen[name]} units where {counts[name]} were announced")
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    process.all_reduce_grads(grads)
    # as numbers: a loss of which this rank holds nothing has no tensor, and no device
    reduced = process.all_reduce_sum(torch.tensor([float(sums[name]) for name in names], dtype=torch.float64))
    means = {name: float(value) / total[name] for name, value in zip(names, reduced, strict=True)}
    grad_norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
    finite = bool(torch.isfinite(grad_norm)) and all(value == value and abs(value) != float("inf") for value in means.values())
    if finite:
        clip = (max_grad_norm / (grad_norm + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_(grads, clip)
        optimizer.step(lr_scale=lr_scale)
    return UpdateStats(losses=means, grad_norm=float(grad_norm), skipped=not finite)


class NonFiniteGuard:
    """Keeps what made an update non-finite, counts such updates, and stops the stage after a few.

    All micro-batches of the update and the random state go to `nonfinite-step-N-K.safetensors` in the stage's folder: K counts
    such updates, of which an iteration may have several. Ranks beside the main one write their own, `-rank-R` behind the name.
    """

    def __init__(self, folder: Path, rank: int = 0, *, limit: int = 3, count: int = 0):
        self.folder, self.rank, self.limit, self.count = folder, rank, limit, count

    def check(self, step: int, stats: UpdateStats, batches: Sequence[Batch]) -> None:
        if not stats.skipped:
            return
        from safetensors.torch import save_file

        self.count += 1
        kept = self.folder / f"nonfinite-step-{step}-{self.count}{f'-rank-{self.rank}' if self.rank else ''}.safetensors"
        tensors = {"torch_rng_state": torch.get_rng_state()}
        for number, batch in enumerate(batches):
            parts = {name: getattr(batch, name) for name in ("input_ids", "labels", "position_ids", "segment_ids")} | batch.extra
            # clones: safetensors takes neither views nor tensors that share memory
            tensors |= {f"{number}/{name}": tensor.clone(memory_format=torch.contiguous_format) for name, tensor in parts.items()}
        save_file(tensors, kept)
        if self.count >= self.limit:
            raise UserError(
                f"{self.count} updates had a non-finite loss or gradient (the last at step {step}, losses {stats.losses}); "
                f"weights are as before it and its micro-batches are in {kept}. A lower learning rate or dtype=float32 usually helps."
            )
