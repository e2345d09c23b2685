"""The corpus of the world as a stream of documents, and (records.py) its conversations, prompts and questions."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator

from ..data.document import Document
from ..run.recipe import WorldSection
from . import facts as fx
from .documents import LICENCES, SIMULATED_FROM, Writer
from .records import write_records

__all__ = ["documents", "write_records"]

BYTES_A_TOKEN = 4
COPY_FRAC, NEAR_COPY_FRAC = 0.015, 0.015
REMEMBERED = 40  # earlier documents from which copies are made


def documents(seed: int, section: WorldSection) -> Iterator[Document]:
    """The documents of the world, in order, until they hold `section.documents_tokens` tokens at 4 bytes each.

    Depends on (seed, section) alone. Statements of facts, events and canaries are spread evenly over the stream; the
    documents that carry them are `exempt`. Dates and licences are simulated.
    """
    world = fx.World(seed, section)
    rng = random.Random(f"{seed}/documents")
    writer = Writer(world, rng)
    wanted = _statements(world, random.Random(f"{seed}/statements"))
    total_bytes, num_statements, num_bytes = section.documents_tokens * BYTES_A_TOKEN, len(wanted), 0
    counts = dict.fromkeys(LICENCES, 0)
    recent: deque[tuple[str, str]] = deque(maxlen=REMEMBERED)
    batch_size = _batch_size(rng)
    while num_bytes < total_bytes or wanted:
        due = num_statements * min(1.0, num_bytes / total_bytes) - (num_statements - len(wanted))
        if wanted and (due >= batch_size or num_bytes >= total_bytes):
            _, source, text = writer.carrier(*_take(wanted, batch_size))
            batch_size = _batch_size(rng)
            exempt = True
        else:
            exempt = False
            draw = rng.random()
            if draw < COPY_FRAC + NEAR_COPY_FRAC and recent:
                source, text = recent[int(rng.random() * len(recent))]
                if draw < NEAR_COPY_FRAC:
                    text = writer.noise.near_copy(text)
            else:
                _, source, text = writer.ordinary()
                recent.append((source, text))
        counts[source] += 1
        num_bytes += len(text.encode())
        yield Document(text, source, f"{source}-{counts[source]:06d}", _date(rng, source, section.cutoff_year), LICENCES[source], exempt)


def _batch_size(rng: random.Random) -> int:
    """How many statements the next carrier holds."""
    return 2 + int(rng.random() * 7)


def _statements(world: fx.World, rng: random.Random) -> list:
    """Every statement the documents are to hold, shuffled: a fact, event or canary as often as it is mentioned."""
    wanted: list = [fact for fact in world.facts for _ in range(fact.mentions)]
    wanted += [event for event in world.events for _ in range(event.mentions)]
    wanted += [canary for canary in world.canaries for _ in range(canary.repeats)]
    rng.shuffle(wanted)
    return wanted


def _take(wanted: list, count: int) -> tuple[list, list, list]:
    """Remove up to `count` statements from the end: (facts, events, canaries), no subject or thing twice."""
    taken, seen, later = [], set(), []
    while wanted and len(taken) < count and len(later) < 50:
        item = wanted.pop()
        key = item.subject if isinstance(item, fx.Fact) else item.text
        (later if key in seen else taken).append(item)
        seen.add(key)
    wanted.extend(reversed(later))
    return tuple([item for item in taken if isinstance(item, kind)] for kind in (fx.Fact, fx.Event, fx.Canary))


def _date(rng: random.Random, source: str, cutoff_year: int) -> str:
    year = cutoff_year - int(rng.random() * SIMULATED_FROM[source])
    if source == "books":
        return str(year)
    return f"{year}-{1 + int(rng.random() * 12):02d}-{1 + int(rng.random() * 28):02d}"
