"""A small run folder with everything that evaluate reads: the world's records, and random models in every place."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from fromnoise.data.shards import token_dtype, write_token_index, write_tokens
from fromnoise.data.tokenizer import Tokenizer
from fromnoise.evaluate.records import read_jsonl, write_jsonl
from fromnoise.model.config import ModelConfig
from fromnoise.model.heads import ScoreModel
from fromnoise.model.hf import save_model, save_reward
from fromnoise.model.initialize import initialize
from fromnoise.model.transformer import Transformer
from fromnoise.run.folder import RunFolder
from fromnoise.run.recipe import Recipe
from fromnoise.world.records import write_records

WORLD = {"documents_tokens": 20_000, "num_conversations_curated": 60, "num_conversations_noisy": 60, "num_prompts": 60, "max_mentions": 16}
SETTINGS = {
    "num_questions": 30, "num_prompts": 10, "num_requests": 8, "best_of_n": 2, "best_of_n_prompts": 4, "num_sums": 6, "num_problems": 2, "pass_k": 2,
    "num_samples": 3, "bits_per_byte_tokens": 2048,
    "sampling": {"max_new_tokens": 6},
}  # fmt: skip


def recipe(**sections) -> Recipe:
    base = {"name": "tiny", "dtype": "float32", "compile": "off", "num_threads": 1, "data": {"world": True}, "world": WORLD, "evaluate": SETTINGS,
            "reason": {"sampling": {"max_new_tokens": 6}}}  # fmt: skip
    return Recipe.model_validate({**base, **sections})


def make(folder: Path) -> RunFolder:
    """base, sft, rlhf: random models that differ; reward, audit: random scorers; prefer: pairs nobody would agree on."""
    run = RunFolder(folder)
    run.create()
    write_records(folder / "prepare" / "world", 0, recipe().world)
    texts = [message["content"] for c in read_jsonl(folder / "prepare" / "world" / "conversations_curated.jsonl") for message in c["messages"]]
    tokenizer = Tokenizer.train(texts, 320)
    dtype = token_dtype(tokenizer.vocab_size)
    counts = {name: write_tokens(folder / "tokenizer" / "tokens", "validation", name, [tokenizer.encode_batch(texts[i::9])], dtype, tokenizer.endoftext_id)
              for i, name in enumerate(("web", "books"))}  # fmt: skip
    write_token_index(folder / "tokenizer" / "tokens", {"validation": counts}, dtype)
    tokenizer.save(folder / "tokenizer")
    for seed, name in enumerate(("base", "sft", "rlhf", "reason")):
        save_model(folder / name, model(tokenizer, seed), tokenizer)
    for seed, name in enumerate(("reward", "audit"), start=7):
        scorer = ScoreModel(model(tokenizer, seed), mean=0.1, std=2.0)
        with torch.no_grad():
            scorer.score.weight.copy_(torch.randn(scorer.score.weight.shape, generator=torch.Generator().manual_seed(seed)))
        save_reward(folder / name, scorer, tokenizer)
    write_jsonl(folder / "prefer" / "pairs.jsonl", pairs(tokenizer))
    (folder / "recipe.toml").write_text('name = "tiny"\nseed = 0\n[data]\nworld = true\n')
    return run


def model(tokenizer: Tokenizer, seed: int) -> Transformer:
    config = ModelConfig(vocab_size=tokenizer.vocab_size, num_layers=1, width=64, num_heads=1, num_kv_heads=1, head_size=64, ffn_width=64, qk_norm=True,
                         tie_embeddings=True, rope_theta=1e4, rms_norm_eps=1e-6, context_tokens=384)  # fmt: skip
    made = initialize(Transformer(config), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
        made.embed_tokens.weight[tokenizer.im_end_id] *= 3  # stops now and then
    return made


def pairs(tokenizer: Tokenizer) -> list[dict]:
    found = []
    for i in range(12):
        messages = [{"role": "user", "content": f"What is {i} + {i}?"}]
        ids, _ = tokenizer.encode_messages(messages, add_generation_prompt=True)
        answers = [{"token_ids": [*tokenizer.encode(text), tokenizer.im_end_id], "text": text, "stopped": True} for text in (f"It is {2 * i}.", f"It is {i}.")]
        found.append({
            "id": f"pair-{i}", "prompt_id": f"p{i}", "kind": "sum", "messages": messages, "prompt_ids": ids, "answers": answers, "weight": 1.0, "rater": "r",
            "share": "audit" if i % 3 == 0 else "reward", "split": "held_out" if i % 2 else "train", "chosen": i % 2, "pool_prob_first": 0.8,
            "differ": {"correct": True, "relevant": False},
        })  # fmt: skip
    return found


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
