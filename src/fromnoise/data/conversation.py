"""Conversations in the forms people have them, read as messages `{"role", "content"}`.

| form | keys of a record |
| --- | --- |
| OpenAI | `messages`: a list of role and content |
| ShareGPT | `conversations` (or `conversation`): a list of `from` (human, gpt, system) and `value` |
| Alpaca, dolly | `instruction`, optionally `input` or `context`, and `output` or `response`; earlier turns as pairs in `history` |
| self-instruct | `instruction` and `instances`: a list of `input` and `output`; one conversation each |
| columns | `prompt` (or `question`, `query`, `input`) and `response` (or `completion`, `answer`, `output`) |
| TRL | `prompt` and `completion` as lists of role and content; only the completion is learnt from |

A `system` or `system_prompt` beside any of them is the system message, unless the turns begin with one. An assistant's turn with `weight`
0 (OpenAI) or `train` or `training` false is context: nothing is learnt from it. A turn that calls tools is refused, since the calls would be lost.

Text is taken as it is, only stripped of space at its ends: what was typed as a special token stays text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fromnoise.data.files import BadRecord, OnBad, Reasons
from fromnoise.data.readers import TURN_KEYS, read_records
from fromnoise.run.errors import UserError

Message = dict[str, str]

ROLES = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "model": "assistant", "chatgpt": "assistant", "bot": "assistant",
}  # fmt: skip
PROMPT_KEYS = ("prompt", "instruction", "question", "query", "input")
CONTEXT_KEYS = ("input", "context")
NO_CONTEXT = ("nan", "<noinput>")  # a gap as pandas writes it, and as self-instruct does
ANSWER_KEYS = ("response", "output", "completion", "answer")


@dataclass(frozen=True, slots=True)
class Conversation:
    messages: list[Message]  # roles system (first or absent), then user and assistant by turns, ends with assistant
    source: str  # the file it came from
    kind: str | None = None  # the record's `kind` or `category`, where it has one
    unlearnt: frozenset[int] = frozenset()  # the assistant's turns, counted from 0, that are marked as context alone
    line: int = 0  # of `source`, where its record stands: one with `instances` is several conversations


def read_conversations(path: str | Path, on_bad: OnBad) -> list[Conversation]:
    """All conversations of a file, folder or glob, in order. A record of no known form goes to `on_bad` with its reason.

    UserError when there is no conversation at all.
    """
    conversations: list[Conversation] = []
    on_bad = Reasons(on_bad)
    for record, file, line in read_records(str(path), on_bad):
        try:
            found, unlearnt = conversations_of(record), unlearnt_turns(record)
        except ValueError as error:
            on_bad(BadRecord(str(file), line, str(error), repr(record)[:200]))
            continue
        conversations += [Conversation(messages, str(file), kind_of(record), unlearnt, line) for messages in found]
    if not conversations:
        raise UserError(
            f"no conversation found in {path}.{on_bad} Known forms: a `messages` list, ShareGPT `conversations`, "
            "Alpaca `instruction`/`input`/`output`, dolly `instruction`/`context`/`response`, `prompt`/`response` columns."
        )
    return conversations


def num_records(read: Sequence) -> int:
    """Of how many records conversations or pairs come, by the `source` and `line` of each."""
    return len({(one.source, one.line) for one in read})


def conversations_of(record: dict) -> list[list[Message]]:
    """The conversations of one record, each a checked list of messages. ValueError says what is missing."""
    turns = turns_of(record)
    if turns is not None:
        return [checked(with_system(record, messages_of(turns)))]
    prompt = prompt_of(record)
    if prompt is None:
        empty = next((f", and `{key}` is empty" for key in PROMPT_KEYS if key in record), "")
        raise ValueError(of_another_type(record) or f"no conversation: keys {sorted(map(str, record))[:8]}{empty}")
    instances = record["instances"] if isinstance(record.get("instances"), list) else [record]
    earlier = history_of(record)
    found = []
    for one in (one for one in instances if isinstance(one, dict)):
        answer = first_text(one, ANSWER_KEYS) or first_number(one, ANSWER_KEYS)
        if answer is None:
            raise ValueError(f"a prompt without an answer: none of {', '.join(ANSWER_KEYS)} holds text")
        messages = [*earlier, {"role": "user", "content": with_context(prompt, one)}, {"role": "assistant", "content": answer}]
        found.append(checked(with_system(record, messages)))
    if not found:
        raise ValueError("`instances` is empty")
    return found


def turns_of(record: dict) -> list | None:
    """The list of turns of a record that has one, of TRL's `prompt` and `completion` both, the former's marked as context."""
    prompt, completion = record.get("prompt"), record.get("completion")
    if isinstance(prompt, list) and isinstance(completion, list):
        return [*({**turn, "weight": 0} if isinstance(turn, dict) else turn for turn in prompt), *completion]
    return next((record[key] for key in TURN_KEYS if isinstance(record.get(key), list)), None)


def of_another_type(record: dict) -> str | None:
    """What is wrong with a record that names its turns or its prompt, but has no list or no text there: tables hold turns as JSON in text."""
    for key, value in ((key, record.get(key)) for key in (*TURN_KEYS, *PROMPT_KEYS)):
        if value is not None and (not isinstance(value, str) or (key in TURN_KEYS and value.strip())):
            return f"`{key}` is a {type(value).__name__}, not {'a list of turns' if key in TURN_KEYS else 'text'}"
    return None


def prompt_of(record: dict) -> str | None:
    """What a record asks. Some have the `instruction` and, as `prompt`, all of it in a frame ("### Input: ... ### Response: ..."): the former."""
    prompt, instruction = first_text(record, PROMPT_KEYS), first_text(record, ("instruction",))
    return instruction if instruction and prompt and instruction in prompt else prompt


def asked_of(record: dict) -> list[Message]:
    """What a record without a list of turns asks: its `history`, and its prompt with the context beside it. ValueError where there is none."""
    prompt = prompt_of(record)
    if prompt is None:
        raise ValueError(of_another_type(record) or f"no prompt: none of {', '.join(PROMPT_KEYS)} holds text; keys {sorted(map(str, record))[:8]}")
    return [*history_of(record), {"role": "user", "content": with_context(prompt, record)}]


def with_context(prompt: str, record: dict) -> str:
    """The prompt with the record's `input` or `context` behind it. ValueError for one that is no text: asked without it, the question is another."""
    for key in CONTEXT_KEYS:
        value = record.get(key)
        if value and (isinstance(value, bool) or not isinstance(value, (str, int, float))):
            raise ValueError(f"`{key}` is a {type(value).__name__}, not text; write what it holds as one text")
    contexts = (first_text(record, (key,)) or first_number(record, (key,)) for key in CONTEXT_KEYS)
    return "\n\n".join(dict.fromkeys([prompt, *(text for text in contexts if text and text.lower() not in NO_CONTEXT)]))


def with_system(record: dict, messages: list[Message]) -> list[Message]:
    """The messages with the record's system message before them, where it has one beside them and they do not begin with one."""
    system = first_text(record, ("system", "system_prompt"))
    begun = bool(messages) and messages[0]["role"] == "system"
    return [{"role": "system", "content": system}, *messages] if system and not begun else messages


def history_of(record: dict) -> list[Message]:
    """Earlier turns beside a prompt: `history`, a list of pairs of prompt and answer. ValueError for what is no such list."""
    messages, history = [], record.get("history") or []
    for pair in history if isinstance(history, list) else [history]:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise ValueError("`history` is no list of pairs of prompt and answer")
        messages += [{"role": role, "content": text.strip()} for role, text in zip(("user", "assistant"), pair, strict=True)]
    return messages


def unlearnt_turns(record: dict) -> frozenset[int]:
    """The assistant's turns, counted from 0, that are marked as no example. `conversations_of` has read the record. ValueError for a
    mark that is neither yes nor no."""
    found, count = set(), 0
    for number, turn in enumerate(turns_of(record) or [], start=1):
        if ROLES[str(either(turn, "role", "from")).lower()] != "assistant":
            continue
        for mark in ("weight", "train", "training"):
            if turn.get(mark) not in (None, 0, 1):  # False and True are among them
                raise ValueError(f"turn {number} has {mark} {turn[mark]!r}; a turn is learnt from (1, true) or not (0, false)")
            if turn.get(mark) == 0:
                found.add(count)
        count += 1
    return frozenset(found)


def either(turn: dict, *names: str) -> object:
    """The first of a turn's fields that is there: a table of turns of both forms has null in the others."""
    return next((turn[name] for name in names if turn.get(name) is not None), None)


def first_text(record: dict, keys: tuple[str, ...]) -> str | None:
    """The first of `keys` that holds more than space, stripped."""
    for key in keys:
        value = record.get(key)
        if isinstance(value, str) and value.strip():
            return value.strip()
    return None


def first_number(record: dict, keys: tuple[str, ...]) -> str | None:
    """The first of `keys` that holds a number, as text: 4 and, as columns with gaps have it, 4.0 are "4"."""
    numbers = (record[key] for key in keys if isinstance(record.get(key), (int, float)) and not isinstance(record[key], bool))
    return next((repr(number).removesuffix(".0") for number in numbers if number == number), None)  # a gap is nan


def plain_text(value: object) -> str | None:
    """A single value as text: what is counted by it must sort and hash, whatever a file holds. None for nothing, a list or an object."""
    return str(value) if isinstance(value, (str, int, float)) and value != "" else None


def kind_of(record: dict) -> str | None:
    """A record's `kind` or `category`, where it has one."""
    return plain_text(record.get("kind")) or plain_text(record.get("category"))


def messages_of(turns: list) -> list[Message]:
    """OpenAI's role/content or ShareGPT's from/value turns as messages. ValueError for what is neither."""
    messages = []
    for number, turn in enumerate(turns, start=1):
        if not isinstance(turn, dict):
            raise ValueError(f"turn {number} is {type(turn).__name__}, not an object")
        role, content = either(turn, "role", "from"), either(turn, "content", "value")
        if isinstance(content, list):  # content parts, of which only text can be read
            parts = [part.get("text") if isinstance(part, dict) and part.get("type", "text") == "text" else None for part in content]
            if any(not isinstance(part, str) for part in parts):
                raise ValueError(f"turn {number} holds a content part that is not text")
            content = "".join(parts)
        if str(role).lower() not in ROLES:
            raise ValueError(f"turn {number} has role {role!r}; known are {', '.join(ROLES)}")
        if turn.get("tool_calls") or turn.get("function_call"):
            raise ValueError(f"turn {number} calls a tool; only text can be learnt from")
        if not isinstance(content, str):
            raise ValueError(f"turn {number} has no text" if content is None else f"the content of turn {number} is a {type(content).__name__}, not text")
        if ROLES[str(role).lower()] == "system" and not content.strip():
            continue  # tables of conversations have the turn whether or not it says something
        thought = turn.get("reasoning_content")
        if isinstance(thought, str) and thought.strip() and content.strip() and ROLES[str(role).lower()] == "assistant":
            content = f"<think>\n{thought.strip()}\n</think>\n\n{content.strip()}"  # as models that write it themselves do
        messages.append({"role": ROLES[str(role).lower()], "content": content.strip()})
    return messages


def checked(messages: list[Message], ends_with: str = "assistant") -> list[Message]:
    """The messages, if they alternate user and assistant after an optional system message; ValueError otherwise.

    Turns after the last assistant turn are cut: nobody answers them.
    """
    while messages and messages[-1]["role"] != ends_with:
        messages = messages[:-1]
    turns = messages[1:] if messages and messages[0]["role"] == "system" else messages
    if not turns:
        raise ValueError(f"no {ends_with} turn")
    for at, message in enumerate(turns):
        expected = ("user", "assistant")[at % 2]
        if message["role"] != expected:
            raise ValueError(f"turn {at + 1} is the {message['role']}'s where the {expected}'s was expected")
        if not message["content"]:
            raise ValueError(f"turn {at + 1} is empty")
    return messages


def fit_prompt(tokenizer, messages: list[Message], max_tokens: int) -> tuple[list[int], list[Message]] | None:
    """(token ids with the generation prompt, the messages kept): the oldest turns are cut until they fit.

    A system message stays; turns go in pairs, so that what is left starts with the user. None when the last user
    turn alone does not fit: the caller sets the prompt aside and counts it.
    """
    system = messages[:1] if messages and messages[0]["role"] == "system" else []
    turns = messages[len(system) :]
    while turns:
        kept = system + turns
        ids, _ = tokenizer.encode_messages(kept, add_generation_prompt=True)
        if len(ids) <= max_tokens:
            return ids, kept
        turns = turns[2:]
    return None
