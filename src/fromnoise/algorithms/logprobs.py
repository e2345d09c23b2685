"""Log-probabilities of labels under a linear head, without ever holding the whole batch's logits.

With N tokens and V vocabulary entries the logits are the largest tensor of a training step by far (4,096 x 4,096
fp32 is 64 MB here, 512 MB at a vocabulary of 32k), and they are needed for one number a token. So both functions
below walk over the tokens in chunks, and drop the rows whose label does not count before the first product.

Precision: the products run in the autocast dtype when autocast is on (bf16 on CPU), everything after them in fp32
(float64 stays float64), gradients of the weight are summed over chunks in fp32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fromnoise.algorithms.masking import IGNORE_INDEX

# Measured at D = 192, V = 4,096 on 2 Zen 5 cores, 4,096 tokens forward and backward: 51 ms in chunks of 256, 67 of
# 1,024, 99 of 4,096, 124 for plain F.cross_entropy. On a CPU a chunk must stay in cache; a GPU wants large products.
CHUNK_TOKENS_CPU, CHUNK_TOKENS_GPU = 256, 4096


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


def _chunk(chunk_tokens: int | None, hidden: Tensor) -> int:
    return chunk_tokens or (CHUNK_TOKENS_CPU if hidden.device.type == "cpu" else CHUNK_TOKENS_GPU)


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


class _LinearCrossEntropy(torch.autograd.Function):
    """nll per token, with the gradients of their plain sum computed in the forward pass, while the logits are hot.

    Training sums the losses and divides by one count, so backward arrives with the same number for every token and
    only has to scale: no second product to recompute the logits (a quarter of the head's time). When the incoming
    gradient does differ between tokens, the chunks are computed again with it.
    """

    @staticmethod
    def forward(ctx, hidden, weight, labels, chunk_tokens, with_grads):
        keep = (labels != IGNORE_INDEX).nonzero(as_tuple=True)[0]
        options = (chunk_tokens, _product_dtype(hidden), _sum_dtype(hidden))
        ctx.options = options
        nll, grad_hidden, grad_weight = _cross_entropy_chunks(hidden, weight, labels, keep, None, with_grads, options)
        ctx.save_for_backward(hidden, weight, labels, keep, grad_hidden, grad_weight)
        return nll

    @staticmethod
    def backward(ctx, grad_nll):
        hidden, weight, labels, keep, grad_hidden, grad_weight = ctx.saved_tensors
        kept = grad_nll[keep]
        if len(kept) == 0:
            return grad_hidden, grad_weight, None, None, None
        if bool((kept == kept[0]).all()):
            scale = kept[0]
            return grad_hidden * scale.to(grad_hidden.dtype), grad_weight * scale.to(grad_weight.dtype), None, None, None
        _, grad_hidden, grad_weight = _cross_entropy_chunks(hidden, weight, labels, keep, grad_nll, True, ctx.options)
        return grad_hidden, grad_weight, None, None, None


def _cross_entropy_chunks(hidden, weight, labels, keep, token_grads, with_grads, options):
    """(nll (N,), d sum_i g_i nll_i / d hidden (N, D), the same / d weight (V, D)); g_i = 1 when token_grads is None."""
    chunk_tokens, dtype, acc = options
    plain = acc == torch.float32 and with_grads and token_grads is None
    fused = _compiled_nll_and_gradient if plain and hidden.is_cuda else None
    native = native_nll_and_gradient if plain and hidden.device.type == "cpu" and dtype == torch.bfloat16 else None
    nll = torch.zeros(labels.shape, dtype=acc, device=hidden.device)
    grad_hidden = torch.zeros_like(hidden) if with_grads else None
    grad_weight = torch.zeros(weight.shape, dtype=acc, device=weight.device) if with_grads else None
    with torch.autocast(hidden.device.type, enabled=False):
        w = weight.to(dtype)
        for rows in keep.split(chunk_tokens):
            h, y = hidden[rows].to(dtype), labels[rows]
            if fused and len(rows) == chunk_tokens:  # the last chunk has another length in every batch, and would be compiled each time
                nll[rows], grad = fused(h @ w.t(), y)
            elif native:
                grad, found = h @ w.t(), nll.new_empty(len(rows))
                native(grad, y, found)
                nll[rows] = found
            else:
                logits = (h @ w.t()).to(acc)
                probs, lse = _softmax(logits)
                nll[rows] = (lse - logits.gather(1, y[:, None])).squeeze(1)
                if not with_grads:
                    continue
                probs[torch.arange(len(rows), device=probs.device), y] -= 1.0
                grad = (probs if token_grads is None else probs.mul_(token_grads[rows, None])).to(dtype)
            grad_hidden[rows] = (grad @ w).to(hidden.dtype)
            grad_weight += grad.t() @ h
    return nll, grad_hidden, grad_weight.to(weight.dtype) if with_grads else None


def linear_cross_entropy(hidden: Tensor, weight: Tensor, labels: Tensor, chunk_tokens: int | None = None) -> Tensor:
    """nll of labels' shape, in nats and fp32 (float64 for float64), 0 where IGNORE_INDEX. The training path.

    hidden (..., D), weight (V, D), labels (...) int64. Equals `F.cross_entropy(hidden @ weight.T, labels,
    reduction="none")`, values and gradients. Fastest when summed, as every language-model loss here is.
    """
    flat, flat_labels = _flat(hidden, labels)
    with_grads = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    nll = _LinearCrossEntropy.apply(flat, weight, flat_labels, _chunk(chunk_tokens, flat), with_grads)
    return nll.reshape(labels.shape)


class _LinearLogprobs(torch.autograd.Function):
    """Per-token log-probability and entropy; the logits are recomputed chunk by chunk in backward.

    A policy-gradient loss is not linear in the log-probabilities, so their gradients are unknown until backward.
    """

    @staticmethod
    def forward(ctx, hidden, weight, labels, inverse_temperature, with_entropy, chunk_tokens):
        dtype, acc = _product_dtype(hidden), _sum_dtype(hidden)
        keep = (labels != IGNORE_INDEX).nonzero(as_tuple=True)[0]
        logprobs = torch.zeros(labels.shape, dtype=acc, device=hidden.device)
        entropy = torch.zeros_like(logprobs)
        with torch.autocast(hidden.device.type, enabled=False):
            w = weight.to(dtype)
            for rows in keep.split(chunk_tokens):
                logits = (hidden[rows].to(dtype) @ w.t()).to(acc).mul_(inverse_temperature)
                probs, lse = _softmax(logits)
                logprobs[rows] = (logits.gather(1, labels[rows, None]) - lse).squeeze(1)
                if with_entropy:
                    entropy[rows] = torch.linalg.vecdot(probs, lse - logits)
        ctx.save_for_backward(hidden, weight, labels, keep, entropy)
        ctx.options = (inverse_temperature, with_entropy, chunk_tokens, dtype, acc)
        return logprobs, entropy

    @staticmethod
    def backward(ctx, grad_logprobs, grad_entropy):
        hidden, weight, labels, keep, entropy = ctx.saved_tensors
        inverse_temperature, with_entropy, chunk_tokens, dtype, acc = ctx.options
        grad_hidden = torch.zeros_like(hidden)
        grad_weight = torch.zeros(weight.shape, dtype=acc, device=weight.device)
        use_entropy = with_entropy and bool((grad_entropy != 0).any())
        with torch.autocast(hidden.device.type, enabled=False):
            w = weight.to(dtype)
            for rows in keep.split(chunk_tokens):
                h, y = hidden[rows].to(dtype), labels[rows, None]
                logits = (h @ w.t()).to(acc).mul_(inverse_temperature)
                probs, lse = _softmax(logits)
                g = grad_logprobs[rows, None]
                grad = probs * -g  # d logprob_y / d logit_j = 1[j = y] - p_j
                grad[torch.arange(len(rows), device=grad.device), y.squeeze(1)] += g.squeeze(1)
                if use_entropy:  # d H / d logit_j = -p_j (log p_j + H)
                    grad -= grad_entropy[rows, None] * probs * (logits - lse + entropy[rows, None])
                grad = grad.mul_(inverse_temperature).to(dtype)
                grad_hidden[rows] = (grad @ w).to(hidden.dtype)
                grad_weight += grad.t() @ h
        return grad_hidden, grad_weight.to(weight.dtype), None, None, None, None


def linear_logprobs_and_entropy(
    hidden: Tensor, weight: Tensor, labels: Tensor, temperature: float = 1.0, with_entropy: bool = True,
    chunk_tokens: int | None = None,
) -> tuple[Tensor, Tensor]:
    """(logprobs, entropy), both of labels' shape, in nats; 0 where the label is IGNORE_INDEX.

    hidden (..., D), weight (V, D), labels (...) int64. Logits are divided by `temperature` first, as the sampler
    does: the policy that is trained is the one that was sampled. Both outputs are differentiable.
    """
    flat, flat_labels = _flat(hidden, labels)
    chunk = _chunk(chunk_tokens, flat)
    logprobs, entropy = _LinearLogprobs.apply(flat, weight, flat_labels, 1.0 / temperature, with_entropy, chunk)
    return logprobs.reshape(labels.shape), entropy.reshape(labels.shape)


def token_logprobs(logits: Tensor, labels: Tensor, temperature: float = 1.0) -> Tensor:
    """logits (..., V), labels (...) -> log-probability of each label, 0 where IGNORE_INDEX. The plain form, for tests."""
    logp = torch.log_softmax(logits.to(_sum_dtype(logits)) / temperature, dim=-1)
    picked = logp.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return torch.where(labels != IGNORE_INDEX, picked, torch.zeros_like(picked))


def kl_estimates(logprobs: Tensor, ref_logprobs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """k1, k2, k3: three estimates of KL(policy || reference) from samples of the policy, each of the inputs' shape.

    With r = log pi(x) - log ref(x): k1 = r (unbiased, can be negative), k2 = r^2 / 2 (biased, low variance),
    k3 = exp(-r) - 1 + r (unbiased and never negative). Schulman, "Approximating KL divergence" (2020),
    http://joschu.net/blog/kl-approx.html.
    """
    log_ratio = logprobs - ref_logprobs
    return log_ratio, 0.5 * log_ratio**2, torch.expm1(-log_ratio) + log_ratio
