"""DPO and GRPO here and in TRL, from the same weights, token ids, order and optimizer, in fp32.

TRL wants its own environment: FROMNOISE_PEERS_PYTHON names a Python that has it (`pip install trl datasets`), else the
Python of the tests must. `pytest -m peers tests/peers`.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from fromnoise.algorithms.advantages import group_relative
from fromnoise.algorithms.logprobs import linear_logprobs_and_entropy
from fromnoise.algorithms.losses import grpo
from fromnoise.algorithms.masking import loss_mask_of
from fromnoise.data.tokenizer import Tokenizer
from fromnoise.evaluate.records import write_jsonl
from fromnoise.generate.rollout import Answers, RowShape, answer_logprobs
from fromnoise.model.config import ModelConfig
from fromnoise.model.hf import load_model, save_model
from fromnoise.model.initialize import initialize
from fromnoise.model.transformer import Transformer
from fromnoise.optim.muon import MuonAdamW
from fromnoise.run.recipe import Recipe
from fromnoise.run.update import update
from fromnoise.stages.rlhf_offline import Pairs

pytestmark = pytest.mark.peers
PYTHON = os.environ.get("FROMNOISE_PEERS_PYTHON") or (sys.executable if find_spec("trl") else None)
if PYTHON is None:
    pytest.skip("TRL is not installed here and FROMNOISE_PEERS_PYTHON names no Python that has it", allow_module_level=True)


def model_folder(folder: Path) -> Tokenizer:
    texts = [f"{a} plums and {b} pears make {a + b} fruits, says Mara." for a in range(30) for b in range(20)]
    tokenizer = Tokenizer.train(texts, 320)
    config = ModelConfig(vocab_size=tokenizer.vocab_size, num_layers=2, width=64, num_heads=1, num_kv_heads=1, head_size=64, ffn_width=128, qk_norm=True,
                         tie_embeddings=True, rope_theta=1e4, rms_norm_eps=1e-6, context_tokens=64)  # fmt: skip
    model = initialize(Transformer(config), seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    save_model(folder / "model", model, tokenizer, eos_ids=[tokenizer.im_end_id])
    return tokenizer


def other_side(what: str, folder: Path, case: dict) -> dict:
    (folder / "case.json").write_text(json.dumps(case))
    done = subprocess.run([PYTHON, str(Path(__file__).with_name("trl_side.py")), what, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return json.loads((folder / "trl.json").read_text())


@pytest.mark.parametrize(("variant", "normalised", "beta"), [("sigmoid", False, 0.1), ("ipo", True, 0.2)])
def test_fifty_steps_of_dpo(tmp_path, variant, normalised, beta):
    """TRL's IPO is of mean log-probabilities: ours with length_normalised. Its sigmoid loss (1.16) takes no label smoothing."""
    tokenizer, rng, steps, size = model_folder(tmp_path), random.Random(1), 50, 4
    draw = lambda count: [rng.randrange(8, tokenizer.vocab_size) for _ in range(count)]  # noqa: E731
    pairs = [{"prompt_ids": draw(rng.randint(3, 8)), "answers": [{"token_ids": [*draw(rng.randint(1, 12)), tokenizer.im_end_id]} for _ in range(2)],
              "chosen": rng.randrange(2), "rater": None, "share": "reward", "split": "train", "weight": 1.0} for _ in range(steps * size)]  # fmt: skip
    pairs = [{"prompt_id": str(number), **pair} for number, pair in enumerate(pairs)]
    write_jsonl(tmp_path / "prefer" / "pairs.jsonl", pairs)
    case = {"beta": beta, "variant": variant, "batch_pairs": size, "steps": steps, "lr": 3e-3, "betas": [0.9, 0.95], "eps": 1e-8,
            "pairs": [{"prompt_ids": p["prompt_ids"], "chosen_ids": p["answers"][p["chosen"]]["token_ids"],
                       "rejected_ids": p["answers"][1 - p["chosen"]]["token_ids"]} for p in pairs]}  # fmt: skip
    theirs = other_side("dpo", tmp_path, case)["losses"]

    policy, reference = load_model(tmp_path / "model"), load_model(tmp_path / "model")
    section = {"beta": beta, "variant": variant, "length_normalised": normalised}
    ctx = SimpleNamespace(path=lambda name: tmp_path / name, seed=0, machine=SimpleNamespace(autocast=nullcontext),
                          recipe=Recipe.model_validate({"rlhf": {"dpo": section}}))  # fmt: skip
    data = Pairs(ctx, RowShape(64, 8, tokenizer.pad_id), reference, [])
    optimizer = MuonAdamW({}, dict(policy.named_parameters()), muon_lr=0.0, adamw_lr=3e-3, adamw_betas=(0.9, 0.95))
    ours = []
    for step in range(steps):
        batches = [data._batch(list(range(step * size, (step + 1) * size)))]
        losses = lambda batch: data.losses(policy, batch, [])  # noqa: E731
        stats = update(list(policy.parameters()), optimizer, batches, losses, data.counts(batches), lr_scale=1.0, max_grad_norm=1.0)
        ours.append(stats.losses["loss"])
    assert len(theirs) == steps and ours[0] != pytest.approx(ours[-1], abs=1e-2)  # something was learnt
    assert max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) < 1e-3


@pytest.mark.parametrize("kl_by_ratio", [True, False])
def test_the_loss_and_gradients_of_grpo(tmp_path, kl_by_ratio):
    """TRL's grpo, bnpo and dr_grpo are our means by sequence, token and constant; its KL term with and without the ratio."""
    tokenizer, rng, group, prompts, temperature, longest = model_folder(tmp_path), random.Random(2), 4, 3, 0.8, 10
    policy, draw = load_model(tmp_path / "model"), lambda count: [rng.randrange(8, 300) for _ in range(count)]
    prompt_ids = [ids for _ in range(prompts) for ids in [draw(rng.randint(2, 6))] for _ in range(group)]
    answer_ids = [[*draw(rng.randint(0, longest - 1)), tokenizer.im_end_id] for _ in prompt_ids]
    answers = Answers(prompt_ids, answer_ids, RowShape(64, 4, tokenizer.pad_id))
    rewards = torch.tensor([[rng.gauss(0, 1) for _ in range(group)] for _ in range(prompts)])
    advantages = group_relative(rewards, divide_by_std=True, eps=1e-4).reshape(-1)  # TRL adds 1e-4 to the deviation
    torch.testing.assert_close(advantages.reshape(prompts, group), (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4))
    now, _ = answer_logprobs(policy, answers, answers.batches(), temperature, nullcontext)
    generator = torch.Generator().manual_seed(3)
    old, ref = (torch.where(answers.mask, now + scale * torch.randn(now.shape, generator=generator), 0.0) for scale in (0.3, 0.2))
    width, wide = answers.mask.shape[1], max(map(len, prompt_ids))
    case = {
        "loss_types": ["grpo", "bnpo", "dr_grpo"], "group": group, "beta": 0.04, "clip": 0.2, "clip_high": 0.28, "max_tokens": longest,
        "temperature": temperature, "kl_by_ratio": kl_by_ratio,
        "prompt_ids": [[tokenizer.pad_id] * (wide - len(ids)) + ids for ids in prompt_ids],
        "prompt_mask": [[0] * (wide - len(ids)) + [1] * len(ids) for ids in prompt_ids],
        "completion_ids": [ids + [tokenizer.pad_id] * (width - len(ids)) for ids in answer_ids], "completion_mask": answers.mask.int().tolist(),
        "advantages": advantages.tolist(), "old_per_token_logps": old.tolist(), "ref_per_token_logps": ref.tolist(),
    }  # fmt: skip
    theirs = other_side("grpo", tmp_path, case)["losses"]
    per_token = advantages[:, None].expand(answers.mask.shape)
    lengths = answers.lengths[:, None].expand(answers.mask.shape)
    for name, aggregation in (("grpo", "sequence"), ("bnpo", "token"), ("dr_grpo", "constant")):
        policy.zero_grad()
        total, count = 0.0, 0.0
        for batch in answers.batches({"old": old, "ref": ref, "advantages": per_token, "lengths": lengths.float()}):
            hidden = policy(batch.input_ids, batch.position_ids, batch.segment_ids)
            logprobs, _ = linear_logprobs_and_entropy(hidden, policy.head_weight, batch.labels, temperature)
            part, units = grpo(logprobs, batch.extra["old"], batch.extra["advantages"], loss_mask_of(batch.labels), clip_ratio=0.2, clip_ratio_high=0.28,
                               aggregation=aggregation, lengths=batch.extra["lengths"], max_tokens=longest, ref_logprobs=batch.extra["ref"], kl_coef=0.04,
                               kl_by_ratio=kl_by_ratio)  # fmt: skip
            total, count = total + part, count + units
        (total / count).backward()
        assert float(total.detach()) / count == pytest.approx(theirs[name], abs=1e-5)
        gradients = load_file(tmp_path / f"grad-{name}.safetensors")
        for key, parameter in policy.named_parameters():
            theirs_here = gradients[key if key in gradients else f"model.{key}"]
            torch.testing.assert_close(parameter.grad, theirs_here, rtol=1e-4, atol=1e-5)
