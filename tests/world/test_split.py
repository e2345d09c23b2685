"""No pair of operands that evaluation asks for stands in anything that is trained on: everything is read, not believed."""

from __future__ import annotations

import re

import pytest

from fromnoise.run.recipe import WorldSection
from fromnoise.tasks.splits import held_out_pair
from fromnoise.world import problems
from fromnoise.world.build import documents
from fromnoise.world.records import write_records
from tests.stages.whole_run import lines

SECTION = WorldSection(documents_tokens=400_000, num_conversations_curated=1_500, num_conversations_noisy=1_500, num_prompts=600)
FIGURES = re.compile(r"(?<![\d.])(\d{2,})\s*(?:[+-]|plus|minus|and)\s*(\d{2,})(?!\d)")  # 12 + 34, 12-34, "Add 12 and 34"
TURNED = re.compile(r"(?:take|subtract|Take|Subtract) (\d{2,}) (?:away )?from (\d{2,})")


def pairs_of(text: str) -> list[tuple[int, int]]:
    """Every pair of numbers that are added or taken away in figures, however it is worded."""
    return [(int(a), int(b)) for pattern in (FIGURES, TURNED) for a, b in pattern.findall(text)]


def leaks(texts) -> list[tuple[int, int]]:
    return [pair for text in texts for pair in pairs_of(text) if held_out_pair(*pair)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("split")
    write_records(folder, 0, SECTION)
    return folder


def test_documents(made):
    texts = [line for document in documents(0, SECTION) if document.source == "web" for line in document.text.splitlines() if "=" in line]
    assert sum(len(pairs_of(text)) for text in texts) > 100
    assert leaks(texts) == []


def test_conversations_and_training_prompts(made):
    talks = [message["content"] for name in ("curated", "noisy") for c in lines(made / f"conversations_{name}.jsonl") for message in c["messages"]]
    prompts = [record for record in lines(made / "prompts.jsonl") if record["split"] == "train"]
    texts = talks + [record["messages"][-1]["content"] for record in prompts]
    assert sum(len(pairs_of(text)) for text in texts) > 100
    assert leaks(texts) == []
    checks = [record["check"] for record in prompts if record["kind"] == "sum"]
    assert checks and not any(held_out_pair(check["a"], check["b"]) for check in checks)


def test_questions_and_held_out_prompts_stand_on_the_other_side(made):
    records = [*lines(made / "questions.jsonl"), *(record for record in lines(made / "prompts.jsonl") if record["split"] == "heldout")]
    pairs = [(record["check"]["a"], record["check"]["b"]) for record in records if record["kind"] == "sum"]
    assert len(pairs) > 20 and all(held_out_pair(a, b) for a, b in pairs if min(a, b) >= 10)


def test_problems_practised_on_and_measured_with(made):
    import random

    rng = random.Random(3)
    practised = [problems.problem(rng, level) for level in (1, 2, 3, 4, 5, 8) for _ in range(150)]
    assert leaks(f"{example.prompt} {example.answer}" for example in practised) == []
    measured = problems.held_out((1, 2, 4), 60, seed=0, purpose="sums")
    assert len({record["prompt"] for record in measured}) == 180
    assert all(held_out_pair(record["check"]["a"], record["check"]["b"]) for record in measured)
    assert measured == problems.held_out((1, 2, 4), 60, seed=0, purpose="sums")


def test_a_leak_is_found():
    """The broken twin: the same readings find a held-out pair wherever it is put."""
    a, b = next((a, b) for a in range(20, 99) for b in range(20, 99) if a > b and held_out_pair(a, b))
    for text in (f"What is {a} + {b}?", f"{a}-{b}: 1-1=0.", f"Add {b} and {a}.", f"Take {b} away from {a}.", f"How much is {a} minus {b}?"):
        assert leaks([text]), text
