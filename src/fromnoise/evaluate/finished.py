"""A finished model by itself and the files it is measured on, where the recipe trains nothing."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from fromnoise.data.problems import problem_records, read_problems
from fromnoise.data.readers import check_columns, read_documents, sources_of
from fromnoise.data.shards import TokenShards, encoded, token_dtype, write_token_index, write_tokens
from fromnoise.evaluate.answers import Scorer
from fromnoise.evaluate.bench import Bench
from fromnoise.model.hf import check_vocabulary
from fromnoise.run.errors import UserError
from fromnoise.run.verdict import has_documents


class FinishedModel(Bench):
    """The model that the recipe names with `from`, here `base` (a reward model: `reward`), and the user's files: nothing of them is held back."""

    def check(self) -> None:
        """Raises UserError for a model that what is given cannot be put to, before anything is read."""
        recipe, folder, configs = self.ctx.recipe, self._folder("base"), []
        if recipe.evaluate.reward_sets:
            configs.append(self.scorer("reward").model_config)
        if has_documents(recipe) or recipe.reason.problems is not None:
            configs.append(self.model("base").model.config)
        check_vocabulary(configs[0], len(self.tokenizer), folder)
        if recipe.reason.problems is not None and self.tokenizer.chat_template is None:
            raise UserError(
                f"{folder}: its tokenizer has no chat template, under which problems are put to a model; leave reason.problems out, or save the "
                "template of a chat model of its family as chat_template.jinja beside tokenizer.json"
            )
        longest, context = recipe.evaluate.sampling.max_new_tokens, configs[0].context_tokens
        if recipe.reason.problems is not None and longest >= context:
            raise UserError(
                f"evaluate.sampling.max_new_tokens = {longest}: an answer of that length leaves no room for a problem in the context of {context} tokens "
                f"of {folder}; lower it"
            )

    def _folder(self, name: str) -> Path:
        return self.ctx.parent(name)

    @cached_property
    def _scorers(self) -> dict[str, Scorer | None]:
        return {"reward": Scorer(self._folder("base"), self.ctx.machine), "audit": None}

    @cached_property
    def shards(self) -> TokenShards | None:
        """The texts as they are, in the model's tokens, each behind the token that the model's texts begin with; kept until the stage is done."""
        if not has_documents(self.ctx.recipe):
            return None
        folder, counts, dtype = self.ctx.folder / "train_state" / "tokens", {}, token_dtype(self.tokenizer.vocab_size)
        sources = sources_of(self.ctx.recipe.data)
        for source in sources:
            check_columns(source)
        for source in sources:
            self.ctx.info(f"evaluate: reading {source.path}")
            batches = encoded(self.tokenizer, read_documents(source, self.ctx.on_bad), lambda num_bytes: None)
            counts[source.name] = write_tokens(folder, "validation", source.name, batches, dtype, self.tokenizer.begin_id)
            self.ctx.check_bad(counts[source.name]["documents"], source.path)
            if not counts[source.name]["documents"]:
                raise UserError(f"{source.path} holds no text that could be read (source {source.name!r}): there is nothing to measure on; name other files")
        write_token_index(folder, {"validation": counts}, dtype)
        return TokenShards(folder, "validation")

    @cached_property
    def problems(self) -> tuple[list[dict], list[dict]]:
        """All of the file's, some drawn; whether any was trained on is not known here."""
        path = self.ctx.recipe.reason.problems
        if path is None:
            return [], []
        read = read_problems(path, self.ctx.on_bad)
        self.ctx.check_bad(len(read), path)
        return self.draw_problems(problem_records(read))
