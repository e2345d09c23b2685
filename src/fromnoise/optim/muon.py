"""Muon for the matrices inside the blocks, AdamW for embeddings, heads and vectors.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) replaces a matrix's momentum M = U S V^T by about
U V^T: every direction is moved by the same amount. The orthogonalisation is five Newton-Schulz steps, nothing but
matrix products, here batched over all matrices of one shape (a tall matrix is transposed and joins the wide ones): on
a small model the products of single matrices are too small to keep the machine busy.

The update equals `torch.optim.Muon` with `adjust_lr_fn="original"`: the rate of an (A, B) matrix is multiplied by
sqrt(max(1, A / B)), which keeps the update's effect on a layer's outputs independent of the shape. The alternative,
"match_rms_adamw", lets AdamW's rates be reused; we have a rate for each anyway, and a rate found at one width carries
over to another only with the former.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.optim.adamw import adamw as fused_adamw

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
NUM_STEPS = 5
NORM_EPS = 1e-7
EMBEDDING = "embed_tokens.weight"


def orthogonalize(matrices: Tensor, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """matrices (N, R, C) with R <= C, fp32 -> about U V^T of each, singular values in 0.7 to 1.2; in `dtype`.

    bf16 is enough (the iteration corrects its own errors) and is what the reference does; on a machine without fast
    bf16 products fp32 is quicker.
    """
    a, b, c = COEFFICIENTS
    x = matrices.to(dtype)
    x = x / torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True).clamp_(min=NORM_EPS)
    for _ in range(NUM_STEPS):
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


class MatrixGroup:
    """All matrices of one shape, up to transposition, with their momenta in one tensor."""

    def __init__(self, names: Sequence[str], parameters: Sequence[Tensor]):
        self.names, self.parameters = list(names), list(parameters)
        self.flipped = [parameter.shape[0] > parameter.shape[1] for parameter in parameters]
        self.ratios = [math.sqrt(max(1.0, parameter.shape[0] / parameter.shape[1])) for parameter in parameters]
        short, long = sorted(parameters[0].shape)
        self.momentum = torch.zeros(len(parameters), short, long, dtype=torch.float32, device=parameters[0].device)

    def oriented(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Views of `tensors`, one a parameter, with the short side first; its own inverse."""
        return [tensor.mT if flip else tensor for tensor, flip in zip(tensors, self.flipped, strict=True)]

    def step(self, lr: float, momentum: float, weight_decay: float, dtype: torch.dtype) -> None:
        grads = torch.stack(self.oriented([parameter.grad for parameter in self.parameters]))
        self.momentum.lerp_(grads, 1 - momentum)
        updates = orthogonalize(grads.lerp_(self.momentum, momentum), dtype)  # Nesterov
        if weight_decay:
            torch._foreach_mul_(self.parameters, 1 - lr * weight_decay)
        # Scaled in fp32: the factor differs between a shape and its transpose, and bf16 would round it.
        scales = torch.tensor([-lr * ratio for ratio in self.ratios], device=updates.device).view(-1, 1, 1)
        torch._foreach_add_(self.parameters, self.oriented((updates * scales).unbind()))


class AdamWGroup:
    """AdamW (Loshchilov and Hutter 2019) on parameters of one rate and one decay, by torch's fused kernel.

    In its functional form: the first `torch.optim.Optimizer` of a process imports the whole compiler, two seconds of every start.
    """

    def __init__(self, parameters: Mapping[str, Tensor], lr: float, betas: tuple[float, float], weight_decay: float):
        self.names, self.parameters = list(parameters), list(parameters.values())
        self.lr, self.betas, self.weight_decay = lr, betas, weight_decay
        self.state = {
            "step": [torch.zeros((), dtype=torch.float32, device=parameter.device) for parameter in self.parameters],  # the fused kernel reads it there
            "exp_avg": [torch.zeros_like(parameter) for parameter in self.parameters],
            "exp_avg_sq": [torch.zeros_like(parameter) for parameter in self.parameters],
        }

    def step(self, lr_scale: float) -> None:
        exp_avgs, exp_avg_sqs, steps = (self.state[name] for name in ("exp_avg", "exp_avg_sq", "step"))
        fused_adamw(
            self.parameters, [parameter.grad for parameter in self.parameters], exp_avgs, exp_avg_sqs, [], steps, fused=True, amsgrad=False, maximize=False,
            beta1=self.betas[0], beta2=self.betas[1], lr=self.lr * lr_scale, weight_decay=self.weight_decay, eps=1e-8,
        )  # fmt: skip


class MuonAdamW:
    """One object for all parameters of a model, stepped together.

    muon, adamw: parameters by name. embedding_lr: AdamW's rate for the embedding where it is not that of all the rest; a
    table that starts at 1 and moves by a hundredth a step is all but fixed (docs/lab-notebook.md). Weight decay is decoupled
    and falls on everything with two axes; vectors (norms) are never decayed. Every parameter must have a gradient at `step`.
    """

    def __init__(
        self,
        muon: Mapping[str, Tensor],
        adamw: Mapping[str, Tensor],
        *,
        muon_lr: float,
        adamw_lr: float,
        embedding_lr: float | None = None,
        muon_momentum: float = 0.95,
        adamw_betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.0,
        matrix_dtype: torch.dtype = torch.bfloat16,
    ):
        by_shape: dict[tuple[int, ...], list[str]] = {}
        for name, parameter in muon.items():
            if parameter.ndim != 2:
                raise ValueError(f"Muon is for matrices; {name} has {parameter.ndim} axes")
            by_shape.setdefault(tuple(sorted(parameter.shape)), []).append(name)
        self.groups = [MatrixGroup(names, [muon[name] for name in names]) for names in by_shape.values()]
        self.muon_lr, self.muon_momentum, self.weight_decay = muon_lr, muon_momentum, weight_decay
        self.matrix_dtype = matrix_dtype
        self.parameters = [*muon.values(), *adamw.values()]
        by_setting: dict[tuple[float, float], dict[str, Tensor]] = {}
        for name, parameter in adamw.items():
            lr = embedding_lr if embedding_lr is not None and name.endswith(EMBEDDING) else adamw_lr
            by_setting.setdefault((lr, weight_decay if parameter.ndim > 1 else 0.0), {})[name] = parameter
        self.adamw_groups = [AdamWGroup(parameters, lr, adamw_betas, decay) for (lr, decay), parameters in by_setting.items()]

    def zero_grad(self, set_to_none: bool = True) -> None:
        for parameter in self.parameters:
            if set_to_none:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad.zero_()

    @torch.no_grad()
    def step(self, lr_scale: float = 1.0) -> None:
        """One update with all learning rates multiplied by `lr_scale`, the schedule's value."""
        for group in self.groups:
            group.step(self.muon_lr * lr_scale, self.muon_momentum, self.weight_decay, self.matrix_dtype)
        for group in self.adamw_groups:
            group.step(lr_scale)

    def state_tensors(self) -> dict[str, Tensor]:
        """The whole state by parameter name: `momentum.NAME` for Muon's, `exp_avg.NAME`, `exp_avg_sq.NAME` and `step.NAME`
        for AdamW's. Copies, so that saving in the background is safe."""
        state = {}
        for group in self.groups:
            for name, momentum in zip(group.names, group.oriented(group.momentum.unbind()), strict=True):
                state[f"momentum.{name}"] = momentum.clone(memory_format=torch.contiguous_format)
        for group in self.adamw_groups:
            for key, values in group.state.items():
                state |= {f"{key}.{name}": value.clone() for name, value in zip(group.names, values, strict=True)}
        return state

    @torch.no_grad()
    def load_state_tensors(self, state: Mapping[str, Tensor]) -> None:
        """Take over a state from `state_tensors`. Raises KeyError or ValueError when it is another model's."""
        unread = set(state)
        for group in self.groups:
            for name, momentum in zip(group.names, group.oriented(group.momentum.unbind()), strict=True):
                _copy(momentum, state, f"momentum.{name}", unread)
        for group in self.adamw_groups:
            for key, values in group.state.items():
                for name, value in zip(group.names, values, strict=True):
                    _copy(value, state, f"{key}.{name}", unread)
        if unread:
            raise ValueError(f"optimizer state of parameters that this model lacks: {sorted(unread)[:3]}")


def _copy(target: Tensor, state: Mapping[str, Tensor], key: str, unread: set[str]) -> None:
    if target.shape != state[key].shape:
        raise ValueError(f"optimizer state {key} has shape {tuple(state[key].shape)}, not {tuple(target.shape)}")
    target.copy_(state[key])
    unread.remove(key)
