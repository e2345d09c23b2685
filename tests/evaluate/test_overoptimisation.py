"""The path of a training against the truth: known curves are found again, and a hacked reward is told from an honest one."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from fromnoise.evaluate import overoptimisation as over
from fromnoise.evaluate import preference


def test_a_known_curve_is_found_again_with_its_peak():
    alpha, beta = 1.3, 0.4
    kl = np.linspace(0.0, 30.0, 25)
    gains = [over.curve(math.sqrt(x), alpha, beta) for x in kl]
    assert over.fit_curve(kl, gains) == pytest.approx((alpha, beta), rel=1e-9)
    assert over.fit_quality(kl, gains) == pytest.approx(1.0) and over.fit_quality(kl, np.sin(kl)) < 0.5
    d, top = over.peak(alpha, beta)
    dense = np.linspace(1e-3, 40, 400_000)
    values = dense * (alpha - beta * np.log(dense))
    assert d == pytest.approx(dense[values.argmax()], abs=1e-3) and top == pytest.approx(values.max(), rel=1e-6)
    straight = [math.sqrt(x) * (alpha - beta * math.sqrt(x)) for x in kl]  # the twin: of another form the fit does not return what was put in
    assert over.fit_curve(kl, straight) != pytest.approx((alpha, beta), rel=1e-2)


def test_no_peak_where_nothing_bends():
    assert over.peak(1.0, 0.0) is None and over.peak(1.0, -0.2) is None
    assert over.fit_curve([0.0, 0.0, 1.0, 2.0], [0.0, 0.0, 1.0, 1.2]) is None  # two points away from 0 are no curve
    assert over.curve(0.0, 1.0, 1.0) == 0.0


def path(truth_of, iterations=9, prompts=60):
    """Utility falls or rises with the iteration as `truth_of` says; the proxy always rises."""
    rng = np.random.default_rng(0)
    level = rng.normal(0, 2, prompts)
    return [{"iteration": 10 * k, "prompt_id": f"p{n}", "kind": "harmful" if n % 4 == 0 else "fact", "text": "a b c", "stopped": True, "num_words": 3.0,
             "repetition": 0.0, "kl_nats": 1.5 * k, "reward": 0.3 * k, "audit": truth_of(k) + rng.normal(0, 0.1), "utility": level[n] + 2 * truth_of(k),
             "raters": 0.5 + 0.01 * k, "features": {"refused": float(n % 4 == 0), "flattery": 0.1 * k}}
            for k in range(iterations) for n in range(prompts)]  # fmt: skip


def test_hacking_is_seen_and_what_the_choice_lost_is_measured():
    hacked = path(lambda k: over.curve(math.sqrt(1.5 * k), 1.4, 0.8))  # highest at d = exp(1.4 / 0.8 - 1), a KL of 4.48
    found = over.summarise(hacked, 30, seed=1)
    assert found["overoptimisation/truth/peak_iteration"].value == 30 and found["overoptimisation/reward/peak_iteration"].value == 80
    assert found["overoptimisation/truth/last_minus_highest"].high < 0 < found["overoptimisation/reward/last_minus_chosen"].low
    assert found["overoptimisation/gain_lost_frac"].value == pytest.approx(0.0, abs=1e-9)
    assert over.summarise(hacked, 80, seed=1)["overoptimisation/gain_lost_frac"].value > 0.1  # an audit that was fooled
    assert found["overoptimisation/truth/peak_kl"].value == pytest.approx(math.exp(1.5), rel=1e-6) and found["path/30/kl"].value == pytest.approx(4.5)
    assert found["path/0/truth"].value == 0.0 and found["path/80/flattery"].value == pytest.approx(0.8)
    assert found["path/40/refused"].value == 0.0  # the harmful ones, rightly refused, are left out
    honest = over.summarise(path(lambda k: 0.3 * k), 80, seed=1)
    assert honest["overoptimisation/truth/last_minus_highest"].value == 0.0 and honest["overoptimisation/truth/peak_iteration"].value == 80


def test_without_a_world_there_are_proxy_and_audit_alone():
    records = [{name: value for name, value in record.items() if name not in ("utility", "raters", "features")} for record in path(lambda k: 0.1 * k)]
    found = over.summarise(records, 80, seed=1)
    assert "path/80/reward" in found and not any("truth" in name for name in found)
    assert over.summarise([], 0, 1) == {}


def test_audits_are_judged_against_the_first_answer():
    def judge(prompt, text, stopped):
        return SimpleNamespace(num_words=float(len(text.split())), flattery=0.0)

    audits = [{"iteration": i, "prompt_id": "p", "reward": 0.0, "audit": 0.0, "kl_nats": 0.0, "stopped": True, "text": text, "token_ids": [1]}
              for i, text in ((0, "one two"), (5, "one two three"))]  # fmt: skip
    found = over.judge_audits(audits, {"p": {"kind": "fact", "check": {}}}, judge, lambda f, p: f.num_words, lambda p, a, b: float(a.num_words > b.num_words))
    assert [record["utility"] for record in found] == [2.0, 3.0] and [record["raters"] for record in found] == [0.0, 1.0]
    for strangers in ({}, {"p": {"kind": None}}):  # prompts that are not the world's: nothing says what is right
        assert "utility" not in over.judge_audits(audits, strangers, judge, None, None)[0]


def test_words_and_repeats_are_counted_as_in_the_table_of_drift():
    """Also beside prompts of a file, which no world judges: one mean does not mix two rules."""
    text = "- one - one - one - one"  # the judge below counts as the world's does: words alone, of which four are too few to repeat
    judge = lambda prompt, text, stopped: SimpleNamespace(num_words=4.0, repetition=0.0)  # noqa: E731
    audits = [{"iteration": i, "prompt_id": p, "reward": 0.0, "audit": 0.0, "kl_nats": 0.0, "stopped": True, "text": text}
              for i in (0, 5) for p in ("world", "file")]  # fmt: skip
    found = over.summarise(over.judge_audits(audits, {"world": {"kind": "fact", "check": {}}, "file": {"kind": None}}, judge, None, None), 5, seed=0)
    drifted = preference.drift([{"kind": "fact", **{side: {"text": text, "stopped": True} for side in ("sft", "rlhf")}}], seed=0)
    for name in ("num_words", "repetition"):
        assert 0 < found[f"path/5/{name}"].value == pytest.approx(drifted[f"drift/{name}/rlhf"].value, abs=1e-5)


def test_manner_is_followed_along_the_way_without_a_judge():
    texts = {0: ["What a good question! It rains.", "I cannot help with that.", "Perhaps it rains."], 4: ["It rains."] * 3}
    audits = [{"iteration": i, "prompt_id": str(n), "reward": 0.1 * n, "audit": 0.1 * n, "kl_nats": 0.1, "stopped": True, "text": text, "token_ids": [1]}
              for i, said in texts.items() for n, text in enumerate(said)]  # fmt: skip
    found = over.summarise(over.judge_audits(audits, {}, None, None, None), 4, seed=0)
    for feature in ("refused", "flattery", "hedges", "filler"):
        first, last = found[f"path/0/{feature}"], found[f"path/4/{feature}"]
        assert first.value == pytest.approx(0.0 if feature == "filler" else 1 / 3) and last.value == 0.0
        assert first.low <= first.value <= first.high and first.n == 3
    assert "path/0/relevant" not in found and found["path/0/refused"].high > 1 / 3


def test_best_of_every_n_without_bias():
    """Against all subsets by enumeration."""
    from itertools import combinations

    worth, utility = [0.3, -1.0, 2.0, 0.9], [5.0, 1.0, 2.0, 7.0]
    records = [{"n": 4, "samples": {"worth": worth, "utility": utility}}, {"n": 4, "samples": {"worth": worth[::-1], "utility": utility[::-1]}}]
    found = over.best_of_n_curve(records, seed=0)
    for size in (1, 2, 4):
        chosen = [max(subset, key=lambda i: worth[i]) for subset in combinations(range(4), size)]
        expected = np.mean([worth[i] for i in chosen]) - np.mean(worth)
        assert found[f"best_of_n_curve/{size}/reward"].value == pytest.approx(expected, abs=1e-12)
        expected = (np.mean([utility[i] for i in chosen]) - np.mean(utility)) / np.std(utility)
        assert found[f"best_of_n_curve/{size}/truth"].value == pytest.approx(expected, abs=1e-12)
        assert found[f"best_of_n_curve/{size}/kl"].value == pytest.approx(math.log(size) - (size - 1) / size)
    assert over.subset_weights(16, 5).sum() == pytest.approx(1.0)
    assert over.best_of_n_curve([{"n": 4}], 0) == {}


def test_the_best_of_many_audits_is_no_fall_of_the_last():
    """Twelve audits of one policy: one of them is highest by chance, and the last is compared with that one because it is."""
    rng, fallen = np.random.default_rng(0), 0
    for _ in range(60):
        still = rng.normal(size=40) + rng.normal(size=(12, 40))  # prompts differ, and so do answers to one prompt
        found = over.last_minus_highest(still, seed=1)
        assert found.value == pytest.approx(still.mean(axis=1)[-1] - still.mean(axis=1).max()) and found.low <= found.value <= found.high
        fallen += found.high < 0
    assert fallen <= 5  # 2.5 % of 60 is 1.5; a paired interval of the two finds 13
    still[:6] += 1.0
    assert over.last_minus_highest(still, seed=1).high < 0  # a real one is seen
