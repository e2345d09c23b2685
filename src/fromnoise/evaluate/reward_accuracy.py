"""How often a reward model agrees with a person, beside how often anybody could.

Raters are noisy: a person who chooses the first of two answers with probability 0.7 is agreed with at most 70 % of the
time. Simulated raters' probabilities are known exactly, so the best attainable accuracy is their mean max(p, 1 - p).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fromnoise.evaluate.answers import Answer, Scorer
from fromnoise.evaluate.intervals import Estimate, bootstrap, mean, proportion
from fromnoise.evaluate.records import rounded

NUM_BINS = 10


def score_pairs(pairs: Sequence[dict], scorer: Scorer, pad_id: int) -> list[dict]:
    """One record a pair of `prefer/pairs.jsonl`: what was chosen, what the model says. `logit` is its log-odds that the
    first answer is chosen (the difference of raw scores, as in Bradley and Terry)."""
    answers = [Answer(pair["prompt_ids"], one["token_ids"], one["text"], one["stopped"]) for pair in pairs for one in pair["answers"]]
    scores = scorer.scores(answers, pad_id)
    return [
        {
            "id": pair["id"], "prompt_id": pair["prompt_id"], "kind": pair.get("kind"), "rater": pair.get("rater"), "chosen": pair["chosen"],
            "pool_prob_first": pair.get("pool_prob_first"), "score_first": rounded(scores[2 * i]), "score_second": rounded(scores[2 * i + 1]),
            "logit": rounded((scores[2 * i] - scores[2 * i + 1]) * scorer.model.std),
        }
        for i, pair in enumerate(pairs)
    ]  # fmt: skip


def summarise(name: str, records: Sequence[dict], seed: int) -> dict[str, Estimate]:
    """`NAME/accuracy` and its company, NAME being reward or audit. Ties among the raters' choices are left out.

    Two forms of accuracy where probabilities are known: against the one choice that was drawn, and against the pool
    (the probability with which a rater agrees), which is the same in expectation and free of the draw's noise.
    """
    decided = [record for record in records if record["chosen"] in (0, 1)]
    if not decided:
        return {}
    prompts = [record["prompt_id"] for record in decided]
    repeated = len(set(prompts)) < len(prompts)  # several votes or pairs on one prompt are not independent
    hits = [_agrees(record["logit"], record["chosen"] == 0) for record in decided]
    summary = {f"{name}/accuracy": mean(hits, seed, clusters=prompts, method="bootstrap over prompts") if repeated else proportion(hits)}
    for kind in sorted({record["kind"] for record in decided if record["kind"]}):
        summary[f"{name}/accuracy/{kind}"] = proportion([hit for hit, record in zip(hits, decided, strict=True) if record["kind"] == kind])
    logits = np.array([record["logit"] for record in decided])
    outcomes = np.array([float(record["chosen"] == 0) for record in decided])
    summary[f"{name}/calibration_error"] = bootstrap(
        lambda i: calibration_error(logits[i], outcomes[i]),
        len(decided),
        seed,
        num_resamples=500,
        clusters=prompts if repeated else None,
        method=f"expected calibration error, {NUM_BINS} bins, bootstrap",
    )
    summary[f"{name}/log_loss"] = mean([_log_loss(record["logit"], record["chosen"] == 0) for record in decided], seed)
    if all(record["pool_prob_first"] is not None for record in decided):
        p = np.array([record["pool_prob_first"] for record in decided])
        best, hit = np.maximum(p, 1 - p), np.array(hits)
        agreed = np.where(logits > 0, p, np.where(logits < 0, 1 - p, 0.5))
        summary[f"{name}/attainable"] = mean(best, seed, method="mean max(p, 1 - p) of the raters' choice probabilities, bootstrap")
        summary[f"{name}/accuracy_pool"] = mean(agreed, seed, method="probability that a rater of the pool agrees, bootstrap")
        for form, values in (("share_of_attainable", hit), ("share_of_attainable_pool", agreed)):
            summary[f"{name}/{form}"] = bootstrap(
                lambda i, values=values: (values[i].mean() - 0.5) / (best[i].mean() - 0.5), len(decided), seed, method="ratio, paired bootstrap"
            )
    return summary


def pairs_differing(name: str, pairs: Sequence[dict]) -> dict[str, Estimate]:
    """`NAME/pairs_differing`: pairs whose answers differ in correctness or relevance. Without such pairs raters could
    choose by manner alone."""
    known = [float(any(pair["differ"].values())) for pair in pairs if pair.get("differ")]
    return {f"{name}/pairs_differing": proportion(known)} if known else {}


def calibration_error(logits: np.ndarray, outcomes: np.ndarray) -> float:
    """Expected calibration error (Guo et al. 2017, arXiv 1706.04599): the gap between the probability the model gives
    to its own favourite and how often that one is chosen, averaged over equal-width bins."""
    confidence = 1 / (1 + np.exp(-np.abs(logits)))  # in [0.5, 1]
    hit = np.where(logits >= 0, outcomes, 1 - outcomes)
    bins = np.minimum(((confidence - 0.5) * 2 * NUM_BINS).astype(int), NUM_BINS - 1)
    total = 0.0
    for index in range(NUM_BINS):
        here = bins == index
        if here.any():
            total += here.sum() * abs(confidence[here].mean() - hit[here].mean())
    return total / len(logits)


def _agrees(logit: float, first: bool) -> float:
    return 0.5 if logit == 0 else float((logit > 0) == first)


def _log_loss(logit: float, first: bool) -> float:
    signed = logit if first else -logit
    return math.log1p(math.exp(-abs(signed))) + max(0.0, -signed)
