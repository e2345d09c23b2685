"""Groups of answers to problems: sampled, graded, credited step by step, led to a right end, kept for later where there are more than needed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

import torch
from torch import Tensor

from fromnoise.algorithms.credit import step_credit, teaches
from fromnoise.data.tokenizer import Tokenizer
from fromnoise.generate.engine import Engine
from fromnoise.generate.tools import Written, generate_with_calculator
from fromnoise.run.seeds import seed_from
from fromnoise.tasks.example import Example
from fromnoise.tasks.problems import Grade, grade

_STEP_END = re.compile(rb"[=<>]\s*-?\d+(?:\.\d+)?")


@dataclass(slots=True)
class Group:
    """G answers to one problem. credit, old_logprobs, ref_logprobs: one number for each token of each answer; old_logprobs are the sampler's
    until the trainer's take their place, in the iteration that sampled the group."""

    prompt_ids: list[int]
    answer_ids: list[list[int]]
    counted: list[list[bool]]
    credit: list[list[float]]
    iteration: int  # when it was sampled
    old_logprobs: list[list[float]]
    ref_logprobs: list[list[float]] = field(default_factory=list)

    def to_json(self) -> dict:
        return asdict(self)


def prompt_ids(tokenizer: Tokenizer, problem: Example) -> list[int]:
    return tokenizer.encode_messages([{"role": "user", "content": problem.prompt}], add_generation_prompt=True)[0]


def write_answers(engine: Engine, tokenizer: Tokenizer, prompts: Sequence[list[int]], sampling, seed: int, calculator: bool) -> list[Written]:
    """One answer for each prompt, in order; with a calculator at hand where the recipe says so."""
    stops = set(tokenizer.chat_stop_ids)
    if calculator:
        return generate_with_calculator(engine, tokenizer, prompts, sampling.max_new_tokens, stops, sampling, seed)
    found = engine.generate(prompts, sampling.max_new_tokens, stops, sampling, seed)
    return [Written(one.token_ids, [True] * len(one.token_ids), one.logprobs, one.stopped) for one in found]


def step_rewards(found: Grade, num_steps: int, steps_coef: float, format_coef: float) -> list[float]:
    """What an answer earned: steps_coef shared out over its own steps, then 1 for a right answer and format_coef for its form;
    zeros up to num_steps + 1 numbers. Form and correctness stay apart: neither can buy the other's reward."""
    each = steps_coef / max(len(found.right_steps), 1)
    earned = [*(each * flag for flag in found.right_steps), float(found.correct) + format_coef * found.form_ok]
    return earned + [0.0] * (num_steps + 1 - len(earned))


def steps_of_tokens(tokenizer: Tokenizer, token_ids: Sequence[int], num_steps: int) -> list[int]:
    """For each token, which step it belongs to: the number of equations and comparisons that were finished before it, at
    most num_steps (the answer itself). Counted in bytes: a token may hold half a character."""
    ends, text = [], b""
    for token in token_ids:
        text += tokenizer.decode_bytes([token])
        ends.append(len(text))
    finished = [match.end() for match in _STEP_END.finditer(text)]
    starts = [0, *ends[:-1]]
    return [min(sum(end <= start for end in finished), num_steps) for start in starts]


def grade_all(tokenizer: Tokenizer, problems: Sequence[Example], written: Sequence[Written]) -> list[Grade]:
    """Grades of len(problems) x G answers, a problem's G standing together."""
    size = len(written) // len(problems)
    return [
        grade(problems[i // size].kind, problems[i // size].check, tokenizer.decode_answer(answer.token_ids), answer.stopped)
        for i, answer in enumerate(written)
    ]


def reward_tensor(problems: Sequence[Example], grades: Sequence[Grade], settings) -> Tensor:
    """(P, G, K): by step where credit is by step, else K = 1 with everything an answer earned. With a calculator there are no steps:
    a call does the whole sum at once, and must not earn less than working it out."""
    size = len(grades) // len(problems)
    num_steps = 0 if settings.calculator else max(len(example.check.get("steps") or ()) for example in problems)
    graded = (replace(found, right_steps=()) for found in grades) if settings.calculator else grades
    rows = [step_rewards(found, num_steps, settings.steps_coef, settings.format_coef) for found in graded]
    rewards = torch.tensor(rows, dtype=torch.float64).reshape(len(problems), size, num_steps + 1)
    return rewards if settings.credit == "step" else rewards.sum(-1, keepdim=True)


def make_groups(
    tokenizer: Tokenizer, prompts: Sequence[list[int]], written: Sequence[Written], grades: Sequence[Grade], rewards: Tensor, settings, iteration: int
) -> list[Group]:
    """The groups that teach something; those of equal reward at every step are left out."""
    size, by_step = rewards.shape[1], rewards.shape[2] > 1
    credit, kept = step_credit(rewards, settings.divide_by_std, settings.step_discount), teaches(rewards)
    groups = []
    for p in torch.nonzero(kept).flatten().tolist():
        answers, found = written[p * size : (p + 1) * size], grades[p * size : (p + 1) * size]
        steps = [steps_of_tokens(tokenizer, answer.token_ids, len(one.right_steps)) for answer, one in zip(answers, found, strict=True)]
        values = [[float(credit[p, g, step if by_step else 0]) for step in own] for g, own in enumerate(steps)]
        groups.append(Group(prompts[p * size], [a.token_ids for a in answers], [a.counted for a in answers], values, iteration, [a.logprobs for a in answers]))
    return groups


def right_prefix(found: Grade) -> int:
    """How many steps are right before the first that is wrong."""
    return found.right_steps.index(False) if False in found.right_steps else len(found.right_steps)


def led_to_right(
    engine: Engine, tokenizer: Tokenizer, problems: Sequence[Example], prompts: Sequence[list[int]], written: Sequence[Written], grades: Sequence[Grade],
    settings, seed: int,
) -> list[tuple[list[int], Written]]:  # fmt: skip
    """(prompt, right answer) of each problem that the policy can be led to answer rightly, with tokens of its own alone.

    The first right answer of the group, where there is one. Else the answer that went right furthest is cut before its first
    wrong step and gone on with from there, group_size times, and so on from the best of these, settings.retries times at most.
    A policy that seldom does four steps right in a row learns from nearly every problem in this way, and at the steps it finds
    hard. Imitating sampled answers that a verifier accepts: Zelikman et al. 2022 (STaR, arXiv 2203.14465); going on from a
    checked step: Kazemnejad et al. 2024 (VinePPO, arXiv 2410.01679) for credit, here for the answer itself.
    """
    size = len(written) // len(problems)
    found: dict[int, tuple[list[int], Written]] = {}
    best: dict[int, tuple[int, list[int]]] = {}  # problem: (steps that are right, the tokens that say them)

    def look_at(p: int, answers: Sequence[Written], graded: Sequence[Grade]) -> None:
        for answer, one in zip(answers, graded, strict=True):
            if one.correct:
                found.setdefault(p, (prompts[p * size], answer))
                continue
            right = right_prefix(one)
            if right > best.get(p, (0, []))[0]:
                steps = steps_of_tokens(tokenizer, answer.token_ids, len(one.right_steps))
                best[p] = (right, [token for token, step in zip(answer.token_ids, steps, strict=True) if step < right])

    for p in range(len(problems)):
        look_at(p, written[p * size : (p + 1) * size], grades[p * size : (p + 1) * size])
    for attempt in range(0 if settings.calculator else settings.retries):
        left = [p for p in range(len(problems)) if p not in found and problems[p].check.get("steps")]
        left = [p for p in left if len(prompts[p * size]) + len(best.get(p, (0, []))[1]) < engine.context_tokens]
        if not left:
            break
        begun = [best.get(p, (0, []))[1] for p in left for _ in range(size)]
        starts = [[*prompts[left[at // size] * size], *said] for at, said in enumerate(begun)]
        more = write_answers(engine, tokenizer, starts, settings.sampling, seed_from(seed, "retry", attempt), calculator=False)
        whole = [Written([*said, *w.token_ids], [True] * (len(said) + len(w.token_ids)), [], w.stopped) for said, w in zip(begun, more, strict=True)]
        graded = grade_all(tokenizer, [problems[p] for p in left], whole)
        for at, p in enumerate(left):
            look_at(p, whole[at * size : (at + 1) * size], graded[at * size : (at + 1) * size])
    return [found[p] for p in sorted(found)]


class Buffer:
    """Groups that taught something and were not needed yet, oldest first: as many as one iteration can need, for each costs a forward pass."""

    def __init__(self, max_age: int, groups: Sequence[dict] = ()):
        self.max_age, self.groups = max_age, [Group(**group) for group in groups]

    def take(self, fresh: Sequence[Group], count: int, iteration: int) -> tuple[list[Group], int]:
        """At most `count` groups, fresh ones first, and how many of them waited here; the rest waits for its turn.

        A group is dropped when it has waited max_age iterations: the policy it was sampled from is too far away then, and the
        ratio of the clipped loss would be clipped everywhere.
        """
        waiting = [group for group in self.groups if iteration - group.iteration <= self.max_age]
        chosen = [*fresh[:count], *waiting[::-1][: max(0, count - len(fresh))]]
        num_old = len(chosen) - min(len(fresh), count)
        left = waiting[: len(waiting) - num_old] if num_old else waiting
        self.groups = [*left, *fresh[count:]][-count:] if self.max_age else []
        return chosen, num_old


def padded(rows: Sequence[Sequence[float]], width: int) -> Tensor:
    """Ragged rows of numbers, one an answer, as (S, width) fp32, zeros behind."""
    found = torch.zeros(len(rows), width)
    for at, row in enumerate(rows):
        found[at, : len(row)] = torch.tensor(row, dtype=torch.float32)
    return found
