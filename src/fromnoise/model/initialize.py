"""Random weights: the noise that everything starts from.

Residual output projections (`o_proj`, `down_proj`) and an untied head start at zero and norms at one, so that at step
0 each block passes its input on and the loss is the entropy of guessing, ln V. The other matrices are normal with
variance 1 / fan-in.

A tied embedding cannot be zero. Drawn very small (0.002) it gives ln V as well, but the optimizer's first steps, 0.02 in
every coordinate and nearly alike for all tokens that a batch lacks, then make rare tokens into one and the same vector, and
a token that is hardly told apart from others cannot be copied. So it is drawn large, as an untied one is, and the final norm
starts small instead: an input token's own logit then stands out by norm * std * D, 0.4 here at any width. (Repeated random
tokens, docs/lab-notebook.md: copied after 250 steps; from 0.2 not after 300.)
"""

from __future__ import annotations

import torch
from torch import nn

from fromnoise.model.transformer import Transformer

OWN_LOGIT = 0.4  # by which an input token's own logit stands out at first, when head and embedding are one
EMBEDDING_STD = 1.0


@torch.no_grad()
def initialize(model: Transformer, seed: int) -> Transformer:
    """Fill `model` in place, a pure function of the seed and the shapes; returns it."""
    generator = torch.Generator().manual_seed(seed)

    def normal_(parameter: nn.Parameter, std: float) -> None:
        parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float32).mul_(std))

    tied = model.config.tie_embeddings
    normal_(model.embed_tokens.weight, EMBEDDING_STD)
    for layer in model.layers:
        attention, ffn = layer.self_attn, layer.mlp
        for matrix in (attention.q_proj, attention.k_proj, attention.v_proj, ffn.gate_proj, ffn.up_proj):
            normal_(matrix.weight, matrix.weight.shape[1] ** -0.5)
        for matrix in (attention.o_proj, ffn.down_proj):
            matrix.weight.zero_()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.fill_(1.0)
    if tied:
        model.norm.weight.fill_(OWN_LOGIT / (EMBEDDING_STD * model.config.width))
    else:
        model.lm_head.weight.zero_()
    return model
