"""Pairs of answers and which one people chose, in the forms they are published in.

| form | keys of a record |
| --- | --- |
| HH-RLHF | `chosen`, `rejected`: transcripts "\\n\\nHuman: ...\\n\\nAssistant: ...", the last turn being the answer |
| strings | `prompt` (or `question`, `query`, `input`, `instruction`) with `chosen` and `rejected` as answers, or both as whole texts that begin with it |
| messages | `chosen`, `rejected` as lists of role and content or one such message, with or without a prompt or turns before them |
| rated | two answers (`response1`/`response2`, `output_1`/`output_2`, `answer_a`/`answer_b`), and `label` 0 (tie), 1 or 2 |
| rated by several | the same with one vote a rater in `annotator1`, `annotator2`, ... (PandaLM), empty for who did not judge the pair |

Our own export (`prefer/pairs.jsonl`) has token ids beside its texts and is read by the stages themselves; its texts
read here as well, by `messages`, `answers` (`text`, and `stopped` where one was cut off) and `chosen`, or `votes`
where several people compared a pair.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fromnoise.data.conversation import (
    Message,
    asked_of,
    checked,
    first_text,
    fit_prompt,
    history_of,
    kind_of,
    messages_of,
    plain_text,
    prompt_of,
    turns_of,
    with_context,
    with_system,
)
from fromnoise.data.files import BadRecord, OnBad, Reasons
from fromnoise.data.readers import read_records
from fromnoise.run.errors import UserError
from fromnoise.run.seeds import seed_from

TURN = re.compile(r"(?:^|\n\n)(Human|Assistant): ?")  # HH's separators, at the start or after a blank line
ANSWERS = (("response1", "response2"), ("response_1", "response_2"), ("output_1", "output_2"), ("answer_a", "answer_b"), ("response_a", "response_b"))
LEAST_WEIGHT = 1e-6  # of a pair; the largest is its inverse
PRIOR_VOTES = 5
FEWEST_ZEROS = 10  # ties, in a file whose second answers never win, from which on they are taken for something else
VOTES = {"0": 0, "1": 1, "2": 2, "0.0": 0, "1.0": 1, "2.0": 2, "tie": 0, "tie (bothbad)": 0, "a": 1, "b": 2, "model_a": 1, "model_b": 2}
NO_VOTE = ("", "none", "nan")  # of a rater who did not judge this pair
YES_OR_NO = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False, "": False, "none": False}  # a column of a CSV file is text


@dataclass(frozen=True, slots=True)
class Pair:
    prompt: list[Message]  # ends with the user's turn
    chosen: str
    rejected: str  # when `tie`, the order of the two carries no meaning
    weight: float = 1.0
    tie: bool = False
    rater: str | None = None
    source: str = ""
    meta: dict = field(default_factory=dict)
    stopped: tuple[bool, bool] = (True, True)  # chosen, rejected: False where an answer was cut off and so has no end
    line: int = 0  # of `source`, where its record stands: with several raters a record is several pairs


def read_preferences(path: str | Path, on_bad: OnBad) -> list[Pair]:
    """All pairs of a file or folder. A record of no known form, or one whose two answers are equal, goes to `on_bad`.

    UserError when nothing in it is a pair, or its labels count from 0.
    """
    pairs: list[Pair] = []
    on_bad = Reasons(on_bad)
    for record, file, line in read_records(str(path), on_bad):
        try:
            pairs += [replace(pair, line=line) for pair in pairs_of(record, str(file))]
        except ValueError as error:
            on_bad(BadRecord(str(file), line, str(error), repr(record)[:200]))
    if not pairs:
        raise UserError(
            f"no preference pair found in {path}.{on_bad} Known forms: `chosen`/`rejected` (HH transcripts, strings or message lists), "
            "or two answers (`response1`, `response2`) with a `label` or one `annotatorN` vote a rater."
        )
    check_labels(path, pairs)
    return pairs


def check_labels(path: str | Path, pairs: Sequence[Pair]) -> None:
    """UserError for labels that seem to be the chosen answer's place from 0: read as ties and wins of the first they would teach something else."""
    said = Counter(VOTES[pair.meta["vote"]] for pair in pairs if "vote" in pair.meta)
    zeros = sum(pair.meta.get("vote") in ("0", "0.0") for pair in pairs)
    if zeros >= FEWEST_ZEROS and said[1] and not said[2]:
        raise UserError(
            f"{path}: of {said.total():,} votes {zeros:,} are 0, {said[1]:,} are 1 and none is 2. Here 1 is the first answer, 2 the second and 0 a tie: "
            "where 0 means the first, add 1 to each; where these are ties, write tie for 0"
        )


def encoded(pair: Pair, tokenizer, max_tokens: int, *, first_rejected: bool) -> dict | None:
    """A pair as stages and measurements take it, encoded once, an answer that stopped by itself ending with the stop token.

    The oldest turns are cut until the prompt and its longer answer fit `max_tokens`; None where the last turn alone
    does not. first_rejected: the rejected answer stands first, which should be drawn by lot. `chosen` is 0, 1 or None.
    `left` is None: where raters saw the answers is not known.
    """
    answers = [
        {"token_ids": [*tokenizer.encode_answer(text), *([tokenizer.im_end_id] if stopped else [])], "text": text, "stopped": stopped}
        for text, stopped in zip((pair.chosen, pair.rejected), pair.stopped, strict=True)
    ]
    fit = fit_prompt(tokenizer, pair.prompt, max_tokens - max(len(answer["token_ids"]) for answer in answers))
    if fit is None:
        return None
    ids, messages = fit
    return {
        "prompt_id": prompt_key(pair.prompt), "opening_id": opening_key(pair.prompt), "kind": kind_of(pair.meta), "source": Path(pair.source).name or None,
        "messages": messages, "prompt_ids": ids, "answers": answers[::-1] if first_rejected else answers, "weight": pair.weight, "rater": pair.rater,
        "chosen": None if pair.tie else int(first_rejected), "left": None,
    }  # fmt: skip


def prompt_key(messages: list[Message]) -> str:
    """An id that depends on the messages alone, so that a prompt is known again wherever it comes from."""
    return f"prompt-{seed_from('prompt', [(m['role'], m['content']) for m in messages]):016x}"


def opening_key(messages: list[Message]) -> str:
    """The id of the prompt that is this conversation's first question alone. Conversations that begin alike share it, at whatever turn they end."""
    return prompt_key(next([message] for message in messages if message["role"] == "user"))


def pairs_of(record: dict, source: str) -> list[Pair]:
    """The pairs of one record: one, or one a rater. ValueError says what is wrong."""
    weight = weight_of(record)
    rater = str(record["rater"]) if record.get("rater") is not None else None
    meta = {key: text for key in ("kind", "category", "cmp_key", "share", "split") if (text := plain_text(record.get(key))) is not None}
    if isinstance(record.get("answers"), list) and isinstance(record.get("messages"), list):
        return own_export(record, weight, rater, source, meta)
    if "chosen" in record and "rejected" in record:
        prompt, chosen, rejected = chosen_rejected(record)
        if chosen == rejected:
            raise ValueError("the two answers are the same")
        return [Pair(with_system(record, prompt), chosen, rejected, weight, yes_or_no("tie", record.get("tie")), rater, source, meta)]
    for first_key, second_key in ANSWERS:
        if first_key in record and second_key in record:
            return rated(record, first_key, second_key, weight, rater, source, meta)
    raise ValueError(f"no pair of answers: keys {sorted(map(str, record))[:8]}")


def yes_or_no(name: str, value: object) -> bool:
    """A value that is true or false, or spells it. ValueError for anything else: any text counts as true in Python."""
    text = str(value).strip().lower()
    if text not in YES_OR_NO:
        raise ValueError(f"{name} {value!r} is neither true nor false")
    return YES_OR_NO[text]


def weight_of(record: dict) -> float:
    """The record's `weight`, as a number or in digits; 1 where it has none. ValueError for anything else, and for what fp32 losses cannot hold."""
    weight = 1.0 if record.get("weight") in (None, "") else record["weight"]  # a table has gaps
    try:
        number = math.nan if isinstance(weight, bool) else float(weight)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not LEAST_WEIGHT <= number <= 1 / LEAST_WEIGHT:
        raise ValueError(f"weight {weight!r} is no number between {LEAST_WEIGHT:g} and {1 / LEAST_WEIGHT:g}")
    return number


def chosen_rejected(record: dict) -> tuple[list[Message], str, str]:
    """(prompt, chosen answer, rejected answer) of a `chosen`/`rejected` record in any of its forms."""
    chosen, rejected, prompt = record["chosen"], record["rejected"], record.get("prompt")
    chosen, rejected = ([one] if isinstance(one, dict) else one for one in (chosen, rejected))
    if isinstance(chosen, list) and isinstance(rejected, list):
        answers = messages_of(chosen), messages_of(rejected)
        answers_alone = all(messages and messages[0]["role"] == "assistant" for messages in answers)
        head = head_of(record) if answers_alone or isinstance(prompt, list) else []
        if all(messages[: len(head)] == head for messages in answers):  # they repeat the prompt
            head = []
        return shared_prompt(*([*head, *messages] for messages in answers))
    if not isinstance(chosen, str) or not isinstance(rejected, str):
        raise ValueError("`chosen` and `rejected` must both be text or both be lists of messages")
    if isinstance(prompt, str) and prompt.strip():
        chosen, rejected = without_prompt(prompt, chosen, rejected)
        if TURN.match(prompt.strip()) or prompt.startswith("\n\nHuman:"):  # a transcript up to "Assistant:"
            return shared_prompt(transcript(prompt + chosen), transcript(prompt + rejected))
    head = head_of(record)
    if not head or (not prompt and all(TURN.match(text.strip()) for text in (chosen, rejected))):
        return shared_prompt(transcript(chosen), transcript(rejected))
    return shared_prompt([*head, answer(chosen)], [*head, answer(rejected)])


def head_of(record: dict) -> list[Message]:
    """What stands before a record's answers: turns, or what it asks as text; nothing where it asks nothing."""
    prompt, turns = record.get("prompt"), turns_of(record)
    if isinstance(prompt, list):
        return messages_of(prompt)
    if turns is not None and not (isinstance(prompt, str) and prompt.strip()):
        return messages_of(turns)
    return asked_of(record) if prompt_of(record) is not None else []


def answer(text: str) -> Message:
    return {"role": "assistant", "content": text.strip()}


def without_prompt(prompt: str, *texts: str) -> list[str]:
    """The answers of texts that all begin with the prompt. Texts that only seem to are answers already, and stay: "Hi! ..."
    answers "Hi", so the prompt must have an end, in space or in the "Assistant:" of a transcript."""
    rests = [text[len(prompt) :] for text in texts]
    ends = prompt[-1].isspace() or prompt.endswith("Assistant:") or all(not rest or rest[0].isspace() for rest in rests)
    return rests if ends and all(text.startswith(prompt) for text in texts) else list(texts)


def transcript(text: str) -> list[Message]:
    """"\\n\\nHuman: a\\n\\nAssistant: b" as messages. ValueError for a text that holds no such turns.

    HH's transcripts sometimes give two turns in a row to one speaker; they are joined, for a chat has none.
    """
    pieces = TURN.split(text.replace("\r\n", "\n").strip())
    if len(pieces) < 3 or pieces[0].strip():
        raise ValueError('not a transcript: it must begin with "Human: " and give turns to Human and Assistant, or stand beside a `prompt` as an answer')
    messages: list[Message] = []
    for speaker, content in zip(pieces[1::2], pieces[2::2], strict=True):
        role = "user" if speaker == "Human" else "assistant"
        content = content.strip()
        if messages and messages[-1]["role"] == role:
            joined = f"{messages[-1]['content']}\n\n{content}".strip()
            messages[-1] = {"role": role, "content": joined}
        else:
            messages.append({"role": role, "content": content})
    return messages


def shared_prompt(chosen: list[Message], rejected: list[Message]) -> tuple[list[Message], str, str]:
    """Both conversations must end with the assistant and agree up to there. ValueError otherwise."""
    for name, messages in (("chosen", chosen), ("rejected", rejected)):
        if not messages or messages[-1]["role"] != "assistant":
            raise ValueError(f"`{name}` does not end with the assistant's turn")
        if not messages[-1]["content"]:
            raise ValueError(f"`{name}` is an empty answer")
    if chosen[:-1] != rejected[:-1]:
        raise ValueError("`chosen` and `rejected` answer different prompts")
    return checked(chosen[:-1], ends_with="user"), chosen[-1]["content"], rejected[-1]["content"]


def rated(record: dict, first_key: str, second_key: str, weight: float, rater: str | None, source: str, meta: dict) -> list[Pair]:
    """One pair a vote, the votes of several raters sharing the record's weight: three who agree count as one pair."""
    first, second = (record[key].strip() if isinstance(record[key], str) else "" for key in (first_key, second_key))
    if not first or not second:
        raise ValueError(f"`{first_key}` or `{second_key}` holds no text")
    if first == second:
        raise ValueError("the two answers are the same")
    asked = first_text(record, ("instruction", "prompt", "question", "input"))
    if asked is None:
        raise ValueError("no prompt: none of instruction, prompt, question, input holds text")
    prompt = with_system(record, [*history_of(record), {"role": "user", "content": with_context(asked, record)}])
    votes = {key: record[key] for key in sorted(record) if re.fullmatch(r"(annotator|rater)_?\d+", str(key))}
    votes = {key: vote for key, vote in votes.items() if str(vote).strip().lower() not in NO_VOTE}
    if not votes:
        votes = {rater or "": record.get("label", record.get("winner", record.get("preference")))}
    pairs = []
    for name, vote in votes.items():
        said = str(vote).strip().lower()
        if said not in VOTES:
            raise ValueError(f"vote {vote!r} is none of 0 (tie), 1, 2")
        winner = VOTES[said]
        chosen, rejected = (second, first) if winner == 2 else (first, second)
        pairs.append(Pair(prompt, chosen, rejected, weight / len(votes), winner == 0, name or rater, source, {**meta, "vote": said}))
    return pairs


FOR_FIRST = {0: 1.0, 1: 0.0, None: 0.5}  # of a vote, by what it chose; None: neither


def votes_of(pair: dict) -> list[tuple[str | None, int | None]]:
    """(rater, choice) of everybody who compared a pair: `votes` where several did."""
    return [tuple(vote) for vote in pair["votes"]] if pair.get("votes") else [(pair["rater"], pair["chosen"])]


def own_export(record: dict, weight: float, rater: str | None, source: str, meta: dict) -> list[Pair]:
    """A line of `prefer/pairs.jsonl`: `messages`, two `answers` with `text` and `stopped`, `chosen` 0, 1 or null for a tie."""
    texts = [one.get("text") if isinstance(one, dict) else None for one in record["answers"]]
    cast = record.get("votes") or []
    readable = isinstance(cast, list) and all(isinstance(vote, list) for vote in cast)
    votes = votes_of({**record, "rater": rater, "chosen": record.get("chosen")}) if readable else [()]
    if len(texts) != 2 or not all(isinstance(text, str) for text in texts) or any(len(vote) != 2 or vote[1] not in (0, 1, None) for vote in votes):
        raise ValueError("an exported pair needs two `answers` with `text`, and `chosen` 0, 1 or null (or `votes`: rater and choice of each)")
    if texts[0].strip() == texts[1].strip():
        raise ValueError("the two answers are the same")
    prompt = checked(messages_of(record["messages"]), ends_with="user")
    weight /= len(votes)
    stopped = [yes_or_no("stopped", one.get("stopped", True)) for one in record["answers"]]
    if any(not text and not ended for text, ended in zip(texts, stopped, strict=True)):
        raise ValueError("an answer without `text` that did not stop (`stopped` false) is no answer")
    pairs = []
    for who, chosen in votes:
        first, second = (1, 0) if chosen == 1 else (0, 1)
        name, ends = None if who is None else str(who), (stopped[first], stopped[second])
        pairs.append(Pair(prompt, texts[first], texts[second], weight, chosen is None, name, source, meta, ends))
    return pairs


def rater_weights(pairs: Sequence[dict]) -> list[dict]:
    """How much each rater's votes are worth, by agreement with the others on the pairs that several judged.

    Agreement above chance, 2 a - 1, is the product of two raters' reliabilities where both err at random (the rater
    model of Chen et al. 2013, Crowd-BT), so relative to the mean it tells them apart. A tie beside a choice is half an
    agreement. Five votes' worth of the mean agreement are mixed in, nobody counts for less than a tenth, and weights
    have mean 1 over the votes. Returns {"rater", "votes", "compared", "agreement", "weight"}, one a rater; a rater
    whose pairs nobody else judged has agreement None and the mean weight.
    """
    by_pair: dict[tuple, list[tuple[str | None, float]]] = {}
    votes: Counter[str | None] = Counter()
    for pair in pairs:
        ids = [tuple(answer["token_ids"]) for answer in pair["answers"]]
        vote = FOR_FIRST[pair["chosen"]]
        by_pair.setdefault((pair["prompt_id"], *sorted(ids)), []).append((pair["rater"], vote if ids[0] <= ids[1] else 1.0 - vote))
        votes[pair["rater"]] += 1
    agreed, compared = Counter(), Counter()
    for cast in by_pair.values():
        for i, (rater, vote) in enumerate(cast):
            others = [1.0 - abs(vote - other) for k, (who, other) in enumerate(cast) if k != i and who != rater]
            if others:
                agreed[rater] += sum(others) / len(others)
                compared[rater] += 1
    mean = sum(agreed.values()) / max(sum(compared.values()), 1)
    worth = {rater: max(0.1, 2 * (agreed[rater] + PRIOR_VOTES * mean) / (compared[rater] + PRIOR_VOTES) - 1) for rater in votes}
    scale = sum(votes.values()) / sum(worth[rater] * count for rater, count in votes.items())
    return [
        {"rater": rater, "votes": votes[rater], "compared": compared[rater], "weight": worth[rater] * scale,
         "agreement": agreed[rater] / compared[rater] if compared[rater] else None}
        for rater in sorted(votes, key=str)
    ]  # fmt: skip
