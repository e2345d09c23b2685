"""reason: reinforcement learning from verifiable rewards: problems whose answers can be checked, tried again and again.

Reads `rlhf/` and `prefer/` (prompts that nothing here may spoil); writes `reason/`. Each iteration: draw problems from the
levels that are solved now and then; sample a group of answers to each; grade every answer and every step of it; credit
each token with what followed it, against the group (GRPO); one clipped update. Groups that earned the same are left
out and replaced by earlier ones that waited. Problems that nobody solved are tried on from the last right step, and right
answers are imitated. Beside them, in every update, the rlhf model's own answers to other prompts: what it would say there
must stay what it says.

From problem to weight update: world/problems.py -> generate/groups.py -> this loop -> run/update.py.
Over-long rule: a problem from a file that leaves no room for an answer is set aside and counted; a level of the world's that has
such problems is refused.
"""

from __future__ import annotations

import random
import time
from itertools import zip_longest
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fromnoise.algorithms.credit import kl_from_hidden
from fromnoise.algorithms.logprobs import linear_cross_entropy, linear_logprobs_and_entropy
from fromnoise.algorithms.losses import grpo, ppo_policy_stats
from fromnoise.algorithms.masking import loss_mask_of, masked_mean, masked_sum
from fromnoise.data.conversation import fit_prompt
from fromnoise.data.packing import Batch, collate_all
from fromnoise.data.problems import read_problems
from fromnoise.data.tokenizer import Tokenizer
from fromnoise.evaluate.records import read_jsonl
from fromnoise.generate import groups as grouped
from fromnoise.generate.curriculum import Curriculum
from fromnoise.generate.engine import Engine
from fromnoise.generate.rollout import Answers, RowShape, answer_logprobs, shuffled_rows, split
from fromnoise.generate.tools import demonstration
from fromnoise.model.compiled import compile_blocks
from fromnoise.model.flops import forward_flops, training_flops_per_token
from fromnoise.model.hf import CALCULATOR_KEY, load_model, save_model
from fromnoise.optim.groups import make_optimizer, scheduled
from fromnoise.run.budget import steps_for
from fromnoise.run.errors import UserError
from fromnoise.run.metrics import averages
from fromnoise.run.seeds import seed_from
from fromnoise.run.update import Loss, NonFiniteGuard, update
from fromnoise.tasks.example import Example
from fromnoise.tasks.problems import FILE_LEVELS, file_levels, with_calls
from fromnoise.tasks.splits import held_out
from fromnoise.world import problems as world_problems

PROBLEMS_MEASURED = 200  # of each level, before anything is practised
HELD_BACK_KINDS = ("sum", "puzzle")  # what is practised here is not anchored


def run(ctx) -> None:
    settings, machine = ctx.recipe.reason, ctx.machine
    tokenizer = Tokenizer.load(ctx.path("rlhf"))
    policy, reference = (load_model(ctx.path("rlhf")).to(machine.device) for _ in range(2))
    for model in (policy, reference) if machine.compile else ():
        compile_blocks(model)
    optimizer = make_optimizer(policy, settings.optimizer, ctx.machine.torch_dtype)
    engine = Engine(policy, dtype=machine.torch_dtype, max_batch=256)
    shape = RowShape(settings.row_tokens, settings.micro_batch_rows, tokenizer.pad_id, machine.device)
    problems = Problems(ctx, tokenizer)
    validation = problems.set_aside(settings.validation_problems)
    anchors = make_anchors(ctx, engine, reference, tokenizer, shape)  # the engine still holds the rlhf model

    def rollout(iteration: int, levels: list[int]) -> tuple[list[Example], list[list[int]], list[grouped.Written]]:
        """A pure function of (seed, iteration, levels, policy weights)."""
        drawn = problems.draw(levels, "practice", iteration)
        prompts = [ids for ids in (grouped.prompt_ids(tokenizer, one) for one in drawn) for _ in range(settings.group_size)]
        seed = seed_from(ctx.seed, "rollout", iteration)
        return drawn, prompts, grouped.write_answers(engine, tokenizer, prompts, settings.sampling, seed, settings.calculator)

    def validate(iteration: int) -> float:
        """Greedy answers to the problems set aside."""
        greedy = settings.sampling.model_copy(update={"temperature": 0.0})
        prompts = [grouped.prompt_ids(tokenizer, one) for one in validation]
        grades = grouped.grade_all(tokenizer, validation, grouped.write_answers(engine, tokenizer, prompts, greedy, 0, settings.calculator))
        correct = float(np.mean([one.correct for one in grades]))
        ctx.log(iteration, validation_correct_frac=correct, validation_steps_frac=float(np.mean([one.steps for one in grades])))
        return correct

    def measure() -> float:
        """Seconds of an iteration, compiling left out; no weight changes."""
        start = machine.clock()
        _, prompts, written = rollout(0, [problems.levels[0]] * settings.prompts_per_iteration)
        sample_s = machine.clock() - start
        batches = Answers(prompts, [one.token_ids for one in written], shape).batches()

        def backward() -> None:
            with machine.autocast():
                policy(batches[0].input_ids, batches[0].position_ids, batches[0].segment_ids).float().mean().backward()

        seconds = machine.seconds_of(backward)
        optimizer.zero_grad()
        learnt = len(batches) * min(1.0, settings.groups_per_update / settings.prompts_per_iteration)
        trained = learnt + 2 * settings.minibatches  # right answers and anchors beside each minibatch
        return sample_s + seconds * (trained + 2 / 3 * learnt)

    anchor_tokens = engine.num_tokens
    iteration_s = ctx.decide("iteration_s", measure)
    num_iterations = steps_for(ctx, "reason", settings.num_iterations, iteration_s)
    ctx.checkpoint.plan(iteration_s, settings.checkpoint_every_s)
    ctx.info(f"levels {', '.join(map(str, problems.levels))}; {num_iterations} iterations of {settings.prompts_per_iteration} problems x {settings.group_size}")

    saved = ctx.checkpoint.load()
    start, state = (saved.step, saved.state) if saved else (0, {})
    curriculum, buffer = Curriculum(problems.levels, state.get("rates")), grouped.Buffer(settings.buffer_iterations, state.get("buffer", ()))
    guard = NonFiniteGuard(ctx.folder, count=state.get("nonfinite", 0))
    seen_tokens, scored_tokens = state.get("seen_tokens", 0), state.get("scored_tokens", 0)
    engine.num_tokens = state.get("generated_tokens", anchor_tokens)  # what was measured above is no part of the run
    best, best_at, validations = (saved.group("best") if saved else None), state.get("best_at"), state.get("validations", [])
    if saved:
        policy.load_state_dict(saved.group("policy"))
        optimizer.load_state_tensors(saved.group("optimizer"))
        engine.refresh(policy)

    def keep_if_best(iteration: int) -> None:
        nonlocal best, best_at
        correct = validate(iteration)
        validations.append({"iteration": iteration, "correct": correct})
        if best_at is None or correct > validations[best_at]["correct"]:
            best_at, best = len(validations) - 1, {name: value.clone() for name, value in policy.state_dict().items()}

    warm_up = min(settings.calculator_iterations, num_iterations - 1) if settings.calculator else 0  # where there is no more, the last one practises
    token_flops = training_flops_per_token(policy.config, settings.row_tokens)
    with ctx.progress(num_iterations, "iteration", start) as progress:
        for iteration in range(start, num_iterations):
            if iteration % settings.validate_every == 0:
                keep_if_best(iteration)
            began = time.perf_counter()
            rng = random.Random(seed_from(ctx.seed, "levels", iteration))
            levels = curriculum.draw(rng, settings.prompts_per_iteration)
            drawn, prompts, written = rollout(iteration, levels)
            grades = grouped.grade_all(tokenizer, drawn, written)
            rewards = grouped.reward_tensor(drawn, grades, settings)  # (P, G, K)
            correct = torch.tensor([one.correct for one in grades], dtype=torch.float64).reshape(len(drawn), -1)  # (P, G)
            curriculum.learn(levels, correct.mean(dim=1).tolist())
            fresh = grouped.make_groups(tokenizer, prompts, written, grades, rewards, settings, iteration)
            right = grouped.led_to_right(engine, tokenizer, drawn, prompts, written, grades, settings, seed_from(ctx.seed, "retries", iteration))
            sampled = time.perf_counter()

            chosen, num_old = buffer.take(fresh, settings.groups_per_update, iteration)
            needed = {id(group) for group in (*chosen, *buffer.groups)}
            sampler_gap, num_scored = add_logprobs([group for group in fresh if id(group) in needed], chosen, policy, reference, shape, settings, machine)
            scale = scheduled(settings.optimizer, iteration, num_iterations)
            scored = time.perf_counter()
            trained, kl_nats, credited, skipped, passed_tokens = [], None, [], 0, 0  # tokens that an update learnt from, anchors included
            shown = demonstrations(drawn, tokenizer, shape) if iteration < warm_up else imitated(right, shape)
            if chosen and iteration >= warm_up:
                answers, credit = together(chosen, shape)
                kl_nats = float(masked_sum(credit["old_logprobs"] - credit["ref_logprobs"], answers.mask)) / len(answers.lengths)
                credited = answers.minibatches(credit, shuffled_rows(len(answers.rows), seed_from(ctx.seed, "rows", iteration)), settings.minibatches)
            for number, minibatch in enumerate(shares(credited, shown, settings.minibatches)):
                anchor = anchors[(iteration * settings.minibatches + number) % len(anchors)] if anchors else None
                trained.append(step(minibatch, anchor, policy, reference, optimizer, settings, machine, scale, ctx.process))
                stats, batches = trained[-1].pop("stats"), [*minibatch, anchor.batch] if anchor else minibatch
                guard.check(iteration, stats, batches)
                skipped += stats.skipped
                passed_tokens += sum(batch.num_tokens for batch in batches)
            engine.refresh(policy)
            seen_tokens, scored_tokens = seen_tokens + passed_tokens, scored_tokens + num_scored
            ended = time.perf_counter()
            rates = ctx.rates(passed_tokens, ended - scored, token_flops)
            ctx.log(
                iteration, reward=float(rewards.sum(-1).mean()), correct_frac=float(correct.mean()), steps_frac=float(np.mean([one.steps for one in grades])),
                form_frac=float(np.mean([one.form_ok for one in grades])), false_steps=float(np.mean([one.num_false for one in grades])),
                pass_k_frac=float((correct.amax(dim=1) > 0).double().mean()), groups_taught=len(fresh), groups_from_buffer=num_old,
                groups_waiting=len(buffer.groups), led_to_right_frac=len(right) / len(drawn),
                kl_nats=kl_nats, sampler_gap_nats=sampler_gap, answer_tokens=float(np.mean([len(one.token_ids) for one in written])),
                stopped_frac=float(np.mean([one.stopped for one in written])), **averages(trained), skipped=skipped, lr_scale=scale,
                **{f"correct_frac_level_{level}": rate for level, rate in sorted(curriculum.rates.items())},
                sample_s=sampled - began, score_s=scored - sampled, update_s=ended - scored, **rates,
            )  # fmt: skip
            progress.advance(1, reward=float(rewards.sum(-1).mean()), correct=float(correct.mean()), mfu=rates["mfu"])
            if ctx.checkpoint.due(iteration + 1):
                ctx.checkpoint.save(
                    iteration + 1, {"policy": policy.state_dict(), "optimizer": optimizer.state_tensors(), "best": best},
                    {"rates": curriculum.rates, "buffer": [group.to_json() for group in buffer.groups], "nonfinite": guard.count, "seen_tokens": seen_tokens,
                     "scored_tokens": scored_tokens, "generated_tokens": engine.num_tokens, "best_at": best_at, "validations": validations},
                )  # fmt: skip
    keep_if_best(num_iterations)
    policy.load_state_dict(best)
    if ctx.process.is_main:
        save_model(ctx.folder, policy, tokenizer, eos_ids=tokenizer.chat_stop_ids, generation={CALCULATOR_KEY: True} if settings.calculator else None)
    forward = engine.num_tokens + anchor_tokens + scored_tokens  # anchors are answered, then read by the reference
    flops = seen_tokens * token_flops + forward_flops(policy.config, forward, settings.row_tokens)
    ctx.finish({"iterations": num_iterations, "chosen_iteration": validations[best_at]["iteration"], "validation_correct_before": validations[0]["correct"],
                "validation_correct": validations[best_at]["correct"], "validations": validations, "levels": list(problems.levels),
                "anchor_batches": len(anchors), **problems.counts, "tokens": seen_tokens, "flops": flops})  # fmt: skip


class Problems:
    """Where problems come from: the world's levels, a file's records in levels of their own, or both. Nothing of the held-out side, which
    evaluation measures with; `set_aside` takes a few more away, which choose the checkpoint."""

    def __init__(self, ctx, tokenizer: Tokenizer):
        settings, recipe = ctx.recipe.reason, ctx.recipe
        self.seed, self.counts, self.tokenizer = ctx.seed, {}, tokenizer
        self.room = settings.row_tokens - settings.sampling.max_new_tokens  # for a prompt
        self.taken: set[str] = set()  # prompts set aside
        self.from_file: dict[int, list[Example]] = {}  # by level
        self.levels: tuple[int, ...] = settings.levels if recipe.data.world else ()
        if recipe.reason.problems is not None:
            read = read_problems(recipe.reason.problems, ctx.on_bad)
            ctx.check_bad(len(read), recipe.reason.problems)
            own = [(level, problem) for level, problem in zip(file_levels(read), read, strict=True) if not held_out(problem.prompt)]
            fits = [(level, problem) for level, problem in own if self._fits(problem)]
            self.counts = {"problems": len(fits), "problems_held_out": len(read) - len(own), "problems_set_aside": len(own) - len(fits)}
            if not fits:
                raise UserError(f"reason.problems = {recipe.reason.problems!r}: of {len(own)} problems that evaluation does not need none leaves room for an "
                                f"answer of {settings.sampling.max_new_tokens} tokens in rows of {settings.row_tokens}; raise reason.row_tokens")  # fmt: skip
            by_level = {number: [problem for level, problem in fits if level == number] for number in FILE_LEVELS}
            self.from_file = {level: found for level, found in by_level.items() if found}
            self.levels = (*self.from_file, *self.levels)
        self._check_room(settings)

    def _fits(self, problem: Example) -> bool:
        return len(grouped.prompt_ids(self.tokenizer, problem)) <= self.room

    def _check_room(self, settings) -> None:
        """Refuse levels of the world's whose problems are too long, at the beginning: no row could hold them with an answer."""
        rng = random.Random(seed_from(self.seed, "room"))
        for level in (level for level in self.levels if level not in self.from_file):
            longest = max(len(grouped.prompt_ids(self.tokenizer, world_problems.problem(rng, level))) for _ in range(PROBLEMS_MEASURED))
            if longest > self.room:
                raise UserError(f"reason.levels: problems of level {level} take up to {longest} tokens, which leaves no room for an answer of "
                                f"{settings.sampling.max_new_tokens} tokens in rows of {settings.row_tokens}; raise reason.row_tokens, "
                                f"lower reason.sampling.max_new_tokens, or leave the level out")  # fmt: skip

    def set_aside(self, count: int) -> list[Example]:
        """At most `count` problems over all levels that `draw` will not give. Of a file's level at most a fifth: a small one would be used up."""
        levels, found = [self.levels[i % len(self.levels)] for i in range(count)], []
        of_file = {level: {one.prompt for one in problems} for level, problems in self.from_file.items()}
        for level, problem in zip(levels, self.draw(levels, "validation", 0), strict=True):
            own = of_file.get(level)
            if problem.prompt in self.taken or own is None or len(own & self.taken) < max(1, len(own) // 5):
                found.append(problem)
                self.taken.add(problem.prompt)
        return found

    def draw(self, levels, purpose: str, number: int) -> list[Example]:
        """One problem for each of `levels`, a pure function of (seed, purpose, number, levels)."""
        rng = random.Random(seed_from(self.seed, purpose, number))
        return [self._one(rng, level) for level in levels]

    def _one(self, rng: random.Random, level: int) -> Example:
        """Drawn again while it is one set aside, or longer than those measured; a file so small that all of it is set aside is practised
        on all the same."""
        for _ in range(50):
            problem = rng.choice(self.from_file[level]) if level in self.from_file else world_problems.problem(rng, level)
            if problem.prompt not in self.taken and (level in self.from_file or self._fits(problem)):  # those of a file were looked at
                break
        return problem


class Anchor(NamedTuple):
    batch: Batch  # other prompts with the rlhf model's own answers
    ref_hidden: Tensor  # (N, D): its last hidden states where a label counts


def make_anchors(ctx, engine: Engine, reference, tokenizer: Tokenizer, shape: RowShape) -> list[Anchor]:
    """The rlhf model's answers to prompts that practise something else, with its hidden states kept: what it would have
    said there costs then no forward pass. Prompts whose pairs are held out are left alone: those measure the models later."""
    settings = ctx.recipe.reason
    if settings.anchor_coef == 0:
        return []
    records = [r for r in read_jsonl(ctx.path("prefer") / "prompts.jsonl") if r.get("split") != "held_out" and r.get("kind") not in HELD_BACK_KINDS]
    random.Random(seed_from(ctx.seed, "anchors")).shuffle(records)
    sampling = ctx.recipe.rlhf.sampling
    fits = [fit_prompt(tokenizer, record["messages"], shape.row_tokens - sampling.max_new_tokens) for record in records[: settings.anchor_prompts]]
    prompts = [fit[0] for fit in fits if fit is not None]
    if fits and not prompts:
        raise UserError(f"reason.anchor_coef = {settings.anchor_coef}: none of {len(fits)} prompts leaves room for an answer of rlhf.sampling.max_new_tokens = "
                        f"{sampling.max_new_tokens} in rows of reason.row_tokens = {shape.row_tokens}; raise that, or set reason.anchor_coef=0")  # fmt: skip
    if not prompts:
        return []
    written = grouped.write_answers(engine, tokenizer, prompts, sampling, seed_from(ctx.seed, "anchor answers"), calculator=False)
    answers = Answers(prompts, [one.token_ids for one in written], shape)
    anchors = []
    with torch.no_grad():
        for batch in answers.batches(order=shuffled_rows(len(answers.rows), seed_from(ctx.seed, "anchor rows"))):
            with ctx.machine.autocast():
                hidden = reference(batch.input_ids, batch.position_ids, batch.segment_ids)
            anchors.append(Anchor(batch, hidden[loss_mask_of(batch.labels)].detach().clone()))
    return anchors


def add_logprobs(fresh: list[grouped.Group], chosen: list[grouped.Group], policy, reference, shape: RowShape, settings, machine) -> tuple[float | None, int]:
    """How likely the answers' tokens were to those who are compared, by one forward pass each: the policy over the groups that this
    iteration sampled, those that wait for their turn too, for it will have changed by then; the reference over those learnt from now.

    Updates use the trainer's numbers alone: in bf16 the sampler's are others. (Mean distance of the two, in nats a counted token of the
    fresh groups, None without any; tokens read.)"""
    gap, num_tokens = None, 0
    for name, model, groups in (("old_logprobs", policy, fresh), ("ref_logprobs", reference, chosen)):
        if not groups:
            continue
        answers, found = together(groups, shape)
        num_tokens += answers.num_tokens
        values, _ = answer_logprobs(model, answers, answers.batches(), settings.sampling.temperature, machine.autocast)  # (S, L)
        if groups is fresh:
            gap = float(masked_mean((found["old_logprobs"] - values).abs(), answers.mask))
        rows = [row[:length] for row, length in zip(values.tolist(), answers.lengths.tolist(), strict=True)]
        for at, group in enumerate(groups):
            setattr(group, name, rows[at * settings.group_size : (at + 1) * settings.group_size])
    return gap, num_tokens


def together(groups: list[grouped.Group], shape: RowShape) -> tuple[Answers, dict[str, Tensor]]:
    """All answers of the groups, and what each token is credited with, (S, L) each."""
    flat = lambda name: [row for group in groups for row in getattr(group, name)]  # noqa: E731
    answers = Answers([group.prompt_ids for group in groups for _ in group.answer_ids], flat("answer_ids"), shape, flat("counted"))
    width = answers.mask.shape[1]
    parts = {"advantages": "credit", "old_logprobs": "old_logprobs", "ref_logprobs": "ref_logprobs"}
    found = {name: grouped.padded(flat(part), width) for name, part in parts.items() if flat(part)}
    found["lengths"] = answers.mask.sum(dim=1, keepdim=True).expand(-1, width).float().contiguous()
    return answers, found


def demonstrations(problems: list[Example], tokenizer: Tokenizer, shape: RowShape) -> list[Batch]:
    """Worked answers with calls of the calculator, for the first iterations: what a call gives back is not counted."""
    sequences, masks = [], []
    for problem in problems:
        prompt = grouped.prompt_ids(tokenizer, problem)
        ids, counted = demonstration(tokenizer, with_calls(problem))
        if len(prompt) + len(ids) < shape.row_tokens:
            sequences.append([*prompt, *ids, tokenizer.im_end_id])
            masks.append([*[False] * len(prompt), *counted, True])
    return [b.to(torch.device(shape.device)) for b in collate_all(sequences, masks, row_tokens=shape.row_tokens, num_rows=shape.num_rows, pad_id=shape.pad_id)]


def imitated(right: list[tuple[list[int], grouped.Written]], shape: RowShape) -> list[Batch]:
    """Right answers as batches that carry no credit; those that their tries made too long for a row are left out."""
    fits = [(prompt, answer) for prompt, answer in right if len(prompt) + len(answer.token_ids) <= shape.row_tokens]
    if not fits:
        return []
    return Answers([prompt for prompt, _ in fits], [one.token_ids for _, one in fits], shape, [one.counted for _, one in fits]).batches()


def shares(credited: list[list[Batch]], shown: list[Batch], count: int) -> list[list[Batch]]:
    """What `count` updates learn from: a minibatch of what earned credit, with a part of what is shown; none is empty."""
    return [[*one, *other] for one, other in zip_longest(credited, split(shown, count), fillvalue=[])]


def step(minibatch: list[Batch], anchor: Anchor | None, policy, reference, optimizer, settings, machine, scale: float, process) -> dict:
    """One update on groups of answers, on right answers to imitate (which carry no credit), and on one batch of anchors; what is logged."""
    seen: list[dict] = []

    def losses(item: Batch | Anchor) -> dict[str, Loss]:
        batch = item.batch if isinstance(item, Anchor) else item
        mask = loss_mask_of(batch.labels)
        with machine.autocast():
            hidden = policy(batch.input_ids, batch.position_ids, batch.segment_ids)
            if isinstance(item, Anchor):
                kl = kl_from_hidden(hidden[mask], policy.head_weight, item.ref_hidden, reference.head_weight)
                return {"anchor": Loss(kl.sum(), float(len(kl)), "token")}
            if "advantages" not in batch.extra:
                total = linear_cross_entropy(hidden, policy.head_weight, batch.labels, batch.num_targets)
                return {"imitation": Loss(total, batch.num_targets, "token")}
            logprobs, entropy = linear_logprobs_and_entropy(hidden, policy.head_weight, batch.labels, settings.sampling.temperature, counted=batch.num_targets)
        old = batch.extra["old_logprobs"]
        seen.append({"count": batch.num_targets, **ppo_policy_stats(logprobs.detach(), old, mask, settings.clip_ratio, settings.clip_ratio_high),
                     "entropy_nats": float(masked_mean(entropy.detach(), mask))})  # fmt: skip
        found = grpo(
            logprobs, old, batch.extra["advantages"], mask, clip_ratio=settings.clip_ratio, clip_ratio_high=settings.clip_ratio_high,
            aggregation=settings.aggregation, lengths=batch.extra["lengths"], max_tokens=settings.sampling.max_new_tokens,
            ref_logprobs=batch.extra["ref_logprobs"], kl_coef=settings.kl_coef,
        )  # fmt: skip
        return {"policy": Loss(*found, "token" if settings.aggregation == "token" else "sequence")}

    credited = [batch for batch in minibatch if "advantages" in batch.extra]
    shown = [batch for batch in minibatch if "advantages" not in batch.extra]
    counts = {}
    if credited:
        counts["policy"] = float(sum(batch.num_targets if settings.aggregation == "token" else answers_in(batch) for batch in credited))
    if shown:
        counts["imitation"] = float(sum(batch.num_targets for batch in shown))
    if anchor is not None:
        counts["anchor"] = float(len(anchor.ref_hidden))
    micro_batches = [*minibatch, anchor] if anchor is not None else minibatch
    weights = {"anchor": settings.anchor_coef, "imitation": settings.imitation_coef}
    stats = update(list(policy.parameters()), optimizer, micro_batches, losses, counts, weights=weights,
                   lr_scale=scale, max_grad_norm=settings.optimizer.max_grad_norm, process=process)  # fmt: skip
    names = {"policy": "policy_loss", "imitation": "imitation_loss", "anchor": "anchor_kl_nats"}
    return {**{names[name]: loss for name, loss in stats.losses.items()}, "grad_norm": stats.grad_norm, "stats": stats, **averages(seen)}


def answers_in(batch: Batch) -> int:
    """Answers of a packed batch that have a counted token."""
    mask = loss_mask_of(batch.labels)
    return round(float(masked_sum(1.0 / batch.extra["lengths"].double().clamp(min=1), mask)))
