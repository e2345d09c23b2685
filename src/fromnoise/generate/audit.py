"""Audits: what the model that trains nothing thinks of the policy on the way, and the weights it liked best.

Every audit puts the same prompts, with the same noise, to the policy. Its answers are kept, so that the truth about each
moment of the training can be looked up afterwards without the weights of that moment.

An audit model is a reward model as well, and a policy that goes far enough hacks it by the way: its score stays or falls, and
later rises again while the truth falls on. So a later policy must be better by more than chance explains (the rule of one standard
error: Breiman et al. 1984, Classification and Regression Trees, section 3.4.3), and no audit is trusted after a clear fall.
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
from fromnoise.model.heads import members_of
from fromnoise.model.hf import check_finite, save_model
from fromnoise.run.seeds import seed_from

RISE_DEVIATIONS = 1.0  # standard errors by which a later policy must be better to be kept in the place of an earlier one
# Standard errors of a clear fall. Each audit is compared with the one kept: of runs that stand still, 2 in 100 seem to fall once in 9
# audits, 5 in 17, 11 in 25 (simulated, noise drawn anew for every audit; in truth most of it is shared). 2.58 would be 13, 31 and 50.
FALL_DEVIATIONS = 3.3


class Audits:
    """`audits(step, policy)` at each audit; `best` are the weights kept.

    found: one record an audit, {"iteration", "kept", "trusted", "audit_score", "audit_reward", "audit_kl_nats", ...}, means over
    its answers. kept: better than the one kept before it. Not trusted is the first audit that is clearly worse than the one kept,
    and all that follow.
    The answers go to train_state/audits/ as they are made, and to `audits.jsonl` in the end (docs/formats.md).
    """

    def __init__(self, ctx, prompts: Sequence[dict], tokenizer: Tokenizer, shape: RowShape, engine: Engine, models: dict, saved):
        """models: "reference", "reward", "audit". saved: the checkpoint to go on from, or None."""
        self.ctx, self.prompts, self.tokenizer, self.shape, self.engine, self.models = ctx, prompts, tokenizer, shape, engine, models
        self.found: list[dict] = saved.state["audits"] if saved else []
        self.best: dict[str, Tensor] | None = saved.group("best") if saved else None
        self.parts = ctx.folder / "train_state" / "audits"
        self.best_scores = [record["audit"] for record in read_jsonl(self._part(self.chosen["iteration"]))] if self.found else []

    @property
    def chosen(self) -> dict:
        """The last audit that was kept."""
        return next(one for one in reversed(self.found) if one["kept"])

    @property
    def forward_tokens(self) -> int:
        """Tokens that all audits took through a model, once for each model."""
        return sum(one.get("forward_tokens", 0) for one in self.found)

    def begin(self, policy) -> float:
        """The first audit, of the model that practice begins with. Seconds of one, compiling left out."""
        if not self.found:
            self(0, policy)
        return self.ctx.decide("audit_s", lambda: self.seconds)

    def _part(self, iteration: int) -> Path:
        return self.parts / f"iteration-{iteration:06d}.jsonl"

    def __call__(self, iteration: int, policy) -> None:
        settings, autocast, clock = self.ctx.recipe.rlhf, self.ctx.machine.autocast, self.ctx.machine.clock
        check_finite(policy.state_dict(), f"{self.ctx.folder}, iteration {iteration}")
        self.engine.refresh(policy)
        began = clock()
        found = sample(self.engine, self.prompts, self.tokenizer, settings.sampling, seed_from(self.ctx.seed, "audit"), self.shape)
        answers, batches = found.answers, found.answers.batches()
        sampled = clock()
        reward = rollout_scores(self.models["reward"], found, settings.missing_stop_penalty, autocast)  # compiled here, where it is not yet
        scored = clock()
        audit = rollout_scores(self.models["audit"], found, settings.missing_stop_penalty, autocast)
        pass_s = (clock() - scored) / len(members_of(self.models["audit"]))
        logprobs, entropy = answer_logprobs(policy, answers, batches, settings.sampling.temperature, autocast)
        ref_logprobs, _ = answer_logprobs(self.models["reference"], answers, batches, settings.sampling.temperature, autocast)
        kl = masked_sum((logprobs - ref_logprobs).double(), answers.mask, dim=1)  # (S,), k1
        scores = [round(float(score), 6) for score in audit]
        if self.ctx.process.is_main:
            write_jsonl(
                self._part(iteration),
                ({"iteration": iteration, "prompt_id": prompt["id"], "token_ids": answers.answer_ids[i],
                  "text": self.tokenizer.decode_answer(answers.answer_ids[i]),
                  "stopped": bool(found.stopped[i]), "reward": round(float(reward[i]), 6), "audit": scores[i],
                  "kl_nats": round(float(kl[i]), 6)} for i, prompt in enumerate(self.prompts)),
            )  # fmt: skip
        result = {"audit_score": float(audit.mean()), "audit_reward": float(reward.mean()), "audit_kl_nats": float(kl.mean()),
                  "audit_entropy_nats": float(masked_mean(entropy, answers.mask)), "audit_answer_tokens": float(answers.lengths.float().mean()),
                  "audit_stopped_frac": float(found.stopped.float().mean())}  # fmt: skip
        passes = 3 + sum(len(members_of(self.models[name])) for name in ("reward", "audit"))  # sampled; policy, reference and scorers
        self.seconds = sampled - began + (passes - 1) * pass_s
        change = deviations(scores, self.best_scores) if self.found else math.inf
        trusted = not self.found or (self.found[-1]["trusted"] and change >= -FALL_DEVIATIONS)
        kept = trusted and change > RISE_DEVIATIONS
        if kept:
            self.best, self.best_scores = {name: value.clone() for name, value in policy.state_dict().items()}, scores
        self.found.append({"iteration": iteration, "kept": kept, "trusted": trusted, "forward_tokens": answers.num_tokens * passes, **result})
        self.ctx.log(iteration, **result)

    def publish(self, policy) -> dict:
        """Give `policy` the weights that the audits chose, save them with `audits.jsonl`; what stage.json says of it."""
        policy.load_state_dict(self.best)
        if self.ctx.process.is_main:
            save_model(self.ctx.folder, policy, self.tokenizer, eos_ids=self.tokenizer.chat_stop_ids)
            parts = [self._part(one["iteration"]) for one in self.found]
            write_jsonl(self.ctx.folder / "audits.jsonl", (record for path in parts for record in read_jsonl(path)))
        last, chosen = self.found[-1], self.chosen
        fell = next((one for one in self.found if not one["trusted"]), None)
        if chosen["iteration"] != last["iteration"]:
            later = "; it is higher by no more than chance explains" if last["audit_score"] > chosen["audit_score"] else ""
            later = f"; it fell clearly at iteration {fell['iteration']}, and no later score is trusted" if fell else later
            self.ctx.info(
                f"audit: {chosen['audit_score']:.3f} at iteration {chosen['iteration']}, whose policy rlhf/ holds; {last['audit_score']:.3f} at the last{later}"
            )
        return {"chosen_iteration": chosen["iteration"], "audits": self.found, "audit_sft": self.found[0]["audit_score"],
                "audit_chosen": chosen["audit_score"], "audit_last": last["audit_score"], "audit_fell_at": fell and fell["iteration"],
                "kl_chosen_nats": chosen["audit_kl_nats"], "kl_last_nats": last["audit_kl_nats"], "audit_prompts": len(self.prompts)}  # fmt: skip


def deviations(scores: Sequence[float], before: Sequence[float]) -> float:
    """By how many standard errors answers are better than earlier ones to the same prompts (a paired z, of two answers at least); infinite where all differ
    alike."""
    differences = [score - old for score, old in zip(scores, before, strict=True)]
    mean, spread = fmean(differences), stdev(differences)
    return mean * math.sqrt(len(differences)) / spread if spread else math.copysign(math.inf, mean) if mean else 0.0
