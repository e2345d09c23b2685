"""Problems with checkable answers, put to the models before and after `reason`: accuracy, pass@k, and what else changed.

The problems are from the side of the split that nothing trains on, of the levels practised and of harder ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import comb

from fromnoise.evaluate.answers import Subject
from fromnoise.evaluate.intervals import CHANGE, SHARE, Estimate, exact, mean, paired_difference, proportion
from fromnoise.evaluate.questions import correct, form_and_stops
from fromnoise.evaluate.records import rounded
from fromnoise.generate.groups import Written, write_answers
from fromnoise.tasks.problems import grade

PRACTISED_KINDS = ("sum", "puzzle", "problem")  # what `reason` means to change; the others are to stay


def pass_at_k(n: int, c: int, k: int) -> float:
    """Chance that at least one of k answers is right, from n answers of which c were: 1 - C(n - c, k) / C(n, k).

    The unbiased estimator of Chen et al. 2021 (arXiv 2107.03374), equation 1; 1 - (1 - c/n)^k is biased downwards.

    >>> pass_at_k(2, 1, 1), pass_at_k(4, 1, 2), pass_at_k(4, 3, 2)
    (0.5, 0.5, 1.0)
    """
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError(f"pass@{k} of {c} right in {n}")
    return 1.0 - comb(n - c, k) / comb(n, k)


def solve(subject: Subject, problems: Sequence[dict], sampling, seed: int, calculator: bool, num_answers: int = 1) -> list[dict]:
    """One record for each problem ({"id", "level", "kind", "prompt", "check"}) with `num_answers` graded answers; the text of
    the first is kept. A problem that does not fit the context is recorded unanswered."""
    ids = [subject.chat_prompt([{"role": "user", "content": problem["prompt"]}]) for problem in problems]
    fitting = [i for i, one in enumerate(ids) if subject.fits(one, sampling.max_new_tokens)]
    prompts = [ids[i] for i in fitting for _ in range(num_answers)]
    written = write_answers(subject.engine, subject.tokenizer, prompts, sampling, seed, calculator) if prompts else []
    answers = {i: written[at * num_answers : (at + 1) * num_answers] for at, i in enumerate(fitting)}
    return [_record(subject, problem, answers.get(i)) for i, problem in enumerate(problems)]


def _record(subject: Subject, problem: dict, answers: Sequence[Written] | None) -> dict:
    head = {name: problem[name] for name in ("id", "level", "kind", "prompt")}
    if not answers:
        return head | {"answer": None, "num": 0, "num_correct": 0, "left_out": "longer than the context"}
    texts = [subject.tokenizer.decode_answer(answer.token_ids) for answer in answers]
    grades = [grade(problem["kind"], problem["check"], text, answer.stopped) for text, answer in zip(texts, answers, strict=True)]
    share = lambda values: rounded(sum(values) / len(grades))  # noqa: E731
    return head | {
        "answer": texts[0], "num": len(grades), "num_correct": sum(one.correct for one in grades), "steps": share([one.steps for one in grades]),
        "form_ok": share([one.form_ok for one in grades]), "num_false": sum(one.num_false for one in grades),
    }  # fmt: skip


def summarise_sums(name: str, records: Sequence[dict]) -> dict[str, Estimate]:
    """`reason/sums/NAME`: greedy accuracy on two- and three-digit sums that nothing was trained on."""
    return {f"reason/sums/{name}": proportion([float(r["num_correct"]) for r in records if r["num"]])}


def summarise_levels(name: str, records: Sequence[dict], k: int, seed: int) -> dict[str, Estimate]:
    """`reason/pass_1/NAME/LEVEL`, `reason/pass_k/NAME/LEVEL`, `reason/steps/NAME/LEVEL`, from sampled answers; problems resampled."""
    summary = {}
    for level in sorted({record["level"] for record in records}):
        of_level = [record for record in records if record["level"] == level and record["num"] >= k]
        if not of_level:
            continue
        for key, size in (("pass_1", 1), ("pass_k", k)):
            values = [pass_at_k(record["num"], record["num_correct"], size) for record in of_level]
            summary[f"reason/{key}/{name}/{level}"] = mean(values, seed, method=f"pass@{size} of {k} answers, bootstrap over problems", between=SHARE)
        summary[f"reason/steps/{name}/{level}"] = mean([record["steps"] for record in of_level], seed, between=SHARE)
    return summary


def differences(after: Mapping[str, list[dict]], before: Mapping[str, list[dict]], label: str, seed: int) -> dict[str, Estimate]:
    """`reason/LABEL/...`: paired differences over the same problems and the same questions.

    after, before: records by "sums", "levels" and "questions". Questions that reason does not mean to change are put
    together as `everything_else` and `form_and_stops`, and by kind.
    """
    summary = {}
    for key in ("sums", "levels"):
        pairs = [(a, b) for a, b in zip(after[key], before[key], strict=True) if a["num"] and b["num"]]
        levels = sorted({a["level"] for a, _ in pairs}) if key == "levels" else []
        groups = {f"/{level}": [pair for pair in pairs if pair[0]["level"] == level] for level in levels} or {"": pairs}
        for suffix, some in groups.items():
            values = [[record["num_correct"] / record["num"] for record in side] for side in zip(*some, strict=True)]
            if values:
                summary[f"reason/{label}/{key}{suffix}"] = paired_difference(values[0], values[1], seed, between=CHANGE)
    asked = [(a, b) for a, b in zip(after["questions"], before["questions"], strict=True) if a["answer"] is not None and b["answer"] is not None]
    judged = [(a, b) for a, b in asked if correct(a) is not None]
    others = [(a, b) for a, b in judged if a["kind"] not in PRACTISED_KINDS]
    by_kind = {f"correct/{kind}": [(a, b) for a, b in judged if a["kind"] == kind] for kind in sorted({a["kind"] for a, _ in judged})}
    for name, pairs, value in (("everything_else", others, correct), *((name, pairs, correct) for name, pairs in by_kind.items()),
                               ("form_and_stops", asked, form_and_stops)):  # fmt: skip
        if pairs:
            clusters = [a["fact_id"] or a["id"] for a, _ in pairs]  # questions about one fact hang together
            values = [value(a) for a, _ in pairs], [value(b) for _, b in pairs]
            summary[f"reason/{label}/{name}"] = paired_difference(*values, seed, clusters=clusters, between=CHANGE)
    if judged:
        summary[f"reason/{label}/questions_asked"] = exact(len(asked), len(asked), "count")
    return summary
