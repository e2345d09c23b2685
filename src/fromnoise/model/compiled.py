"""Autocast and compilation, applied to a model from outside."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from fromnoise.algorithms.logprobs import compile_loss
from fromnoise.model.heads import ScoreEnsemble, ScoreModel
from fromnoise.model.transformer import Transformer, block_forward

_compiled_block = None


def autocast(dtype: torch.dtype, device: str = "cpu") -> AbstractContextManager:
    """The context in which a model computes in `dtype`; nothing at all for float32."""
    return nullcontext() if dtype == torch.float32 else torch.autocast(device, dtype=dtype)


def uncompiled() -> AbstractContextManager:
    """The context in which a model's blocks run as they are written, for shapes that will not come again. Where nothing was compiled
    it is none, and the compiler is not imported (two seconds of every start)."""
    return nullcontext() if _compiled_block is None else torch.compiler.set_stance("force_eager")


def compile_blocks(model: Transformer | ScoreModel | ScoreEnsemble) -> None:
    """Compile the model's block: one piece of code for all its layers, and for every later model of its shapes.

    Compiling happens at the first forward and backward pass of each (B, T) (on a GPU also of each padded number of segments and of
    each form of attention), fixed shapes only: automatic dynamic
    shapes depend on what ran before, and a resumed run would compile other code than the uninterrupted one.
    """
    global _compiled_block
    if _compiled_block is None:
        torch._dynamo.config.recompile_limit = 64
        _compiled_block = torch.compile(block_forward, fullgraph=True, dynamic=False)
    compile_loss()
    for one in model.members if isinstance(model, ScoreEnsemble) else (model,):
        backbone = one.backbone if isinstance(one, ScoreModel) else one
        backbone.block_forward = _compiled_block
