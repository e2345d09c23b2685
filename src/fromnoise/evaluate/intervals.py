"""Numbers with their uncertainty: Wilson intervals for proportions, the bootstrap for everything else.

Every measured number of a report is an `Estimate`: the value, a 95 % interval, how many independent examples stand
behind it, how the interval was made, and the seed where chance was used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np

Z95 = 1.959963984540054  # 97.5 % point of the standard normal distribution
NUM_RESAMPLES = 2000
SHARE, CHANGE = (0.0, 1.0), (-1.0, 1.0)  # what a share of the examples, and a difference of two, lies between
RESAMPLED_AT_ONCE = 1_000_000  # numbers, 16 bytes each while they are drawn


@dataclass(frozen=True, slots=True)
class Estimate:
    value: float | None  # None: nothing was measured (n = 0)
    low: float | None  # 95 % interval; None where no interval can be given (n < 2)
    high: float | None
    n: int  # independent examples (clusters where clustered)
    method: str
    seed: int | None = None

    def to_json(self) -> dict:
        return asdict(self)


def exact(value: float | None, n: int, method: str = "exact") -> Estimate:
    """A number without sampling error: a count, or an analytic value."""
    return Estimate(value, None, None, n, method)


def wilson(successes: float, n: int) -> Estimate:
    """A proportion with Wilson's score interval (1927), which stays inside [0, 1] and is not empty at 0 or n.

    `successes` may hold halves (ties split): the interval is then wider than needed, never narrower, because a tie
    has less variance than a coin.
    """
    if n == 0:
        return Estimate(None, None, None, 0, "Wilson")
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}")
    return Estimate(successes / n, *_wilson_bounds(successes / n, n), n, "Wilson")


def _wilson_bounds(p: float, n: float) -> tuple[float, float]:
    z2 = Z95 * Z95
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))


def proportion(outcomes: Sequence[float], clusters: Sequence[object] | None = None) -> Estimate:
    """Mean of outcomes in [0, 1] (0, 1, or 0.5 for a tie), Wilson's interval.

    clusters: outcomes of one cluster (two questions about one fact) hang together, so they count for less than as many
    independent ones: the interval uses n divided by the design effect that the clusters show (Kish 1965; Korn and
    Graubard 1998), never more than n, and the number of clusters where all outcomes, or all clusters, agree. `n` stays what was asked.
    """
    plain = wilson(float(sum(outcomes)), len(outcomes))
    if clusters is None or plain.n == 0 or len(set(clusters)) == plain.n:
        return plain
    total, sums = sum(outcomes), dict.fromkeys(clusters, 0.0)  # sums of n times the deviations: of halves they are exact, and 0 where clusters agree
    for outcome, cluster in zip(outcomes, clusters, strict=True):
        sums[cluster] += plain.n * outcome - total
    single = plain.value * (1 - plain.value) / plain.n
    observed = sum(value * value for value in sums.values()) / plain.n**4 * len(sums) / max(len(sums) - 1, 1)
    effective = min(float(plain.n), plain.n * single / observed) if single > 0 and observed > 0 else float(len(sums))
    low, high = _wilson_bounds(plain.value, max(effective, 1.0))
    return Estimate(plain.value, low, high, plain.n, f"Wilson, effective n of {len(sums)} clusters")


def bootstrap(
    statistic: Callable[[np.ndarray], float],
    n: int,
    seed: int,
    *,
    clusters: Sequence[object] | None = None,
    num_resamples: int = NUM_RESAMPLES,
    method: str = "bootstrap",
) -> Estimate:
    """Percentile bootstrap (Efron 1979) of `statistic(indices)`, indices an int array into the n examples.

    Paired comparisons pass a statistic that looks at both members of each example, so that pairs stay together.
    clusters[i]: whole clusters are drawn, for examples that share something (several questions about one fact).
    """
    if n == 0:
        return Estimate(None, None, None, 0, method, seed)
    value = float(statistic(np.arange(n)))
    rng = np.random.default_rng(seed)
    if clusters is not None:
        groups = _groups(clusters)
        draw, units = _cluster_draw(groups, rng), len(groups)
    else:
        draw, units = lambda: rng.integers(0, n, n), n
    if units < 2:
        return Estimate(value, None, None, units, method, seed)
    resampled = np.array([statistic(draw()) for _ in range(num_resamples)], dtype=np.float64)
    finite = resampled[np.isfinite(resampled)]
    if len(finite) < 0.975 * num_resamples:  # what has no value in more than a tail of the resamples has no interval
        return Estimate(value, None, None, units, method, seed)
    low, high = np.quantile(finite, [0.025, 0.975])
    return Estimate(value, float(low), float(high), units, method, seed)


def _cluster_draw(groups: Sequence[np.ndarray], rng: np.random.Generator) -> Callable[[], np.ndarray]:
    """Draws as many groups as there are, with replacement, and joins their indices. Joined by arithmetic: a thousand resamples of a
    thousand small arrays took longer than what was measured with them."""
    flat, sizes = np.concatenate(groups), np.array([len(group) for group in groups])
    starts = sizes.cumsum() - sizes

    def draw() -> np.ndarray:
        chosen = rng.integers(0, len(groups), len(groups))
        lengths = sizes[chosen]
        ends = lengths.cumsum()
        return flat[np.arange(ends[-1]) + np.repeat(starts[chosen] - (ends - lengths), lengths)]

    return draw


def mean(
    values: Sequence[float],
    seed: int,
    *,
    clusters: Sequence[object] | None = None,
    method: str = "bootstrap",
    between: tuple[float, float] | None = None,
) -> Estimate:
    """Mean with a bootstrap interval. For a paired difference pass the differences.

    between: the least and the most that a value can be, where it is bounded. Of examples that are all alike every resample is alike too, as if
    there were no chance in it: the interval is then what others, as many as may have been missed (Wilson's bound of none in n), could change.
    """
    array = np.asarray(values, dtype=np.float64)
    units = len(array) if clusters is None else len(set(clusters))
    if between is not None and units > 1 and (array == array[0]).all():
        return _all_alike(float(array[0]), units, between, f"{method}; all alike: Wilson's bound of others", seed)
    if clusters is None and len(array) > 1:  # the common case, many resamples at once
        means = np.concatenate([array[drawn].mean(axis=1) for drawn in _draws(len(array), np.random.default_rng(seed))])
        low, high = np.quantile(means, [0.025, 0.975])
        return Estimate(float(array.mean()), float(low), float(high), len(array), method, seed)
    return bootstrap(lambda indices: float(array[indices].mean()), len(array), seed, clusters=clusters, method=method)


def _all_alike(value: float, units: int, between: tuple[float, float], method: str, seed: int) -> Estimate:
    missed, (least, most) = _wilson_bounds(0.0, units)[1], between
    return Estimate(value, value - missed * (value - least), value + missed * (most - value), units, method, seed)


def _draws(n: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """NUM_RESAMPLES draws of n out of n with replacement, as index arrays (many, n)."""
    at_once = max(1, RESAMPLED_AT_ONCE // n)
    for begin in range(0, NUM_RESAMPLES, at_once):
        yield rng.integers(0, n, (min(at_once, NUM_RESAMPLES - begin), n))


def ratio(parts: Sequence[tuple[np.ndarray, np.ndarray, float]], seed: int, *, method: str = "bootstrap") -> Estimate:
    """Weighted sum over parts of sum(numerators) / sum(denominators), the pairs of each part drawn anew together.

    parts: (numerators (n,), denominators (n,) all above 0, weight). `n` counts the pairs of all parts. A part of one pair stands
    still when drawn; where such parts weigh more than a twentieth there is no interval, which would be too narrow.
    """
    rng, n = np.random.default_rng(seed), sum(len(top) for top, _, _ in parts)
    value = sum(weight * float(top.sum() / bottom.sum()) for top, bottom, weight in parts)
    if 20 * sum(weight for top, _, weight in parts if len(top) == 1) > sum(weight for _, _, weight in parts):
        return Estimate(value, None, None, n, method, seed)
    resampled = np.zeros(NUM_RESAMPLES)
    for top, bottom, weight in parts:
        resampled += weight * np.concatenate([top[drawn].sum(axis=1) / bottom[drawn].sum(axis=1) for drawn in _draws(len(top), rng)])
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Estimate(value, float(low), float(high), n, method, seed)


def paired_difference(
    after: Sequence[float], before: Sequence[float], seed: int, *, clusters: Sequence[object] | None = None, between: tuple[float, float] | None = None
) -> Estimate:
    """Mean of after - before over the same examples; clusters as in `bootstrap`, between (of the differences) as in `mean`."""
    if len(after) != len(before):
        raise ValueError(f"{len(after)} and {len(before)} examples are not pairs")
    differences = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    return mean(differences, seed, clusters=clusters, method="paired bootstrap", between=between)


def length_controlled_win_rate(wins: Sequence[float], length_differences: Sequence[float], seed: int) -> Estimate:
    """Win rate at equal length: sigmoid(a) of the fit P(win) = sigmoid(a + b tanh(d / sd(d))).

    wins (n,) in {0, 0.5, 1}; length_differences (n,): this model's length minus the other's. The regression of Dubois
    et al. 2024 (length-controlled AlpacaEval, arXiv 2404.04475), without their term for each instruction's difficulty
    (it serves comparisons across many models). A weak ridge keeps a separable sample finite. Where all examples are won, all
    lost or all ties, lengths explain nothing and every resample would look alike: then it is the plain proportion with Wilson's interval.
    """
    y, d = np.asarray(wins, dtype=np.float64), np.asarray(length_differences, dtype=np.float64)
    if len(y) == 0:
        return Estimate(None, None, None, 0, "logistic regression on length, bootstrap", seed)
    if np.all(y == y[0]):
        return proportion(y.tolist())
    spread = float(d.std()) or 1.0
    x = np.tanh(d / spread)
    return bootstrap(
        lambda indices: float(1 / (1 + np.exp(-_logistic_fit(x[indices], y[indices])[0]))),
        len(y),
        seed,
        num_resamples=1000,
        method="logistic regression on length, bootstrap",
    )


def _logistic_fit(x: np.ndarray, y: np.ndarray, ridge: float = 0.01, num_steps: int = 25) -> np.ndarray:
    """(intercept, slope) by Newton's method; penalty ridge / 2 * (a^2 + b^2) on the summed log-likelihood."""
    design = np.stack([np.ones_like(x), x], axis=1)
    beta = np.zeros(2)
    for _ in range(num_steps):
        p = 1 / (1 + np.exp(-np.clip(design @ beta, -30, 30)))
        gradient = design.T @ (y - p) - ridge * beta
        hessian = (design * (p * (1 - p))[:, None]).T @ design + ridge * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        beta = beta + np.clip(step, -4, 4)
        if np.abs(step).max() < 1e-9:
            break
    return beta


def balanced_accuracy(correct: Sequence[float], groups: Sequence[object]) -> Estimate:
    """Mean over groups of the accuracy within each: a model that refuses everything gets one half, not the share of
    harmful prompts. The groups' Wilson intervals are combined by MOVER (Newcombe 1998; Zou and Donner 2008), which
    is not empty where every answer is right."""
    parts = [proportion([c for c, g in zip(correct, groups, strict=True) if g == name]) for name in dict.fromkeys(groups)]
    return _mean_of_groups(parts, len(correct), "MOVER of Wilson intervals", None)


def balanced_accuracy_difference(after: Sequence[float], before: Sequence[float], groups: Sequence[object], seed: int) -> Estimate:
    """Balanced accuracy of `after` minus that of `before` on the same examples: each group's paired difference with the interval of `mean`
    (that of others where the group changes alike, or not at all), combined as in `balanced_accuracy`."""
    difference, parts = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64), []
    for indices in _groups(groups):
        group = difference[indices]
        alike = (group == group[0]).all()  # a group of one as well, of which `mean` says nothing
        parts.append(_all_alike(float(group[0]), len(group), CHANGE, "", seed) if alike else mean(group, seed))
    return _mean_of_groups(parts, len(difference), "paired bootstrap by group, MOVER", seed)


def _mean_of_groups(parts: Sequence[Estimate], n: int, method: str, seed: int | None) -> Estimate:
    if not parts:
        return Estimate(None, None, None, 0, method, seed)
    value = sum(part.value for part in parts) / len(parts)
    below = math.sqrt(sum((part.value - part.low) ** 2 for part in parts)) / len(parts)
    above = math.sqrt(sum((part.high - part.value) ** 2 for part in parts)) / len(parts)
    return Estimate(value, value - below, value + above, n, method, seed)


def _groups(labels: Sequence[object]) -> list[np.ndarray]:
    """Indices of each label, labels in order of first appearance."""
    where: dict[object, list[int]] = {}
    for index, label in enumerate(labels):
        where.setdefault(label, []).append(index)
    return [np.array(indices) for indices in where.values()]
