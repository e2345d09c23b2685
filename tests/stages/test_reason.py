"""reason on a tiny model: exact resume, nothing of equal reward taught, the held-out side untouched, files as problems, a calculator."""

import dataclasses
import json
import shutil
from unittest import mock

import pytest
import torch
from safetensors.torch import load_file

from fromnoise.data.tokenizer import Tokenizer
from fromnoise.generate.engine import Engine
from fromnoise.generate.rollout import RowShape
from fromnoise.model.flops import forward_flops, training_flops_per_token
from fromnoise.model.hf import load_model, wants_calculator
from fromnoise.run.errors import UserError
from fromnoise.stages import reason
from fromnoise.tasks.splits import held_out, held_out_pair

from . import small_run

REASON = {"num_iterations": 4, "levels": [1, 2, 6], "prompts_per_iteration": 12, "group_size": 6, "groups_per_update": 4, "row_tokens": 96,
          "micro_batch_rows": 4, "minibatches": 2, "format_coef": 1.0, "anchor_prompts": 6, "validate_every": 2, "validation_problems": 6,
          "sampling": {"max_new_tokens": 10},
          "optimizer": small_run.OPTIMIZER}  # fmt: skip


def settings(**changes):
    return small_run.recipe(reason={**REASON, **changes}, rlhf={**small_run.RECIPE["rlhf"], "row_tokens": 64})


@pytest.fixture(scope="module")
def parents(tmp_path_factory):
    run = small_run.make(tmp_path_factory.mktemp("reason") / "run", context_tokens=128)
    shutil.copytree(run.path / "sft", run.path / "rlhf")
    (run.path / "prefer").mkdir()
    prompts = [json.loads(line) for line in (run.path / "prepare" / "world" / "prompts.jsonl").read_text().splitlines()]
    lines = [json.dumps({**prompt, "kind": "story", "split": "train"}) + "\n" for prompt in prompts]
    (run.path / "prefer" / "prompts.jsonl").write_text("".join(lines))
    return run


def copy_of(run, folder):
    return small_run.copy_of(run, folder, without="reason")


def do_to_the_last(run, **options):
    """The stage done, with the weights after its last update as `last`: they are not those it keeps where they solve no more than earlier ones."""
    last, refresh = {}, Engine.refresh

    def watched(engine, policy):
        last.update({name: value.clone() for name, value in policy.state_dict().items()})
        refresh(engine, policy)

    with mock.patch.object(Engine, "refresh", watched):
        done = small_run.do(run, "reason", settings(), **options)
    done.last = last
    return done


@pytest.fixture(scope="module")
def made(parents, tmp_path_factory):
    return do_to_the_last(copy_of(parents, tmp_path_factory.mktemp("made") / "run"))


def test_it_runs_and_logs(made):
    steps = [line for line in made.metrics if "reward" in line]
    assert len(steps) == 4 and all(0 <= line["correct_frac"] <= 1 for line in steps)
    assert all(line["tokens_per_s"] > 0 and line["mfu"] > 0 for line in steps)
    assert all(line["sampler_gap_nats"] < 1e-5 for line in steps if line["sampler_gap_nats"] is not None)
    taught = [line for line in steps if line["kl_nats"] is not None]
    assert taught and taught[0]["kl_nats"] == pytest.approx(0, abs=1e-5)  # policy and reference begin as the same weights
    assert taught[0]["anchor_kl_nats"] < max(line["anchor_kl_nats"] for line in taught[1:])  # the first iteration's second update has moved already
    assert [one["iteration"] for one in made.summary["validations"]] == [0, 2, 4]


def test_the_ratio_of_a_group_that_waited_starts_at_1_whatever_the_sampler_said(parents, tmp_path, monkeypatch):
    """A policy that hardly moves, a sampler half a nat off, as in a coarser dtype. The first iteration has each group twice, one to be left
    over; in the second nothing but what waited teaches."""
    write_answers, make_groups = reason.grouped.write_answers, reason.grouped.make_groups

    def off(*arguments, **options):
        return [dataclasses.replace(one, logprobs=[value - 0.5 for value in one.logprobs]) for one in write_answers(*arguments, **options)]

    monkeypatch.setattr(reason.grouped, "write_answers", off)
    monkeypatch.setattr(reason.grouped, "make_groups", lambda *given: [] if given[-1] == 1 else make_groups(*given) + make_groups(*given))
    still = settings(num_iterations=2, groups_per_update=1, optimizer={"muon_lr": 1e-12, "adamw_lr": 1e-12})
    first, second = (line for line in small_run.do(copy_of(parents, tmp_path / "run"), "reason", still).metrics if "reward" in line)
    assert (first["groups_from_buffer"], second["groups_from_buffer"], second["groups_taught"]) == (0, 1, 0)
    assert first["sampler_gap_nats"] == pytest.approx(0.5, abs=1e-4) and second["sampler_gap_nats"] is None
    assert first["ratio"] == pytest.approx(1, abs=1e-5) and second["ratio"] == pytest.approx(1, abs=1e-5)


def test_flops_count_what_is_sampled_scored_and_learnt_from(parents, tmp_path, monkeypatch):
    """Updates read groups, right answers and anchors; groups alone are scored before, by policy and reference."""
    scored, engines, logprobs = [], [], reason.answer_logprobs
    monkeypatch.setattr(reason, "Engine", lambda *given, **options: engines.append(Engine(*given, **options)) or engines[-1])
    monkeypatch.setattr(reason, "answer_logprobs", lambda model, answers, *rest: scored.append(answers.num_tokens) or logprobs(model, answers, *rest))
    made = small_run.do(copy_of(parents, tmp_path / "run"), "reason", settings())
    config, row_tokens = load_model(parents.path / "rlhf").config, settings().reason.row_tokens
    steps = [line for line in made.metrics if "reward" in line]
    assert made.summary["tokens"] == sum(round(line["tokens_per_s"] * line["update_s"]) for line in steps)
    generated = made.summary["flops"] - (made.summary["tokens"] + sum(scored) / 3) * training_flops_per_token(config, row_tokens)
    anchors = generated / forward_flops(config, 1, row_tokens) - engines[0].num_tokens  # answered as all else, then read once more
    assert 0 < round(anchors) == pytest.approx(anchors, abs=1e-3) and anchors < REASON["anchor_prompts"] * 128
    answers = sum(line["answer_tokens"] for line in steps) * settings().reason.prompts_per_iteration * settings().reason.group_size
    assert engines[0].num_tokens > answers  # and prompts, retries, anchors, the problems set aside


def test_anchors_begin_where_the_policy_does(parents, tmp_path):
    done = small_run.do(copy_of(parents, tmp_path / "run"), "reason", settings(minibatches=1, num_iterations=2))
    found = [line["anchor_kl_nats"] for line in done.metrics if line.get("kl_nats") is not None]
    assert found[0] < 1e-3 < found[1]


def test_of_policies_that_solve_as_much_the_earliest_is_kept(parents, made):
    assert {one["correct"] for one in made.summary["validations"]} == {0.0}
    kept, parent = (load_file(folder / "model.safetensors") for folder in (made.folder, parents.path / "rlhf"))
    assert made.summary["chosen_iteration"] == 0 and all(torch.equal(kept[name], value) for name, value in parent.items())
    assert not torch.equal(made.last["norm.weight"], parent["model.norm.weight"])


@pytest.mark.parametrize("stop_after", [0, 2])
def test_interrupted_equals_uninterrupted(parents, made, tmp_path, stop_after):
    resumed = do_to_the_last(copy_of(parents, tmp_path / "run"), stop_after=stop_after)
    assert resumed.outputs == made.outputs and resumed.summary == made.summary
    assert all(torch.equal(resumed.last[name], value) for name, value in made.last.items())
    keys = ("reward", "kl_nats", "policy_loss", "groups_from_buffer", "validation_correct_frac")
    assert [[line.get(key) for key in keys] for line in resumed.metrics] == [[line.get(key) for key in keys] for line in made.metrics]


def test_it_learns_what_the_verifier_rewards(parents, tmp_path):
    """The form alone, here: a random model finds out to name a number and to stop."""
    changes = {"num_iterations": 14, "format_coef": 1.0, "kl_coef": 0.0, "anchor_coef": 0.0, "groups_per_update": 6, "levels": [1],
               "optimizer": {"muon_lr": 0.03, "adamw_lr": 0.01}}  # fmt: skip
    done = small_run.do(copy_of(parents, tmp_path / "run"), "reason", settings(**changes))
    form = [line["form_frac"] for line in done.metrics if "form_frac" in line]
    assert max(form[-3:]) > form[0] + 0.2


def test_problems_practised_on_are_never_held_out(parents, tmp_path):
    ctx = small_run.context(copy_of(parents, tmp_path / "run"), "reason", settings())
    problems = reason.Problems(ctx, Tokenizer.load(parents.path / "rlhf"))
    aside = {one.prompt for one in problems.set_aside(200)}
    drawn = [one for number in range(60) for one in problems.draw([1, 2, 6], "practice", number)]
    assert not aside & {one.prompt for one in drawn}
    sums = [one.check for one in drawn if one.kind == "sum"]
    assert len(sums) > 100 and not any(held_out_pair(check["a"], check["b"]) for check in sums)


def test_problems_from_a_file(parents, tmp_path):
    records = [{"question": f"How much is {n} times 3?", "answer": f"{n}*3 = <<{n}*3={3 * n}>>{3 * n}\n#### {3 * n}"} for n in range(40)]
    records.append({"question": "Why?"})
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    changed = small_run.recipe(data={"world": False}, reason={**REASON, "problems": str(path), "num_iterations": 1})
    run = copy_of(parents, tmp_path / "run")
    done = small_run.do(run, "reason", changed)
    expected = sum(held_out(record["question"]) for record in records[:40])
    assert done.summary["problems_held_out"] == expected > 0 and done.summary["problems"] == 40 - expected
    assert done.summary["levels"] == [101, 102, 103] and any("correct_frac_level_103" in line for line in done.metrics)
    assert json.loads((run.path / "reason" / "bad.jsonl").read_text())["reason"].startswith("no answer")
    too_long = small_run.recipe(data={"world": False}, reason={**REASON, "problems": str(path), "row_tokens": 14})
    with pytest.raises(UserError, match=r"reason\.row_tokens"):
        reason.Problems(small_run.context(copy_of(parents, tmp_path / "other"), "reason", too_long), Tokenizer.load(parents.path / "rlhf"))


@pytest.mark.parametrize("count", [60, 1000])
def test_most_of_a_small_file_is_left_to_practise(parents, tmp_path, count):
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(json.dumps({"question": f"How much is {n} and {n}?", "answer": str(2 * n)}) + "\n" for n in range(count)))
    changed = small_run.recipe(data={"world": False}, reason={**REASON, "problems": str(path)})
    problems = reason.Problems(small_run.context(copy_of(parents, tmp_path / "run"), "reason", changed), Tokenizer.load(parents.path / "rlhf"))
    aside = {one.prompt for one in problems.set_aside(96)}
    for own in problems.from_file.values():
        taken = sum(one.prompt in aside for one in own)
        assert 1 <= taken <= len(own) // 5
    drawn = {one.prompt for number in range(20) for one in problems.draw([101, 102, 103], "practice", number)}
    assert not aside & drawn and len(drawn) > 20
    assert (len(aside) > 90) == (count == 1000)


def test_a_level_without_room_for_an_answer_is_refused_at_the_start(parents, tmp_path):
    tight = settings(row_tokens=24, sampling={"max_new_tokens": 20})
    with pytest.raises(UserError, match=r"problems of level 1 take up to \d+ tokens.*rows of 24; raise reason\.row_tokens"):
        small_run.do(copy_of(parents, tmp_path / "run"), "reason", tight)


def test_updates_left_out_are_counted_and_kept_with_their_anchors(parents, tmp_path, monkeypatch):
    real = reason.update
    given = []

    def update(parameters, optimizer, micro_batches, *arguments, **options):
        given.append(len(micro_batches))
        return dataclasses.replace(real(parameters, optimizer, micro_batches, *arguments, **options), skipped=len(given) in (1, 2))

    monkeypatch.setattr(reason, "update", update)
    done = small_run.do(copy_of(parents, tmp_path / "run"), "reason", settings())
    assert sum(line["skipped"] for line in done.metrics if "skipped" in line) == 2 and any(line.get("skipped") == 0 for line in done.metrics)
    kept = sorted(done.folder.glob("nonfinite*"))
    assert len(kept) == 2
    for path, count in zip(kept, given, strict=False):  # every micro-batch that went into the update, the anchor's too
        assert len({name.split("/")[0] for name in load_file(path) if "/" in name}) == count > 1


def test_a_calculator_at_hand(parents, tmp_path, monkeypatch):
    """With no more iterations than are to show the notation, nothing was practised."""
    shown, demonstrations = [], reason.demonstrations
    monkeypatch.setattr(reason, "demonstrations", lambda *given: shown.append(given) or demonstrations(*given))
    done = small_run.do(copy_of(parents, tmp_path / "run"), "reason", settings(calculator=True, calculator_iterations=8, num_iterations=3))
    assert done.summary["iterations"] == 3 and wants_calculator(done.folder) and len(shown) == 2


def test_without_a_calculator_none_is_promised(made):
    assert not wants_calculator(made.folder)


def test_anchors_are_what_the_reference_says(parents, tmp_path):
    """Their KL is 0 while policy and reference are equal, and grows when the policy moves."""
    ctx = small_run.context(copy_of(parents, tmp_path / "run"), "reason", settings())
    tokenizer, reference = Tokenizer.load(parents.path / "rlhf"), load_model(parents.path / "rlhf")
    shape = RowShape(96, 4, tokenizer.pad_id)
    anchors = reason.make_anchors(ctx, Engine(reference), reference, tokenizer, shape)
    assert anchors and all(len(anchor.ref_hidden) == anchor.batch.num_targets for anchor in anchors)
    again = reason.make_anchors(ctx, Engine(reference), reference, tokenizer, shape)
    assert all(torch.equal(a.ref_hidden, b.ref_hidden) for a, b in zip(anchors, again, strict=True))  # a resumed stage makes the same


def test_prompts_without_room_for_an_anchor_are_an_error_not_a_run_without_anchors(parents, tmp_path):
    ctx = small_run.context(copy_of(parents, tmp_path / "run"), "reason", settings())
    tokenizer, reference = Tokenizer.load(parents.path / "rlhf"), load_model(parents.path / "rlhf")
    with pytest.raises(UserError, match=r"none of 6 prompts .* rlhf\.sampling\.max_new_tokens = 8 .* reason\.row_tokens"):
        reason.make_anchors(ctx, Engine(reference), reference, tokenizer, RowShape(12, 4, tokenizer.pad_id))
