"""Random weights: the noise that everything starts from.

Residual output projections (`o_proj`, `down_proj`) and an untied head start at zero and norms at one, so that at step
0 each block passes its input on and the loss is the entropy of guessing, ln V. The other matrices are normal with
variance 1 / fan-in. A tied embedding cannot be zero and is drawn small instead: after the final norm a hidden state
has length sqrt(D), so logits have standard deviation std * sqrt(D), which adds std^2 * D / 2 to the loss, and the
input token's own logit would stand out by std * D.
"""

from __future__ import annotations

import torch
from torch import nn

from fromnoise.model.transformer import Transformer

TIED_EMBEDDING_STD = 0.002
UNTIED_EMBEDDING_STD = 1.0


@torch.no_grad()
def initialize(model: Transformer, seed: int) -> Transformer:
    """Fill `model` in place, a pure function of the seed and the shapes; returns it."""
    generator = torch.Generator().manual_seed(seed)

    def normal_(parameter: nn.Parameter, std: float) -> None:
        parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float32).mul_(std))

    tied = model.config.tie_embeddings
    normal_(model.embed_tokens.weight, TIED_EMBEDDING_STD if tied else UNTIED_EMBEDDING_STD)
    for layer in model.layers:
        attention, ffn = layer.self_attn, layer.mlp
        for matrix in (attention.q_proj, attention.k_proj, attention.v_proj, ffn.gate_proj, ffn.up_proj):
            normal_(matrix.weight, matrix.weight.shape[1] ** -0.5)
        for matrix in (attention.o_proj, ffn.down_proj):
            matrix.weight.zero_()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.fill_(1.0)
    if not tied:
        model.lm_head.weight.zero_()
    return model
