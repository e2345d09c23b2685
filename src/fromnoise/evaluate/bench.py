"""What `evaluate` measures and what it measures with: a run's models, its data and its judges, each opened when first used."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from fromnoise.data.conversation import read_conversations
from fromnoise.data.problems import held_out_records, read_problems
from fromnoise.data.shards import TokenShards
from fromnoise.data.tokenizer import Tokenizer
from fromnoise.evaluate import contamination, overoptimisation, preference, questions, safety
from fromnoise.evaluate.answers import Scorer, Subject
from fromnoise.evaluate.records import read_jsonl
from fromnoise.run.errors import UserError
from fromnoise.run.files import read_json
from fromnoise.run.seeds import seed_from
from fromnoise.run.verdict import MODELS, reads
from fromnoise.tasks.problems import FILE_LEVELS, LEVELS, PLAIN_SUMS
from fromnoise.tasks.splits import held_out


@dataclass
class Bench:
    """What is measured and what measures it, opened when first used. `ctx` is the stage's."""

    ctx: object

    @cached_property
    def models(self) -> list[str]:
        """Of the recipe's stages, and the base that it starts `from`; one that an earlier recipe left behind is no model of this run."""
        made = {"base", *reads(self.ctx.recipe, self.ctx.stage)}
        return [name for name in MODELS if name in made and self._folder(name) is not None]

    def _folder(self, name: str) -> Path | None:
        folder = Path(self.ctx.parent(name))
        return folder if (folder / "config.json").exists() else None

    @cached_property
    def _subjects(self) -> dict[str, Subject]:
        return {}

    def model(self, name: str) -> Subject:
        if name not in self._subjects:
            self._subjects[name] = Subject(name, self._folder(name), self.ctx.machine, self.ctx.progress)
        return self._subjects[name]

    @cached_property
    def _scorers(self) -> dict[str, Scorer | None]:
        folders = {name: self.ctx.path(name) for name in ("reward", "audit")}
        return {name: Scorer(folder, self.ctx.machine) if (folder / "config.json").exists() else None for name, folder in folders.items()}

    def scorer(self, name: str) -> Scorer | None:
        return self._scorers[name]

    @property
    def flops(self) -> float:
        """Of everything that was answered and scored so far."""
        return sum(one.flops for one in (*self._subjects.values(), *self._scorers.values()) if one)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.load(self._folder(self.models[-1]))

    @cached_property
    def shards(self) -> TokenShards | None:
        folder, own = self.ctx.path("tokenizer") / "tokens", self.ctx.recipe.sft_from is None  # with `from`, what lies there is in other tokens
        shards = TokenShards(folder, "validation") if own and (folder / "index.json").exists() else None
        return shards if shards and shards.num_tokens else None

    # -- the world's records, absent on real data -------------------------------------------------------------------

    def world(self, name: str) -> list[dict]:
        return read_jsonl(self.ctx.path("prepare") / "world" / f"{name}.jsonl") if self.ctx.recipe.data.world else []

    @cached_property
    def questions(self) -> list[dict]:
        return self.world("questions")

    @cached_property
    def asked(self) -> list[dict]:
        """The questions that are put to every model."""
        return questions.choose(self.questions, self.ctx.recipe.evaluate.num_questions, self.ctx.recipe.evaluate.seed) if "sft" in self.models else []

    @cached_property
    def prompts(self) -> list[dict]:
        """The prompts on which RLHF and SFT are compared."""
        return self.draw(self.held_out_prompts, self.ctx.recipe.evaluate.num_prompts, "prompts")

    @cached_property
    def requests(self) -> list[dict]:
        """Harmful requests and look-alikes: whether a refusal fits is known in the world alone."""
        kept = [prompt for prompt in self.held_out_prompts if prompt.get("kind") in safety.KINDS] if self.judge else []
        return self.draw(kept, self.ctx.recipe.evaluate.num_requests, "requests")

    @cached_property
    def canaries(self) -> list[dict]:
        return self.world("canaries")

    @cached_property
    def conversations(self) -> list[dict]:
        """What `sft` was trained on."""
        files = list(self.ctx.recipe.data.conversations)
        if not files and self.ctx.recipe.data.world:
            files = [str(self.ctx.path("prepare") / "world" / f"conversations_{self.ctx.recipe.sft.conversations}.jsonl")]
        read = [conversation for path in files for conversation in read_conversations(path, lambda bad: None)]  # `sft` has reported the bad ones
        return [{"messages": conversation.messages, "kind": conversation.kind} for conversation in read]

    @cached_property
    def problems(self) -> tuple[list[dict], list[dict]]:
        """(two- and three-digit sums, problems of every level), all from the side that nothing trains on. On real data: the
        file's held-out problems, twice."""
        settings, recipe = self.ctx.recipe.evaluate, self.ctx.recipe
        if recipe.reason.problems is not None:
            own, of_file = self.draw_problems(held_out_records(recipe.reason.problems))
            if not recipe.data.world:
                return own, of_file
        from fromnoise.world import problems

        each = -(-settings.num_sums // len(PLAIN_SUMS))
        sums = self.draw(problems.held_out(PLAIN_SUMS, each, settings.seed, "sums"), settings.num_sums, "sums")
        levels = problems.held_out([level.number for level in LEVELS], settings.num_problems, settings.seed, "levels")
        return sums, levels + (of_file if recipe.reason.problems is not None else [])

    @cached_property
    def training_prompts(self) -> list[dict]:
        """The prompts that later stages than `sft` may learn on, {"messages": [...]} each: `prefer`'s but for those held out, and the
        problems of a file that `reason` practises. (The world's are drawn as practice goes, from the other side of a split.)"""
        found = [{"messages": prompt["messages"]} for prompt in self.prefer_prompts if prompt.get("split") != "held_out"]
        if self.ctx.recipe.reason.problems is not None:
            read = read_problems(self.ctx.recipe.reason.problems, lambda bad: None)
            found += [{"messages": [{"role": "user", "content": one.prompt}]} for one in read if not held_out(one.prompt)]
        return found

    @cached_property
    def measured_sets(self) -> dict[str, list[dict]]:
        """What is put to models, by what it measures: prompt records, of problems {"id", "prompt"}. No set is empty."""
        sums, problems = self.problems if "reason" in self.models else ([], [])
        pairs = {pair["prompt_id"]: {"id": pair["prompt_id"], "messages": pair["messages"]} for pair in self.pairs if pair["split"] == "held_out"}
        sets = {"questions": self.asked, "prompts": self.prompts, "requests": self.requests, "sums": sums, "problems": problems, "pairs": [*pairs.values()]}
        return {name: found for name, found in sets.items() if found}

    @cached_property
    def prefer_prompts(self) -> list[dict]:
        return read_jsonl(self.ctx.path("prefer") / "prompts.jsonl")

    @cached_property
    def pairs(self) -> list[dict]:
        return read_jsonl(self.ctx.path("prefer") / "pairs.jsonl")

    @cached_property
    def held_out_prompts(self) -> list[dict]:
        """The world's held-out prompts; on real data the prompts of held-out pairs, which train neither model, but for those of
        the audits: on them the audit model has chosen rlhf's checkpoint, so that its gain over SFT would be flattered."""
        if self.ctx.recipe.data.world:
            return [prompt for prompt in self.world("prompts") if prompt["split"] == "heldout"]
        held_out = [prompt for prompt in self.prefer_prompts if prompt.get("split") == "held_out"]
        others = [prompt for prompt in held_out if prompt["id"] not in self.audited]
        if 2 * len(others) >= len(held_out):
            return others
        self.ctx.info(
            f"evaluate: of {len(held_out):,} held-out prompts only {len(others):,} had no part in choosing rlhf's checkpoint; all are measured, "
            "so that what the audit model says of rlhf is too good: more held-out pairs, or fewer rlhf.audit_prompts"
        )
        return held_out

    @cached_property
    def audits(self) -> list[dict]:
        return read_jsonl(self.ctx.path("rlhf") / "audits.jsonl")

    @cached_property
    def audited(self) -> set[str]:
        """Ids of the prompts that rlhf's audits asked."""
        return {record["prompt_id"] for record in self.audits}

    # -- judges -----------------------------------------------------------------------------------------------------

    @cached_property
    def judge(self):
        if not self.ctx.recipe.data.world:
            return None
        from fromnoise.world.judging import judge

        return judge

    @cached_property
    def oracle(self):
        if not self.ctx.recipe.data.world:
            return None
        from fromnoise.world.oracle import prefers

        return prefers

    @cached_property
    def utility(self):
        if not self.ctx.recipe.data.world:
            return None
        from fromnoise.world.oracle import utility

        return utility

    @cached_property
    def raters(self):
        """How likely a rater of the judge share, who chose no training pair, is to prefer the first answer."""
        if not self.ctx.recipe.data.world:
            return None
        from fromnoise.world.raters import pool_prob, raters

        people = raters("judge", self.ctx.recipe.seed)
        return lambda prompt, first, second: pool_prob(people, prompt, first, second)

    # -- measurements that need several of the above ------------------------------------------------------------------

    def draw(self, prompts: list[dict], count: int, purpose: str) -> list[dict]:
        """At most `count` of the prompts by a seeded draw, in drawn order: any first part is a draw too."""
        rng = random.Random(f"{self.ctx.recipe.evaluate.seed}/{purpose}")
        return rng.sample(prompts, min(count, len(prompts)))

    def draw_problems(self, found: list[dict]) -> tuple[list[dict], list[dict]]:
        """Of a file's problems (those to be answered greedily, some of every level to be answered several times)."""
        settings = self.ctx.recipe.evaluate
        of_level = [[one for one in found if one["level"] == level] for level in FILE_LEVELS]
        return self.draw(found, settings.num_sums, "sums"), [one for some in of_level for one in self.draw(some, settings.num_problems, "problems")]

    def compare(self, prompts: list[dict], sampling, seed: int, scored: bool = True, logprobs: bool = False) -> list[dict]:
        return preference.compare(
            prompts, self.model("sft"), self.model("rlhf"), sampling, seed, judge=self.judge, oracle=self.oracle, raters=self.raters,
            reward=self.scorer("reward") if scored else None, audit=self.scorer("audit") if scored else None, logprobs=logprobs,
        )  # fmt: skip

    def best_of_n(self, prompts: list[dict], compared: list[dict], settings) -> list[dict]:
        return preference.best_of_n(
            prompts, compared, self.model("sft"), settings.sampling, seed_from(settings.seed, "best_of_n"), settings.best_of_n, judge=self.judge,
            oracle=self.oracle, utility=self.utility, reward=self.scorer("reward"), audit=self.scorer("audit"),
            missing_stop_penalty=self.ctx.recipe.rlhf.missing_stop_penalty,
        )  # fmt: skip

    @property
    def chosen_iteration(self) -> int:
        """The audit whose policy `rlhf/` holds."""
        return read_json(self.ctx.path("rlhf") / "stage.json")["summary"]["chosen_iteration"]

    def judge_audits(self) -> list[dict]:
        prompts = {prompt["id"]: prompt for prompt in self.prefer_prompts}
        return overoptimisation.judge_audits(self.audits, prompts, self.judge, self.utility, self.raters)

    def look_for_sets(self) -> list[dict]:
        """Every prompt that is measured, looked for in the texts that tuning may have learnt from; materials that are not there are left out."""
        try:
            conversations = self.conversations
        except UserError as error:  # `sft` has read them, perhaps elsewhere
            self.ctx.info(f"evaluate: the training conversations cannot be looked through for what is measured: {error}")
            conversations = []
        trained = {"conversations": conversations, "training_prompts": self.training_prompts}
        return contamination.check_sets(self.measured_sets, {name: found for name, found in trained.items() if found})
