import math

import pytest
import torch

from fromnoise.algorithms.losses import bradley_terry
from fromnoise.data.packing import pack_sequences
from fromnoise.evaluate.records import read_jsonl
from fromnoise.generate.rollout import RowShape
from fromnoise.model.hf import load_reward
from fromnoise.run.errors import UserError
from fromnoise.stages.reward import batch_of, expected_accuracy, pack_pairs, preference_loss, quality, sequences_of

from . import small_run

SHAPE = RowShape(row_tokens=16, num_rows=2, pad_id=0)


def pair(first=2, second=3, chosen=0, weight=1.0, p=None):
    answers = [{"token_ids": [7] * first}, {"token_ids": [8] * second}]
    return {"prompt_ids": [5, 6], "answers": answers, "chosen": chosen, "weight": weight, "pool_prob_first": p}


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
        lengths = [len(sequence) for name in group for sequence in sequences_of(pairs[name])]
        assert len(pack_sequences(lengths, SHAPE.row_tokens)) <= SHAPE.num_rows
    assert len(groups) < 30  # several pairs in each


def test_loss_reads_each_score_at_the_end_of_its_own_answer():
    pairs = [pair(2, 3, chosen=0), pair(4, 1, chosen=1, weight=0.5), pair(3, 3, chosen=None)]
    batch = batch_of(pairs, SHAPE)
    scores = torch.arange(32.0).reshape(2, 16) / 10
    last = dict(zip(batch.sequence_ids.tolist(), scores.reshape(-1)[batch.last_index].tolist(), strict=True))
    first, second = torch.tensor([last[0], last[2], last[4]]), torch.tensor([last[1], last[3], last[5]])
    chosen, rejected = torch.stack([first[0], second[1], first[2]]), torch.stack([second[0], first[1], second[2]])
    expected, _ = bradley_terry(chosen, rejected, torch.tensor([1.0, 0.5, 1.0]), torch.tensor([False, False, True]))
    total, count = preference_loss(scores, batch, pairs)
    assert total == pytest.approx(float(expected)) and count == 2.5
    flipped = [{**p, "chosen": None if p["chosen"] is None else 1 - p["chosen"]} for p in pairs]  # the broken twin
    assert preference_loss(scores, batch, flipped)[0] != pytest.approx(float(expected))


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


def test_audit_and_reward_model_saw_other_prompts(made):
    run, _, done = made
    pairs = read_jsonl(run.path / "prefer" / "pairs.jsonl")
    prompts = {share: {p["prompt_id"] for p in pairs if p["share"] == share} for share in ("reward", "audit")}
    assert not prompts["reward"] & prompts["audit"]
    assert done.outputs["reward/model.safetensors"] != done.outputs["audit/model.safetensors"]


@pytest.mark.parametrize("stop_after", [1, 9])  # in the reward model's training, in the audit model's
def test_interrupted_equals_uninterrupted(made, tmp_path, stop_after):
    import shutil

    run, settings, done = made
    again = small_run.RunFolder(tmp_path / "run")
    shutil.copytree(run.path, again.path, ignore=shutil.ignore_patterns("reward", "audit"))
    resumed = small_run.do(again, "reward", settings, stop_after=min(stop_after, done.summary["reward_num_steps"] + 1))
    assert resumed.outputs == done.outputs
    assert [line.get("loss_nats") for line in resumed.metrics] == [line.get("loss_nats") for line in done.metrics]


def test_too_few_pairs_is_a_user_error(made, tmp_path):
    import shutil

    run, settings, _ = made
    again = small_run.RunFolder(tmp_path / "run")
    shutil.copytree(run.path, again.path, ignore=shutil.ignore_patterns("reward", "audit"))
    lines = (again.path / "prefer" / "pairs.jsonl").read_text().splitlines(keepends=True)
    (again.path / "prefer" / "pairs.jsonl").write_text("".join(lines[:2]))
    with pytest.raises(UserError, match="too few"):
        small_run.do(again, "reward", settings)
