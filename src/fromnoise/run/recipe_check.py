"""What a recipe's types cannot say of the model's shape, the rows it is fed and how data is divided, found before any work is done."""

from __future__ import annotations

from fromnoise.data.loader import StepRows
from fromnoise.data.procedural import SHORTEST
from fromnoise.model.config import ModelConfig
from fromnoise.run.errors import UserError
from fromnoise.run.recipe import Recipe
from fromnoise.run.verdict import stages_of

SPLITS = {"prefer.audit_frac": ("prefer", "reward"), "prefer.held_out_frac": ("prefer", "reward"), "reward.validation_frac": ("reward",)}
FEEDS_ROWS = ("pretrain", "sft", "prefer", "reward", "rlhf", "reason")


def check_shapes(recipe: Recipe, verb: str | None, world_size: int) -> None:
    """The shapes of what is to be made, everything or one stage. Raises UserError naming the setting."""
    made = {stage.verb for stage in stages_of(recipe)}
    todo = made if verb is None else made & {verb}
    if "pretrain" in todo:
        try:
            ModelConfig(vocab_size=64, **recipe.model.model_dump())
        except ValueError as error:
            raise UserError(f"model.{error}") from None
    if "pretrain" in made:
        check_rows(recipe, todo, recipe.model.context_tokens, f"model.context_tokens = {recipe.model.context_tokens}; raise that")
    for key, beside in (("sft.replay_frac", recipe.sft.replay_frac), ("rlhf.ptx_coef", recipe.rlhf.ptx_coef)):
        if key.split(".")[0] in todo and beside and "pretrain" not in made:
            raise UserError(f"{key} = {beside} trains on pretraining text as well, and with from={recipe.sft_from} there is none in its tokens; set {key}=0")
    for name, beside in (("pretrain", "procedural_rows_frac"), ("sft", "replay_frac")):
        if name in todo:
            section = getattr(recipe, name)
            if name == "pretrain" and section.row_tokens < SHORTEST and (section.procedural_frac or section.procedural_rows_frac):
                raise UserError(
                    f"pretrain.row_tokens = {section.row_tokens} holds no sequence without words, of {SHORTEST} tokens at least; raise it, or set "
                    f"pretrain.procedural_frac=0 and pretrain.procedural_rows_frac=0"
                )
            StepRows(name, section.batch_tokens, section.row_tokens, section.micro_batch_rows, getattr(section, beside), world_size=world_size)


def check_learnable(recipe: Recipe, verb: str | None) -> None:
    """That there is something on each side of what is compared or divided, where it is to be made. Raises UserError naming the setting."""
    made = {stage.verb for stage in stages_of(recipe)}
    todo = made if verb is None else made & {verb}
    if "prefer" in todo and recipe.data.prompts and not recipe.data.preferences and recipe.prefer.raters == "world":
        raise UserError(
            f"prefer.raters=world: the world's raters know what is right for its own prompts, not for those of {recipe.data.prompts}; "
            f"set prefer.raters=people and label the answers (`fromnoise label RUN`), or give pairs (data.preferences)"
        )
    if "rlhf" in todo and recipe.rlhf.method in ("ppo", "grpo", "rloo"):
        check_practice(recipe)
    check_world(recipe, todo)
    if "reward" in todo and "pretrain" in made and recipe.reward.text_coef and not recipe.model.tie_embeddings:
        raise UserError(f"reward.text_coef = {recipe.reward.text_coef} needs a head that is the embedding; set model.tie_embeddings=true, or text_coef=0")
    if "reason" in todo and recipe.data.world and not recipe.reason.levels and recipe.reason.problems is None:
        raise UserError("reason.levels is empty and reason.problems names no file: there is nothing to practise; give levels of the world's (docs/reason.md)")
    if "reason" in todo and len(levels := recipe.reason.levels) != len(set(levels)):
        raise UserError(f"reason.levels = {list(levels)} names a level twice; how often one is drawn follows from how often it is solved: name each once")
    check_room(recipe, todo, made)
    if "reason" in todo and recipe.reason.group_size < 2:
        raise UserError(
            f"reason.group_size = {recipe.reason.group_size}: GRPO compares answers to the same problem, so that it needs at least 2; raise reason.group_size"
        )
    for key, verbs in SPLITS.items():
        section, name = key.split(".")
        frac = getattr(getattr(recipe, section), name)
        if "reward" in made and todo.intersection(verbs) and not 0 < frac < 1:
            raise UserError(
                f"{key} = {frac}: reward needs pairs on both sides of every split (reward and audit model, trained and held out or validated); "
                f"give a fraction between 0 and 1, neither of them"
            )


def check_practice(recipe: Recipe) -> None:
    """What an iteration of ppo, grpo or rloo samples and is held back by."""
    settings = recipe.rlhf
    if settings.method != "ppo" and settings.group_size < 2:
        raise UserError(
            f"rlhf.group_size = {settings.group_size}: {settings.method} compares answers to the same prompt, so that it needs at least 2; "
            f"raise rlhf.group_size, or set rlhf.method=ppo"
        )
    key, size = ("answers_per_prompt", settings.answers_per_prompt) if settings.method == "ppo" else ("group_size", settings.group_size)
    if size > settings.rollouts_per_iteration:
        raise UserError(
            f"rlhf.{key} = {size} answers to each prompt are more than an iteration samples, rlhf.rollouts_per_iteration = "
            f"{settings.rollouts_per_iteration}; raise that, or lower rlhf.{key}"
        )
    if settings.kl_target_nats is not None and settings.kl_coef == 0:
        raise UserError(
            f"rlhf.kl_target_nats = {settings.kl_target_nats} steers a coefficient that begins at rlhf.kl_coef = 0 and, multiplied, would stay there; "
            f"give rlhf.kl_coef a value to begin at, or leave the target out"
        )


def check_world(recipe: Recipe, todo: set[str]) -> None:
    """That the world's records are enough for the stages that read them."""
    data, key = recipe.data, f"num_conversations_{recipe.sft.conversations}"
    if "sft" in todo and data.world and not data.conversations and getattr(recipe.world, key) < 2:
        raise UserError(f"world.{key} = {getattr(recipe.world, key)}: sft needs two conversations at least, one of them to validate with; raise it")
    if "prefer" in todo and data.world and not data.preferences and not data.prompts and recipe.world.num_prompts < 8:
        raise UserError(f"world.num_prompts = {recipe.world.num_prompts}: rlhf needs at least 8 prompts, some of them kept for audits; raise it")


def check_room(recipe: Recipe, todo: set[str], made: set[str]) -> None:
    """A prompt must leave room for a whole answer: where an answer alone takes as much as there is, no prompt does, and the stage would find none."""
    rooms = [(name, f"{name}.row_tokens", getattr(recipe, name).row_tokens, "") for name in ("prefer", "rlhf", "reason") if name in todo]
    if "reason" in todo and recipe.reason.anchor_coef:
        rooms.append(("rlhf", "reason.row_tokens", recipe.reason.row_tokens, "to the prompts of reason's anchors "))
    if "evaluate" in todo and "pretrain" in made:
        rooms.append(("evaluate", "model.context_tokens", recipe.model.context_tokens, ""))
    for name, key, room, of in rooms:
        if (longest := getattr(recipe, name).sampling.max_new_tokens) >= room:
            raise UserError(
                f"{name}.sampling.max_new_tokens = {longest}: an answer of that length {of}leaves no room for a prompt in {key} = {room}; "
                f"raise {key}, or lower {name}.sampling.max_new_tokens"
            )


def check_rows(recipe: Recipe, verbs: set[str], context_tokens: int, context: str) -> None:
    """No stage may feed rows beyond the model's context: readers of the model are promised no more."""
    rows = {f"{name}.row_tokens": getattr(recipe, name).row_tokens for name in FEEDS_ROWS if name in verbs}
    wide = [key for key, row_tokens in rows.items() if row_tokens > context_tokens]
    if wide:
        listed, are = ", ".join(f"{key} = {rows[key]}" for key in wide), "are" if len(wide) > 1 else "is"
        raise UserError(f"{listed} {are} more than the model sees, {context} or lower {' and '.join(wide)}")
