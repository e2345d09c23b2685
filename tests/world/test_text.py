"""The text side of the world: its laws of variety, exact counts of mentions, sameness everywhere, speed."""

import os
import random
import re
import subprocess
import sys
import time

import pytest

from fromnoise.run.recipe import WorldSection
from fromnoise.tasks.arithmetic import equations
from fromnoise.world import facts as fx
from fromnoise.world import lexicon as lx
from fromnoise.world import phrases, variety
from fromnoise.world.build import documents
from fromnoise.world.verbs import conjugate, plural

SMALL = WorldSection(documents_tokens=150_000)
MEASURED_BYTES = 2_100_000


def stream(section, seed=0, limit=None):
    found, size = [], 0
    for document in documents(seed, section):
        found.append(document)
        size += len(document.text)
        if limit and size >= limit:
            break
    return found


@pytest.fixture(scope="module")
def corpus():
    return stream(WorldSection(), limit=MEASURED_BYTES)


@pytest.fixture(scope="module")
def measured(corpus):
    prose = [document.text for document in corpus if document.source != "code"]
    return variety.measure((document.text for document in corpus), prose)


# --- the laws of variety ---------------------------------------------------------------------------------------------
def holds(found: variety.Variety) -> dict[str, bool]:
    return {"compression": found.compression <= 6.5, "top10": found.top10_frac <= 0.03, "distinct": found.distinct_frac >= 0.60,
            "words": found.words_per_100k >= 2_500}


def test_laws_of_variety(measured):
    assert measured.num_bytes >= 2_000_000
    assert all(holds(measured).values()), measured


def test_a_templated_text_breaks_each_law():
    """The broken twin: filled-in blanks."""
    rng = random.Random(0)
    names, nouns = lx.FIRST_NAMES[:40], lx.GOODS
    text = "\n".join(f"{rng.choice(names)} bought {rng.choice(nouns)} in {rng.choice(lx.TOWNS)}." for _ in range(20_000))
    assert not any(holds(variety.measure([text])).values())


def test_skeleton_keeps_function_words():
    assert variety.skeleton('"Is that all?" said Tom to the baker.') == "is that all _ _ to the _"
    assert variety.sentences('"Is that all?" said Tom. The end was near.\nA heading\n1 + 1 = 2.') == ['"Is that all?" said Tom.', " The end was near."]


# --- counts ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("section", [SMALL, WorldSection(documents_tokens=600_000)])
def test_mentions_are_exact(section):
    world, texts = fx.World(3, section), stream(section, 3)
    counts = fx.count_mentions((document.text for document in texts), world.facts)
    assert all(counts[fact.fact_id] == fact.mentions for fact in world.facts)
    everything = "\n".join(document.text for document in texts)
    for canary in world.canaries:
        assert everything.count(canary.text) == everything.count(canary.secret) == canary.repeats
    for event in world.events:
        if event.after_cutoff:
            assert not re.search(rf"(?<!-)\b{event.year}\b(?!-)", everything)
        else:
            assert everything.count(str(event.year)) >= event.mentions


def test_carriers_are_exempt_and_clean():
    world, texts = fx.World(3, SMALL), stream(SMALL, 3)
    secrets, subjects = [c.secret for c in world.canaries], world.subjects
    contact = re.compile(r"@|\d{3}-555-|\+44")
    for document in texts:
        carries = any(s in document.text for s in secrets) or any(s in document.text for s in subjects)
        assert document.exempt or not carries
        if document.exempt:
            assert not contact.search(document.text) and "â€" not in document.text
    exempt = [document.text for document in texts if document.exempt]
    assert len(set(exempt)) == len(exempt)
    assert any(contact.search(document.text) for document in texts)
    assert len({document.text for document in texts}) < len(texts)  # there are duplicates to find


def test_what_is_woven_around_statements_holds_no_value():
    from fromnoise.world.documents import LEADS, TAILS
    values = {value for relation in fx.RELATIONS.values() for value in relation}
    for text in (*LEADS, *TAILS, *phrases.OPENERS):
        words = re.sub(r"\{[^}]*\}", "", text)
        assert not any(re.search(rf"\b{value}\b", words) for value in values), text


def test_strangers_are_in_no_document(corpus):
    names = {name for document in corpus for name in re.findall(r"\b[A-Z][a-z]+ ([A-Z][a-z]+)\b", document.text)}
    world = fx.World(0, WorldSection())
    full = re.compile(rf"\b({'|'.join(lx.FIRST_NAMES)}) ({'|'.join(world.stranger_surnames)})\b")
    assert names and not any(full.search(document.text) for document in corpus)


# --- facts -----------------------------------------------------------------------------------------------------------
def test_ladder_at_full_size():
    world = fx.World(0, WorldSection())
    rungs = {m: sum(f.mentions == m and f.role == "held_out" for f in world.facts) for m in (0, 1, 4, 16, 64, 256)}
    assert all(rungs[m] >= 66 for m in (0, 1, 4, 16)) and min(rungs[64], rungs[256]) >= 64
    asked = sum(f.role == "asked" and f.mentions == 64 for f in world.facts)
    assert asked >= 32 and rungs[64] + asked >= 96
    assert sum(f.role == "taught" and f.mentions == 64 for f in world.facts) >= 120
    assert sum(f.mentions == 1024 for f in fx.World(0, WorldSection(max_mentions=1024)).facts) >= 32
    by_subject = {}
    for fact in world.facts:
        by_subject.setdefault(fact.subject, []).append(fact)
        assert fact.value in world.values(fact.relation)
    for facts in by_subject.values():
        assert 2 <= len(facts) <= 3 and len({(f.mentions, f.role) for f in facts}) == 1 and len({f.relation for f in facts}) == len(facts)
    surnames = [subject.split()[1] for subject in by_subject]
    assert len(set(surnames)) == len(surnames) and not set(surnames) & set(world.other_surnames)


@pytest.mark.parametrize("tokens", [20_000, 100_000, 300_000, 1_000_000])
def test_ladder_shrinks_with_the_documents(tokens):
    world = fx.World(0, WorldSection(documents_tokens=tokens))
    mentions = sum(fact.mentions for fact in world.facts)
    assert mentions * fx.STATEMENT_TOKENS <= 0.3 * tokens
    assert {0, 1, 4, 16} <= {fact.mentions for fact in world.facts}
    roles = {fact.role for fact in world.facts}
    assert roles == {"taught", "held_out", "asked"} if world.has_rung(64) else roles == {"taught", "held_out"}


def test_phrases():
    for relation in fx.RELATIONS:
        assert len(set(phrases.STATEMENTS[relation])) >= 12 and len(phrases.QUESTIONS[relation]) >= 4
    rng = random.Random(0)
    for fact in fx.World(0, WorldSection()).facts:
        for text in (fx.statement(fact, rng), fx.answer(fact, rng, named=True)):
            assert fact.subject in text and re.search(rf"\b{fact.value}\b", text) and text.endswith(".") and "{" not in text
        asked = fx.question(fact, rng)
        assert fact.subject in asked and asked.endswith("?") and not re.search(rf"\b{fact.value}\b", asked)


# --- sameness, shape, speed ------------------------------------------------------------------------------------------
def test_same_bytes_under_any_hash_seed():
    code = ("import hashlib\nfrom fromnoise.run.recipe import WorldSection\nfrom fromnoise.world.build import documents\nh = hashlib.sha256()\n"
            "for d in documents(5, WorldSection(documents_tokens=60_000)):\n    h.update(repr(d).encode())\nprint(h.hexdigest())")
    digests = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                              env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": "src"}).stdout for seed in ("0", "1", "random")}
    assert len(digests) == 1 and len(digests.pop().strip()) == 64


def test_seed_and_order():
    first, again, other = stream(SMALL, 1), stream(SMALL, 1), stream(SMALL, 2)
    assert first == again and first[:50] != other[:50]
    ids = [(document.source, document.doc_id) for document in first]
    assert len(set(ids)) == len(ids)


def test_size_sources_dates(corpus):
    texts = stream(SMALL)
    size = sum(len(document.text.encode()) for document in texts)
    assert 0.98 <= size / (4 * SMALL.documents_tokens) <= 1.05
    shares = {}
    for document in corpus:
        shares[document.source] = shares.get(document.source, 0) + len(document.text)
        assert document.date and int(document.date[:4]) <= WorldSection().cutoff_year
        assert "{" not in document.text or document.source == "code"
        assert "a~" not in document.text
    total = sum(shares.values())
    assert set(shares) == {"web", "books", "code", "papers"} and 0.025 <= shares["code"] / total <= 0.06


@pytest.mark.timed
def test_ten_million_tokens_in_half_a_minute():
    """40 MB in 30 s is 1.33 MB/s of this process's time; the quickest of three times two megabytes, for a neighbour only ever adds."""
    rates = []
    for seed in range(3):
        start = time.process_time()
        size = sum(len(document.text) for document in stream(WorldSection(), seed=seed, limit=2_000_000))
        rates.append(size / (time.process_time() - start))
    assert max(rates) >= 4 * 10_000_000 / 30, rates


# --- small parts -----------------------------------------------------------------------------------------------------
def test_sums_in_documents_are_right(corpus):
    """Every equation in the sum pages; the heads of columns ("347+285:") are told apart by having no "="."""
    found = [one for d in corpus if d.source == "web" for line in d.text.splitlines() if "=" in line and "+" in line + line.replace("-", "+")
             for one in equations(line) if re.match(r"\d+[+-]", one[0])]
    assert len(found) > 300
    assert [text for text, true in found if not true] == []


@pytest.mark.parametrize("verb, forms", [
    ("stop", "stops stopped stopped stopping"), ("carry", "carries carried carried carrying"), ("tie", "ties tied tied tying"),
    ("write", "writes wrote written writing"), ("go", "goes went gone going"), ("have", "has had had having"), ("open", "opens opened opened opening"),
    ("quarrel", "quarrels quarrelled quarrelled quarrelling"), ("play", "plays played played playing")])
def test_verbs(verb, forms):
    assert " ".join(conjugate(verb)[1:]) == forms


def test_plurals():
    nouns = ("loaf of bread", "child", "fox", "cherry", "goose", "milkmaid", "old woman", "key", "brush")
    assert [plural(noun) for noun in nouns] == ["loaves of bread", "children", "foxes", "cherries", "geese", "milkmaids", "old women", "keys", "brushes"]
