import math
import random
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fromnoise.algorithms.losses import bradley_terry
from fromnoise.data.packing import pack_sequences
from fromnoise.data.pairs import against, chunks_of, tallied
from fromnoise.data.preferences import read_preferences, votes_of
from fromnoise.evaluate.records import read_jsonl, write_jsonl
from fromnoise.generate.rollout import RowShape
from fromnoise.model.hf import load_reward, load_scorer
from fromnoise.run.errors import Interrupted, UserError
from fromnoise.stages import reward
from fromnoise.stages.reward import (
    Plan,
    answer_means,
    batch_of,
    chosen_labels,
    expected_accuracy,
    length_coefficient,
    length_difference,
    pack_pairs,
    preference_loss,
    quality,
)

from . import small_run

SHAPE = RowShape(row_tokens=16, num_rows=2, pad_id=0)


def pair(first=2, second=3, chosen=0, weight=1.0, p=None):
    answers = [{"token_ids": [7] * first}, {"token_ids": [8] * second}]
    return {"prompt_id": object(), "prompt_ids": [5, 6], "answers": answers, "chosen": chosen, "weight": weight, "pool_prob_first": p}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    run = small_run.make(tmp_path_factory.mktemp("reward") / "run", num_prompts=120)
    settings = small_run.recipe(prefer={**small_run.RECIPE["prefer"], "num_pairs": 100})
    small_run.do(run, "prefer", settings)
    return run, settings, small_run.do(run, "reward", settings)


def test_both_answers_of_a_pair_share_a_micro_batch_and_none_is_lost():
    pairs = [pair(n % 7 + 1, n * 3 % 11 + 1) for n in range(40)]
    groups = pack_pairs(pairs, SHAPE, range(40))
    assert [name for group in groups for name in group] == list(range(40))
    for group in groups:
        positions = [chunk for name in group for _, chunk in chunks_of(pairs[name], SHAPE.row_tokens)]
        assert len(pack_sequences(positions, SHAPE.row_tokens)) <= SHAPE.num_rows
        held = int((batch_of([pairs[name] for name in group], SHAPE).segment_ids > 0).sum())
        assert held <= sum(positions)  # neighbours may share a prompt by chance
    assert len(groups) < 30  # several pairs in each


def test_only_chosen_answers_are_text_to_be_learnt():
    pairs = [pair(2, 3, chosen=1), pair(4, 1, chosen=0), pair(1, 1, chosen=None)]
    batch = batch_of(pairs, SHAPE)
    labels = chosen_labels(batch, pairs)
    assert sorted(labels[labels != -100].tolist()) == [7] * 4 + [7] + [8] * 3 + [8]
    assert torch.equal(labels[labels != -100], batch.labels[labels != -100])


def test_with_text_beside_the_preference(made, tmp_path):
    run, settings, done = made
    changed = settings.model_copy(update={"reward": settings.reward.model_copy(update={"text_coef": 1.0})})
    found = small_run.do(small_run.copy_of(run, tmp_path / "run", without="reward"), "reward", changed)
    steps = [line for line in found.metrics if line.get("model") == "reward"]
    assert steps[-1]["text_loss_nats"] < steps[0]["text_loss_nats"]
    assert all(line["text_loss_nats"] is None for line in done.metrics if "loss_nats" in line)
    assert found.outputs != done.outputs


def test_loss_reads_each_score_at_the_end_of_its_own_answer():
    pairs = [pair(2, 3, chosen=0), pair(4, 1, chosen=1, weight=0.5), pair(3, 3, chosen=None)]
    batch = batch_of(pairs, SHAPE)
    scores = torch.arange(32.0).reshape(2, 16) / 10
    last = dict(zip(batch.sequence_ids.tolist(), scores.reshape(-1)[batch.last_index].tolist(), strict=True))
    first, second = torch.tensor([last[0], last[2], last[4]]), torch.tensor([last[1], last[3], last[5]])
    chosen, rejected = torch.stack([first[0], second[1], first[2]]), torch.stack([second[0], first[1], second[2]])
    expected, _ = bradley_terry(chosen, rejected, torch.tensor([1.0, 0.5, 1.0]), torch.tensor([0.0, 0.0, 0.5]))
    at_end = scores.reshape(-1)[batch.last_index]
    total, count = preference_loss(at_end, batch, pairs)
    assert total == pytest.approx(float(expected)) and count == 2.5
    flipped = [{**p, "chosen": None if p["chosen"] is None else 1 - p["chosen"]} for p in pairs]  # the broken twin
    assert preference_loss(at_end, batch, flipped)[0] != pytest.approx(float(expected))


def test_means_are_over_the_answers_tokens_each_once_it_is_read():
    pairs = [pair(2, 3), pair(4, 1), pair(1, 1)]
    for one in pairs:
        for number, answer in enumerate(one["answers"]):
            answer["token_ids"] = [20 + number] * len(answer["token_ids"])  # told from every prompt's tokens
    batch = batch_of(pairs, SHAPE)
    assert (batch.shared_tokens > 0).any()
    scores = torch.where(batch.input_ids == 20, 3.0, torch.where(batch.input_ids == 21, 5.0, 1e6))
    means = answer_means(scores, batch)
    assert means.tolist() == [3.0 if i % 2 == 0 else 5.0 for i in batch.sequence_ids.tolist()]
    scores = torch.arange(32.0).reshape(2, 16)
    counts = [len(pairs[i // 2]["answers"][i % 2]["token_ids"]) for i in batch.sequence_ids.tolist()]
    for mean, count, last in zip(answer_means(scores, batch), counts, batch.last_index, strict=True):
        assert float(mean) == pytest.approx(float(last) - (count - 1) / 2)


def test_with_every_token_beside_the_last(made, tmp_path):
    run, settings, done = made
    changed = settings.model_copy(update={"reward": settings.reward.model_copy(update={"every_token_coef": 1.0})})
    found = small_run.do(small_run.copy_of(run, tmp_path / "run", without="reward"), "reward", changed)
    steps = [line for line in found.metrics if line.get("model") == "reward"]
    assert steps[-1]["every_token_loss_nats"] < steps[0]["every_token_loss_nats"] == pytest.approx(math.log(2))
    assert all(line["every_token_loss_nats"] is None for line in done.metrics if "loss_nats" in line)
    assert found.outputs != done.outputs


def test_votes_are_counted_with_or_without_weights():
    one = {**pair(chosen=1), "rater": "a"}
    assert votes_of(one) == [("a", 1)] and tallied(one)["chosen"] == 1 and against(tallied(one)) == 0
    several = {**one, "rater": None, "votes": [["a", 0], ["b", 1], ["c", 1], ["d", 1], ["e", 0]]}
    counted = tallied(several)
    assert counted["chosen"] == 1 and against(counted) == pytest.approx(0.4) and counted["weight"] == 1.0
    heard = tallied(several, {"a": 3.0, "b": 0.5, "c": 0.5, "d": 0.5, "e": 0.5})
    assert heard["chosen"] == 0 and against(heard) == pytest.approx(1.5 / 5) and heard["weight"] == pytest.approx(1.0)
    tie = tallied({**several, "votes": [["a", 0], ["b", 1], ["c", None]]})
    assert tie["chosen"] is None and against(tie) == 0.5


def test_several_raters_compare_training_pairs_and_one_a_held_out_pair(made, tmp_path):
    run, settings, done = made
    changed = settings.model_copy(update={"prefer": settings.prefer.model_copy(update={"raters_per_pair": 5})})
    copy = small_run.copy_of(run, tmp_path / "run", without="prefer")
    small_run.do(copy, "prefer", changed)
    pairs = read_jsonl(copy.path / "prefer" / "pairs.jsonl")
    for one in pairs:
        if one["split"] == "held_out":
            assert "votes" not in one and one["rater"] and one["chosen"] in (0, 1)
            continue
        who, choices = zip(*one["votes"], strict=True)
        assert len(set(who)) == 5 and {name.split("-")[0] for name in who} == {one["share"]}
        assert one["chosen"] == int(sum(choices) > 2) and one["rater"] is None
    assert len({sum(choice for _, choice in one["votes"]) for one in pairs if one["split"] == "train"}) > 2  # people differ
    found = small_run.do(copy, "reward", changed)
    assert found.outputs["reward/model.safetensors"] != done.outputs["reward/model.safetensors"]
    read = read_preferences(copy.path / "prefer" / "pairs.jsonl", lambda bad: pytest.fail(str(bad)))
    assert len(read) == sum(len(votes_of(one)) for one in pairs) and sum(one.weight for one in read) == pytest.approx(len(pairs))


def test_quality_by_hand():
    scores = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 2.0], [0.5, 0.5], [3.0, 0.0]])
    pairs = [pair(chosen=0, p=0.9), pair(chosen=1, p=0.6), pair(chosen=1, p=0.2), pair(chosen=0, p=0.5), pair(chosen=None, p=0.7)]
    found = quality(scores, pairs)
    assert found["pairs"] == 4 and found["accuracy"] == pytest.approx(2.5 / 4)  # one wrong, one undecided, the tie left out
    assert found["best_attainable"] == pytest.approx((0.9 + 0.6 + 0.8 + 0.5) / 4)
    assert found["of_attainable"] == pytest.approx((2.5 / 4 - 0.5) / (0.7 - 0.5))
    assert found["accuracy_low"] < found["accuracy"] < found["accuracy_high"]
    assert expected_accuracy(scores[:, 0] - scores[:, 1], pairs) == pytest.approx((0.9 + 0.6 + 0.8 + 0.5 + 0.7) / 5)
    assert quality(scores, [{**p, "pool_prob_first": None} for p in pairs])["best_attainable"] is None


def test_votes_on_one_prompt_are_not_independent():
    """Twenty prompts, each put to ten people who all say the same: the interval is about that of twenty choices, not of two hundred."""
    right = [n % 4 > 0 for n in range(20)]
    single = [{**pair(), "prompt_id": n} for n in range(20)]
    scores = torch.tensor([[1.0, 0.0] if one else [0.0, 1.0] for one in right])
    alone = quality(scores, single)
    voted = quality(scores.repeat_interleave(10, dim=0), [one for one in single for _ in range(10)])
    assert voted["accuracy"] == alone["accuracy"] == 0.75 and voted["pairs"] == 200
    width = lambda found: found["accuracy_high"] - found["accuracy_low"]  # noqa: E731
    assert width(voted) == pytest.approx(width(alone), rel=0.1)
    apart = quality(scores.repeat_interleave(10, dim=0), [pair() for _ in range(200)])  # the twin: two hundred prompts
    assert width(apart) < 0.4 * width(alone)


def test_a_step_is_measured_with_its_optimizer_and_all_its_losses(made, monkeypatch):
    run, settings, _ = made
    monkeypatch.setattr("fromnoise.optim.groups.step_seconds", lambda *given: 10.0)
    passed = []
    monkeypatch.setattr(reward, "linear_cross_entropy", lambda hidden, *given: passed.append(1) or hidden.sum())
    settings = settings.model_copy(update={"reward": settings.reward.model_copy(update={"text_coef": 0.2})})
    ctx = small_run.context(run, "reward", settings)
    monkeypatch.setattr(type(ctx.machine), "seconds_of", lambda self, backward: backward() or 1.0)
    plan = Plan(ctx, read_jsonl(run.path / "prefer" / "pairs.jsonl"), "reward", 0, RowShape(64, 4, 0))
    assert reward.measure_step_s(ctx, plan) == 11.0 and passed


def test_progress_shows_loss_and_utilisation(made):
    progress = made[2].progress
    assert progress and all("  loss " in line and "  mfu " in line for line in progress)


def test_loss_begins_at_ln_2_for_both_models(made):
    _, _, done = made
    for share in ("reward", "audit"):
        first = next(line for line in done.metrics if line.get("model") == share)
        assert first["loss_nats"] == pytest.approx(math.log(2), rel=1e-6)


def test_both_models_learn_and_are_saved(made):
    _, _, done = made
    assert done.metrics[0]["loss_nats"] > min(line["loss_nats"] for line in done.metrics if line.get("model") == "reward")
    assert set(done.outputs) >= {f"{share}/{file}" for share in ("reward", "audit") for file in ("config.json", "model.safetensors", "tokenizer.json")}


def test_the_saved_model_is_normalised_on_the_models_own_answers(made):
    run, _, done = made
    model = load_reward(run.path / "reward")
    assert model.std == pytest.approx(done.summary["reward_score_std"]) and model.mean == pytest.approx(done.summary["reward_score_mean"])
    assert model.score.weight.abs().max() > 0


def test_answers_borrowed_from_other_prompts_set_no_scale():
    """What the SFT model said to another question is not what a reward of 0 is measured on."""
    pairs = [{"prompt_ids": [5], "answers": [{"token_ids": [7, n]}, {"token_ids": [8, n]}], **extra}
             for n, extra in enumerate(({}, {"borrowed": 0}, {"borrowed": 1}))]  # fmt: skip
    settings = SimpleNamespace(num_normalise_answers=9, row_tokens=16)
    ctx = SimpleNamespace(recipe=SimpleNamespace(reward=settings, data=SimpleNamespace(preferences=None)))
    assert reward.own_answers(ctx, SimpleNamespace(train=pairs, shape=SHAPE), None).answer_ids == [[7, 0], [8, 1], [7, 2]]


def test_audit_and_reward_model_saw_other_prompts(made):
    run, _, done = made
    pairs = read_jsonl(run.path / "prefer" / "pairs.jsonl")
    prompts = {share: {p["prompt_id"] for p in pairs if p["share"] == share} for share in ("reward", "audit")}
    assert not prompts["reward"] & prompts["audit"]
    assert done.outputs["reward/model.safetensors"] != done.outputs["audit/model.safetensors"]


@pytest.mark.parametrize("stop_after", [1, 9])  # in the reward model's training, in the audit model's
def test_interrupted_equals_uninterrupted(made, tmp_path, stop_after):
    run, settings, done = made
    again = again_from(run, tmp_path / "run")
    resumed = small_run.do(again, "reward", settings, stop_after=min(stop_after, done.summary["reward_num_steps"] + 1))
    assert resumed.outputs == done.outputs
    assert [line.get("loss_nats") for line in resumed.metrics] == [line.get("loss_nats") for line in done.metrics]


def again_from(run, folder):
    again = small_run.RunFolder(folder)
    shutil.copytree(run.path, again.path, ignore=shutil.ignore_patterns("reward", "audit"))
    return again


@pytest.fixture(scope="module")
def optional(made, tmp_path_factory):
    """Two members each, length fitted apart, votes weighed; every pair judged by three raters, of whom one guesses and all like length."""
    run, _, _ = made
    again = again_from(run, tmp_path_factory.mktemp("reward_options") / "run")
    rng, pairs = random.Random(3), []
    for pair in read_jsonl(run.path / "prefer" / "pairs.jsonl"):
        longer = 0 if len(pair["answers"][0]["token_ids"]) > len(pair["answers"][1]["token_ids"]) else 1
        for rater, likes in (("a", 0.95), ("b", 0.95), ("c", 0.5)):
            vote = longer if rng.random() < likes else 1 - longer
            pairs.append({**pair, "id": f"{pair['id']}-{rater}", "rater": rater, "chosen": vote, "weight": 1 / 3})
    write_jsonl(again.path / "prefer" / "pairs.jsonl", pairs)
    settings = small_run.recipe(reward={**small_run.RECIPE["reward"], "epochs": 1, "ensemble": 2, "debias_length": True, "rater_weights": "agreement"})
    return again, settings, small_run.do(again, "reward", settings)


def test_members_share_a_scale_and_differ(optional):
    run, _, done = optional
    ensemble = load_scorer(run.path / "reward")
    first, second = ensemble.members
    assert ensemble.std == first.std == second.std == pytest.approx(done.summary["reward_ensemble_score_std"])
    assert not torch.equal(first.score.weight, second.score.weight) and done.summary["reward_ensemble_disagreement"] > 0
    assert set(done.outputs) >= {f"{share}/member-2/{file}" for share in ("reward", "audit") for file in ("config.json", "model.safetensors")}
    ids = torch.randint(0, 300, (2, 20))
    torch.testing.assert_close((ensemble(ids) - ensemble.mean) / ensemble.std, torch.stack([(m(ids) - m.mean) / m.std for m in ensemble.members]).mean(0))


def test_a_guessing_rater_counts_for_less(optional):
    run, _, _ = optional
    weights = {one["rater"]: one["weight"] for one in read_jsonl(run.path / "reward" / "raters.jsonl")}
    assert weights["c"] < 0.7 * min(weights["a"], weights["b"])


def test_length_is_fitted_apart_and_left_out_of_the_score(optional, made):
    """Raters who like length and quality, which go together: with the coefficient refitted as the stage does, the score
    keeps the quality and leaves the length; without it, and that is the broken twin, it has both."""
    assert optional[2].summary["reward_length_coef"] > 0.1 and made[2].summary["reward_length_coef"] is None
    generator = torch.Generator().manual_seed(0)
    quality, noise = torch.randn(2, 4000, generator=generator)
    length = 0.5 * quality + 0.9 * noise
    chosen = (torch.rand(4000, generator=generator) > torch.sigmoid(quality + 1.5 * length)).int().tolist()
    pairs = [{"chosen": one, "weight": 1.0} for one in chosen]
    plan = SimpleNamespace(length_differences=lambda pairs: length)
    for debias in (True, False):
        weights = torch.zeros(2, requires_grad=True)  # of quality and length in the score
        optimizer = torch.optim.Adam([weights], lr=0.05)
        b = length_coefficient(torch.zeros(4000), plan, pairs, 0.0) if debias else 0.0
        alone = b
        for step in range(200):
            margins = weights @ torch.stack([quality, length])
            if debias and step % 50 == 49:
                b = length_coefficient(margins.detach(), plan, pairs, alone)
            sign = 1.0 - 2.0 * torch.tensor(chosen)
            loss, count = bradley_terry(sign * (margins + b * length), torch.zeros(4000))
            optimizer.zero_grad()
            (loss / count).backward()
            optimizer.step()
        if debias:
            assert weights[0].item() > 0.7 and abs(weights[1].item()) < 0.35
        else:
            assert weights[0].item() > 0.7 and weights[1].item() > 1.2


def test_the_coefficient_told_is_that_of_the_weights_kept(made, tmp_path):
    run, settings, _ = made
    changed = settings.model_copy(update={"reward": settings.reward.model_copy(update={"debias_length": True, "num_evaluations": 4})})
    done = small_run.do(again_from(run, tmp_path / "whole"), "reward", changed)
    looks = [line for line in done.metrics if "length_coef/reward" in line]
    best = min(looks, key=lambda line: line["validation_loss/reward"])
    assert best["step"] == done.summary["reward_best_step"] < done.summary["reward_num_steps"] == looks[-1]["step"]
    assert done.summary["reward_length_coef"] == best["length_coef/reward"] != looks[-1]["length_coef/reward"]
    resumed = small_run.do(again_from(run, tmp_path / "resumed"), "reward", changed, stop_after=best["step"] + 1)
    assert resumed.summary == done.summary


def test_an_interrupted_ensemble_ends_in_the_same_bytes(optional, tmp_path):
    run, settings, done = optional
    again = again_from(run, tmp_path / "run")
    resumed = small_run.do(again, "reward", settings, stop_after=done.summary["reward_num_steps"] + 3)  # in the second member
    assert resumed.outputs == done.outputs


def test_an_ensemble_cut_off_between_its_two_scales_ends_in_the_same_bytes(optional, tmp_path, monkeypatch):
    run, settings, done = optional
    again, join, calls = again_from(run, tmp_path / "run"), reward.join_members, []

    def once(*args):
        calls.append(args)
        if len(calls) == 2:
            raise Interrupted("a power cut")
        return join(*args)

    monkeypatch.setattr(reward, "join_members", once)
    with pytest.raises(Interrupted):
        small_run.do(again, "reward", settings)
    resumed = small_run.do(again, "reward", settings)
    assert len(calls) == 4 and resumed.outputs == done.outputs and resumed.summary == done.summary


def test_a_reward_without_answers_to_measure_it_by_is_refused(made, tmp_path):
    """Its mean and deviation would be no numbers."""
    run, settings, _ = made
    again = again_from(run, tmp_path / "run")
    write_jsonl(again.path / "prefer" / "prompts.jsonl", read_jsonl(run.path / "prefer" / "prompts.jsonl")[:1])
    changed = settings.model_copy(update={"data": settings.data.model_copy(update={"preferences": "pairs.jsonl"})})
    with pytest.raises(UserError, match=r"at least two answers .* reward\.row_tokens = 64"):
        small_run.do(again, "reward", changed)


def test_length_coefficient_finds_what_was_put_in():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 40, (3000, 2))
    margins = rng.normal(0, 1, 3000)
    chosen = rng.random(3000) > 1 / (1 + np.exp(-(margins + 0.8 * (lengths[:, 0] - lengths[:, 1]) / 10)))
    pairs = [pair(int(a), int(b), chosen=int(c)) for (a, b), c in zip(lengths, chosen, strict=True)]
    plan = SimpleNamespace(length_differences=lambda pairs: torch.tensor([length_difference(p) / 10 for p in pairs]))
    assert length_coefficient(torch.tensor(margins), plan, pairs, 0.0) == pytest.approx(0.8, abs=0.08)
    assert length_coefficient(torch.tensor(margins[:1]), plan, pairs[:1], 5.0) == pytest.approx(5.0, abs=3.0)  # one pair says little


def test_of_few_pairs_one_prompts_choose_the_weights(made, tmp_path):
    """With the usual fraction none of twenty prompts is drawn one time in five: people had labelled them, and the run refused their pairs."""
    run, settings, _ = made
    again, pairs, shape = again_from(run, tmp_path / "run"), read_jsonl(run.path / "prefer" / "pairs.jsonl"), RowShape(64, 2, 0)
    rare = settings.model_copy(update={"reward": settings.reward.model_copy(update={"validation_frac": 1e-9})})
    for share in ("reward", "audit"):
        plan, usual = (Plan(small_run.context(again, "reward", recipe), pairs, share, 0, shape) for recipe in (rare, settings))
        assert len({pair["prompt_id"] for pair in plan.validation}) == 1 and plan.validation[0] in usual.validation
        assert len(plan.validation) + len(plan.train) == len(usual.validation) + len(usual.train)


def test_too_few_pairs_is_a_user_error(made, tmp_path):
    run, settings, _ = made
    again = again_from(run, tmp_path / "run")
    lines = (again.path / "prefer" / "pairs.jsonl").read_text().splitlines(keepends=True)
    (again.path / "prefer" / "pairs.jsonl").write_text("".join(lines[:2]))
    people = {**small_run.RECIPE["prefer"], "raters": "people"}
    for changed, advice in (
        ({}, r"raise prefer\.num_pairs = 100, or"),
        ({"budget": "10m"}, r"raise budget = '10m' \(beside it prefer\.num_pairs does not count\), or"),
        ({"prefer": {**people, "num_labelled": 2}}, r"raise prefer\.num_labelled = 2 and label more pairs \(for more to label, raise prefer\.num_pairs = 60\)"),
        ({"prefer": people}, r"raise prefer\.num_pairs = 60, or"),  # all there are were labelled
        ({"prefer": people, "budget": "10m"}, r"raise prefer\.num_pairs = 60 or budget = '10m', or"),
        ({"data": {"preferences": "a.jsonl", "conversations": ["b.jsonl"]}}, r"give more pairs than data\.preferences = 'a\.jsonl' holds, or"),
    ):
        with pytest.raises(UserError, match=rf"too few .*stay together: \d prompts\); {advice}.*reward\.validation_frac"):
            small_run.do(again, "reward", settings.model_copy(update={name: getattr(small_run.recipe(**changed), name) for name in changed}))
        shutil.rmtree(again.path / "reward", ignore_errors=True)
