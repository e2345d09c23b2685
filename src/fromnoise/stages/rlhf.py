"""rlhf: the SFT model, practising answers, moves towards what the reward model scores highly.

Reads `prefer/` (prompts), `sft/`, `reward/`, `audit/`; writes `rlhf/`. Each iteration: sample answers; score them and take
the log-probabilities of policy and frozen SFT model once; turn them into what each token is credited with; update the
policy for a few passes. `rlhf.method` says how credit is given, which is all that differs:

  ppo   a critic's values; KL penalty in each token's reward, score at the end; generalized advantage estimation
  grpo  several answers to a prompt; score minus the group's mean, by its deviation; KL in the loss
  rloo  several answers to a prompt; score less KL penalty, minus the mean of the others

`dpo` and `best_of_n` practise nothing anew: stages/rlhf_offline.py. Every few iterations the audit model, which trains
nothing, scores answers to prompts kept for it: the policy it likes best is what `rlhf/` holds, whatever the method.

From rollout to weight update: generate/engine.py -> generate/rollout.py -> this loop -> run/update.py.
Left out: reward whitening, an entropy bonus, sharing rollouts out among ranks (the main one makes them alone). Over-long rule: the
oldest turns of a prompt are cut until it leaves room for an answer, else it is set aside; both counted.
"""

from __future__ import annotations

import time
from functools import lru_cache

import torch
from torch import Tensor

from fromnoise.algorithms.advantages import equal_groups, gae, group_relative, kl_shaped_rewards, leave_one_out
from fromnoise.algorithms.logprobs import kl_estimates, linear_cross_entropy, linear_logprobs_and_entropy
from fromnoise.algorithms.losses import grpo, ppo_policy, ppo_policy_stats, ppo_value
from fromnoise.algorithms.masking import loss_mask_of, masked_mean, masked_sum, masked_variance, masked_whiten
from fromnoise.algorithms.schedules import adapted_kl_coef
from fromnoise.data.loader import pretraining_text
from fromnoise.data.tokenizer import Tokenizer
from fromnoise.generate.audit import Audits
from fromnoise.generate.engine import Engine
from fromnoise.generate.practice import divide_prompts, practice_seed, prompt_order
from fromnoise.generate.rollout import (
    Answers,
    Rollout,
    RowShape,
    answer_logprobs,
    answer_values,
    normalised_values,
    rollout_scores,
    sample,
    shuffled_rows,
    split,
)
from fromnoise.model.compiled import compile_blocks
from fromnoise.model.flops import forward_flops, training_flops_per_token
from fromnoise.model.heads import members_of
from fromnoise.model.hf import load_model, load_reward, load_scorer
from fromnoise.optim.groups import make_optimizer, scheduled, step_seconds
from fromnoise.run.budget import steps_for
from fromnoise.run.metrics import averages
from fromnoise.run.seeds import seed_from
from fromnoise.run.update import Loss, NonFiniteGuard, update
from fromnoise.stages import rlhf_offline


def run(ctx) -> None:
    if ctx.recipe.rlhf.method in ("dpo", "best_of_n"):
        rlhf_offline.run(ctx)
    else:
        practise(ctx)


def practise(ctx) -> None:
    settings, machine = ctx.recipe.rlhf, ctx.machine
    tokenizer = Tokenizer.load(ctx.path("sft"))
    policy, reference = (load_model(ctx.path("sft")).to(machine.device) for _ in range(2))
    reward_model, audit_model = (load_scorer(ctx.path(name)).to(machine.device) for name in ("reward", "audit"))
    # the critic's output is in units of the normalised reward: it starts as the reward model, mean and deviation included
    critic = load_reward(ctx.path("reward")).to(machine.device) if settings.method == "ppo" else None
    models = [model for model in (policy, reference, reward_model, audit_model, critic) if model is not None]
    for model in models if machine.compile else ():
        compile_blocks(model)
    scorings = 2 + len(members_of(reward_model)) + bool(critic)  # forward passes over each answer: policy, reference, reward model, critic
    learner = Learner(ctx, policy, critic, tokenizer)
    engine = Engine(policy, dtype=machine.torch_dtype)
    shape = RowShape(settings.row_tokens, settings.micro_batch_rows, tokenizer.pad_id, machine.device)
    prompts, audit_prompts, counts = divide_prompts(ctx, tokenizer)
    group = settings.answers_per_prompt if critic else settings.group_size
    prompts_per_iteration, seed = max(1, settings.rollouts_per_iteration // group), practice_seed(ctx)

    @lru_cache(maxsize=1)  # the first rollout is measured before the loop that uses it
    def rollout(iteration: int) -> Rollout:
        """A pure function of (seed, iteration, policy weights). The answers of a group follow one another."""
        chosen = [prompts[i] for i in prompt_order(len(prompts), iteration, prompts_per_iteration, seed) for _ in range(group)]
        return sample(engine, chosen, tokenizer, settings.sampling, seed_from(seed, "rollout", iteration), shape)

    def measure() -> float:
        """Seconds of an iteration, compiling left out; no weight changes."""
        start = machine.clock()
        answers = rollout(0).answers
        return machine.clock() - start + learner.seconds_of(answers, scorings)

    iteration_s = ctx.decide("iteration_s", measure)
    saved = ctx.checkpoint.load()
    seen_tokens, trained_tokens, kl_coef, stopped_early = 0, 0, settings.kl_coef, None
    guard = NonFiniteGuard(ctx.folder, count=saved.state["nonfinite"] if saved else 0)
    if saved:
        learner.restore(saved)
        seen_tokens, trained_tokens, kl_coef = (saved.state[name] for name in ("seen_tokens", "trained_tokens", "kl_coef"))
        rollout.cache_clear()
        engine.refresh(policy)
    audits = Audits(ctx, audit_prompts, tokenizer, shape, engine, {"reference": reference, "reward": reward_model, "audit": audit_model}, saved)
    audit_s = audits.begin(policy)
    num_iterations = steps_for(ctx, "rlhf", settings.num_iterations, iteration_s + audit_s / settings.audit_every, more=False, given_s=-audit_s)  # the last
    critic_alone = min(settings.critic_warmup_iterations, num_iterations - 1)  # a budget may leave no more than the warm-up, and the policy is to learn
    ctx.checkpoint.plan(iteration_s, settings.checkpoint_every_s)
    ctx.info(
        f"{settings.method}: {len(prompts):,} prompts, {len(audit_prompts)} kept for audits; "
        f"{num_iterations} iterations of {prompts_per_iteration} x {group} answers"
    )

    token_flops = training_flops_per_token(policy.config, settings.row_tokens)
    with ctx.progress(num_iterations, "iteration", saved.step if saved else 0) as progress:
        for iteration in range(saved.step if saved else 0, num_iterations):
            if iteration and iteration % settings.audit_every == 0:
                audits(iteration, policy)
            began = time.perf_counter()
            found = rollout(iteration)
            answers, mask = found.answers, found.answers.mask
            sampled = time.perf_counter()

            # one forward pass of each model: what the answers are worth, and how likely they were
            batches = answers.batches()
            old_logprobs, entropy = answer_logprobs(policy, answers, batches, settings.sampling.temperature, machine.autocast)
            ref_logprobs, _ = answer_logprobs(reference, answers, batches, settings.sampling.temperature, machine.autocast)
            scores = rollout_scores(reward_model, found, settings.missing_stop_penalty, machine.autocast)  # (S,)
            if critic:
                values = answer_values(critic, answers, batches, machine.autocast)
                credit, watched = critic_credit(settings, scores, old_logprobs, ref_logprobs, values, mask, kl_coef)
            else:
                credit, watched = group_credit(settings, scores, old_logprobs, ref_logprobs, mask, kl_coef)
            kl_nats = float(masked_sum(old_logprobs - ref_logprobs, mask)) / len(scores)
            measured = time.perf_counter()

            # several passes over the same answers; the clipped losses keep them from going too far. The later ones move the policy alone
            scale = scheduled(settings.optimizer, iteration, num_iterations)
            critic_only = critic is not None and iteration < critic_alone
            trained: list[dict] = []
            skipped, passed_tokens = 0, 0  # tokens that an update learnt from, once for each model updated
            for epoch in range(settings.ppo_epochs):
                order = shuffled_rows(len(answers.rows), seed_from(seed, "rows", iteration, epoch))
                minibatches = answers.minibatches(credit, order, settings.minibatches)
                if epoch and not critic_only and learner.gone_far(minibatches[0]):
                    break
                for place, minibatch in enumerate(minibatches):
                    number = None if epoch else iteration * settings.minibatches + place
                    result, updates = learner.step(minibatch, number, scale, kl_coef, critic_only)
                    for stats, seen in updates:
                        guard.check(iteration, stats, seen)
                        skipped += stats.skipped
                        passed_tokens += sum(batch.num_tokens for batch in seen)
                    trained.append(result)
            engine.refresh(policy)
            rollout.cache_clear()

            seen_tokens, trained_tokens = seen_tokens + answers.num_tokens, trained_tokens + passed_tokens
            ended = time.perf_counter()
            rates = ctx.rates(passed_tokens, ended - measured, token_flops)
            ctx.log(
                iteration, reward=float(scores.mean()), reward_std=float(scores.std(correction=0)), kl_nats=kl_nats,
                kl_k3_nats=float(masked_sum(kl_estimates(old_logprobs, ref_logprobs)[2], mask)) / len(scores), kl_coef=kl_coef,
                entropy_nats=float(masked_mean(entropy, mask)), answer_tokens=float(answers.lengths.float().mean()),
                stopped_frac=float(found.stopped.float().mean()), distinct_frac=len(set(map(tuple, answers.answer_ids))) / len(scores),
                sampler_gap_nats=float(masked_mean((found.sampler_logprobs - old_logprobs).abs(), mask)),
                **watched, **averages(trained), num_updates=len(trained), skipped=skipped, lr_scale=scale, tokens=answers.num_tokens,
                sample_s=sampled - began, score_s=measured - sampled, update_s=ended - measured, **rates,
            )  # fmt: skip
            progress.advance(1, reward=float(scores.mean()), kl=kl_nats, mfu=rates["mfu"])
            if settings.kl_target_nats is not None:
                kl_coef = adapted_kl_coef(kl_coef, kl_nats, settings.kl_target_nats)
            if kl_nats > settings.max_kl_nats:
                stopped_early = f"KL from the SFT model reached {kl_nats:.1f} nats at iteration {iteration}, over rlhf.max_kl_nats = {settings.max_kl_nats}"
                ctx.info(stopped_early)
                break
            if ctx.checkpoint.due(iteration + 1):
                state = {"audits": audits.found, "seen_tokens": seen_tokens, "trained_tokens": trained_tokens, "kl_coef": kl_coef, "nonfinite": guard.count}
                ctx.checkpoint.save(iteration + 1, {**learner.tensors(), "best": audits.best}, state)
    done = iteration + 1 if num_iterations > (saved.step if saved else 0) else num_iterations
    if audits.found[-1]["iteration"] != done:  # with rlhf.num_iterations = 0 the first audit is the last
        audits(done, policy)
    summary = audits.publish(policy)
    forward = seen_tokens * (1 + scorings) + audits.forward_tokens  # sampling is a pass
    flops = trained_tokens * token_flops + forward_flops(policy.config, forward, settings.row_tokens)
    ctx.finish(
        {"method": settings.method, "iterations": done, **summary, "stopped_early": stopped_early, "prompts": len(prompts), **counts,
         "answers": done * prompts_per_iteration * group, "tokens": seen_tokens, "flops": flops}
    )  # fmt: skip


def critic_credit(settings, scores: Tensor, old_logprobs: Tensor, ref_logprobs: Tensor, values: Tensor, mask: Tensor, kl_coef: float):
    """PPO: (what updates need of each token, what to watch). All (S, L) but scores (S,)."""
    rewards = kl_shaped_rewards(scores, old_logprobs, ref_logprobs, mask, kl_coef)
    advantages, returns = gae(rewards, values, mask, settings.gamma, settings.gae_lambda)
    watched = {"advantage_std": float(masked_variance(advantages, mask).sqrt()), "explained_variance": explained_variance(values, returns, mask)}
    return {"old_logprobs": old_logprobs, "advantages": masked_whiten(advantages, mask), "old_values": values, "returns": returns}, watched


def group_credit(settings, scores: Tensor, old_logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, kl_coef: float):
    """GRPO and RLOO: the same pair. Every token of an answer is credited with the answer's advantage."""
    present = mask.any(dim=1).reshape(-1, settings.group_size)  # (P, G)
    if settings.method == "rloo":
        penalised = scores - kl_coef * masked_sum(kl_estimates(old_logprobs, ref_logprobs)[0], mask, dim=1)
        advantages = leave_one_out(penalised.reshape(present.shape), present)
    else:
        advantages = group_relative(scores.reshape(present.shape), present, settings.divide_by_std)
    lengths = mask.sum(dim=1, keepdim=True).to(scores.dtype)
    watched = {"advantage_std": float(advantages.std(correction=0)),
               "equal_groups_frac": float(equal_groups(scores.reshape(present.shape), present).float().mean())}  # fmt: skip
    per_token = torch.where(mask, advantages.reshape(-1, 1), 0.0)
    return {"old_logprobs": old_logprobs, "ref_logprobs": ref_logprobs, "advantages": per_token, "lengths": lengths.expand(mask.shape)}, watched


class Learner:
    """Policy and critic with an optimizer each, and one update of both."""

    def __init__(self, ctx, policy, critic, tokenizer: Tokenizer):
        self.settings, self.machine, self.process = ctx.recipe.rlhf, ctx.machine, ctx.process
        self.parts = {"policy": policy} | ({"critic": critic} if critic else {})
        self.policy, self.critic = policy, critic
        self.optimizers = {name: make_optimizer(model, self.settings.optimizer, ctx.machine.torch_dtype) for name, model in self.parts.items()}
        self.text = pretraining_text(ctx, tokenizer.endoftext_id) if self.settings.ptx_coef else None

    def tensors(self) -> dict:
        """What a checkpoint holds of it."""
        return {**{name: model.state_dict() for name, model in self.parts.items()},
                **{f"{name}_optimizer": optimizer.state_tensors() for name, optimizer in self.optimizers.items()}}  # fmt: skip

    def restore(self, saved) -> None:
        for name, model in self.parts.items():
            model.load_state_dict(saved.group(name))
            self.optimizers[name].load_state_tensors(saved.group(f"{name}_optimizer") or {})  # the policy's has no state yet while the critic warms up

    def seconds_of(self, answers: Answers, scorings: int) -> float:
        """Seconds of an iteration but for its sampling: `scorings` forward passes over the answers and all updates, by what one batch and
        one optimizer step of each model take. No weight changes."""
        batches, minibatches = answers.batches(), split(answers.rows, self.settings.minibatches)
        passes = {"policy": self.settings.ppo_epochs, "critic": 1}
        num_batches = sum(-(-len(rows) // answers.shape.num_rows) for rows in minibatches)
        trained = num_batches * sum(passes[name] for name in self.parts) + (len(minibatches) if self.text else 0)
        pass_s = self.machine.seconds_of(lambda: self.text_losses(batches[0])["ptx"].sum.backward())
        self.policy.zero_grad(set_to_none=True)
        optimizers_s = sum(passes[name] * step_seconds(model, self.settings.optimizer, self.machine) for name, model in self.parts.items())
        return pass_s * (trained + scorings * len(batches) / 3) + len(minibatches) * optimizers_s

    def step(self, minibatch: list, number: int | None, scale: float, kl_coef: float, critic_only: bool) -> tuple[dict, list]:
        """One update of the critic, where there is one, and of the policy: (what is logged, each update's UpdateStats and batches).

        number: the minibatch's among those of all first passes; None in a later pass, which moves the policy alone: critic and text in each
        pass were a third of what updates read, for nothing that could be told apart (docs/lab-notebook.md). The critic alone has every pass.
        """
        common = {"lr_scale": scale, "max_grad_norm": self.settings.optimizer.max_grad_norm, "process": self.process}
        tokens = sum(batch.num_targets for batch in minibatch)
        logged, every = {}, []
        if self.critic and (critic_only or number is not None):
            stats = update(list(self.critic.parameters()), self.optimizers["critic"], minibatch, self.critic_losses, {"value": tokens}, **common)
            logged |= {"value_loss": stats.losses["value"], "critic_grad_norm": stats.grad_norm}
            every.append((stats, minibatch))
        if critic_only:
            return logged, every
        seen: list[dict] = []
        by_answer = self.critic is None and self.settings.aggregation != "token"
        counts = {"policy": sum(len(batch.sequence_ids) for batch in minibatch) if by_answer else tokens}
        batches = [(batch, False) for batch in minibatch]
        if self.text and number is not None:
            rows = len(minibatch[0].input_ids)
            batches.append((self.text.batch(number * rows, rows, self.settings.row_tokens).to(self.machine.device), True))
            counts["ptx"] = batches[-1][0].num_targets

        def losses(item) -> dict[str, Loss]:
            batch, is_text = item
            return self.text_losses(batch) if is_text else self.policy_losses(batch, kl_coef, seen)

        stats = update(list(self.policy.parameters()), self.optimizers["policy"], batches, losses, counts, weights={"ptx": self.settings.ptx_coef}, **common)
        logged |= {f"{name}_loss": value for name, value in stats.losses.items()} | {"policy_grad_norm": stats.grad_norm, **averages(seen)}
        return logged, [*every, (stats, [batch for batch, _ in batches])]

    @torch.no_grad()
    def gone_far(self, minibatch: list) -> bool:
        """Whether the policy as it is now lies farther from the one that answered than is allowed: asked before a later pass, since
        what an update logs was measured before that update."""
        if self.settings.max_update_kl_nats is None:
            return False
        seen: list[dict] = []
        for batch in minibatch:
            self.policy_losses(batch, 0.0, seen)
        return averages(seen)["approx_kl_nats"] > self.settings.max_update_kl_nats

    def policy_losses(self, batch, kl_coef: float, seen: list[dict]) -> dict[str, Loss]:
        settings, extra, mask = self.settings, batch.extra, loss_mask_of(batch.labels)
        with self.machine.autocast():
            hidden = self.policy(batch.input_ids, batch.position_ids, batch.segment_ids)
            logprobs, _ = linear_logprobs_and_entropy(
                hidden, self.policy.head_weight, batch.labels, settings.sampling.temperature, with_entropy=False, counted=batch.num_targets
            )
        old, advantages = extra["old_logprobs"], extra["advantages"]
        seen.append({"count": batch.num_targets, **ppo_policy_stats(logprobs, old, mask, settings.clip_ratio, settings.clip_ratio_high)})
        if self.critic:
            return {"policy": Loss(*ppo_policy(logprobs, old, advantages, mask, settings.clip_ratio, settings.clip_ratio_high), "token")}
        total, count = grpo(
            logprobs, old, advantages, mask, clip_ratio=settings.clip_ratio, clip_ratio_high=settings.clip_ratio_high, aggregation=settings.aggregation,
            lengths=extra["lengths"], max_tokens=settings.sampling.max_new_tokens, ref_logprobs=extra["ref_logprobs"],
            kl_coef=kl_coef if settings.method == "grpo" else 0.0,
        )  # fmt: skip
        return {"policy": Loss(total, count, "token" if settings.aggregation == "token" else "sequence")}

    def critic_losses(self, batch) -> dict[str, Loss]:
        values, mask = normalised_values(self.critic, batch, self.machine.autocast), loss_mask_of(batch.labels)
        return {"value": Loss(*ppo_value(values, batch.extra["old_values"], batch.extra["returns"], mask, self.settings.value_clip), "token")}

    def text_losses(self, batch) -> dict[str, Loss]:
        """The pretraining loss beside the policy's: what the policy knew before must stay likely (PPO-ptx)."""
        with self.machine.autocast():
            hidden = self.policy(batch.input_ids, batch.position_ids, batch.segment_ids)
            total = linear_cross_entropy(hidden, self.policy.head_weight, batch.labels, batch.num_targets)
        return {"ptx": Loss(total, batch.num_targets, "token")}


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """1 - Var(returns - values) / Var(returns): 1 a perfect critic, 0 one no better than the mean, below 0 worse."""
    return float(1.0 - masked_variance(returns - values, mask) / masked_variance(returns, mask).clamp(min=1e-8))
