"""Sequences without words before and beside the text: counted apart, and no row of the text lost."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

from fromnoise.data.loader import StepRows
from fromnoise.data.shards import TokenShards, token_dtype, write_token_index, write_tokens
from fromnoise.data.tokenizer import Tokenizer
from fromnoise.model.flops import training_flops_per_token
from fromnoise.model.hf import load_model
from fromnoise.run.folder import RunFolder
from fromnoise.stages import pretrain

from . import small_run

TEXTS = [f"The {a} {b} went {c}. Nobody saw it."
         for a in ("old", "red", "slow") for b in ("horse", "cart", "dog") for c in ("home", "away", "north", "on")]
PRETRAIN = {"tokens": 40 * 512, "batch_tokens": 512, "row_tokens": 64, "micro_batch_rows": 4, "num_evaluations": 2, "evaluation_tokens": 512,
            "max_passes": 100.0, "num_kept_checkpoints": 2, "probes": ["The old"], "optimizer": small_run.OPTIMIZER}  # fmt: skip
MODEL = {"num_layers": 1, "width": 64, "num_heads": 1, "num_kv_heads": 1, "ffn_width": 64, "context_tokens": 64}


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    run = small_run.make(tmp_path_factory.mktemp("pretrain") / "run")
    folder, tokenizer = run.path / "tokenizer", Tokenizer.train(TEXTS * 3, 320)
    dtype = token_dtype(tokenizer.vocab_size)
    index = {
        split: {"web": write_tokens(folder / "tokens", split, "web", [tokenizer.encode_batch(TEXTS * count)], dtype, tokenizer.endoftext_id)}
        for split, count in (("train", 20), ("validation", 2))
    }
    write_token_index(folder / "tokens", index, dtype)
    tokenizer.save(folder)
    return run


def trained(parent, folder, stop_after=None, **changes):
    settings = small_run.recipe(pretrain={**PRETRAIN, **changes}, model=MODEL)
    return small_run.do(small_run.copy_of(parent, folder, without="base"), "pretrain", settings, stop_after=stop_after)


def test_they_are_logged_and_counted_apart(parent, tmp_path):
    done = trained(parent, tmp_path / "run", procedural_frac=0.25, procedural_rows_frac=0.25)
    steps = [line for line in done.metrics if "grad_norm" in line]
    assert [line["loss_nats"] is None for line in steps] == [True] * 10 + [False] * 30
    assert all(line["procedural_loss_nats"] is not None for line in steps)
    assert steps[0]["procedural_loss_nats"] == pytest.approx(math.log(done.summary["vocab_size"]), rel=0.01)
    assert done.summary["procedural_tokens"] == 10 * 512 + 30 * 512 // 4
    assert done.summary["tokens"] == 40 * 512
    assert len(done.progress) == 40 and all("  loss " in line and "  tokens_per_s " in line and "  mfu " in line for line in done.progress)
    plain = trained(parent, tmp_path / "plain")
    assert done.summary["passes"] == pytest.approx(plain.summary["passes"] * 0.75 * 0.75)
    assert plain.summary["procedural_tokens"] == 0 and all(line["procedural_loss_nats"] is None for line in plain.metrics if "grad_norm" in line)


@pytest.mark.parametrize("weight", [0.25, 3.0])
def test_weights_are_relative_for_the_number_of_passes_too(parent, tmp_path, weight):
    """Weights that sum to 1 cut the steps to a fraction of the text, weights of a thousand lifted the bound altogether."""
    settings = small_run.recipe(pretrain={**PRETRAIN, "tokens": 1_000_000, "max_passes": 2.0}, model=MODEL,
                                data={"sources": [{"name": "web", "path": "web.txt", "weight": weight}]})  # fmt: skip
    done = small_run.do(small_run.copy_of(parent, tmp_path / "run", without="base"), "pretrain", settings)
    assert 1.9 < done.summary["passes"] <= 2.0
    assert done.summary["tokens"] == pytest.approx(2.0 * TokenShards(parent.path / "tokenizer" / "tokens", "train").num_tokens, abs=512)


@pytest.mark.parametrize("stop_after", [None, 20])
def test_a_budget_is_shared_out_anew_by_the_steps_that_were_made(parent, tmp_path, monkeypatch, stop_after):
    """The moment before the first step may be a bad one: half an hour ended with 82 steps where many hundreds fit."""
    monkeypatch.setattr("fromnoise.optim.groups.step_seconds", lambda *_: 0.2)
    settings = small_run.recipe(pretrain={**PRETRAIN, "procedural_frac": 0.5}, model=MODEL, budget="20s")
    done = small_run.do(small_run.copy_of(parent, tmp_path / "run", without="base"), "pretrain", settings, stop_after=stop_after)
    lines = [line for line in done.metrics if "grad_norm" in line]
    assert [line["step"] for line in lines] == list(range(done.summary["num_steps"])) and len(lines) > 30
    wordless = [line["loss_nats"] is None for line in lines]  # the first steps, without a gap
    assert wordless == sorted(wordless, reverse=True) and 0.45 < sum(wordless) / len(lines) < 0.55
    assert lines[-1]["lr_scale"] < 0.1 < lines[len(lines) // 3]["lr_scale"] == 1.0


@pytest.mark.parametrize("step_s", [2.0, 20.0, 200.0])
def test_a_plan_that_is_cut_short_on_the_way_ends_with_the_steps_that_were_made(monkeypatch, step_s):
    """Cut to less than four times what was made, the second look lay behind: the plan ended before the steps that there were."""
    clock, decided = SimpleNamespace(s=0.0), {}
    settings = small_run.recipe(pretrain={**PRETRAIN, "procedural_frac": 0.03}, model=MODEL, budget="1000s")
    ctx = SimpleNamespace(recipe=settings, run=SimpleNamespace(record=lambda stage: None), elapsed_s=lambda: clock.s, info=lambda text: None,
                          decide=lambda key, make: decided.setdefault(key, make()))  # fmt: skip
    monkeypatch.setattr(pretrain, "time", SimpleNamespace(perf_counter=lambda: clock.s))
    plan, again = (pretrain.StepPlan(ctx, StepRows("pretrain", 512, 64, 4, 0.0), tokens_once=1e9) for _ in range(2))
    for one in (plan, again):
        one.fix(0.2)
    wordless, made, progress = plan.num_procedural, [], SimpleNamespace(end_at=lambda total: None)
    for step, _ in plan.steps(lambda step: None, 0, progress):
        made.append(step)
        clock.s += step_s
    assert made == list(range(plan.num_steps)) and len(made) > 50 and plan.num_procedural == wordless
    assert [step for step, _ in again.steps(lambda step: None, 60, progress)] == made[60:]  # cut off and gone on with


def test_without_held_out_text_it_goes_on_and_measures_nothing(parent, tmp_path):
    """One document, or prepare.validation_frac=0."""
    index = parent.path / "tokenizer" / "tokens" / "index.json"
    whole = index.read_text()
    index.write_text(json.dumps({**json.loads(whole), "splits": {**json.loads(whole)["splits"], "validation": {}}}))
    try:
        done = trained(parent, tmp_path / "run", tokens=4 * 512)
    finally:
        index.write_text(whole)
    assert done.summary["validation_bits_per_byte"] is None and done.summary["num_steps"] == 4
    assert not any(name.startswith("validation_bits") for line in done.metrics for name in line)


def test_micro_batches_of_any_size_make_the_same_steps(parent, tmp_path):
    """One row in eight without words: in micro-batches of 8, of 4 and of 1, where most hold none. (Once the fraction was of each micro-batch
    and rounded: in those of 4 it was nothing.)"""
    found = []
    for rows in (8, 4, 1):
        done = trained(parent, tmp_path / f"rows-{rows}", procedural_frac=0.25, procedural_rows_frac=0.125, tokens=8 * 512, micro_batch_rows=rows)
        found.append([[line["loss_nats"] or 0.0, line["procedural_loss_nats"]] for line in done.metrics if "grad_norm" in line])
        assert done.summary["procedural_tokens"] == 2 * 512 + 6 * 64
    assert found[1] == pytest.approx(np.array(found[0]), rel=1e-4) and found[2] == pytest.approx(np.array(found[0]), rel=1e-4)


def test_interrupted_equals_uninterrupted_in_either_part(parent, tmp_path):
    changes = {"procedural_frac": 0.25, "procedural_rows_frac": 0.25, "tokens": 12 * 512}
    whole = trained(parent, tmp_path / "whole", **changes)
    for stop in (1, 7):
        assert trained(parent, tmp_path / f"stopped-{stop}", stop_after=stop, **changes).outputs == whole.outputs


def test_tuning_beside_replayed_text_logs_both_losses(parent, tmp_path):
    trained(parent, tmp_path / "run", procedural_frac=0.25, procedural_rows_frac=0.25, procedural_weight=0.5)
    talks = tmp_path / "talks.jsonl"
    talks.write_text("".join(json.dumps({"prompt": f"Where is {text}", "response": text}) + "\n" for text in TEXTS))
    settings = small_run.recipe(
        data={"conversations": [str(talks)]}, model=MODEL,
        sft={"row_tokens": 64, "batch_tokens": 256, "micro_batch_rows": 4, "replay_frac": 0.25, "replay_weight": 0.15, "optimizer": small_run.OPTIMIZER},
    )  # fmt: skip
    run = small_run.copy_of(RunFolder(tmp_path / "run"), tmp_path / "tuned", without="sft")
    part = small_run.do(small_run.copy_of(run, tmp_path / "in two", without="sft"), "sft", settings, stop_after=2)
    tuned = small_run.do(run, "sft", settings)
    assert all(line["replay_loss_nats"] > 0 and line["loss_nats"] > 0 for line in tuned.metrics if "loss_nats" in line)
    steps = [line for line in tuned.metrics if "grad_norm" in line]
    assert tuned.summary["tokens"] == sum(line["tokens"] for line in steps) < tuned.summary["num_steps"] * 256  # rows are filled up with padding
    assert tuned.summary["flops"] == tuned.summary["tokens"] * training_flops_per_token(load_model(run.path / "sft").config, 64)
    assert part.summary == tuned.summary
