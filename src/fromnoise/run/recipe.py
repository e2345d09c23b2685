"""The recipe: everything a run can be told, typed, with one default for each value.

A recipe is TOML. Three layers are merged, later ones winning: the defaults below, the recipe file, and
`key.sub=value` arguments. An unknown key is an error that names the nearest known one. Once loaded a recipe is
frozen; what a run derives from it (steps for a budget, dtype, compile or not) is decided at a stage's start and
recorded in `stage.json`, never written back here.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from fromnoise.run.errors import UserError

# Settings for which 0 cannot be meant.
POSITIVE = frozenset(
    "tokens max_tokens batch_tokens row_tokens context_tokens micro_batch_rows batch_pairs batch_prompts rollouts_per_iteration minibatches ppo_epochs "
    "max_new_tokens num_layers width num_heads num_kv_heads head_size ffn_width num_threads num_pairs num_labelled best_of_n max_chars ensemble group_size n "
    "answers_per_prompt prompts_per_iteration groups_per_update anchor_prompts validate_every validation_problems "
    "documents_tokens beta kl_target_nats audit_every num_evaluations pass_k vocab_size train_bytes max_passes epochs max_grad_norm rope_theta "
    "near_duplicate_threshold clip_ratio clip_ratio_high value_clip".split()
)

MAX_WEIGHT = 1_000


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """`true` would be read as 1: `pretrain.tokens = true` as a single token."""
        if isinstance(value, bool) and cls.model_fields[info.field_name].annotation in (int, float, int | None, float | None):
            raise ValueError("must be a number, not true or false")
        return value

    @field_validator("*")
    @classmethod
    def _in_range(cls, value: Any, info: ValidationInfo) -> Any:
        """No setting is negative, `_frac` is at most 1, and what must be there at all is at least 1."""
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            if isinstance(value, int) and value >= 1 << 63:
                raise ValueError("must be less than 2^63, the largest whole number that TOML and what reads it can hold")
            if not math.isfinite(value) or value < 0:
                raise ValueError("must be a finite number that is not negative")
            if info.field_name.endswith("_frac") and value > 1:
                raise ValueError("is a fraction, so between 0 and 1")
            if value == 0 and info.field_name in POSITIVE:
                raise ValueError("must be more than 0" if isinstance(value, float) else "must be at least 1")
        return value


class WorldSection(Section):
    """The built-in world (`data.world = true`)."""

    documents_tokens: int = 5_000_000  # target size of the corpus before cleaning, at 4 bytes a token
    num_conversations_curated: int = 4_000
    num_conversations_noisy: int = 20_000
    num_prompts: int = Field(6_000, le=200_000)  # prompts for prefer and rlhf, held-out ones beside them; of many more some kinds have no different ones
    cutoff_year: int = Field(2023, ge=1000, le=9000)
    max_mentions: int = Field(256, ge=16)  # top of the ladder 0, 1, 4, 16, 64, 256 (, 1024); below 16 no fact is taught


class SourceSection(Section):
    """One named source of documents."""

    name: str
    path: str  # file, folder or glob: txt, md, rst, html, jsonl, json, csv, parquet (plain, gz, zst)
    weight: float = 1.0  # passes over this source relative to the others: how often a pass over all holds each of its documents
    licence: Literal["public", "licensed", "private", "synthetic"] = "private"
    text_field: str | None = None  # for records; guessed (text, content, body, ...) when absent
    date_field: str | None = None

    @field_validator("weight")
    @classmethod
    def _fits_memory(cls, weight: float) -> float:
        if weight > MAX_WEIGHT:  # the order of a pass is held in memory
            raise ValueError(f"must be at most {MAX_WEIGHT}: a pass holds each of the source's documents so often; divide all weights by the same number")
        return weight


class DataSection(Section):
    world: bool = False
    path: str | None = None  # shorthand for a single source named after the folder
    sources: tuple[SourceSection, ...] = ()
    conversations: tuple[str, ...] = ()  # files or folders for `sft`, any known form
    preferences: str | None = None  # a file of human pairs for `reward`; prompts of `rlhf` too
    prompts: str | None = None  # prompts for `prefer` and `rlhf`; from the preferences when absent
    max_bad_frac: float = 0.1  # a run stops when a larger fraction of a file's (folder's, source's) records than this is malformed


class PrepareSection(Section):
    validation_frac: float = 0.02  # by document
    near_duplicate_threshold: float = Field(0.8, le=1)  # Jaccard similarity of 5-word shingles
    min_chars: int = 40
    max_chars: int = 1_000_000  # a longer document is split, not dropped
    max_repeated_line_frac: float = 0.3
    scrub_contacts: bool = True


class TokenizerSection(Section):
    vocab_size: int | None = None  # None: from the number of training bytes
    train_bytes: int = 20_000_000  # the tokenizer is trained on at most this much text


class ModelSection(Section):
    """Qwen3 shape; `qk_norm = false` gives Llama's."""

    num_layers: int = 5
    width: int = 192
    num_heads: int = 3
    num_kv_heads: int = 3
    head_size: int = 64
    ffn_width: int = 512
    qk_norm: bool = True
    tie_embeddings: bool = True
    rope_theta: float = 10_000.0
    context_tokens: int = 512


Beta = Annotated[float, Field(ge=0, lt=1)]


class OptimizerSection(Section):
    """Muon for matrices inside the blocks, AdamW for embeddings, heads and vectors."""

    matrices: Literal["muon", "adamw"] = "muon"  # adamw: it moves the matrices as well, at adamw_lr, as most published models were trained
    muon_lr: float = 0.02
    adamw_lr: float = 0.003
    embedding_lr: float | None = None  # AdamW's for the embedding (tied: the head as well); None: adamw_lr
    muon_momentum: Beta = 0.95
    adamw_betas: tuple[Beta, Beta] = (0.9, 0.95)
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    warmup_frac: float = 0.02
    decay_frac: float = 0.5  # the last part of the steps in which the rate falls to final_lr_frac
    final_lr_frac: float = 0.05


class PretrainSection(Section):
    tokens: int = 5_000_000
    procedural_frac: float = Field(0.0, lt=1)  # of the steps, the first ones, are spent on sequences without words (data/procedural.py)
    procedural_rows_frac: float = Field(0.0, lt=1)  # of the rows of every later step (at least one) hold such sequences, so that what they teach stays
    procedural_weight: float = 0.07  # of those rows' mean loss, beside 1 for the text's
    max_passes: float = 8.0  # a corpus smaller than `tokens` is repeated at most this often (its source of the largest weight), then steps are cut
    batch_tokens: int = 8_192
    row_tokens: int = 256
    micro_batch_rows: int = 16
    fp8: bool = False  # the blocks' products in 8 bits (model/fp8.py); slower at the one width measured, 1,280 on an H200
    optimizer: OptimizerSection = OptimizerSection(adamw_lr=0.01, embedding_lr=0.1)  # embeddings start at 1
    num_evaluations: int = 8
    evaluation_tokens: int = 65_536
    num_kept_checkpoints: int = 8  # log-spaced, kept for good under base/checkpoints
    checkpoint_every_s: float = 20.0  # read once, at the stage's start, to fix a number of steps
    probes: tuple[str, ...] = ("The cat sat on the", "Once upon a time", "The capital of")


class SftSection(Section):
    conversations: Literal["curated", "noisy"] = "curated"  # the world's edition
    epochs: float = 2.0
    max_tokens: int | None = None  # cuts the epochs short when set
    batch_tokens: int = 4_096
    row_tokens: int = 256
    micro_batch_rows: int = 16
    replay_frac: float = Field(0.0, lt=1)  # of a step's rows (at least one) are drawn from the pretraining shards
    replay_weight: float = 0.2  # of the replayed rows' mean loss, beside 1 for the conversations'
    optimizer: OptimizerSection = OptimizerSection(muon_lr=0.004, adamw_lr=0.0006)
    num_evaluations: int = 6
    validation_frac: float = Field(0.05, lt=1)  # of the conversations, one at least
    checkpoint_every_s: float = 15.0


class SamplingSection(Section):
    temperature: float = 1.0
    top_k: int = 0  # 0: no limit
    top_p: float = Field(1.0, gt=0, le=1)
    repetition_penalty: float = Field(1.0, gt=0)  # above 1, what stands in prompt or answer already is less likely to be said again
    max_new_tokens: int = 64

    @property
    def is_whole(self) -> bool:
        """Whether tokens are drawn by the model's own probabilities of the whole vocabulary, so that those of two models can be compared."""
        return self.top_k == 0 and self.top_p == 1 and self.repetition_penalty == 1


def sampling_of(**settings: Any) -> SamplingSection:
    """What somebody asks for outside a recipe. Raises UserError naming the setting and its value."""
    try:
        return SamplingSection(**settings)
    except ValidationError as error:
        entry = error.errors()[0]
        message = entry["msg"].removeprefix("Value error, ")
        raise UserError(f"{'.'.join(map(str, entry['loc']))} = {entry['input']!r}: {message[:1].lower()}{message[1:]}") from None


def drawn(sampling: SamplingSection) -> SamplingSection:
    """At a temperature of 0 two answers to a prompt are always the same, and no log-probability can be taken."""
    if sampling.temperature == 0:
        raise ValueError("temperature must be more than 0 here: answers have to be drawn, and differ")
    return sampling


def whole_distribution(sampling: SamplingSection) -> SamplingSection:
    """What a policy is updated by must have been drawn from all of it: probabilities are compared over the whole vocabulary."""
    if not sampling.is_whole:
        raise ValueError("top_k, top_p and repetition_penalty cannot be set here: the update compares probabilities over the whole vocabulary; temperature can")
    return sampling


DrawnSampling = Annotated[SamplingSection, AfterValidator(drawn)]
WholeSampling = Annotated[DrawnSampling, AfterValidator(whole_distribution)]


class BiasSection(Section):
    """How the world's raters whose pairs train the reward model differ from people at large; nothing by default."""

    flattery: float = 0.0  # added to the weight of each flattering phrase, in logits; likewise the next four
    filler: float = 0.0  # a closing remark that says nothing
    hedges: float = 0.0
    num_words: float = 0.0  # a word
    polite: float = 0.0
    care_frac: float = 1.0  # of the weights on being right, on topic, in form and refusing fitly that is left
    patience_frac: float = 1.0  # of the patience to check a claim that is left
    shared: bool = False  # whether the audit's raters are bent alike; the judges never are


class PreferSection(Section):
    num_pairs: int = 4_000
    raters: Literal["world", "people"] = "world"
    raters_per_pair: int = Field(1, ge=1, le=12)  # raters = "world": so many people compare each training pair; a held-out pair always one
    num_labelled: int | None = None  # raters = "people": go on when so many of the pairs are labelled; None: all of them
    bias: BiasSection = BiasSection()
    batch_prompts: int = 256
    max_resamples: int = 2  # a second answer equal to the first is drawn again at most this often
    borrowed: dict[str, list[str]] = {}  # kind of prompt: kinds whose answers raters are shown at its prompts too
    borrowed_frac: float = Field(0.5, ge=0, le=1)  # in that share of its training pairs
    row_tokens: int = 256  # prompt and answer together; the oldest turns of a longer prompt are cut
    audit_frac: float = 0.4  # share of the prompts whose pairs train the audit model instead
    held_out_frac: float = 0.15  # share of either side's prompts that trains nothing
    sampling: DrawnSampling = SamplingSection()


class RewardSection(Section):
    epochs: float = 2.0
    batch_pairs: int = 32  # about: a step is whole micro-batches
    validation_frac: float = 0.08  # of the training pairs, by prompt: chooses the weights, reported nowhere
    num_evaluations: int = 4
    num_normalise_answers: int = Field(512, ge=2)  # answers of the SFT model whose scores set the mean and std
    rater_weights: Literal["as_given", "agreement"] = "as_given"  # agreement: votes count by how far a rater agrees with the others
    every_token_coef: float = 0.0  # of the same loss on the mean score of an answer's tokens, beside the last one's
    text_coef: float = 0.0  # of the likelihood of chosen answers beside the preference loss, so that what the model knows stays
    debias_length: bool = False  # what answers' lengths explain of the choices is fitted apart and left out of the score
    ensemble: int = 1  # models of each kind, their mean the reward
    row_tokens: int = 256
    micro_batch_rows: int = 16
    optimizer: OptimizerSection = OptimizerSection(muon_lr=0.003, adamw_lr=0.0005)
    checkpoint_every_s: float = 15.0


class DpoSection(Section):
    """`rlhf.method = "dpo"`: the pairs that the reward model learnt from, without a reward model."""

    beta: float = 0.1
    variant: Literal["sigmoid", "ipo"] = "sigmoid"
    label_smoothing_frac: float = Field(0.0, lt=0.5)  # how often a choice is taken to be the wrong way round (conservative DPO)
    length_normalised: bool = False  # mean instead of summed log-probabilities of an answer
    epochs: float = 1.0
    batch_pairs: int = 32  # about: a step is whole micro-batches
    optimizer: OptimizerSection = OptimizerSection(muon_lr=0.002, adamw_lr=0.0003, warmup_frac=0.1, decay_frac=0.5, final_lr_frac=0.1)


class BestOfSection(Section):
    """`rlhf.method = "best_of_n"`: the SFT model is tuned on the best of its own answers by the reward model."""

    n: int = 8
    num_prompts: int = Field(960, ge=1)
    epochs: float = 2.0
    batch_tokens: int = 2_048
    optimizer: OptimizerSection = OptimizerSection(muon_lr=0.002, adamw_lr=0.0003, warmup_frac=0.1, decay_frac=0.5, final_lr_frac=0.1)


class RlhfSection(Section):
    method: Literal["ppo", "grpo", "rloo", "dpo", "best_of_n"] = "ppo"
    seed: int = 0  # another one draws orders and answers anew, all else being the same: how much of a result is luck
    num_iterations: int = 40
    rollouts_per_iteration: int = 128
    sampling: WholeSampling = SamplingSection()
    ppo_epochs: int = 2  # passes over an iteration's answers; of grpo and rloo too
    minibatches: int = 2
    row_tokens: int = 256
    micro_batch_rows: int = 16
    kl_coef: float = 0.05  # ppo, rloo: k1 in the reward, per token; grpo: k3 in the loss
    kl_target_nats: float | None = None  # sequence KL that an adaptive coefficient steers to; None: kl_coef is fixed
    gamma: float = Field(1.0, le=1)
    gae_lambda: float = Field(0.95, le=1)
    clip_ratio: float = 0.2
    clip_ratio_high: float | None = None  # the upper bound apart (clip-higher); None: as the lower
    value_clip: float = 0.2
    critic_warmup_iterations: int = 2  # iterations in which the critic alone learns
    answers_per_prompt: int = 1  # ppo: several share one copy of their prompt in a row, which costs less; each is still credited by itself
    group_size: int = 8  # grpo, rloo: answers to each prompt
    divide_by_std: bool = True  # grpo: by the group's deviation, as published
    aggregation: Literal["token", "sequence", "constant"] = "token"  # grpo, rloo: how an answer's tokens are weighed
    missing_stop_penalty: float = 2.0  # in units of the normalised reward
    ptx_coef: float = 0.0  # of the loss on pretraining text beside the policy's (PPO-ptx)
    max_update_kl_nats: float | None = None  # old against new policy, per token: over it an iteration's passes end early
    max_kl_nats: float = 30.0  # sequence KL from the SFT model at which the stage stops early
    optimizer: OptimizerSection = OptimizerSection(muon_lr=0.002, adamw_lr=0.0003, decay_frac=0.3, final_lr_frac=0.1)
    dpo: DpoSection = DpoSection()
    best_of: BestOfSection = BestOfSection()
    audit_every: int = 5  # iterations between audits on held-out prompts; dpo and best_of_n are audited as often in all
    audit_prompts: int = Field(128, ge=2)  # of one answer nobody can say by how much chance alone moves its score
    checkpoint_every_s: float = 20.0


class ReasonSection(Section):
    """Reinforcement learning from verifiable rewards: GRPO on problems whose answers can be checked."""

    problems: str | None = None  # a file of questions and answers (docs/reason.md); the world brings problems of its own
    levels: tuple[int, ...] = (1, 2, 3, 4, 5, 6)  # of the world's problems (tasks/problems.py); a file's are beside them
    num_iterations: int = 24
    prompts_per_iteration: int = 32  # problems tried
    group_size: int = 8  # answers to each
    groups_per_update: int = 24  # of them, or of earlier ones, learnt from: groups of equal reward teach nothing
    buffer_iterations: int = 2  # how long a group that was left over may wait for its turn
    sampling: WholeSampling = SamplingSection(max_new_tokens=72)
    credit: Literal["step", "answer"] = "step"  # a token is credited with what follows it, step by step; or with the whole answer
    retries: int = 4  # how often a problem that no answer solved is gone on with from its last right step
    imitation_coef: float = 1.0  # of the likelihood of right answers, one to each problem
    step_discount: float = Field(0.3, le=1)  # of what later steps earn, in the credit of a step
    steps_coef: float = 1.0  # of the share of right steps, beside 1 for a right answer
    format_coef: float = 0.1  # of having the form
    minibatches: int = 4
    row_tokens: int = 256
    micro_batch_rows: int = 8
    clip_ratio: float = 0.2
    clip_ratio_high: float = 0.28  # clip-higher
    divide_by_std: bool = False  # of a group's rewards
    aggregation: Literal["token", "sequence", "constant"] = "token"
    kl_coef: float = 0.01  # k3 from the rlhf model on the problems' answers
    anchor_coef: float = 0.3  # KL from the rlhf model on its own answers to other prompts
    anchor_prompts: int = 512
    calculator: bool = False  # `<<12*7=` is answered by the engine
    calculator_iterations: int = 8  # of them at the start, in which the notation is shown
    validate_every: int = 8  # iterations
    validation_problems: int = 96
    optimizer: OptimizerSection = OptimizerSection(muon_lr=0.0012, adamw_lr=0.0004, decay_frac=0.5, final_lr_frac=0.05)
    checkpoint_every_s: float = 20.0


class EvaluateSection(Section):
    num_questions: int = 1_000  # held-out questions put to base, sft, rlhf and reason
    num_prompts: int = 512  # held-out prompts for sft against rlhf
    num_requests: int = 400  # held-out harmful requests and look-alikes for the safety table
    best_of_n: int = 16
    num_sums: int = 500  # held-out sums of two and three digits, before and after `reason`
    num_problems: int = 40  # held-out problems of each level, and of the harder ones
    pass_k: int = 8  # answers to each of these
    best_of_n_prompts: int = 160  # each costs best_of_n answers
    num_samples: int = 24  # prompts answered side by side by base, sft, rlhf and reason
    bits_per_byte_tokens: int = 65_536
    reward_sets: tuple[str, ...] = ()  # files or folders of pairs on which the reward models are measured besides
    seed: int = 1234
    sampling: DrawnSampling = SamplingSection()


def _below_runs(name: str) -> str:
    if not name.strip() or Path(name).is_absolute() or not Path(name).parts or ".." in Path(name).parts:
        raise ValueError("must name a folder below runs/; for another place there is --run-dir")
    return name


class Recipe(Section):
    name: Annotated[str, AfterValidator(_below_runs)] = "run"
    seed: int = 0
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    compile: Literal["auto", "on", "off"] = "auto"
    num_threads: int | None = Field(None, le=1024)  # None: all cores
    budget: str | None = None  # "10m", "600s", "2h" of the whole run, from which each stage fixes its steps (run/budget.py)
    data: DataSection = DataSection()
    world: WorldSection = WorldSection()
    prepare: PrepareSection = PrepareSection()
    tokenizer: TokenizerSection = TokenizerSection()
    model: ModelSection = ModelSection()
    pretrain: PretrainSection = PretrainSection()
    sft: SftSection = SftSection()
    prefer: PreferSection = PreferSection()
    reward: RewardSection = RewardSection()
    rlhf: RlhfSection = RlhfSection()
    reason: ReasonSection = ReasonSection()
    evaluate: EvaluateSection = EvaluateSection()
    sft_from: str | None = Field(default=None, alias="from")  # a model folder or Hub id that replaces `base/`
