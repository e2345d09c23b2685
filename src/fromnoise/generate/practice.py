"""What a policy practises on and what it is audited with: two sets of prompts that have none in common."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from fromnoise.data.conversation import fit_prompt
from fromnoise.data.tokenizer import Tokenizer
from fromnoise.evaluate.records import read_jsonl
from fromnoise.run.errors import UserError
from fromnoise.run.seeds import seed_from


def divide_prompts(ctx, tokenizer: Tokenizer) -> tuple[list[dict], list[dict], dict[str, int]]:
    """(prompts to practise on, prompts for the audits, counts). No audit prompt is ever practised on, nor one whose pairs
    are held out. A prompt is {"id", "ids", "split"}.

    Audits take the prompts of held-out pairs, which neither model has learnt from and which are a fair draw; only then others. Not
    first those that no pair was made of: where there are as many pairs as prompts, these are the prompts that the SFT model
    always answers alike, and an audit on them sees nothing of what is learnt.
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
        kept.append({"id": record["id"], "ids": fit[0], "split": record["split"]})
    order = np.random.default_rng(seed_from(ctx.seed, "audit prompts")).permutation(len(kept)).tolist()
    order.sort(key=lambda i: {"held_out": 0, None: 1, "train": 2}[kept[i]["split"]])  # stable: shuffled within each
    count = min(settings.audit_prompts, len(kept) // 4)
    if count < 2:
        raise UserError(f"rlhf needs at least 8 prompts that leave room for an answer in rows of {settings.row_tokens} tokens; there are {len(kept)}")
    for_audit = set(order[:count])
    apart = {tuple(kept[i]["ids"]) for i in range(len(kept)) if i in for_audit or kept[i]["split"] == "held_out"}  # by tokens: cut ones may be alike
    practised = [prompt for prompt in kept if tuple(prompt["ids"]) not in apart]
    if not practised and settings.method != "dpo":
        raise UserError(f"rlhf: no prompt is left to practise on: {count} are kept for audits and the rest are held out; lower prefer.held_out_frac "
                        f"or rlhf.audit_prompts, or give more prompts")  # fmt: skip
    return practised, [kept[i] for i in order[:count]], counts


def practice_seed(ctx) -> int:
    """Seed of what is drawn while practising. `rlhf.seed` draws all of it anew: same models, same prompts, same audits."""
    return seed_from(ctx.seed, "practice", ctx.recipe.rlhf.seed) if ctx.recipe.rlhf.seed else ctx.seed


def prompt_order(num_prompts: int, iteration: int, count: int, seed: int) -> list[int]:
    """Which `count` prompts an iteration practises on: epochs over all of them, each in an order of its own."""
    chosen = []
    for at in range(iteration * count, (iteration + 1) * count):
        epoch, place = divmod(at, num_prompts)
        chosen.append(int(epoch_order(num_prompts, seed_from(seed, "epoch", epoch))[place]))
    return chosen


@lru_cache(maxsize=4)
def epoch_order(num_prompts: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(num_prompts)
