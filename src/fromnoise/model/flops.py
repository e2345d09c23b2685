"""How much arithmetic a model is: parameters and FLOPs a token.

A multiplication and an addition are two FLOPs. Only matrix products are counted: the rest is memory traffic.
"""

from __future__ import annotations

from fromnoise.model.config import ModelConfig


def num_matrix_parameters(config: ModelConfig) -> int:
    """Parameters that every token is multiplied with: the blocks' matrices and the output head. The input embedding is
    a look-up and not counted; tied, it counts once, as the head."""
    query, key_value = config.num_heads * config.head_size, config.num_kv_heads * config.head_size
    block = config.width * (2 * query + 2 * key_value + 3 * config.ffn_width)
    return config.num_layers * block + config.vocab_size * config.width


def num_parameters(config: ModelConfig) -> int:
    """All parameters, as stored."""
    norms = config.num_layers * (2 * config.width + (2 * config.head_size if config.qk_norm else 0)) + config.width
    embedding = 0 if config.tie_embeddings else config.vocab_size * config.width
    return num_matrix_parameters(config) + embedding + norms


def training_flops_per_token(config: ModelConfig, row_tokens: int) -> float:
    """Forward and backward: 6 N + 6 L T D, N the matrix parameters, D = heads x head size (the width, mostly).

    Attention: a query meets T / 2 keys on average under the causal mask, in two products (scores, mixing) of 2 D FLOPs a
    key: 2 T D forward, and backward costs twice the forward. Packed rows hold shorter sequences, so this over-counts
    what they need; it counts what the row would need as one sequence.
    """
    return 6.0 * num_matrix_parameters(config) + 6.0 * config.num_layers * row_tokens * config.num_heads * config.head_size


def forward_flops(config: ModelConfig, num_tokens: float, row_tokens: int) -> float:
    """One forward pass over tokens that are generated or scored, their prompts included: a third of what training on them takes."""
    return num_tokens * training_flops_per_token(config, row_tokens) / 3
