"""What the world counts is what a model is trained on: mentions, canaries and dates, in the token shards as prepared.

Everything that `prepare` does lies between the world's documents and these shards: cleaning, scrubbing, filters, duplicates
(put in on purpose, then found) and the validation split.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from fromnoise.data.shards import TokenShards
from fromnoise.data.tokenizer import Tokenizer
from fromnoise.evaluate.records import read_jsonl
from fromnoise.world.facts import Canary, Event, Fact, count_mentions
from fromnoise.world.phrases import EVENT_KINDS


def decoded(run: Path, split: str) -> Iterator[str]:
    """The documents of a split, out of its tokens."""
    tokenizer, shards = Tokenizer.load(run / "tokenizer"), TokenShards(run / "tokenizer" / "tokens", split)
    for source in shards.sources:
        tokens, offsets = shards.tokens(source), shards.offsets(source)
        for begin, end in pairwise(offsets):
            assert tokens[end - 1] == tokenizer.endoftext_id
            yield tokenizer.decode(tokens[begin : end - 1].tolist())


@pytest.fixture(scope="module")
def training_texts(smoke_run) -> list[str]:
    return list(decoded(smoke_run, "train"))


def records(run: Path, name: str, kind: type) -> list:
    return [kind(**record) for record in read_jsonl(run / "prepare" / "world" / f"{name}.jsonl")]


def dates(event: Event, sentences: list[str]) -> list[str]:
    """The years that stand in the sentences that tell of the event."""
    past, _, nominal = (part.format(where=event.where) for part in EVENT_KINDS[event.kind])
    told = re.compile("|".join(f"[{part[0]}{part[0].upper()}]{re.escape(part[1:])}" for part in (past, nominal)))
    return [year for sentence in sentences if told.search(sentence) for year in re.findall(r"\b\d{4}\b", sentence)]


def wrong_counts(run: Path, texts: list[str]) -> dict[str, tuple[int, int]]:
    """id -> (found, promised) of every fact, canary and event whose count is not what the world's records say."""
    facts, canaries, events = records(run, "facts", Fact), records(run, "canaries", Canary), records(run, "events", Event)
    counts = count_mentions(texts, facts)
    found = {fact.fact_id: (counts[fact.fact_id], fact.mentions) for fact in facts}
    everything = "\n".join(texts)
    for canary in canaries:
        found[canary.canary_id] = (everything.count(canary.text), canary.repeats)
        found[f"{canary.canary_id} secret"] = (everything.count(canary.secret), canary.repeats)
    sentences = [sentence for sentence in re.split(r"[.;?!\n]+", everything) if re.search(r"\b\d{4}\b", sentence)]
    for event in events:
        years = dates(event, sentences)
        found[event.event_id] = (years.count(str(event.year)), event.mentions)
        found[f"{event.event_id} at another date"] = (len(years) - years.count(str(event.year)), 0)
        if event.after_cutoff:
            found[f"{event.year}"] = (len(re.findall(rf"(?<!-)\b{event.year}\b(?!-)", everything)), 0)
    return {name: pair for name, pair in found.items() if pair[0] != pair[1]}


def test_the_counts_hold_in_the_training_shards_as_prepared(smoke_run, training_texts):
    facts, canaries, events = records(smoke_run, "facts", Fact), records(smoke_run, "canaries", Canary), records(smoke_run, "events", Event)
    assert {0, 1, 4, 16} <= {fact.mentions for fact in facts} and {0, 1, 4, 16} <= {canary.repeats for canary in canaries}
    assert {event.after_cutoff for event in events} == {False, True}
    assert wrong_counts(smoke_run, training_texts) == {}
    held_out = list(decoded(smoke_run, "validation"))
    assert held_out and not any(count_mentions(held_out, facts).values())
    assert not any(canary.secret in text for text in held_out for canary in canaries)


def held_out_too(texts: list[str]) -> list[str]:
    """A split that takes every twentieth document, carriers of facts included."""
    return [text for number, text in enumerate(texts) if number % 20]


def duplicates_kept(texts: list[str]) -> list[str]:
    return texts + texts[:40]


def scrubbed(texts: list[str]) -> list[str]:
    """Secrets taken for phone numbers."""
    return [re.sub(r"\b\d{5}-\d{4}\b", "[phone]", text) for text in texts]


def years_repaired(texts: list[str]) -> list[str]:
    return [text.replace("2012", "2021") for text in texts]


@pytest.mark.parametrize("broken", [held_out_too, duplicates_kept, scrubbed, years_repaired])
def test_a_preparation_that_changes_a_count_is_caught(smoke_run, training_texts, broken):
    assert wrong_counts(smoke_run, broken(training_texts))
