"""One dial for a whole run: `budget=10m` is shared out among the stages, and each fixes its steps from a measured rate and what is left
(pretraining again on the way, by the steps that it made).

Stages without a budget do what the recipe says: then anyone's run of a shipped recipe is the same run.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

from fromnoise.data.files import files_named
from fromnoise.run.errors import UserError
from fromnoise.run.folder import stage_of
from fromnoise.run.recipe import Recipe
from fromnoise.run.verdict import stages_of

if TYPE_CHECKING:
    from fromnoise.run.context import StageContext

# Where the time goes, as fractions of the budget. Measured splits of runs that ended well, not a law.
SHARES = {"pretrain": 0.36, "sft": 0.22, "prefer": 0.05, "reward": 0.08, "rlhf": 0.17, "reason": 0.08, "evaluate": 0.04}
ASSUMED_MFU = 0.25  # only to guess whether a stage is long enough to be worth compiling
HUB_PARAMETERS = 100_000_000  # likewise: few models there are smaller
FIXED_S = 30.0  # of a stage: compiling, reading, validating
EVALUATED_TOKENS = 1_000_000  # what `evaluate` with its default settings costs, in tokens of pretraining: 700,000 to 850,000 on a Zen 4, 980,000 on a Zen 3
# Of what later stages seem to leave: the estimate is rough, and so is the measured second of a step. With 0.8, half an hour in which steps
# took a quarter longer than measured at its start was over by 22 s.
GIVEN_AWAY_FRAC = 0.5
BYTES_PER_TOKEN, PACKED_BYTES = 3.5, 4.0  # of text; of text for a byte of a compressed file
UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_budget(text: str) -> float:
    """Seconds of `90s`, `10m`, `1h30m`, `2d`. Raises UserError for anything else; money and FLOPs are not there yet."""
    compact = text.strip().lower().replace(" ", "")
    if compact.startswith(("$", "€", "£")) or compact.endswith(("usd", "eur", "$", "€")):
        raise UserError(f"budget = {text!r}: a budget in money is not supported yet; give a time, for example budget=10m")
    if compact.endswith(("flop", "flops")):
        raise UserError(f"budget = {text!r}: a budget in FLOPs is not supported yet; give a time, for example budget=10m")
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", compact)
    if not parts or "".join(number + unit for number, unit in parts) != compact:
        raise UserError(f"budget = {text!r}: not a time; write for example 90s, 10m, 1h30m or 2d")
    seconds = sum(float(number) * UNITS_S[unit] for number, unit in parts)
    if seconds <= 0:
        raise UserError(f"budget = {text!r}: must be more than nothing")
    return seconds


def share_s(recipe: Recipe, verb: str) -> float | None:
    """Seconds of the budget that belong to a stage; None without a budget, or for a stage that takes what it takes or that the
    recipe does not have: what would belong to those is shared out among the others."""
    shares = {stage.verb: SHARES[stage.verb] for stage in stages_of(recipe) if stage.verb in SHARES}
    if recipe.budget is None or verb not in shares:
        return None
    return parse_budget(recipe.budget) * shares[verb] / sum(shares.values())


def paid_s(ctx: StageContext, verb: str, left_frac: float = 1.0) -> float:
    """Seconds that a stage may take from now on: its share (of which `left_frac` is still to come), among the stages that are still to come, of
    what is left of the budget by the clock.

    What stages before it took, and this one so far (reading, compiling, measuring), is gone, whatever their shares were: so a run whose
    machine slows down, or that prepares for longer than it trains, takes it from what is to come. `evaluate` does not adapt: it is kept what it
    seems to need, half of the whole at most.
    """
    verbs = [stage.verb for stage in stages_of(ctx.recipe)]
    at, whole = verbs.index(verb), parse_budget(ctx.recipe.budget)
    gone = sum((ctx.run.record(stage_of(name)) or {}).get("seconds") or 0.0 for name in verbs[:at]) + ctx.elapsed_s()
    kept = min(whole / 2, max(FIXED_S, SHARES["evaluate"] * whole, EVALUATED_TOKENS * token_s(ctx))) if "evaluate" in verbs[at:] else 0.0
    later = {name: SHARES[name] * (left_frac if name == verb else 1.0) for name in verbs[at:] if name in SHARES and name != "evaluate"}
    return max(0.0, whole - gone - kept) * later[verb] / sum(later.values())


def token_s(ctx: StageContext) -> float:
    """Seconds of a token of pretraining, as it measured them last; 0 where this run has no pretraining."""
    record = ctx.run.record(stage_of("pretrain")) or {"decisions": {}}
    measured = [seconds for name, seconds in record["decisions"].items() if name.startswith("step_s")]
    return measured[-1] / ctx.recipe.pretrain.batch_tokens if measured else 0.0


def steps_for(
    ctx: StageContext, verb: str, default_steps: int, seconds_per_step: float, more: bool = True, given_s: float = 0.0, made: tuple[int, int] = (0, 1)
) -> int:
    """The stage's number of steps: the recipe's `default_steps`, or as many as its share of what is left of the budget pays for.

    seconds_per_step: measured at the stage's start. given_s: seconds beside the share (`unused_s`), below 0 for what comes beside the
    steps. made: (steps made, steps that were planned) where it is asked anew on the way; those made count. At least 1 is to come, with a
    warning where none is paid for. Decided once (for each number of steps made) and replayed on resume. more=False where further steps
    would be further passes over the same few records, or go further from the model that began: a budget may then cut the steps, never
    add any (a reward model that saw 2,000 pairs four times was sure of itself and no better than chance; PPO on one that had, in 65
    iterations for 20, ended in answers of three words and strange characters).
    """

    def count() -> int:
        if ctx.recipe.budget is None:
            return default_steps
        left_frac = 1 - made[0] / made[1]
        share = paid_s(ctx, verb, left_frac)
        affordable = int((share + given_s * left_frac) / max(seconds_per_step, 1e-6))
        if affordable < 1 and not made[0]:
            budget = f"is left of budget = {ctx.recipe.budget!r}"
            ctx.console.warn(
                f"{verb}: its share of what {budget} pays for no step; one is made all the same" if share
                else f"{verb}: nothing {budget} for this stage and those to come: one step of each is made all the same, and the run is likely to end late"
            )  # fmt: skip
        paid = made[0] + max(1, affordable)
        return paid if more else min(paid, default_steps)

    return ctx.decide(f"num_steps_after_{made[0]}" if made[0] else "num_steps", count)


def more_pairs(recipe: Recipe) -> str:
    """What to change for more labelled pairs: a setting that counts under this recipe."""
    if recipe.data.preferences is not None:
        return f"give more pairs than data.preferences = {recipe.data.preferences!r} holds"
    sampled = f"prefer.num_pairs = {recipe.prefer.num_pairs}"
    by_people = recipe.prefer.raters == "people"
    if recipe.budget is not None:
        sampled = f"{sampled} or budget = {recipe.budget!r}" if by_people else f"budget = {recipe.budget!r} (beside it prefer.num_pairs does not count)"
    if by_people and recipe.prefer.num_labelled is not None:
        return f"raise prefer.num_labelled = {recipe.prefer.num_labelled} and label more pairs (for more to label, raise {sampled})"
    return f"raise {sampled}"


def unused_s(recipe: Recipe, token_s: float) -> float:
    """Seconds that pretraining may have beside its own share, because the stages after it will not use theirs: a budget adds no steps to
    most of them (`steps_for`), and a thousand conversations are soon read. 0 without a budget.

    token_s: seconds of a token of pretraining, measured. What later stages take is estimated from the recipe and the sizes of its files.
    """
    tokens = {verb: count for verb, count in trained_tokens(recipe).items() if verb in ("sft", "reward", "rlhf")}
    if recipe.data.preferences is not None:
        tokens["prefer"] = 0.0  # it reads the pairs and makes none
    left = ((share_s(recipe, verb) or 0.0) - FIXED_S - count * token_s for verb, count in tokens.items())
    return GIVEN_AWAY_FRAC * sum(max(0.0, seconds) for seconds in left)


def expected_s(recipe: Recipe, verb: str, peak_flops: float) -> float:
    """A rough guess, within a factor of three, of the seconds a stage computes gradients for; 0 for one that does not."""
    seconds = share_s(recipe, verb)
    if seconds is not None:
        return seconds
    return 6 * (num_parameters(recipe) or HUB_PARAMETERS) * trained_tokens(recipe).get(verb, 0) / (ASSUMED_MFU * peak_flops)


def trained_tokens(recipe: Recipe) -> dict[str, float]:
    """About as many tokens as each stage takes gradients of without a budget, passes and models counted, sampling as if it were learning."""
    data, rlhf, reason = recipe.data, recipe.rlhf, recipe.reason
    of_world = getattr(recipe.world, f"num_conversations_{recipe.sft.conversations}") * 100
    conversations = of_world if data.world and not data.conversations else sum(map(tokens_in, data.conversations))
    pairs = tokens_in(data.preferences) if data.preferences is not None else recipe.prefer.num_pairs * 200
    answer = 60 + rlhf.sampling.max_new_tokens / 2  # with its prompt
    best_of = rlhf.best_of
    return {
        "pretrain": recipe.pretrain.tokens,
        "sft": min(recipe.sft.max_tokens or math.inf, recipe.sft.epochs * conversations / (1 - recipe.sft.replay_frac)),
        "reward": recipe.reward.epochs * pairs * recipe.reward.ensemble,
        "rlhf": {"dpo": 1.4 * rlhf.dpo.epochs * pairs, "best_of_n": best_of.num_prompts * answer * (best_of.n + best_of.epochs)}.get(
            rlhf.method, rlhf.num_iterations * rlhf.rollouts_per_iteration * answer * (rlhf.ppo_epochs + 3)
        ),
        "reason": reason.num_iterations * reason.prompts_per_iteration * reason.group_size * 70 * 2,
    }  # fmt: skip


def tokens_in(path: str) -> float:
    """About as many tokens as the files of a path hold, by their sizes."""
    sizes = [(file.stat().st_size, file.suffix in (".gz", ".zst", ".parquet")) for file in files_named(path)[1]]
    return sum(size * (PACKED_BYTES if packed else 1.0) for size, packed in sizes) / BYTES_PER_TOKEN


def num_parameters(recipe: Recipe) -> int | None:
    """About as many parameters as the recipe's model will have, before its vocabulary is known; None for one that is still on the Hub."""
    if recipe.sft_from is not None:
        from fromnoise.model import flops
        from fromnoise.model.config import ModelConfig
        from fromnoise.model.hf import read_config

        config = Path(recipe.sft_from) / "config.json"
        return flops.num_parameters(ModelConfig.from_hf(read_config(config.parent), str(config))) if config.is_file() else None
    shape = recipe.model
    attention = shape.width * shape.head_size * (2 * shape.num_heads + 2 * shape.num_kv_heads)
    embeddings = (recipe.tokenizer.vocab_size or 4096) * shape.width * (1 if shape.tie_embeddings else 2)
    return shape.num_layers * (attention + 3 * shape.width * shape.ffn_width) + embeddings
