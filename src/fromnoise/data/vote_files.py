"""Votes as files: `chosen`/`rejected` jsonl, the form that preference data are exchanged in.

A line is one vote. `prompt`, `chosen` and `rejected` are lists of messages, as other trainers read them; beside them
stand `rater`, `tie`, `both_bad`, `reason`, `repeated`, `weight` (the votes on a pair share 1), `left` (which of the two
stood on the left: "chosen", "rejected" or null), `seconds`, `cast_at`, `pair` and `vote` (the vote's own key). Of a tie
the order of `chosen` and `rejected` says nothing: a trainer that knows no ties must leave those lines out.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from fromnoise.data.conversation import messages_of
from fromnoise.data.files import BadRecord, OnBad, Reasons
from fromnoise.data.preferences import pairs_of, yes_or_no
from fromnoise.data.readers import read_records
from fromnoise.data.votes import (
    MAX_KEY,
    MAX_NAME,
    MAX_REASON,
    ComparedPair,
    Vote,
    VoteStore,
    compared_pair,
    is_duration,
    is_key,
    rater_name,
    storable,
    utc_now,
)
from fromnoise.run.errors import UserError


def export_rows(pairs: Mapping[str, ComparedPair], votes: Sequence[Vote]) -> list[dict]:
    """One line a vote, in the order they were cast."""
    on_pair = Counter(vote.pair for vote in votes)
    rows = []
    for vote in votes:
        pair = pairs[vote.pair]
        chosen, rejected = (pair.second, pair.first) if vote.choice == "second" else (pair.first, pair.second)
        left = None
        if vote.swapped is not None:
            left = "chosen" if (vote.choice == "second") == vote.swapped else "rejected"
        rows.append({
            "prompt": pair.messages, "chosen": [{"role": "assistant", "content": chosen}], "rejected": [{"role": "assistant", "content": rejected}],
            "tie": vote.choice in ("tie", "both_bad"), "both_bad": vote.choice == "both_bad", "rater": vote.rater, "reason": vote.reason,
            "repeated": vote.repeated, "weight": 1.0 / on_pair[vote.pair], "left": left, "seconds": vote.seconds, "cast_at": vote.cast_at,
            "pair": vote.pair, "vote": vote.key,
        })  # fmt: skip
    return rows


def import_votes(store: VoteStore, path: Path, on_bad: OnBad) -> Counter:
    """Take the votes of a file, ours or any form of preference data, into the store. {"added", "known", "conflict"} counts.

    The same file again adds nothing: our lines carry their key, others get one from what they say. A line that is no
    vote goes to `on_bad`. UserError when there is no vote in it at all.
    """
    read: list[tuple[ComparedPair, Vote]] = []
    seen: Counter[tuple[str, str]] = Counter()
    on_bad = Reasons(on_bad)
    for record, file, line in read_records(str(path), on_bad):
        try:
            read += [own_vote(record)] if "vote" in record else foreign_votes(record, str(file), seen)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, UserError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else str(error)
            on_bad(BadRecord(str(file), line, reason, repr(record)[:200]))
    if not read:
        raise UserError(f"{path}: no vote found in it.{on_bad} Give a file that `fromnoise label RUN --export` wrote, or `chosen`/`rejected` pairs.")
    store.add_pairs(pair for pair, _ in read)
    return store.add_votes(vote for _, vote in read)


def own_vote(record: dict) -> tuple[ComparedPair, Vote]:
    """A line of our own export. ValueError and its like for what is not one."""
    answers = [messages_of(record[name]) for name in ("chosen", "rejected")]
    if any(len(messages) != 1 or messages[0]["role"] != "assistant" for messages in answers):
        raise ValueError("`chosen` and `rejected` must each be one message of the assistant")
    chosen, rejected = (storable(messages[0]["content"]) for messages in answers)
    pair = compared_pair(messages_of(record["prompt"]), [chosen, rejected])
    if pair.first == pair.second:
        raise ValueError("the two answers are the same")
    key, reason, seconds = record["vote"], record.get("reason"), record.get("seconds")
    if not is_key(key):
        raise ValueError(f"vote {str(key)[: 2 * MAX_KEY]!r} is no key: 8 to {MAX_KEY} printable ASCII characters")
    if reason is not None and (not isinstance(reason, str) or len(reason) > MAX_REASON):
        raise ValueError("reason is not text")
    both_bad, tie, repeated = (yes_or_no(name, record[name]) for name in ("both_bad", "tie", "repeated"))
    choice = "both_bad" if both_bad else "tie" if tie else "first" if chosen == pair.first else "second"
    stood_left = {"chosen": chosen, "rejected": rejected}.get(record.get("left"))
    swapped = None if stood_left is None else stood_left == pair.second
    reason = None if reason is None else storable(reason)
    seconds = float(seconds) if is_duration(seconds) else None
    cast_at = storable(str(record.get("cast_at") or utc_now())[:40])
    return pair, Vote(key, pair.key, rater_name(record["rater"]), choice, reason, repeated, swapped, seconds, cast_at)


def foreign_votes(record: dict, source: str, seen: Counter) -> list[tuple[ComparedPair, Vote]]:
    """The votes of one record of any known form of preference data.

    seen: how often each rater has judged each pair so far; a second time is a repeat. Raters without a name are called after the file, and
    who judges a pair there once more is another one: nobody knows that it was the same.
    """
    found = []
    for read in pairs_of(record, source):
        pair = compared_pair(read.prompt, [read.chosen, read.rejected])
        rater = rater_name(read.rater or Path(source).name[:MAX_NAME])
        if read.rater is None:
            unnamed = f"\0{rater}", pair.key  # no rater's name holds a zero byte
            seen[unnamed] += 1
            number = seen[unnamed]
            rater = rater if number == 1 else rater_name(f"{rater[: MAX_NAME - 8]} ({number})")
        choice = "tie" if read.tie else "first" if storable(read.chosen.strip()) == pair.first else "second"
        seen[rater, pair.key] += 1
        said = "\0".join((rater, pair.key, choice, str(seen[rater, pair.key])))
        key = f"file-{hashlib.sha256(said.encode()).hexdigest()[:24]}"
        found.append((pair, Vote(key, pair.key, rater, choice, None, seen[rater, pair.key] > 1, None, None, utc_now())))
    return found
