"""Cohen's kappa and Krippendorff's alpha against published worked examples and hand-computed cases."""

from __future__ import annotations

import math

import pytest

from fromnoise.data.votes import Vote
from fromnoise.evaluate.agreement import agreement, cohen_kappa, krippendorff_alpha, with_themselves


def labels(*cells: tuple[str, str, int]) -> tuple[list[str], list[str]]:
    first = [a for a, _, count in cells for _ in range(count)]
    return first, [b for _, b, count in cells for _ in range(count)]


def test_kappa_of_a_table_by_hand():
    """20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: p_o = 35/50; p_e = (25/50)(30/50) + (25/50)(20/50) = 1/2; kappa = 0.4."""
    first, second = labels(("y", "y", 20), ("y", "n", 5), ("n", "y", 10), ("n", "n", 15))
    assert cohen_kappa(first, second) == pytest.approx(0.4, abs=1e-12)
    assert cohen_kappa(second, first) == pytest.approx(0.4, abs=1e-12)


def test_kappa_of_three_labels_by_hand():
    """A 3 x 3 table: p_o = 70/100; p_e = (50 60 + 30 30 + 20 10) / 100^2 = 0.41; kappa = 0.29 / 0.59."""
    cells = (("a", "a", 44), ("a", "b", 5), ("a", "c", 1), ("b", "a", 7), ("b", "b", 20), ("b", "c", 3), ("c", "a", 9), ("c", "b", 5), ("c", "c", 6))
    observed = (44 + 20 + 6) / 100
    expected = (50 * 60 + 30 * 30 + 20 * 10) / 100**2  # 0.41
    assert cohen_kappa(*labels(*cells)) == pytest.approx((observed - expected) / (1 - expected), abs=1e-12)
    assert cohen_kappa(*labels(*cells)) == pytest.approx(0.29 / 0.59, abs=1e-12)


def test_kappa_at_its_ends():
    assert cohen_kappa("abab", "abab") == 1
    assert cohen_kappa("abab", "baba") == -1
    assert cohen_kappa("aabb", "abab") == 0
    assert math.isnan(cohen_kappa([], [])) and math.isnan(cohen_kappa("aaa", "aaa"))
    with pytest.raises(ValueError, match="3 labels against 2"):
        cohen_kappa("abc", "ab")


KRIPPENDORFF = """
1 2 3 3 2 1 4 1 2 . . .
1 2 3 3 2 2 4 1 2 5 . 3
. 3 3 3 2 3 4 2 2 5 1 .
1 2 3 3 2 4 4 1 2 5 1 .
"""


def units(text: str) -> list[list[str]]:
    return [[label for label in column if label != "."] for column in zip(*(line.split() for line in text.split("\n") if line), strict=True)]


def test_alpha_of_krippendorffs_examples():
    """Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability": 0.743 (four observers, missing data), 0.095 (two, binary)."""
    assert krippendorff_alpha(units(KRIPPENDORFF)) == pytest.approx(0.743, abs=5e-4)
    assert krippendorff_alpha(units("0 1 0 0 0 0 0 0 1 0\n1 1 1 0 0 1 0 0 0 0")) == pytest.approx(0.095, abs=5e-4)


def test_alpha_by_hand():
    """Units aa, ab, bb: o_ab + o_ba = 2, margins 3 and 3, n = 6: alpha = 1 - 5 * 2 / 18 = 4/9. A lone label changes nothing."""
    assert krippendorff_alpha(["aa", "ab", "bb"]) == pytest.approx(4 / 9, abs=1e-12)
    assert krippendorff_alpha(["aa", "ab", "bb", "a", ""]) == pytest.approx(4 / 9, abs=1e-12)
    assert krippendorff_alpha(["aa", "bb"]) == 1
    assert math.isnan(krippendorff_alpha(["a", "b"])) and math.isnan(krippendorff_alpha(["aa", "aa"]))


def vote(rater: str, pair: str, choice: str, repeated: bool = False, swapped: bool = False, seconds: float | None = 3.0) -> Vote:
    return Vote(f"{rater}{pair}{repeated}", pair, rater, choice, None, repeated, swapped, seconds, "2026-01-01T00:00:00Z")


def test_agreement_of_votes():
    votes = [
        vote("ann", "p1", "first"), vote("ann", "p2", "second"), vote("ann", "p3", "tie"), vote("ann", "p1", "first", True, True),
        vote("ann", "p2", "first", True, True), vote("ben", "p1", "first"), vote("ben", "p2", "first"), vote("ben", "p3", "both_bad", swapped=True),
    ]  # fmt: skip
    assert with_themselves(votes) == [("ann", "first", "first"), ("ann", "second", "first")]
    found = agreement(votes)
    ann, ben = found["raters"]
    assert (ann["votes"], ann["ties"], ann["self"].value, ann["self"].n) == (5, 1, 0.5, 2)
    assert ann["left"].value == 1 / 4  # left: p1; not left: p2, and both repeats, whose sides were swapped
    assert ben["both_bad"] == 1 and ben["self"].value is None and ann["median_s"] == 3.0
    (both,) = found["pairs_of_raters"]
    assert both["raters"] == ("ann", "ben") and both["same"].value == pytest.approx(2 / 3)  # a tie and both bad agree
    assert found["alpha"].value == pytest.approx(krippendorff_alpha([("f", "f"), ("s", "f"), ("n", "n")]))
    assert found["pairs"] == 3 and found["votes"] == 8


def test_raters_who_always_agree_are_as_few_as_they_are():
    """Three pairs on which two raters agree: the resamples agree as well, which is no certainty."""
    found = agreement([vote(rater, pair, choice) for rater in ("ann", "ben") for pair, choice in (("p1", "first"), ("p2", "second"), ("p3", "first"))])
    many = agreement([vote(rater, f"p{n}", ("first", "second")[n % 2]) for rater in ("ann", "ben") for n in range(40)])
    for alpha in (found["alpha"], many["alpha"], many["pairs_of_raters"][0]["kappa"]):
        assert alpha.value == 1.0 and alpha.low is None and alpha.high is None


def test_the_median_of_an_even_number_of_times_lies_between_the_middle_two():
    def median(*seconds: float) -> float:
        votes = [vote("ann", f"p{n}", "first", seconds=value) for n, value in enumerate(seconds)]
        return agreement(votes)["raters"][0]["median_s"]

    assert (median(1.0, 40.0), median(1.0, 3.0, 40.0), median(9.0)) == (20.5, 3.0, 9.0)


def test_the_same_votes_in_another_order_agree_as_much():
    """Resamples are drawn by place: two raters' exports, imported one after the other, had other intervals than what they came from."""
    votes = [vote(rater, f"p{n}", ("first", "second", "tie")[(n * step) % 3], again) for rater, step in (("ann", 1), ("ben", 2)) for n in range(12)
             for again in (False, True)[: 1 + n % 2]]  # fmt: skip
    assert agreement(votes) == agreement(votes[::-1])
