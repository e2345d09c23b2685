"""Audits: what the model that trains nothing thinks of the policy on the way, and the weights it liked best.

Every audit puts the same prompts, with the same noise, to the policy. Its answers are kept, so that the truth about each
moment of the training can be looked up afterwards without the weights of that moment.

An audit model is a reward model as well, and a policy that goes far enough hacks it by the way: its score falls, and later
rises again while the truth falls on. So it is trusted until it falls for the first time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev

from torch import Tensor

from fromnoise.algorithms.masking import masked_mean, masked_sum
from fromnoise.data.tokenizer import Tokenizer
from fromnoise.evaluate.records import read_jsonl, write_jsonl
from fromnoise.generate.engine import Engine
from fromnoise.generate.rollout import RowShape, answer_logprobs, rollout_scores, sample
from fromnoise.model.hf import save_model
from fromnoise.run.seeds import seed_from

# Standard errors of a clear fall. Each audit is compared with the best so far: of runs that stand still, 2 in 100 seem to fall once in
# 9 audits, 5 in 17, 11 in 25 (simulated, noise drawn anew for every audit; in truth most of it is shared). 2.58 would be 13, 31 and 50.
FALL_DEVIATIONS = 3.3


class Audits:
    """`audits(step, policy)` at each audit; `best` are the weights with the highest `audit_score` so far, of those trusted.

    found: one record an audit, {"iteration", "trusted", "audit_score", "audit_reward", "audit_kl_nats", ...}, means over its
    answers. Not trusted is the first audit that is clearly worse than the best before it, and all that follow.
    The answers go to train_state/audits/ as they are made, and to `audits.jsonl` in the end (docs/formats.md).
    """

    def __init__(self, ctx, prompts: Sequence[dict], tokenizer: Tokenizer, shape: RowShape, engine: Engine, models: dict, saved):
        """models: "reference", "reward", "audit". saved: the checkpoint to go on from, or None."""
        self.ctx, self.prompts, self.tokenizer, self.shape, self.engine, self.models = ctx, prompts, tokenizer, shape, engine, models
        self.found: list[dict] = saved.state["audits"] if saved else []
        self.best: dict[str, Tensor] | None = saved.group("best") if saved else None
        self.parts = ctx.folder / "train_state" / "audits"
        self.best_scores = [record["audit"] for record in read_jsonl(self._part(self.chosen))] if self.found else []

    @property
    def chosen(self) -> dict:
        """The trusted audit with the highest score, the first of equal ones."""
        return max((one for one in self.found if one["trusted"]), key=lambda one: one["audit_score"])

    def _part(self, audit: dict) -> Path:
        return self.parts / f"iteration-{audit['iteration']:06d}.jsonl"

    def __call__(self, iteration: int, policy) -> None:
        settings, autocast = self.ctx.recipe.rlhf, self.ctx.machine.autocast
        self.engine.refresh(policy)
        found = sample(self.engine, self.prompts, self.tokenizer, settings.sampling, seed_from(self.ctx.seed, "audit"), self.shape)
        answers, batches = found.answers, found.answers.batches()
        reward, audit = (rollout_scores(self.models[name], found, settings.missing_stop_penalty, autocast) for name in ("reward", "audit"))
        logprobs, entropy = answer_logprobs(policy, answers, batches, settings.sampling.temperature, autocast)
        ref_logprobs, _ = answer_logprobs(self.models["reference"], answers, batches, settings.sampling.temperature, autocast)
        kl = masked_sum((logprobs - ref_logprobs).double(), answers.mask, dim=1)  # (S,), k1
        scores = [round(float(score), 6) for score in audit]
        if self.ctx.process.is_main:
            write_jsonl(
                self._part({"iteration": iteration}),
                ({"iteration": iteration, "prompt_id": prompt["id"], "token_ids": answers.answer_ids[i],
                  "text": self.tokenizer.decode_answer(answers.answer_ids[i]),
                  "stopped": bool(found.stopped[i]), "reward": round(float(reward[i]), 6), "audit": scores[i],
                  "kl_nats": round(float(kl[i]), 6)} for i, prompt in enumerate(self.prompts)),
            )  # fmt: skip
        result = {"audit_score": float(audit.mean()), "audit_reward": float(reward.mean()), "audit_kl_nats": float(kl.mean()),
                  "audit_entropy_nats": float(masked_mean(entropy, answers.mask)), "audit_answer_tokens": float(answers.lengths.float().mean()),
                  "audit_stopped_frac": float(found.stopped.float().mean())}  # fmt: skip
        trusted = not self.found or (self.found[-1]["trusted"] and not clearly_below(scores, self.best_scores))
        if trusted and (not self.found or result["audit_score"] > self.chosen["audit_score"]):
            self.best, self.best_scores = {name: value.clone() for name, value in policy.state_dict().items()}, scores
        self.found.append({"iteration": iteration, "trusted": trusted, **result})
        self.ctx.log(iteration, **result)

    def publish(self, policy) -> dict:
        """Give `policy` the weights that the audits like best, save them with `audits.jsonl`; what stage.json says of it."""
        policy.load_state_dict(self.best)
        if self.ctx.process.is_main:
            save_model(self.ctx.folder, policy, self.tokenizer, eos_ids=self.tokenizer.chat_stop_ids)
            parts = [self._part(one) for one in self.found]
            write_jsonl(self.ctx.folder / "audits.jsonl", (record for path in parts for record in read_jsonl(path)))
        last, chosen = self.found[-1], self.chosen
        fell = next((one for one in self.found if not one["trusted"]), None)
        worse = chosen["iteration"] != last["iteration"]
        if worse:
            later = f"; it fell clearly at iteration {fell['iteration']}, and no later score is trusted" if fell else ""
            self.ctx.info(
                f"audit: {chosen['audit_score']:.3f} at iteration {chosen['iteration']}, whose policy rlhf/ holds; {last['audit_score']:.3f} at the last{later}"
            )
        return {"chosen_iteration": chosen["iteration"], "audits": self.found, "audit_sft": self.found[0]["audit_score"],
                "audit_chosen": chosen["audit_score"], "audit_last": last["audit_score"], "audit_fell_at": fell and fell["iteration"],
                "last_would_be_worse": worse, "kl_chosen_nats": chosen["audit_kl_nats"], "kl_last_nats": last["audit_kl_nats"],
                "audit_prompts": len(self.prompts)}  # fmt: skip


def clearly_below(scores: Sequence[float], best: Sequence[float]) -> bool:
    """Are answers worse than those of the best audit to the same prompts, beyond what chance explains?"""
    differences = [score - before for score, before in zip(scores, best, strict=True)]
    if len(differences) < 2:
        return False
    return fmean(differences) < -FALL_DEVIATIONS * stdev(differences) / math.sqrt(len(differences))
