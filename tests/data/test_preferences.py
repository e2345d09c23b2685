import collections
import gzip
import json
import os
import random
from pathlib import Path

import pytest

from fromnoise.data.preferences import encoded, pairs_of, rater_weights, read_preferences, transcript
from fromnoise.data.prompts import pair_prompts, read_prompts
from fromnoise.data.tokenizer import Tokenizer
from fromnoise.run.errors import UserError

PROMPT = [{"role": "user", "content": "Is it far?"}]
YES, NO = "Yes, a day's walk.", "No."


def one(record):
    [pair] = pairs_of(record, "here")
    return pair


@pytest.mark.parametrize(
    "record",
    [
        {"chosen": f"\n\nHuman: Is it far?\n\nAssistant: {YES}", "rejected": f"\n\nHuman: Is it far?\n\nAssistant: {NO}"},
        {"prompt": "Is it far?", "chosen": YES, "rejected": NO},
        {"prompt": "Is it far?", "chosen": "Is it far? " + YES, "rejected": "Is it far? " + NO},
        {"prompt": "Is it far?\n", "chosen": "Is it far?\n" + YES, "rejected": "Is it far?\n" + NO},
        {"prompt": "\n\nHuman: Is it far?\n\nAssistant:", "chosen": " " + YES, "rejected": " " + NO},
        {"prompt": "\n\nHuman: Is it far?\n\nAssistant:", "chosen": "\n\nHuman: Is it far?\n\nAssistant:" + YES,
         "rejected": "\n\nHuman: Is it far?\n\nAssistant:" + NO},
        {"prompt": "\n\nHuman: Is it far?", "chosen": "\n\nHuman: Is it far?\n\nAssistant: " + YES,
         "rejected": "\n\nHuman: Is it far?\n\nAssistant: " + NO},
        {"prompt": PROMPT, "chosen": YES, "rejected": NO},
        {"prompt": PROMPT, "chosen": [{"role": "assistant", "content": YES}], "rejected": [{"role": "assistant", "content": NO}]},
        {"prompt": "Is it far?", "chosen": [{"role": "assistant", "content": YES}], "rejected": [{"role": "assistant", "content": NO}]},
        {"chosen": [*PROMPT, {"role": "assistant", "content": YES}], "rejected": [*PROMPT, {"role": "assistant", "content": NO}]},
        {"prompt": "Is it far?", "chosen": [*PROMPT, {"role": "assistant", "content": YES}], "rejected": [*PROMPT, {"role": "assistant", "content": NO}]},
        {"question": "Is it far?", "chosen": YES, "rejected": NO},
        {"instruction": "Is it far?", "input": "", "chosen": YES, "rejected": NO},
        {"messages": PROMPT, "chosen": YES, "rejected": NO},
        {"conversations": [{"from": "human", "value": "Is it far?"}], "chosen": {"from": "gpt", "value": YES}, "rejected": {"from": "gpt", "value": NO}},
        {"prompt": PROMPT, "chosen": [*PROMPT, {"role": "assistant", "content": YES}], "rejected": [*PROMPT, {"role": "assistant", "content": NO}]},
        {"prompt": "Is it far?", "messages": [*PROMPT, {"role": "assistant", "content": YES}],
         "chosen": [*PROMPT, {"role": "assistant", "content": YES}], "rejected": [*PROMPT, {"role": "assistant", "content": NO}]},
        {"question": "?", "chosen": f"\n\nHuman: Is it far?\n\nAssistant: {YES}", "rejected": f"\n\nHuman: Is it far?\n\nAssistant: {NO}"},
        {"instruction": "Is it far?", "response1": YES, "response2": NO, "annotator1": None, "annotator2": 1, "annotator3": ""},
        {"instruction": "Is it far?", "response1": YES, "response2": NO, "label": 1},
        {"input": "Is it far?", "output_1": NO, "output_2": YES, "label": 2},
        {"question": "Is it far?", "answer_a": NO, "answer_b": YES, "winner": "model_b"},
        {"messages": PROMPT, "answers": [{"text": NO, "token_ids": [5]}, {"text": YES, "token_ids": [6]}], "chosen": 1},
    ],
)
def test_every_form_reads_as_the_same_pair(record):
    pair = one(record)
    assert (pair.prompt, pair.chosen, pair.rejected, pair.tie, pair.weight) == (PROMPT, YES, NO, False, 1.0)


@pytest.mark.parametrize(
    ("prompt", "chosen", "rejected"),
    [
        ("Hi", "Hi! How can I help?", "What?"),  # one begins with the prompt
        ("Hi", "Hi! How can I help?", "Hi, what?"),  # both do, and neither is the prompt with an answer
        ("A", "A day's walk.", "An hour."),
        ("Yes", "Yes", "Yes, a day's walk."),
    ],
)
def test_an_answer_that_begins_like_its_prompt_stays_whole(prompt, chosen, rejected):
    pair = one({"prompt": prompt, "chosen": chosen, "rejected": rejected})
    assert (pair.prompt[0]["content"], pair.chosen, pair.rejected) == (prompt, chosen, rejected)


def test_three_raters_share_one_weight_and_may_tie():
    pairs = pairs_of({"instruction": "Is it far?", "input": "", "response1": YES, "response2": NO, "annotator1": 1, "annotator2": 0, "annotator3": 2}, "here")
    assert [(p.rater, p.tie, p.chosen) for p in pairs] == [("annotator1", False, YES), ("annotator2", True, YES), ("annotator3", False, NO)]
    assert sum(p.weight for p in pairs) == pytest.approx(1.0)
    assert all(one({"prompt": "Is it far?", "response_a": YES, "response_b": NO, "winner": winner}).tie for winner in ("tie", "Tie (bothbad)"))


@pytest.mark.parametrize("answers", [{"chosen": "4", "rejected": "5"}, {"response1": "4", "response2": "5", "label": 1}])
@pytest.mark.parametrize("asked", ["prompt", "instruction", "question"])
def test_what_is_asked_about_and_the_turns_before_it_are_not_lost(answers, asked):
    pair = one({asked: "Double it.", "input": 2, "history": [["Hello?", "Hi."]], **answers})
    assert [m["content"] for m in pair.prompt] == ["Hello?", "Hi.", "Double it.\n\n2"]
    pair = one({"input": "Double it.", "context": 2, **answers})
    assert [m["content"] for m in pair.prompt] == ["Double it.\n\n2"]
    with pytest.raises(ValueError, match="`context` is a list, not text"):
        one({asked: "Which is it?", "context": ["this", "that"], **answers})


def test_labels_that_count_from_0_are_not_taken_for_ties(tmp_path):
    def labelled(*labels):
        path = tmp_path / "pairs.jsonl"
        path.write_text("".join(json.dumps({"prompt": f"{n}?", "response1": YES, "response2": NO, "label": label}) + "\n" for n, label in enumerate(labels)))
        return [(pair.tie, pair.chosen) for pair in read_preferences(path, lambda bad: None)]

    for zero in (0, "0", 0.0):
        with pytest.raises(UserError, match=r"of 25 votes 12 are 0, 13 are 1 and none is 2.*add 1 to each"):
            labelled(*[zero] * 12, *[1] * 13)
    assert labelled(*["tie"] * 12, *[1] * 13) == [(True, YES)] * 12 + [(False, YES)] * 13
    assert labelled(*[0] * 12, 1, 2)[-2:] == [(False, YES), (False, NO)]
    assert labelled(*[0] * 3, 1) == [(True, YES)] * 3 + [(False, YES)]


def test_multi_turn_transcript_keeps_its_turns():
    text = "\n\nHuman: Is it far?\n\nAssistant: To where?\n\nHuman: The sea.\n\nAssistant: {}"
    pair = one({"chosen": text.format("Yes."), "rejected": text.format("No.")})
    assert [m["role"] for m in pair.prompt] == ["user", "assistant", "user"]
    assert pair.prompt[-1]["content"] == "The sea."


def test_transcript_joins_turns_of_one_speaker_and_keeps_words_that_look_like_marks():
    messages = transcript("\n\nHuman: a\n\nHuman: b\n\nAssistant: he said Human: no\n\n2. Assistant: two")
    assert messages == [{"role": "user", "content": "a\n\nb"}, {"role": "assistant", "content": "he said Human: no\n\n2. Assistant: two"}]
    assert transcript("\r\n\r\nHuman: a\r\n\r\nAssistant: b\r\nc") == [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b\nc"}]


def test_own_export_tie_and_weight():
    pair = one({"messages": PROMPT, "answers": [{"text": YES}, {"text": NO}], "chosen": None, "weight": 0.5, "rater": "ann", "share": "audit"})
    assert pair.tie and pair.weight == 0.5 and pair.rater == "ann" and pair.meta == {"share": "audit"}


def test_an_empty_answer_that_did_not_stop_is_refused():
    """It has no token, so there is nothing to score; one that stopped at once has its stop token."""
    answers = [{"text": "", "stopped": False}, {"text": NO, "stopped": True}]
    with pytest.raises(ValueError, match="without `text` that did not stop"):
        one({"messages": PROMPT, "answers": answers, "chosen": 1})
    assert one({"messages": PROMPT, "answers": [{"text": ""}, {"text": NO}], "chosen": 1}).meta == {}


@pytest.mark.parametrize("chosen", [0, 1, None])
def test_an_answer_that_was_cut_off_stays_without_an_end(chosen):
    """Our own export says of each answer whether it stopped; only then does the stop token follow."""
    tokenizer = Tokenizer.train([YES, NO, "Is it far?"] * 3, 320)
    pair = one({"messages": PROMPT, "answers": [{"text": YES, "stopped": False}, {"text": NO, "stopped": True}], "chosen": chosen})
    for first_rejected in (False, True):
        answers = {answer["text"]: answer for answer in encoded(pair, tokenizer, 64, first_rejected=first_rejected)["answers"]}
        assert (answers[YES]["stopped"], answers[NO]["stopped"]) == (False, True)
        assert answers[YES]["token_ids"] == tokenizer.encode_answer(YES)
        assert answers[NO]["token_ids"] == [*tokenizer.encode_answer(NO), tokenizer.im_end_id]
    others = encoded(one({"prompt": "Is it far?", "chosen": YES, "rejected": NO}), tokenizer, 64, first_rejected=False)
    assert all(answer["stopped"] and answer["token_ids"][-1] == tokenizer.im_end_id for answer in others["answers"])


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"text": "a"}, "no pair of answers"),
        ({"prompt": "Is it far?", "chosen": YES, "rejected": YES}, "the same"),
        ({"chosen": "no transcript", "rejected": "none either"}, "not a transcript.*or stand beside a `prompt`"),
        ({"chosen": "\n\nHuman: a\n\nAssistant: ", "rejected": "\n\nHuman: a\n\nAssistant: b"}, "empty answer"),
        ({"chosen": "\n\nHuman: a\n\nAssistant: x", "rejected": "\n\nHuman: b\n\nAssistant: y"}, "different prompts"),
        ({"chosen": "\n\nHuman: a\n\nAssistant: x\n\nHuman: c", "rejected": "\n\nHuman: a\n\nAssistant: y"}, "does not end"),
        ({"prompt": "Is it far?", "chosen": YES, "rejected": None}, "both be text"),
        ({"prompt": "Is it far?", "chosen": YES, "rejected": NO, "weight": -1}, "weight -1"),
        ({"prompt": "Is it far?", "chosen": YES, "rejected": NO, "weight": float("inf")}, "weight inf"),
        ({"prompt": "Is it far?", "chosen": YES, "rejected": NO, "weight": "heavy"}, "weight 'heavy'"),
        ({"prompt": "Is it far?", "chosen": YES, "rejected": NO, "weight": 1e300}, r"weight 1e\+300 is no number between 1e-06 and 1e\+06"),
        ({"prompt": "Is it far?", "chosen": YES, "rejected": NO, "weight": 1e-300}, "weight 1e-300"),
        ({"prompt": "Is it far?", "chosen": YES, "rejected": NO, "tie": "maybe"}, "tie 'maybe' is neither"),
        ({"messages": PROMPT, "answers": [{"text": YES}, {"text": NO}], "votes": [5]}, "`votes`: rater and choice"),
        ({"messages": PROMPT, "answers": [{"text": YES}, {"text": NO}], "votes": 5}, "`votes`: rater and choice"),
        ({"instruction": "Is it far?", "response1": YES, "response2": NO}, "vote None"),
        ({"instruction": "Is it far?", "response1": YES, "response2": " ", "label": 1}, "holds no text"),
        ({"response1": YES, "response2": NO, "label": 1}, "no prompt"),
        ({"messages": PROMPT, "answers": [{"text": YES}], "chosen": 0}, "two `answers`"),
        ({"messages": PROMPT, "answers": [{"text": YES, "token_ids": [5]}, {"text": f" {YES}", "token_ids": [6, 5]}], "chosen": 0}, "the same"),
        ({"prompt": "Is it far?", "chosen": "Is it far?", "rejected": "Is it far? No."}, "empty answer"),
    ],
)
def test_what_is_no_pair_says_why(record, reason):
    with pytest.raises(ValueError, match=reason):
        pairs_of(record, "here")


@pytest.mark.parametrize(("tie", "is_tie"), [("false", False), ("False", False), (0, False), ("", False), (None, False), ("TRUE", True), ("1", True)])
def test_a_tie_may_be_said_in_text(tie, is_tie):
    """Once any text counted as a tie, and a column of "false" left no pair to learn from."""
    assert one({"prompt": "Is it far?", "chosen": YES, "rejected": NO, "tie": tie}).tie is is_tie
    assert one({"messages": PROMPT, "answers": [{"text": YES, "stopped": tie}, {"text": NO}], "chosen": 0}).stopped == (is_tie, True)


def test_numbers_of_a_csv_file_are_text(tmp_path):
    (tmp_path / "pairs.csv").write_text("prompt,chosen,rejected,weight,tie\nIs it far?,Yes,No,0.5,false\nIs it near?,Yes,No,2.0,true\n")
    (tmp_path / "rated.csv").write_text("prompt,response1,response2,label\nIs it far?,Yes,No,1.0\nIs it near?,Yes,No,0.0\n")
    bad = []
    assert [(p.weight, p.tie) for p in read_preferences(tmp_path / "pairs.csv", bad.append)] == [(0.5, False), (2.0, True)]
    assert [(p.chosen, p.tie) for p in read_preferences(tmp_path / "rated.csv", bad.append)] == [("Yes", False), ("Yes", True)]
    assert bad == []


@pytest.mark.parametrize("gap", [None, ""])
def test_a_weight_that_is_left_empty_is_none(gap):
    """In a table where only some pairs have one, the others were set aside."""
    assert one({"prompt": "Is it far?", "chosen": YES, "rejected": NO, "weight": gap}).weight == 1.0


def test_kinds_of_every_type_are_text_or_nothing(tmp_path):
    """They are counted and sorted by, at the end of a run."""
    found = [one({"prompt": "Is it far?", "chosen": YES, "rejected": NO, "kind": {"a": 1}, "category": value}) for value in ("x", 3, ["a"], {"b": 2}, None)]
    assert [pair.meta for pair in found] == [{"category": "x"}, {"category": "3"}, {}, {}, {}]
    assert [prompt["kind"] for prompt in pair_prompts(found)] == ["x"]
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a", "kind": {"b": 1}}\n{"prompt": "b", "category": 3}\n{"prompt": "c", "kind": "d"}\n')
    assert [prompt["kind"] for prompt in read_prompts(str(tmp_path / "prompts.jsonl"), [].append)[0]] == [None, "3", "d"]


def test_a_packed_file_with_a_bad_line(tmp_path):
    good = json.dumps({"prompt": "Is it far?", "chosen": YES, "rejected": NO, "rater": 7})
    (tmp_path / "pairs.jsonl.gz").write_bytes(gzip.compress(f"{good}\n{{}}\n{good}\n".encode()))
    bad = []
    pairs = read_preferences(tmp_path / "pairs.jsonl.gz", bad.append)
    assert len(pairs) == 2 and pairs[0].rater == "7" and bad[0].line == 2
    (tmp_path / "none.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match="Known forms"):
        read_preferences(tmp_path / "none.jsonl", bad.append)


def test_a_rater_who_guesses_counts_for_less_whichever_answer_stands_first():
    rng = random.Random(0)
    pairs = []
    for n in range(200):
        truth, ids = rng.randrange(2), [[n, 1], [n, 2]]
        for rater, right in (("ann", 0.95), ("bea", 0.9), ("cy", 0.5)):
            vote, flip = truth if rng.random() < right else 1 - truth, rng.randrange(2)
            answers = [{"token_ids": one} for one in (ids[::-1] if flip else ids)]
            pairs.append({"prompt_id": n, "answers": answers, "rater": rater, "chosen": 1 - vote if flip else vote})
    pairs += [{"prompt_id": -1, "answers": [{"token_ids": [1]}, {"token_ids": [2]}], "rater": "dot", "chosen": None}]
    found = {one["rater"]: one for one in rater_weights(pairs)}
    assert found["cy"]["weight"] < 0.5 * found["bea"]["weight"] < 0.55 * found["ann"]["weight"]
    assert found["dot"]["compared"] == 0 and found["dot"]["agreement"] is None and found["cy"]["votes"] == 200
    assert sum(one["weight"] * one["votes"] for one in found.values()) == pytest.approx(len(pairs))
    unturned = rater_weights([{**p, "chosen": 0} for p in pairs])  # the broken twin: positions instead of answers
    assert max(one["weight"] for one in unturned) < 2 * min(one["weight"] for one in unturned)


@pytest.mark.skipif("FROMNOISE_DATA" not in os.environ, reason="FROMNOISE_DATA is not set: no real data beside the project")
def test_real_preference_files():
    root = Path(os.environ["FROMNOISE_DATA"]) / "preferences"
    bad = []
    harmless = read_preferences(root / "hh_harmless" / "test.jsonl.gz", bad.append)
    assert len(harmless) + len(bad) == 2312 and collections.Counter(b.reason for b in bad) == {"`chosen` is an empty answer": 4}
    pandalm = read_preferences(root / "pandalm" / "testset-v1.json", bad.append)
    assert {p.rater for p in pandalm} == {"annotator1", "annotator2", "annotator3"} and any(p.tie for p in pandalm)
    assert len(read_preferences(root / "hhh" / "hhh_pairs.jsonl", bad.append)) == 221
    assert len(read_preferences(root / "llmbar", bad.append)) == 419


def test_a_system_message_beside_the_prompt_is_not_lost(tmp_path):
    record = {"system": "Be brief.", "prompt": "Hello?"}
    opened = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello?"}]
    for answers in ({"chosen": "Hi.", "rejected": "Go."}, {"response_a": "Hi.", "response_b": "Go.", "winner": "a"}):
        assert pairs_of({**record, **answers}, "here")[0].prompt == opened
    (tmp_path / "prompts.jsonl").write_text(json.dumps(record))
    assert read_prompts(str(tmp_path / "prompts.jsonl"), lambda bad: None)[0][0]["messages"] == opened
