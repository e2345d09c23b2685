"""Small models with every weight random, norms included: an initialised one has zero matrices that would hide mistakes."""

from __future__ import annotations

import torch

from fromnoise.model.config import ModelConfig
from fromnoise.model.transformer import Transformer


def config(**changes) -> ModelConfig:
    shape = {"vocab_size": 256, "num_layers": 2, "width": 64, "num_heads": 4, "num_kv_heads": 2, "head_size": 32, "ffn_width": 96}
    return ModelConfig(**({**shape, "context_tokens": 128} | changes))


@torch.no_grad()
def randomise(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.copy_(noise * 0.1 if parameter.ndim > 1 else 1 + 0.3 * noise)
    return model


def random_model(seed: int = 0, **changes) -> Transformer:
    return randomise(Transformer(config(**changes)), seed)


def random_ids(*shape: int, seed: int = 1, low: int = 0, high: int = 256) -> torch.Tensor:
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(seed))
