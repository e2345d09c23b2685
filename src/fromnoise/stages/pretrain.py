"""pretrain: token shards and random noise to a base model.

Reads `tokenizer/` (tokens), writes `base/`. The weights start as noise; each step feeds rows of text, predicts every
next token, compares, updates, repeats. No labels: the text is its own. With `pretrain.procedural_frac` the first steps feed
sequences without words instead (data/procedural.py), from which looking back is learnt.

One batch from disk to weight update: data/loader.py (rows of the shuffled stream) -> this loop -> model/transformer.py
-> run/update.py. Left out: dropout and any schedule of batch or row length.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from fromnoise.algorithms.logprobs import linear_cross_entropy
from fromnoise.data.loader import StepRows, prefetch, pretraining_text, row_kinds
from fromnoise.data.packing import Batch, stack_rows
from fromnoise.data.procedural import procedural_batch
from fromnoise.data.shards import TokenShards
from fromnoise.data.tokenizer import Tokenizer
from fromnoise.evaluate.likelihood import bits_per_byte, probes
from fromnoise.model import fp8
from fromnoise.model.compiled import compile_blocks
from fromnoise.model.config import ModelConfig
from fromnoise.model.flops import num_matrix_parameters, num_parameters, training_flops_per_token
from fromnoise.model.hf import save_model
from fromnoise.model.initialize import initialize
from fromnoise.model.transformer import Transformer
from fromnoise.optim.groups import make_optimizer, measured_step_s, scheduled
from fromnoise.run.budget import steps_for, unused_s
from fromnoise.run.errors import UserError
from fromnoise.run.update import Loss, NonFiniteGuard, update

# Of the steps: where a budget in time is shared out anew, by the rate of the steps that were made. What is measured before the first
# one lasts two seconds, and a busy neighbour in them has cost half an hour nine tenths of its tokens.
LOOKS = (0.05, 0.25, 0.45)
T = TypeVar("T")


class StepPlan:
    """How many steps there are, and what follows from that: a pure function of the recipe, or of measured rates where a budget in time is given."""

    num_steps: int
    num_procedural: int  # the first ones, without words
    evaluated: set[int]  # steps before which held-out text is measured
    kept: set[int]  # steps before which the weights are kept for good

    def __init__(self, ctx, rows: StepRows, tokens_once: float):
        self.ctx, self.rows, self.num_steps, self.num_procedural = ctx, rows, 0, 0
        settings = ctx.recipe.pretrain
        self.step_tokens = rows.per_step * settings.row_tokens
        text_frac = (1 - settings.procedural_frac) * rows.main / rows.per_step
        self.most = int(tokens_once * settings.max_passes / text_frac) // self.step_tokens

    @property
    def text_tokens(self) -> int:
        return (self.num_steps - self.num_procedural) * self.rows.main * self.ctx.recipe.pretrain.row_tokens

    def fix(self, step_s: float, made: int = 0) -> None:
        """step_s: seconds of a step. made: steps that were made already, by the plan as it was; text that has begun goes on."""
        recipe, settings, self.step_s = self.ctx.recipe, self.ctx.recipe.pretrain, step_s
        given_s, before = unused_s(recipe, step_s / self.step_tokens), (made, self.num_steps or 1)
        num_steps = steps_for(self.ctx, "pretrain", settings.tokens // self.step_tokens, step_s, given_s=given_s, made=before)
        self.num_steps = max(1, min(num_steps, self.most))
        if made < self.num_procedural or not made:
            self.num_procedural = max(made, round(settings.procedural_frac * self.num_steps))
        self.evaluated = {round(self.num_steps * i / settings.num_evaluations) for i in range(settings.num_evaluations + 1)}
        self.kept = log_spaced(self.num_steps, settings.num_kept_checkpoints)

    def steps(self, make: Callable[[int], T], start: int, progress) -> Iterator[tuple[int, T]]:
        """(step, make(step)) from `start` on; beside a budget the plan is fixed anew at LOOKS."""
        made = 0
        for look in LOOKS if self.ctx.recipe.budget is not None else ():
            until, clocks = round(look * self.num_steps), []
            if until <= made + 1:  # too few steps to measure; or the plan was cut so short at the look before that this one lies behind
                continue
            for item in prefetch(make, start, until):
                yield item
                clocks.append(time.perf_counter())  # the first step, in which kernels are compiled, does not count
            start, made = max(start, until), until
            before, seconds = self.num_steps, (clocks[-1] - clocks[0]) / (len(clocks) - 1) if len(clocks) > 1 else self.step_s  # resumed here
            self.fix(self.ctx.decide(f"step_s_after_{made}", lambda seconds=seconds: seconds), made)
            if self.num_steps != before:
                self.ctx.info(f"pretrain: {self.num_steps:,} steps for {before:,}, by the time that the first {made} took")
                progress.end_at(self.num_steps)
        yield from prefetch(make, start, self.num_steps)


def run(ctx) -> None:
    recipe, settings = ctx.recipe, ctx.recipe.pretrain
    tokenizer = Tokenizer.load(ctx.path("tokenizer"))
    validation = TokenShards(ctx.path("tokenizer") / "tokens", "validation")
    stream = pretraining_text(ctx, tokenizer.endoftext_id)

    model = initialize(Transformer(ModelConfig(vocab_size=tokenizer.vocab_size, **recipe.model.model_dump())), seed=ctx.seed).to(ctx.machine.device)
    optimizer = make_optimizer(model, settings.optimizer, ctx.machine.torch_dtype)
    parameters = list(model.parameters())
    if ctx.machine.compile:
        compile_blocks(model)

    # the batch: a step's rows of text, then those without words, shared out over ranks and micro-batches
    rows = StepRows(
        "pretrain", settings.batch_tokens, settings.row_tokens, settings.micro_batch_rows, settings.procedural_rows_frac,
        ctx.process.rank, ctx.process.world_size,
    )  # fmt: skip
    plan = StepPlan(ctx, rows, stream.tokens_once())
    step_tokens = plan.step_tokens
    text_ids = tokenizer.text_ids
    if settings.fp8 and (why := fp8.problem(model.config, rows.micro * settings.row_tokens, ctx.machine.device, ctx.machine.torch_dtype)):
        raise UserError(f"pretrain.fp8=true: {why}; use pretrain.fp8=false")
    model.fp8 = settings.fp8

    def micro_batches(step: int) -> list[tuple[Batch, int]]:
        """(batch, how many of its rows are text, the first ones) of a step."""
        wordless = step < plan.num_procedural
        text_rows = 0 if wordless else rows.main  # of the step
        found = []
        for first, cut, end in rows.parts(text_rows):
            parts = [stream.batch((step - plan.num_procedural) * text_rows + first, cut - first, settings.row_tokens)] if first < cut else []
            if cut < end:
                number = step * rows.per_step + cut
                parts.append(procedural_batch(ctx.seed, number, end - cut, settings.row_tokens, text_ids, tokenizer.pad_id, short=wordless))
            found.append((stack_rows(parts).to(ctx.machine.device), cut - first))
        return found

    def counts(step: int, batches: list[tuple[Batch, int]]) -> dict[str, float]:
        """Of all that the step holds on any rank, whether there is some of it here or not."""
        found = ({"loss": 0.0} if step >= plan.num_procedural else {}) | ({"procedural": 0.0} if step < plan.num_procedural or rows.beside else {})
        for batch, text_rows in batches:
            for name, part in row_kinds(batch, text_rows, ("loss", "procedural")).items():
                found[name] += batch.targets(part)
        return found

    def losses(item: tuple[Batch, int]) -> dict[str, Loss]:
        batch, text_rows = item
        found = {}
        with ctx.machine.autocast():
            hidden = model(batch.input_ids, batch.position_ids, batch.segment_ids)  # (B, T, D)
            for name, part in row_kinds(batch, text_rows, ("loss", "procedural")).items():
                count = batch.targets(part)
                found[name] = Loss(linear_cross_entropy(hidden[part], model.head_weight, batch.labels[part], count), count, "token")
        return found

    def measure_step_s() -> float:
        batch = micro_batches(0)  # made once: the loop has them made beside its steps
        return measured_step_s(model, settings.optimizer, ctx.machine, lambda: batch, losses)

    def evaluate(step: int) -> float | None:
        quality = bits_per_byte(
            model, validation, tokenizer.token_bytes(), max_tokens=settings.evaluation_tokens,
            batch_rows=rows.micro, row_tokens=settings.row_tokens, autocast=ctx.machine.autocast,
        )
        ctx.log(step, **{f"validation_bits_per_byte/{source}": value for source, value in quality.items()})
        for seen in probes(model, tokenizer, settings.probes):
            ctx.log(step, probe=seen["text"], top5=seen["top5"], completion=seen["completion"])
            nexts = ", ".join(f"{token!r} {chance:.2g}" for token, chance in seen["top5"])
            ctx.info(f"  {seen['text']!r} -> {seen['completion']!r}   next: {nexts}")
        return quality.get("all")  # None without held-out text

    step_s = ctx.decide("step_s", measure_step_s)
    plan.fix(step_s)
    ctx.checkpoint.plan(step_s, settings.checkpoint_every_s)
    total, matrix = num_parameters(model.config), num_matrix_parameters(model.config)
    ctx.info(
        f"{total:,} parameters ({matrix:,} in matrix products), {plan.num_steps:,} steps of {step_tokens:,} tokens"
        f"{f', the first {plan.num_procedural:,} on sequences without words' if plan.num_procedural else ''}, "
        f"{plan.text_tokens / total:.1f} tokens per parameter, {plan.text_tokens / stream.tokens_once():.2f} passes, "
        f"ln V = {math.log(tokenizer.vocab_size):.3f} nats{'' if validation.num_tokens else ', no text held out to measure bits per byte on'}"
    )

    saved = ctx.checkpoint.load()
    start = saved.step if saved else 0
    guard = NonFiniteGuard(ctx.folder, ctx.process.rank, count=saved.state["nonfinite"] if saved else 0)
    last_bpb, last_loss = (saved.state["bits_per_byte"], saved.state["loss_nats"]) if saved else (None, None)
    if saved:
        model.load_state_dict(saved.group("model"))
        optimizer.load_state_tensors(saved.group("optimizer"))

    token_flops = training_flops_per_token(model.config, settings.row_tokens)
    with ctx.progress(plan.num_steps, "step", start) as progress:
        for step, batch in plan.steps(micro_batches, start, progress):
            if step in plan.evaluated:
                last_bpb = evaluate(step)
            if step in plan.kept and ctx.process.is_main:
                save_model(ctx.folder / "checkpoints" / f"step-{step:06d}", model, tokenizer)
            began = time.perf_counter()
            scale = scheduled(settings.optimizer, step, plan.num_steps)
            stats = update(
                parameters, optimizer, batch, losses, counts(step, batch), weights={"procedural": settings.procedural_weight},
                lr_scale=scale, max_grad_norm=settings.optimizer.max_grad_norm, process=ctx.process,
            )
            guard.check(step, stats, [one for one, _ in batch])
            seconds, last_loss = time.perf_counter() - began, stats.losses.get("loss", stats.losses.get("procedural"))
            rates = ctx.rates(step_tokens, seconds, token_flops)
            ctx.log(
                step, loss_nats=stats.losses.get("loss"), procedural_loss_nats=stats.losses.get("procedural"), grad_norm=stats.grad_norm, lr_scale=scale,
                skipped=stats.skipped, tokens=(step + 1) * step_tokens, **rates,
            )
            progress.advance(1, loss=last_loss, **rates)
            if ctx.checkpoint.due(step + 1):
                ctx.checkpoint.save(
                    step + 1, {"model": model.state_dict(), "optimizer": optimizer.state_tensors()},
                    {"nonfinite": guard.count, "bits_per_byte": last_bpb, "loss_nats": last_loss},
                )
    last_bpb, num_steps = evaluate(plan.num_steps), plan.num_steps
    if ctx.process.is_main:
        save_model(ctx.folder, model, tokenizer)
    ctx.finish(
        {
            "num_parameters": total, "matrix_parameters": matrix, "num_steps": num_steps, "tokens": num_steps * step_tokens,
            "procedural_tokens": num_steps * step_tokens - plan.text_tokens,
            "passes": plan.text_tokens / stream.tokens_once(), "tokens_per_parameter": plan.text_tokens / total,
            "flops": num_steps * step_tokens * token_flops, "vocab_size": tokenizer.vocab_size, "ln_vocab_nats": math.log(tokenizer.vocab_size),
            "final_loss_nats": last_loss, "validation_bits_per_byte": last_bpb,
        }
    )


def log_spaced(num_steps: int, count: int) -> set[int]:
    """About `count` steps from 1 to num_steps - 1, evenly spaced in their logarithm: learning is fast at first."""
    if num_steps < 3 or count < 1:
        return set()
    return {round(math.exp(math.log(num_steps - 1) * i / max(count - 1, 1))) for i in range(count)}
