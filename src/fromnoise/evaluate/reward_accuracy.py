"""How often a reward model agrees with a person, beside how often anybody could; and what else its scores follow.

Raters are noisy: a person who chooses the first of two answers with probability 0.7 is agreed with at most 70 % of the
time. Simulated raters' probabilities are known exactly, so the best attainable accuracy is their mean max(p, 1 - p).

Scores are defined up to a number for each prompt, so everything here looks at differences within a pair. Which answer
stands first carries no meaning: a correlation of two differences is taken through the origin, and changes of order
leave it as it is.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from fromnoise.data.preferences import Pair, encoded
from fromnoise.evaluate.answers import Answer, Scorer
from fromnoise.evaluate.intervals import Estimate, bootstrap, exact, mean, proportion
from fromnoise.evaluate.records import rounded
from fromnoise.run.seeds import seed_from

NUM_BINS = 10
NUM_RESAMPLES = 500
MARGINS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, math.inf)  # edges of |logit|: a probability of 0.5, 0.56, 0.62, 0.73, 0.82, 0.88, 0.95, 1
MIN_VOTES = 5  # a rater with fewer held-out votes counts among the others
FEATURES = ("tokens", "lines", "list_items", "stopped")
LIST_ITEM = re.compile(r"^\s*(?:[-*•]|\d{1,3}[.)])\s", re.MULTILINE)


def encode_set(read: Sequence[Pair], tokenizer, max_tokens: int, seed: int) -> tuple[list[dict], dict[str, int]]:
    """Pairs of a file as `score_pairs` takes them, the order of each two answers drawn by seed.

    Over-long rule: the oldest turns are cut until prompt and answer fit `max_tokens`, else the pair is set aside. The
    counts say what came in: {"read", "cut", "set_aside"}.
    """
    pairs, counts = [], Counter(read=len(read), cut=0, set_aside=0)
    for number, found in enumerate(read):
        pair = encoded(found, tokenizer, max_tokens, first_rejected=bool(seed_from(seed, "order", number) % 2))
        if pair is None:
            counts["set_aside"] += 1
            continue
        counts["cut"] += len(pair["messages"]) < len(found.prompt)
        pairs.append({"id": f"pair-{number:06d}", **pair})
    return pairs, dict(counts)


def score_pairs(pairs: Sequence[dict], scorer: Scorer, pad_id: int) -> list[dict]:
    """One record a pair of `prefer/pairs.jsonl`: what was chosen, what the model says. `logit` is its log-odds that the
    first answer is chosen (the difference of raw scores, as in Bradley and Terry); `member_logits` those of each member
    of an ensemble, whose mean it is."""
    if not pairs:
        return []
    answers = [Answer(pair["prompt_ids"], one["token_ids"], one["text"], one["stopped"]) for pair in pairs for one in pair["answers"]]
    members = np.array(scorer.member_scores(answers, pad_id), dtype=np.float64).reshape(-1, len(pairs), 2)  # (members, pairs, answers)
    scores = members.mean(axis=0)
    logits = (members[..., 0] - members[..., 1]) * scorer.model.std  # (members, pairs)
    records = []
    for i, pair in enumerate(pairs):
        record = {name: pair.get(name) for name in ("id", "prompt_id", "kind", "source", "rater", "weight", "chosen", "pool_prob_first")}
        record["left"] = pair.get("left", 0)  # simulated raters are shown the answers in their order
        record |= {"score_first": rounded(scores[i, 0]), "score_second": rounded(scores[i, 1]), "logit": rounded(logits[:, i].mean())}
        record |= {name: [observed(one)[name] for one in pair["answers"]] for name in FEATURES}
        if len(members) > 1:
            record["member_logits"] = [rounded(value) for value in logits[:, i]]
        records.append(record)
    return records


def observed(answer: dict) -> dict[str, int]:
    """What can be seen of an answer without reading it: length and form."""
    text = answer["text"].strip()
    return {"tokens": len(answer["token_ids"]), "lines": text.count("\n") + 1, "list_items": len(LIST_ITEM.findall(text)), "stopped": int(answer["stopped"])}


def summarise(name: str, records: Sequence[dict], seed: int) -> dict[str, Estimate]:
    """`NAME/accuracy` and its company, NAME being reward, audit or `reward_sets/FILE/reward`. Ties among the raters'
    choices are left out, but for `ties` and `confidence_at_ties`. Several votes or pairs on one prompt are not
    independent: every interval takes the prompts as clusters.

    Two forms of accuracy where probabilities are known: against the one choice that was drawn, and against the pool
    (the probability with which a rater agrees), which is the same in expectation and free of the draw's noise.
    """
    decided = [record for record in records if record["chosen"] in (0, 1)]
    if not decided:
        return {}
    prompts = [record["prompt_id"] for record in decided]
    clusters = prompts if len(set(prompts)) < len(prompts) else None
    hits = [_agrees(record["logit"], record["chosen"] == 0) for record in decided]
    summary = {f"{name}/accuracy": proportion(hits, clusters=prompts)}
    kinds = [record["kind"] or None for record in decided]
    for part, of in (("accuracy", kinds), ("accuracy_by_source", _sources(decided)), ("accuracy_by_rater", _raters(decided))):
        for value in sorted(set(of) - {None}):
            mine = [i for i, other in enumerate(of) if other == value]
            summary[f"{name}/{part}/{value}"] = proportion([hits[i] for i in mine], clusters=[prompts[i] for i in mine])
    logits = np.array([record["logit"] for record in decided])
    outcomes = np.array([float(record["chosen"] == 0) for record in decided])
    summary |= _margins(name, logits, outcomes, prompts)
    resampled = {"num_resamples": NUM_RESAMPLES, "clusters": clusters}
    summary[f"{name}/calibration_error"] = calibration(logits, outcomes, seed, resampled)
    summary[f"{name}/log_loss"] = mean([_log_loss(record["logit"], record["chosen"] == 0) for record in decided], seed, clusters=clusters)
    if len(decided) < len(records):
        ties = [record for record in records if record["chosen"] not in (0, 1)]
        summary[f"{name}/ties"] = proportion([float(record["chosen"] not in (0, 1)) for record in records], clusters=[r["prompt_id"] for r in records])
        summary[f"{name}/confidence_at_ties"] = mean([_confidence(record["logit"]) for record in ties], seed, clusters=[r["prompt_id"] for r in ties])
    summary |= _follows(name, decided, logits, outcomes, seed, resampled)
    summary |= _disagreement(name, decided, np.array(hits), seed, clusters)
    if all(record["pool_prob_first"] is not None for record in decided):
        p = np.array([record["pool_prob_first"] for record in decided])
        best, hit = np.maximum(p, 1 - p), np.array(hits)
        agreed = np.where(logits > 0, p, np.where(logits < 0, 1 - p, 0.5))
        summary[f"{name}/attainable"] = mean(best, seed, clusters=clusters, method="mean max(p, 1 - p) of the raters' choice probabilities, bootstrap")
        summary[f"{name}/accuracy_pool"] = mean(agreed, seed, clusters=clusters, method="probability that a rater of the pool agrees, bootstrap")
        for form, values in (("share_of_attainable", hit), ("share_of_attainable_pool", agreed)):
            summary[f"{name}/{form}"] = bootstrap(
                lambda i, values=values: (values[i].mean() - 0.5) / (best[i].mean() - 0.5), len(decided), seed,
                clusters=clusters, method="ratio, paired bootstrap",
            )  # fmt: skip
    return summary


def _sources(records: Sequence[dict]) -> list[str | None]:
    """The file of each pair; nothing where all come from one."""
    found = [record.get("source") for record in records]
    return found if len(set(found)) > 1 else [None] * len(found)


def _raters(records: Sequence[dict]) -> list[str | None]:
    """Who chose; raters of few votes together, nothing where there is only one."""
    votes = Counter(record.get("rater") for record in records)
    if len(votes) < 2:
        return [None] * len(records)
    few = f"others, fewer than {MIN_VOTES} votes each"
    return [None if (who := record.get("rater")) is None else who if votes[who] >= MIN_VOTES else few for record in records]


def _margins(name: str, logits: np.ndarray, outcomes: np.ndarray, prompts: list) -> dict[str, Estimate]:
    """`NAME/margin/LOW-HIGH/right` beside `/predicted`, by the size of the score difference: where the two agree, the
    model's probabilities can be believed; where `right` stays near one half, the difference means nothing."""
    summary: dict[str, Estimate] = {}
    confidence = 1 / (1 + np.exp(-np.abs(logits)))
    right = _right(logits, outcomes)
    for low, high in pairwise(MARGINS):
        here = np.flatnonzero((np.abs(logits) >= low) & (np.abs(logits) < high))
        if len(here):
            at = f"{name}/margin/{low:g}-{high:g}"
            summary[f"{at}/right"] = proportion(right[here].tolist(), clusters=[prompts[i] for i in here])
            summary[f"{at}/predicted"] = exact(float(confidence[here].mean()), len(here), "mean probability the model gives to its own favourite")
    return summary


def _follows(name: str, records: Sequence[dict], logits: np.ndarray, outcomes: np.ndarray, seed: int, resampled: dict) -> dict[str, Estimate]:
    """What scores and choices go with: `NAME/correlation/FEATURE/{choices,score,length_removed}`, length in tokens, and
    `NAME/position/{choices,score}`, how often the answer shown first (on the left) is preferred, where it is known which that was.

    `length_removed` are the scores less the straight line in length that fits these pairs best (post-hoc calibration:
    Huang et al. 2024, arXiv 2409.17407): what would be left of accuracy and of the other correlations if length could
    not speak. Training with `reward.debias_length` is judged by `score` itself.
    """
    prompts = [record["prompt_id"] for record in records]
    summary: dict[str, Estimate] = {}
    left = [record.get("left", 0) for record in records]
    if shown := [i for i, side in enumerate(left) if side is not None]:
        first_shown = np.array([float(left[i] == 0) for i in shown])
        for column, liked in (("choices", (outcomes[shown] == first_shown).astype(float)), ("score", _right(logits[shown], first_shown))):
            summary[f"{name}/position/{column}"] = proportion(liked.tolist(), clusters=[prompts[i] for i in shown])
    features = {key: np.array([float(r[key][0] - r[key][1]) for r in records]) for key in FEATURES if key in records[0]}
    if "tokens" not in features:
        return summary
    length = features["tokens"]
    slope = lambda i: float(length[i] @ logits[i]) / max(float(length[i] @ length[i]), 1e-12)  # noqa: E731
    columns: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "choices": lambda i: 2 * outcomes[i] - 1, "score": lambda i: logits[i], "length_removed": lambda i: logits[i] - slope(i) * length[i],
    }  # fmt: skip
    how = "correlation of the differences within pairs, bootstrap"
    for key, difference in features.items():
        for column, values in columns.items():
            if difference.any() and (key, column) != ("tokens", "length_removed"):  # nothing differs; nought by construction
                summary[f"{name}/correlation/{'length' if key == 'tokens' else key}/{column}"] = bootstrap(
                    lambda i, difference=difference, values=values: through_origin(difference[i], values(i)), len(records), seed, method=how, **resampled
                )
    if length.any():
        longer = np.flatnonzero(length)
        summary[f"{name}/longer_chosen"] = proportion(
            [float((length[i] > 0) == (outcomes[i] > 0.5)) for i in longer], clusters=[prompts[i] for i in longer]
        )
        right = _right(columns["length_removed"](np.arange(len(records))), outcomes)
        summary[f"{name}/accuracy_length_removed"] = proportion(right.tolist(), clusters=prompts)
    return summary


def through_origin(x: np.ndarray, y: np.ndarray) -> float:
    """sum(x y) / sqrt(sum(x^2) sum(y^2)): the correlation that stays the same when the two answers of a pair change places."""
    norm = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / norm if norm > 0 else math.nan


def _disagreement(name: str, records: Sequence[dict], hits: np.ndarray, seed: int, clusters: list | None) -> dict[str, Estimate]:
    """Of an ensemble: each member's accuracy, the spread of its members' log-odds over a pair, and the accuracy on the
    half of the pairs where they agree most and least. An ensemble whose spread says nothing has equal halves."""
    if "member_logits" not in records[0]:
        return {}
    logits = np.array([record["member_logits"] for record in records])  # (pairs, members)
    spread = logits.std(axis=1)
    prompts = [record["prompt_id"] for record in records]
    how = "standard deviation over members of the log-odds, bootstrap"
    summary = {f"{name}/disagreement": mean(spread, seed, clusters=clusters, method=how)}
    for member in range(logits.shape[1]):
        right = [_agrees(z, r["chosen"] == 0) for z, r in zip(logits[:, member], records, strict=True)]
        summary[f"{name}/accuracy_by_member/{member + 1}"] = proportion(right, clusters=prompts)
    order, half = np.argsort(spread, kind="stable"), len(spread) // 2
    for part, these in (("agree", order[:half]), ("disagree", order[half:])) if half else ():
        summary[f"{name}/accuracy_members_{part}"] = proportion(hits[these].tolist(), clusters=[prompts[i] for i in these])
    return summary


def pairs_differing(name: str, pairs: Sequence[dict]) -> dict[str, Estimate]:
    """`NAME/pairs_differing`: pairs whose answers differ in correctness or relevance. Without such pairs raters could
    choose by manner alone."""
    known = [pair for pair in pairs if pair.get("differ")]
    differing = [float(any(pair["differ"].values())) for pair in known]
    return {f"{name}/pairs_differing": proportion(differing, clusters=[pair["prompt_id"] for pair in known])} if known else {}


def calibration(logits: np.ndarray, outcomes: np.ndarray, seed: int, resampled: dict) -> Estimate:
    """`calibration_error` with an interval.

    Chance opens gaps in the bins: probabilities that are exact show an error of 0.07 on 150 pairs, and resamples, which add chance to chance, more:
    their percentiles hold the truth in none to two of five such samples. Mirrored at the value (the basic bootstrap: Davison and Hinkley 1997,
    section 5.2), and from 0 on where choices drawn from the model's own probabilities come as far from them, they do in nine of ten.
    """
    how = f"expected calibration error, {NUM_BINS} bins, basic bootstrap; from 0 where chance alone explains it"
    found = bootstrap(lambda i: calibration_error(logits[i], outcomes[i]), len(logits), seed, method=how, **resampled)
    if found.low is None:
        return found
    draws, probs = np.random.default_rng(seed), 1 / (1 + np.exp(-logits))
    chance = np.quantile([calibration_error(logits, (draws.random(len(probs)) < probs).astype(float)) for _ in range(resampled["num_resamples"])], 0.975)
    low = 0.0 if found.value <= chance else min(found.value, max(0.0, 2 * found.value - found.high))
    return replace(found, low=low, high=max(found.value, 2 * found.value - found.low))


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


def _right(logits: np.ndarray, outcomes: np.ndarray) -> np.ndarray:
    return np.where(logits == 0, 0.5, (logits > 0) == (outcomes > 0.5))


def _confidence(logit: float) -> float:
    return 1 / (1 + math.exp(-abs(logit)))


def _log_loss(logit: float, first: bool) -> float:
    signed = logit if first else -logit
    return math.log1p(math.exp(-abs(signed))) + max(0.0, -signed)
