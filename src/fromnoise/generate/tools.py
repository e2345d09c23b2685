"""A calculator within an answer: the model writes `<<12*7=`, the result and `>>` are written for it, it goes on.

GSM8K's notation (Cobbe et al. 2021, arXiv 2110.14168). The engine knows nothing of it: an answer is generated in turns
that stop at a token ending in "=", and what was inserted is part of the next turn's prompt. Inserted tokens are no choice
of the model's: `counted` is False there, and no loss may touch them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fromnoise.data.tokenizer import Tokenizer
from fromnoise.generate.engine import Engine
from fromnoise.run.seeds import seed_from
from fromnoise.tasks.arithmetic import NotArithmetic, calculate, write

NUM_TURNS = 33  # that an answer may take, plain equations pause too: a model that calls for ever runs out of them, the last is not answered
_CALL = re.compile(r"<<([^<>=]*)=$")


@dataclass(slots=True)
class Written:
    """An answer, with a calculator at hand or without."""

    token_ids: list[int]  # inserted tokens and the stop token included
    counted: list[bool]  # False where a token was inserted
    logprobs: list[float]  # the sampler's; 0 where inserted
    stopped: bool


def result_of(text: str) -> str | None:
    """What is inserted after `text`: "84>>" when it ends in the call `<<12*7=`, "error>>" when the call is none that can
    be worked out, None when it ends in no call."""
    call = _CALL.search(text)
    if call is None:
        return None
    try:
        return write(calculate(call.group(1))) + ">>"
    except NotArithmetic:
        return "error>>"


def inserted_after(tokenizer: Tokenizer, answer_ids: Sequence[int]) -> list[int]:
    """The tokens that the calculator writes after an answer's tokens so far; none where they end in no call."""
    result = result_of(tokenizer.decode(answer_ids))
    return tokenizer.encode(result) if result else []


def equals_tokens(tokenizer: Tokenizer) -> set[int]:
    """Every token whose text ends in "=": where a call may be complete."""
    return {i for i in range(len(tokenizer)) if tokenizer.decode_bytes([i]).endswith(b"=")}


def generate_with_calculator(
    engine: Engine, tokenizer: Tokenizer, prompts: Sequence[Sequence[int]], max_new_tokens: int, stop_ids: set[int], sampling, seed: int
) -> list[Written]:
    """As `engine.generate`, a turn for each "=": results in the order of `prompts`. Inserted tokens count towards
    max_new_tokens. The noise of prompt i in turn k depends on (seed, k, place of i among those still writing)."""
    answers = [Written([], [], [], False) for _ in prompts]
    pauses = equals_tokens(tokenizer)
    writing = list(range(len(prompts)))
    for turn in range(NUM_TURNS):
        room = {i: min(max_new_tokens, engine.context_tokens - len(prompts[i])) - len(answers[i].token_ids) for i in writing}
        writing = [i for i in writing if room[i] > 0]
        if not writing:
            break
        stops = stop_ids if turn == NUM_TURNS - 1 else stop_ids | pauses
        found = engine.generate([[*prompts[i], *answers[i].token_ids] for i in writing], max(room[i] for i in writing), stops, sampling,
                                seed_from(seed, "turn", turn))  # fmt: skip
        going_on = []
        for i, generation in zip(writing, found, strict=True):
            answer, new = answers[i], generation.token_ids[: room[i]]
            answer.token_ids += new
            answer.logprobs += generation.logprobs[: room[i]]
            answer.counted += [True] * len(new)
            answer.stopped = new[-1] in stop_ids
            if answer.stopped or new[-1] not in pauses:
                continue
            ids = inserted_after(tokenizer, answer.token_ids)[: room[i] - len(new)]
            answer.token_ids += ids
            answer.logprobs += [0.0] * len(ids)
            answer.counted += [False] * len(ids)
            going_on.append(i)
        writing = going_on
    return answers


def stream_with_calculator(
    engine: Engine, tokenizer: Tokenizer, prompt: Sequence[int], max_new_tokens: int, stop_ids: set[int], sampling, seed: int
) -> Iterator[int]:
    """As `engine.stream`: the tokens of one answer as they are made, inserted ones among them and the stop token not; the same ones as
    `generate_with_calculator([prompt], ...)`."""
    said: list[int] = []
    limit, pauses = min(max_new_tokens, engine.context_tokens - len(prompt)), equals_tokens(tokenizer)
    for turn in range(NUM_TURNS):
        for token in engine.stream([*prompt, *said], limit - len(said), stop_ids, sampling, seed_from(seed, "turn", turn)):
            said.append(token)
            yield token
            if token in pauses and turn < NUM_TURNS - 1:
                break
        else:  # it has stopped, or there is no more room
            return
        inserted = inserted_after(tokenizer, said)[: limit - len(said)]
        said += inserted
        yield from inserted
        if len(said) == limit:
            return


def demonstration(tokenizer: Tokenizer, text: str) -> tuple[list[int], list[bool]]:
    """(token ids, counted) of an answer with finished calls: "<<12*7=84>> ..." with `84>>` not counted. Tokens are cut where
    the engine would cut them, so that what is learnt is what will be met."""
    ids: list[int] = []
    counted: list[bool] = []
    for part in re.split(r"((?<==)[^<>=]*>>)", text):
        new = tokenizer.encode(part) if ids else tokenizer.encode_answer(part)
        ids += new
        counted += [not part.endswith(">>") or "<<" in part] * len(new)
    return ids, counted
