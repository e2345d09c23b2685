"""Speed that changes the result does not count: the training path (bf16 products where the machine is fast in them, packed rows, batched Muon, a loss without
logits, micro-batches) against a plain fp32 loop that uses none of our code but the initial weights.

The reference never packs (documents of one length go through together), takes PyTorch's softmax, cross entropy, Muon and AdamW, and sums one loss.
"""

import math
from functools import cache

import pytest
import torch
import torch.nn.functional as F

from fromnoise.algorithms.logprobs import linear_cross_entropy
from fromnoise.data.packing import collate
from fromnoise.model.compiled import autocast, compile_blocks
from fromnoise.model.config import ModelConfig
from fromnoise.model.initialize import initialize
from fromnoise.model.transformer import Transformer
from fromnoise.optim.groups import make_optimizer
from fromnoise.run.machine import choose, measure
from fromnoise.run.recipe import OptimizerSection, Recipe
from fromnoise.run.update import Loss, update

V, T, ROWS = 128, 64, 16
# Rates at which the reference's own curve, started from weights off by a millionth, stays within 0.0012 nats; at 0.02 and
# 0.01 with half the batch that alone makes 0.005: the rounding of Newton-Schulz in bf16 grows faster than it is corrected.
MUON_LR, ADAMW_LR = 0.01, 0.003
NUM_STEPS, WINDOW = 120, 20
CONFIG = ModelConfig(vocab_size=V, num_layers=2, width=64, num_heads=2, num_kv_heads=2, head_size=32, ffn_width=128)


def documents(step):
    """Two documents a row: a walk in which each token has four successors, the second half a copy of the first."""
    successors = torch.randint(0, V, (V, 4), generator=torch.Generator().manual_seed(0)).tolist()
    generator = torch.Generator().manual_seed(1000 + step)
    found = []
    for _ in range(ROWS):
        for length in (24, 40):
            choices = torch.randint(0, 4, (length // 2,), generator=generator).tolist()
            ids = [choices[0]]
            for choice in choices[1:]:
                ids.append(successors[ids[-1]][choice])
            found.append(ids + ids)
    return found


def schedule(step, num_steps):
    return min(1.0, (step + 1) / 10) * min(1.0, 2 * (num_steps - step) / num_steps)


def reference_curve(num_steps):
    model = initialize(Transformer(CONFIG), 0)
    w = dict(model.named_parameters())
    matrices = [p for name, p in w.items() if p.ndim == 2 and "layers." in name]
    others = [p for name, p in w.items() if not (p.ndim == 2 and "layers." in name)]
    muon = torch.optim.Muon(matrices, lr=MUON_LR, weight_decay=0.0, momentum=0.95, adjust_lr_fn="original")
    adamw = torch.optim.AdamW(others, lr=ADAMW_LR, betas=(0.9, 0.95), weight_decay=0.0)

    def norm(x, name):
        return F.rms_norm(x, (x.shape[-1],), w[name], CONFIG.rms_norm_eps)

    def rotate(x):  # (N, H, T, K)
        half = x.shape[-1] // 2
        angle = torch.arange(x.shape[2])[:, None] / CONFIG.rope_theta ** (torch.arange(half) / half)
        a, b = x.split(half, -1)
        return torch.cat((a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()), -1)

    def nll(ids):  # (N, T)
        x = w["embed_tokens.weight"][ids[:, :-1]]
        for i in range(CONFIG.num_layers):
            p = f"layers.{i}."
            h = norm(x, p + "input_layernorm.weight")
            q, k, v = ((h @ w[f"{p}self_attn.{n}_proj.weight"].T).unflatten(-1, (-1, CONFIG.head_size)).transpose(1, 2) for n in "qkv")
            q, k = rotate(norm(q, p + "self_attn.q_norm.weight")), rotate(norm(k, p + "self_attn.k_norm.weight"))
            hidden = torch.ones(h.shape[1], h.shape[1], dtype=torch.bool).triu(1)
            weights = (q @ k.mT / math.sqrt(CONFIG.head_size)).masked_fill(hidden, -math.inf).softmax(-1)
            x = x + (weights @ v).transpose(1, 2).flatten(2) @ w[p + "self_attn.o_proj.weight"].T
            h = norm(x, p + "post_attention_layernorm.weight")
            gate, up = (h @ w[f"{p}mlp.{n}_proj.weight"].T for n in ("gate", "up"))
            x = x + (F.silu(gate) * up) @ w[p + "mlp.down_proj.weight"].T
        return F.cross_entropy((norm(x, "norm.weight") @ w["embed_tokens.weight"].T).flatten(0, 1), ids[:, 1:].flatten(), reduction="sum")

    curve = []
    for step in range(num_steps):
        found = documents(step)
        for optimizer, lr in ((muon, MUON_LR), (adamw, ADAMW_LR)):
            optimizer.zero_grad()
            optimizer.param_groups[0]["lr"] = lr * schedule(step, num_steps)
        loss = (nll(torch.tensor(found[::2])) + nll(torch.tensor(found[1::2]))) / sum(len(ids) - 1 for ids in found)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(w.values(), 1.0)
        muon.step()
        adamw.step()
        curve.append(float(loss.detach()))
    return torch.tensor(curve)


@cache
def machine_dtype():
    """What a stage would choose on this machine: where bf16 products are emulated they take a hundred times as long. Measured
    when a test asks, not while tests are collected."""
    return choose(Recipe(compile="off"), measure("cpu", torch.get_num_threads()), 0.0).torch_dtype


def fast_curve(num_steps, compiled=False, see_other_documents=False, device="cpu"):
    dtype = machine_dtype() if device == "cpu" else torch.bfloat16
    model = initialize(Transformer(CONFIG), 0).to(device)
    if compiled:
        compile_blocks(model)
    optimizer = make_optimizer(model, OptimizerSection(muon_lr=MUON_LR, adamw_lr=ADAMW_LR), dtype)

    def losses(batch):
        with autocast(dtype, device):
            hidden = model(batch.input_ids, batch.position_ids, None if see_other_documents else batch.segment_ids)
            total = linear_cross_entropy(hidden, model.head_weight, batch.labels)
        return {"loss": Loss(total, batch.num_targets, "token")}

    curve = []
    for step in range(num_steps):
        found = documents(step)
        rows = [[2 * row, 2 * row + 1] for row in range(ROWS)]
        batches = [collate(rows[at : at + 8], found, None, row_tokens=T, num_rows=8, pad_id=0).to(device) for at in (0, 8)]
        stats = update(
            list(model.parameters()), optimizer, batches, losses, {"loss": sum(b.num_targets for b in batches)},
            lr_scale=schedule(step, num_steps), max_grad_norm=1.0,
        )  # fmt: skip
        curve.append(stats.losses["loss"])
    return torch.tensor(curve)


def distances(found, expected):
    """(largest difference of the running means, relative difference of the last means)."""
    smooth = [curve.unfold(0, WINDOW, 1).mean(-1) for curve in (found, expected)]
    return float((smooth[0] - smooth[1]).abs().max()), float((smooth[0][-1] / smooth[1][-1] - 1).abs())


@pytest.fixture(scope="module")
def expected():
    return reference_curve(NUM_STEPS)


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_fast_path_follows_the_plain_loop(expected, compiled):
    assert expected[:3].mean() > 4.5 and expected[-WINDOW:].mean() < 2.5  # it learns, so there is a curve to follow
    largest, final = distances(fast_curve(NUM_STEPS, compiled=compiled), expected)
    assert largest < 0.01
    assert final < 0.005


def test_a_broken_twin_does_not(expected):
    largest, final = distances(fast_curve(NUM_STEPS, see_other_documents=True), expected)
    assert largest > 0.01 or final > 0.005
