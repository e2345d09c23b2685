"""The methods of rlhf that practise nothing anew: one loop over answers that are there before it begins.

  dpo        the pairs that trained the reward model, and no reward model: what was chosen becomes likelier than what was
             rejected, each measured against the SFT model, whose log-probabilities are taken once
  best_of_n  n answers of the SFT model to each prompt, the best of them by the reward model (penalty for not stopping
             included) learnt as in tuning: the policy that choosing among n would be, as far as it can be distilled

Audited like the practising methods, with the same prompts, and as often in all; what is kept is the audit's choice.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fromnoise.algorithms.logprobs import linear_cross_entropy, linear_logprobs_and_entropy
from fromnoise.algorithms.losses import dpo
from fromnoise.algorithms.masking import loss_mask_of, sequence_sums
from fromnoise.data.loader import PackedEpochs
from fromnoise.data.pairs import against, batch_of, longest, pack_pairs, positions_of, tallied_all
from fromnoise.data.tokenizer import Tokenizer
from fromnoise.evaluate.records import is_there, read_jsonl, write_jsonl
from fromnoise.generate.audit import Audits
from fromnoise.generate.engine import Engine
from fromnoise.generate.practice import divide_prompts, practice_seed, prompt_order
from fromnoise.generate.rollout import RowShape, rollout_scores, sample
from fromnoise.model.compiled import compile_blocks
from fromnoise.model.flops import forward_flops, training_flops_per_token
from fromnoise.model.hf import load_model, load_scorer
from fromnoise.optim.groups import make_optimizer, measured_step_s, scheduled
from fromnoise.run.budget import steps_for
from fromnoise.run.errors import UserError
from fromnoise.run.metrics import averages
from fromnoise.run.seeds import seed_from
from fromnoise.run.update import Loss, NonFiniteGuard, update

PROMPTS_A_PART = 32  # whose n answers are sampled, scored and saved together


def run(ctx) -> None:
    settings, machine = ctx.recipe.rlhf, ctx.machine
    method = settings.dpo if settings.method == "dpo" else settings.best_of
    tokenizer = Tokenizer.load(ctx.path("sft"))
    policy, reference = (load_model(ctx.path("sft")).to(machine.device) for _ in range(2))
    models = {"reference": reference, **{name: load_scorer(ctx.path(name)).to(machine.device) for name in ("reward", "audit")}}
    for model in (policy, *models.values()) if machine.compile else ():
        compile_blocks(model)
    optimizer = make_optimizer(policy, method.optimizer, ctx.machine.torch_dtype)
    engine = Engine(policy, dtype=machine.torch_dtype)
    shape = RowShape(settings.row_tokens, settings.micro_batch_rows, tokenizer.pad_id, machine.device)
    prompts, audit_prompts, counts = divide_prompts(ctx, tokenizer)
    data = Pairs(ctx, shape, reference, audit_prompts) if settings.method == "dpo" else BestAnswers(ctx, shape, models["reward"], engine, prompts, tokenizer)

    def measure_step_s() -> float:
        return measured_step_s(policy, method.optimizer, machine, lambda: data.micro_batches(0), lambda batch: data.losses(policy, batch, []))

    step_s = ctx.decide("step_s", measure_step_s)
    saved = ctx.checkpoint.load()
    seen_tokens, stopped_early, done = 0, None, saved.step if saved else 0
    guard = NonFiniteGuard(ctx.folder, count=saved.state["nonfinite"] if saved else 0)
    if saved:
        policy.load_state_dict(saved.group("policy"))
        optimizer.load_state_tensors(saved.group("optimizer"))
        seen_tokens = saved.state["seen_tokens"]
    audits = Audits(ctx, audit_prompts, tokenizer, shape, engine, models, saved)
    audit_s, num_audits = audits.begin(policy), max(2, settings.num_iterations // settings.audit_every)
    num_steps = steps_for(ctx, "rlhf", max(1, round(method.epochs * data.steps_per_epoch)), step_s, more=False, given_s=-audit_s * num_audits)
    audit_steps = {round(num_steps * i / num_audits) for i in range(num_audits)} - {0}
    ctx.checkpoint.plan(step_s, settings.checkpoint_every_s)
    ctx.info(f"{settings.method}: {data.describe()}; {num_steps} steps, {len(audit_prompts)} prompts kept for audits")

    token_flops = training_flops_per_token(policy.config, settings.row_tokens)
    with ctx.progress(num_steps, "step", done) as progress:
        for step in range(done, num_steps):
            if step in audit_steps:
                audits(step, policy)
                if audits.found[-1]["audit_kl_nats"] > settings.max_kl_nats:
                    stopped_early = f"KL from the SFT model passed rlhf.max_kl_nats = {settings.max_kl_nats} by step {step}"
                    ctx.info(stopped_early)
                    break
            began = time.perf_counter()
            batches = data.micro_batches(step)
            scale = scheduled(method.optimizer, step, num_steps)
            watched: list[dict] = []
            counted = data.counts(batches)
            stats = update(
                list(policy.parameters()), optimizer, batches, lambda batch, seen=watched: data.losses(policy, batch, seen), counted,
                lr_scale=scale, max_grad_norm=method.optimizer.max_grad_norm, process=ctx.process,
            )  # fmt: skip
            guard.check(step, stats, [data.rows_of(batch) for batch in batches])
            seconds = time.perf_counter() - began
            tokens = sum(data.rows_of(batch).num_tokens for batch in batches)
            seen_tokens, done = seen_tokens + tokens, step + 1
            rates = ctx.rates(tokens, seconds, token_flops)
            ctx.log(step, loss_nats=stats.losses["loss"], **averages(watched), grad_norm=stats.grad_norm, lr_scale=scale, skipped=stats.skipped, tokens=tokens,
                    counted=counted["loss"], update_s=seconds, **rates)  # fmt: skip
            progress.advance(1, loss=stats.losses["loss"], **rates)
            if ctx.checkpoint.due(done):
                state = {"audits": audits.found, "seen_tokens": seen_tokens, "nonfinite": guard.count}
                ctx.checkpoint.save(done, {"policy": policy.state_dict(), "optimizer": optimizer.state_tensors(), "best": audits.best}, state)
    if audits.found[-1]["iteration"] != done:
        audits(done, policy)
    summary = audits.publish(policy)
    forward = data.prepared_tokens * data.prepared_passes + audits.forward_tokens
    ctx.finish(
        {"method": settings.method, "iterations": done, **summary, "stopped_early": stopped_early, "prompts": len(prompts), **counts, **data.summary(),
         "tokens": seen_tokens + data.prepared_tokens, "flops": seen_tokens * token_flops + forward_flops(policy.config, forward, settings.row_tokens)}
    )  # fmt: skip


class Pairs:
    """dpo: the reward model's training pairs in micro-batches, votes counted as there, with the SFT model's log-probabilities of both
    answers. Pairs of prompts that the audits ask are left out."""

    prepared_passes = 1  # forward passes over what was prepared before the first step

    def __init__(self, ctx, shape: RowShape, reference, audit_prompts: Sequence[dict]):
        self.ctx, self.shape, self.settings = ctx, shape, ctx.recipe.rlhf.dpo
        training = [pair for pair in read_jsonl(ctx.path("prefer") / "pairs.jsonl") if pair["share"] == "reward" and pair["split"] == "train"]
        audited = {prompt["id"] for prompt in audit_prompts}
        found = [pair for pair in training if pair["prompt_id"] not in audited]
        self.pairs, _ = tallied_all([pair for pair in found if longest(pair) <= shape.row_tokens], ctx.recipe.reward.rater_weights)
        self.num_too_long, self.num_audited = len(found) - len(self.pairs), len(training) - len(found)
        if not self.pairs:
            raise UserError("rlhf.method = dpo found no pair to learn from in prefer/pairs.jsonl; raise prefer.num_pairs or rlhf.row_tokens")
        pair_tokens = np.mean([positions_of(pair, shape.row_tokens) for pair in self.pairs])
        self.per_step = max(1, round(self.settings.batch_pairs * float(pair_tokens) / (shape.num_rows * shape.row_tokens)))
        self.groups = [group for epoch in range(max(1, math.ceil(self.settings.epochs))) for group in self._pack(epoch)]
        self.steps_per_epoch = max(1, round(len(self._pack(0)) / self.per_step))
        self.reference, self.prepared_tokens = torch.zeros(len(self.pairs), 2), 0
        for group in self._pack(0):
            batch, members = self._batch(group)
            with torch.no_grad():
                self.reference[members] = self._answer_logprobs(reference, batch).cpu()
            self.prepared_tokens += batch.num_tokens

    def _pack(self, epoch: int) -> list[list[int]]:
        order = np.random.default_rng(seed_from(practice_seed(self.ctx), "pairs", epoch)).permutation(len(self.pairs)).tolist()
        return pack_pairs([self.pairs[i] for i in order], self.shape, order)

    def _batch(self, members: list[int]):
        return batch_of([self.pairs[i] for i in members], self.shape), members

    def _answer_logprobs(self, model, batch) -> Tensor:
        """(P, 2): summed log-probabilities of both answers at temperature 1, or means where they are length-normalised."""
        with self.ctx.machine.autocast():
            hidden = model(batch.input_ids, batch.position_ids, batch.segment_ids)
            logprobs, _ = linear_logprobs_and_entropy(hidden, model.head_weight, batch.labels, with_entropy=False, counted=batch.num_targets)
        sums = sequence_sums(logprobs, batch.start_index)
        if self.settings.length_normalised:
            sums = sums / sequence_sums(loss_mask_of(batch.labels).to(sums.dtype), batch.start_index)
        return torch.zeros_like(sums).index_copy(0, batch.sequence_ids, sums).reshape(-1, 2)

    def micro_batches(self, step: int) -> list:
        return [self._batch(self.groups[(step * self.per_step + k) % len(self.groups)]) for k in range(self.per_step)]

    def rows_of(self, micro_batch):
        return micro_batch[0]

    def counts(self, batches: list) -> dict[str, float]:
        return {"loss": sum(self.pairs[i]["weight"] for _, members in batches for i in members)}

    def losses(self, policy, micro_batch, seen: list[dict]) -> dict[str, Loss]:
        """The named loss; `seen` gets what is watched of it, ties left out. margin = beta times the difference of log-ratios."""
        batch, members = micro_batch
        device, pairs = batch.labels.device, [self.pairs[i] for i in members]
        order = torch.tensor([[1, 0] if pair["chosen"] == 1 else [0, 1] for pair in pairs], device=device)  # chosen first
        other_way = torch.tensor([against(pair) for pair in pairs], device=device)
        weights = torch.tensor([pair["weight"] for pair in pairs], device=device)
        logprobs = self._answer_logprobs(policy, batch).gather(1, order)
        ref = self.reference[members].to(device).gather(1, order)
        total, count = dpo(
            logprobs[:, 0], logprobs[:, 1], ref[:, 0], ref[:, 1], self.settings.beta, variant=self.settings.variant,
            label_smoothing=self.settings.label_smoothing_frac, weights=weights, against=other_way,
        )  # fmt: skip
        decided = torch.tensor([pair["chosen"] is not None for pair in pairs], device=device)
        if decided.any():  # neither answer of a tie is the chosen one
            ratios = (logprobs - ref).detach()[decided]
            margin = self.settings.beta * (ratios[:, 0] - ratios[:, 1])
            right = (margin > 0).float() + 0.5 * (margin == 0).float()
            seen.append({"count": len(margin), "margin": float(margin.mean()), "accuracy": float(right.mean()),
                         "chosen_log_ratio": float(ratios[:, 0].mean()), "rejected_log_ratio": float(ratios[:, 1].mean())})  # fmt: skip
        return {"loss": Loss(total, count, "pair")}

    def describe(self) -> str:
        return f"{len(self.pairs):,} pairs ({self.num_too_long} too long, {self.num_audited} of audit prompts)"

    def summary(self) -> dict:
        return {"pairs": len(self.pairs), "too_long_pairs": self.num_too_long, "audited_pairs": self.num_audited, "answers": 0}


class BestAnswers:
    """best_of_n: the best answer to each prompt, packed, for the loss of tuning."""

    prepared_passes = 2  # an answer is sampled (a forward pass) and scored (another)

    def __init__(self, ctx, shape: RowShape, reward_model, engine: Engine, prompts: list[dict], tokenizer: Tokenizer):
        self.ctx, self.settings = ctx, ctx.recipe.rlhf.best_of
        self.found, self.prepared_tokens = [], 0
        num_parts = max(1, -(-min(self.settings.num_prompts, len(prompts)) // PROMPTS_A_PART))
        for number in range(num_parts):  # each a pure function of the seed, saved whole: a resume repeats at most one
            path = ctx.folder / "train_state" / "answers" / f"part-{number:05d}.jsonl"
            if not is_there(path) and ctx.process.is_main:
                chosen = [prompts[i] for i in prompt_order(len(prompts), number, PROMPTS_A_PART, practice_seed(ctx))]
                write_jsonl(path, self._best(chosen, number, shape, reward_model, engine, tokenizer))
            ctx.process.barrier()
            self.found += read_jsonl(path)
        self.found = self.found[: min(self.settings.num_prompts, len(prompts))]  # the last part may have begun the prompts anew
        self.prepared_tokens = sum(one["sampled_tokens"] for one in self.found)
        ids = [[*one["prompt_ids"], *one["token_ids"]] for one in self.found]
        masks = [[False] * len(one["prompt_ids"]) + [True] * len(one["token_ids"]) for one in self.found]
        rows = max(1, self.settings.batch_tokens // shape.row_tokens)
        self.micro_rows = min(shape.num_rows, rows)
        self.epochs = PackedEpochs(ids, masks, row_tokens=shape.row_tokens, rows_per_step=rows, pad_id=shape.pad_id, seed=practice_seed(ctx))
        self.steps_per_epoch = self.epochs.steps_per_epoch

    def _best(self, prompts: list[dict], number: int, shape: RowShape, reward_model, engine: Engine, tokenizer: Tokenizer) -> list[dict]:
        settings, n = self.ctx.recipe.rlhf, self.settings.n
        repeated = [prompt for prompt in prompts for _ in range(n)]
        found = sample(engine, repeated, tokenizer, settings.sampling, seed_from(practice_seed(self.ctx), "answers", number), shape)
        worth = rollout_scores(reward_model, found, settings.missing_stop_penalty, self.ctx.machine.autocast).reshape(-1, n)
        best = worth.argmax(dim=1).tolist()
        return [
            {"id": prompt["id"], "prompt_ids": prompt["ids"], "token_ids": found.answers.answer_ids[i * n + best[i]],
             "reward": round(float(worth[i, best[i]]), 6), "mean_reward": round(float(worth[i].mean()), 6),
             "sampled_tokens": len(prompt["ids"]) + sum(map(len, found.answers.answer_ids[i * n : i * n + n]))}  # the prompt is read once for all
            for i, prompt in enumerate(prompts)
        ]  # fmt: skip

    def micro_batches(self, step: int) -> list:
        firsts = range(0, self.epochs.rows_per_step, self.micro_rows)  # the last micro-batch may reach beyond: all have one shape
        return [self.epochs.batch(step, first, self.micro_rows).to(self.ctx.machine.device) for first in firsts]

    def rows_of(self, micro_batch):
        return micro_batch

    def counts(self, batches: list) -> dict[str, float]:
        return {"loss": float(sum(batch.num_targets for batch in batches))}

    def losses(self, policy, batch, seen: list[dict]) -> dict[str, Loss]:
        with self.ctx.machine.autocast():
            hidden = policy(batch.input_ids, batch.position_ids, batch.segment_ids)
            total = linear_cross_entropy(hidden, policy.head_weight, batch.labels, batch.num_targets)
        return {"loss": Loss(total, batch.num_targets, "token")}

    def describe(self) -> str:
        return f"the best of {self.settings.n} answers to {len(self.found):,} prompts, reward {self._mean('mean_reward'):+.3f} -> {self._mean('reward'):+.3f}"

    def _mean(self, name: str) -> float:
        return float(np.mean([one[name] for one in self.found]))

    def summary(self) -> dict:
        """best_of_n_kl_nats: log n - (n - 1) / n, the divergence of choosing itself; the distilled policy's is in the audits."""
        n = self.settings.n
        return {"n": n, "answers": n * len(self.found), "best_reward": self._mean("reward"), "mean_reward": self._mean("mean_reward"),
                "best_of_n_kl_nats": math.log(n) - (n - 1) / n}  # fmt: skip
