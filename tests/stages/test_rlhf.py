import dataclasses
import json
import math

import pytest
import torch

from fromnoise.data.pairs import tallied_all
from fromnoise.data.shards import token_dtype, write_token_index, write_tokens
from fromnoise.data.tokenizer import Tokenizer
from fromnoise.evaluate.records import read_jsonl, write_jsonl
from fromnoise.generate import audit
from fromnoise.generate.practice import divide_prompts, prompt_order
from fromnoise.generate.rollout import Answers, RowShape, split
from fromnoise.model.flops import training_flops_per_token
from fromnoise.model.heads import ScoreModel
from fromnoise.model.hf import load_model, save_reward
from fromnoise.run.errors import UserError
from fromnoise.run.machine import Machine
from fromnoise.stages import rlhf
from fromnoise.stages.rlhf import explained_variance
from fromnoise.stages.rlhf_offline import Pairs

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
    return small_run.copy_of(run, folder, without="rlhf")


@pytest.fixture(scope="module")
def made(parents, tmp_path_factory):
    return small_run.do(copy_of(parents, tmp_path_factory.mktemp("made") / "run"), "rlhf", small_run.recipe())


def expected_flops(done):
    """PPO: forward and backward of what the updates read; forward alone to sample, by four models to score, and five times an audit."""
    updates = sum(passed_tokens(line) for line in done.metrics if "num_updates" in line)
    forward = 5 * done.summary["tokens"] + sum(one["forward_tokens"] for one in done.summary["audits"])
    return (updates + forward / 3) * training_flops_per_token(load_model(done.folder.parent / "sft").config, small_run.recipe().rlhf.row_tokens)


def test_flops_count_sampling_updates_and_audits(made):
    audits = [one["forward_tokens"] for one in made.summary["audits"]]
    assert all(tokens % 5 == 0 and tokens > 5 * 6 * 2 for tokens in audits)  # six prompts with their answers
    assert made.summary["flops"] == pytest.approx(expected_flops(made))


def test_without_an_iteration_the_sft_model_is_audited_once(parents, tmp_path):
    """Its answers stood twice in audits.jsonl, so that evaluate measured twice as many prompts as there are."""
    done = small_run.do(copy_of(parents, tmp_path / "run"), "rlhf", small_run.recipe(rlhf={**small_run.RECIPE["rlhf"], "num_iterations": 0}))
    assert [one["iteration"] for one in done.summary["audits"]] == [0] and done.summary["iterations"] == 0
    assert len((done.folder / "audits.jsonl").read_text().splitlines()) == 6


def test_an_iteration_is_measured_with_its_text_its_optimizers_and_its_small_minibatches(parents, tmp_path, monkeypatch):
    """A pass over a batch takes 1 s here, an optimizer step 10. Left out, a budget's PPO took nearly twice its share."""
    monkeypatch.setattr(Machine, "seconds_of", lambda self, run: run() or 1.0)
    monkeypatch.setattr(Machine, "clock", lambda self: 0.0)
    monkeypatch.setattr(rlhf, "step_seconds", lambda *given: 10.0, raising=False)
    run = copy_of(parents, tmp_path / "run")
    write_text(run)
    small_run.do(run, "rlhf", small_run.recipe(rlhf={**small_run.RECIPE["rlhf"], "num_iterations": 1, "ptx_coef": 0.3, "micro_batch_rows": 16}))
    decisions = json.loads((run.path / "rlhf" / "stage.json").read_text())["decisions"]
    # two minibatches, each a batch for policy, critic and text, then one for the policy, and three steps of an optimizer; one batch scored by four models
    assert decisions["iteration_s"] == pytest.approx(2 * (4 * 1.0 + 3 * 10.0) + 4 / 3)


@pytest.mark.parametrize(("method", "iterations"), [("ppo", 4), ("dpo", 2)])
def test_a_budget_counts_the_audits(parents, tmp_path, monkeypatch, method, iterations):
    """Measured at the first one, of which there are more; half an hour ended a minute late for those of PPO."""
    settings = small_run.recipe(budget="10h", rlhf={**small_run.RECIPE["rlhf"], "method": method, "dpo": {"epochs": 8.0}})
    begin, counts = audit.Audits.begin, []
    for seconds in (0.0, 100_000.0):
        monkeypatch.setattr(audit.Audits, "begin", lambda self, policy, seconds=seconds: begin(self, policy) * 0 + seconds)
        counts.append(small_run.do(copy_of(parents, tmp_path / str(seconds)), "rlhf", settings).summary["iterations"])
    assert counts[0] >= iterations and counts[1] == 1


def test_starts_at_the_sft_model(made):
    """Before the first policy update policy and reference are the same weights: no KL, and ratios of 1."""
    first = made.metrics[1]
    assert first["kl_nats"] == pytest.approx(0, abs=1e-5) and first["kl_k3_nats"] == pytest.approx(0, abs=1e-5)
    assert first["sampler_gap_nats"] < 1e-5  # sampler and trainer compute the same model in fp32
    assert "policy_loss" not in first and "value_loss" in first  # the critic warms up alone


def test_the_checkpoint_kept_is_the_audits_choice(made):
    audits = {audit["iteration"]: audit["audit_score"] for audit in made.summary["audits"]}
    assert list(audits) == [0, 2, 4]
    assert audits[made.summary["chosen_iteration"]] == made.summary["audit_chosen"] >= audits[0]
    assert [one["iteration"] for one in made.summary["audits"] if one["kept"]][-1] == made.summary["chosen_iteration"]


@pytest.mark.parametrize(
    ("scores", "chosen", "fell_at"),
    [
        ([0.0, 1.0, -1.5, 3.0, 2.0], 1, 2),  # what rises after a clear fall is not trusted
        ([0.0, 1.0, 0.9, 3.0, 2.9], 3, None),  # a fall that chance explains
        ([0.0, 1.0, 1.1, 1.2, 1.3], 1, None),  # rises that chance explains: the earlier policy stays
        ([0.0, -2.0, 1.0, 2.0, 3.0], 0, 1),
    ],
)
def test_an_audit_is_trusted_until_it_falls(parents, tmp_path, monkeypatch, scores, chosen, fell_at):
    """The audit model's scores are replaced by one for each audit, the same for all prompts but for noise; resuming changes nothing."""
    at, noise = {}, torch.linspace(-1, 1, 6)
    call, score = audit.Audits.__call__, audit.rollout_scores

    def remembering(self, iteration, policy):
        at.update(iteration=iteration, model=self.models["audit"])
        return call(self, iteration, policy)

    def scripted(model, found, penalty, autocast):
        real = score(model, found, penalty, autocast)
        return scores[at["iteration"]] + noise.roll(at["iteration"]) if model is at["model"] else real

    monkeypatch.setattr(audit.Audits, "__call__", remembering)
    monkeypatch.setattr(audit, "rollout_scores", scripted)
    settings = small_run.recipe(rlhf={**small_run.RECIPE["rlhf"], "audit_every": 1})
    whole = small_run.do(copy_of(parents, tmp_path / "whole"), "rlhf", settings)
    assert [one["audit_score"] for one in whole.summary["audits"]] == pytest.approx(scores, abs=1e-6)
    assert (whole.summary["chosen_iteration"], whole.summary["audit_fell_at"]) == (chosen, fell_at)
    assert ("no more than chance explains" in " ".join(whole.told)) == (fell_at is None and scores[-1] > scores[chosen])
    resumed = small_run.do(copy_of(parents, tmp_path / "resumed"), "rlhf", settings, stop_after=2)
    assert resumed.outputs == whole.outputs and resumed.summary == whole.summary


def test_a_change_is_measured_in_standard_errors_over_the_same_prompts():
    before = [float(i) for i in range(40)]
    assert audit.deviations(before, before) == 0.0 and audit.deviations([score - 1 for score in before], before) == -math.inf
    noisy = [score - 0.1 + (-1) ** i for i, score in enumerate(before)]  # a tenth less, in differences that spread by 1
    assert audit.deviations(noisy, before) == pytest.approx(-0.1 * math.sqrt(39))  # the deviation of 40 numbers, 1 away from their mean: sqrt(40 / 39)
    assert audit.deviations([1.5, 2.5], [1.0, 2.0]) == math.inf


@pytest.mark.parametrize("stop_after", [0, 2])  # while the critic warms up; after the policy has moved
def test_interrupted_equals_uninterrupted(parents, made, tmp_path, stop_after):
    resumed = small_run.do(copy_of(parents, tmp_path / "run"), "rlhf", small_run.recipe(), stop_after=stop_after)
    assert resumed.outputs == made.outputs
    assert resumed.summary["flops"] == made.summary["flops"]
    keys = ("reward", "kl_nats", "value_loss", "policy_loss", "audit_score")
    assert [[line.get(key) for key in keys] for line in resumed.metrics] == [[line.get(key) for key in keys] for line in made.metrics]


METHODS = {
    "grpo": {"group_size": 4, "aggregation": "sequence"},
    "rloo": {"group_size": 3},
    "dpo": {"dpo": {"batch_pairs": 6, "optimizer": small_run.OPTIMIZER}},
    "best_of_n": {"best_of": {"n": 3, "num_prompts": 20, "batch_tokens": 128, "epochs": 2, "optimizer": small_run.OPTIMIZER}},
}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_the_same_interface_and_resumes_exactly(parents, tmp_path, method):
    settings = small_run.recipe(rlhf={**small_run.RECIPE["rlhf"], "method": method, **METHODS[method]})
    whole = small_run.do(copy_of(parents, tmp_path / "whole"), "rlhf", settings)
    resumed = small_run.do(copy_of(parents, tmp_path / "resumed"), "rlhf", settings, stop_after=2)
    assert resumed.outputs == whole.outputs and resumed.summary == whole.summary
    summary, audits = whole.summary, read_jsonl(whole.folder / "audits.jsonl")
    assert summary["method"] == method and summary["flops"] > 0 and summary["iterations"] > 2
    steps = [audit["iteration"] for audit in summary["audits"]]
    assert steps[0] == 0 and steps[-1] == summary["iterations"] and len(audits) == 6 * len(steps)
    assert summary["audit_chosen"] == max(audit["audit_score"] for audit in summary["audits"] if audit["kept"]) >= summary["audit_sft"]
    assert summary["audits"][0]["audit_kl_nats"] == pytest.approx(0, abs=1e-4) and summary["kl_last_nats"] != 0
    assert len(whole.progress) == summary["iterations"] and all("  mfu " in line for line in whole.progress)
    first = next(line for line in whole.metrics if "loss_nats" in line or "policy_loss" in line)
    if method == "dpo":
        assert first["loss_nats"] == pytest.approx(math.log(2), rel=1e-5)  # before the first update policy and reference are one
        assert first["margin"] == pytest.approx(0, abs=1e-4)
    if method in ("grpo", "rloo"):
        assert first["kl_nats"] == pytest.approx(0, abs=1e-5) and "value_loss" not in first and "equal_groups_frac" in first
    if method == "best_of_n":
        assert summary["best_reward"] > summary["mean_reward"] and summary["best_of_n_kl_nats"] == pytest.approx(math.log(3) - 2 / 3)


def test_ppo_with_everything_on_resumes_exactly(parents, tmp_path):
    """Adaptive coefficient, pretraining text, early end of an iteration's passes, clip-higher."""
    settings = small_run.recipe(rlhf={**small_run.RECIPE["rlhf"], "kl_target_nats": 0.5, "ptx_coef": 0.3, "max_update_kl_nats": 1e-3, "clip_ratio_high": 0.3})
    runs = []
    for name, stop_after in (("whole", None), ("resumed", 2)):
        run = copy_of(parents, tmp_path / name)
        write_text(run)
        runs.append(small_run.do(run, "rlhf", settings, stop_after=stop_after))
    whole, resumed = runs
    assert resumed.outputs == whole.outputs
    assert resumed.summary["flops"] == whole.summary["flops"] == pytest.approx(expected_flops(whole))  # text counts, passes left out do not
    lines = [line for line in whole.metrics if "kl_coef" in line]
    assert [line["kl_coef"] for line in lines] == [line["kl_coef"] for line in resumed.metrics if "kl_coef" in line]
    assert lines[1]["kl_coef"] == pytest.approx(0.05 * 0.98) and lines[2]["kl_coef"] != lines[1]["kl_coef"]  # KL 0 at first: too near
    assert "ptx_loss" not in lines[0] and lines[1]["ptx_loss"] > 3  # while the critic warms up alone the policy reads nothing
    assert min(line["num_updates"] for line in lines[1:]) < max(line["num_updates"] for line in lines)


def test_another_seed_draws_other_answers_and_the_same_audits(parents, made, tmp_path):
    other = small_run.do(copy_of(parents, tmp_path / "run"), "rlhf", small_run.recipe(rlhf={**small_run.RECIPE["rlhf"], "seed": 1}))
    first, second = (read_jsonl(one.folder / "audits.jsonl")[:6] for one in (made, other))
    assert first == second  # the SFT model's answers to the audit prompts
    assert made.metrics[1]["reward"] != other.metrics[1]["reward"] and made.outputs != other.outputs


def write_text(run):
    tokenizer = Tokenizer.load(run.path / "sft")
    texts = [record["messages"][0]["content"] for record in read_jsonl(run.path / "prefer" / "prompts.jsonl")]
    dtype = token_dtype(tokenizer.vocab_size)
    count = write_tokens(run.path / "tokenizer" / "tokens", "train", "web", [tokenizer.encode_batch(texts)], dtype, tokenizer.endoftext_id)
    write_token_index(run.path / "tokenizer" / "tokens", {"train": {"web": count}}, dtype)


def test_ptx_without_text_says_what_is_missing(parents, tmp_path):
    settings = small_run.recipe(rlhf={**small_run.RECIPE["rlhf"], "ptx_coef": 0.3})
    with pytest.raises(UserError, match=r"tokenizer/tokens/index\.json: not found"):  # of recipes without such text `run` asks before (tests/run)
        small_run.do(copy_of(parents, tmp_path / "run"), "rlhf", settings)


def passed_tokens(line):
    return round(line["tokens_per_s"] * line["update_s"])


def test_speed_counts_what_the_updates_saw(made):
    """Two passes over the answers: of the critic alone at first, then of the policy, with the critic's first."""
    first, second, *_ = [line for line in made.metrics if "num_updates" in line]
    assert passed_tokens(first) == 2 * first["tokens"] and passed_tokens(second) == (2 + 1) * second["tokens"]


def test_later_passes_move_the_policy_alone(parents, tmp_path, monkeypatch):
    """While the critic warms up it has every pass; then the first pass trains it and reads text, and the second does neither."""
    calls, real = [], rlhf.update

    def update(parameters, optimizer, batches, losses, counts, **options):
        calls.append("+".join(counts))
        return real(parameters, optimizer, batches, losses, counts, **options)

    monkeypatch.setattr(rlhf, "update", update)
    run = copy_of(parents, tmp_path / "run")
    write_text(run)
    changes = {"ptx_coef": 0.3, "num_iterations": 2, "critic_warmup_iterations": 1, "minibatches": 2, "ppo_epochs": 2}
    small_run.do(run, "rlhf", small_run.recipe(rlhf={**small_run.RECIPE["rlhf"], **changes}))
    assert calls == ["value"] * 4 + ["value", "policy+ptx"] * 2 + ["policy"] * 2


@pytest.mark.parametrize("num_iterations", [1, 2])
def test_a_run_no_longer_than_the_critics_warm_up_trains_the_policy_all_the_same(parents, tmp_path, num_iterations):
    """A budget may leave so few iterations: the SFT model went on as the one that RLHF had made."""
    changes = {"num_iterations": num_iterations, "critic_warmup_iterations": 2}
    done = small_run.do(copy_of(parents, tmp_path / "run"), "rlhf", small_run.recipe(rlhf={**small_run.RECIPE["rlhf"], **changes}))
    assert ["policy_loss" in line for line in done.metrics if "num_updates" in line] == [False] * (num_iterations - 1) + [True]


@pytest.mark.parametrize(("limit", "passes"), [(1e-9, 1), (1e9, 3)])
def test_passes_end_when_the_policy_has_gone_far(parents, tmp_path, limit, passes):
    """One update a pass: what that update logs is 0, from before it; the distance after it is what ends the passes."""
    changes = {"minibatches": 1, "ppo_epochs": 3, "max_update_kl_nats": limit, "num_iterations": 2}
    done = small_run.do(copy_of(parents, tmp_path / "run"), "rlhf", small_run.recipe(rlhf={**small_run.RECIPE["rlhf"], **changes}))
    first, second = [line for line in done.metrics if "num_updates" in line]
    assert first["num_updates"] == 3  # the critic alone: the policy has not moved
    assert second["num_updates"] == passes and passed_tokens(second) == (passes + 1) * second["tokens"]


def test_what_is_watched_is_a_mean_over_tokens(parents, tmp_path, monkeypatch):
    """Not over micro-batches: a last one of a single row would count as much as one of four."""
    tokens = []
    monkeypatch.setattr(rlhf, "ppo_policy_stats", lambda logprobs, old, mask, *bounds: tokens.append(int(mask.sum())) or {"ratio": float(mask.sum())})
    changes = {"method": "grpo", **METHODS["grpo"], "num_iterations": 1, "minibatches": 1, "ppo_epochs": 1, "micro_batch_rows": 2}
    done = small_run.do(copy_of(parents, tmp_path / "run"), "rlhf", small_run.recipe(rlhf={**small_run.RECIPE["rlhf"], **changes}))
    (line,) = [line for line in done.metrics if "num_updates" in line]
    assert len(set(tokens)) > 1 and line["ratio"] == pytest.approx(sum(n * n for n in tokens) / sum(tokens))


def test_updates_left_out_are_counted_and_each_is_kept(parents, tmp_path, monkeypatch):
    calls, real = [], rlhf.update

    def update(*arguments, **options):
        calls.append(1)
        return dataclasses.replace(real(*arguments, **options), skipped=len(calls) in (2, 3))

    monkeypatch.setattr(rlhf, "update", update)
    done = small_run.do(copy_of(parents, tmp_path / "run"), "rlhf", small_run.recipe())
    assert [line["skipped"] for line in done.metrics if "num_updates" in line] == [2, 0, 0, 0]
    assert sorted(path.name for path in done.folder.glob("nonfinite*")) == ["nonfinite-step-0-1.safetensors", "nonfinite-step-0-2.safetensors"]


def test_dpo_learns_from_no_pair_of_an_audit_prompt_and_counts_votes_as_the_reward_model_did(parents, tmp_path):
    """Where every prompt has a pair, audits take some of those that were to be trained on."""
    run = copy_of(parents, tmp_path / "run")
    for name in ("pairs", "prompts"):
        path = run.path / "prefer" / f"{name}.jsonl"
        write_jsonl(path, [{**record, "split": "train", **({"share": "reward"} if name == "pairs" else {})} for record in read_jsonl(path)])
    ctx = small_run.context(run, "rlhf", small_run.recipe(reward={**small_run.RECIPE["reward"], "rater_weights": "agreement"}))
    tokenizer, model = Tokenizer.load(run.path / "sft"), load_model(run.path / "sft")
    _, audit_prompts, _ = divide_prompts(ctx, tokenizer)
    data, audited = Pairs(ctx, RowShape(64, 4, tokenizer.pad_id), model, audit_prompts), {prompt["id"] for prompt in audit_prompts}
    pairs = read_jsonl(run.path / "prefer" / "pairs.jsonl")
    assert data.num_audited == sum(pair["prompt_id"] in audited for pair in pairs) > 0
    assert not {pair["prompt_id"] for pair in data.pairs} & audited and len(data.pairs) + data.num_audited + data.num_too_long == len(pairs)
    assert data.summary()["audited_pairs"] == data.num_audited
    kept = [pair for pair in pairs if pair["prompt_id"] not in audited]
    assert [pair["weight"] for pair in data.pairs] == [pair["weight"] for pair in tallied_all(kept, "agreement")[0]]


def test_dpo_watches_no_ties(parents, tmp_path):
    """A tie has no chosen answer: with ties alone there is a loss and nothing to put in order; with some, the others are watched."""
    settings = small_run.recipe(rlhf={**small_run.RECIPE["rlhf"], "method": "dpo", **METHODS["dpo"]})
    run, whole = copy_of(parents, tmp_path / "run"), read_jsonl(parents.path / "prefer" / "pairs.jsonl")
    write_jsonl(run.path / "prefer" / "pairs.jsonl", [{**pair, "chosen": None if n % 3 == 0 else pair["chosen"]} for n, pair in enumerate(whole)])
    model, shape = load_model(run.path / "sft"), RowShape(64, 4, Tokenizer.load(run.path / "sft").pad_id)
    data, seen = Pairs(small_run.context(run, "rlhf", settings), shape, model, []), []
    data.reference += torch.randn(data.reference.shape, generator=torch.Generator().manual_seed(0))
    batch, members = data.micro_batches(0)[0]
    data.losses(model, (batch, members), seen)
    ratios = (data._answer_logprobs(model, batch).detach() - data.reference[members]).tolist()
    choices = [data.pairs[i]["chosen"] for i in members]
    gained = [(r[chosen], r[1 - chosen]) for r, chosen in zip(ratios, choices, strict=True) if chosen is not None]
    assert 0 < len(gained) < len(members) and seen[0]["count"] == len(gained)
    expected = {"accuracy": [a > b for a, b in gained], "margin": [0.1 * (a - b) for a, b in gained], "chosen_log_ratio": [a for a, _ in gained]}
    assert {name: seen[0][name] for name in expected} == pytest.approx({name: sum(values) / len(gained) for name, values in expected.items()}, rel=1e-4)
    data.pairs = [{**pair, "chosen": None} for pair in data.pairs]
    assert data.losses(model, (batch, members), seen)["loss"].sum.isfinite() and len(seen) == 1


def test_best_of_n_takes_each_prompt_once(parents, tmp_path):
    """Fewer prompts than were asked for: the last part of 32 begins them anew, and that is left out."""
    options = {**METHODS["best_of_n"]["best_of"], "num_prompts": 1000, "epochs": 1}
    settings = small_run.recipe(rlhf={**small_run.RECIPE["rlhf"], "method": "best_of_n", "best_of": options})
    done = small_run.do(copy_of(parents, tmp_path / "run"), "rlhf", settings)
    assert done.summary["prompts"] % 32 and done.summary["answers"] == 3 * done.summary["prompts"]
    longest = max(len(prompt["prompt_ids"]) for prompt in read_jsonl(parents.path / "prefer" / "prompts.jsonl")) + 3 * 8
    learnt = sum(line["tokens"] for line in done.metrics if "loss_nats" in line)
    assert done.summary["tokens"] - learnt <= longest * done.summary["prompts"]  # a prompt is read once for its three answers


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
    held_out = sum(record["split"] == "held_out" for record in records)
    # held-out pairs first: what no pair was made of are the prompts that are always answered alike, which audit nothing
    assert sum(p["split"] == "held_out" for p in audit_prompts) == min(6, held_out) > 0
    assert all(p["split"] != "train" for p in audit_prompts)  # none of a pair that trained a reward model, while others are left


def test_prompts_that_are_one_once_their_beginnings_are_cut_stand_on_one_side(parents, tmp_path):
    """Long conversations may all come down to "Go on.": what is kept apart of one must not be practised on as another."""
    run = copy_of(parents, tmp_path / "run")
    long = "What is 3 + 4? " * 20
    turns = lambda n: [{"role": "user", "content": f"{n} {long}"}, {"role": "assistant", "content": long}, {"role": "user", "content": "Go on."}]  # noqa: E731
    records = [{**record, "messages": turns(n)} if n < 12 else record for n, record in enumerate(read_jsonl(parents.path / "prefer" / "prompts.jsonl"))]
    assert len({record["split"] for record in records[:12]}) > 1
    write_jsonl(run.path / "prefer" / "prompts.jsonl", records)
    practised, audited, counts = divide_prompts(small_run.context(run, "rlhf", small_run.recipe()), Tokenizer.load(parents.path / "sft"))
    assert counts["prompts_cut"] == 12 and practised
    assert not {tuple(one["ids"]) for one in practised} & {tuple(one["ids"]) for one in audited}


def test_without_a_prompt_to_practise_on_it_is_said(parents, tmp_path):
    run = copy_of(parents, tmp_path / "run")
    records = [{**record, "split": "held_out"} for record in read_jsonl(parents.path / "prefer" / "prompts.jsonl")]
    write_jsonl(run.path / "prefer" / "prompts.jsonl", records)
    for method in ("ppo", "best_of_n"):
        ctx = small_run.context(run, "rlhf", small_run.recipe(rlhf={**small_run.RECIPE["rlhf"], "method": method}))
        with pytest.raises(UserError, match=r"no prompt is left to practise on: \d+ are kept for audits .* prefer\.held_out_frac"):
            divide_prompts(ctx, Tokenizer.load(parents.path / "sft"))
    dpo = small_run.recipe(rlhf={**small_run.RECIPE["rlhf"], "method": "dpo"})  # which learns from pairs
    assert divide_prompts(small_run.context(run, "rlhf", dpo), Tokenizer.load(parents.path / "sft"))[0] == []


def test_one_prompt_is_no_audit(parents, tmp_path):
    """Its answers differ or they do not: chance has no size there, and any rise was kept as beyond it."""
    run = copy_of(parents, tmp_path / "run")
    records = read_jsonl(parents.path / "prefer" / "prompts.jsonl")
    for num_prompts in (7, 8):
        write_jsonl(run.path / "prefer" / "prompts.jsonl", [{**record, "split": "train"} for record in records[:num_prompts]])
        ctx = small_run.context(run, "rlhf", small_run.recipe())
        if num_prompts == 8:
            assert len(divide_prompts(ctx, Tokenizer.load(parents.path / "sft"))[1]) == 2
        else:
            with pytest.raises(UserError, match=r"at least 8 prompts .* there are 7"):
                divide_prompts(ctx, Tokenizer.load(parents.path / "sft"))


def test_every_prompt_once_an_epoch():
    seen = [i for iteration in range(6) for i in prompt_order(15, iteration, 5, seed=3)]
    assert sorted(seen[:15]) == list(range(15)) == sorted(seen[15:]) and seen[:15] != seen[15:]
    assert len(set(prompt_order(4, 0, 10, seed=3))) == 4  # more answers than prompts: the epochs go on


def test_split_loses_nothing():
    for count in range(1, 9):
        parts = split(list(range(count)), 3)
        assert [x for part in parts for x in part] == list(range(count)) and all(parts) and len(parts) == min(3, count)


def test_minibatches_are_of_equal_size_where_rows_leave_a_rest():
    """Nine rows in batches of four are 4, 4 and 1: three updates of which the last would learn from a ninth of the answers."""
    answers = Answers([[5, 6]] * 18, [[7] * 5] * 18, RowShape(14, 4, 0))
    padded = {"credit": torch.arange(18.0)[:, None].expand(-1, 5)}
    found = answers.minibatches(padded, list(range(len(answers.rows))), 3)
    sizes = [sum(len(batch.sequence_ids) for batch in one) for one in found]
    assert len(sizes) == 3 and max(sizes) <= 1.5 * min(sizes) and sum(sizes) == 18
    assert sorted(i for one in found for batch in one for i in batch.sequence_ids.tolist()) == list(range(18))
    assert all(batch.labels.shape == (4, 14) and (batch.extra["credit"] > 17).sum() == 0 for one in found for batch in one)


def test_explained_variance():
    returns, mask = torch.tensor([[1.0, 2.0, 4.0, 99.0]]), torch.tensor([[True, True, True, False]])
    assert explained_variance(returns, returns, mask) == 1.0
    assert explained_variance(torch.full_like(returns, 2.0), returns, mask) == pytest.approx(0.0)
    assert explained_variance(-returns, returns, mask) < 0
