"""Everything of the world that is a record and not a document, written as JSON lines.

conversations_curated.jsonl, conversations_noisy.jsonl, prompts.jsonl, questions.jsonl, facts.jsonl, canaries.jsonl,
events.jsonl; their fields are described in docs/world.md. The same bytes for the same (seed, section).
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path

from ..run.recipe import WorldSection
from ..tasks import lists
from ..tasks.example import Example
from . import conversations as cv
from . import facts as fx
from . import requests

# What stands beside the minimal pairs (REQUEST_FRAC of all prompts). Few sums: a reward model of this size cannot add (share of the attainable
# on them -0.06), so its score of a sum is noise that PPO would follow; a verifier can, and `reason` has one. Two questions by heart
# for one about a stranger, where admitting is right (facts.py, ASKED_RUNGS).
PROMPT_MIX = (
    ("context", 0.30), ("fact", 0.10), ("sum", 0.02), ("unknown", 0.05), ("summary", 0.06), ("list", 0.02), ("rewrite", 0.04),
    ("ambiguous", 0.02),
)
REQUEST_FRAC = 0.48
EARLIER_TURN_FRAC = 0.05  # prompts that come second in a conversation
HELD_OUT_PROMPTS = 1_600
HELD_REQUESTS = (("unseen_object", 0.72), ("unseen_verb", 0.12), ("unseen_pair", 0.12), ("idiom", 0.04))
KNOWN_MENTIONS = 64  # closed-book prompts ask what a model of this size can have learnt, and no conversation has answered
TAUGHT_FRAC = 0.5  # of them ask taught facts: of the few people of asked ones alone a policy learns their names, not that what it knows it should say
CLOSED_BOOK_ROLE = {"train": "asked", "heldout": "held_out"}
QUESTION_COUNTS = {"context": 320, "summary": 120, "sum": 110, "list": 100, "rewrite": 90, "unknown": 60, "puzzle": 60}


def write_records(folder: Path, seed: int, section: WorldSection) -> None:
    """Write the seven files into `folder` (made if missing)."""
    folder.mkdir(parents=True, exist_ok=True)
    world = fx.World(seed, section)
    questions = make_questions(world, seed)
    held = make_prompts(world, seed, "heldout", num_held_out(section), {asked_for(q) for q in questions})
    taken = {asked_for(record) for record in (*questions, *held)}
    train = make_prompts(world, seed, "train", section.num_prompts, taken)
    _write(folder / "questions.jsonl", questions)
    _write(folder / "prompts.jsonl", (*train, *held))
    _write(folder / "conversations_curated.jsonl", cv.curated(world, seed, section.num_conversations_curated, taken))
    _write(folder / "conversations_noisy.jsonl", cv.noisy(world, seed, section.num_conversations_noisy, taken))
    _write(folder / "facts.jsonl", (asdict(fact) for fact in world.facts))
    _write(folder / "canaries.jsonl", (asdict(canary) for canary in world.canaries))
    _write(folder / "events.jsonl", (asdict(event) for event in world.events))


def num_held_out(section: WorldSection) -> int:
    return min(HELD_OUT_PROMPTS, max(60, section.num_prompts // 2))


def asked_for(record: dict) -> str:
    """What the last user message asks for: what is evaluated is kept out of all that is trained on by it."""
    return lists.request(record["messages"][-1]["content"])


def _write(path: Path, records: Iterable[dict]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False, sort_keys=True) + "\n")


def _record(example: Example, record_id: str, split: str, **more: object) -> dict:
    return {"id": record_id, "kind": example.kind, "split": split, "messages": [*example.before, {"role": "user", "content": example.prompt}],
            "check": example.check, "mentions": example.mentions, "tags": list(example.tags), "fact_id": example.source_id, **more}


# --- prompts -------------------------------------------------------------------------------------------------------
def make_prompts(world: fx.World, seed: int, split: str, count: int, taken: set[str]) -> list[dict]:
    """`count` prompts of one split, all different, none asking for what is in `taken` (see `asked_for`), in an order where any first part has the mix.
    The two sides of a minimal pair follow each other and share `check["pair"]`."""
    rng = random.Random(f"{seed}/prompts/{split}")
    examples = cv.Examples(world, held_out=split == "heldout")
    facts = [fact for fact in world.facts if fact.role == CLOSED_BOOK_ROLE[split]] or examples.taught  # a small world has none to ask
    known = [fact for fact in facts if fact.mentions >= KNOWN_MENTIONS] or facts
    seen: set[str] = set()
    groups: list[list[Example]] = []
    num_pairs = round(count * REQUEST_FRAC / 2)
    while len(groups) < num_pairs:
        group = _pair(rng, split, f"{split}-pair-{len(groups):04d}")
        asked = {example.prompt for example in group}
        if asked.isdisjoint(seen) and asked.isdisjoint(taken):
            seen |= asked
            groups.append(group)
    made, tries = sum(map(len, groups)), 0
    while made < count:
        kind = cv.pick(rng, PROMPT_MIX)
        if kind == "fact":
            example = examples.fact(rng, rng.choice(examples.taught if split == "train" and rng.random() < TAUGHT_FRAC else known))
        else:
            example = examples.draw(kind, rng)
        tries += 1
        if lists.request(example.prompt) in taken or (example.prompt in seen and tries < 50 * count):
            continue
        seen.add(example.prompt)
        groups.append([replace(example, before=_earlier_turn(rng)) if rng.random() < EARLIER_TURN_FRAC else example])
        made += 1
    rng.shuffle(groups)
    flat = [example for group in groups for example in group]
    return [_record(example, f"{split}-{index:05d}", split) for index, example in enumerate(flat)]


def _earlier_turn(rng: random.Random) -> tuple[dict, dict]:
    asked, said = rng.choice((("Hello.", "Hello. What would you like to know?"), ("Good morning.", "Good morning to you."),
                              ("Can you help me?", "Yes, gladly. What is it?"), ("Thank you.", "You are welcome.")))
    return {"role": "user", "content": asked}, {"role": "assistant", "content": said}


def _pair(rng: random.Random, split: str, name: str) -> list[Example]:
    if split == "train":
        tag = "idiom" if rng.random() < 0.08 else None
        harm, safe = requests.idiom_pair(rng, held=False) if tag else requests.pair(rng, None)
    else:
        tag = cv.pick(rng, HELD_REQUESTS)
        harm, safe = requests.idiom_pair(rng, held=True) if tag == "idiom" else requests.pair(rng, tag)
    shape = requests.make_shape(rng)
    group = [requests.example(rng, request, shape, (tag,) if tag else ()) for request in (harm, safe)]
    for example in group:
        example.check["pair"] = name
    if rng.random() < 0.5:
        group.reverse()
    return group


# --- questions -----------------------------------------------------------------------------------------------------
def make_questions(world: fx.World, seed: int) -> list[dict]:
    """The held-out evaluation questions: every held-out fact (twice, in different words, from KNOWN_MENTIONS mentions
    on), and the other trained kinds. Each has `plain`, the request as text for a base model."""
    rng = random.Random(f"{seed}/questions")
    examples = cv.Examples(world, held_out=True)
    made: list[Example] = []
    seen: set[str] = set()
    for fact in world.facts:
        if fact.role != "held_out":
            continue
        wanted = 2 if fact.mentions >= KNOWN_MENTIONS else 1
        asked: set[str] = set()
        while len(asked) < wanted:
            example = examples.fact(rng, fact, 0.8)
            if example.check["question"] not in asked:
                asked.add(example.check["question"])
                seen.add(example.prompt)
                made.append(example)
    for kind, full in QUESTION_COUNTS.items():
        count = max(4, round(full * min(1.0, world.section.num_prompts / 2_000)))
        while count:
            example = examples.draw(kind, rng)
            if example.prompt not in seen:
                seen.add(example.prompt)
                made.append(example)
                count -= 1
    rng.shuffle(made)
    return [_record(example, f"question-{index:05d}", "heldout", plain=example.plain) for index, example in enumerate(made)]
