import csv
import json
import os
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from fromnoise.data.conversation import asked_of, conversations_of, fit_prompt, messages_of, read_conversations
from fromnoise.data.preferences import read_preferences
from fromnoise.data.prompts import read_prompts
from fromnoise.run.errors import UserError

HELLO = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hi."}]


@pytest.mark.parametrize(
    "record",
    [
        {"messages": HELLO},
        {"messages": [{"role": "USER", "content": " Hello? "}, {"role": "assistant", "content": [{"type": "text", "text": "Hi."}]}]},
        {"conversations": [{"from": "human", "value": "Hello?"}, {"from": "gpt", "value": "Hi."}]},
        {"conversation": [*HELLO, {"role": "user", "content": "left unanswered"}]},
        {"instruction": "Hello?", "input": "", "output": "Hi."},
        {"instruction": "Hello?", "context": "", "response": "Hi.", "category": "open_qa"},
        {"prompt": "Hello?", "completion": "Hi."},
        {"question": "Hello?", "answer": "Hi."},
        {"instruction": "Hello?", "instances": [{"input": "", "output": "Hi."}]},
        {"instruction": "Hello?", "input": "nan", "output": "Hi."},
        {"instruction": "Hello?", "input": "<noinput>", "output": "Hi."},
        {"instruction": "", "input": "Hello?", "output": "Hi."},
        {"input": "Hello?", "output": "Hi."},
        {"messages": [{"role": None, "content": None, "from": "human", "value": "Hello?"}, {**HELLO[1], "from": None, "value": None}]},
    ],
)
def test_every_form_reads_as_the_same_messages(record):
    assert conversations_of(record) == [HELLO]


def test_a_system_turn_that_says_nothing_is_none():
    empty = {"from": "system", "value": " "}
    turns = [{"from": "human", "value": "Hello?"}, {"from": "gpt", "value": "Hi."}]
    assert conversations_of({"conversations": [empty, *turns]}) == [HELLO]
    assert conversations_of({"conversations": [empty, *turns], "system": "Be brief."}) == [[{"role": "system", "content": "Be brief."}, *HELLO]]


def test_context_stands_after_the_instruction():
    [messages] = conversations_of({"instruction": "Summarise.", "context": "A long day.", "response": "Long."})
    assert messages[0]["content"] == "Summarise.\n\nA long day."
    [messages] = conversations_of({"instruction": "Summarise.", "input": "In a word.", "context": "A long day.", "output": "Long."})
    assert messages[0]["content"] == "Summarise.\n\nIn a word.\n\nA long day."


def test_a_number_is_context_or_an_answer_and_a_list_is_not_passed_over():
    """Once the 5 was dropped without a word, and 25 taught as the square of nothing."""
    for context in (5, 5.0, "5"):
        [messages] = conversations_of({"instruction": "Square it.", "input": context, "output": 25})
        assert [m["content"] for m in messages] == ["Square it.\n\n5", "25"]
    for context in (None, "", [], float("nan")):
        assert conversations_of({"instruction": "Hello?", "input": context, "output": "Hi."}) == [HELLO]
    for context in (["one", "two"], {"a": 1}, True, Decimal(5), date(2001, 7, 5)):
        with pytest.raises(ValueError, match=r"`context` is a (list|dict|bool|Decimal|date), not text"):
            conversations_of({"instruction": "Which?", "context": context, "output": "one"})


def test_of_a_prompt_and_its_completion_only_the_completion_is_learnt(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"prompt": [*HELLO, HELLO[0]], "completion": [HELLO[1]]}))
    [found] = read_conversations(tmp_path, lambda bad: None)
    assert found.messages == [*HELLO, *HELLO] and found.unlearnt == {0}


def test_system_message_is_kept_first():
    [messages] = conversations_of({"system": "Be brief.", "prompt": "Hello?", "response": "Hi."})
    assert [m["role"] for m in messages] == ["system", "user", "assistant"]


@pytest.mark.parametrize("turns", [{"conversations": [{"from": "human", "value": "Hello?"}, {"from": "gpt", "value": "Hi."}]}, {"messages": HELLO}])
def test_a_system_message_beside_the_turns_is_not_lost(turns):
    """LLaMA-Factory's and Axolotl's ShareGPT have it there."""
    assert conversations_of({**turns, "system": "Be brief."}) == [[{"role": "system", "content": "Be brief."}, *HELLO]]
    own = [{"role": "system", "content": "Be kind."}, *HELLO]
    assert conversations_of({"messages": own, "system": "Be brief."}) == [own]


def test_the_turns_before_an_instruction_are_not_lost():
    record = {"instruction": "And you?", "output": "Well.", "history": [["Hello?", " Hi."]], "system": "Be brief."}
    [messages] = conversations_of(record)
    assert [m["content"] for m in messages] == ["Be brief.", "Hello?", "Hi.", "And you?", "Well."]
    assert conversations_of({"instruction": "Hello?", "output": "Hi.", "history": []}) == [HELLO]
    for history in (["Hello?", "Hi."], "Hello?", 5, {"Hello?": "Hi."}):
        with pytest.raises(ValueError, match="no list of pairs"):
            conversations_of({**record, "history": history})


def test_an_instruction_is_taken_rather_than_the_frame_that_holds_it_and_its_answer():
    frame = "Below is an instruction.\n### Instruction:\nDouble it.\n### Input:\n2\n### Response:\n4"
    [messages] = conversations_of({"instruction": "Double it.", "input": "2", "output": "4", "prompt": frame})
    assert [m["content"] for m in messages] == ["Double it.\n\n2", "4"]
    assert conversations_of({"instruction": "Be brief.", "prompt": "Hello?", "response": "Hi."}) == [HELLO]


def test_what_was_thought_before_an_answer_is_learnt_with_it():
    [messages] = conversations_of({"messages": [{**HELLO[0], "reasoning_content": "Nobody reads this."}, {**HELLO[1], "reasoning_content": "A greeting.\n"}]})
    assert messages == [HELLO[0], {"role": "assistant", "content": "<think>\nA greeting.\n</think>\n\nHi."}]
    assert conversations_of({"messages": [HELLO[0], {**HELLO[1], "reasoning_content": None}]}) == [HELLO]
    with pytest.raises(ValueError, match="empty"):
        conversations_of({"messages": [HELLO[0], {"role": "assistant", "content": " ", "reasoning_content": "A greeting."}]})


def test_turns_marked_as_context_are_known_by_their_number(tmp_path):
    def marked(**marks):
        return json.dumps({"messages": [*HELLO, HELLO[0], {**HELLO[1], **marks}]})

    lines = [marked(), marked(weight=0), marked(weight=1), marked(train=False), marked(training=False), marked(weight=None), marked(weight=0.5)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    bad = []
    found = read_conversations(tmp_path / "a.jsonl", bad.append)
    assert [set(c.unlearnt) for c in found] == [set(), {1}, set(), {1}, {1}, set()]
    assert [(b.line, "weight 0.5" in b.reason) for b in bad] == [(7, True)]


def test_a_file_that_is_one_conversation_is_one_record(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"id": "x", "messages": HELLO}))
    (tmp_path / "b.json").write_text(json.dumps({"conversations": [{"from": "human", "value": "Hello?"}, {"from": "gpt", "value": "Hi."}]}))
    (tmp_path / "c.json").write_text(json.dumps({"conversations": [{"messages": HELLO}]}))
    bad = []
    assert [c.messages for c in read_conversations(tmp_path, bad.append)] == [HELLO] * 3 and not bad


def test_one_conversation_an_instance():
    found = conversations_of({"instruction": "Double it.", "instances": [{"input": "2", "output": "4"}, {"input": "3", "output": "6"}]})
    assert [m[0]["content"] for m in found] == ["Double it.\n\n2", "Double it.\n\n3"]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"text": "just a document"}, "no conversation"),
        ({"prompt": " ", "response": "Hi."}, "no conversation: keys.*, and `prompt` is empty"),
        ({"messages": [HELLO[0], {"role": "assistant", "content": 4}]}, "content of turn 2 is a int, not text"),
        ({"instruction": "Hello?"}, "without an answer"),
        ({"messages": []}, "no assistant turn"),
        ({"messages": [{"role": "user", "content": "Hello?"}]}, "no assistant turn"),
        ({"messages": [{"role": "assistant", "content": "Hi."}]}, "expected"),
        ({"messages": [HELLO[0], HELLO[0], HELLO[1]]}, "expected"),
        ({"messages": [HELLO[0], {"role": "assistant", "content": " "}]}, "empty"),
        ({"messages": [HELLO[0], {"role": "tool", "content": "4"}, HELLO[1]]}, "role 'tool'"),
        ({"messages": [HELLO[0], {"role": "assistant", "content": [{"type": "image_url"}]}]}, "not text"),
        ({"messages": [HELLO[0], {**HELLO[1], "tool_calls": [{"id": "1"}]}]}, "calls a tool"),
        ({"messages": ["Hello?"]}, "not an object"),
        ({"messages": [HELLO[0], {"role": "assistant", "content": None}]}, "no text"),
        ({"messages": json.dumps(HELLO)}, "`messages` is a str, not a list of turns"),
        ({"prompt": HELLO[:1], "completion": "Hi."}, "`prompt` is a list, not text"),
        ({"instruction": 42, "output": "Hi."}, "`instruction` is a int, not text"),
    ],
)
def test_what_is_no_conversation_says_why(record, reason):
    with pytest.raises(ValueError, match=reason):
        conversations_of(record)


def test_turns_that_are_text_are_no_prompt():
    with pytest.raises(ValueError, match="`messages` is a str, not a list of turns"):
        asked_of({"messages": json.dumps(HELLO[:1])})


def test_files_and_folders_with_bad_lines(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"messages": HELLO, "kind": "greeting"}) + '\n{"broken": \n' + json.dumps({"x": 1}) + "\n")
    with (tmp_path / "b.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerows([["instruction", "context", "response", "category"], ["Name, please?", "", "Ann,\nthe first", "qa"]])
    bad = []
    found = read_conversations(tmp_path, bad.append)
    assert [c.messages[-1]["content"] for c in found] == ["Hi.", "Ann,\nthe first"]
    assert [c.kind for c in found] == ["greeting", "qa"]
    assert [(Path(b.file).name, b.line) for b in bad] == [("a.jsonl", 2), ("a.jsonl", 3)]


def test_no_conversation_at_all_is_a_user_error(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "a"}) + "\n")
    with pytest.raises(UserError, match="Known forms"):
        read_conversations(tmp_path / "a.jsonl", lambda bad: None)
    with pytest.raises(UserError, match="missing"):
        read_conversations(tmp_path / "missing.jsonl", lambda bad: None)


@pytest.mark.parametrize("read", [read_conversations, read_preferences, read_prompts])
def test_where_nothing_can_be_read_the_message_says_why(read, tmp_path):
    """Records of the right form in a damaged file were told which forms there are."""
    path = tmp_path / "a.json"
    path.write_text('[{"prompt": "a", "response": "b", "chosen": "b", "rejected": "c"},]')
    bad = []
    with pytest.raises(UserError, match=r"Most often: malformed JSON: Expecting value \(first at .*a\.json:1\)\. "):
        read(str(path), bad.append)
    assert bad[0].reason == "malformed JSON: Expecting value"


class OneTokenAWord:
    """Each word is a token, each message costs one more, the generation prompt one more."""

    def encode_messages(self, messages, add_generation_prompt=False):
        ids = [token for m in messages for token in [0, *(len(w) for w in m["content"].split())]]
        return ids + [0] * add_generation_prompt, None


def test_fit_prompt_cuts_the_oldest_turns_and_keeps_the_system_message():
    messages = messages_of([
        {"role": "system", "content": "be brief"}, {"role": "user", "content": "one two three"}, {"role": "assistant", "content": "four five"},
        {"role": "user", "content": "six seven"},
    ])  # fmt: skip
    ids, kept = fit_prompt(OneTokenAWord(), messages, 100)
    assert kept == messages and len(ids) == 14
    ids, kept = fit_prompt(OneTokenAWord(), messages, 13)
    assert kept == [messages[0], messages[3]] and len(ids) == 7
    assert fit_prompt(OneTokenAWord(), messages, 6) is None


@pytest.mark.skipif("FROMNOISE_DATA" not in os.environ, reason="FROMNOISE_DATA is not set: no real data beside the project")
def test_real_instruction_files():
    root = Path(os.environ["FROMNOISE_DATA"]) / "instructions"
    bad = []
    assert len(read_conversations(root / "dolly_1000", bad.append)) == 1000
    assert len(read_conversations(root / "self_instruct" / "seed_tasks.jsonl", bad.append)) == 175
    assert all("holds no records" in b.reason for b in bad)  # SOURCE.md
