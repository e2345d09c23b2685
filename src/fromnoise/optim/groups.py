"""Which optimizer moves which parameter."""

from __future__ import annotations

import torch
from torch import nn

from fromnoise.optim.muon import MuonAdamW
from fromnoise.run.recipe import OptimizerSection


def make_optimizer(model: nn.Module, section: OptimizerSection, matrix_dtype: torch.dtype = torch.bfloat16) -> MuonAdamW:
    """Muon for the matrices inside the layers; AdamW for embeddings, heads (tied, untied, score) and norms.

    An embedding's or a head's rows are looked up by token, most of them untouched in a step: orthogonalising such a
    gradient would move rare tokens as far as common ones. Parameters with requires_grad=False are left out.
    matrix_dtype: of Muon's matrix products, float32 on a machine without fast bf16.
    """
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    muon = {name: parameter for name, parameter in trained.items() if parameter.ndim == 2 and "layers." in name}
    return MuonAdamW(
        muon,
        {name: parameter for name, parameter in trained.items() if name not in muon},
        muon_lr=section.muon_lr,
        adamw_lr=section.adamw_lr,
        muon_momentum=section.muon_momentum,
        adamw_betas=section.adamw_betas,
        weight_decay=section.weight_decay,
        matrix_dtype=matrix_dtype,
    )
