"""reward: preference pairs to a reward model and an audit model, which say how good an answer is.

Reads `prefer/` and `sft/`; writes `reward/` and `audit/`. Both start from the SFT model with a scalar head at the
answer's last token and learn with the Bradley-Terry loss; they differ in the raters and prompts they learn from. The
reward model will train the policy; the audit model only chooses among its checkpoints. With `reward.ensemble = k` each
of the two is k models that saw the same pairs in other orders (Lakshminarayanan et al. 2017, arXiv 1612.01474), a folder
each, `reward/`, `reward/member-2/`, ...; their mean is the reward, their spread how little it is to be trusted.

With `reward.every_token_coef` the preference is learnt from the scores of all of an answer's tokens as well, so that what is wrong
is seen where it is said (the token-level verifier of Cobbe et al. 2021, arXiv 2110.14168); the reward stays the last token's score.

With `reward.text_coef` the chosen answers' likelihood is learnt beside the preference (Yang et al. 2024, arXiv 2406.10216): a
model that still knows what it would say can tell when something else was said.

The weights kept are those with the best loss on a validation part of the training pairs. The held-out pairs, on
which accuracy is reported beside the best attainable, choose nothing.

One batch from disk to weight update: prefer/pairs.jsonl -> `pack_pairs` -> this loop -> run/update.py.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from fromnoise.algorithms.logprobs import linear_cross_entropy
from fromnoise.algorithms.losses import bradley_terry
from fromnoise.algorithms.masking import IGNORE_INDEX, loss_mask_of, sequence_sums
from fromnoise.data.packing import Batch
from fromnoise.data.pairs import against, batch_of, longest, pack_pairs, positions_of, tallied_all
from fromnoise.data.tokenizer import Tokenizer
from fromnoise.evaluate.intervals import proportion
from fromnoise.evaluate.records import read_jsonl, write_jsonl
from fromnoise.generate.rollout import Answers, RowShape, answer_scores
from fromnoise.model.compiled import compile_blocks
from fromnoise.model.flops import training_flops_per_token
from fromnoise.model.heads import ScoreModel
from fromnoise.model.hf import load_model, load_scorer, member_folders, save_reward, set_normalisation
from fromnoise.optim.groups import make_optimizer, measured_step_s, scheduled
from fromnoise.run.budget import more_pairs, steps_for
from fromnoise.run.errors import UserError
from fromnoise.run.seeds import seed_from
from fromnoise.run.update import Loss, NonFiniteGuard, update

SHARES = ("reward", "audit")  # whose raters chose, and the folder the model goes to


def run(ctx) -> None:
    settings = ctx.recipe.reward
    tokenizer = Tokenizer.load(ctx.path("sft"))
    shape = RowShape(settings.row_tokens, settings.micro_batch_rows, tokenizer.pad_id, ctx.machine.device)
    pairs = read_jsonl(ctx.path("prefer") / "pairs.jsonl")
    plans = [Plan(ctx, pairs, share, member, shape) for share in SHARES for member in range(settings.ensemble)]
    step_s = ctx.decide("step_s", lambda: measure_step_s(ctx, plans[0]))
    wanted = sum(plan.wanted_steps for plan in plans)
    num_steps = steps_for(ctx, "reward", wanted, step_s, more=False)  # over all models, shared out as their pairs are
    for plan in plans:
        plan.num_steps = max(1, round(num_steps * plan.wanted_steps / wanted))
    ctx.checkpoint.plan(step_s, settings.checkpoint_every_s)
    saved = ctx.checkpoint.load()
    guard = NonFiniteGuard(ctx.folder, count=saved.state["nonfinite"] if saved else 0)
    summaries = dict(saved.state["summaries"]) if saved else {}
    total_steps = sum(plan.num_steps for plan in plans)
    with ctx.progress(total_steps, "step", saved.step if saved else 0) as progress:
        first = 0  # global step at which this model's training begins
        for plan in plans:
            if plan.name not in summaries:
                mine = saved if saved and saved.state["share"] == plan.name else None
                summaries[plan.name] = train(ctx, plan, tokenizer, first, mine, guard, summaries, progress)
            first += plan.num_steps
    for plan in plans:
        if plan.raters:
            write_jsonl(plan.folder / "raters.jsonl", plan.raters)
        if settings.ensemble > 1 and plan.member == 0:
            summaries[f"{plan.share}_ensemble"] = join_members(ctx, plan, tokenizer, total_steps)
    by_share = {f"{share}_{name}": value for share, found in summaries.items() for name, value in found.items()}
    ctx.finish({**by_share, **{name: sum(found.get(name, 0) for found in summaries.values()) for name in ("tokens", "flops")}})


class Plan:
    """One model's pairs, packed, and how many steps it will train."""

    def __init__(self, ctx, pairs: list[dict], share: str, member: int, shape: RowShape):
        settings = ctx.recipe.reward
        self.share, self.member, self.shape, self.num_steps = share, member, shape, 0
        self.name = f"{share}_{member + 1}" if member else share
        self.folder = ctx.path(share) / f"member-{member + 1}" if member else ctx.path(share)
        pairs = [pair for pair in pairs if pair["share"] == share]
        self.num_too_long = sum(longest(pair) > settings.row_tokens for pair in pairs)  # only where row_tokens is less than prefer's
        pairs = [pair for pair in pairs if longest(pair) <= settings.row_tokens]
        training = [pair for pair in pairs if pair["split"] == "train"]
        self.held_out = [pair for pair in pairs if pair["split"] == "held_out"]
        training, self.raters = tallied_all(training, settings.rater_weights)
        drawn = [np.random.default_rng(seed_from(ctx.seed, "validation", pair["prompt_id"])).random() for pair in training]
        bound = max(settings.validation_frac, math.nextafter(min(drawn, default=0.0), 1.0))  # of few pairs none may be drawn: then those of one prompt are
        self.validation, self.train = ([pair for pair, draw in zip(training, drawn, strict=True) if (draw < bound) == side] for side in (True, False))
        if not self.train or not self.validation or not self.held_out:
            raise UserError(
                f"too few {share} pairs: {len(self.train)} to train on, {len(self.validation)} for validation, {len(self.held_out)} held out "
                f"(pairs of one prompt stay together: {len({pair['prompt_id'] for pair in pairs})} prompts); {more_pairs(ctx.recipe)}, "
                "or change prefer.audit_frac, prefer.held_out_frac and reward.validation_frac"
            )
        pair_tokens = np.mean([positions_of(pair, shape.row_tokens) for pair in self.train])
        micro_tokens = shape.num_rows * shape.row_tokens
        self.micro_batches_per_step = max(1, round(settings.batch_pairs * pair_tokens / micro_tokens))
        self.seed = seed_from(ctx.seed, share, member) if member else seed_from(ctx.seed, share)
        self.length_scale = float(np.std([length_difference(pair) for pair in self.train])) or 1.0
        self.epochs = max(1, math.ceil(settings.epochs))
        self.groups = [group for epoch in range(self.epochs) for group in self.pack(epoch)]  # pair indices of each micro-batch
        self.wanted_steps = max(1, round(len(self.groups) * settings.epochs / self.epochs / self.micro_batches_per_step))

    def length_differences(self, pairs: Sequence[dict]) -> torch.Tensor:
        """(P,): tokens of the first answer less those of the second, in standard deviations of the training pairs."""
        return torch.tensor([length_difference(pair) / self.length_scale for pair in pairs], device=self.shape.device)

    def pack(self, epoch: int) -> list[list[int]]:
        order = np.random.default_rng(seed_from(self.seed, "epoch", epoch)).permutation(len(self.train)).tolist()
        return pack_pairs([self.train[i] for i in order], self.shape, order)

    def micro_batches(self, step: int) -> list[tuple[Batch, list[dict]]]:
        """(packed rows, their pairs) of a step; steps beyond the planned epochs begin anew."""
        count = self.micro_batches_per_step
        wanted = [self.groups[(step * count + k) % len(self.groups)] for k in range(count)]
        return [(batch_of([self.train[i] for i in group], self.shape), [self.train[i] for i in group]) for group in wanted]


def train(ctx, plan: Plan, tokenizer, first: int, saved, guard, summaries: dict, progress) -> dict:
    """Train one of the models from the SFT model, keep the best weights by validation, save it; its summary."""
    settings, optimizer_settings = ctx.recipe.reward, ctx.recipe.reward.optimizer
    model = ScoreModel(load_model(ctx.path("sft"))).to(ctx.machine.device)
    if settings.text_coef and not model.backbone.config.tie_embeddings:
        raise UserError("reward.text_coef needs a model whose head is its embedding (tie_embeddings): a reward model keeps no other head")
    optimizer = make_optimizer(model, optimizer_settings, ctx.machine.torch_dtype)
    parameters = list(model.parameters())
    if ctx.machine.compile:
        compile_blocks(model)
    best, best_loss, best_step, start, seen_tokens, best_length_coef = None, None, 0, 0, 0, None
    alone = length_coefficient(torch.zeros(len(plan.train)), plan, plan.train, 0.0) if settings.debias_length else None
    length_coef = alone  # how much length explains by itself; less, once the scores explain what goes with it
    if saved:
        model.load_state_dict(saved.group("model"))
        optimizer.load_state_tensors(saved.group("optimizer"))
        best, start = saved.group("best"), saved.step - first
        best_loss, best_step, seen_tokens = (saved.state[name] for name in ("best_loss", "best_step", "seen_tokens"))
        length_coef, best_length_coef = saved.state["length_coef"], saved.state["best_length_coef"]

    def losses(micro_batch) -> dict[str, Loss]:
        return reward_losses(ctx, plan, model, micro_batch, length_coef)

    def counts(batches) -> dict[str, float]:
        pairs = [pair for _, own in batches for pair in own]
        weight = float(sum(pair["weight"] for pair in pairs))
        found = {"loss": weight} | ({"every_token": weight} if settings.every_token_coef else {})
        return found | ({"text": float(sum(len(pair["answers"][i]["token_ids"]) for pair in pairs for i in liked(pair)))} if settings.text_coef else {})

    def validate(step: int) -> None:
        nonlocal best, best_loss, best_step, length_coef, best_length_coef
        scores, more = score_pairs(ctx, model, plan.validation, plan.shape), {}
        if settings.debias_length:
            length_coef = length_coefficient(scores[:, 0] - scores[:, 1], plan, plan.validation, alone)
            scores[:, 0] += length_coef * plan.length_differences(plan.validation).cpu()
            more = {f"length_coef/{plan.name}": length_coef}
        found = quality(scores, plan.validation)
        ctx.log(first + step, **{f"validation_{name}/{plan.name}": found[name] for name in ("loss", "accuracy")}, **more)
        if best_loss is None or found["loss"] < best_loss:
            best_loss, best_step, best_length_coef = found["loss"], step, length_coef
            best = {k: v.clone() for k, v in model.state_dict().items()}

    evaluation_steps = {round(plan.num_steps * i / settings.num_evaluations) for i in range(1, settings.num_evaluations)}
    token_flops = training_flops_per_token(model.backbone.config, settings.row_tokens)
    for step in range(start, plan.num_steps):
        if step in evaluation_steps:
            validate(step)
        began = time.perf_counter()
        batches = plan.micro_batches(step)
        scale = scheduled(optimizer_settings, step, plan.num_steps)
        stats = update(
            parameters, optimizer, batches, losses, counts(batches), weights={"text": settings.text_coef, "every_token": settings.every_token_coef},
            lr_scale=scale, max_grad_norm=optimizer_settings.max_grad_norm, process=ctx.process,
        )
        guard.check(first + step, stats, [batch for batch, _ in batches])
        tokens = sum(batch.num_tokens for batch, _ in batches)
        seen_tokens += tokens
        rates = ctx.rates(tokens, time.perf_counter() - began, token_flops)
        ctx.log(
            first + step, model=plan.name, loss_nats=stats.losses["loss"],
            every_token_loss_nats=stats.losses.get("every_token"), text_loss_nats=stats.losses.get("text"), grad_norm=stats.grad_norm,
            lr_scale=scale, skipped=stats.skipped, pairs=sum(len(pairs) for _, pairs in batches), tokens=tokens, **rates,
        )
        progress.advance(1, model=plan.name, loss=stats.losses["loss"], **rates)
        if step + 1 < plan.num_steps and ctx.checkpoint.due(first + step + 1):
            ctx.checkpoint.save(
                first + step + 1, {"model": model.state_dict(), "optimizer": optimizer.state_tensors(), "best": best},
                {"share": plan.name, "best_loss": best_loss, "best_step": best_step, "seen_tokens": seen_tokens, "length_coef": length_coef,
                 "best_length_coef": best_length_coef, "nonfinite": guard.count, "summaries": summaries},
            )  # fmt: skip
    validate(plan.num_steps)
    model.load_state_dict(best)
    answers = own_answers(ctx, plan, tokenizer)
    model.mean, model.std = normalisation(raw_scores(ctx, model, answers))
    found = quality(score_pairs(ctx, model, plan.held_out, plan.shape), plan.held_out)
    save_reward(plan.folder, model, tokenizer)
    summary = {
        **found, "train_pairs": len(plan.train), "too_long_pairs": plan.num_too_long, "num_steps": plan.num_steps,
        "best_step": best_step, "validation_loss": best_loss,
        "length_coef": best_length_coef, "score_mean": model.mean, "score_std": model.std, "tokens": seen_tokens, "flops": seen_tokens * token_flops,
    }  # fmt: skip
    ctx.log(first + plan.num_steps, **{f"heldout_{name}/{plan.name}": value for name, value in found.items() if value is not None})
    done = {**summaries, plan.name: summary}
    ctx.checkpoint.save(first + plan.num_steps, {}, {"share": None, "summaries": done, "nonfinite": guard.count})
    return summary


def join_members(ctx, plan: Plan, tokenizer, step: int) -> dict:
    """Give an ensemble's members one scale, that of their mean; what the mean is worth on the held-out pairs."""
    ensemble, answers = load_scorer(plan.folder).to(ctx.machine.device), own_answers(ctx, plan, tokenizer)
    for member in ensemble.members:
        member.mean, member.std = 0.0, 1.0  # raw to the last bit, whichever normalisation a try that was cut off had written already
    raw = torch.stack([raw_scores(ctx, member, answers) for member in ensemble.members])  # (members, S)
    _, std = normalisation(raw.mean(dim=0))
    for folder, scores in zip(member_folders(plan.folder), raw, strict=True):
        set_normalisation(folder, float(scores.mean()), std)
    scores = torch.stack([score_pairs(ctx, member, plan.held_out, plan.shape) for member in ensemble.members])  # (members, P, 2)
    found = quality(scores.mean(dim=0), plan.held_out)
    found["disagreement"] = float((scores[..., 0] - scores[..., 1]).std(dim=0, correction=0).mean())
    ctx.log(step, **{f"heldout_{name}/{plan.share}_ensemble": value for name, value in found.items() if value is not None})
    return {**found, "members": len(raw), "score_std": std}


def reward_losses(ctx, plan: Plan, model: ScoreModel, micro_batch: tuple[Batch, list[dict]], length_coef: float | None) -> dict[str, Loss]:
    """What a packed micro-batch of pairs teaches: the preference, and as the settings say also from every token, and the chosen answers' text."""
    settings, (batch, pairs) = ctx.recipe.reward, micro_batch
    with ctx.machine.autocast():
        hidden = model.backbone(batch.input_ids, batch.position_ids, batch.segment_ids)  # (B, T, D)
        scores = model.score_hidden(hidden)  # (B, T)
        shift = length_coef * plan.length_differences(pairs) if settings.debias_length else None
        found = {"loss": Loss(*preference_loss(scores.reshape(-1)[batch.last_index], batch, pairs, shift), "pair")}
        if settings.every_token_coef:
            found["every_token"] = Loss(*preference_loss(answer_means(scores, batch), batch, pairs, shift), "pair")
        if settings.text_coef:
            labels = chosen_labels(batch, pairs)
            total = linear_cross_entropy(hidden, model.backbone.head_weight, labels)
            found["text"] = Loss(total, float(loss_mask_of(labels).sum()), "token")
    return found


def length_difference(pair: dict) -> int:
    first, second = (len(answer["token_ids"]) for answer in pair["answers"])
    return first - second


def length_coefficient(margins: torch.Tensor, plan: Plan, pairs: Sequence[dict], expected: float) -> float:
    """The b that makes sigmoid(margin + b x) fit the choices best, x the pairs' length differences; margins (P,).

    With b fitted, what is left of the choices, choice minus probability, does not go with length, so that training the
    scores on top of it cannot put length into them; b is dropped when scoring. Fitting what a bias explains first and
    learning the rest: Clark et al. 2019 (arXiv 1909.03683), He et al. 2019 (arXiv 1908.10763); a length head of its own
    that reward modelling drops: Chen et al. 2024 (ODIN, arXiv 2402.07319). Newton's method, with a weak pull towards
    `expected` for few pairs.
    """
    x, weights = plan.length_differences(pairs).double().cpu(), torch.tensor([pair["weight"] for pair in pairs], dtype=torch.float64)
    first_share = torch.tensor([against(pair) if pair["chosen"] == 1 else 1.0 - against(pair) for pair in pairs], dtype=torch.float64)
    b = expected
    for _ in range(50):
        probs = torch.sigmoid(margins.double() + b * x)
        slope = (weights * x * (first_share - probs)).sum() - (b - expected)
        step = float(slope / ((weights * x * x * probs * (1 - probs)).sum() + 1))
        b += max(-1.0, min(1.0, step))
        if abs(step) < 1e-10:
            break
    return b


def liked(pair: dict) -> tuple[int, ...]:
    """Which of a pair's answers were chosen: one, or both of a tie."""
    return (0, 1) if pair["chosen"] is None else (pair["chosen"],)


def chosen_labels(batch: Batch, pairs: Sequence[dict]) -> torch.Tensor:
    """(B, T): the batch's labels where they belong to a chosen answer, IGNORE_INDEX elsewhere."""
    labels, kept = batch.labels.reshape(-1), torch.full((batch.labels.numel(),), IGNORE_INDEX, device=batch.labels.device)
    for sequence, begin, end in zip(batch.sequence_ids.tolist(), batch.start_index.tolist(), batch.last_index.tolist(), strict=True):
        if sequence % 2 in liked(pairs[sequence // 2]):
            kept[begin:end] = labels[begin:end]
    return kept.reshape(batch.labels.shape)


def answer_means(scores: torch.Tensor, batch: Batch) -> torch.Tensor:
    """scores (B, T) -> (S,), in packed order: the mean over each answer's tokens, the score of a token being what is known once it is read."""
    read = loss_mask_of(batch.labels).reshape(-1).roll(1).reshape(scores.shape)  # the token after a counted position; no row ends in one
    return sequence_sums(torch.where(read, scores, 0.0), batch.start_index) / sequence_sums(read.to(scores.dtype), batch.start_index)


def preference_loss(scores: torch.Tensor, batch: Batch, pairs: Sequence[dict], shift: torch.Tensor | None = None) -> tuple[torch.Tensor, float]:
    """scores (S,) of one packed micro-batch's answers, in packed order -> Bradley-Terry (sum, count) over its pairs. shift (P,) is
    added to the score of each first answer: what something else than the score explains."""
    ordered = scores.new_zeros(2 * len(pairs)).index_copy(0, batch.sequence_ids, scores).reshape(-1, 2)  # (P, 2)
    if shift is not None:
        ordered = torch.stack([ordered[:, 0] + shift, ordered[:, 1]], dim=1)
    first_chosen = torch.tensor([pair["chosen"] != 1 for pair in pairs], device=scores.device)
    other_way = torch.tensor([against(pair) for pair in pairs], device=scores.device)
    weights = torch.tensor([pair["weight"] for pair in pairs], device=scores.device)
    chosen = torch.where(first_chosen, ordered[:, 0], ordered[:, 1])
    rejected = torch.where(first_chosen, ordered[:, 1], ordered[:, 0])
    total, _ = bradley_terry(chosen, rejected, weights, other_way)
    return total, sum(pair["weight"] for pair in pairs)


def score_pairs(ctx, model: ScoreModel, pairs: Sequence[dict], shape: RowShape) -> torch.Tensor:
    """(P, 2) raw scores of both answers of each pair."""
    answers = Answers(
        [pair["prompt_ids"] for pair in pairs for _ in range(2)], [answer["token_ids"] for pair in pairs for answer in pair["answers"]], shape
    )
    return raw_scores(ctx, model, answers).reshape(-1, 2)


def quality(scores: torch.Tensor, pairs: Sequence[dict]) -> dict[str, float | int | None]:
    """Loss and accuracy of raw scores (P, 2), with a 95 % interval, beside the best attainable where it is known.

    Ties count in the loss, not in the accuracy. Several votes or pairs on one prompt hang together: the interval is as wide as
    they make it. `of_attainable` is (accuracy - 1/2) / (best attainable - 1/2).
    """
    margin = scores[:, 0] - scores[:, 1]
    first_chosen = torch.tensor([pair["chosen"] != 1 for pair in pairs])
    ties = torch.tensor([pair["chosen"] is None for pair in pairs])
    weights, other_way = (torch.tensor(values) for values in ([pair["weight"] for pair in pairs], [against(pair) for pair in pairs]))
    towards_chosen = torch.where(first_chosen, margin, -margin)
    total, count = bradley_terry(towards_chosen, torch.zeros_like(margin), weights, other_way)
    hits = ((towards_chosen > 0).float() + 0.5 * (towards_chosen == 0).float())[~ties].tolist()
    accuracy = proportion(hits, clusters=[pair["prompt_id"] for pair in pairs if pair["chosen"] is not None])
    known = [pair["pool_prob_first"] for pair in pairs if pair["chosen"] is not None and pair["pool_prob_first"] is not None]
    best = sum(max(p, 1 - p) for p in known) / len(known) if known else None
    return {
        "loss": float(total) / max(count, 1e-9), "accuracy": accuracy.value, "accuracy_low": accuracy.low, "accuracy_high": accuracy.high,
        "pairs": len(hits), "best_attainable": best,
        "of_attainable": (accuracy.value - 0.5) / (best - 0.5) if best is not None and accuracy.value is not None and best > 0.5 else None,
        "expected_accuracy": expected_accuracy(margin, pairs),
    }  # fmt: skip


def expected_accuracy(margin: torch.Tensor, pairs: Sequence[dict]) -> float | None:
    """Accuracy with the raters' chance taken out: the mean probability that a rater of the pool agrees with the model.

    Its expectation is that of the accuracy, its spread much smaller. None where no choice probability is known.
    """
    agree = [
        p if m > 0 else 1 - p if m < 0 else 0.5
        for m, p in zip(margin.tolist(), (pair["pool_prob_first"] for pair in pairs), strict=True) if p is not None
    ]  # fmt: skip
    return sum(agree) / len(agree) if agree else None


def own_answers(ctx, plan: Plan, tokenizer) -> Answers:
    """Answers of the SFT model itself, whose scores say what a reward of 0 and of 1 mean.

    Those of sampled pairs are, but for what a prompt has borrowed of another; pairs of a file are other people's, so answers are sampled.
    """
    settings = ctx.recipe.reward
    if ctx.recipe.data.preferences:
        from fromnoise.generate.engine import Engine

        prompts = [prompt["prompt_ids"] for prompt in read_jsonl(ctx.path("prefer") / "prompts.jsonl")][: settings.num_normalise_answers]
        sampling = ctx.recipe.prefer.sampling
        engine = Engine(load_model(ctx.path("sft")).to(ctx.machine.device), dtype=ctx.machine.torch_dtype)
        stops, seed = set(tokenizer.chat_stop_ids), seed_from(seed_from(ctx.seed, plan.share), "normalise")
        found = engine.generate(prompts, sampling.max_new_tokens, stops, sampling, seed)
        answer_ids = [generation.token_ids for generation in found]
    else:
        pairs = plan.train[: settings.num_normalise_answers]
        prompts, answer_ids = [pair["prompt_ids"] for pair in pairs], [pair["answers"][int(pair.get("borrowed") == 0)]["token_ids"] for pair in pairs]
    kept = [i for i in range(len(prompts)) if len(prompts[i]) + len(answer_ids[i]) <= settings.row_tokens]
    if len(kept) < 2:
        raise UserError(f"a reward's scale needs at least two answers of the SFT model, and {len(kept)} of {len(prompts)} fit rows of reward.row_tokens = "
                        f"{settings.row_tokens}; raise that, lower prefer.sampling.max_new_tokens, or give more prompts (data.prompts)")  # fmt: skip
    return Answers([prompts[i] for i in kept], [answer_ids[i] for i in kept], plan.shape)


def raw_scores(ctx, model: ScoreModel, answers: Answers) -> torch.Tensor:
    """(S,), in the head's own units."""
    return answer_scores(model, answers, answers.batches(), ctx.machine.autocast) * model.std + model.mean


def normalisation(scores: torch.Tensor) -> tuple[float, float]:
    """Mean and standard deviation of raw scores (S,)."""
    return float(scores.mean()), max(float(scores.std(correction=0)), 1e-6)


def measure_step_s(ctx, plan: Plan) -> float:
    """Seconds of a training step, compiling left out; on a model that is thrown away."""
    model = ScoreModel(load_model(ctx.path("sft"))).to(ctx.machine.device)
    if ctx.machine.compile:
        compile_blocks(model)
    losses = partial(reward_losses, ctx, plan, model, length_coef=0.0)
    return measured_step_s(model, ctx.recipe.reward.optimizer, ctx.machine, lambda: plan.micro_batches(0), losses)
