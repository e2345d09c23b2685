"""evaluate on a small run of random models: every part there, the same bytes after a cut, no truth where there is none."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from types import SimpleNamespace

import pytest

from fromnoise.data.tokenizer import Tokenizer
from fromnoise.evaluate.answers import Scorer, Subject
from fromnoise.evaluate.records import read_jsonl, write_jsonl
from fromnoise.model.flops import forward_flops
from fromnoise.run.errors import UserError
from fromnoise.run.folder import stage_of
from fromnoise.run.recipe import Recipe, SamplingSection
from fromnoise.stages import evaluate
from fromnoise.stages.report import run as report
from fromnoise.tasks.problems import FILE_LEVELS
from fromnoise.tasks.splits import held_out as asked_only
from tests.stages import whole_run
from tests.stages.small_run import context


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return whole_run.make(tmp_path_factory.mktemp("evaluate") / "tiny")


@pytest.fixture(scope="module")
def finished(made):
    ctx = context(made, "evaluate", whole_run.recipe())
    evaluate.run(ctx)
    return made, ctx.record


def test_a_model_that_an_earlier_recipe_left_behind_is_not_measured(tmp_path):
    for name in ("base", "sft", "rlhf", "reason"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").touch()
    data = {"path": "text", "conversations": ("chats.jsonl",), "preferences": "pairs.jsonl"}
    for recipe, models in (({"data": data}, ["base", "sft", "rlhf"]), ({"data": data, "reason": {"problems": "a"}}, ["base", "sft", "rlhf", "reason"]),
                           ({"data": data, "from": "b"}, ["base", "sft", "rlhf"])):  # fmt: skip
        ctx = SimpleNamespace(recipe=Recipe.model_validate(recipe), stage=stage_of("evaluate"), parent=lambda name: tmp_path / name)
        assert evaluate.Bench(ctx).models == models


def summary_of(run) -> dict:
    return json.loads((run.path / "evaluate" / "summary.json").read_text())


def test_everything_is_measured_with_its_interval(finished):
    run, record = finished
    found = summary_of(run)
    for name in (
        "bits_per_byte/base/all", "questions/base_plain/form_and_stops", "questions/base_template/form_and_stops", "questions/sft/correct/context",
        "questions/rlhf/ladder/16", "contamination/exact", "memorisation/exposure/16", "reward/accuracy", "reward/attainable", "audit/share_of_attainable",
        "preference/sampled/oracle", "preference/greedy/oracle_length_controlled", "preference/sampled/raters", "preference/sampled/correct_difference",
        "best_of_n/oracle", "best_of_n/kl_per_sequence", "kl/per_sequence", "safety/sampled/balanced_accuracy/difference", "drift/num_words/difference",
        "reason/sums/sft", "reason/sums/reason", "reason/pass_1/rlhf/1", "reason/pass_k/reason/11", "reason/minus_rlhf/sums",
        "reason/minus_sft/everything_else",
    ):  # fmt: skip
        assert name in found, name
        assert set(found[name]) == {"value", "low", "high", "n", "method", "seed"}
    assert found["contamination/exact"]["value"] == 0 and found["preference/audit_prompts"]["value"] == 0
    for name, n in (("questions", 30), ("prompts", 10), ("sums", 6), ("pairs", 6)):
        assert (found[f"contamination/{name}/conversations/exact"]["value"], found[f"contamination/{name}/conversations/exact"]["n"]) == (0, n)
    assert found["bits_per_byte/base/all"]["n"] == sum(found[f"bits_per_byte/base/{source}"]["n"] for source in ("web", "books"))
    for name in ("base", "sft", "rlhf", "reason"):
        assert found[f"bits_per_byte/{name}/web"]["low"] < found[f"bits_per_byte/{name}/web"]["value"] < found[f"bits_per_byte/{name}/web"]["high"]
    assert record["status"] == "done" and "evaluate/records/questions_sft.jsonl" in record["outputs"]
    for one in found.values():
        if one["low"] is not None:
            assert one["low"] - 1e-6 <= one["value"] <= one["high"] + 1e-6, one


def test_records_hold_what_the_numbers_came_from(finished):
    run, _ = finished
    records = read_jsonl(run.path / "evaluate" / "records" / "preference_sampled.jsonl")
    assert len(records) == summary_of(run)["preference/sampled/oracle"]["n"] == 10
    wins = sum(record["oracle"] for record in records) / len(records)
    assert wins == pytest.approx(summary_of(run)["preference/sampled/oracle"]["value"], abs=1e-6)
    assert {"text", "stopped", "reward", "audit", "logprob_sft", "logprob_rlhf", "features"} <= set(records[0]["rlhf"])
    asked = read_jsonl(run.path / "evaluate" / "records" / "questions_base_plain.jsonl")
    assert len(asked) == 30 and all(record["plain_prompt"] == asked[0]["plain_prompt"] for record in asked)
    samples = read_jsonl(run.path / "evaluate" / "records" / "side_by_side.jsonl")
    assert len(samples) == 3 and all({"base", "sft", "rlhf"} <= set(sample) for sample in samples)


@pytest.mark.parametrize("lost", ["preference_greedy", "best_of_n"])
def test_a_cut_evaluation_ends_in_the_same_bytes(finished, tmp_path, lost):
    run, record = finished
    again = type(run)(tmp_path / "tiny")
    shutil.copytree(run.path, again.path)
    stage = json.loads((again.path / "evaluate" / "stage.json").read_text())
    (again.path / "evaluate" / "stage.json").write_text(json.dumps(stage | {"status": "running", "outputs": {}}))
    (again.path / "evaluate" / "summary.json").unlink()
    (again.path / "evaluate" / "records" / f"{lost}.jsonl").unlink()
    (again.path / "evaluate" / "records" / f"{lost}.jsonl.partial").write_text('{"id": "cut of')
    ctx = context(again, "evaluate", whole_run.recipe())
    evaluate.run(ctx)
    assert ctx.record["outputs"] == record["outputs"]


def test_flops_of_a_cut_evaluation_are_those_of_a_whole_one(made, finished, tmp_path, monkeypatch):
    run = type(made)(tmp_path / "tiny")
    shutil.copytree(made.path, run.path, ignore=shutil.ignore_patterns("evaluate"))
    with monkeypatch.context() as cut:
        cut.setattr(evaluate.safety, "summarise", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            evaluate.run(context(run, "evaluate", whole_run.recipe()))
    assert (run.path / "evaluate" / "records" / "safety_sampled.jsonl").exists()
    ctx = context(run, "evaluate", whole_run.recipe())
    evaluate.run(ctx)
    assert ctx.record["outputs"] == finished[1]["outputs"] and ctx.record["flops"] == pytest.approx(finished[1]["flops"])
    found = summary_of(run)
    scored = sum(record["tokens"] for record in read_jsonl(run.path / "evaluate" / "records" / "bits_per_byte_sft.jsonl"))
    assert ctx.record["flops"] > 4 * forward_flops(Subject("sft", run.path / "sft", ctx.machine, ctx.progress).model.config, scored, 256) and found
    assert not (run.path / "evaluate" / "train_state").exists()


def real(made, folder):
    """A run of the user's own data, and its recipe: the small run without its world."""
    run = type(made)(folder / "real")
    shutil.copytree(made.path, run.path, ignore=shutil.ignore_patterns("evaluate", "world"))
    pairs = read_jsonl(run.path / "prefer" / "pairs.jsonl")
    for pair in pairs:
        pair.update(pool_prob_first=None, differ=None)
    write_jsonl(run.path / "prefer" / "pairs.jsonl", pairs)
    write_jsonl(run.path / "prefer" / "prompts.jsonl", [{"id": p["prompt_id"], "kind": None, "messages": p["messages"], "split": p["split"]} for p in pairs])
    conversations = folder / "talk.jsonl"
    conversations.write_text('{"instruction": "What is 1 + 1?", "output": "It is 2."}\n')
    (run.path / "recipe.toml").write_text(f'name = "tiny"\n[data]\npath = "text"\nconversations = ["{conversations}"]\npreferences = "pairs.jsonl"\n')
    return run, pairs, {"conversations": [str(conversations)], "preferences": "pairs.jsonl"}


def test_real_data_has_no_oracle(made, tmp_path):
    """Without the world: preference by reward and audit model on the prompts of held-out pairs, no questions, no truth."""
    run, pairs, data = real(made, tmp_path)
    evaluate.run(context(run, "evaluate", whole_run.recipe(data=data)))
    found = summary_of(run)
    assert {"reward/accuracy", "preference/sampled/reward_win_rate", "preference/sampled/audit_difference", "kl/per_sequence", "best_of_n/reward_difference",
            "bits_per_byte/rlhf/all"} <= set(found)  # fmt: skip
    assert not [name for name in found if "oracle" in name or name.startswith(("questions", "safety", "contamination/exact")) or "attainable" in name]
    for feature in ("refused", "flattery", "hedges", "filler", "polite"):  # read off any text
        for side in ("sft", "rlhf", "difference"):
            one = found[f"drift/{feature}/{side}"]
            assert one["n"] == 6 and one["low"] <= one["value"] <= one["high"]
    assert found["preference/sampled/reward_win_rate"]["n"] == sum(pair["split"] == "held_out" for pair in pairs)
    page = report(run.path).read_text()
    assert page.count("higher by the reward model") == 1
    assert all(words in page for words in ("flattering phrases", "found by lists of phrases", ">refuses<")) and "refuses what is harmless" not in page


def test_prompts_that_chose_the_checkpoint_are_measured_only_for_want_of_others(made, tmp_path):
    run, pairs, data = real(made, tmp_path)
    held_out = sorted({pair["prompt_id"] for pair in pairs if pair["split"] == "held_out"})
    half = len(held_out) // 2
    assert half > 0
    (run.path / "rlhf" / "stage.json").write_text('{"status": "done", "summary": {"chosen_iteration": 0}}')
    for audited, measured, told in ((held_out[:half], held_out[half:], 0), (held_out[: half + 1], held_out, half + 1)):
        answer = {"iteration": 0, "text": "Yes.", "token_ids": [5], "stopped": True, "reward": 0.1, "audit": 0.1, "kl_nats": 0.0}
        write_jsonl(run.path / "rlhf" / "audits.jsonl", [{**answer, "prompt_id": one} for one in audited])
        shutil.rmtree(run.path / "evaluate", ignore_errors=True)
        ctx, said = context(run, "evaluate", whole_run.recipe(data=data)), []
        ctx.info = said.append
        evaluate.run(ctx)
        assert sorted(record["id"] for record in read_jsonl(run.path / "evaluate" / "records" / "preference_greedy.jsonl")) == measured
        assert summary_of(run)["preference/audit_prompts"]["value"] == told
        assert any("too good" in line for line in said) == (told > 0)


def test_on_real_data_what_is_measured_is_looked_for_in_what_was_trained_on(made, tmp_path):
    """A held-out pair's prompt that an SFT conversation has, one that a training prompt has, and a file's problem that is practised but for its case."""
    run, pairs, _ = real(made, tmp_path)
    held_out = [pair for pair in pairs if pair["split"] == "held_out"]
    talk, problems = tmp_path / "talk.jsonl", tmp_path / "problems.jsonl"
    talk.write_text(json.dumps({"instruction": held_out[0]["messages"][0]["content"], "output": "It is 2."}) + "\n")
    prompts = read_jsonl(run.path / "prefer" / "prompts.jsonl")
    write_jsonl(run.path / "prefer" / "prompts.jsonl", [*prompts, {**prompts[0], "id": "x", "messages": held_out[1]["messages"], "split": "train"}])
    kept = [text for text in (f"Ann has {n} hats. How many?" for n in range(99)) if asked_only(text)][:3]
    practised = next(text for text in (kept[0] + "!" * n for n in range(1, 99)) if not asked_only(text))
    problems.write_text("".join(json.dumps({"question": text, "answer": "#### 2"}) + "\n" for text in [*kept, practised]))
    data = {"conversations": [str(talk)], "preferences": "pairs.jsonl"}
    settings = whole_run.recipe(data=data, reason={"problems": str(problems), "sampling": {"max_new_tokens": 6}})
    evaluate.run(context(run, "evaluate", settings))
    found = {name.removeprefix("contamination/"): (one["value"], one["n"]) for name, one in summary_of(run).items() if name.startswith("contamination/")}
    assert found["pairs/conversations/exact"] == found["prompts/conversations/exact"] == (1, len(held_out))
    assert found["pairs/training_prompts/exact"] == (1, len(held_out)) and found["sums/conversations/normalised"] == (0, 3)
    assert found["problems/training_prompts/exact"][0] == 0 and found["problems/training_prompts/normalised"][0] == 1
    page = report(run.path).read_text()
    assert "Found where it must not be" in page and "1 of 6 prompts of RLHF against SFT stand in the training conversations" in page
    shutil.rmtree(run.path / "evaluate")
    talk.unlink()  # the files are elsewhere by now: said, and no reason to fail
    evaluate.run(context(run, "evaluate", settings))
    assert not [name for name in summary_of(run) if "/conversations/" in name]
    assert "The training conversations were not looked through" in report(run.path).read_text()


def test_models_that_are_missing_are_left_out(made, tmp_path):
    run = type(made)(tmp_path / "partial")
    shutil.copytree(made.path, run.path, ignore=shutil.ignore_patterns("evaluate", "rlhf", "reward", "audit", "base"))
    evaluate.run(context(run, "evaluate", whole_run.recipe()))
    found = summary_of(run)
    assert "questions/sft/form_and_stops" in found and not [name for name in found if name.startswith(("preference", "reward", "questions/base"))]


def test_scores_and_logprobs_equal_a_plain_forward_pass(made):
    """The packed path against one sequence at a time; a scorer's normalisation is applied."""
    import torch

    ctx = context(made, "evaluate", whole_run.recipe())
    subject, scorer = Subject("sft", made.path / "sft", ctx.machine, ctx.progress), Scorer(made.path / "reward", ctx.machine)
    prompts = [subject.chat_prompt([{"role": "user", "content": text}]) for text in ("Where is Tolby?", "Add 2 and 3.", "Why?")]
    answers = subject.answer(prompts, SamplingSection(temperature=0.8, max_new_tokens=7), seed=1)
    for answer, score, logprob in zip(answers, scorer.scores(answers, subject.tokenizer.pad_id), subject.logprobs(answers, 0.8), strict=True):
        ids = torch.tensor([[*answer.prompt_ids, *answer.token_ids]])
        with torch.no_grad():
            raw = scorer.model(ids)[0, -1]
            all_logprobs = (subject.model.logits(subject.model(ids)) / 0.8).log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None])
        assert score == pytest.approx((float(raw) - 0.1) / 2.0, abs=1e-4)
        assert logprob == pytest.approx(float(all_logprobs[len(answer.prompt_ids) - 1 :].sum()), rel=1e-4)


def test_plain_prompts_stop_at_an_empty_line(made):
    tokenizer = Tokenizer.load(made.path / "base")
    ctx = context(made, "evaluate", whole_run.recipe())
    subject = Subject("base", made.path / "base", ctx.machine, ctx.progress)
    assert tokenizer.endoftext_id in subject.paragraph_stops
    for token in tokenizer.encode("a\n\nb"):
        assert (token in subject.paragraph_stops) == (b"\n\n" in tokenizer.decode_bytes([token]))


def test_pairs_from_elsewhere_are_measured_and_accounted_for(made, tmp_path):
    """`evaluate.reward_sets`: one pair fits, one is cut, one is too long, one is no pair; by source where there are several."""
    run = type(made)(tmp_path / "sets")
    shutil.copytree(made.path, run.path, ignore=shutil.ignore_patterns("evaluate", "rlhf", "base", "world", "prefer", "tokenizer"))
    (run.path / "prepare" / "world").mkdir()
    folder = tmp_path / "my pairs.d"
    folder.mkdir()
    long = "word " * 400
    pairs = [{"prompt": "Is it far?", "chosen": "Yes.", "rejected": "No.", "kind": "way"}, {"prompt": long, "chosen": "Yes.", "rejected": "No."},
             {"prompt": [{"role": "user", "content": long}, {"role": "assistant", "content": "So?"}, {"role": "user", "content": "Is it?"}],
              "chosen": "Yes.", "rejected": "No."}, {"prompt": "no pair"}]  # fmt: skip
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, pairs)) + "\n")
    (folder / "b.jsonl").write_text(json.dumps({"instruction": "Is it near?", "output_1": "No.", "output_2": "Yes.", "label": 2}) + "\n")
    settings = whole_run.recipe(evaluate={**whole_run.SETTINGS, "reward_sets": [str(folder)], "num_questions": 0, "num_prompts": 0},
                                data={"world": True, "max_bad_frac": 0.2})  # fmt: skip
    evaluate.run(context(run, "evaluate", settings))
    found = summary_of(run)
    assert {name: found[f"reward_sets/my_pairs/{name}"]["value"] for name in ("read", "set_aside", "cut")} == {"read": 4, "set_aside": 1, "cut": 1}
    assert found["reward_sets/my_pairs/audit/accuracy"]["n"] == 3 and found["reward_sets/my_pairs/reward/accuracy/way"]["n"] == 1
    assert found["reward_sets/my_pairs/reward/accuracy_by_source/b.jsonl"]["n"] == 1
    assert len((run.path / "evaluate" / "bad.jsonl").read_text().splitlines()) == 1
    page = report(run.path).read_text()
    assert "right on pairs from elsewhere" in page and "my_pairs" in page and "1 of 4 too long" in page
    shutil.rmtree(run.path / "evaluate")
    with pytest.raises(UserError, match="1 of 5 records are malformed"):
        evaluate.run(context(run, "evaluate", settings.model_copy(update={"data": settings.data.model_copy(update={"max_bad_frac": 0.19})})))
    (folder / "a.jsonl").write_text(json.dumps(pairs[1]) + "\n")  # too long, all of it
    (folder / "b.jsonl").unlink()
    shutil.rmtree(run.path / "evaluate")
    evaluate.run(context(run, "evaluate", settings))
    left = {name: one["value"] for name, one in summary_of(run).items() if name.startswith("reward_sets/")}
    assert left == {"reward_sets/my_pairs/read": 1, "reward_sets/my_pairs/set_aside": 1, "reward_sets/my_pairs/cut": 0}
    assert "1 of 1 too long" in report(run.path).read_text()


def test_a_files_held_out_problems_are_measured_by_level(tmp_path):
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(json.dumps({"Question": f"How much is {n} times 3?", "Answer": 3.0 * n}) + "\n" for n in range(200)))
    for world in (False, True):
        recipe = Recipe.model_validate({"data": {"world": world}, "reason": {"problems": str(path)}, "evaluate": {"num_problems": 4, "num_sums": 10}})
        sums, problems = evaluate.Bench(SimpleNamespace(recipe=recipe)).problems
        assert Counter(one["level"] for one in problems if one["kind"] == "problem") == dict.fromkeys(FILE_LEVELS, 4)
        assert len(sums) == 10 and all(one["kind"] == ("sum" if world else "problem") for one in sums)
