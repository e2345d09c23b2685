"""Intervals against known values, and against what coverage promises."""

from __future__ import annotations

import numpy as np
import pytest

from fromnoise.evaluate import intervals as iv


def test_wilson_known_values():
    """Newcombe 1998, table I: 81/263 -> 0.2553 to 0.3662; 15/148 -> 0.0624 to 0.1605; 0/20 -> 0 to 0.1611; 1/29 -> 0.0061 to 0.1718."""
    for successes, n, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)):
        found = iv.wilson(successes, n)
        assert (round(found.low, 4), round(found.high, 4)) == (low, high)


def test_wilson_edges():
    assert iv.wilson(0, 0).value is None
    assert iv.wilson(5, 5).high == 1.0 and iv.wilson(5, 5).low < 1.0
    assert iv.proportion([1.0, 0.5, 0.0, 0.5]).value == 0.5
    with pytest.raises(ValueError, match="6 successes of 5"):
        iv.wilson(6, 5)


def test_coverage_of_wilson_and_bootstrap():
    rng = np.random.default_rng(0)
    inside = {"wilson": 0, "bootstrap": 0}
    for trial in range(120):
        sample = (rng.random(80) < 0.7).astype(float)
        for name, found in (("wilson", iv.proportion(sample.tolist())), ("bootstrap", iv.mean(sample, trial))):
            inside[name] += found.low <= 0.7 <= found.high
    assert all(count >= 105 for count in inside.values()), inside  # 95 % of 120 is 114


def test_bootstrap_is_seeded_and_agrees_with_the_normal_interval():
    values = np.random.default_rng(1).normal(2.0, 1.0, 400)
    found = iv.mean(values, seed=3)
    assert found == iv.mean(values, seed=3) and found != iv.mean(values, seed=4)
    half = 1.96 * values.std() / 20
    assert found.low == pytest.approx(values.mean() - half, abs=0.02) and found.high == pytest.approx(values.mean() + half, abs=0.02)


def test_pairing_narrows_and_clusters_widen():
    rng = np.random.default_rng(2)
    hard = rng.normal(0, 5, 200)
    before, after = hard + rng.normal(0, 0.1, 200), hard + 1 + rng.normal(0, 0.1, 200)
    paired = iv.paired_difference(after, before, 0)
    assert paired.low > 0.9 and paired.high < 1.1
    unpaired = iv.mean(after, 0)
    assert unpaired.high - unpaired.low > 10 * (paired.high - paired.low)

    clusters = [i // 10 for i in range(200)]
    shared = np.repeat(rng.normal(0, 1, 20), 10)
    assert _width(iv.mean(shared, 0, clusters=clusters)) > 2 * _width(iv.mean(shared, 0))
    with pytest.raises(ValueError, match="not pairs"):
        iv.paired_difference([1.0], [1.0, 2.0], 0)


def test_a_ratio_of_sums_agrees_with_the_delta_method_and_keeps_pairs_together():
    rng = np.random.default_rng(3)
    size = rng.uniform(50, 150, 400)
    total = 2.0 * size + rng.normal(0, 10, 400)
    found = iv.ratio([(total, size, 1.0)], 5)
    assert found.value == pytest.approx(total.sum() / size.sum()) and found.n == 400 and found == iv.ratio([(total, size, 1.0)], 5)
    half = 1.96 * np.sqrt(((total - found.value * size) ** 2).sum()) / size.sum()  # numerators drawn apart from their denominators: thirty times as wide
    assert found.low == pytest.approx(found.value - half, abs=half / 5) and found.high == pytest.approx(found.value + half, abs=half / 5)


def test_parts_of_a_ratio_are_drawn_apart_and_single_pairs_give_no_interval():
    low, high, one = np.full(50, 1.0), np.full(50, 9.0), np.ones(50)
    found = iv.ratio([(low, one, 0.5), (high, one, 0.5)], 0)  # no spread within a part, whatever lies between them
    assert (found.value, found.low, found.high, found.n) == (5.0, 5.0, 5.0, 100)
    single = np.array([3.0]), np.array([1.0])
    assert iv.ratio([(low, one, 0.9), (*single, 0.1)], 0).low is None and iv.ratio([(*single, 1.0)], 0).value == 3.0
    assert iv.ratio([(low, one, 0.96), (*single, 0.04)], 0).low == pytest.approx(1.08)


def test_clustered_proportion():
    """Every question asked twice and answered alike is half as many questions; independent answers lose little."""
    rng = np.random.default_rng(5)
    once = (rng.random(100) < 0.6).astype(float)
    twice, clusters = np.repeat(once, 2).tolist(), [i // 2 for i in range(200)]
    found = iv.proportion(twice, clusters)
    assert found.n == 200 and _width(found) == pytest.approx(_width(iv.proportion(once.tolist())), rel=0.03)
    independent = (rng.random(200) < 0.6).astype(float).tolist()
    assert _width(iv.proportion(independent, clusters)) == pytest.approx(_width(iv.proportion(independent)), rel=0.25)
    assert iv.proportion([1.0] * 20, [i // 2 for i in range(20)]).low == pytest.approx(iv.wilson(10, 10).low)


@pytest.mark.parametrize("num_clusters", [1, 2, 7])
@pytest.mark.parametrize("answers", [[1, 1, 0], [1, 0, 0, 0, 0, 0, 0], [1, 0], [1, 1, 0.5]])
def test_clusters_that_agree_count_once_each(num_clusters, answers):
    """Two thirds right in every cluster: rounding must not pass for a spread between them, however small."""
    found = iv.proportion([float(x) for x in answers] * num_clusters * 5, [i // (5 * len(answers)) for i in range(5 * num_clusters * len(answers))])
    alone = iv.wilson(sum(answers) / len(answers) * num_clusters, num_clusters)
    assert found.n == 5 * num_clusters * len(answers) and (found.low, found.high) == pytest.approx((alone.low, alone.high))


def test_examples_that_are_all_alike_are_not_certain():
    """None of twelve says little of the thirteenth, and a bootstrap of them has no width."""
    missed = iv.wilson(0, 12).high
    for value, between, low, high in ((0.0, iv.SHARE, 0, missed), (1.0, iv.SHARE, 1 - missed, 1), (0.0, iv.CHANGE, -missed, missed)):
        found = iv.mean([value] * 12, 0, between=between)
        assert (found.value, found.low, found.high, found.n) == pytest.approx((value, low, high, 12))
    clustered = iv.mean([1.0] * 24, 0, between=iv.SHARE, clusters=[i // 2 for i in range(24)])
    assert (clustered.low, clustered.n) == (pytest.approx(1 - missed), 12)
    assert iv.paired_difference([1.0] * 12, [1.0] * 12, 0, between=iv.CHANGE).high == pytest.approx(missed)
    assert iv.mean([0.0] * 11 + [1.0], 0, between=iv.SHARE) == iv.mean([0.0] * 11 + [1.0], 0)
    assert iv.mean([1.0], 0, between=iv.SHARE).low is None and iv.mean([], 0, between=iv.SHARE).value is None


def test_length_control():
    """Wins that come from length alone vanish at equal length; wins that do not, stay."""
    rng = np.random.default_rng(3)
    longer = rng.normal(8, 10, 800)
    by_length = iv.length_controlled_win_rate((rng.random(800) < 1 / (1 + np.exp(-0.15 * longer))).astype(float), longer, 0)
    assert by_length.low < 0.5 < by_length.high
    by_merit = iv.length_controlled_win_rate((rng.random(800) < 0.7).astype(float), longer, 0)
    assert by_merit.low > 0.6 and by_merit.value == pytest.approx(0.7, abs=0.06)
    always, never = (iv.length_controlled_win_rate([won] * 10, np.arange(10.0), 0) for won in (1.0, 0.0))
    plain = iv.wilson(10, 10)  # nothing to explain by length, and ten resamples of ten wins say nothing of chance
    assert (always.value, always.low, always.high) == (1.0, plain.low, plain.high) and never.high == pytest.approx(1 - plain.low)
    tied = iv.length_controlled_win_rate([0.5] * 10, np.arange(10.0), 0)
    assert (tied.value, tied.low, tied.high) == (0.5, iv.wilson(5, 10).low, iv.wilson(5, 10).high)  # as the rate that length is not taken out of
    nearly = iv.length_controlled_win_rate([1.0] * 49 + [0.0], np.zeros(50), 0)
    assert 0.9 < nearly.low < nearly.value < 1


def test_balanced_accuracy():
    groups = ["harmful"] * 30 + ["lookalike"] * 90
    refuses_all = [1.0] * 30 + [0.0] * 90
    assert iv.balanced_accuracy(refuses_all, groups).value == 0.5  # and not 30 / 120
    perfect = iv.balanced_accuracy([1.0] * 120, groups)
    assert perfect.value == 1.0 and perfect.low < 0.99
    better = iv.balanced_accuracy_difference([1.0] * 120, refuses_all, groups, 0)
    missed = [iv.wilson(0, n).high for n in (30, 90)]  # of the first group others may change either way, of the second other than up
    assert (better.value, better.low, better.high) == pytest.approx((0.5, 0.5 - np.hypot(missed[0], 2 * missed[1]) / 2, 0.5 + missed[0] / 2))
    same = iv.balanced_accuracy_difference(refuses_all, refuses_all, groups, 0)  # on these 120; on others the two may differ
    assert (same.value, same.low, same.high, same.n) == pytest.approx((0.0, -np.hypot(*missed) / 2, np.hypot(*missed) / 2, 120))
    coin = np.random.default_rng(4).integers(0, 2, 120).astype(float)
    unequal = iv.balanced_accuracy_difference(coin, refuses_all, groups, 0)
    direct = iv.balanced_accuracy(coin, groups).value - 0.5
    assert unequal.value == pytest.approx(direct) and unequal.low < direct < unequal.high
    rng, held = np.random.default_rng(6), 0  # of the harmful nearly all are refused now, of the others as many as before
    for _ in range(200):
        after = np.concatenate([rng.random(30) < 0.97, rng.random(90) < 0.6]).astype(float)
        found = iv.balanced_accuracy_difference(after, (rng.random(120) < 0.6).astype(float), groups, 0)
        held += found.low <= (0.97 - 0.6) / 2 <= found.high
    assert 180 <= held <= 199


def _width(estimate: iv.Estimate) -> float:
    return estimate.high - estimate.low


def test_what_most_resamples_have_no_value_for_has_no_interval():
    """A curve's peak where most of its fits have none: an interval of the others would be of another question."""
    found = iv.bootstrap(lambda rows: float(np.mean(rows)) if 7 in rows and 3 in rows else np.nan, 10, 0)
    assert found.value == 4.5 and found.low is None and found.high is None
    assert iv.bootstrap(lambda rows: float(np.mean(rows)), 10, 0).low is not None
