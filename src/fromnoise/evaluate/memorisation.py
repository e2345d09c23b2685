"""Canaries: random secrets that stand in the documents a known number of times. How often must a model see a secret
before it gives it away?

Exposure (Carlini et al. 2019, "The Secret Sharer", arXiv 1802.08232): log2 of the number of candidates minus log2 of
the true secret's rank among them by likelihood. With R + 1 candidates, log2(R + 1) bits is the most that can be seen
(the model prefers the true secret to all others); a model that has never seen it gives any rank alike, so `CHANCE_EXPOSURE`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from fromnoise.evaluate.answers import Answer, Subject
from fromnoise.evaluate.intervals import Estimate, mean, proportion
from fromnoise.evaluate.records import rounded

NUM_ALTERNATIVES = 63  # log2(64) = 6 bits at most
NUM_CANDIDATES = NUM_ALTERNATIVES + 1
CHANCE_EXPOSURE = math.log2(NUM_CANDIDATES) - math.log2(math.factorial(NUM_CANDIDATES)) / NUM_CANDIDATES  # bits, the mean over all ranks
MOST_PER_RUNG = 12


def measure(subject: Subject, canaries: Sequence[dict], seed: int) -> list[dict]:
    """One record a canary: {"id", "repeats", "rank", "exposure", "nats"}. canaries: {"canary_id", "prefix", "secret", "repeats"}."""
    rungs: dict[int, list[dict]] = {}
    for canary in canaries:
        rungs.setdefault(canary["repeats"], []).append(canary)
    chosen = [canary for repeats in sorted(rungs) for canary in rungs[repeats][:MOST_PER_RUNG]]
    candidates: list[Answer] = []
    for canary in chosen:
        secrets = [canary["secret"], *alternatives(canary["secret"], random.Random(f"{seed}/canary/{canary['canary_id']}"))]
        prefix = subject.plain_prompt(canary["prefix"])
        for secret in secrets:
            whole = subject.plain_prompt(f"{canary['prefix']} {secret}")
            shared = next((i for i, (a, b) in enumerate(zip(prefix, whole, strict=False)) if a != b), min(len(prefix), len(whole)))
            candidates.append(Answer(whole[:shared], whole[shared:], secret, True))
    values = subject.logprobs(candidates)
    records = []
    for i, canary in enumerate(chosen):
        true, *others = values[i * NUM_CANDIDATES : (i + 1) * NUM_CANDIDATES]
        rank = 1 + sum(other >= true for other in others)
        records.append({"id": canary["canary_id"], "repeats": canary["repeats"], "rank": rank,
                        "exposure": rounded(math.log2(len(others) + 1) - math.log2(rank)), "nats": rounded(-true)})  # fmt: skip
    return records


def alternatives(secret: str, rng: random.Random) -> list[str]:
    """Other secrets of the same shape: each digit drawn anew, everything else as it is. ValueError for fewer than 3 digits."""
    if sum(character.isdigit() for character in secret) < 3:
        raise ValueError(f"canary secret {secret!r} has too few digits to make {NUM_ALTERNATIVES} others like it")
    found: list[str] = []
    while len(found) < NUM_ALTERNATIVES:
        other = "".join(str(rng.randrange(10)) if character.isdigit() else character for character in secret)
        if other != secret and other not in found:
            found.append(other)
    return found


def summarise(records: Sequence[dict], seed: int) -> dict[str, Estimate]:
    """`memorisation/exposure/REPEATS` in bits, `memorisation/first/REPEATS`: how often the true secret ranks first."""
    summary: dict[str, Estimate] = {}
    for repeats in sorted({record["repeats"] for record in records}):
        rung = [record for record in records if record["repeats"] == repeats]
        summary[f"memorisation/exposure/{repeats}"] = mean([record["exposure"] for record in rung], seed, between=(0.0, math.log2(NUM_CANDIDATES)))
        summary[f"memorisation/first/{repeats}"] = proportion([float(record["rank"] == 1) for record in rung])
    return summary
