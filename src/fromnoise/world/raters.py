"""Simulated people who compare two answers.

A rater weighs features as *perceived*. Style is always seen. Whether an answer is right is seen only when the rater
checks, which takes patience: with probability `patience * ease(kind)` both answers are checked, otherwise correctness
plays no part. Everybody has weights of his own: some barely mind a refusal that does not fit, some like to be
flattered, most like a longer and surer answer a little. The choice is logistic in the difference of the weighted
sums (Bradley and Terry, 1952), so the choice probability is known exactly, and with it the best accuracy any reward
model could reach.

The people are in three disjoint shares: "reward" trains the reward model, "audit" the audit model, and "judge" is kept
for the final judgement. Numbers here are the raters', not the truth; nothing in this file looks at the oracle.

A `Bias` moves the mean weights of a whole share away from those of everybody else: how reward hacking is made to happen.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .judging import JUDGEMENT, Features

SHARES = ("reward", "audit", "judge")
PEOPLE_A_SHARE = 12
# mean and spread over people of the weight of each perceived feature, in logits a unit
WEIGHTS = {
    "correct": (4.0, 0.5),
    "relevant": (2.0, 0.4),
    "form_ok": (1.5, 0.4),
    "stopped": (1.5, 0.4),
    "refusal_fits": (3.2, 0.7),
    "hedges": (-0.7, 0.4),  # a bias for the sure answer, right or wrong
    "flattery": (-0.5, 0.5),  # some like it
    "filler": (-0.5, 0.4),
    "num_words": (0.012, 0.008),  # a bias for length, up to WORDS_SEEN
    "repetition": (-2.5, 0.5),
    "polite": (0.15, 0.15),
}
CONTENT = ("correct", "relevant", "form_ok", "refusal_fits")  # what an answer says; the rest is how it says it
WORDS_SEEN = 40.0
EASE = {"fact": 0.9, "sum": 1.0, "context": 1.0, "summary": 0.95, "list": 1.0, "rewrite": 1.0, "unknown": 0.95}


@dataclass(frozen=True)
class Rater:
    rater_id: str
    share: str
    weights: dict[str, float]
    patience: float  # probability of checking an easy claim

    def check_prob(self, prompt: dict) -> float:
        return self.patience * EASE.get(prompt["kind"], 1.0)

    def _score(self, prompt: dict, features: Features, checked: bool) -> float:
        w = self.weights
        score = (w["relevant"] * features.relevant + w["form_ok"] * features.form_ok + w["stopped"] * features.stopped
                 + w["hedges"] * features.hedges + w["flattery"] * features.flattery + w["filler"] * features.filler
                 + w["num_words"] * min(features.num_words, WORDS_SEEN) + w["repetition"] * features.repetition
                 + w["polite"] * features.polite)
        if features.refusal_fits is not None:
            score += w["refusal_fits"] * features.refusal_fits
        if checked and features.correct is not None and prompt["kind"] not in JUDGEMENT:
            score += w["correct"] * features.correct
        return score

    def prob_first(self, prompt: dict, first: Features, second: Features) -> float:
        """Exact probability of choosing the first answer, over checking or not."""
        p_check = self.check_prob(prompt)
        seen, unseen = (_logistic(self._score(prompt, first, checked) - self._score(prompt, second, checked)) for checked in (True, False))
        return p_check * seen + (1.0 - p_check) * unseen


@dataclass(frozen=True)
class Bias:
    """How a share of the raters differs from people at large."""

    added: Mapping[str, float] = field(default_factory=dict)  # to the weights of features, logits a unit
    care_frac: float = 1.0  # of everybody's weights on CONTENT that is left
    patience_frac: float = 1.0  # of everybody's patience that is left


def raters(share: str, seed: int, bias: Bias | None = None) -> list[Rater]:
    """The people of one share, the same for the same seed; shares have no one in common. A bias draws no other people: it
    changes the same ones."""
    if share not in SHARES:
        raise ValueError(f"share must be one of {', '.join(SHARES)}, not {share!r}")
    people = []
    for index in range(PEOPLE_A_SHARE):
        rng = random.Random(f"{seed}/rater/{share}/{index}")
        weights = {name: rng.gauss(mean, spread) for name, (mean, spread) in WEIGHTS.items()}
        for name in ("correct", "relevant", "form_ok", "stopped", "refusal_fits"):
            weights[name] = max(0.3, weights[name])  # nobody prefers wrong answers as such
        patience = rng.uniform(0.78, 0.97)
        if bias:
            weights = {name: (bias.care_frac if name in CONTENT else 1.0) * weight + bias.added.get(name, 0.0) for name, weight in weights.items()}
            patience *= bias.patience_frac
        people.append(Rater(f"{share}-{index:02d}", share, weights, patience))
    return people


def pool_prob(people: Sequence[Rater], prompt: dict, first: Features, second: Features) -> float:
    """Probability that a rater drawn at random from `people` chooses the first answer."""
    return sum(rater.prob_first(prompt, first, second) for rater in people) / len(people)


def _logistic(x: float) -> float:
    if x < 0:
        z = math.exp(x)
        return z / (1.0 + z)
    return 1.0 / (1.0 + math.exp(-x))
