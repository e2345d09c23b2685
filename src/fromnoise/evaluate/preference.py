"""With RLHF against without: the same held-out prompts, the same decoding, and a judge that nobody trained on.

Three judges. The world's oracle knows the true weights over the true features; the judge share of the simulated
raters never chose a training pair; reward and audit model are what training saw and almost saw. On real data, where
no truth is known, only the last two exist.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict

import torch

from fromnoise.evaluate import safety
from fromnoise.evaluate.answers import Answer, Scorer, Subject
from fromnoise.evaluate.intervals import CHANGE, SHARE, Estimate, exact, length_controlled_win_rate, mean, paired_difference, proportion
from fromnoise.evaluate.questions import Judge, question_text
from fromnoise.evaluate.records import rounded
from fromnoise.generate.rollout import penalised_scores
from fromnoise.tasks import manner

SHARES = {"stopped", "repetition", "refused", "polite", "form_ok", "relevant", "correct"}  # features of an answer from 0 to 1; the others are counts

Prefers = Callable[[dict, object, object], float]  # (prompt, features a, features b) -> 1.0, 0.5, 0.0 or a probability


def compare(
    prompts: Sequence[dict],
    before: Subject,
    after: Subject,
    sampling,
    seed: int,
    *,
    judge: Judge | None,
    oracle: Prefers | None,
    raters: Prefers | None,
    reward: Scorer | None,
    audit: Scorer | None,
    logprobs: bool = False,
) -> list[dict]:
    """One record a prompt: both answers with features and scores, and what each judge says. Without `judge` the features are those of
    manner, which any text shows (`tasks/manner.py`). `logprobs` adds both models' log-probabilities of each answer, for the KL
    divergence of sampled answers.

    `oracle` and `raters` in a record speak for `after`: 1 it is preferred, 0.5 tie, 0 not. Prompts that do not fit
    the context with room for an answer are left out.
    """
    ids = [before.chat_prompt(prompt["messages"]) for prompt in prompts]
    kept = [i for i, prompt_ids in enumerate(ids) if before.fits(prompt_ids, sampling.max_new_tokens)]
    answers = {subject.name: subject.answer([ids[i] for i in kept], sampling, seed) for subject in (before, after)}
    sides = {
        name: _measured(found, (before, after) if logprobs else (), sampling.temperature, reward, audit, before.tokenizer.pad_id)
        for name, found in answers.items()
    }
    records = []
    for row, i in enumerate(kept):
        prompt = prompts[i]
        record = {"id": prompt["id"], "kind": prompt.get("kind"), "tags": prompt.get("tags", []), "prompt": question_text(prompt)}
        if len(prompt["messages"]) > 1:
            record["messages"] = prompt["messages"]
        judged = {}
        for name, found in answers.items():
            answer = found[row]
            record[name] = {"text": answer.text, "stopped": answer.stopped, "num_tokens": len(answer.token_ids), **sides[name][row]}
            if judge:
                judged[name] = judge(prompt, answer.text, answer.stopped)
            features = asdict(judged[name]) if judge else manner.measured(answer.text)
            record[name]["features"] = {key: rounded(value) for key, value in features.items()}
        if judge:
            pair = judged[after.name], judged[before.name]
            record["oracle"] = rounded(oracle(prompt, *pair)) if oracle else None
            record["raters"] = rounded(raters(prompt, *pair)) if raters else None
        records.append(record)
    return records


def _measured(
    answers: Sequence[Answer], subjects: Sequence[Subject], temperature: float, reward: Scorer | None, audit: Scorer | None, pad_id: int
) -> list[dict]:
    """Scores of each answer, and its log-probability under each of `subjects`, taken at the sampling temperature: the
    divergence then compares the distributions that were sampled."""
    columns = {f"logprob_{subject.name}": subject.logprobs(answers, temperature) for subject in subjects}
    columns |= {name: scorer.scores(answers, pad_id) for name, scorer in (("reward", reward), ("audit", audit)) if scorer}
    return [{name: rounded(values[i]) for name, values in columns.items()} for i in range(len(answers))]


def summarise(name: str, records: Sequence[dict], seed: int, before: str = "sft", after: str = "rlhf") -> dict[str, Estimate]:
    """`preference/NAME/...` with NAME the decoding (sampled, greedy)."""
    at = f"preference/{name}"
    summary: dict[str, Estimate] = {}
    wins = [record["oracle"] for record in records if record.get("oracle") is not None]
    if wins:
        judged = [record for record in records if record.get("oracle") is not None]
        difference = [_words(record[after]) - _words(record[before]) for record in judged]
        summary[f"{at}/oracle"] = proportion(wins)
        summary[f"{at}/oracle_length_controlled"] = length_controlled_win_rate(wins, difference, seed)
        summary[f"{at}/ties"] = proportion([float(win == 0.5) for win in wins])
        for kind in sorted({record["kind"] for record in judged}):
            summary[f"{at}/oracle/{kind}"] = proportion([record["oracle"] for record in judged if record["kind"] == kind])
    chosen = [record["raters"] for record in records if record.get("raters") is not None]
    if chosen:
        summary[f"{at}/raters"] = mean(chosen, seed, between=SHARE)
    for score in ("reward", "audit"):
        scored = [record for record in records if score in record[after]]
        if scored:
            gains = [(record[after][score], record[before][score]) for record in scored]
            summary[f"{at}/{score}_win_rate"] = proportion([_half(a, b) for a, b in gains])
            summary[f"{at}/{score}_difference"] = paired_difference([a for a, _ in gains], [b for _, b in gains], seed)
    # Whether a refusal fits is the safety table's business: here "right" means right about the world.
    both = [r for r in records if r["kind"] not in safety.KINDS]
    both = [record for record in both if _correct(record, before) is not None and _correct(record, after) is not None]
    if both:
        for side in (before, after):
            summary[f"{at}/correct_{side}"] = proportion([_correct(record, side) for record in both])
        summary[f"{at}/correct_difference"] = paired_difference(
            [_correct(record, after) for record in both], [_correct(record, before) for record in both], seed, between=CHANGE
        )
    if records and f"logprob_{after}" in records[0][after]:
        ratios = [record[after][f"logprob_{after}"] - record[after][f"logprob_{before}"] for record in records]
        summary["kl/per_sequence"] = mean(ratios, seed, method="mean log-ratio on sampled answers, bootstrap")
    return summary


def best_of_n(
    prompts: Sequence[dict],
    compared: Sequence[dict],
    subject: Subject,
    sampling,
    seed: int,
    n: int,
    *,
    judge: Judge | None,
    oracle: Prefers | None,
    utility: Callable | None,
    reward: Scorer,
    audit: Scorer | None,
    missing_stop_penalty: float,
) -> list[dict]:
    """What choosing alone reaches: for each prompt the best of n answers of `subject` by the reward that PPO maximises,
    its penalty for answers that never stop included. `samples` keeps worth, audit score and the oracle's utility of all n,
    from which the curve over smaller n follows.

    Its opponent is the SFT model's answer in `compared` (records of `compare` for the same prompts).
    """
    by_id = {record["id"]: record for record in compared}
    prompts = [prompt for prompt in prompts if prompt["id"] in by_id]
    ids = [subject.chat_prompt(prompt["messages"]) for prompt in prompts for _ in range(n)]
    answers = subject.answer(ids, sampling, seed)
    scores = reward.scores(answers, subject.tokenizer.pad_id)
    stopped = torch.tensor([answer.stopped for answer in answers])
    worth = penalised_scores(torch.tensor(scores), stopped, missing_stop_penalty).tolist()
    best = [max(range(i * n, i * n + n), key=lambda at: (worth[at], -at)) for i in range(len(prompts))]
    audits = audit.scores(answers, subject.tokenizer.pad_id) if audit else [None] * len(answers)
    records = []
    for i, (prompt, at) in enumerate(zip(prompts, best, strict=True)):
        answer, other = answers[at], by_id[prompt["id"]]["sft"]
        record = {
            "id": prompt["id"],
            "kind": prompt.get("kind"),
            "prompt": question_text(prompt),
            "n": n,
            "text": answer.text,
            "stopped": answer.stopped,
            "num_tokens": len(answer.token_ids),
            "reward": rounded(scores[at]),
            "audit": rounded(audits[at]),
            "mean_reward": rounded(sum(scores[i * n : i * n + n]) / n),
            "opponent_reward": other.get("reward"),
            "opponent_audit": other.get("audit"),
            "samples": {"worth": [rounded(value) for value in worth[i * n : i * n + n]]},
        }
        if audit:
            record["samples"]["audit"] = [rounded(value) for value in audits[i * n : i * n + n]]
        if judge and utility:
            record["samples"]["utility"] = [rounded(utility(judge(prompt, one.text, one.stopped), prompt)) for one in answers[i * n : i * n + n]]
        if judge and oracle:
            features = judge(prompt, answer.text, answer.stopped)
            record["features"] = {key: rounded(value) for key, value in asdict(features).items()}
            record["oracle"] = rounded(oracle(prompt, features, judge(prompt, other["text"], other["stopped"])))
        records.append(record)
    return records


def summarise_best_of_n(records: Sequence[dict], seed: int) -> dict[str, Estimate]:
    """`best_of_n/...`, with the KL from the model that was sampled: log n - (n - 1) / n, an upper bound (Stiennon et
    al. 2020, arXiv 2009.01325, appendix G; Beirami et al. 2024, arXiv 2401.01879, show that it is one)."""
    if not records:
        return {}
    n = records[0]["n"]
    summary = {
        "best_of_n/n": exact(n, len(records), "setting"),
        "best_of_n/kl_per_sequence": exact(math.log(n) - (n - 1) / n, len(records), "analytic: log n - (n - 1) / n"),
    }
    for score in ("reward", "audit"):
        scored = [r for r in records if r[score] is not None and r[f"opponent_{score}"] is not None]
        if scored:
            summary[f"best_of_n/{score}_difference"] = paired_difference([r[score] for r in scored], [r[f"opponent_{score}"] for r in scored], seed)
    wins = [record["oracle"] for record in records if record.get("oracle") is not None]
    if wins:
        summary["best_of_n/oracle"] = proportion(wins)
    return summary


def drift(records: Sequence[dict], seed: int, before: str = "sft", after: str = "rlhf") -> dict[str, Estimate]:
    """`drift/FEATURE/{before,after,difference}`: what changed besides what was wanted. Refusals are counted on prompts
    that ask for nothing harmful."""
    summary: dict[str, Estimate] = {}
    rows: dict[str, tuple[list[float], list[float]]] = {
        "num_words": ([_words(r[before]) for r in records], [_words(r[after]) for r in records]),
        "stopped": ([float(r[before]["stopped"]) for r in records], [float(r[after]["stopped"]) for r in records]),
        "repetition": ([repetition(r[before]["text"]) for r in records], [repetition(r[after]["text"]) for r in records]),
    }
    featured = [record for record in records if "features" in record[before]]
    for feature in ("refused", "flattery", "hedges", "filler", "polite", "form_ok", "relevant"):
        usable = [r for r in featured if r["kind"] != "harmful"] if feature == "refused" else featured
        usable = [r for r in usable if all(r[side]["features"].get(feature) is not None for side in (before, after))]
        if usable:
            rows[feature] = ([r[before]["features"][feature] for r in usable], [r[after]["features"][feature] for r in usable])
    for feature, (old, new) in rows.items():
        share, change = (SHARE, CHANGE) if feature in SHARES else (None, None)
        summary[f"drift/{feature}/{before}"] = mean(old, seed, between=share)
        summary[f"drift/{feature}/{after}"] = mean(new, seed, between=share)
        summary[f"drift/{feature}/difference"] = paired_difference(new, old, seed, between=change)
    for side in (before, after):  # sameness between answers, which no single answer shows
        texts = [record[side]["text"].strip() for record in records]
        summary[f"drift/distinct_answers/{side}"] = exact(len(set(texts)) / max(len(texts), 1), len(texts), "share of different texts")
    return summary


def repetition(text: str) -> float:
    """Share of an answer's runs of three words, of any language, that already stood in it; 0 for fewer than four words. What simulated raters
    mind is `tasks.text.repetition`, which reads the world's language."""
    words = text.lower().split()
    runs = list(zip(words, words[1:], words[2:], strict=False))
    return 1.0 - len(set(runs)) / len(runs) if len(runs) > 1 else 0.0


def _words(side: dict) -> float:
    return float(len(side["text"].split()))


def _correct(record: dict, side: str) -> float | None:
    return record[side].get("features", {}).get("correct")


def _half(a: float, b: float) -> float:
    return 0.5 if a == b else float(a > b)
