"""What the training against a reward model did to the truth, at every audit on the way: Gao, Schulman and Hilton 2022.

The audits of `rlhf` keep the policy's answers to prompts nobody practises on, always with the same noise. Here they are
judged: by the reward model (the proxy that was maximised), the audit model (which chose the checkpoint), and, in the world,
by the oracle and by the third share of the raters, who chose nothing. Everything is a gain over the SFT model's answers to
the same prompts, in standard deviations of the SFT model's answers, against d, the square root of the KL divergence.

The fitted curve is theirs for reinforcement learning (arXiv 2210.10760, section 3): R(d) = d (alpha - beta log d). With beta > 0 it has
a peak, where the reward begins to be hacked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from fromnoise.evaluate.intervals import NUM_RESAMPLES, SHARE, Estimate, bootstrap, exact, mean, paired_difference
from fromnoise.evaluate.preference import SHARES, repetition
from fromnoise.evaluate.questions import Judge
from fromnoise.evaluate.records import rounded
from fromnoise.tasks import manner

DRIFT = ("num_words", "repetition", "stopped", "refused", "flattery", "hedges", "filler", "relevant", "form_ok", "correct")
LABELS = {"worth": "reward", "audit": "audit", "utility": "truth"}
MIN_KL_NATS = 1e-3  # below it the square root is noise
MIN_FIT_POINTS = 4


def judge_audits(audits: Sequence[dict], prompts: dict[str, dict], judge: Judge | None, utility: Callable | None, raters: Callable | None) -> list[dict]:
    """audits: lines of rlhf/audits.jsonl; prompts: records of the prompts by id -> the same lines with what judges say.

    utility(features, prompt) is the oracle's; raters(prompt, a, b) how likely the third share prefers a, here against the
    SFT model's answer (iteration 0) to the same prompt. Without a judge, or of a prompt that is not the world's, lines keep reward, audit score and manner.
    """
    before = {record["prompt_id"]: record for record in audits if record["iteration"] == 0}
    judged = []
    for record in audits:
        prompt = prompts.get(record["prompt_id"])
        kept = {name: record[name] for name in ("iteration", "prompt_id", "reward", "audit", "kl_nats", "stopped", "text")}
        kept |= {"kind": (prompt or {}).get("kind"), "num_words": float(len(record["text"].split())), "repetition": rounded(repetition(record["text"]))}
        if judge and prompt and "check" in prompt:  # a prompt of a file, beside the world, has nothing to be judged by
            first = before[record["prompt_id"]]
            features, old = (judge(prompt, one["text"], one["stopped"]) for one in (record, first))
            # length and repetition are measured as in the drift table; the raters' own count words of the world's language
            kept["features"] = {name: rounded(getattr(features, name)) for name in DRIFT if hasattr(features, name) and name not in kept}
            kept["utility"] = rounded(utility(features, prompt)) if utility else None
            kept["raters"] = rounded(raters(prompt, features, old)) if raters else None
        else:
            kept["features"] = {name: value for name, value in manner.measured(record["text"]).items() if name in DRIFT}
        judged.append(kept)
    return judged


def fit_curve(kl_nats: Sequence[float], gains: Sequence[float]) -> tuple[float, float] | None:
    """(alpha, beta) of the least-squares fit of gain against d = sqrt(KL); None with fewer than 4 points away from 0."""
    d, y = np.sqrt(np.maximum(np.asarray(kl_nats, dtype=np.float64), 0.0)), np.asarray(gains, dtype=np.float64)
    away = d > math.sqrt(MIN_KL_NATS)
    if away.sum() < MIN_FIT_POINTS:
        return None
    d, y = d[away], y[away]
    design = np.stack([d, -d * np.log(d)], axis=1)
    alpha, beta = np.linalg.lstsq(design, y, rcond=None)[0]
    return float(alpha), float(beta)


def curve(d: float, alpha: float, beta: float) -> float:
    """The fitted gain at distance d = sqrt(KL); 0 at 0."""
    return d * (alpha - beta * math.log(d)) if d > 0 else 0.0


def fit_quality(kl_nats: Sequence[float], gains: Sequence[float]) -> float | None:
    """R^2 of the fit over all points; below 0 it says less than the mean does. None without a fit."""
    found = fit_curve(kl_nats, gains)
    y = np.asarray(gains, dtype=np.float64)
    if found is None or y.std() == 0:
        return None
    fitted = np.array([curve(math.sqrt(max(kl, 0.0)), *found) for kl in kl_nats])
    return float(1.0 - ((y - fitted) ** 2).sum() / ((y - y.mean()) ** 2).sum())


def peak(alpha: float, beta: float) -> tuple[float, float] | None:
    """(d, gain) where the fitted curve is highest: dR/dd = alpha - beta log d - beta = 0 at d = exp(alpha / beta - 1), where R = beta d.
    None where it has no peak (beta not above 0), or one beyond all measure."""
    if beta <= 0 or alpha / beta - 1.0 >= 20:
        return None
    d = math.exp(alpha / beta - 1.0)
    return d, beta * d


def summarise(records: Sequence[dict], chosen: int, seed: int) -> dict[str, Estimate]:
    """`path/ITERATION/...` for every audit, and `overoptimisation/...` for the path as a whole. chosen: the kept iteration."""
    if not records:
        return {}
    iterations = sorted({record["iteration"] for record in records})
    ids = [record["prompt_id"] for record in records if record["iteration"] == iterations[0]]
    at = {(record["iteration"], record["prompt_id"]): record for record in records}
    table = {name: np.array([[at[i, p].get(name) for p in ids] for i in iterations], dtype=np.float64) for name in ("kl_nats", "reward", "audit")}
    if all(record.get("utility") is not None for record in records):
        truth = np.array([[at[i, p]["utility"] for p in ids] for i in iterations])
        table["truth"] = truth / max(float(truth[0].std()), 1e-9)
    summary: dict[str, Estimate] = {}
    for row, iteration in enumerate(iterations):
        here = [at[iteration, p] for p in ids]
        summary[f"path/{iteration}/kl"] = paired_difference(table["kl_nats"][row], np.zeros(len(ids)), seed)
        for name in ("reward", "audit", "truth"):
            if name in table:
                summary[f"path/{iteration}/{name}"] = paired_difference(table[name][row], table[name][0], seed)
        if all(record.get("raters") is not None for record in here):
            summary[f"path/{iteration}/raters"] = paired_difference([record["raters"] for record in here], np.zeros(len(ids)), seed)
        for name in DRIFT:
            values = [_drift(record, name) for record in here]
            known = [value for value in values if value is not None]
            if known:
                summary[f"path/{iteration}/{name}"] = mean(known, seed, between=SHARE if name in SHARES else None)
    return summary | _whole_path(table, iterations, chosen, seed)


def _drift(record: dict, name: str) -> float | None:
    """As in the drift table: refusals count on prompts that ask for nothing harmful, and words and repeats by one rule whether the world
    judged the answer or not."""
    if name == "refused" and record["kind"] == "harmful":
        return None
    value = record.get(name, record.get("features", {}).get(name))
    return None if value is None else float(value)


def _whole_path(table: dict[str, np.ndarray], iterations: list[int], chosen: int, seed: int) -> dict[str, Estimate]:
    """Fits with their peaks, and what the audit's choice lost: resampled over prompts, the same for every audit."""
    num_prompts, kept = table["kl_nats"].shape[1], iterations.index(chosen)
    summary: dict[str, Estimate] = {}
    gains = lambda name, chosen_prompts: (table[name] - table[name][0])[:, chosen_prompts].mean(axis=1)  # noqa: E731
    for name in (name for name in ("reward", "audit", "truth") if name in table):

        def fitted(indices: np.ndarray, what: int, name: str = name) -> float:
            """what: 0 alpha, 1 beta, 2 KL at the peak."""
            found = fit_curve(table["kl_nats"][:, indices].mean(axis=1), gains(name, indices))
            if found is None or what < 2:
                return float("nan") if found is None else found[what]
            top = peak(*found)
            return top[0] ** 2 if top else float("nan")

        for what, label in enumerate(("alpha", "beta", "peak_kl")):
            found = bootstrap(lambda indices, what=what, fitted=fitted: fitted(indices, what), num_prompts, seed, num_resamples=400, method="fit, bootstrap")
            if math.isfinite(found.value):
                summary[f"overoptimisation/{name}/{label}"] = found
        measured = gains(name, np.arange(num_prompts))
        quality = fit_quality(table["kl_nats"].mean(axis=1), measured)
        if quality is not None:
            summary[f"overoptimisation/{name}/fit_r2"] = exact(quality, len(iterations), "1 - squared error / squared deviation, over audits")
        summary[f"overoptimisation/{name}/peak_iteration"] = exact(float(iterations[int(measured.argmax())]), num_prompts, "the audit with the highest mean")
        for label, row in (("chosen", kept), ("last", len(iterations) - 1), ("highest", int(measured.argmax()))):
            summary[f"overoptimisation/{name}/{label}"] = paired_difference(table[name][row], table[name][0], seed)
        summary[f"overoptimisation/{name}/last_minus_chosen"] = paired_difference(table[name][-1], table[name][kept], seed)
        summary[f"overoptimisation/{name}/last_minus_highest"] = last_minus_highest(table[name], seed)
    if "truth" in table:
        summary["overoptimisation/gain_lost_frac"] = bootstrap(
            lambda indices: _lost(gains("truth", indices), kept), num_prompts, seed, num_resamples=1000,
            method="1 - chosen / highest of the measured means, which noise favours (never below 0); bootstrap",
        )
    return {name: value for name, value in summary.items() if value.value is not None and math.isfinite(value.value)}


def last_minus_highest(scores: np.ndarray, seed: int) -> Estimate:
    """scores (audits, prompts) -> the last audit's mean less the highest mean, paired over prompts.

    Of audits that stand still one is highest by chance, and a paired interval of it and the last found a fall in one path of five. This
    one holds for the last against every audit at once, so also against whichever came out highest: bootstrap of the largest deviation.
    """
    differences = scores[-1] - scores  # (audits, prompts)
    means, num_prompts = differences.mean(axis=1), scores.shape[1]
    value, how = float(means.min()), "paired bootstrap, at once for all audits"
    if num_prompts < 2:
        return Estimate(value, None, None, num_prompts, how, seed)
    drawn = np.random.default_rng(seed).multinomial(num_prompts, np.full(num_prompts, 1 / num_prompts), NUM_RESAMPLES)  # how often each prompt is
    deviations = drawn @ (differences - means[:, None]).T / num_prompts  # (resamples, audits)
    above, below = (float(np.quantile(most, 0.975)) for most in (deviations.max(axis=1), -deviations.min(axis=1)))
    return Estimate(value, value - above, value + below, num_prompts, how, seed)


def _lost(gains: np.ndarray, kept: int) -> float:
    """The share of the largest gain that the kept audit lacks; nan where nothing was gained anywhere."""
    return 1.0 - gains[kept] / gains.max() if gains.max() > 1e-9 else float("nan")


def best_of_n_curve(records: Sequence[dict], seed: int) -> dict[str, Estimate]:
    """`best_of_n_curve/N/...`: what choosing the best of N by the reward gains over one answer, for N = 1, 2, 4, ...

    records: of `preference.best_of_n`, with the worth, audit score and utility of each of their n answers. All N come from
    the same n answers, without bias: the best of a random subset is the i-th worst with a probability known in closed form
    (Nakano et al. 2021, arXiv 2112.09332, appendix I). KL: log N - (N - 1) / N.
    """
    records = [record for record in records if record.get("samples")]
    if not records:
        return {}
    n = records[0]["n"]
    names = [name for name in ("worth", "audit", "utility") if all(record["samples"].get(name) for record in records)]
    scale = {"worth": 1.0, "audit": 1.0}
    if "utility" in names:
        scale["utility"] = max(float(np.std([value for record in records for value in record["samples"]["utility"]])), 1e-9)
    summary: dict[str, Estimate] = {}
    for size in [2**k for k in range(n.bit_length()) if 2**k <= n]:
        weights = subset_weights(n, size)
        summary[f"best_of_n_curve/{size}/kl"] = exact(math.log(size) - (size - 1) / size, len(records), "analytic: log n - (n - 1) / n")
        for name in names:
            ordered = [np.array(record["samples"][name])[np.argsort(record["samples"]["worth"], kind="stable")] for record in records]
            best, one = [float(weights @ values) / scale[name] for values in ordered], [float(values.mean()) / scale[name] for values in ordered]
            summary[f"best_of_n_curve/{size}/{LABELS[name]}"] = paired_difference(best, one, seed)
    return summary


def subset_weights(n: int, size: int) -> np.ndarray:
    """(n,): how likely the i-th worst of n is the best of a random `size` of them.

    >>> subset_weights(3, 2).tolist()
    [0.0, 0.3333333333333333, 0.6666666666666666]
    """
    return np.array([math.comb(i, size - 1) / math.comb(n, size) for i in range(n)])
