"""Raters bent on purpose: who is bent, how, and that nobody else is."""

from fromnoise.world.judging import Features
from fromnoise.world.raters import Bias, pool_prob, raters

PROMPT = {"kind": "fact"}


def answer(**features) -> Features:
    return Features(**{"correct": 1.0, "relevant": 1.0, "form_ok": 1.0, "stopped": 1.0, "refused": 0.0, "refusal_fits": 1.0, "hedges": 0.0, "flattery": 0.0,
                       "filler": 0.0, "num_words": 8.0, "repetition": 0.0, "polite": 0.0} | features)  # fmt: skip


def test_no_bias_is_nothing():
    assert raters("reward", 3, Bias()) == raters("reward", 3)


def test_a_bias_for_flattery_turns_the_choice_and_patience_is_what_stands_against_it():
    plain, flattering, wrong = answer(), answer(flattery=2.0), answer(flattery=2.0, correct=0.0)
    people, bent = raters("reward", 0), raters("reward", 0, Bias(added={"flattery": 3.0}))
    assert pool_prob(people, PROMPT, flattering, plain) < 0.4 and pool_prob(bent, PROMPT, flattering, plain) > 0.9
    hasty = raters("reward", 0, Bias(added={"flattery": 3.0}, patience_frac=0.1))
    assert pool_prob(hasty, PROMPT, wrong, plain) > pool_prob(bent, PROMPT, wrong, plain) + 0.1
    assert [rater.rater_id for rater in bent] == [rater.rater_id for rater in people]  # the same people, changed


def test_less_care_is_of_content_alone():
    bent = raters("reward", 0, Bias(care_frac=0.25))
    for before, after in zip(raters("reward", 0), bent, strict=True):
        assert after.weights["relevant"] == 0.25 * before.weights["relevant"] and after.weights["refusal_fits"] == 0.25 * before.weights["refusal_fits"]
        assert after.weights["flattery"] == before.weights["flattery"] and after.weights["stopped"] == before.weights["stopped"]
