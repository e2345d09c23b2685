"""What a reward model is asked besides its accuracy: who, where, how sure, and what its scores follow. Cases known by hand."""

from __future__ import annotations

import numpy as np
import pytest

from fromnoise.evaluate import reward_accuracy
from fromnoise.evaluate.reward_accuracy import observed, through_origin


def record(i, chosen, logit, **more):
    return {"id": i, "prompt_id": i, "kind": None, "chosen": chosen, "pool_prob_first": None, "logit": logit, **more}


def drawn(n, seed, sure=1.0):
    """Pairs whose first answer is chosen with probability sigmoid(logit / sure): sure = 1 is calibrated."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, n)
    first = rng.random(n) < 1 / (1 + np.exp(-logits / sure))
    return [record(i, int(not f), float(z)) for i, (f, z) in enumerate(zip(first, logits, strict=True))]


def test_margins_promise_what_they_keep_when_calibrated_and_not_when_too_sure():
    for sure, honest in ((1.0, True), (4.0, False)):
        found = reward_accuracy.summarise("m", drawn(6000, 0, sure), 0)
        bins = sorted({name.split("/")[2] for name in found if name.startswith("m/margin/")})
        assert len(bins) == len(reward_accuracy.MARGINS) - 1 and sum(found[f"m/margin/{at}/right"].n for at in bins) == 6000
        gaps = [abs(found[f"m/margin/{at}/right"].value - found[f"m/margin/{at}/predicted"].value) for at in bins]
        assert (max(gaps) < 0.06) == honest, gaps
        assert (found["m/calibration_error"].value < 0.03) == honest


def test_by_rater_and_by_source_nobody_is_lost():
    records = [record(i, i % 2, 1.0, rater="ann" if i < 10 else f"r{i}", source="a.json" if i < 5 else "b.json") for i in range(14)]
    found = reward_accuracy.summarise("m", records, 0)
    raters = {name.split("/")[-1]: one.n for name, one in found.items() if name.startswith("m/accuracy_by_rater/")}
    assert raters == {"ann": 10, "others, fewer than 5 votes each": 4}
    sources = {name.split("/")[-1]: one.value for name, one in found.items() if name.startswith("m/accuracy_by_source/")}
    assert sources == {"a.json": pytest.approx(3 / 5), "b.json": pytest.approx(4 / 9)}


def test_correlation_keeps_still_when_answers_change_places():
    rng = np.random.default_rng(1)
    x, y, sign = rng.normal(size=50), rng.normal(size=50), rng.choice([-1, 1], 50)
    assert through_origin(sign * x, sign * y) == pytest.approx(through_origin(x, y))
    assert np.corrcoef(sign * x, sign * y)[0, 1] != pytest.approx(np.corrcoef(x, y)[0, 1])  # the usual one does not
    assert through_origin(x, 3 * x) == pytest.approx(1) and np.isnan(through_origin(x, 0 * x))


def test_a_score_that_is_length_and_one_that_is_quality_and_length():
    """Choices follow quality alone; the score adds length. Less its line in length, it chooses better."""
    rng = np.random.default_rng(2)
    quality, length = rng.normal(size=(2, 1500))
    chosen = (quality < 0).astype(int)
    records = [record(i, int(c), float(q + 2 * t), tokens=[int(50 + 10 * t), 50], lines=[1, 1], list_items=[0, 0], stopped=[1, 1])
               for i, (c, q, t) in enumerate(zip(chosen, quality, length, strict=True))]  # fmt: skip
    found = reward_accuracy.summarise("m", records, 0)
    assert found["m/correlation/length/score"].value > 0.85 > 0.1 > abs(found["m/correlation/length/choices"].value)
    assert found["m/accuracy_length_removed"].low > found["m/accuracy"].high
    assert not [name for name in found if "/correlation/lines" in name]  # never differs: nothing to say
    assert found["m/longer_chosen"].value == pytest.approx(0.5, abs=0.05) and found["m/position/choices"].value == pytest.approx(0.5, abs=0.05)


def test_position_is_where_raters_saw_the_answers():
    """People see them on sides drawn by coin: who always chose the left one seemed to have no place. Of a file's pairs nobody knows the sides."""
    records = [record(i, i % 3 % 2, 1.0, left=(0, 1, None)[i % 3]) for i in range(30)]
    found = reward_accuracy.summarise("m", records, 0)
    assert [(found[f"m/position/{who}"].value, found[f"m/position/{who}"].n) for who in ("choices", "score")] == [(1.0, 20), (0.5, 20)]
    assert not [name for name in reward_accuracy.summarise("m", records[2::3], 0) if "/position/" in name]


def test_accuracy_without_length_is_as_unsure_as_accuracy_where_all_are_right():
    """Resamples of pairs that are all right are all alike: its interval had no width."""
    records = [record(i, i % 2, 1.0 - 2 * (i % 2), tokens=[50 + i, 50], lines=[1, 1], list_items=[0, 0], stopped=[1, 1]) for i in range(8)]
    found = reward_accuracy.summarise("m", records, 0)
    assert found["m/accuracy_length_removed"] == found["m/accuracy"] and found["m/accuracy"].low < 0.7


def test_ties_are_counted_and_left_out():
    records = [record(0, 0, 1.0), record(1, 1, -1.0), record(2, None, 0.0), record(3, None, 2.0)]
    found = reward_accuracy.summarise("m", records, 0)
    assert found["m/accuracy"].n == 2 and found["m/ties"].value == 0.5
    assert found["m/confidence_at_ties"].value == pytest.approx((0.5 + 1 / (1 + np.exp(-2))) / 2)


def test_members_that_disagree_are_right_less_often():
    rng = np.random.default_rng(3)
    records = []
    for i in range(400):
        noise = 0.1 if i % 2 else 3.0
        members = (1.0 + rng.normal(0, noise, 3)).tolist()
        records.append(record(i, 0, float(np.mean(members)), member_logits=members))
    found = reward_accuracy.summarise("m", records, 0)
    assert found["m/accuracy_members_agree"].low > found["m/accuracy_members_disagree"].high
    assert [found[f"m/accuracy_by_member/{k}"].n for k in (1, 2, 3)] == [400] * 3 and found["m/disagreement"].value > 0.5


def test_more_votes_on_the_same_prompts_do_not_narrow_the_intervals():
    """Four raters who say the same of each pair tell no more than one; every interval must know it."""
    rng = np.random.default_rng(4)
    once = []
    for i in range(80):
        members = rng.normal(0, 1.5, 3)
        once.append(record(i, int(rng.random() < 0.4), float(members.mean()), kind="ab"[i % 2], source=f"{i % 2}.json", pool_prob_first=float(rng.random()),
                           member_logits=members.tolist(), tokens=rng.integers(1, 30, 2).tolist(), lines=rng.integers(1, 5, 2).tolist(),
                           list_items=[0, 0], stopped=[1, 1]))  # fmt: skip
    one, four = (reward_accuracy.summarise("m", [{**vote, "rater": f"r{k}"} for vote in once for k in range(n)], 0) for n in (1, 4))
    assert {"m/accuracy/a", "m/attainable", "m/accuracy_pool", "m/share_of_attainable", "m/position/choices", "m/longer_chosen", "m/disagreement",
            "m/accuracy_by_member/1", "m/accuracy_members_agree"} <= set(one)  # fmt: skip
    for name, alone in one.items():
        assert four[name].value == pytest.approx(alone.value, abs=1e-9), name
        if alone.low is not None:
            assert four[name].high - four[name].low > 0.8 * (alone.high - alone.low), name
    differ = [{"prompt_id": i, "differ": {"correct": i % 3 == 0}} for i in range(60)]
    alone, repeated = (reward_accuracy.pairs_differing("m", differ * n)["m/pairs_differing"] for n in (1, 4))
    assert repeated.high - repeated.low > 0.8 * (alone.high - alone.low)


def test_no_pairs_are_no_records():
    assert reward_accuracy.score_pairs([], None, 0) == [] and reward_accuracy.summarise("m", [], 0) == {}


def test_form_of_an_answer():
    text = "Three things:\n- a\n 2. b\n• c\nnot 3. this"
    assert observed({"text": text, "token_ids": [1] * 9, "stopped": False}) == {"tokens": 9, "lines": 5, "list_items": 3, "stopped": 0}


@pytest.mark.parametrize(("slope", "truth"), [(1.0, 0.0), (0.5, 0.087)])  # exact probabilities; ones twice as sure as they should be
def test_the_interval_of_the_calibration_error_holds_the_truth(slope, truth):
    """Percentiles of resamples, which have chance twice, held 0 in none of forty samples, and the other in 16."""
    rng, held = np.random.default_rng(0), 0
    for trial in range(40):
        logits = rng.normal(0, 1.2, 150)
        outcomes = (rng.random(150) < 1 / (1 + np.exp(-slope * logits))).astype(float)
        found = reward_accuracy.calibration(logits, outcomes, trial, {"num_resamples": 120})
        assert found.low <= found.value == reward_accuracy.calibration_error(logits, outcomes) <= found.high
        held += found.low <= truth <= found.high
    assert held >= 30  # about 36 of so few pairs
