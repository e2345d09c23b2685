"""Laws of training a model, on a model small enough to train inside a test."""

import math
from dataclasses import replace

import pytest
import torch

from fromnoise.algorithms.logprobs import linear_cross_entropy
from fromnoise.algorithms.masking import IGNORE_INDEX
from fromnoise.data.packing import collate
from fromnoise.model.config import ModelConfig
from fromnoise.model.initialize import initialize
from fromnoise.model.transformer import Transformer
from fromnoise.optim.groups import make_optimizer
from fromnoise.run.recipe import OptimizerSection
from fromnoise.run.update import Loss, update

V, STOP = 64, 3


def tiny(seed=0):
    config = ModelConfig(vocab_size=V, num_layers=2, width=64, num_heads=1, num_kv_heads=1, head_size=64, ffn_width=128)
    return initialize(Transformer(config), seed)


def nll(model, batch):  # summed
    hidden = model(batch.input_ids, batch.position_ids, batch.segment_ids)
    return linear_cross_entropy(hidden.flatten(0, 1), model.head_weight, batch.labels.flatten())


def optimizer_for(model, lr=0.02):
    return make_optimizer(model, OptimizerSection(muon_lr=lr, adamw_lr=lr / 4), torch.float32)


def step(model, optimizer, batches):
    stats = update(
        list(model.parameters()), optimizer, batches, lambda b: {"loss": Loss(nll(model, b), b.num_targets, "token")},
        {"loss": sum(batch.num_targets for batch in batches)}, lr_scale=1.0, max_grad_norm=1.0,
    )  # fmt: skip
    return stats.losses["loss"]


def train(model, batches, num_steps):
    optimizer = optimizer_for(model)
    return [step(model, optimizer, batches) for _ in range(num_steps)][-1]


def sequences(count=12, seed=0):
    """Prompt tokens from 10 up, an answer that depends on the prompt, the stop token."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        prompt = torch.randint(10, V, (6,), generator=generator).tolist()
        found.append((prompt + prompt[:3] + [STOP], [False] * 6 + [True] * 4))
    return found


def batch_of(found, masks=True, num_rows=1):
    ids = [sequence for sequence, _ in found]
    return collate([list(range(len(ids)))], ids, [m for _, m in found] if masks else None, row_tokens=128, num_rows=num_rows, pad_id=0)


@pytest.mark.parametrize("times_as_wide", [1, 10])
def test_the_loss_of_noise_is_ln_v(times_as_wide):
    """The broken twin begins with a head ten times as wide, and guesses instead of not knowing."""
    model, batch = tiny(), batch_of(sequences(), masks=False)
    with torch.no_grad():
        model.norm.weight.mul_(times_as_wide)  # of a tied head, which is the embedding, the norm is the width
        loss = nll(model, batch) / batch.num_targets
    assert (float(loss) == pytest.approx(math.log(V), rel=0.01)) is (times_as_wide == 1)


def shuffled(batch, generator):
    """The batch with its labels in another order: the same words, none of them what follows."""
    labels, counted = batch.labels.clone(), batch.labels != IGNORE_INDEX
    labels[counted] = labels[counted][torch.randperm(batch.num_targets, generator=generator)]
    return replace(batch, labels=labels)


@pytest.mark.parametrize("shuffle", [False, True])
def test_one_batch_overfits_to_nearly_zero(shuffle):
    """The broken twin shuffles the labels at each step, so that nothing can be learnt but how common each is."""
    model, batch, generator = tiny(), batch_of(sequences()), torch.Generator().manual_seed(0)
    batches = [shuffled(batch, generator) if shuffle else batch for _ in range(120)]
    optimizer = optimizer_for(model)
    loss = [step(model, optimizer, [one]) for one in batches][-1]
    assert (loss < 0.02) is not shuffle


@pytest.mark.parametrize("count_the_padding", [False, True])
def test_a_row_of_padding_changes_no_loss_and_no_gradient(count_the_padding):
    """The broken twin takes the padding's labels for targets."""

    def gradient(batch):
        model = tiny()
        nll(model, batch).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters()])

    alone, padded = batch_of(sequences()), batch_of(sequences(), num_rows=3)
    assert padded.input_ids.shape == (3, 128) and padded.num_targets == alone.num_targets
    if count_the_padding:
        padded = replace(padded, labels=torch.where(padded.segment_ids == 0, padded.input_ids, padded.labels), row_targets=None)
    assert torch.allclose(gradient(alone), gradient(padded), rtol=1e-5, atol=1e-5) is not count_the_padding


def test_the_model_learns_to_stop_and_does_not_where_the_stop_token_is_left_out_of_the_loss():
    found = sequences()
    prompts = [(ids[:-1], mask[:-1]) for ids, mask in found]

    def stop_probability(model):
        with torch.no_grad():
            batch = batch_of(prompts)
            hidden = model(batch.input_ids, batch.position_ids, batch.segment_ids).flatten(0, 1)
            return float(model.logits(hidden[batch.last_index]).softmax(-1)[:, STOP].min())

    with_stop, without_stop = tiny(), tiny()
    train(with_stop, [batch_of(found)], 120)
    broken = [(ids, [*mask[:-1], False]) for ids, mask in found]
    train(without_stop, [batch_of(broken)], 120)
    assert stop_probability(with_stop) > 0.9
    assert stop_probability(without_stop) < 0.2


@pytest.mark.parametrize("forget_the_mask", [False, True])
def test_a_masked_token_gets_no_gradient(forget_the_mask):
    """The broken twin predicts every token, and is caught."""
    model, batch = tiny(), batch_of(sequences())
    masked = (batch.labels == IGNORE_INDEX).flatten()
    hidden = model(batch.input_ids, batch.position_ids, batch.segment_ids).flatten(0, 1).detach().requires_grad_()
    labels = batch_of(sequences(), masks=not forget_the_mask).labels.flatten()
    linear_cross_entropy(hidden, model.head_weight, labels).backward()
    touched = hidden.grad.abs().sum(-1) > 0
    assert touched[~masked].all()
    assert bool(touched[masked].any()) is forget_the_mask


def test_training_twice_gives_the_same_bits():
    def weights():
        torch.use_deterministic_algorithms(True)
        model = tiny()
        train(model, [batch_of(sequences())], 5)
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    assert torch.equal(weights(), weights())
