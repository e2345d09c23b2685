"""sft: conversations to an instruction-tuned model, which answers instead of going on.

Reads `prepare/` (the world's conversations) or the recipe's files, `tokenizer/` and `base/`; writes `sft/`. The loss is
on the assistant's tokens and its stop token only; conversations are packed without seeing each other; the checkpoint
with the best validation loss is what `sft/` holds.

One batch from disk to weight update: data/conversation.py -> data/loader.py -> this loop -> run/update.py.
Over-long rule: whole turns are cut from the end until the conversation fits a row; a first exchange that does not fit
is set aside and counted.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch

from fromnoise.algorithms.logprobs import linear_cross_entropy
from fromnoise.data.conversation import Conversation, num_records, read_conversations
from fromnoise.data.loader import PackedEpochs, StepRows, prefetch, pretraining_text, row_kinds
from fromnoise.data.packing import Batch, collate_all, stack_rows
from fromnoise.data.shards import token_dtype
from fromnoise.data.tokenizer import Tokenizer
from fromnoise.model.compiled import compile_blocks
from fromnoise.model.flops import training_flops_per_token
from fromnoise.model.hf import check_vocabulary, load_model, save_model
from fromnoise.optim.groups import make_optimizer, measured_step_s, scheduled
from fromnoise.run.budget import steps_for
from fromnoise.run.errors import UserError
from fromnoise.run.recipe_check import check_rows
from fromnoise.run.seeds import seed_from
from fromnoise.run.update import Loss, NonFiniteGuard, update
from fromnoise.run.verdict import stages_of


def run(ctx) -> None:
    settings = ctx.recipe.sft
    base = ctx.parent("base")
    tokenizer = Tokenizer.load(base)
    if tokenizer.chat_template is None:
        raise UserError(
            f"{base}: its tokenizer has no chat template, without which no conversation can be written for this model; save one as "
            "chat_template.jinja beside tokenizer.json (that of a chat model of its family), or take a model that has one"
        )
    model = load_model(base).to(ctx.machine.device)
    check_vocabulary(model.config, len(tokenizer), base)
    if ctx.recipe.sft_from is not None:  # else the recipe's own model, whose context is known before
        context = model.config.context_tokens
        check_rows(ctx.recipe, {stage.verb for stage in stages_of(ctx.recipe)}, context, f"max_position_embeddings = {context} in {base}; take another model")
    optimizer = make_optimizer(model, settings.optimizer, ctx.machine.torch_dtype)
    parameters = list(model.parameters())
    if ctx.machine.compile:
        compile_blocks(model)

    train, validation, cut = encode(read(ctx), tokenizer, settings.row_tokens, settings.validation_frac, ctx.seed)
    shape = {"row_tokens": settings.row_tokens, "pad_id": tokenizer.pad_id}
    rows = StepRows(
        "sft", settings.batch_tokens, settings.row_tokens, settings.micro_batch_rows, settings.replay_frac, ctx.process.rank, ctx.process.world_size
    )
    epochs = PackedEpochs(*train, rows_per_step=rows.main, seed=ctx.seed, **shape)
    held_out = collate_all(*validation, num_rows=rows.micro, **shape)
    replay = pretraining_text(ctx, tokenizer.endoftext_id) if rows.beside else None

    def micro_batches(step: int) -> list[tuple[Batch, int]]:
        """(batch, how many of its rows are conversations, the first ones) of a step."""
        found = []
        for first, cut, end in rows.parts(rows.main):
            parts = [epochs.batch(step, first, cut - first)] if first < cut else []
            if cut < end:  # rows of pretraining text beside the conversations keep what the base model knows
                parts.append(replay.batch(step * rows.beside + cut - rows.main, end - cut, settings.row_tokens))
            found.append((stack_rows(parts).to(ctx.machine.device), cut - first))
        return found

    def losses(item: tuple[Batch, int]) -> dict[str, Loss]:
        batch, found = item[0], {}
        with ctx.machine.autocast():
            hidden = model(batch.input_ids, batch.position_ids, batch.segment_ids)  # (B, T, D)
            for name, part in row_kinds(*item, ("loss", "replay")).items():
                count = batch.targets(part)
                found[name] = Loss(linear_cross_entropy(hidden[part], model.head_weight, batch.labels[part], count), count, "token")
        return found

    def counts(batches: list[tuple[Batch, int]]) -> dict[str, float]:
        """Of all that a step holds on any rank, whether there is some of it here or not."""
        found = {"loss": 0.0} | ({"replay": 0.0} if rows.beside else {})
        for item in batches:
            for name, part in row_kinds(*item, ("loss", "replay")).items():
                found[name] += item[0].targets(part)
        return found

    @torch.no_grad()
    def evaluate() -> float:
        """Mean validation loss in nats a counted token."""
        total = sum(losses((batch.to(ctx.machine.device), len(batch.labels)))["loss"].sum for batch in held_out)
        return float(total) / sum(batch.num_targets for batch in held_out)

    step_tokens = rows.per_step * settings.row_tokens
    wanted = round(settings.epochs * epochs.steps_per_epoch)
    if settings.max_tokens:
        wanted = min(wanted, settings.max_tokens // step_tokens)
    step_s = ctx.decide("step_s", lambda: measured_step_s(model, settings.optimizer, ctx.machine, lambda: micro_batches(0), losses))
    num_steps = steps_for(ctx, "sft", max(1, wanted), step_s, more=False)
    ctx.checkpoint.plan(step_s, settings.checkpoint_every_s)
    evaluation_steps = {round(num_steps * i / settings.num_evaluations) for i in range(settings.num_evaluations)}
    ctx.info(f"{len(train[0]):,} conversations ({cut['cut']} cut, {cut['set_aside']} set aside), {num_steps} steps of {step_tokens:,} tokens")

    saved = ctx.checkpoint.load()
    start = saved.step if saved else 0
    guard = NonFiniteGuard(ctx.folder, ctx.process.rank, count=saved.state["nonfinite"] if saved else 0)
    best_loss, best_step, best, seen_tokens = None, 0, None, 0
    if saved:
        model.load_state_dict(saved.group("model"))
        optimizer.load_state_tensors(saved.group("optimizer"))
        best_loss, best_step, seen_tokens = (saved.state[name] for name in ("best_loss", "best_step", "seen_tokens"))
        best = saved.group("best")

    def validate(step: int) -> None:
        nonlocal best_loss, best_step, best
        loss = evaluate()
        ctx.log(step, validation_loss_nats=loss)
        if best_loss is None or loss < best_loss:
            best_loss, best_step, best = loss, step, {k: v.clone() for k, v in model.state_dict().items()}

    token_flops = training_flops_per_token(model.config, settings.row_tokens)
    with ctx.progress(num_steps, "step", start) as progress:
        for step, batch in prefetch(micro_batches, start, num_steps):
            if step in evaluation_steps:
                validate(step)
            began = time.perf_counter()
            scale = scheduled(settings.optimizer, step, num_steps)
            stats = update(
                parameters, optimizer, batch, losses, counts(batch), weights={"replay": settings.replay_weight},
                lr_scale=scale, max_grad_norm=settings.optimizer.max_grad_norm, process=ctx.process,
            )
            seconds = time.perf_counter() - began
            guard.check(step, stats, [one for one, _ in batch])
            here = torch.tensor([sum(one.num_tokens for one, _ in batch)])
            real_tokens = int(ctx.process.all_reduce_sum(here))
            seen_tokens += real_tokens
            rates = ctx.rates(real_tokens, seconds, token_flops)
            ctx.log(
                step, loss_nats=stats.losses["loss"], replay_loss_nats=stats.losses.get("replay"), grad_norm=stats.grad_norm, lr_scale=scale,
                skipped=stats.skipped, tokens=real_tokens, **rates,
            )
            progress.advance(1, loss=stats.losses["loss"], **rates)
            if ctx.checkpoint.due(step + 1):
                ctx.checkpoint.save(
                    step + 1, {"model": model.state_dict(), "optimizer": optimizer.state_tensors(), "best": best},
                    {"nonfinite": guard.count, "best_loss": best_loss, "best_step": best_step, "seen_tokens": seen_tokens},
                )
    validate(num_steps)
    model.load_state_dict(best)
    if ctx.process.is_main:
        save_model(ctx.folder, model, tokenizer, eos_ids=tokenizer.chat_stop_ids)
    ctx.finish(
        {
            "conversations": len(train[0]), "validation_conversations": len(validation[0]), **cut, "num_steps": num_steps,
            "tokens": seen_tokens, "flops": seen_tokens * token_flops, "best_step": best_step,
            "validation_loss_nats": best_loss, "epochs": num_steps / epochs.steps_per_epoch,
        }
    )


def read(ctx) -> list[Conversation]:
    """The recipe's conversations, or the edition of the world's that it names. Bad records are counted and kept aside."""
    files = list(ctx.recipe.data.conversations)
    if not files:
        files = [str(ctx.path("prepare") / "world" / f"conversations_{ctx.recipe.sft.conversations}.jsonl")]
    conversations = []
    for path in files:
        found = read_conversations(path, ctx.on_bad)
        ctx.check_bad(num_records(found), path)
        conversations += found
    return conversations


def encode(conversations: list[Conversation], tokenizer: Tokenizer, row_tokens: int, validation_frac: float, seed: int):
    """((ids, masks) to train on, (ids, masks) held out, {"cut", "set_aside"}).

    A conversation is held out by its first user message, so that the same prompt never stands on both sides. Raises UserError
    where nothing is left to train on.
    """
    sides: dict[bool, tuple[list, list]] = {True: ([], []), False: ([], [])}
    counts, dtype = {"cut": 0, "set_aside": 0}, token_dtype(tokenizer.vocab_size)
    draws = []  # of those to train on
    for conversation in conversations:
        messages = list(conversation.messages)
        while True:
            ids, mask = tokenizer.encode_messages(messages)
            if len(ids) <= row_tokens or len(messages) <= 1:
                break
            messages = messages[:-1]
            while messages and messages[-1]["role"] != "assistant":
                messages.pop()
            if not messages:  # the first exchange alone is too long; some templates fail on no message at all
                break
        mask = learnt(mask, messages, conversation.unlearnt) if messages and len(ids) <= row_tokens else []
        if not any(mask):
            counts["set_aside"] += 1
            continue
        counts["cut"] += len(messages) < len(conversation.messages)
        first_user = next((m["content"] for m in messages if m["role"] == "user"), "")
        draw = seed_from(seed, "validation", first_user) % 10_000
        held_out = draw < validation_frac * 10_000
        sides[held_out][0].append(np.array(ids, dtype=dtype))  # a tenth of what lists of numbers take
        sides[held_out][1].append(np.array(mask, dtype=bool))
        draws += [] if held_out else [draw]
    fit, whole = len(sides[True][0]) + len(sides[False][0]), f"{len(conversations):,} conversation{'s' if len(conversations) > 1 else ''}"
    if not fit:
        raise UserError(f"all {whole} are longer than sft.row_tokens = {row_tokens} tokens, or hold no answer; raise sft.row_tokens, or give shorter ones")
    if fit < 2:
        raise UserError(f"sft needs two conversations at least, one of them to validate with: of {whole}, {fit} fits; give more, or raise sft.row_tokens")
    if not sides[False][0]:
        raise UserError(f"sft.validation_frac = {validation_frac} holds out all of {whole}, none is left to train on; lower it, or give more conversations")
    if not sides[True][0]:  # too few for a draw to hit: the lowest one's, or of conversations that all begin alike the last
        lowest = min(draws)
        held = {at for at, draw in enumerate(draws) if draw == lowest}
        held = held if len(held) < len(draws) else {len(draws) - 1}
        for column in (0, 1):
            sides[True][column].extend(item for at, item in enumerate(sides[False][column]) if at in held)
            sides[False][column][:] = [item for at, item in enumerate(sides[False][column]) if at not in held]
    return sides[False], sides[True], counts


def learnt(mask: Sequence[bool], messages: Sequence[dict], unlearnt: frozenset[int]) -> Sequence[bool]:
    """The mask of what the assistant says without its turns of these numbers, counted from 0: each turn is one run of the mask.

    Raises UserError where a chat template of the Hub writes turns in another way.
    """
    if not unlearnt:
        return mask
    spoken = np.array(mask, dtype=bool)
    begins = np.diff(spoken, prepend=False) & spoken
    if begins.sum() != sum(message["role"] == "assistant" for message in messages):
        raise UserError("this model's chat template does not write each turn in one piece: take turns of `weight` 0 or `train` false out of the conversations")
    return spoken & ~np.isin(np.cumsum(begins) - 1, list(unlearnt))
