import copy
import math

import pytest
import torch
import torch.nn.functional as F

from fromnoise.model.compiled import autocast, compile_blocks
from fromnoise.model.flops import forward_flops, num_matrix_parameters, num_parameters, training_flops_per_token
from fromnoise.model.heads import ScoreModel
from fromnoise.model.initialize import initialize
from fromnoise.model.transformer import Transformer, norm_rotate, rms_norm, rope_angles
from tests.model.shapes import config, random_ids, random_model


@torch.no_grad()
@pytest.mark.parametrize("tied", [True, False])
def test_loss_at_initialisation_is_ln_v(tied):
    model = initialize(Transformer(config(vocab_size=4096, width=192, num_heads=3, num_kv_heads=3, head_size=64, tie_embeddings=tied)), seed=0)
    ids = random_ids(4, 65, high=4096)
    logits = model.logits(model(ids[:, :-1]))
    assert F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).item() == pytest.approx(math.log(4096), rel=0.01)


def test_initialisation_is_a_function_of_the_seed():
    torch.manual_seed(1)
    first = initialize(Transformer(config()), seed=7)
    torch.manual_seed(2)
    second = initialize(Transformer(config()), seed=7)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    other = initialize(Transformer(config()), seed=8)
    assert not torch.equal(first.embed_tokens.weight, other.embed_tokens.weight)


def test_every_parameter_gets_a_gradient_after_the_first_steps():
    model = random_model(tie_embeddings=False)
    model.logits(model(random_ids(2, 20))).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_norm_and_rotation_have_the_gradients_of_their_definition():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 5, 3, 8, generator=generator, dtype=torch.float64).requires_grad_()
    weight = (1 + torch.randn(8, generator=generator, dtype=torch.float64)).requires_grad_()
    cos, sin = rope_angles(torch.arange(5).expand(2, 5), 8, 100.0)

    def definition(x, weight):
        normed = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight
        first, second = normed.chunk(2, -1)
        return normed * cos + torch.cat((second, first), -1) * sin

    found, expected = norm_rotate(x, weight, cos, sin, 1e-6), definition(x, weight)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    outer = torch.randn(found.shape, generator=generator, dtype=torch.float64)
    for a, b in zip(torch.autograd.grad((found * outer).sum(), (x, weight)), torch.autograd.grad((expected * outer).sum(), (x, weight)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_only_differences_of_positions_matter():
    model = random_model()
    ids = random_ids(1, 20)
    torch.testing.assert_close(model(ids), model(ids, torch.arange(50, 70)[None]), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_bf16_stays_near_fp32():
    model = random_model()
    ids = random_ids(2, 64)
    exact = model(ids)
    with autocast(torch.bfloat16):
        rounded = model(ids)
    assert rounded.dtype == torch.bfloat16
    assert (rounded - exact).square().mean().sqrt() < 0.03 * exact.square().mean().sqrt()


@torch.no_grad()
def test_scores_start_at_zero_and_drop_an_untied_head():
    model = ScoreModel(random_model(tie_embeddings=False))
    assert not any("lm_head" in name for name, _ in model.named_parameters())
    assert model(random_ids(2, 8)).tolist() == [[0.0] * 8] * 2


def test_counts_of_parameters_and_flops():
    for changes in ({}, {"tie_embeddings": False}, {"qk_norm": False}):
        shape = config(**changes)
        model = Transformer(shape)
        assert num_parameters(shape) == sum(parameter.numel() for parameter in model.parameters())
        matrices = sum(p.numel() for n, p in model.named_parameters() if p.ndim == 2 and n != ("" if shape.tie_embeddings else "embed_tokens.weight"))
        assert num_matrix_parameters(shape) == matrices
        assert training_flops_per_token(shape, 100) == 6 * matrices + 6 * shape.num_layers * 100 * 128
        assert 3 * forward_flops(shape, 50, 100) == pytest.approx(50 * training_flops_per_token(shape, 100))


@pytest.mark.parametrize("qk_norm", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_compiled_equals_eager_and_one_compilation_serves_all_models(qk_norm):
    eager = random_model(qk_norm=qk_norm, num_kv_heads=4)
    models = [copy.deepcopy(eager), random_model(seed=5, qk_norm=qk_norm, num_kv_heads=4)]
    for model in models:
        compile_blocks(model)
    ids, segment_ids = random_ids(2, 64), torch.arange(64).expand(2, -1) // 24
    losses = [model.logits(model(ids, None, segment_ids)).logsumexp(-1).sum() for model in (eager, *models)]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-5, atol=1e-4)
    for loss in losses:
        loss.backward()
    for a, b in zip(eager.parameters(), models[0].parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-4)
    from torch._dynamo.utils import counters

    before = counters["stats"]["unique_graphs"]
    frozen = random_model(seed=6, qk_norm=qk_norm, num_kv_heads=4)
    compile_blocks(frozen)
    frozen(ids, None, segment_ids).sum().backward()
    assert counters["stats"]["unique_graphs"] == before


def test_rms_norm_is_computed_in_fp32():
    x = torch.full((1, 8), 300.0, dtype=torch.float16)  # its square overflows half precision
    assert torch.allclose(rms_norm(x, torch.ones(8), 1e-6), torch.ones(8))
