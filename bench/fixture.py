"""What both sides start from: a tokenizer, one random model in the Hugging Face layout, conversations, pairs and tokens.

    python bench/fixture.py FOLDER [--sft FILE] [--pairs FILE]

The files are read by fromnoise's readers and written as plain messages, with what does not fit ROW_TOKENS left out, so that
TRL and fromnoise train on the same records. Without files the text is the built-in world's and the rows that need
conversations or pairs are left out.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from shape import CONTEXT_TOKENS, PROMPT_TOKENS, ROW_TOKENS, SHAPE, VOCAB_SIZE

from fromnoise.cli import main as fromnoise
from fromnoise.data.conversation import read_conversations
from fromnoise.data.preferences import read_preferences
from fromnoise.data.shards import TokenShards
from fromnoise.data.tokenizer import Tokenizer
from fromnoise.model.config import ModelConfig
from fromnoise.model.heads import ScoreModel
from fromnoise.model.hf import save_model, save_reward
from fromnoise.model.initialize import initialize
from fromnoise.model.transformer import Transformer


def ignore(bad) -> None:
    """A record that cannot be read is left out on both sides alike."""


def write(path: Path, records: list[dict]) -> None:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")


def verb(name: str, run: Path, *settings: str) -> None:
    try:
        fromnoise([name, *settings, "--run-dir", str(run), "--quiet"])
    except SystemExit as end:
        if end.code:
            raise


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--sft")
    arguments.add_argument("--pairs")
    given = arguments.parse_args()
    folder, run = given.folder, given.folder / "run"
    folder.mkdir(parents=True, exist_ok=True)
    conversations = [list(c.messages) for c in read_conversations([given.sft], ignore)] if given.sft else []
    pairs = [pair for pair in read_preferences(given.pairs, ignore) if not pair.tie] if given.pairs else []

    texts = [m["content"] for messages in conversations for m in messages] + [pair.chosen for pair in pairs]
    if texts:
        write(folder / "texts.jsonl", [{"text": text} for text in texts])
        source = [f"data.path={folder / 'texts.jsonl'}"]
    else:
        source = ["data.world=true", "world.documents_tokens=600_000", "world.num_conversations_curated=600", "world.num_conversations_noisy=600"]
    common = [*source, f"tokenizer.vocab_size={VOCAB_SIZE}", "prepare.min_chars=1"]
    verb("prepare", run, *common)
    verb("tokenizer", run, *common)
    tokenizer = Tokenizer.load(run / "tokenizer")

    shards = TokenShards(run / "tokenizer" / "tokens", "train")
    tokens = np.concatenate([shards.tokens(source) for source in shards.sources])
    tokens.astype(np.uint16).tofile(folder / "train.bin")
    tokens[: len(tokens) // 10].astype(np.uint16).tofile(folder / "val.bin")

    fitting = [messages for messages in conversations if fits(tokenizer, messages) and messages[-1]["role"] == "assistant"]
    write(folder / "sft.jsonl", [{"messages": messages} for messages in fitting])
    records = []
    for pair in pairs:
        answers = {name: [{"role": "assistant", "content": getattr(pair, name)}] for name in ("chosen", "rejected")}
        if all(fits(tokenizer, [*pair.prompt, *answer]) for answer in answers.values()):
            records.append({"prompt": list(pair.prompt), **answers})
    write(folder / "pairs.jsonl", records)

    config = ModelConfig(vocab_size=tokenizer.vocab_size, **SHAPE, context_tokens=CONTEXT_TOKENS)
    model = initialize(Transformer(config), seed=0)
    for name in ("base", "sft"):
        save_model(run / name, model, tokenizer, eos_ids=tokenizer.chat_stop_ids)
    scorer = ScoreModel(model)
    torch.nn.init.normal_(scorer.score.weight, std=0.1, generator=torch.Generator().manual_seed(0))  # an untrained head gives every answer 0
    for name in ("reward", "audit"):
        save_reward(run / name, scorer, tokenizer)
    lengths = [len(tokenizer.encode_messages(messages)[0]) for messages in fitting]
    facts = {
        "conversations": len(fitting), "mean_tokens": float(np.mean(lengths)) if lengths else None, "pairs": len(records),
        "train_tokens": len(tokens), "vocab_size": tokenizer.vocab_size, "prompt_tokens": PROMPT_TOKENS,
    }  # fmt: skip
    (folder / "fixture.json").write_text(json.dumps(facts, indent=1))


def fits(tokenizer: Tokenizer, messages: list[dict]) -> bool:
    return len(tokenizer.encode_messages(messages)[0]) <= ROW_TOKENS


if __name__ == "__main__":
    main()
