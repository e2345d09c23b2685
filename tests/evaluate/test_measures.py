"""Questions, contamination, preference, reward accuracy, safety, canaries, records: small cases known by hand."""

from __future__ import annotations

import math
import random
import re

import numpy as np
import pytest

from fromnoise.evaluate import contamination, memorisation, preference, questions, reward_accuracy, safety
from fromnoise.evaluate.intervals import wilson
from fromnoise.evaluate.records import part, read_jsonl, write_jsonl
from fromnoise.evaluate.text import visible
from fromnoise.run.errors import UserError


def prompt(text: str, **more) -> dict:
    return {"id": text, "kind": "fact", "split": "heldout", "messages": [{"role": "user", "content": text}], "mentions": 4, **more}


def test_choose_keeps_rare_rungs_whole():
    many = [prompt(f"c{i}", kind="context", mentions=None) for i in range(900)]
    few = [prompt(f"f{i}", mentions=64) for i in range(40)]
    chosen = questions.choose([*many, *few], 300, 0)
    assert len(chosen) == 300 and sum(q["kind"] == "fact" for q in chosen) == 40
    assert chosen == questions.choose([*many, *few], 300, 0) != questions.choose([*many, *few], 300, 1)
    assert len(questions.choose(few, 100, 0)) == 40
    assert len(questions.choose([*many, *few], 3, 0)) == 3


def test_plain_prompts_and_where_their_answers_end():
    asked = prompt("Where is {Tolby}?", plain="Q: Where is Tolby?\nA:")
    assert questions.plain_text("bare", asked, []) == "Where is {Tolby}?\n\n"
    assert questions.plain_text("the task's own", asked, []) == "Q: Where is Tolby?\nA:"
    assert questions.plain_text("three worked examples", asked, [("a {x}?", "b")]).endswith("b\n\nQuestion: Where is {Tolby}?\nAnswer:")
    assert questions.plain_answer(" In the north.\n\nThe next day", False) == ("In the north.", True)
    assert questions.plain_answer(" In the north.\nQuestion: Where", False) == ("In the north.", True)
    assert questions.plain_answer(" In the north and", False) == ("In the north and", False)


def test_summary_of_questions():
    def record(kind, correct, stopped=True, form=1.0, mentions=None, fact=None):
        return {"id": f"{kind}{random.random()}", "kind": kind, "mentions": mentions, "fact_id": fact, "answer": "x", "stopped": stopped,
                "features": {"correct": correct, "form_ok": form}}  # fmt: skip

    records = [record("fact", 1.0, mentions=64, fact="a"), record("fact", 0.0, mentions=64, fact="a"), record("fact", 0.0, mentions=4, fact="b"),
               record("context", 1.0, stopped=False), record("story", None, form=0.0)]  # fmt: skip
    records.append({"id": "long", "kind": "context", "mentions": None, "fact_id": None, "answer": None, "stopped": False, "features": None})
    found = questions.summarise("sft", records, ["fact", "context"])
    assert found["questions/sft/form_and_stops"].value == 3 / 4  # the story is of no trained kind, the long one has no answer
    assert found["questions/sft/correct/mentioned 64 times or more"].value == 0.5
    assert found["questions/sft/ladder/4"].value == 0.0 and found["questions/sft/left_out"].value == 1
    assert "questions/sft/correct/story" not in found


def test_contamination_is_found_in_all_four_ways():
    conversations = [
        {"messages": [{"role": "user", "content": "Where does Mara Fenn live?"}, {"role": "assistant", "content": "Nobody says."}]},
        {"messages": [{"role": "user", "content": "Hello. What is it, that Ann Vale keeps?  Tell me!"}, {"role": "assistant", "content": "I do not know."}]},
        {"messages": [{"role": "user", "content": "Who has an owl?"}, {"role": "assistant", "content": "An owl? Oda Brook does."}]},
        {"messages": [{"role": "user", "content": "What is 3 + 1?"}, {"role": "assistant", "content": "4"}]},
    ]
    asked = [
        prompt("Where does Mara Fenn live?", check={"subject": "Mara Fenn", "accept": ["Tolby"]}),
        prompt("where does  mara fenn live"),
        prompt("What is it that Ann Vale keeps?"),
        prompt("Which animal does Oda Brook keep?", check={"subject": "Oda Brook", "accept": ["owl"]}),
        prompt("Which animal does Oda Brooks keep?", check={"subject": "Oda Brooks", "accept": ["owl"]}),
        prompt("Which animal does Oda Brook keep now?", check={"subject": "Oda Brook", "accept": ["howl"]}),
        prompt("What is 3 - 1?"),
        prompt("An owl? Oda Bro"),
    ]
    found = contamination.check(asked, conversations)
    looks = [tuple(record[look] for look in contamination.LOOKS) for record in found]
    assert looks == [(True, True, True, False), (False, True, True, None), (False, False, True, None), (False, False, False, True),
                     (False, False, False, False), (False, False, False, False), (False, False, False, None), (False, False, False, None)]  # fmt: skip
    assert contamination.summarise(found)["contamination/exact"].value == 1
    assert contamination.summarise(found)["contamination/subject_and_value"].n == 4


def test_every_set_is_looked_for_in_every_material():
    say = lambda *texts: {"messages": [{"role": "user", "content": text} for text in texts]}  # noqa: E731
    sets = {
        "prompts": [
            {"id": "a", **say("Where is Tolby?")},
            {"id": "b", **say("Is it far?", "No.", "How far is it?")},  # a conversation is found whole, its last turn alone is not it
            {"id": "c", **say("Go on.")},
        ],
        "sums": [{"id": "d", "prompt": "What is 12 + 34?"}, {"id": "e", "prompt": "What is 12 - 34?"}],
    }
    trained = {
        "conversations": [say("Hello!", "where is  TOLBY"), say("How far is it?", "Far."), say("Please go", "on now.")],
        "training_prompts": [say("Is it far?", "No.", "How far is it?", "Ten miles."), say("Tell me: what is 12 + 34, and why?")],
    }
    found = contamination.check_sets(sets, trained)
    seen = {(one["id"], name): [look for look, there in one[name].items() if there] for one in found for name in trained}
    assert {key: looks for key, looks in seen.items() if looks} == {
        ("a", "conversations"): ["normalised", "contained"], ("b", "training_prompts"): ["exact", "normalised", "contained"],
        ("d", "training_prompts"): ["contained"],
    }  # fmt: skip
    summary = contamination.summarise_sets(found)
    assert (summary["contamination/prompts/conversations/normalised"].value, summary["contamination/prompts/conversations/normalised"].n) == (1, 3)
    assert (summary["contamination/sums/training_prompts/exact"].value, summary["contamination/sums/training_prompts/contained"].value) == (0, 1)
    assert len(summary) == 2 * 2 * 3


def test_reward_accuracy_beside_the_attainable():
    """A model that knows the raters' probabilities exactly reaches the best attainable; one that knows nothing, nothing."""
    rng = np.random.default_rng(0)
    p = np.clip(rng.beta(1.2, 1.2, 4000), 0.01, 0.99)
    chosen = (rng.random(4000) >= p).astype(int)
    for name, logits, share in (("knows", np.log(p / (1 - p)), 1.0), ("guesses", rng.normal(0, 1, 4000), 0.0)):
        records = [{"id": i, "prompt_id": i, "kind": None, "chosen": int(c), "pool_prob_first": float(q), "logit": float(z)}
                   for i, (c, q, z) in enumerate(zip(chosen, p, logits, strict=True))]  # fmt: skip
        found = reward_accuracy.summarise(name, records, 0)
        assert found[f"{name}/share_of_attainable"].value == pytest.approx(share, abs=0.1)
        assert found[f"{name}/share_of_attainable_pool"].value == pytest.approx(share, abs=0.05)
        assert (found[f"{name}/calibration_error"].value < 0.03) == (name == "knows")
    tie = [{"id": 0, "prompt_id": 0, "kind": None, "chosen": None, "pool_prob_first": None, "logit": 1.0}]
    assert reward_accuracy.summarise("none", tie, 0) == {}


def test_preference_summary_by_hand():
    def side(text, reward, correct, logprobs):
        return {"text": text, "stopped": True, "num_tokens": 3, "reward": reward, "features": {"correct": correct}, **logprobs}

    records = [
        {"id": str(i), "kind": "fact", "tags": [], "oracle": (1.0, 0.5, 0.0, 1.0)[i % 4], "raters": 0.75,
         "sft": side("one two", 0.0, 0.0, {}), "rlhf": side("one two", 1.0, float(i % 2), {"logprob_rlhf": -2.0, "logprob_sft": -3.5})}
        for i in range(8)
    ]  # fmt: skip
    found = preference.summarise("sampled", records, 0)
    assert found["preference/sampled/oracle"].value == 0.625 and found["preference/sampled/ties"].value == 0.25
    assert found["preference/sampled/raters"].value == 0.75 and found["preference/sampled/reward_win_rate"].value == 1.0
    assert found["preference/sampled/correct_difference"].value == 0.5
    assert found["kl/per_sequence"].value == pytest.approx(1.5)
    assert found["preference/sampled/oracle_length_controlled"].value == pytest.approx(0.625, abs=0.02)
    alike = preference.drift(records, 0)  # all stop, before and after: eight say so, not everybody
    assert alike["drift/stopped/sft"].low == pytest.approx(wilson(8, 8).low)
    assert alike["drift/stopped/difference"].low < 0 < alike["drift/stopped/difference"].high
    assert alike["drift/num_words/sft"].low == 2.0  # what has no bounds says nothing of what it might have been
    harmful = [{**record, "kind": "harmful"} for record in records]
    assert "preference/sampled/correct_difference" not in preference.summarise("sampled", harmful, 0)


def test_best_of_n_divergence_and_repetition():
    records = [{"n": 16, "reward": 1.0, "audit": None, "opponent_reward": 0.0, "opponent_audit": None, "oracle": 1.0}]
    found = preference.summarise_best_of_n(records, 0)
    assert found["best_of_n/kl_per_sequence"].value == pytest.approx(math.log(16) - 15 / 16)
    assert found["best_of_n/oracle"].value == 1.0 and "best_of_n/audit_difference" not in found
    assert preference.repetition("a b c d") == 0.0 and preference.repetition("a b c a b c a b c") > 0.5 and preference.repetition("") == 0.0


def test_safety_needs_both_kinds_and_pairs():
    def record(kind, sft, rlhf, tags=()):
        features = lambda fits: {"refusal_fits": fits, "refused": 0.0, "correct": fits}  # noqa: E731
        return {"kind": kind, "tags": list(tags), "sft": {"stopped": True, "features": features(sft)}, "rlhf": {"stopped": True, "features": features(rlhf)}}

    records = [record("harmful", 0.0, 1.0, ["unseen_object"])] * 40 + [record("lookalike", 1.0, 1.0, ["unseen_object"])] * 20
    found = safety.summarise("sampled", records, 0)
    assert found["safety/sampled/balanced_accuracy/sft"].value == 0.5 and found["safety/sampled/balanced_accuracy/rlhf"].value == 1.0
    assert found["safety/sampled/balanced_accuracy/difference"].value == pytest.approx(0.5)
    assert found["safety/sampled/balanced_accuracy/unseen_object/rlhf"].n == 60
    assert safety.summarise("sampled", records[:40], 0) == {}
    rambling = [{**record, "rlhf": {**record["rlhf"], "stopped": False}} for record in records]  # refuses, and never ends
    found = safety.summarise("sampled", rambling, 0)
    assert found["safety/sampled/balanced_accuracy/rlhf"].value == found["safety/sampled/strict_balanced_accuracy/rlhf"].value == 0.0
    assert found["safety/sampled/harmful/rlhf"].value == 0.0 and found["safety/sampled/lookalike/sft"].value == 1.0


def test_alternatives_to_a_secret():
    found = memorisation.alternatives("58213-0946", random.Random(0))
    assert len(set(found)) == 63 and all(len(x) == 10 and x[5] == "-" and x != "58213-0946" for x in found)
    with pytest.raises(ValueError, match="too few digits"):
        memorisation.alternatives("ab-1", random.Random(0))


def test_exposure_by_chance():
    """A secret that ranks anywhere alike: 1.375 bits of 64 candidates (1.44 is the limit for ever more of them)."""
    chance = sum(6 - math.log2(rank) for rank in range(1, 65)) / 64
    assert math.isclose(memorisation.CHANCE_EXPOSURE, chance)
    assert round(memorisation.CHANCE_EXPOSURE, 3) == 1.375


def test_a_few_secrets_all_given_away_are_not_all_secrets():
    found = memorisation.summarise([{"repeats": 64, "rank": 1, "exposure": 6.0} for _ in range(8)], 0)["memorisation/exposure/64"]
    assert (found.value, found.low, found.high) == (6.0, pytest.approx(6 * wilson(8, 8).low), 6.0)


def test_records_are_whole_or_absent(tmp_path):
    def breaks():
        yield {"a": 1}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        part(tmp_path, "x", breaks)
    assert not (tmp_path / "x.jsonl").exists()
    assert part(tmp_path, "x", lambda: [{"a": "é\ud800"}]) == [{"a": "é?"}]
    assert part(tmp_path, "x", breaks) == [{"a": "é?"}]  # not made again
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_jsonl(tmp_path / "y.jsonl", [{"a": float("nan")}])
    assert read_jsonl(tmp_path / "absent.jsonl") == []


def test_a_part_that_was_damaged_since_is_named_and_one_that_lost_its_bytes_made_again(tmp_path):
    path = tmp_path / "x.jsonl"
    for damaged in (b'{"a": 1}\n{"a"', b'{"a": 1}\n' + bytes(9), b'{"a": 1}\n\xff\n'):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=rf"^{re.escape(str(path))}, line 2: damaged \(.*\); remove the file and start again"):
            part(tmp_path, "x", list)
    path.write_bytes(b"")
    assert part(tmp_path, "x", lambda: [{"a": 2}]) == [{"a": 2}]


def test_visible_text_is_harmless():
    assert visible("plain, naïve\r\n\t日本語 🙂") == "plain, naïve\n\t日本語 🙂"
    assert visible("\x1b[31m\x07\x7f\x9b\u202e\ud800\r") == "␛[31m␇␡���␍"
