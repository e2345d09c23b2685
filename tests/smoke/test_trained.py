"""What a really trained run leaves behind: folders that transformers opens with the same numbers, and numbers that are explained."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from fromnoise.data.tokenizer import Tokenizer
from fromnoise.model.hf import load_model, load_reward
from fromnoise.pipeline import STAGES
from fromnoise.run.metrics import read_metrics

transformers = pytest.importorskip("transformers")
EXPLAINED = Path(__file__).parents[2] / "docs" / "metrics.md"
COMMON = {"schema_version", "stage", "step", "time_s"}


def ragged(vocab_size: int, context_tokens: int, pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids, mask): three rows over the whole vocabulary, the first as long as the context, the others padded."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, vocab_size, (3, context_tokens), generator=generator)
    lengths = torch.tensor([context_tokens, context_tokens // 2 + 3, 7])
    mask = torch.arange(context_tokens) < lengths[:, None]
    ids[torch.arange(3), lengths - 1] = 5  # no pad in the last place: readers score the last token that is none
    return ids.where(mask, pad_id), mask


@torch.no_grad()
@pytest.mark.parametrize("name", ["base", "sft", "rlhf"])
def test_trained_models_open_in_transformers_with_the_same_logits(smoke_run, name):
    theirs, info = transformers.AutoModelForCausalLM.from_pretrained(smoke_run / name, output_loading_info=True)
    assert not any(info.values()), info
    ours = load_model(smoke_run / name)
    ids, mask = ragged(ours.config.vocab_size, ours.config.context_tokens, Tokenizer.load(smoke_run / name).pad_id)
    found, expected = ours.logits(ours(ids)), theirs(ids, attention_mask=mask.long()).logits
    torch.testing.assert_close(found[mask], expected[mask], rtol=0, atol=1e-4)
    assert expected[mask].std() > 0.5  # trained: logits far from one another


@torch.no_grad()
@pytest.mark.parametrize("name", ["reward", "audit"])
def test_trained_reward_models_score_the_same(smoke_run, name):
    theirs, info = transformers.AutoModelForSequenceClassification.from_pretrained(smoke_run / name, output_loading_info=True)
    assert not any(info.values()), info
    ours = load_reward(smoke_run / name)
    ids, mask = ragged(ours.backbone.config.vocab_size, ours.backbone.config.context_tokens, Tokenizer.load(smoke_run / name).pad_id)
    found = ours(ids)[torch.arange(3), mask.sum(1) - 1]
    torch.testing.assert_close(found, theirs(ids, attention_mask=mask.long()).logits[:, 0], rtol=0, atol=1e-4)
    assert name == "audit" or found.std() > 0  # a few dozen pairs: the audit model's best weights may be those it began with


@pytest.mark.parametrize("name", ["sft", "rlhf", "reward"])
def test_their_chat_template_gives_our_ids(smoke_run, name):
    ours, theirs = Tokenizer.load(smoke_run / name), transformers.AutoTokenizer.from_pretrained(smoke_run / name)
    talk = [{"role": "user", "content": "Where does Mara Fenn live?"}, {"role": "assistant", "content": "In Tolby — or 12 miles off."},
            {"role": "user", "content": "Naïve <b>question</b>\n  at 23:59?"}]  # fmt: skip
    for messages in (talk[:1], talk, [{"role": "system", "content": "Be short."}, *talk]):
        expected = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        assert list(expected) == ours.encode_messages(messages, add_generation_prompt=True)[0]


def explained(section: str) -> list[re.Pattern]:
    """The names a section of docs/metrics.md explains; words in capitals stand for any name without a slash."""
    parts = re.split(r"^## ", EXPLAINED.read_text(encoding="utf-8"), flags=re.M)
    wanted = (section, "Every training stage", "Every stage's summary")
    rows = [row for part in parts if part.split("\n")[0] in wanted for row in part.split("\n") if "|" in row]
    names = [name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])]
    return [re.compile(re.sub(r"[A-Z]{2,}", "[^/]+", re.escape(name))) for name in names if re.search("[a-z]{2}", name)]


def unexplained(section: str, names: set[str]) -> list[str]:
    patterns = explained(section)
    known = {name: re.sub(r"^reward_sets/[^/]+/(?!(read|cut|set_aside)$)", "reward/", name) for name in names - COMMON}  # "the numbers above"
    return sorted(name for name, same in known.items() if not any(pattern.fullmatch(same) for pattern in patterns))


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.verb)
def test_every_logged_number_is_explained(smoke_run, stage):
    folder = smoke_run / stage.writes[0]
    names = {name for line in read_metrics(folder / "metrics.jsonl") for name in line}
    names |= set(json.loads((folder / "stage.json").read_text())["summary"])
    if stage.verb == "evaluate":
        names |= set(json.loads((folder / "summary.json").read_text()))
    assert unexplained(stage.verb, names) == []
    strange = ["kl", "never_said", "reward/never/said", "safety/sampled/new"]
    assert unexplained(stage.verb, set(strange)) == strange


def test_a_run_that_compiles_nothing_imports_no_compiler(smoke_run):
    """It takes two to three seconds, of every start: `torch.optim.Optimizer`, deterministic algorithms and stances all ask for it."""
    imported = smoke_run.with_suffix(".modules").read_text().split()
    assert "torch" in imported and "fromnoise.stages.pretrain" in imported
    assert not {"torch._dynamo", "torch._inductor", "sympy", "transformers"} & set(imported)
