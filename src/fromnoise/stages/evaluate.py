"""evaluate: every model of a run, measured; each number with its interval, its count and its method.

Reads the run's models, the world's held-out questions and prompts (or the held-out preference pairs of real data);
writes `evaluate/records/*.jsonl`, one line a measured example, and `evaluate/summary.json`, computed from those lines
alone. Where the recipe trains nothing, the finished model that it names with `from` is measured by itself, on the user's texts, problems
and pairs (evaluate/finished.py). Nothing measured here was trained on (the contamination column says how that was checked), nor did it choose a checkpoint
where there are prompts enough: `preference/audit_prompts` counts those that did.

Each part below is a file of records that appears whole or not at all, so what was cut off goes on with the first part missing. A
part that lacks its models or its data is left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from fromnoise.data.conversation import num_records
from fromnoise.data.preferences import read_preferences
from fromnoise.evaluate import contamination, likelihood, memorisation, overoptimisation, preference, questions, reasoning, reward_accuracy, safety
from fromnoise.evaluate.bench import Bench
from fromnoise.evaluate.finished import FinishedModel
from fromnoise.evaluate.intervals import Estimate, exact
from fromnoise.evaluate.records import is_there, part, rounded
from fromnoise.model.hf import wants_calculator
from fromnoise.run.files import read_json, write_json
from fromnoise.run.seeds import seed_from
from fromnoise.run.verdict import evaluates_alone


def run(ctx) -> None:
    ctx.finish(measure(ctx) if ctx.process.is_main else {})  # one rank measures; its models fit one device


def measure(ctx) -> dict:
    alone = evaluates_alone(ctx.recipe)
    bench = FinishedModel(ctx) if alone else Bench(ctx)
    noted = ctx.folder / "train_state" / "flops.json"  # FLOPs by part, gone when the stage is done
    noted.parent.mkdir(parents=True, exist_ok=True)
    spent: dict[str, float] = read_json(noted) if noted.exists() else {}
    greedy = ctx.recipe.evaluate.sampling.model_copy(update={"temperature": 0.0})

    def records(name: str, make) -> list[dict]:
        """One part: made now, or read where it is there already. What it costs is noted before it appears, so that none is lost."""
        if not is_there(ctx.folder / "records" / f"{name}.jsonl"):
            ctx.info(f"evaluate: {name.replace('_', ' ')}")

        def counted() -> list[dict]:
            before, found = bench.flops, list(make())
            spent[name] = bench.flops - before
            write_json(noted, spent)
            return found

        return part(ctx.folder / "records", name, counted)

    summary = (measure_alone if alone else measure_run)(ctx, bench, records, greedy)
    write_json(
        ctx.folder / "summary.json", {name: {k: rounded(v) if isinstance(v, float) else v for k, v in one.to_json().items()} for name, one in summary.items()}
    )
    return {"measured": len(summary), "models": bench.models, "flops": sum(spent.values())}


def measure_alone(ctx, bench: FinishedModel, records, greedy) -> dict[str, Estimate]:
    """A finished model on what is given. Texts and problems are read before anything is measured: what cannot be used is refused at once."""
    settings, summary = ctx.recipe.evaluate, {}
    bench.check()
    shards, (problems, _) = bench.shards, bench.problems
    for label, path in named_sets(settings.reward_sets).items():
        summary |= measure_set(ctx, bench, label, path, records)
    if shards:
        found = records("bits_per_byte_base", lambda: measure_bits(bench, "base", settings.bits_per_byte_tokens))
        summary |= likelihood.summarise("base", found, settings.seed)
    if problems:
        summary |= solve_all(bench, records, "base", settings.sampling, greedy, wants_calculator(bench.model("base").folder))[1]
    for name, one in summary.items():
        between = f" ({one.low:.4g} to {one.high:.4g})" if one.low is not None else ""
        ctx.info(f"{name}: {one.value:.4g}{between}, n = {one.n:,}" if one.value is not None else f"{name}: nothing to measure")
    return summary


def measure_run(ctx, bench: Bench, records, greedy) -> dict[str, Estimate]:
    """Every model of a run, on whatever there is of its data."""
    settings, seed = ctx.recipe.evaluate, ctx.recipe.evaluate.seed
    summary: dict[str, Estimate] = {}

    # held-out text
    if bench.shards:
        for name in bench.models:
            found = records(f"bits_per_byte_{name}", lambda name=name: measure_bits(bench, name, settings.bits_per_byte_tokens))
            summary |= likelihood.summarise(name, found, seed)

    # questions, asked of base in its best plain form and under the template, of every tuned model
    answered: dict[str, list[dict]] = {}
    asked = bench.asked
    if asked:
        summary |= contamination.summarise(records("contamination", lambda: contamination.check(asked, bench.conversations)))
        kinds = sorted({conversation["kind"] for conversation in bench.conversations if conversation.get("kind")})
        if "base" in bench.models:
            summary |= questions.summarise("base_plain", records("questions_base_plain", lambda: ask_base_plainly(bench, asked, greedy, seed)), kinds)
        for name in bench.models:
            part_name = "base_template" if name == "base" else name
            found = records(f"questions_{part_name}", lambda name=name: questions.ask_chat(bench.model(name), asked, greedy, seed, bench.judge))
            summary |= questions.summarise(part_name, found, kinds)
            answered[name] = found

    # problems with checkable answers, before and after practising them
    if "reason" in bench.models:
        summary |= measure_reasoning(bench, records, answered, greedy)

    # canaries
    if bench.canaries and "base" in bench.models:
        summary |= memorisation.summarise(records("memorisation_base", lambda: memorisation.measure(bench.model("base"), bench.canaries, seed)), seed)

    # the reward models on pairs that trained neither
    for name in ("reward", "audit"):
        if bench.scorer(name) and bench.pairs:
            held_out = [pair for pair in bench.pairs if pair["share"] == name and pair["split"] == "held_out"]
            scored = records(
                f"pairs_{name}", lambda name=name, held_out=held_out: reward_accuracy.score_pairs(held_out, bench.scorer(name), bench.tokenizer.pad_id)
            )
            summary |= reward_accuracy.summarise(name, scored, seed)
            summary |= reward_accuracy.pairs_differing(name, [pair for pair in bench.pairs if pair["share"] == name])
    for label, path in named_sets(settings.reward_sets).items():
        summary |= measure_set(ctx, bench, label, path, records)

    # with RLHF against without: the same prompts, the same decoding
    prompts = bench.prompts
    if prompts and "rlhf" in bench.models:
        whole = settings.sampling.temperature > 0 and settings.sampling.is_whole  # else a mean log-ratio is no KL
        sampled = records("preference_sampled", lambda: bench.compare(prompts, settings.sampling, seed_from(seed, "preference"), logprobs=whole))
        summary |= preference.summarise("sampled", sampled, seed) | preference.drift(sampled, seed)
        chosen_on = [record["id"] for record in sampled if record["id"] in bench.audited]
        summary["preference/audit_prompts"] = exact(len(chosen_on), len(sampled), "count of measured prompts on which the audits chose the checkpoint")
        summary |= preference.summarise("greedy", records("preference_greedy", lambda: bench.compare(prompts, greedy, seed)), seed)
        if bench.scorer("reward") and settings.best_of_n > 1:
            best = records("best_of_n", lambda: bench.best_of_n(prompts[: settings.best_of_n_prompts], sampled, settings))
            summary |= preference.summarise_best_of_n(best, seed) | overoptimisation.best_of_n_curve(best, seed)
        if requests := bench.requests:
            summary |= safety.summarise(
                "sampled", records("safety_sampled", lambda: bench.compare(requests, settings.sampling, seed_from(seed, "safety"), scored=False)), seed
            )
            summary |= safety.summarise("greedy", records("safety_greedy", lambda: bench.compare(requests, greedy, seed, scored=False)), seed)

    # the way there: every audit's answers, judged by those who chose nothing
    if bench.audits:
        summary |= overoptimisation.summarise(records("rlhf_path", bench.judge_audits), bench.chosen_iteration, seed)

    # the same prompts to every model, unpicked
    if prompts and "sft" in bench.models:
        records("side_by_side", lambda: side_by_side(bench, bench.draw(prompts, settings.num_samples, "samples"), settings.sampling, seed))

    # whether anything of all this was trained on
    if bench.measured_sets:
        summary |= contamination.summarise_sets(records("contamination_by_set", bench.look_for_sets))
    return summary


def named_sets(paths: Sequence[str]) -> dict[str, str]:
    """The recipe's sets of pairs by a name for each: the file's or folder's, numbered where two would have the same."""
    found: dict[str, str] = {}
    for path in paths:
        stem = re.sub(r"[^\w-]+", "_", Path(path).name.split(".")[0]) or "pairs"
        name = next(name for name in (stem, *(f"{stem}_{n}" for n in range(2, len(paths) + 1))) if name not in found)
        found[name] = path
    return found


def measure_set(ctx, bench: Bench, label: str, path: str, records) -> dict[str, Estimate]:
    """`reward_sets/LABEL/{reward,audit}/...`: the reward models on pairs of a file that belongs to no stage."""
    scorers = {name: bench.scorer(name) for name in ("reward", "audit") if bench.scorer(name)}
    if not scorers:
        return {}
    read = read_preferences(path, ctx.on_bad)
    ctx.check_bad(num_records(read), path)
    limit = next(iter(scorers.values())).model_config.context_tokens
    pairs, counts = reward_accuracy.encode_set(read, bench.tokenizer, limit, ctx.recipe.evaluate.seed)
    said = f"{counts['read']:,} pairs read, {counts['set_aside']:,} too long for {limit} tokens, {counts['cut']:,} cut"
    ctx.info(f"evaluate: {label}: {said if pairs else said + ': none is left to measure'}")
    summary = {f"reward_sets/{label}/{what}": exact(value, counts["read"], "count of pairs (votes)") for what, value in counts.items()}
    for name, scorer in scorers.items():
        scored = records(f"set_{label}_{name}", lambda scorer=scorer: reward_accuracy.score_pairs(pairs, scorer, bench.tokenizer.pad_id))
        summary |= reward_accuracy.summarise(f"reward_sets/{label}/{name}", scored, ctx.recipe.evaluate.seed)
    return summary


def measure_bits(bench: Bench, name: str, max_tokens: int) -> list[dict]:
    subject = bench.model(name)
    row_tokens = min(256, subject.model.config.context_tokens)
    found = likelihood.scored_rows(
        subject.model,
        bench.shards,
        bench.tokenizer.token_bytes(),
        max_tokens,
        16,
        row_tokens,
        bench.ctx.machine.autocast,
        endoftext_id=bench.tokenizer.begin_id,  # what stands between documents: in a run's own tokens <|endoftext|>, which is the same there
    )
    subject.scored_tokens += sum(row["tokens"] for row in found)
    return found


def measure_reasoning(bench: Bench, records, answered: dict[str, list[dict]], greedy) -> dict[str, Estimate]:
    """Held-out sums, greedily; problems of each level practised and of the harder ones, sampled; and what else changed."""
    settings, summary = bench.ctx.recipe.reason, {}
    found: dict[str, dict[str, list[dict]]] = {}
    for name in [name for name in ("sft", "rlhf", "reason") if name in bench.models]:
        solved, estimates = solve_all(bench, records, name, settings.sampling, greedy, settings.calculator and name == "reason")
        found[name] = solved | {"questions": answered.get(name, [])}
        summary |= estimates
    for name in [name for name in ("sft", "rlhf") if name in found]:
        summary |= reasoning.differences(found["reason"], found[name], f"minus_{name}", bench.ctx.recipe.evaluate.seed)
    return summary


def solve_all(bench: Bench, records, name: str, sampling, greedy, calculator: bool) -> tuple[dict[str, list[dict]], dict[str, Estimate]]:
    """The problems put to one model: ({"sums": greedy answers, "levels": sampled ones}, what they say)."""
    settings, (sums, problems) = bench.ctx.recipe.evaluate, bench.problems
    seed, greedy = settings.seed, greedy.model_copy(update={"max_new_tokens": sampling.max_new_tokens})
    solved = {
        "sums": records(f"reason_sums_{name}", lambda: reasoning.solve(bench.model(name), sums, greedy, seed, calculator)),
        "levels": records(f"reason_levels_{name}", lambda: reasoning.solve(bench.model(name), problems, sampling, seed, calculator, settings.pass_k)),
    }
    return solved, reasoning.summarise_sums(name, solved["sums"]) | reasoning.summarise_levels(name, solved["levels"], settings.pass_k, seed)


def ask_base_plainly(bench: Bench, asked: list[dict], sampling, seed: int) -> list[dict]:
    """The questions as plain text, in the form that serves the base model best on questions left over (or, where none
    are, on training prompts)."""
    taken = {question["id"] for question in asked}
    left = [question for question in bench.questions if question["id"] not in taken] or [p for p in bench.world("prompts") if p["split"] == "train"]
    kinds = {question["kind"] for question in asked}
    trial = bench.draw([prompt for prompt in left if prompt["kind"] in kinds], questions.NUM_TRIALS, "trial")
    form = questions.best_plain_prompt(bench.model("base"), trial, bench.conversations, sampling, seed, bench.judge)
    return questions.ask_plain(bench.model("base"), asked, form, bench.conversations, sampling, seed, bench.judge)


def side_by_side(bench: Bench, prompts: list[dict], sampling, seed: int) -> list[dict]:
    """Each prompt answered by every model; base goes on with the prompt's text until its document ends."""
    texts = [transcript(prompt["messages"]) for prompt in prompts]
    records = [{"id": p["id"], "kind": p.get("kind"), "prompt": text} for p, text in zip(prompts, texts, strict=True)]
    for name in bench.models:
        subject = bench.model(name)
        ids = [subject.plain_prompt(text) if name == "base" else subject.chat_prompt(p["messages"]) for p, text in zip(prompts, texts, strict=True)]
        fitting = [i for i, prompt_ids in enumerate(ids) if subject.fits(prompt_ids, sampling.max_new_tokens)]
        stops = {bench.tokenizer.endoftext_id} if name == "base" else None
        answers = subject.answer([ids[i] for i in fitting], sampling, seed_from(seed, "samples"), stops)
        for i, answer in zip(fitting, answers, strict=True):
            records[i][name] = {"text": answer.text, "stopped": answer.stopped, "num_tokens": len(answer.token_ids)}
    return records


def transcript(messages: list[dict]) -> str:
    """A conversation as text: a single message alone, several with the name of who speaks."""
    return messages[0]["content"] if len(messages) == 1 else "\n\n".join(f"{message['role']}: {message['content']}" for message in messages)
