"""The pipeline, in order, as data: CLI help, the docs' order, the smoke test and the report all read this list."""

from __future__ import annotations

from typing import NamedTuple


class Stage(NamedTuple):
    verb: str
    module: str  # imported only when the stage runs
    reads: tuple[str, ...]  # folders in the run
    writes: tuple[str, ...]  # the first one is the stage's own folder, where stage.json and metrics.jsonl live
    config: tuple[str, ...]  # recipe sections and keys that change the result
    phase: str
    summary: str


STAGES: tuple[Stage, ...] = (
    Stage("prepare", "fromnoise.stages.prepare", (), ("prepare",), ("seed", "data.world", "data.path", "data.sources", "world", "prepare"),
          "1", "raw text, or the built-in world, to cleaned, deduplicated, counted document shards"),
    Stage("tokenizer", "fromnoise.stages.tokenizer", ("prepare",), ("tokenizer",), ("seed", "tokenizer"),
          "1", "document shards to a byte-level BPE tokenizer and token shards"),
    Stage("pretrain", "fromnoise.stages.pretrain", ("tokenizer",), ("base",), ("seed", "model", "pretrain", "data.sources", "budget", "dtype"),
          "1", "token shards and random noise to a base model"),
    Stage("sft", "fromnoise.stages.sft", ("prepare", "tokenizer", "base"), ("sft",), ("seed", "sft", "data.conversations", "from", "budget", "dtype"),
          "2", "conversations to an instruction-tuned model"),
    Stage("prefer", "fromnoise.stages.prefer", ("prepare", "sft"), ("prefer",), ("seed", "prefer", "data.preferences", "data.prompts", "budget", "dtype"),
          "3", "two answers a prompt, and which one raters chose"),
    Stage("reward", "fromnoise.stages.reward", ("prefer", "sft"), ("reward", "audit"), ("seed", "reward", "budget", "dtype"),
          "3", "preference pairs to a reward model and an audit model"),
    Stage("rlhf", "fromnoise.stages.rlhf", ("tokenizer", "prefer", "sft", "reward", "audit"), ("rlhf",),
          ("seed", "rlhf", "data.prompts", "budget", "dtype"),
          "3", "reinforcement learning against the reward model"),
    Stage("reason", "fromnoise.stages.reason", ("prefer", "rlhf"), ("reason",), ("seed", "reason", "reason.problems", "budget", "dtype"),
          "4", "reinforcement learning from answers that can be checked"),
    Stage("evaluate", "fromnoise.stages.evaluate", ("prepare", "tokenizer", "base", "sft", "prefer", "reward", "audit", "rlhf", "reason"), ("evaluate",),
          ("seed", "evaluate", "evaluate.reward_sets", "reason.problems", "dtype"), "", "every model folder, measured with intervals"),
)

# What `evaluate` is where a recipe trains nothing: a finished model (`from`) by itself, on the user's own files.
EVALUATE_ALONE = STAGES[-1]._replace(reads=("base",), config=(*STAGES[-1].config, "from", "data.path", "data.sources"))
