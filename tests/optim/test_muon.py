"""MuonAdamW against torch.optim.Muon and torch.optim.AdamW, and its state through a save and a load."""

import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from fromnoise.model.heads import ScoreModel
from fromnoise.optim import muon
from fromnoise.optim.groups import make_optimizer
from fromnoise.optim.muon import MuonAdamW, orthogonalize
from fromnoise.run.recipe import OptimizerSection
from tests.model.shapes import random_ids, random_model

SHAPES = {"a": (32, 32), "b": (32, 96), "c": (96, 32), "d": (32, 96), "e": (32, 32)}


def matrices(seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator).to(dtype).requires_grad_() for name, shape in SHAPES.items()}


def set_grads(parameters, step):
    generator = torch.Generator().manual_seed(100 + step)
    for parameter in parameters.values():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def largest_difference(make_ours, num_steps=4):
    """After some steps with a changing rate, relative to how far the reference moved."""
    ours, theirs, start = matrices(), matrices(), matrices()
    optimizer = make_ours(ours)
    reference = torch.optim.Muon(theirs.values(), lr=0.02, weight_decay=0.1, momentum=0.95, adjust_lr_fn="original")
    for step in range(num_steps):
        set_grads(ours, step)
        set_grads(theirs, step)
        optimizer.step(lr_scale=1.0 - 0.2 * step)
        reference.param_groups[0]["lr"] = 0.02 * (1.0 - 0.2 * step)
        reference.step()
    with torch.no_grad():
        return max(float((ours[n] - theirs[n]).norm() / (theirs[n] - start[n]).norm()) for n in SHAPES)


def make_ours(parameters, **changes):
    options = {"muon_lr": 0.02, "adamw_lr": 0.0, "weight_decay": 0.1} | changes
    return MuonAdamW(parameters, {}, **options)


def test_equals_torch_muon():
    # Both run Newton-Schulz in bf16; the batched products round in another order.
    assert largest_difference(make_ours) < 0.01


@pytest.mark.parametrize("changes", [{"muon_momentum": 0.9}, {"weight_decay": 0.0}, {"muon_lr": 0.021}])
def test_a_broken_twin_does_not(changes):
    assert largest_difference(lambda parameters: make_ours(parameters, **changes)) > 0.01


def test_orthogonalize_is_newton_schulz_and_takes_matrices_one_by_one():
    """Against the polynomial applied to the singular values, in float64."""
    x = torch.randn(3, 16, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, s, vt = torch.linalg.svd(x, full_matrices=False)
    s = s / torch.linalg.vector_norm(x, dim=(1, 2)).unsqueeze(1)
    a, b, c = muon.COEFFICIENTS
    for _ in range(muon.NUM_STEPS):
        s = a * s + b * s**3 + c * s**5
    expected = u @ torch.diag_embed(s) @ vt
    torch.testing.assert_close(orthogonalize(x.float(), torch.float32).double(), expected, rtol=0, atol=1e-4)
    assert s.min() > 0.6 and s.max() < 1.3
    assert torch.equal(orthogonalize(torch.zeros(1, 4, 8)), torch.zeros(1, 4, 8, dtype=torch.bfloat16))


def test_matrices_can_be_adamws_too():
    ours, theirs = random_model(), random_model()
    optimizer = make_optimizer(ours, OptimizerSection(matrices="adamw", adamw_lr=0.01), torch.float32)
    reference = torch.optim.AdamW(theirs.parameters(), lr=0.01, betas=(0.9, 0.95), weight_decay=0.0)
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    for step in range(3):
        for model, step_of in ((ours, optimizer), (theirs, reference)):
            set_grads(dict(model.named_parameters()), step)
            step_of.step()
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(value, theirs.state_dict()[name], rtol=1e-6, atol=1e-7)
        assert not torch.equal(value, before[name])
    assert not any(name.startswith("momentum.") for name in optimizer.state_tensors())


def test_the_rest_equals_adamw_with_decay_on_tables_only():
    generator = torch.Generator().manual_seed(0)
    start = {"table": torch.randn(8, 4, generator=generator), "vector": torch.randn(4, generator=generator)}
    ours, theirs = ({name: value.clone().requires_grad_() for name, value in start.items()} for _ in range(2))
    optimizer = MuonAdamW({}, ours, muon_lr=0.0, adamw_lr=0.01, weight_decay=0.1)
    groups = [{"params": [theirs["table"]], "weight_decay": 0.1}, {"params": [theirs["vector"]], "weight_decay": 0.0}]
    reference = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.95))
    for step in range(3):
        set_grads(ours, step)
        set_grads(theirs, step)
        optimizer.step()
        reference.step()
    for name in start:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-6, atol=1e-6)


def test_the_embedding_may_have_a_rate_of_its_own():
    for tied in (True, False):
        model = random_model(tie_embeddings=tied)
        start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        optimizer = make_optimizer(model, OptimizerSection(muon_lr=0.0, adamw_lr=0.001, embedding_lr=0.1), torch.float32)
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step(0.5)
        moved = {name: float((start[name] - parameter).detach().abs().max()) for name, parameter in model.named_parameters()}
        assert moved.pop("embed_tokens.weight") == pytest.approx(0.05, rel=1e-4)  # AdamW's first step is the rate itself
        assert all(distance == pytest.approx(0.0005, rel=1e-3) for name, distance in moved.items() if not ("layers." in name and start[name].ndim == 2))


def test_matrices_of_the_layers_go_to_muon_and_nothing_else():
    for model in (random_model(tie_embeddings=False), ScoreModel(random_model())):
        optimizer = make_optimizer(model, OptimizerSection(), torch.float32)
        names = {name for group in optimizer.groups for name in group.names}
        assert names == {name for name, p in model.named_parameters() if "layers." in name and p.ndim == 2}
        assert len(optimizer.parameters) == len(list(model.parameters()))
        assert len({id(parameter) for parameter in optimizer.parameters}) == len(optimizer.parameters)


def train(model, optimizer, steps):
    for step in steps:
        optimizer.zero_grad()
        ids = random_ids(2, 16, seed=step)
        torch.nn.functional.cross_entropy(model.logits(model(ids[:, :-1])).flatten(0, 1), ids[:, 1:].flatten()).backward()
        optimizer.step(1.0 / (1 + step))


def test_interrupted_equals_uninterrupted(tmp_path):
    through, halted = random_model(), random_model()
    section = OptimizerSection(weight_decay=0.01)
    train(through, make_optimizer(through, section, torch.float32), range(4))
    first = make_optimizer(halted, section, torch.float32)
    train(halted, first, range(2))
    save_file(first.state_tensors(), tmp_path / "state.safetensors")
    second = make_optimizer(halted, section, torch.float32)
    second.load_state_tensors(load_file(tmp_path / "state.safetensors"))
    train(halted, second, range(2, 4))
    assert all(torch.equal(a, b) for a, b in zip(through.parameters(), halted.parameters(), strict=True))


def test_a_state_of_another_model_is_refused():
    state = make_optimizer(random_model(num_layers=3), OptimizerSection(), torch.float32).state_tensors()
    with pytest.raises(ValueError, match=r"layers\.2"):
        make_optimizer(random_model(), OptimizerSection(), torch.float32).load_state_tensors(state)
    with pytest.raises(KeyError):
        make_optimizer(random_model(), OptimizerSection(), torch.float32).load_state_tensors({})
    wide = make_optimizer(random_model(ffn_width=128), OptimizerSection(), torch.float32).state_tensors()
    with pytest.raises(ValueError, match="shape"):
        make_optimizer(random_model(), OptimizerSection(), torch.float32).load_state_tensors(wide)


def test_tall_matrices_move_further_by_the_root_of_their_ratio():
    parameters = {"tall": torch.zeros(64, 16).requires_grad_(), "wide": torch.zeros(16, 64).requires_grad_()}
    optimizer = MuonAdamW(parameters, {}, muon_lr=0.1, adamw_lr=0.0, matrix_dtype=torch.float32)
    grad = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
    parameters["tall"].grad, parameters["wide"].grad = grad, grad.mT.contiguous()
    optimizer.step()
    torch.testing.assert_close(parameters["tall"], parameters["wide"].mT * math.sqrt(64 / 16), rtol=1e-5, atol=1e-7)
