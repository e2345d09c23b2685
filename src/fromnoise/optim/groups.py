"""Which optimizer moves which parameter, at what rate, and how long it takes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from fromnoise.algorithms.schedules import lr_scale
from fromnoise.optim.muon import MuonAdamW
from fromnoise.run.machine import Machine
from fromnoise.run.recipe import OptimizerSection
from fromnoise.run.update import Loss


def make_optimizer(model: nn.Module, section: OptimizerSection, matrix_dtype: torch.dtype) -> MuonAdamW:
    """Muon for the matrices inside the layers, unless `section.matrices` is "adamw"; AdamW for embeddings, heads (tied, untied, score) and norms.

    An embedding's or a head's rows are looked up by token, most of them untouched in a step: orthogonalising such a
    gradient would move rare tokens as far as common ones. Parameters with requires_grad=False are left out.
    matrix_dtype: of Muon's matrix products: what the model's own run in, `Machine.torch_dtype`. A processor without bf16 products
    takes a hundred times as long for them (Zen 3: 0.9 GFLOP/s beside 87 in fp32), so there is no default to fall into.
    """
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    by_muon = section.matrices == "muon"
    muon = {name: parameter for name, parameter in trained.items() if by_muon and parameter.ndim == 2 and "layers." in name}
    return MuonAdamW(
        muon,
        {name: parameter for name, parameter in trained.items() if name not in muon},
        muon_lr=section.muon_lr,
        adamw_lr=section.adamw_lr,
        embedding_lr=section.embedding_lr,
        muon_momentum=section.muon_momentum,
        adamw_betas=section.adamw_betas,
        weight_decay=section.weight_decay,
        matrix_dtype=matrix_dtype,
    )


def scheduled(section: OptimizerSection, step: int, num_steps: int) -> float:
    """The factor of the section's rates at a step, counted from 0."""
    return lr_scale(step, num_steps, section.warmup_frac, section.decay_frac, section.final_lr_frac)


def step_seconds(model: nn.Module, section: OptimizerSection, machine: Machine) -> float:
    """Seconds of one optimizer step, tried on a copy of the model: the model itself stays as it is."""
    trial = copy.deepcopy(model)
    for parameter in trial.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer = make_optimizer(trial, section, machine.torch_dtype)
    return machine.seconds_of(lambda: optimizer.step(lr_scale=0.0))


def measured_step_s(
    model: nn.Module, section: OptimizerSection, machine: Machine, micro_batches: Callable[[], Sequence], losses: Callable[..., Mapping[str, Loss]]
) -> float:
    """Seconds of a training step, compiling left out: its micro-batches made and passed forward and backward, and the optimizer's part.
    Weights and random state are untouched, gradients are dropped."""

    def backward() -> None:
        for batch in micro_batches():
            sum(part.sum for part in losses(batch).values()).backward()

    seconds = machine.seconds_of(backward) + step_seconds(model, section, machine)
    model.zero_grad(set_to_none=True)
    return seconds
