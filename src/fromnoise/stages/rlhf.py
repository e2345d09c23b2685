"""rlhf: the SFT model, practising answers, moves towards what the reward model scores highly (PPO).

Reads `prefer/` (prompts), `sft/`, `reward/`, `audit/`; writes `rlhf/`. Each iteration: sample answers; score them, and
take the log-probabilities of policy and frozen SFT model and the critic's values once; turn them into a reward for
each token (KL penalty, score at the end) and an advantage (GAE); update policy and critic for a few epochs. Every few
iterations the audit model, which trains nothing, scores answers to prompts kept for it: the checkpoint it likes best
is what `rlhf/` holds.

From rollout to weight update: generate/engine.py -> generate/rollout.py -> this loop -> run/update.py.
Left out: adaptive KL coefficient, pretraining-loss mix, reward whitening. Over-long rule: the oldest turns of a prompt
are cut until it leaves room for an answer, else it is set aside; both counted.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fromnoise.algorithms.advantages import gae, kl_shaped_rewards
from fromnoise.algorithms.logprobs import kl_estimates, linear_logprobs_and_entropy
from fromnoise.algorithms.losses import ppo_policy, ppo_policy_stats, ppo_value
from fromnoise.algorithms.masking import loss_mask_of, masked_mean, masked_sum, masked_variance, masked_whiten
from fromnoise.algorithms.schedules import lr_scale
from fromnoise.data.conversation import fit_prompt
from fromnoise.data.tokenizer import Tokenizer
from fromnoise.evaluate.records import read_jsonl
from fromnoise.generate.engine import Engine
from fromnoise.generate.rollout import (
    Answers,
    RowShape,
    answer_logprobs,
    answer_scores,
    answer_values,
    normalised_values,
    penalised_scores,
    shuffled_rows,
)  # fmt: skip
from fromnoise.model.compiled import compile_blocks
from fromnoise.model.flops import training_flops_per_token
from fromnoise.model.hf import load_model, load_reward, save_model
from fromnoise.optim.groups import make_optimizer
from fromnoise.run.budget import steps_for
from fromnoise.run.errors import UserError
from fromnoise.run.seeds import seed_from
from fromnoise.run.update import Loss, NonFiniteGuard, update


def run(ctx) -> None:
    settings, machine = ctx.recipe.rlhf, ctx.machine
    tokenizer = Tokenizer.load(ctx.path("sft"))
    policy, reference = (load_model(ctx.path("sft")).to(machine.device) for _ in range(2))
    reward_model, audit_model = (load_reward(ctx.path(name)).to(machine.device) for name in ("reward", "audit"))
    critic = load_reward(ctx.path("reward")).to(machine.device)  # its output is in units of the normalised reward
    for model in (policy, reference, reward_model, audit_model, critic) if machine.compile else ():
        compile_blocks(model)
    policy_optimizer, critic_optimizer = (make_optimizer(model, settings.optimizer) for model in (policy, critic))
    engine = Engine(policy, dtype=machine.torch_dtype)
    shape = RowShape(settings.row_tokens, settings.micro_batch_rows, tokenizer.pad_id, machine.device)
    prompts, audit_prompts, counts = divide_prompts(ctx, tokenizer)

    @lru_cache(maxsize=1)  # the first rollout is measured before the loop that uses it
    def rollout(iteration: int) -> Rollout:
        """A pure function of (seed, iteration, policy weights)."""
        chosen = [prompts[i] for i in prompt_order(len(prompts), iteration, settings.rollouts_per_iteration, ctx.seed)]
        return sample(engine, chosen, tokenizer, settings.sampling, seed_from(ctx.seed, "rollout", iteration), shape)

    def scored(model, found: Rollout) -> Tensor:
        scores = answer_scores(model, found.answers, found.answers.batches(), machine.autocast)
        return penalised_scores(scores, found.stopped, settings.missing_stop_penalty)  # (S,)

    def measure() -> float:
        """Seconds of an iteration, compiling left out; no weight changes."""
        start = time.perf_counter()
        batch = rollout(0).answers.batches()[0]
        sample_s, num_rows = time.perf_counter() - start, len(rollout(0).answers.rows)
        for _ in range(2):
            start = time.perf_counter()
            with machine.autocast():
                policy(batch.input_ids, batch.position_ids, batch.segment_ids).float().mean().backward()
        policy_optimizer.zero_grad()
        micro_batches = -(-num_rows // shape.num_rows)  # each seen by two models an epoch, and forward by four
        return sample_s + (time.perf_counter() - start) * micro_batches * (2 * settings.ppo_epochs + 4 / 3)

    iteration_s = ctx.decide("iteration_s", measure)
    num_iterations = steps_for(ctx, "rlhf", settings.num_iterations, iteration_s)
    ctx.checkpoint.plan(iteration_s, settings.checkpoint_every_s)
    ctx.info(f"{len(prompts):,} prompts, {len(audit_prompts)} kept for audits; {num_iterations} iterations of {settings.rollouts_per_iteration} answers")

    best, best_audit, audits, seen_tokens, stopped_early = None, None, [], 0, None
    saved = ctx.checkpoint.load()
    guard = NonFiniteGuard(ctx.folder, count=saved.state["nonfinite"] if saved else 0)
    if saved:
        for name, part in (("policy", policy), ("critic", critic)):
            part.load_state_dict(saved.group(name))
        for name, part in (("policy_optimizer", policy_optimizer), ("critic_optimizer", critic_optimizer)):
            part.load_state_tensors(saved.group(name) or {})  # the policy's has no state yet while the critic warms up
        best, best_audit, audits, seen_tokens = saved.group("best"), *(saved.state[k] for k in ("best_audit", "audits", "seen_tokens"))
        rollout.cache_clear()
        engine.refresh(policy)

    def audit(iteration: int) -> None:
        """Answers to the audit prompts, always with the same noise, scored by the audit model; keeps the best policy."""
        nonlocal best, best_audit
        found = sample(engine, audit_prompts, tokenizer, settings.sampling, seed_from(ctx.seed, "audit"), shape)
        result = {"audit_score": float(scored(audit_model, found).mean()), "audit_reward": float(scored(reward_model, found).mean()),
                  "audit_answer_tokens": float(found.answers.lengths.float().mean()), "audit_stopped_frac": float(found.stopped.float().mean())}  # fmt: skip
        audits.append({"iteration": iteration, **result})
        ctx.log(iteration, **result)
        if best_audit is None or result["audit_score"] > best_audit["audit_score"]:
            best_audit, best = audits[-1], {k: v.clone() for k, v in policy.state_dict().items()}

    token_flops = training_flops_per_token(policy.config, settings.row_tokens)
    with ctx.progress(num_iterations, "iteration", saved.step if saved else 0) as progress:
        for iteration in range(saved.step if saved else 0, num_iterations):
            if iteration % settings.audit_every == 0:
                audit(iteration)
            began = time.perf_counter()
            found = rollout(iteration)
            answers, mask = found.answers, found.answers.mask
            sampled = time.perf_counter()

            # one forward pass of each model: what the answers are worth, and how likely they were
            batches = answers.batches()
            old_logprobs, entropy = answer_logprobs(policy, answers, batches, settings.sampling.temperature, machine.autocast)
            ref_logprobs, _ = answer_logprobs(reference, answers, batches, settings.sampling.temperature, machine.autocast)
            scores = scored(reward_model, found)
            values = answer_values(critic, answers, batches, machine.autocast)
            rewards = kl_shaped_rewards(scores, old_logprobs, ref_logprobs, mask, settings.kl_coef)
            advantages, returns = gae(rewards, values, mask, settings.gamma, settings.gae_lambda)  # (S, L)
            credit = {"old_logprobs": old_logprobs, "advantages": masked_whiten(advantages, mask), "old_values": values, "returns": returns}
            kl_nats = float(masked_sum(old_logprobs - ref_logprobs, mask)) / len(scores)
            measured = time.perf_counter()

            # several passes over the same answers; the clipped losses keep them from going too far
            schedule = settings.optimizer
            scale = lr_scale(iteration, num_iterations, schedule.warmup_frac, schedule.decay_frac, schedule.final_lr_frac)
            trained: list[dict] = []
            for epoch in range(settings.ppo_epochs):
                order = shuffled_rows(len(answers.rows), seed_from(ctx.seed, "rows", iteration, epoch))
                for minibatch in split(answers.batches(credit, order), settings.minibatches):
                    critic_only = iteration < settings.critic_warmup_iterations
                    trained.append(
                        step(minibatch, policy, None if critic_only else policy_optimizer, critic, critic_optimizer, settings, machine, scale, ctx.process)
                    )
                    for name in ("policy", "critic"):
                        if f"{name}_stats" in trained[-1]:
                            guard.check(iteration, trained[-1].pop(f"{name}_stats"), {"input_ids": minibatch[0].input_ids})
            engine.refresh(policy)
            rollout.cache_clear()

            seen_tokens += answers.num_tokens
            ended = time.perf_counter()
            ctx.log(
                iteration, reward=float(scores.mean()), reward_std=float(scores.std(correction=0)), kl_nats=kl_nats,
                kl_k3_nats=float(masked_sum(kl_estimates(old_logprobs, ref_logprobs)[2], mask)) / len(scores),
                entropy_nats=float(masked_mean(entropy, mask)), answer_tokens=float(answers.lengths.float().mean()),
                stopped_frac=float(found.stopped.float().mean()), distinct_frac=len(set(map(tuple, answers.answer_ids))) / len(scores),
                sampler_gap_nats=float(masked_mean((found.sampler_logprobs - old_logprobs).abs(), mask)),
                advantage_std=float(masked_variance(advantages, mask).sqrt()),
                explained_variance=explained_variance(values, returns, mask), **averages(trained), lr_scale=scale, tokens=answers.num_tokens,
                sample_s=sampled - began, score_s=measured - sampled, update_s=ended - measured,
                **ctx.rates(answers.num_tokens * 2 * settings.ppo_epochs, ended - measured, token_flops),
            )  # fmt: skip
            progress.advance(1, reward=float(scores.mean()), kl=kl_nats)
            if kl_nats > settings.max_kl_nats:
                stopped_early = f"KL from the SFT model reached {kl_nats:.1f} nats at iteration {iteration}, over rlhf.max_kl_nats = {settings.max_kl_nats}"
                ctx.info(stopped_early)
                break
            if ctx.checkpoint.due(iteration + 1):
                ctx.checkpoint.save(
                    iteration + 1,
                    {"policy": policy.state_dict(), "critic": critic.state_dict(), "policy_optimizer": policy_optimizer.state_tensors(),
                     "critic_optimizer": critic_optimizer.state_tensors(), "best": best},
                    {"best_audit": best_audit, "audits": audits, "seen_tokens": seen_tokens, "nonfinite": guard.count},
                )  # fmt: skip
    done = iteration + 1 if num_iterations > (saved.step if saved else 0) else num_iterations
    audit(done)
    if best_audit["iteration"] != done:
        last, kept = audits[-1]["audit_score"], best_audit["audit_score"]
        ctx.info(f"audit: the last policy would have been worse ({last:.3f}); rlhf/ holds that of iteration {best_audit['iteration']} ({kept:.3f})")
    policy.load_state_dict(best)
    save_model(ctx.folder, policy, tokenizer, eos_ids=[tokenizer.im_end_id, tokenizer.endoftext_id])
    # four forward passes (a third of training each) and two models trained for ppo_epochs
    flops = seen_tokens * token_flops * (2 * settings.ppo_epochs + 4 / 3)
    ctx.finish(
        {"method": settings.method, "iterations": done, "chosen_iteration": best_audit["iteration"], "audits": audits, "audit_sft": audits[0]["audit_score"],
         "audit_chosen": best_audit["audit_score"], "audit_last": audits[-1]["audit_score"], "last_would_be_worse": best_audit["iteration"] != done,
         "stopped_early": stopped_early, "prompts": len(prompts), "audit_prompts": len(audit_prompts), **counts, "tokens": seen_tokens, "flops": flops}
    )  # fmt: skip


class Rollout(NamedTuple):
    answers: Answers
    stopped: Tensor  # (S,) bool
    sampler_logprobs: Tensor  # (S, L), the engine's own; for their gap to the trainer's, never for the loss


def sample(engine: Engine, prompts: Sequence[dict], tokenizer: Tokenizer, sampling, seed: int, shape: RowShape) -> Rollout:
    """One answer for each prompt, drawn from the whole distribution at the recipe's temperature."""
    stops = {tokenizer.im_end_id, tokenizer.endoftext_id}
    found = engine.generate([prompt["ids"] for prompt in prompts], sampling.max_new_tokens, stops, sampling, seed)
    answers = Answers([prompt["ids"] for prompt in prompts], [[int(token) for token in generation.token_ids] for generation in found], shape)
    logprobs = torch.zeros(answers.mask.shape)
    logprobs[answers.mask] = torch.tensor([value for generation in found for value in generation.logprobs], dtype=torch.float32)
    return Rollout(answers, torch.tensor([bool(generation.stopped) for generation in found]), logprobs)


def step(minibatch, policy, policy_optimizer, critic, critic_optimizer, settings, machine, scale: float, process) -> dict:
    """One update of the policy (left out when its optimizer is None) and one of the critic; what is logged of them."""
    seen: list[dict] = []

    def policy_losses(batch) -> dict[str, Loss]:
        mask = loss_mask_of(batch.labels)
        with machine.autocast():
            hidden = policy(batch.input_ids, batch.position_ids, batch.segment_ids)
            logprobs, _ = linear_logprobs_and_entropy(hidden, policy.head_weight, batch.labels, settings.sampling.temperature, with_entropy=False)
        old = batch.extra["old_logprobs"]
        seen.append(ppo_policy_stats(logprobs, old, mask, settings.clip_ratio))
        return {"policy": Loss(*ppo_policy(logprobs, old, batch.extra["advantages"], mask, settings.clip_ratio), "token")}

    def critic_losses(batch) -> dict[str, Loss]:
        values = normalised_values(critic, batch, machine.autocast)
        mask = loss_mask_of(batch.labels)
        return {"value": Loss(*ppo_value(values, batch.extra["old_values"], batch.extra["returns"], mask, settings.value_clip), "token")}

    count = sum(batch.num_targets for batch in minibatch)
    common = {"lr_scale": scale, "max_grad_norm": settings.optimizer.max_grad_norm, "process": process}
    stats = update(list(critic.parameters()), critic_optimizer, minibatch, critic_losses, {"value": count}, **common)
    result = {"value_loss": stats.losses["value"], "critic_grad_norm": stats.grad_norm, "critic_stats": stats}
    if policy_optimizer is not None:
        stats = update(list(policy.parameters()), policy_optimizer, minibatch, policy_losses, {"policy": count}, **common)
        result |= {"policy_loss": stats.losses["policy"], "policy_grad_norm": stats.grad_norm, "policy_stats": stats, **averages(seen)}
    return result


def divide_prompts(ctx, tokenizer: Tokenizer) -> tuple[list[dict], list[dict], dict[str, int]]:
    """(prompts to practise on, prompts for the audits, counts). No audit prompt is ever practised on, nor one whose pairs
    are held out: those measure the models later.

    Audits take prompts that no pair was made of, where there are any left; else those of held-out pairs.
    """
    settings = ctx.recipe.rlhf
    counts = {"prompts_cut": 0, "prompts_set_aside": 0}
    kept = []
    for record in read_jsonl(ctx.path("prefer") / "prompts.jsonl"):
        fit = fit_prompt(tokenizer, record["messages"], settings.row_tokens - settings.sampling.max_new_tokens)
        if fit is None:
            counts["prompts_set_aside"] += 1
            continue
        counts["prompts_cut"] += len(fit[1]) < len(record["messages"])
        kept.append({"ids": fit[0], "split": record["split"]})
    order = np.random.default_rng(seed_from(ctx.seed, "audit prompts")).permutation(len(kept)).tolist()
    order.sort(key=lambda i: {None: 0, "held_out": 1, "train": 2}[kept[i]["split"]])  # stable: shuffled within each
    count = min(settings.audit_prompts, len(kept) // 4)
    if count < 1:
        raise UserError(f"rlhf needs at least 4 prompts that leave room for an answer in rows of {settings.row_tokens} tokens; there are {len(kept)}")
    for_audit = set(order[:count])
    practised = [kept[i] for i in range(len(kept)) if i not in for_audit and kept[i]["split"] != "held_out"]
    return practised, [kept[i] for i in order[:count]], counts


def prompt_order(num_prompts: int, iteration: int, count: int, seed: int) -> list[int]:
    """Which prompts an iteration practises on: epochs over all of them, each in an order of its own."""
    chosen = []
    for at in range(iteration * count, (iteration + 1) * count):
        epoch, place = divmod(at, num_prompts)
        chosen.append(int(epoch_order(num_prompts, seed_from(seed, "epoch", epoch))[place]))
    return chosen


@lru_cache(maxsize=4)
def epoch_order(num_prompts: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(num_prompts)


def split(batches: list, parts: int) -> list[list]:
    """Batches in at most `parts` groups of nearly equal size, in order, none of them empty."""
    parts = min(parts, len(batches))
    bounds = [round(i * len(batches) / parts) for i in range(parts + 1)]
    return [batches[a:b] for a, b in pairwise(bounds)]


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """1 - Var(returns - values) / Var(returns): 1 a perfect critic, 0 one no better than the mean, below 0 worse."""
    return float(1.0 - masked_variance(returns - values, mask) / masked_variance(returns, mask).clamp(min=1e-8))


def averages(records: Sequence[dict]) -> dict[str, float]:
    """The mean of each number over the records that have it."""
    names = sorted({name for record in records for name in record if isinstance(record[name], float)})
    return {name: float(np.mean([record[name] for record in records if name in record])) for name in names}
