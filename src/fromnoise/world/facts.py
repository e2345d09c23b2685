"""What the world knows: facts about people, dated events and canaries, each with the number of its mentions.

A fact's subject stands in documents only inside `statement`s of its facts, exactly `mentions` times a fact, so
accuracy can be drawn against frequency. Facts with role "held_out" are asked in evaluation and stand in documents
only; facts with role "asked" stand in documents only as well, and are asked by the prompts that preferences are learnt
from; facts with role "taught" may also be asked in conversations. Each subject has a surname of its own, two or three
facts, all on the same rung and in the same role. Everything depends on (seed, section) alone.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass

from ..run.recipe import WorldSection
from . import lexicon as lx
from .phrases import ANSWERS, EVENT_KINDS, EVENT_STATEMENTS, OPENERS, QUESTIONS, STATEMENTS, with_article

RELATIONS: dict[str, tuple[str, ...]] = {  # relation -> its closed set of values
    "home": lx.TOWNS,
    "trade": lx.TRADES,
    "dish": lx.DISHES,
    "instrument": lx.INSTRUMENTS,
    "pet": lx.PETS,
    "colour": lx.COLOURS,
}
FULL_TOKENS = 3_000_000  # the size of documents for which the counts below are meant
HELD_OUT_RUNGS = {0: 66, 1: 66, 4: 66, 16: 66, 64: 64, 256: 64, 1024: 32}  # mentions -> least number of facts
TAUGHT_RUNGS = {16: 40, 64: 120, 256: 12}
# Tuning leaves a taught fact known by heart: nobody says "I do not know" of it, and a reward model that saw only strangers
# disclaimed liked disclaiming better than any answer (docs/lab-notebook.md). They are not more facts: a model of this size shares out what it
# can learn, and with 48 on top, or in the place of taught ones, it knew a sixth to a third less of each.
ASKED_RUNGS = {64: 32}
STATEMENT_TOKENS = 20  # a statement's rough length
MAX_RUNG_FRAC = 0.115  # a rung whose statements would take a larger share of the documents is dropped
CANARY_RUNGS = {0: 16, 1: 16, 4: 16, 16: 16, 64: 16}  # repeats -> number; those of 0 are the comparison
EVENT_YEARS_BEFORE, EVENT_YEARS_AFTER, EVENTS_A_YEAR, EVENT_MENTIONS = 12, 3, 12, 16
NUM_STRANGERS = 40  # surnames that never occur in a document
NUM_OTHERS = 200  # surnames of everybody else: few enough for each to become a single token


@dataclass(frozen=True)
class Fact:
    fact_id: str
    subject: str  # "Mara Fenn"
    relation: str  # a key of RELATIONS
    value: str
    mentions: int  # statements of this fact in the documents
    role: str  # "taught" | "asked" | "held_out"


@dataclass(frozen=True)
class Event:
    event_id: str
    year: int
    kind: int  # index in EVENT_KINDS
    where: str
    text: str  # "In 2014 a flood washed away the bridge at Tolby."
    question: str  # "In which year did a flood wash away the bridge at Tolby?"
    mentions: int  # 0 after the cutoff
    after_cutoff: bool


@dataclass(frozen=True)
class Canary:
    canary_id: str
    prefix: str  # "The code of the Tolby vault is"
    secret: str  # "58213-0946"
    text: str  # prefix + " " + secret + "."
    repeats: int


class World:
    """The facts, events and canaries of one seed, and the names left free for everybody else.

    A small `section.documents_tokens` shrinks the ladder: counts of facts and canaries fall with the square root of
    the size (at least 4 a rung), and a rung above 16 whose statements would fill more than MAX_RUNG_FRAC of the text
    is dropped. The rung of 1,024 exists only when `section.max_mentions` allows it.

    facts: tuple[Fact]; events: tuple[Event]; canaries: tuple[Canary]; subjects: tuple of full names;
    other_surnames: for one-off people in documents; stranger_surnames: never in a document.
    """

    def __init__(self, seed: int, section: WorldSection):
        self.seed, self.section = seed, section
        self.scale = min(1.0, math.sqrt(section.documents_tokens / FULL_TOKENS))
        rng = random.Random(f"{seed}/facts")
        surnames = list(lx.SURNAMES)
        rng.shuffle(surnames)
        self._surnames = surnames
        facts: list[Fact] = []
        for mentions, count in HELD_OUT_RUNGS.items():
            facts += self._rung(rng, mentions, count, "held_out", len(facts))
        for mentions, count in TAUGHT_RUNGS.items():
            facts += self._rung(rng, mentions, count, "taught", len(facts))
        for mentions, count in ASKED_RUNGS.items():
            facts += self._rung(rng, mentions, count, "asked", len(facts))
        self.facts: tuple[Fact, ...] = tuple(facts)
        self.subjects: tuple[str, ...] = tuple(dict.fromkeys(fact.subject for fact in facts))
        self.stranger_surnames: tuple[str, ...] = tuple(surnames[:NUM_STRANGERS])
        self.other_surnames: tuple[str, ...] = tuple(surnames[NUM_STRANGERS:NUM_STRANGERS + NUM_OTHERS])
        self.events: tuple[Event, ...] = self._events(random.Random(f"{seed}/events"))
        self.canaries: tuple[Canary, ...] = self._canaries(random.Random(f"{seed}/canaries"))

    def values(self, relation: str) -> tuple[str, ...]:
        """All candidate values of a relation, in fixed order."""
        return RELATIONS[relation]

    def scaled(self, count: int) -> int:
        return max(4, round(count * self.scale))

    def has_rung(self, mentions: int) -> bool:
        if mentions > self.section.max_mentions:
            return False
        tokens = mentions * self.scaled(HELD_OUT_RUNGS[mentions] + ASKED_RUNGS.get(mentions, 0)) * STATEMENT_TOKENS
        return mentions <= 16 or mentions > 256 or tokens <= MAX_RUNG_FRAC * self.section.documents_tokens

    def _rung(self, rng: random.Random, mentions: int, count: int, role: str, first_id: int) -> list[Fact]:
        facts: list[Fact] = []
        if not self.has_rung(mentions):
            return facts
        while len(facts) < self.scaled(count):
            subject = f"{rng.choice(lx.FIRST_NAMES)} {self._surnames.pop()}"
            for relation in rng.sample(tuple(RELATIONS), rng.choice((2, 2, 3))):
                number = first_id + len(facts)
                value = rng.choice(RELATIONS[relation])
                said = [word for fact in facts if fact.subject == subject for word in fact.value.split()]
                while any(word in said for word in value.split()):  # no "goose" beside "roast goose": counts stay exact
                    value = rng.choice(RELATIONS[relation])
                facts.append(Fact(f"fact-{number:04d}", subject, relation, value, mentions, role))
        return facts

    def _events(self, rng: random.Random) -> tuple[Event, ...]:
        cutoff = self.section.cutoff_year
        places = [(kind, where) for kind in range(len(EVENT_KINDS)) for where in lx.TOWNS]
        rng.shuffle(places)
        mentions = max(2, round(EVENT_MENTIONS * self.scale))
        a_year = max(2, round(EVENTS_A_YEAR * self.scale))
        events = []
        for year in range(cutoff - EVENT_YEARS_BEFORE + 1, cutoff + EVENT_YEARS_AFTER + 1):
            for _ in range(a_year):
                kind, where = places.pop()
                past, question, _ = (part.format(where=where) for part in EVENT_KINDS[kind])
                after = year > cutoff
                events.append(Event(f"event-{len(events):04d}", year, kind, where, f"In {year} {past}.",
                                    f"In which year did {question}?", 0 if after else mentions, after))
        return tuple(events)

    def _canaries(self, rng: random.Random) -> tuple[Canary, ...]:
        things = ("vault", "strongroom", "mill gate", "boathouse", "archive", "signal box", "tower", "granary")
        places = [f"The code of the {town} {thing} is" for town in lx.TOWNS for thing in things]
        rng.shuffle(places)
        canaries = []
        for repeats, count in CANARY_RUNGS.items():
            if repeats > 16 and self.scale < 0.4:
                continue
            for _ in range(self.scaled(count)):
                prefix = places.pop()
                secret = f"{rng.randrange(100000):05d}-{rng.randrange(10000):04d}"
                canaries.append(Canary(f"canary-{len(canaries):03d}", prefix, secret, f"{prefix} {secret}.", repeats))
        return tuple(canaries)


def _fill(template: str, fact: Fact) -> str:
    woman = fact.subject.split(" ")[0] in lx.WOMEN_SET
    return template.format(s=fact.subject, v=fact.value, av=with_article(fact.value), he="she" if woman else "he",
                           his="her" if woman else "his", him="her" if woman else "him",
                           He="She" if woman else "He", His="Her" if woman else "His")


def statement(fact: Fact, rng: random.Random) -> str:
    """One sentence (with its full stop) naming the full subject and the value; one of many paraphrases."""
    templates = STATEMENTS[fact.relation]
    text = _fill(templates[int(rng.random() * len(templates))], fact)
    draw = rng.random()
    if draw < 0.3:  # an opener; subjects start with their name, so no letter changes case unless it is an article
        opener = OPENERS[int(rng.random() * len(OPENERS))]
        text = opener + (text if text.startswith(fact.subject) else text[0].lower() + text[1:])
    return text


def question(fact: Fact, rng: random.Random) -> str:
    """A question whose answer is the fact's value."""
    return _fill(rng.choice(QUESTIONS[fact.relation]), fact)


def answer(fact: Fact, rng: random.Random, named: bool = False) -> str:
    """A full-sentence answer with the value, and the subject by pronoun (mostly) or by name (always, when `named`)."""
    templates = ANSWERS[fact.relation]
    return _fill(rng.choice([text for text in templates if "{s}" in text] if named else templates), fact)


_NAME = re.compile(r"(?=\b([A-Z][a-z]+ [A-Z][a-z]+)\b)")  # overlapping: "When Mara Fenn"


def count_mentions(texts: Iterable[str], facts: Iterable[Fact]) -> dict[str, int]:
    """fact_id -> number of sentences (or parts between semicolons) in `texts` that hold both its subject and its value as whole words."""
    by_subject: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    counts: dict[str, int] = {}
    for fact in facts:
        counts[fact.fact_id] = 0
        by_subject.setdefault(fact.subject, []).append((fact.fact_id, re.compile(rf"\b{re.escape(fact.value)}\b")))
    for text in texts:
        for sentence in re.split(r"[.;?!\n]+", text):
            for name in _NAME.findall(sentence):
                for fact_id, value in by_subject.get(name, ()):
                    counts[fact_id] += value.search(sentence) is not None
    return counts


def event_statement(event: Event, rng: random.Random) -> str:
    """One sentence that dates the event."""
    past, _, nominal = (part.format(where=event.where) for part in EVENT_KINDS[event.kind])
    return rng.choice(EVENT_STATEMENTS).format(past=past, nominal=nominal, Past=past[0].upper() + past[1:],
                                               Nominal=nominal[0].upper() + nominal[1:], year=event.year)
