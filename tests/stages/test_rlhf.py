import shutil

import pytest
import torch

from fromnoise.data.tokenizer import Tokenizer
from fromnoise.evaluate.records import read_jsonl
from fromnoise.model.heads import ScoreModel
from fromnoise.model.hf import load_model, save_reward
from fromnoise.stages.rlhf import divide_prompts, explained_variance, prompt_order, split

from . import small_run


@pytest.fixture(scope="module")
def parents(tmp_path_factory):
    """A run with everything that rlhf reads; the reward models have a head at zero: every answer that stops is worth 0."""
    run = small_run.make(tmp_path_factory.mktemp("rlhf") / "run")
    small_run.do(run, "prefer", small_run.recipe())
    tokenizer = Tokenizer.load(run.path / "sft")
    for name in ("reward", "audit"):
        model = ScoreModel(load_model(run.path / "sft"))
        with torch.no_grad():
            model.score.weight.copy_(0.1 * torch.randn(1, 64, generator=torch.Generator().manual_seed(len(name))))
        save_reward(run.path / name, model, tokenizer)
    return run


def copy_of(run, folder):
    shutil.copytree(run.path, folder, ignore=shutil.ignore_patterns("rlhf"))
    return small_run.RunFolder(folder)


@pytest.fixture(scope="module")
def made(parents, tmp_path_factory):
    return small_run.do(copy_of(parents, tmp_path_factory.mktemp("made") / "run"), "rlhf", small_run.recipe())


def test_starts_at_the_sft_model(made):
    """Before the first policy update policy and reference are the same weights: no KL, and ratios of 1."""
    first = made.metrics[1]
    assert first["kl_nats"] == pytest.approx(0, abs=1e-5) and first["kl_k3_nats"] == pytest.approx(0, abs=1e-5)
    assert first["sampler_gap_nats"] < 1e-5  # sampler and trainer compute the same model in fp32
    assert "policy_loss" not in first and "value_loss" in first  # the critic warms up alone


def test_the_checkpoint_kept_is_the_audits_best(made):
    audits = {audit["iteration"]: audit["audit_score"] for audit in made.summary["audits"]}
    assert list(audits) == [0, 2, 4]
    assert audits[made.summary["chosen_iteration"]] == max(audits.values()) == made.summary["audit_chosen"]
    assert made.summary["last_would_be_worse"] == (made.summary["chosen_iteration"] != 4)


@pytest.mark.parametrize("stop_after", [0, 2])  # while the critic warms up; after the policy has moved
def test_interrupted_equals_uninterrupted(parents, made, tmp_path, stop_after):
    resumed = small_run.do(copy_of(parents, tmp_path / "run"), "rlhf", small_run.recipe(), stop_after=stop_after)
    assert resumed.outputs == made.outputs
    keys = ("reward", "kl_nats", "value_loss", "policy_loss", "audit_score")
    assert [[line.get(key) for key in keys] for line in resumed.metrics] == [[line.get(key) for key in keys] for line in made.metrics]


def test_it_learns_to_stop(parents, tmp_path):
    """With every score at 0 only the penalty for not stopping is left to learn from."""
    run = copy_of(parents, tmp_path / "run")
    tokenizer = Tokenizer.load(run.path / "sft")
    for name in ("reward", "audit"):
        save_reward(run.path / name, ScoreModel(load_model(run.path / "sft")), tokenizer)
    settings = small_run.recipe(rlhf={**small_run.RECIPE["rlhf"], "num_iterations": 14, "rollouts_per_iteration": 48, "audit_every": 7, "kl_coef": 0.0,
                                      "max_kl_nats": 1e9, "optimizer": {"muon_lr": 0.03, "adamw_lr": 0.01}})  # fmt: skip
    done = small_run.do(run, "rlhf", settings)
    stopped = [line["stopped_frac"] for line in done.metrics if "stopped_frac" in line]
    assert stopped[0] < 0.5 and max(stopped[-3:]) > 0.9
    assert done.summary["audits"][-1]["audit_score"] > done.summary["audits"][0]["audit_score"]


def test_stops_when_the_policy_has_gone_too_far(parents, tmp_path):
    settings = small_run.recipe(rlhf={**small_run.RECIPE["rlhf"], "max_kl_nats": 1e-4, "num_iterations": 8})
    done = small_run.do(copy_of(parents, tmp_path / "run"), "rlhf", settings)
    assert done.summary["iterations"] < 8 and "max_kl_nats" in done.summary["stopped_early"]


def test_audit_prompts_are_never_practised_on(parents):
    ctx = small_run.context(parents, "rlhf", small_run.recipe())
    prompts, audit_prompts, counts = divide_prompts(ctx, Tokenizer.load(parents.path / "sft"))
    assert len(audit_prompts) == 6 and not {tuple(p["ids"]) for p in prompts} & {tuple(p["ids"]) for p in audit_prompts}
    records = read_jsonl(parents.path / "prefer" / "prompts.jsonl")
    kept_back = sum(record["split"] == "held_out" for record in records) + sum(p["split"] != "held_out" for p in audit_prompts)
    assert len(prompts) + kept_back == len(records) and counts["prompts_set_aside"] == 0
    assert all(p["split"] != "held_out" for p in prompts)  # their pairs measure the models later
    assert all(p["split"] != "train" for p in audit_prompts)  # none of a pair that trained a reward model, while others are left


def test_every_prompt_once_an_epoch():
    seen = [i for iteration in range(6) for i in prompt_order(15, iteration, 5, seed=3)]
    assert sorted(seen[:15]) == list(range(15)) == sorted(seen[15:]) and seen[:15] != seen[15:]
    assert len(set(prompt_order(4, 0, 10, seed=3))) == 4  # more answers than prompts: the epochs go on


def test_split_loses_nothing():
    for count in range(1, 9):
        parts = split(list(range(count)), 3)
        assert [x for part in parts for x in part] == list(range(count)) and all(parts) and len(parts) == min(3, count)


def test_explained_variance():
    returns, mask = torch.tensor([[1.0, 2.0, 4.0, 99.0]]), torch.tensor([[True, True, True, False]])
    assert explained_variance(returns, returns, mask) == 1.0
    assert explained_variance(torch.full_like(returns, 2.0), returns, mask) == pytest.approx(0.0)
    assert explained_variance(-returns, returns, mask) < 0
