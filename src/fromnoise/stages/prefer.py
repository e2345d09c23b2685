"""prefer: prompts, the SFT model and raters to pairs of answers and which one was chosen.

Reads `prepare/` (the world's prompts) or the recipe's files, and `sft/`; writes `prefer/pairs.jsonl`, one pair a line
with the token ids that every later stage uses, and `prefer/prompts.jsonl`, the prompts `rlhf` learns on.

Three ways to get pairs: two answers sampled for each prompt and chosen by the world's simulated raters; the same,
chosen by people (the stage then ends its turn until enough are labelled); or a file of pairs that people made.
Prompts are divided between the reward model and the audit model, and each side's into train and held out, so that no
prompt is on two sides. Each batch is a pure function of (seed, batch number): a resume repeats at most one.
Over-long rule: the oldest turns are cut until prompt and answer fit a row, else the pair is set aside; both counted.
"""

from __future__ import annotations

import re
import shlex
import time
from collections import Counter
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

import numpy as np

from fromnoise.data.conversation import fit_prompt, num_records
from fromnoise.data.pairs import tallied
from fromnoise.data.people import comparable, compared_of, labelled
from fromnoise.data.preferences import encoded, read_preferences, votes_of
from fromnoise.data.prompts import pair_prompts, read_prompts, world_prompts
from fromnoise.data.tokenizer import Tokenizer
from fromnoise.data.vote_files import export_rows
from fromnoise.data.votes import FILE as VOTES
from fromnoise.data.votes import read_votes
from fromnoise.evaluate.agreement import agreement
from fromnoise.evaluate.records import is_there, read_jsonl, write_jsonl
from fromnoise.model.config import ModelConfig
from fromnoise.model.flops import forward_flops
from fromnoise.run.budget import more_pairs, steps_for
from fromnoise.run.errors import UserError, Waiting
from fromnoise.run.files import read_json
from fromnoise.run.seeds import seed_from


def run(ctx) -> None:
    data, settings = ctx.recipe.data, ctx.recipe.prefer
    tokenizer = Tokenizer.load(ctx.path("sft"))
    counts: Counter[str] = Counter()
    by_people: dict = {}  # what the votes say of the raters, when they are people
    if data.preferences:
        pairs, prompts = pairs_from_file(ctx, tokenizer, counts)
    else:
        prompts = fitted(load_prompts(ctx), tokenizer, settings.row_tokens - settings.sampling.max_new_tokens, counts)
    if not prompts:
        raise UserError(
            f"none of {counts['prompts_set_aside']:,} prompts leaves room for an answer of prefer.sampling.max_new_tokens = "
            f"{settings.sampling.max_new_tokens} in rows of prefer.row_tokens = {settings.row_tokens}: raise the second or lower the first"
        )
    if not data.preferences:
        sampled = borrowing(ctx, tokenizer, sample_pairs(ctx, tokenizer, prompts, counts), counts)
        if settings.raters == "people":
            pairs, by_people = choose_by_people(ctx, sampled, counts)
        else:
            pairs = choose_by_world(ctx, sampled, prompts)
    if not pairs:
        raise UserError(f"no usable preference pair was left: {dict(counts)}; raise prefer.row_tokens, or {more_pairs(ctx.recipe)}")
    if all(choice is None for pair in pairs for _, choice in votes_of(pair)):
        raise UserError(f"all {sum(len(votes_of(pair)) for pair in pairs):,} votes are ties: nothing says which answers are better; {more_pairs(ctx.recipe)}")
    used = {pair["prompt_id"]: (pair["share"], pair["split"]) for pair in pairs}
    for prompt in prompts:
        # beside pairs of a file every prompt has a side, with a usable pair of its own or without: it may be how a held-out conversation begins
        other = side_of(ctx, prompt) if data.preferences else (None, None)
        prompt["share"], prompt["split"] = used.get(prompt["id"], other)
    write_jsonl(ctx.folder / "pairs.jsonl", pairs)
    write_jsonl(ctx.folder / "prompts.jsonl", prompts)
    summary = {**summarise(pairs), **by_people}
    ctx.log(0, **{name: value for name, value in summary.items() if value is not None})
    num_pairs = len({compared_of(pair).key for pair in pairs}) if data.preferences or by_people else len(pairs)  # of several raters a pair is several records
    ctx.info(f"{told(summary, num_pairs, len(used))}; {dict(counts)}")
    flops = None if data.preferences else flops_of(ctx, counts["generated_tokens"])  # a file's pairs cost no model
    ctx.finish({**summary, **counts, "prompts": len(prompts), "flops": flops})


def prompts_from_file(ctx) -> list[dict]:
    prompts, num_read = read_prompts(ctx.recipe.data.prompts, ctx.on_bad)
    ctx.check_bad(num_read, ctx.recipe.data.prompts)
    return prompts


def load_prompts(ctx) -> list[dict]:
    """The records answers are sampled for, in a shuffled order: the recipe's file, or the world's training prompts."""
    if ctx.recipe.data.prompts:
        prompts = prompts_from_file(ctx)
    elif ctx.recipe.data.world:
        prompts = world_prompts(ctx.path("prepare"), "train")
    else:
        raise UserError("prefer needs prompts: set data.preferences (a file of pairs), data.prompts (a file of prompts), or data.world=true")
    order = np.random.default_rng(seed_from(ctx.seed, "prompts")).permutation(len(prompts))
    return [prompts[i] for i in order]


def fitted(prompts: list[dict], tokenizer: Tokenizer, max_tokens: int, counts: Counter) -> list[dict]:
    """The prompts with their token ids, cut to `max_tokens` or set aside."""
    kept = []
    for prompt in prompts:
        found = fit_prompt(tokenizer, prompt["messages"], max_tokens)
        if found is None:
            counts["prompts_set_aside"] += 1
            continue
        ids, messages = found
        counts["prompts_cut"] += len(messages) < len(prompt["messages"])
        kept.append({**prompt, "messages": messages, "prompt_ids": ids})
    return kept


def side_of(ctx, prompt: dict) -> tuple[str, str]:
    """(share, split) of a prompt: which model its pairs belong to, and whether they train it. By its first question alone: human
    conversations go on, so that one's prompt is the beginning of another's."""
    settings = ctx.recipe.prefer
    draw = np.random.default_rng(seed_from(ctx.seed, "side", prompt.get("opening_id", prompt["id"]))).random(2)
    return "audit" if draw[0] < settings.audit_frac else "reward", "held_out" if draw[1] < settings.held_out_frac else "train"


def sample_pairs(ctx, tokenizer: Tokenizer, prompts: list[dict], counts: Counter) -> list[dict]:
    """`num_pairs` pairs of different answers of the SFT model (or as many as a budget pays for; fewer, not more, where people are to
    label them), a prompt at a time, round and round, in resumable batches."""
    settings = ctx.recipe.prefer
    parts = ctx.folder / "train_state"
    parts.mkdir(exist_ok=True)
    stops = set(tokenizer.chat_stop_ids)
    engine = None

    def answers(number: int) -> list[dict]:
        nonlocal engine
        engine = engine or open_engine(ctx, tokenizer)
        first = number * settings.batch_prompts
        chosen = [prompts[i % len(prompts)] for i in range(first, first + settings.batch_prompts)]
        seed = seed_from(ctx.seed, "answers", number)
        found = engine.generate([p["prompt_ids"] for p in chosen for _ in range(2)], settings.sampling.max_new_tokens, stops, settings.sampling, seed)
        spent = [len(prompt["prompt_ids"]) + sum(len(g.token_ids) for g in found[2 * i : 2 * i + 2]) for i, prompt in enumerate(chosen)]  # read once for both
        for attempt in range(settings.max_resamples):  # a pair of equal answers teaches nothing: draw the second again
            same = [i for i in range(len(chosen)) if found[2 * i].token_ids == found[2 * i + 1].token_ids]
            if not same:
                break
            again = engine.generate(
                [chosen[i]["prompt_ids"] for i in same], settings.sampling.max_new_tokens, stops, settings.sampling, seed_from(seed, "again", attempt)
            )
            for i, generation in zip(same, again, strict=True):
                found[2 * i + 1] = generation
                spent[i] += len(chosen[i]["prompt_ids"]) + len(generation.token_ids)
        return [
            {"prompt": prompt["id"], "answers": [answer_record(tokenizer, generation) for generation in found[2 * i : 2 * i + 2]], "forward_tokens": spent[i]}
            for i, prompt in enumerate(chosen)
        ]

    def part(number: int) -> Path:
        return parts / f"batch-{number:05d}.jsonl"

    def measure_batch_s() -> float:
        start = time.perf_counter()
        write_jsonl(part(0), answers(0))
        return time.perf_counter() - start

    labelled_by_hand = settings.raters == "people"  # seconds of the machine buy more pairs, not people's time to label them
    num_batches = steps_for(ctx, "prefer", -(-settings.num_pairs // settings.batch_prompts), ctx.decide("batch_s", measure_batch_s), more=not labelled_by_hand)
    made = sum(is_there(part(number)) for number in range(num_batches))
    if made > 1:  # the first one may be what the rate was measured with, a moment ago
        ctx.info(f"prefer: {made} of {num_batches} batches of answers were there already")
    pairs, by_id = [], {prompt["id"]: prompt for prompt in prompts}
    with ctx.progress(num_batches, "batch") as progress:
        for number in range(num_batches):
            if not is_there(part(number)):
                write_jsonl(part(number), answers(number))
            for record in read_jsonl(part(number)):
                prompt = by_id[record["prompt"]]
                counts["generated_tokens"] += record.get("forward_tokens", 0)
                if record["answers"][0]["token_ids"] == record["answers"][1]["token_ids"]:
                    counts["identical_answers"] += 1
                    continue
                pairs.append(pair_record(ctx, len(pairs), prompt, record["answers"]))
            progress.advance(1, pairs=len(pairs))
    return pairs if ctx.recipe.budget and not labelled_by_hand else pairs[: settings.num_pairs]


def flops_of(ctx, num_tokens: int) -> float:
    config = ModelConfig.from_hf(read_json(ctx.path("sft") / "config.json"))
    return forward_flops(config, num_tokens, ctx.recipe.prefer.row_tokens)


def open_engine(ctx, tokenizer: Tokenizer):
    from fromnoise.generate.engine import Engine
    from fromnoise.model.hf import load_model

    return Engine(load_model(ctx.path("sft")).to(ctx.machine.device), dtype=ctx.machine.torch_dtype)


def answer_record(tokenizer: Tokenizer, generation) -> dict:
    return {"token_ids": generation.token_ids, "text": tokenizer.decode_answer(generation.token_ids), "stopped": generation.stopped}


def pair_record(ctx, number: int, prompt: dict, answers: list[dict]) -> dict:
    """A pair nobody has chosen from yet. `chosen` becomes 0, 1, or None for a tie."""
    share, split = side_of(ctx, prompt)
    return {
        "id": f"pair-{number:06d}", "prompt_id": prompt["id"], "kind": prompt.get("kind"), "messages": prompt["messages"],
        "prompt_ids": prompt["prompt_ids"], "answers": answers, "share": share, "split": split, "weight": 1.0,
        "rater": None, "chosen": None, "pool_prob_first": None, "differ": None,
    }  # fmt: skip


def borrowing(ctx, tokenizer: Tokenizer, pairs: list[dict], counts: Counter) -> list[dict]:
    """The pairs, where `borrowed_frac` of the training pairs of some kinds have one answer that the model gave to a prompt of another kind.

    For mistakes that the model seldom makes and that reinforcement would find all the same: of questions it can answer it disclaims so
    few that no reward model learns from its own answers that one should not. A question about somebody borrows what was said about
    somebody, with the name exchanged: told apart by names that are out of place, "I know nobody called Ann Lee" was never shown where Ann
    Lee was asked about. No answer changes its split or share.
    """
    settings = ctx.recipe.prefer
    if not settings.borrowed:
        return pairs
    names = [name_in(pair["messages"][-1]["content"]) for pair in pairs]
    pools: dict[tuple, list[int]] = {}
    for at, pair in enumerate(pairs):
        if pair["split"] == "train":
            for named in {False, names[at] is not None}:
                pools.setdefault((pair["share"], pair["kind"], named), []).append(at)
    kinds = sorted({str(pair["kind"]) for pair in pairs})
    for kind in sorted({kind for borrower, lenders in settings.borrowed.items() for kind in (borrower, *lenders)} - set(kinds)):
        # no error: the recipe may be a shipped one, and the prompts another's
        ctx.info(f"prefer.borrowed names {kind!r}, and no pair is of that kind; there are: {', '.join(kinds)}")
    result = []
    for pair, name in zip(pairs, names, strict=True):
        lenders = [kind for kind in settings.borrowed.get(pair["kind"], ()) if (pair["share"], kind, False) in pools]
        if lenders and pair["split"] == "train":
            rng = np.random.default_rng(seed_from(ctx.seed, "borrow", pair["id"]))
            if rng.random() < settings.borrowed_frac:
                key = (pair["share"], lenders[rng.integers(len(lenders))])
                pool = pools.get((*key, name is not None)) or pools[*key, False]
                lender = pool[rng.integers(len(pool))]
                answers, lent = list(pair["answers"]), pairs[lender]["answers"][rng.integers(2)]
                place = int(rng.integers(2))
                answers[place] = renamed(tokenizer, lent, names[lender], name)
                if answers[0]["token_ids"] != answers[1]["token_ids"]:
                    pair = {**pair, "answers": answers, "borrowed": place}
                    counts["borrowed_answers"] += 1
        result.append(pair)
    return result


def name_in(text: str) -> str | None:
    """The name that stands in a question: two words or more with capitals, none of them a sentence's first. None where there is none, or several.

    >>> name_in("Quick question: What does Ann Lee-Hart eat? One word will do."), name_in("Where is Tolby?")
    ('Ann Lee-Hart', None)
    """
    found = set()
    for sentence in re.split(r"[.!?:]\s+", text):
        _, *words = re.findall(r"[\w'’-]+", sentence) or [""]
        for is_name, run in groupby(words, key=lambda word: word[0].isupper()):
            parts = [word.removesuffix("'s").removesuffix("’s") for word in run]
            if is_name and len(parts) > 1:
                found.add(" ".join(parts))
    return found.pop() if len(found) == 1 else None


def renamed(tokenizer: Tokenizer, answer: dict, name: str | None, other: str | None) -> dict:
    """The answer about somebody as one about another."""
    if name is None or other is None or name not in answer["text"]:
        return answer
    text = answer["text"].replace(name, other)
    end = answer["token_ids"][-1:] if answer["stopped"] else []
    return {**answer, "text": text, "token_ids": [*tokenizer.encode_answer(text), *end]}


def choose_by_world(ctx, pairs: list[dict], prompts: list[dict]) -> list[dict]:
    """Simulated raters for every pair, drawn from the pair's share of them; what they choose is all that training sees.

    `prefer.raters_per_pair` different people compare a training pair, one a held-out pair: accuracy is about a single choice.
    `prefer.bias` bends the reward model's raters, and the audit's only where it is shared; the third share is never bent.
    `pool_prob_first`, how likely a rater drawn from that share is to choose the first answer, is kept for the best
    attainable accuracy alone; no training stage reads it.
    """
    from fromnoise.world.judging import judge
    from fromnoise.world.raters import Bias, pool_prob, raters

    by_id = {prompt["id"]: prompt for prompt in prompts}
    given = ctx.recipe.prefer.bias.model_dump()
    shared = given.pop("shared")
    bias = Bias(care_frac=given.pop("care_frac"), patience_frac=given.pop("patience_frac"), added=given)
    pools = {"reward": raters("reward", ctx.recipe.seed, bias), "audit": raters("audit", ctx.recipe.seed, bias if shared else None)}
    for pair in pairs:
        prompt, pool = by_id[pair["prompt_id"]], pools[pair["share"]]
        first, second = (judge(prompt, answer["text"], answer["stopped"]) for answer in pair["answers"])
        rng = np.random.default_rng(seed_from(ctx.seed, "choice", pair["id"]))
        count = ctx.recipe.prefer.raters_per_pair if pair["split"] == "train" else 1
        people = [pool[i] for i in rng.permutation(len(pool))[:count]]
        votes = [(rater.rater_id, 0 if rng.random() < rater.prob_first(prompt, first, second) else 1) for rater in people]
        if count > 1:
            pair["votes"] = votes
            pair["chosen"] = tallied(pair)["chosen"]
        else:
            pair["rater"], pair["chosen"] = votes[0]
        pair["pool_prob_first"] = round(float(pool_prob(pool, prompt, first, second)), 6)
        pair["differ"] = {name: getattr(first, name) != getattr(second, name) for name in ("correct", "relevant")}
    return pairs


def choose_by_people(ctx, pairs: list[dict], counts: Counter) -> tuple[list[dict], dict]:
    """(the labelled pairs, one record a vote; what the votes say of the raters) once people have labelled enough.

    Until then the stage ends its turn: raises Waiting. `prefer/unlabelled.jsonl` holds what to compare, votes come from
    the label page's file beside the stage folders, and `prefer/labels.jsonl` keeps the votes that were used.
    """
    found = comparable(pairs, counts)
    if not found:
        raise UserError(f"no two answers that people could tell apart: {dict(counts)}. Raise prefer.num_pairs or prefer.sampling.temperature.")
    if not (ctx.folder / "unlabelled.jsonl").exists():
        say_what_labels_cannot_mend(ctx, found.values())
        write_jsonl(ctx.folder / "unlabelled.jsonl", found.values())
    votes = [vote for vote in read_votes(ctx.run.path / VOTES) if vote.pair in found]
    num_labelled, wanted = len({vote.pair for vote in votes}), min(ctx.recipe.prefer.num_labelled or len(found), len(found))
    if num_labelled < wanted:
        raise Waiting(f"{num_labelled} of {wanted} pairs labelled", how=f"fromnoise label {shlex.quote(str(ctx.run.path))}")
    write_jsonl(ctx.folder / "labels.jsonl", export_rows({key: compared_of(pair) for key, pair in found.items()}, votes))
    counts["votes"] = len(votes)
    return labelled(found, votes), people_summary(votes)


def say_what_labels_cannot_mend(ctx, pairs: Iterable[dict]) -> None:
    """Before people begin: `reward` needs prompts to train on, to choose by and to hold out, of its own and of the audit's."""
    prompts = Counter({pair["prompt_id"]: (pair["share"], pair["split"]) for pair in pairs}.values())
    for share in ("reward", "audit"):
        train, held_out = (prompts[share, split] for split in ("train", "held_out"))
        if train < 2 or held_out < 1:
            ctx.info(
                f"prefer: {train} prompts of the {share} model's train and {held_out} are held out, and reward needs 2 and 1: it will refuse these pairs when "
                f"all are labelled. Raise prefer.num_pairs or give more prompts first, or change prefer.audit_frac and prefer.held_out_frac"
            )


def people_summary(votes) -> dict:
    """How far the raters can be relied on, as numbers for the summary; None where too few pairs were repeated or shared."""
    measured = {"self_agreement": (said := agreement(votes))["self"], "self_kappa": said["self_kappa"], "alpha": said["alpha"]}
    return {
        "raters": len(said["raters"]), "both_bad": sum(rater["both_bad"] for rater in said["raters"]),
        "shared_pairs": said["alpha"].n, "repeated_pairs": said["self"].n,
        **{f"{name}{end}": getattr(one, part) for name, one in measured.items() for end, part in (("", "value"), ("_low", "low"), ("_high", "high"))},
    }  # fmt: skip


def pairs_from_file(ctx, tokenizer: Tokenizer, counts: Counter) -> tuple[list[dict], list[dict]]:
    """(pairs, prompts) of the recipe's preference file, encoded once. Answers end with the stop token, unless they were cut off."""
    settings = ctx.recipe.prefer
    read = read_preferences(ctx.recipe.data.preferences, ctx.on_bad)
    ctx.check_bad(num_records(read), ctx.recipe.data.preferences)
    counts["pairs_read"] = len(read)
    pairs = []
    for found in read:
        flip = bool(seed_from(ctx.seed, "order", len(pairs)) % 2)  # which answer stands first must say nothing
        record = encoded(found, tokenizer, settings.row_tokens, first_rejected=flip)
        if record is None:
            counts["pairs_set_aside"] += 1
            continue
        counts["pairs_cut"] += len(record["messages"]) < len(found.prompt)
        prompt = {"id": record["prompt_id"], **{name: record[name] for name in ("opening_id", "kind", "messages", "prompt_ids")}}
        pairs.append({**pair_record(ctx, len(pairs), prompt, record["answers"]), **record})
    prompts = prompts_from_file(ctx) if ctx.recipe.data.prompts else pair_prompts(read)
    return pairs, fitted(prompts, tokenizer, settings.row_tokens - settings.sampling.max_new_tokens, counts)


def summarise(pairs: list[dict]) -> dict:
    """Numbers of the pairs as a whole; None where they are unknown (the best attainable of real raters)."""
    number = Counter(f"{pair['share']}_{pair['split']}_pairs" for pair in pairs)
    known = [pair["pool_prob_first"] for pair in pairs if pair["pool_prob_first"] is not None]
    differ = [any(pair["differ"].values()) for pair in pairs if pair["differ"] is not None]
    answers = [answer for pair in pairs for answer in pair["answers"]]
    return {
        "pairs": len(pairs), **dict(sorted(number.items())), "ties": sum(pair["chosen"] is None for pair in pairs),
        "best_attainable": float(np.mean([max(p, 1 - p) for p in known])) if known else None,
        "differ_frac": float(np.mean(differ)) if differ else None,
        "differ_correct_frac": mean_or_none([pair["differ"]["correct"] for pair in pairs if pair["differ"]]),
        "differ_relevant_frac": mean_or_none([pair["differ"]["relevant"] for pair in pairs if pair["differ"]]),
        "stopped_frac": float(np.mean([answer["stopped"] for answer in answers])),
        "mean_answer_tokens": float(np.mean([len(answer["token_ids"]) for answer in answers])),
        "tokens": sum(len(pair["prompt_ids"]) for pair in pairs) + sum(len(answer["token_ids"]) for answer in answers),
    }  # fmt: skip


def told(summary: dict, num_pairs: int, num_prompts: int) -> str:
    """The summary in a line, without what is not known."""
    votes = f"{summary['pairs']:,} votes on " if num_pairs < summary["pairs"] else ""
    parts = [f"{votes}{num_pairs:,} pairs over {num_prompts:,} prompts"]
    if summary["differ_frac"] is not None:
        parts.append(f"{summary['differ_frac']:.0%} differ in correctness or relevance")
    parts += [f"{name} {round(summary[name], 3)}" for name in ("best_attainable", "raters", "self_agreement", "alpha") if summary.get(name) is not None]
    return ", ".join(parts)


def mean_or_none(values: list) -> float | None:
    return float(np.mean(values)) if values else None
