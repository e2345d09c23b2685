"""The file of votes: who may read it, and what a file of votes may bring into it."""

from __future__ import annotations

import json
import os

import pytest

from fromnoise.data.people import labelled
from fromnoise.data.vote_files import export_rows, import_votes
from fromnoise.data.votes import FILE, Vote, VoteStore, compared_pair
from fromnoise.evaluate.agreement import agreement
from fromnoise.evaluate.records import write_jsonl
from fromnoise.run.errors import UserError


@pytest.mark.parametrize("is_there", [False, True])
def test_the_votes_and_their_secret_are_their_owners_alone_from_the_start(tmp_path, is_there):
    """SQLite gives the files beside it the mode it finds: they held the secret, readable by all, until the first closing."""
    before = os.umask(0o022)
    try:
        if is_there:
            (tmp_path / FILE).touch()
        store = VoteStore(tmp_path / FILE)
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
        store.close()
    finally:
        os.umask(before)
    assert modes == {FILE: 0o600, f"{FILE}-wal": 0o600, f"{FILE}-shm": 0o600}


def test_a_labelled_pair_says_which_answer_stood_on_the_left():
    """`evaluate` took the order in which they were sampled for the one that people saw."""
    pair = {"id": "p", "messages": [{"role": "user", "content": "Q"}], "answers": [{"text": "b"}, {"text": " a"}]}  # the other way round than `first`, `second`
    key = compared_pair(pair["messages"], ["a", "b"]).key
    votes = [Vote(f"key-{n}", key, f"r{n}", "first", None, False, swapped, 1.0, "") for n, swapped in enumerate((False, True, None))]
    assert [(record["left"], record["chosen"]) for record in labelled({key: pair}, votes)] == [(1, 1), (0, 1), (None, 1)]


def test_a_place_where_no_file_can_be_is_said(tmp_path):
    (tmp_path / FILE).mkdir()
    for path in (tmp_path / FILE, tmp_path / "nowhere" / FILE):
        with pytest.raises(UserError, match="cannot be used as the file of votes"):
            VoteStore(path)


GOOD = {"prompt": [{"role": "user", "content": "Q"}], "chosen": [{"role": "assistant", "content": "a"}], "rejected": [{"role": "assistant", "content": "b"}],
        "tie": False, "both_bad": False, "repeated": False, "rater": "ann", "vote": "a-key-0000", "seconds": 2.5}  # fmt: skip


def imported(tmp_path, *changes: str) -> tuple[list, list]:
    """(votes, bad records) of a good line, then one a change: JSON as it would stand in the file, in the place of what it names."""
    lines = [json.dumps(GOOD)]
    for number, change in enumerate(changes, start=1):
        lines.append(json.dumps({**GOOD, "rater": f"rater {number}", "vote": f"a-key-000{number}"})[:-1] + f", {change}}}")  # of two, the last counts
    (tmp_path / "votes.jsonl").write_text("\n".join(lines) + "\n")
    store, bad = VoteStore(tmp_path / FILE), []
    import_votes(store, tmp_path / "votes.jsonl", bad.append)
    votes = store.votes()
    write_jsonl(tmp_path / "again.jsonl", export_rows(store.pairs(), votes))
    assert agreement(votes)["votes"] == len(votes)
    store.close()
    return votes, bad


def test_a_time_that_no_vote_can_take_is_left_out(tmp_path):
    seconds = ["1e999", "-1e999", "-5", "NaN", "1e9", "9" * 401, "true", '"2"', "0", "3"]
    votes, bad = imported(tmp_path, *(f'"seconds": {text}' for text in seconds))
    assert bad == [] and [vote.seconds for vote in votes] == [2.5, *[None] * 8, 0.0, 3.0]


def test_text_that_is_none_costs_no_other_vote(tmp_path):
    """JSON can spell half a surrogate pair, which no file and no database holds."""
    changes = [r'"vote": "a-key-\ud8001"', r'"vote": "a-key\u0000001"', r'"reason": "so \ud800"', r'"cast_at": "\udfff2026"']
    votes, bad = imported(tmp_path, *changes)
    assert [record.line for record in bad] == [2, 3] and all("is no key" in record.reason for record in bad)
    assert [(vote.reason, vote.cast_at[:5]) for vote in votes[1:]] == [("so ?", votes[0].cast_at[:5]), (None, "?2026"[:5])]


def test_half_a_character_changes_neither_pair_nor_vote(tmp_path):
    """What a file holds in its place is a question mark: the same pair read from the export is the same, and the chosen answer stays it."""
    pairs = [{"prompt": "Which?", "chosen": "\ud83d", "rejected": "x"}, {"prompt": "Which? \ud83d", "chosen": "y", "rejected": "x"}]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    store, other = VoteStore(tmp_path / FILE), VoteStore(tmp_path / "other.sqlite")
    import_votes(store, tmp_path / "pairs.jsonl", pytest.fail)
    write_jsonl(tmp_path / "votes.jsonl", export_rows(store.pairs(), store.votes()))
    import_votes(other, tmp_path / "votes.jsonl", pytest.fail)
    assert [(vote.pair, vote.choice) for vote in store.votes()] == [(vote.pair, vote.choice) for vote in other.votes()]
    assert [vote.choice for vote in store.votes()] == ["first", "second"]  # "?" stands before "x", and "x" before "y"
    store.close(), other.close()


def test_a_line_that_was_changed_by_hand_is_not_said_to_be_here(tmp_path):
    """Its key is known, what it says is not: counted as here already, the correction was lost without a word."""
    store = VoteStore(tmp_path / FILE)

    def counts(*lines: dict) -> dict:
        write_jsonl(tmp_path / "votes.jsonl", lines)
        return import_votes(store, tmp_path / "votes.jsonl", pytest.fail)

    other = {**GOOD, "prompt": [{"role": "user", "content": "Another"}]}
    assert counts(GOOD) == {"added": 1} and counts(GOOD) == {"known": 1}
    assert counts({**GOOD, "chosen": GOOD["rejected"], "rejected": GOOD["chosen"]}, {**GOOD, "tie": True}, {**GOOD, "rater": "ben"}, other) == {"conflict": 4}
    assert [(vote.rater, vote.choice) for vote in store.votes()] == [("ann", "first")]
    store.close()
