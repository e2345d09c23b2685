"""Prompts for sampling answers: the world's, those of a file, or those of the preference pairs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from fromnoise.data.conversation import PROMPT_KEYS, Message, asked_of, checked, kind_of, messages_of, with_system
from fromnoise.data.files import BadRecord, OnBad, Reasons
from fromnoise.data.preferences import Pair, opening_key, prompt_key
from fromnoise.data.readers import TURN_KEYS, read_records
from fromnoise.run.errors import UserError


def world_prompts(prepare: Path, split: str) -> list[dict]:
    """The world's prompt records of one split ("train", "heldout"), in file order."""
    path = prepare / "world" / "prompts.jsonl"
    with path.open(encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    return [record for record in records if record["split"] == split]


def read_prompts(path: str, on_bad: OnBad) -> tuple[list[dict], int]:
    """Prompt records `{"id", "kind", "messages"}` of a file (`messages`, or text under prompt, instruction, question), and of how many records.

    Turns after the last user turn are cut; the same prompt twice is kept once. UserError when there is none.
    """
    found, on_bad = [], Reasons(on_bad)
    for record, file, line in read_records(path, on_bad):
        try:
            found.append((prompt_messages(record), kind_of(record)))
        except ValueError as error:
            on_bad(BadRecord(str(file), line, str(error), repr(record)[:120]))
    prompts = unique_prompts(found)
    if not prompts:
        raise UserError(f"no prompt found in {path}.{on_bad} A record needs `messages`, or text under one of {', '.join(PROMPT_KEYS)}")
    return prompts, len(found)


def prompt_messages(record: dict) -> list[Message]:
    for key in (*TURN_KEYS, "prompt"):
        if isinstance(record.get(key), list):
            return checked(with_system(record, messages_of(record[key])), ends_with="user")
    return checked(with_system(record, asked_of(record)), ends_with="user")


def pair_prompts(pairs: Sequence[Pair]) -> list[dict]:
    """The different prompts of preference pairs, in order of first appearance."""
    return unique_prompts((pair.prompt, kind_of(pair.meta)) for pair in pairs)


def unique_prompts(found: Iterable[tuple[list[Message], str | None]]) -> list[dict]:
    prompts: dict[str, dict] = {}
    for messages, kind in found:
        key = prompt_key(messages)
        if key not in prompts:
            prompts[key] = {"id": key, "opening_id": opening_key(messages), "kind": kind, "split": "train", "messages": messages}
    return list(prompts.values())

