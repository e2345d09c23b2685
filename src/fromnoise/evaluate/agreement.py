"""How far raters agree, with themselves and with each other, beyond what chance would give.

Labels may be any hashable values and are compared as names (nominal scale): a tie is no nearer to "first" than
"second" is. What a number means in words, after Landis and Koch 1977 (their cuts are a convention, not a law): below 0.2
slight, 0.4 fair, 0.6 moderate, 0.8 substantial.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from fromnoise.data.votes import Vote
from fromnoise.evaluate.intervals import Estimate, bootstrap, wilson

NUM_RESAMPLES = 500


def cohen_kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> float:
    """kappa = (p_o - p_e) / (1 - p_e) of two raters' labels of the same n items (Cohen 1960, equation 1).

    p_o: share of items on which they agree; p_e: the share expected if each drew labels at random with their own
    frequencies. NaN for no items, and where both only ever gave one and the same label (p_e = 1: nothing to measure).
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} labels against {len(second)}: both must have labelled the same items")
    n = len(first)
    if n == 0:
        return float("nan")
    observed = sum(a == b for a, b in zip(first, second, strict=True)) / n
    counts = Counter(first), Counter(second)
    expected = sum(counts[0][label] * counts[1][label] for label in counts[0]) / n**2
    return float("nan") if expected == 1 else (observed - expected) / (1 - expected)


def krippendorff_alpha(units: Sequence[Sequence[Hashable]]) -> float:
    """alpha = 1 - D_o / D_e for nominal labels, any number of raters, missing ones allowed (Krippendorff 2011, section D).

    units[u]: the labels that item u received, in any order; items with fewer than two say nothing and are left out.
    Each item with m labels adds its m (m - 1) ordered pairs of labels, each weighing 1 / (m - 1), to the coincidence
    matrix o; n_c are its margins, n its total: alpha = 1 - (n - 1) * sum_{c != k} o_ck / sum_{c != k} n_c n_k.
    NaN where no item has two labels or only one label ever occurs.
    """
    margins: Counter[Hashable] = Counter()
    disagreeing = 0.0
    for labels in units:
        if len(labels) < 2:
            continue
        counts = Counter(labels)
        margins.update(counts)
        disagreeing += (len(labels) ** 2 - sum(count * count for count in counts.values())) / (len(labels) - 1)
    total = sum(margins.values())
    expected = total * total - sum(count * count for count in margins.values())
    return 1 - (total - 1) * disagreeing / expected if expected else float("nan")


def preference(choice: str) -> str:
    """A tie and "both bad" are one label here: both say that neither answer is better."""
    return choice if choice in ("first", "second") else "neither"


def with_themselves(votes: Sequence[Vote]) -> list[tuple[str, str, str]]:
    """(rater, label then, label again) for each pair that a rater was shown twice, the second time with sides swapped."""
    earlier = {(vote.rater, vote.pair): preference(vote.choice) for vote in votes if not vote.repeated}
    return [(vote.rater, earlier[vote.rater, vote.pair], preference(vote.choice)) for vote in votes if vote.repeated and (vote.rater, vote.pair) in earlier]


def with_others(votes: Sequence[Vote]) -> dict[str, dict[str, str]]:
    """{pair: {rater: label}}: the first vote of each rater on each pair."""
    units: dict[str, dict[str, str]] = {}
    for vote in votes:
        if not vote.repeated:
            units.setdefault(vote.pair, {})[vote.rater] = preference(vote.choice)
    return units


def kappa_of(pairs: Sequence[tuple[str, str]], seed: int = 0) -> Estimate:
    """Cohen's kappa with a bootstrap interval over items."""
    first, second = ([pair[side] for pair in pairs] for side in (0, 1))
    return _bootstrapped(lambda i: cohen_kappa([first[j] for j in i], [second[j] for j in i]), len(pairs), seed, "kappa, bootstrap over pairs")


def alpha_of(units: Mapping[str, Mapping[str, str]], seed: int = 0) -> Estimate:
    """Krippendorff's alpha over the pairs that several raters judged, with a bootstrap interval over those pairs."""
    shared = [list(labels.values()) for labels in units.values() if len(labels) > 1]
    return _bootstrapped(lambda i: krippendorff_alpha([shared[j] for j in i]), len(shared), seed, "alpha, bootstrap over pairs")


def _bootstrapped(statistic: Callable[[np.ndarray], float], n: int, seed: int, method: str) -> Estimate:
    """As `bootstrap`; a value that cannot be measured (NaN) is None, as for no examples. Where raters always agree every resample does, and
    there is no interval: three pairs would seem as sure as three hundred."""
    found = bootstrap(statistic, n, seed, num_resamples=NUM_RESAMPLES, method=method)
    if found.value is not None and not np.isfinite(found.value):
        return Estimate(None, None, None, found.n, method, seed)
    return replace(found, low=None, high=None) if found.low is not None and found.low == found.high else found


def agreement(votes: Sequence[Vote], seed: int = 0) -> dict:
    """What the votes say of the raters, for people to read and for `prefer`'s summary. Skips are no votes.

    `raters`: one entry each; `pairs_of_raters`: kappa of each two who share pairs; `alpha`, `self`, `self_kappa`: of all.
    """
    votes = sorted(votes, key=lambda vote: (vote.pair, vote.rater, vote.repeated))  # resamples are drawn by place: no order of casting may move them
    units, again = with_others(votes), with_themselves(votes)
    raters = []
    for name in sorted({vote.rater for vote in votes}):
        mine = [vote for vote in votes if vote.rater == name]
        own = [(before, after) for rater, before, after in again if rater == name]
        sided = [vote for vote in mine if vote.swapped is not None and vote.choice in ("first", "second")]
        left = sum((vote.choice == "first") != vote.swapped for vote in sided)
        times = [vote.seconds for vote in mine if vote.seconds is not None]
        raters.append({
            "rater": name, "votes": len(mine), "ties": sum(vote.choice == "tie" for vote in mine),
            "both_bad": sum(vote.choice == "both_bad" for vote in mine), "left": wilson(left, len(sided)),
            "self": wilson(sum(a == b for a, b in own), len(own)), "self_kappa": kappa_of(own, seed),
            "median_s": statistics.median(times) if times else None,
        })  # fmt: skip
    pairs_of_raters = []
    for one, other in combinations([rater["rater"] for rater in raters], 2):
        both = [(labels[one], labels[other]) for labels in units.values() if one in labels and other in labels]
        if both:
            pairs_of_raters.append({"raters": (one, other), "same": wilson(sum(a == b for a, b in both), len(both)), "kappa": kappa_of(both, seed)})
    return {
        "votes": len(votes), "pairs": len({vote.pair for vote in votes}), "raters": raters, "pairs_of_raters": pairs_of_raters,
        "alpha": alpha_of(units, seed), "self": wilson(sum(a == b for _, a, b in again), len(again)),
        "self_kappa": kappa_of([(a, b) for _, a, b in again], seed),
    }  # fmt: skip
