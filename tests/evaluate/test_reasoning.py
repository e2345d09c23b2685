"""pass@k against its definition; differences are of the same problems."""

from itertools import combinations

import pytest

from fromnoise.evaluate.intervals import wilson
from fromnoise.evaluate.reasoning import differences, pass_at_k, summarise_levels, summarise_sums


@pytest.mark.parametrize("n, c, k", [(5, 2, 1), (5, 2, 3), (6, 0, 2), (6, 6, 2), (8, 1, 8), (8, 7, 2)])
def test_pass_at_k_is_the_share_of_subsets_with_a_right_answer(n, c, k):
    subsets = list(combinations([True] * c + [False] * (n - c), k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))
    if 0 < c < n and k > 1:
        assert pass_at_k(n, c, k) != pytest.approx(1 - (1 - c / n) ** k)  # the biased form


def test_pass_at_k_refuses_nonsense():
    for n, c, k in ((3, 4, 1), (3, 1, 4), (3, 1, 0)):
        with pytest.raises(ValueError, match="pass@"):
            pass_at_k(n, c, k)


def record(level, num_correct, num=1, **more):
    return {"id": "x", "level": level, "num": num, "num_correct": num_correct, "steps": 0.5, **more}


def asked(kind, right):
    return {"id": kind, "fact_id": None, "kind": kind, "answer": "text", "stopped": True, "features": {"correct": float(right), "form_ok": 1.0}}


def test_summaries_and_differences():
    sums = [record(1, 1), record(2, 0), record(2, 1), record(4, 1)]
    assert summarise_sums("sft", sums)["reason/sums/sft"].value == 0.75
    levels = [record(1, 4, 4), record(1, 0, 4), record(9, 2, 4)]
    found = summarise_levels("sft", levels, 4, seed=0)
    assert found["reason/pass_1/sft/1"].value == 0.5 and found["reason/pass_k/sft/9"].value == 1.0
    before = {"sums": [record(1, 0), record(2, 0), record(2, 1), record(4, 0)], "levels": [record(1, 0, 4), record(1, 0, 4), record(9, 0, 4)],
              "questions": [asked("fact", True), asked("sum", False), asked("list", True)]}  # fmt: skip
    after = {"sums": sums, "levels": levels, "questions": [asked("fact", False), asked("sum", True), asked("list", True)]}
    changed = differences(after, before, "minus_sft", seed=0)
    assert changed["reason/minus_sft/sums"].value == 0.5 and changed["reason/minus_sft/levels/1"].value == 0.5
    assert changed["reason/minus_sft/everything_else"].value == -0.5  # the sum that improved does not hide the fact that was lost
    assert changed["reason/minus_sft/correct/sum"].value == 1.0 and changed["reason/minus_sft/form_and_stops"].value == 0.0


def test_a_level_that_nobody_solves_is_not_known_to_be_hopeless():
    """Ten problems without a right answer leave room for some: an interval from nought to nought would not."""
    levels, asked_of = [record(11, 0, 4) for _ in range(10)], [asked("list", True) | {"id": str(n)} for n in range(10)]
    found = summarise_levels("sft", levels, 4, seed=0)
    missed = wilson(0, 10).high
    for key in ("pass_1", "pass_k"):
        assert (found[f"reason/{key}/sft/11"].low, found[f"reason/{key}/sft/11"].high) == (0.0, pytest.approx(missed))
    both = {"sums": levels, "levels": levels, "questions": asked_of}
    changed = differences(both, both, "minus_sft", seed=0)
    for key in ("levels/11", "sums", "everything_else", "form_and_stops"):
        assert (changed[f"reason/minus_sft/{key}"].low, changed[f"reason/minus_sft/{key}"].high) == pytest.approx((-missed, missed))
