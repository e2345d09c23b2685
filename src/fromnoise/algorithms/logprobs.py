"""Log-probabilities of labels under a linear head, without ever holding the whole batch's logits.

With N tokens and V vocabulary entries the logits are the largest tensor of a training step by far (4,096 x 4,096
fp32 is 64 MB here, 512 MB at a vocabulary of 32k), and they are needed for one number a token. So both functions
below walk over the tokens in chunks, and leave out those whose label does not count before the first product.

`counted` is how many labels count, where the caller knows (`Batch.targets`). Without it a GPU has to be asked, which holds
up the processor until all that was queued is done: 13 of 123 ms of a step of 12 layers x 768 on an H200, with what
followed from it.

Precision: the products run in the autocast dtype when autocast is on (bf16 on CPU), everything after them in fp32
(float64 stays float64), gradients of the weight are summed over chunks in fp32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fromnoise.algorithms.masking import IGNORE_INDEX

# Measured at D = 192, V = 4,096 on 2 Zen 5 cores, 4,096 tokens forward and backward: 51 ms in chunks of 256, 67 of
# 1,024, 99 of 4,096, 124 for plain F.cross_entropy. On a CPU a chunk must stay in cache; a GPU wants large products
# (D = 768, V = 8,192, an H200: chunks of 16,384 tokens for 4,096 took 8.7 ms from a step of 123).
CHUNK_TOKENS_CPU, CHUNK_LOGITS_GPU = 256, 2**27


_compiled_nll_and_gradient = None  # set by `compile_loss`
native_nll_and_gradient = None  # set by run/machine.py: cross_entropy.cpp, f(logits, labels, nll) for bf16 on a CPU


def compile_loss() -> None:
    """For a GPU, where passes over the logits take longer than the products that make them: at D = 768 and V = 32,768 the head's
    forward and backward pass ran at 31 % of an H200's peak with the operators of `_softmax` one by one."""
    global _compiled_nll_and_gradient
    _compiled_nll_and_gradient = _compiled_nll_and_gradient or torch.compile(_nll_and_gradient, fullgraph=True, dynamic=False)


def _nll_and_gradient(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """logits (N, V), labels (N,) -> nll (N,) in fp32 and d nll / d logits in the logits' dtype; wider numbers stay in registers."""
    wide = logits.float()
    lse = wide.logsumexp(-1, keepdim=True)
    nll = (lse - wide.gather(1, labels[:, None])).squeeze(1)
    own = torch.arange(logits.shape[1], device=logits.device) == labels[:, None]
    return nll, ((wide - lse).exp() - own.float()).to(logits.dtype)


def _chunk_size(chunk_tokens: int | None, hidden: Tensor, weight: Tensor) -> int:
    return chunk_tokens or (CHUNK_TOKENS_CPU if hidden.device.type == "cpu" else max(256, CHUNK_LOGITS_GPU // len(weight) // 256 * 256))


def _product_dtype(hidden: Tensor) -> torch.dtype:
    device = hidden.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype


def _sum_dtype(hidden: Tensor) -> torch.dtype:
    return torch.promote_types(hidden.dtype, torch.float32)


def _flat(hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    if hidden.shape[:-1] != labels.shape:
        raise ValueError(f"hidden {tuple(hidden.shape)} and labels {tuple(labels.shape)} do not belong together")
    return hidden.reshape(-1, hidden.shape[-1]), labels.reshape(-1)


def _softmax(logits: Tensor) -> tuple[Tensor, Tensor]:
    """(softmax, logsumexp) of logits (N, V) over the last axis, the latter (N, 1), with one exponential a logit.

    The exponentials are the dearest part after the products, and torch's softmax takes each once, in one pass over a row
    that stays in cache. The likeliest entry's probability is exp(0) / sum, so logsumexp = max - log(that) to the last bit.
    """
    probs = logits.softmax(dim=-1)
    return probs, logits.amax(dim=-1, keepdim=True) - probs.amax(dim=-1, keepdim=True).log()


def _places(labels: Tensor, counted: int | None) -> Tensor | None:
    """Where labels (N,) count, ascending; None where all do."""
    if counted == len(labels):
        return None
    mask = labels != IGNORE_INDEX
    if counted is not None and labels.is_cuda:
        return torch.nonzero_static(mask, size=counted).squeeze(1)
    places = mask.nonzero().squeeze(1)
    if counted not in (None, len(places)):
        raise ValueError(f"{counted} labels were said to count, and {len(places)} do")
    return None if len(places) == len(labels) else places


def _taken(values: Tensor, places: Tensor | None) -> Tensor:
    return values if places is None else values[places]


def _spread(values: Tensor, places: Tensor | None, count: int) -> Tensor:
    """values (n, ...) of the counted tokens -> (count, ...), 0 elsewhere."""
    if places is None:
        return values
    whole = values.new_zeros((count, *values.shape[1:]))
    whole[places] = values
    return whole


def _chunks(count: int, size: int) -> list[slice]:
    return [slice(at, at + size) for at in range(0, count, size)]


class _LinearCrossEntropy(torch.autograd.Function):
    """The summed nll, with its gradients computed in the forward pass, while the logits are hot.

    The sum is what every language-model loss here is made of, and its gradient is one number: backward only has to scale, and
    no second product recomputes the logits (a quarter of the head's time).
    """

    @staticmethod
    def forward(ctx, hidden, weight, labels, counted, chunk_tokens, with_grads):
        places = _places(labels, counted)
        nll, grad_hidden, grad_weight = _cross_entropy_chunks(_taken(hidden, places), weight, _taken(labels, places), chunk_tokens, with_grads, places is None)
        if with_grads:
            ctx.save_for_backward(_spread(grad_hidden, places, len(labels)), grad_weight)
        return nll.sum()

    @staticmethod
    def backward(ctx, scale):
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden * scale.to(grad_hidden.dtype), grad_weight * scale.to(grad_weight.dtype), None, None, None, None


def _cross_entropy_chunks(hidden, weight, labels, chunk_tokens, with_grads, steady):
    """(nll (n,), d sum nll / d hidden (n, D), the same / d weight (V, D)) where all labels count. steady: n is the same in each batch;
    otherwise the last chunk has another length each time, for which nothing is compiled."""
    dtype, acc = _product_dtype(hidden), _sum_dtype(hidden)
    plain = acc == torch.float32 and with_grads
    fused = _compiled_nll_and_gradient if plain and hidden.is_cuda else None
    native = native_nll_and_gradient if plain and hidden.device.type == "cpu" and dtype == torch.bfloat16 else None
    nll = torch.empty(labels.shape, dtype=acc, device=hidden.device)
    grad_hidden = torch.empty_like(hidden) if with_grads else None
    grad_weight = torch.zeros(weight.shape, dtype=acc, device=weight.device) if with_grads else None
    with torch.autocast(hidden.device.type, enabled=False):
        w = weight.to(dtype)
        for rows in _chunks(len(labels), chunk_tokens):
            h, y = hidden[rows].to(dtype), labels[rows]
            if fused and (steady or len(y) == chunk_tokens):
                nll[rows], grad = fused(h @ w.t(), y)
            elif native:
                grad = h @ w.t()
                native(grad, y, nll[rows])
            else:
                logits = (h @ w.t()).to(acc)
                probs, lse = _softmax(logits)
                nll[rows] = (lse - logits.gather(1, y[:, None])).squeeze(1)
                if not with_grads:
                    continue
                probs[torch.arange(len(y), device=probs.device), y] -= 1.0
                grad = probs.to(dtype)
            grad_hidden[rows] = grad @ w
            grad_weight += grad.t() @ h
    return nll, grad_hidden, grad_weight.to(weight.dtype) if with_grads else None


def linear_cross_entropy(hidden: Tensor, weight: Tensor, labels: Tensor, counted: int | None = None, chunk_tokens: int | None = None) -> Tensor:
    """Summed nll of the labels that count, in nats, fp32 (float64 for float64), 0-d. The training path.

    hidden (..., D), weight (V, D), labels (...) int64. Equals `F.cross_entropy(hidden @ weight.T, labels, reduction="sum")`,
    value and gradients. Loss by token: `linear_logprobs_and_entropy`.
    """
    flat, flat_labels = _flat(hidden, labels)
    with_grads = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    return _LinearCrossEntropy.apply(flat, weight, flat_labels, counted, _chunk_size(chunk_tokens, flat, weight), with_grads)


class _LinearLogprobs(torch.autograd.Function):
    """Per-token log-probability and entropy; the logits are recomputed chunk by chunk in backward.

    A policy-gradient loss is not linear in the log-probabilities, so their gradients are unknown until backward.
    """

    @staticmethod
    def forward(ctx, hidden, weight, labels, inverse_temperature, with_entropy, counted, chunk_tokens):
        places = _places(labels, counted)
        own_hidden, own_labels = _taken(hidden, places), _taken(labels, places)
        dtype, acc = _product_dtype(hidden), _sum_dtype(hidden)
        logprobs = torch.empty(own_labels.shape, dtype=acc, device=hidden.device)
        entropy = torch.zeros_like(logprobs)
        with torch.autocast(hidden.device.type, enabled=False):
            w = weight.to(dtype)
            for rows in _chunks(len(own_labels), chunk_tokens):
                logits = (own_hidden[rows].to(dtype) @ w.t()).to(acc).mul_(inverse_temperature)
                probs, lse = _softmax(logits)
                logprobs[rows] = (logits.gather(1, own_labels[rows, None]) - lse).squeeze(1)
                if with_entropy:
                    entropy[rows] = torch.linalg.vecdot(probs, lse - logits)
        ctx.save_for_backward(own_hidden, weight, own_labels, places, entropy)
        ctx.options = (inverse_temperature, chunk_tokens, dtype, acc, len(labels))
        ctx.set_materialize_grads(False)
        return _spread(logprobs, places, len(labels)), _spread(entropy, places, len(labels))

    @staticmethod
    def backward(ctx, grad_logprobs, grad_entropy):
        hidden, weight, labels, places, entropy = ctx.saved_tensors
        inverse_temperature, chunk_tokens, dtype, acc, count = ctx.options
        if grad_logprobs is None:
            grad_logprobs = torch.zeros(count, dtype=acc, device=hidden.device)
        grad_logprobs = _taken(grad_logprobs, places)
        grad_entropy = None if grad_entropy is None else _taken(grad_entropy, places)
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros(weight.shape, dtype=acc, device=weight.device)
        with torch.autocast(hidden.device.type, enabled=False):
            w = weight.to(dtype)
            for rows in _chunks(len(labels), chunk_tokens):
                h, y = hidden[rows].to(dtype), labels[rows, None]
                logits = (h @ w.t()).to(acc).mul_(inverse_temperature)
                probs, lse = _softmax(logits)
                g = grad_logprobs[rows, None]
                grad = probs * -g  # d logprob_y / d logit_j = 1[j = y] - p_j
                grad[torch.arange(len(y), device=grad.device), y.squeeze(1)] += g.squeeze(1)
                if grad_entropy is not None:  # d H / d logit_j = -p_j (log p_j + H)
                    grad -= grad_entropy[rows, None] * probs * (logits - lse + entropy[rows, None])
                grad = grad.mul_(inverse_temperature).to(dtype)
                grad_hidden[rows] = grad @ w
                grad_weight += grad.t() @ h
        return _spread(grad_hidden, places, count), grad_weight.to(weight.dtype), None, None, None, None, None


def linear_logprobs_and_entropy(
    hidden: Tensor, weight: Tensor, labels: Tensor, temperature: float = 1.0, with_entropy: bool = True,
    counted: int | None = None, chunk_tokens: int | None = None,
) -> tuple[Tensor, Tensor]:
    """(logprobs, entropy), both of labels' shape, in nats; 0 where the label is IGNORE_INDEX.

    hidden (..., D), weight (V, D), labels (...) int64. Logits are divided by `temperature` first, as the sampler
    does: the policy that is trained is the one that was sampled. Both outputs are differentiable.
    """
    flat, flat_labels = _flat(hidden, labels)
    chunk = _chunk_size(chunk_tokens, flat, weight)
    logprobs, entropy = _LinearLogprobs.apply(flat, weight, flat_labels, 1.0 / temperature, with_entropy, counted, chunk)
    return logprobs.reshape(labels.shape), entropy.reshape(labels.shape)


def kl_estimates(logprobs: Tensor, ref_logprobs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """k1, k2, k3: three estimates of KL(policy || reference) from samples of the policy, each of the inputs' shape.

    With r = log pi(x) - log ref(x): k1 = r (unbiased, can be negative), k2 = r^2 / 2 (biased, low variance),
    k3 = exp(-r) - 1 + r (unbiased and never negative). Schulman, "Approximating KL divergence" (2020),
    http://joschu.net/blog/kl-approx.html.
    """
    log_ratio = logprobs - ref_logprobs
    return log_ratio, 0.5 * log_ratio**2, torch.expm1(-log_ratio) + log_ratio
