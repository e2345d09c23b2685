"""Held-out questions put to every model: does it answer in the asked form and stop, and is it right?

The base model is asked twice: with the chat template it never saw, and with the plain-text prompt that serves it best
(chosen among PLAIN_PROMPTS on questions that are not asked afterwards), so that instruction tuning is compared
with what prompting alone can do.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict

from fromnoise.evaluate.answers import Subject
from fromnoise.evaluate.intervals import Estimate, exact, proportion
from fromnoise.evaluate.records import rounded

# A form holds {question}, and for the worked ones {examples}: questions of the same kind with their answers. "the task's
# own" is the text that the prompt's record names as its plain form (`plain`), where it names one.
PLAIN_PROMPTS: dict[str, str] = {
    "bare": "{question}\n\n",
    "question and answer": "Question: {question}\nAnswer:",
    "the task's own": "{plain}",
    "three worked examples": "{examples}Question: {question}\nAnswer:",
}
EXAMPLE = "Question: {question}\nAnswer: {answer}\n\n"
NUM_EXAMPLES = 3
LEAST_PER_GROUP = 64
NUM_TRIALS = 96  # prompts on which the plain form is chosen
RECALL_MENTIONS = 64  # the rung from which closed-book recall is expected of the default recipe

Judge = Callable[[dict, str, bool], object]


def choose(questions: Sequence[dict], count: int, seed: int) -> list[dict]:
    """At most `count` questions in the order of their ids. Each (kind, mentions) group keeps LEAST_PER_GROUP of its
    questions where it has them, so that rare rungs stay measurable; what is left is shared out in proportion."""
    groups: dict[tuple, list[dict]] = {}
    for question in questions:
        groups.setdefault((question["kind"], question.get("mentions")), []).append(question)
    rng = random.Random(f"{seed}/questions")
    for group in groups.values():
        rng.shuffle(group)
    least = min(LEAST_PER_GROUP, -(-count // max(len(groups), 1)))
    chosen = [question for group in groups.values() for question in group[:least]]
    others = [question for group in groups.values() for question in group[least:]]
    rng.shuffle(others)
    return sorted([*chosen, *others[: max(0, count - len(chosen))]][:count], key=lambda question: question["id"])


def question_text(prompt: dict) -> str:
    return prompt["messages"][-1]["content"]


def worked_examples(conversations: Sequence[dict], kind: str, seed: int) -> list[tuple[str, str]]:
    """Question and answer pairs of one kind from the training conversations (which hold no evaluation question)."""
    pairs = [(c["messages"][0]["content"], c["messages"][1]["content"]) for c in conversations if c.get("kind") == kind and len(c["messages"]) == 2]
    pairs.sort(key=lambda pair: len(pair[0]) + len(pair[1]))
    short = pairs[: max(NUM_EXAMPLES, len(pairs) // 2)]  # examples must leave room for the question
    return random.Random(f"{seed}/examples/{kind}").sample(short, min(NUM_EXAMPLES, len(short)))


def plain_text(form: str, prompt: dict, examples: Sequence[tuple[str, str]]) -> str:
    question = question_text(prompt)
    if form == "the task's own" and prompt.get("plain"):
        return prompt["plain"]
    pattern = PLAIN_PROMPTS["question and answer" if form == "the task's own" else form]
    shown = "".join(EXAMPLE.format(question=q, answer=a) for q, a in examples)
    return pattern.format(question=question, examples=shown)


def plain_answer(text: str, stopped: bool) -> tuple[str, bool]:
    """Where a plain-text answer ends: at an empty line or where the next question would begin, stop token or not."""
    ends = [at for at in (text.find("\n\n"), text.find("\nQuestion:")) if at >= 0]
    return (text[: min(ends)].strip(), True) if ends else (text.strip(), stopped)


def ask_chat(subject: Subject, prompts: Sequence[dict], sampling, seed: int, judge: Judge) -> list[dict]:
    """One record for each prompt, answered under the chat template. A prompt that does not fit is recorded unanswered."""
    ids = [subject.chat_prompt(prompt["messages"]) for prompt in prompts]
    fitting = [i for i, prompt_ids in enumerate(ids) if subject.fits(prompt_ids, sampling.max_new_tokens)]
    answers = dict(zip(fitting, subject.answer([ids[i] for i in fitting], sampling, seed), strict=True))
    return [
        _record(prompt, answers[i].text, answers[i].stopped, len(answers[i].token_ids), judge) if i in answers else _too_long(prompt)
        for i, prompt in enumerate(prompts)
    ]


def ask_plain(subject: Subject, prompts: Sequence[dict], form: str, conversations: Sequence[dict], sampling, seed: int, judge: Judge) -> list[dict]:
    """The same as plain text to be continued. Examples are dropped one by one where the prompt would not fit."""
    ids: list[list[int] | None] = []
    kinds = {prompt["kind"] for prompt in prompts} if "{examples}" in PLAIN_PROMPTS[form] else ()
    worked = {kind: worked_examples(conversations, kind, seed) for kind in kinds}
    for prompt in prompts:
        examples = worked.get(prompt["kind"], [])
        while True:
            prompt_ids = subject.plain_prompt(plain_text(form, prompt, examples))
            if subject.fits(prompt_ids, sampling.max_new_tokens) or not examples:
                break
            examples = examples[:-1]
        ids.append(prompt_ids if subject.fits(prompt_ids, sampling.max_new_tokens) else None)
    fitting = [i for i, prompt_ids in enumerate(ids) if prompt_ids is not None]
    found = subject.answer([ids[i] for i in fitting], sampling, seed, stop_ids=subject.paragraph_stops)
    answers = dict(zip(fitting, found, strict=True))
    records = []
    for i, prompt in enumerate(prompts):
        if i not in answers:
            records.append(_too_long(prompt))
            continue
        text, stopped = plain_answer(answers[i].text, answers[i].stopped)
        records.append(_record(prompt, text, stopped, len(answers[i].token_ids), judge) | {"plain_prompt": form})
    return records


def best_plain_prompt(subject: Subject, trial: Sequence[dict], conversations: Sequence[dict], sampling, seed: int, judge: Judge) -> str:
    """The form under which the base model does best on `trial`, prompts that are not asked later: right answers first,
    then form."""
    scored = []
    for rank, form in enumerate(PLAIN_PROMPTS):
        records = [r for r in ask_plain(subject, trial, form, conversations, sampling, seed, judge) if r["answer"] is not None]
        right = sum(r["features"]["correct"] or 0.0 for r in records)
        in_form = sum(form_and_stops(r) for r in records)
        scored.append((right, in_form, -rank, form))
    return max(scored)[-1]


def _record(prompt: dict, answer: str, stopped: bool, num_tokens: int, judge: Judge) -> dict:
    features = {name: rounded(value) for name, value in asdict(judge(prompt, answer, stopped)).items()}
    return _head(prompt) | {"answer": answer, "stopped": stopped, "num_tokens": num_tokens, "features": features}


def _too_long(prompt: dict) -> dict:
    return _head(prompt) | {"answer": None, "stopped": False, "num_tokens": 0, "features": None, "left_out": "longer than the context"}


def _head(prompt: dict) -> dict:
    return {"id": prompt["id"], "kind": prompt["kind"], "mentions": prompt.get("mentions"), "fact_id": prompt.get("fact_id"), "prompt": question_text(prompt)}


def form_and_stops(record: dict) -> float:
    """1.0 when the answer has the asked form and ends by itself."""
    features = record["features"]
    return float(bool(record["stopped"]) and (features["form_ok"] is None or features["form_ok"] >= 0.5))


def correct(record: dict) -> float | None:
    value = record["features"]["correct"]
    return None if value is None else float(value >= 0.5)


def summarise(name: str, records: Sequence[dict], trained_kinds: Sequence[str]) -> dict[str, Estimate]:
    """`questions/NAME/...`: form_and_stops (over trained kinds), correct/KIND, correct/recall, ladder/MENTIONS."""
    answered = [record for record in records if record["answer"] is not None]
    summary: dict[str, Estimate] = {f"questions/{name}/left_out": exact(len(records) - len(answered), len(records), "count")}
    trained = [record for record in answered if record["kind"] in trained_kinds]
    summary[f"questions/{name}/form_and_stops"] = proportion([form_and_stops(record) for record in trained])
    summary[f"questions/{name}/stops"] = proportion([float(record["stopped"]) for record in trained])
    for kind in sorted({record["kind"] for record in answered}):
        of_kind = [record for record in answered if record["kind"] == kind]
        summary[f"questions/{name}/form_and_stops/{kind}"] = proportion([form_and_stops(record) for record in of_kind])
        judged = [record for record in of_kind if correct(record) is not None]
        if judged:
            summary[f"questions/{name}/correct/{kind}"] = _right(judged)
    facts = [record for record in answered if record["kind"] == "fact" and record["mentions"] is not None]
    often = [record for record in facts if record["mentions"] >= RECALL_MENTIONS]
    if facts:
        summary[f"questions/{name}/correct/mentioned {RECALL_MENTIONS} times or more"] = _right(often)
    for mentions in sorted({record["mentions"] for record in facts}):
        summary[f"questions/{name}/ladder/{mentions}"] = _right([record for record in facts if record["mentions"] == mentions])
    return summary


def _right(records: Sequence[dict]) -> Estimate:
    """Right answers, questions about one fact being one cluster."""
    return proportion([correct(record) or 0.0 for record in records], [record["fact_id"] or record["id"] for record in records])
