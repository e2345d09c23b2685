"""The same laws on a CUDA device: what a GPU computes is what a CPU computes, in forms of its own (FlashAttention over segments'
bounds, captured graphs), and twice the same.

    python -m pytest -m gpu
"""

import pytest
import torch

from fromnoise.algorithms import logprobs
from fromnoise.algorithms.logprobs import linear_cross_entropy, linear_logprobs_and_entropy
from fromnoise.generate.decoder import Decoder, GraphDecoder
from fromnoise.generate.engine import Engine
from fromnoise.model import attention
from fromnoise.model.attention import AttentionPlan, attend, may_attend, plan_attention
from fromnoise.model.compiled import autocast, compile_blocks
from fromnoise.model.initialize import initialize
from fromnoise.model.transformer import Transformer
from fromnoise.optim.groups import make_optimizer
from fromnoise.run.machine import Machine, apply, measure
from fromnoise.run.recipe import OptimizerSection
from fromnoise.run.update import Loss, update
from tests.generate.test_engine import STOP, Sampling, ragged_prompts
from tests.laws import test_curve as curve
from tests.laws.test_update import Sgd
from tests.model.shapes import random_ids, random_model
from tests.model.test_attention import packed_row_ids

pytestmark = pytest.mark.gpu
BF16 = torch.bfloat16


@pytest.fixture(autouse=True)
def as_a_stage_does():
    if not torch.cuda.is_available():
        pytest.fail("-m gpu asks for these tests, and torch finds no CUDA device")
    apply(Machine("cuda", "bfloat16", False, torch.get_num_threads(), 1.0))
    yield
    torch.use_deterministic_algorithms(False)


def relative(found, expected, beside=None):
    """|found - expected| / |expected|, or / |beside| where that is larger: what should be zero is measured by something that is not."""
    found, expected = found.detach().double().cpu(), expected.detach().double().cpu()
    return float((found - expected).norm() / max(expected.norm(), beside.double().norm() if beside is not None else 0.0))


def heads(rows=3, length=64, num_heads=4, kv_heads=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, length, n, 32, generator=generator) for n in (num_heads, kv_heads, kv_heads)]


@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("compiled", [False, True])
def test_flash_over_bounds_equals_the_mask_in_float64(kv_heads, compiled):
    """Values and gradients, with segments of one token, a row of one segment, and more segments than fit the first padding."""
    segment_ids = packed_row_ids()[0]
    for ids in (segment_ids, torch.arange(64).expand(3, -1)):  # the second: 192 segments of one token
        mask = (torch.ones(64, 64, dtype=torch.bool).tril() & may_attend(ids)).unsqueeze(1)
        q, k, v = heads(kv_heads=kv_heads)
        grad = torch.randn(q.shape, generator=torch.Generator().manual_seed(1))
        wide = [x.double().requires_grad_() for x in (q, k, v)]
        expected = attend(*wide, AttentionPlan(mask=mask))
        expected.backward(grad.double())
        narrow = [x.cuda().to(BF16).requires_grad_() for x in (q, k, v)]
        plan = plan_attention(ids.cuda(), 64, torch.device("cuda"), BF16)
        assert plan.bounds is not None and plan.mask is None
        found = (torch.compile(attend, fullgraph=True, dynamic=False) if compiled else attend)(*narrow, plan)
        found.backward(grad.cuda().to(BF16))
        assert relative(found, expected) < 1e-2
        for own, other in zip(narrow, wide, strict=True):
            assert relative(own.grad, other.grad, beside=grad) < 2e-2  # of a segment of one token, queries and keys have none


def test_a_bound_that_is_missing_is_seen():
    """The broken twin: two documents read as one."""
    segment_ids = packed_row_ids()[0].cuda()
    q, k, v = (x.cuda().to(BF16) for x in heads())
    right = plan_attention(segment_ids, 64, q.device, BF16).bounds
    wrong = torch.cat((right[:1], right[2:], right[-1:]))
    assert relative(attend(q, k, v, AttentionPlan(bounds=wrong)), attend(q, k, v, AttentionPlan(bounds=right))) > 0.1


@pytest.mark.parametrize(("length", "mask_limit"), [(64, 2048), (64, 0), (1024, 2048)])
def test_hidden_states_and_gradients_equal_the_cpu_in_fp32(monkeypatch, length, mask_limit):
    monkeypatch.setattr(attention, "MASK_LIMIT_TOKENS", mask_limit)
    segment_ids, position_ids = packed_row_ids()
    segment_ids, position_ids = (x.repeat_interleave(length // 64, dim=1) for x in (segment_ids, position_ids))
    ids = random_ids(3, length)
    results = []
    for device in ("cpu", "cuda"):
        model = random_model(context_tokens=length).to(device)
        hidden = model(ids.to(device), position_ids.to(device), segment_ids.to(device))
        hidden.square().mean().backward()
        results.append([hidden.detach(), *(parameter.grad for parameter in model.parameters())])
    for on_cpu, on_gpu in zip(*results, strict=True):
        assert relative(on_gpu, on_cpu) < 1e-4


def test_a_shared_prefix_is_masked_as_on_the_cpu():
    prefix = 1 << attention.PREFIX_SHIFT
    segment_ids = torch.tensor([[1] * 20 + [prefix + 2] * 30 + [prefix + 3] * 14])
    ids, model = random_ids(1, 64), random_model()
    with torch.no_grad():
        expected = model(ids, None, segment_ids)
        model.cuda()
        assert relative(model(ids.cuda(), None, segment_ids.cuda()), expected) < 1e-4
        with autocast(BF16, "cuda"):
            assert relative(model(ids.cuda(), None, segment_ids.cuda()), expected) < 3e-2


@pytest.mark.parametrize("known", [False, True], ids=["count asked", "count known"])
@pytest.mark.parametrize("loss", ["cross_entropy", "cross_entropy fused", "logprobs"])
def test_losses_without_logits_equal_the_cpu(monkeypatch, loss, known):
    monkeypatch.setattr(logprobs, "_compiled_nll_and_gradient", None)
    monkeypatch.setattr(logprobs, "CHUNK_LOGITS_GPU", 4096 * 300)
    if loss == "cross_entropy fused":
        logprobs.compile_loss()
    results = []
    for device in ("cpu", "cuda"):
        generator = torch.Generator().manual_seed(0)
        hidden, weight = (torch.randn(n, 48, generator=generator).to(device).requires_grad_() for n in (5000, 300))
        labels = torch.randint(-1, 300, (5000,), generator=generator)  # one chunk of 4,096 and a rest
        labels[labels < 0] = -100
        counted = int((labels != -100).sum()) if known else None
        labels = labels.to(device)
        if loss == "logprobs":
            values = linear_logprobs_and_entropy(hidden, weight, labels, 0.7, counted=counted)
        else:
            values = (linear_cross_entropy(hidden, weight, labels, counted),)
        sum((i + 1) * value.square().sum() for i, value in enumerate(values)).backward()
        results.append([*values, hidden.grad, weight.grad])
    for on_cpu, on_gpu in zip(*results, strict=True):
        assert relative(on_gpu, on_cpu) < 1e-4


@pytest.mark.parametrize("compiled", [False, True])
def test_the_gpu_follows_the_plain_loop(compiled):
    largest, final = curve.distances(curve.fast_curve(curve.NUM_STEPS, compiled=compiled, device="cuda"), curve.reference_curve(curve.NUM_STEPS))
    assert largest < 0.01 and final < 0.005


def steps(num_steps, resume_at=None):
    """Weights and optimizer state after some steps; with `resume_at`, carried over to new objects there."""
    def fresh():
        model = initialize(Transformer(curve.CONFIG), 0).cuda()
        compile_blocks(model)
        return model, make_optimizer(model, OptimizerSection(), BF16)

    model, optimizer = fresh()
    # rows of 256: attention in other libraries, whose gradients are not always the same, begins above 128
    segment_ids, position_ids = packed_row_ids()[0].repeat_interleave(4, dim=1).cuda(), torch.arange(256, device="cuda").expand(3, -1)
    for step in range(num_steps):
        if step == resume_at:
            saved = {name: x.cpu() for name, x in model.state_dict().items()}, {name: x.cpu() for name, x in optimizer.state_tensors().items()}
            model, optimizer = fresh()
            model.load_state_dict(saved[0])
            optimizer.load_state_tensors(saved[1])
        ids = random_ids(3, 257, seed=step, high=curve.V).cuda()

        def losses(_, ids=ids, model=model):
            with autocast(BF16, "cuda"):
                hidden = model(ids[:, :-1], position_ids, segment_ids)
                return {"loss": Loss(linear_cross_entropy(hidden, model.head_weight, ids[:, 1:], 768), 768.0, "token")}

        update(list(model.parameters()), optimizer, [0], losses, {"loss": 768.0}, lr_scale=1.0, max_grad_norm=1.0)
    return {**model.state_dict(), **optimizer.state_tensors()}


def test_a_loss_of_which_this_rank_holds_nothing():
    """Several ranks share out a step's rows, replayed text behind the conversations: most have none of it, and their sums lay on two devices."""
    weight = torch.ones(4, device="cuda", requires_grad=True)
    stats = update([weight], Sgd([weight]), [0], lambda _: {"loss": Loss(weight.square().sum(), 4.0, "token")}, {"loss": 4.0, "replay": 0.0},
                   lr_scale=0.1, max_grad_norm=1e9)  # fmt: skip
    assert stats.losses == {"loss": 1.0, "replay": 0.0} and not stats.skipped


def test_training_twice_or_resumed_ends_in_the_same_bits():
    whole, again, resumed = steps(8), steps(8), steps(8, resume_at=5)
    for name, value in whole.items():
        assert torch.equal(value, again[name]) and torch.equal(value, resumed[name]), name


@pytest.mark.parametrize("changes", [{}, {"qk_norm": False}, {"num_kv_heads": 1, "tie_embeddings": False}], ids=str)
@torch.no_grad()
def test_captured_decoding_equals_the_full_forward_pass(changes):
    model = random_model(**changes).cuda()
    engine = Engine(model, max_batch=8)
    assert isinstance(engine.decoder, GraphDecoder)
    for _ in range(2):
        for answer in engine.generate(ragged_prompts(20), 50, STOP, Sampling(0.8), seed=3):
            ids = torch.tensor([answer.prompt_ids + answer.token_ids], device="cuda")
            expected = torch.log_softmax(model.logits(model(ids)) / 0.8, -1)[0]
            at = torch.arange(len(answer.prompt_ids) - 1, ids.shape[1] - 1, device="cuda")
            torch.testing.assert_close(torch.tensor(answer.logprobs), expected[at, ids[0, at + 1]].cpu(), rtol=0, atol=1e-5)
        model = random_model(seed=1, **changes).cuda()
        engine.refresh(model)  # a graph of the old weights would answer for them


@torch.no_grad()
def test_a_captured_step_equals_an_eager_one_and_follows_the_cache():
    model = random_model().cuda()
    decoders = [kind(model, torch.float32) for kind in (Decoder, GraphDecoder)]
    decoders[1].steps_before_capture = 2
    ids = random_ids(4, 6).cuda()
    for decoder in decoders:
        decoder.allocate(4, 32)
    for begin in (0, 1):  # twice: the second prompts overwrite the first
        results = []
        for decoder in decoders:
            rows = torch.arange(4, device="cuda")
            found = [decoder.prefill(ids[:, begin:], torch.full((4,), 6 - begin, device="cuda"), rows, rows)]
            for position in range(6 - begin, 50):
                if position == 32 and decoder.capacity == 32:
                    decoder.grow(64)
                found.append(decoder.step(found[-1].argmax(-1), torch.full((4,), position, device="cuda")).clone())
            results.append(torch.stack(found))
        torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)


def test_answers_do_not_depend_on_the_batch():
    model, prompts = random_model().cuda(), ragged_prompts(100)
    for dtype in (torch.float32, BF16):
        found = [Engine(model, dtype, max_batch=size).generate(prompts, 30, STOP, Sampling(top_p=0.9), seed=5) for size in (1, 64, 100)]
        same = [a.token_ids == b.token_ids == c.token_ids for a, b, c in zip(*found, strict=True)]
        assert sum(same) >= (100 if dtype == torch.float32 else 80), sum(same)
        again = Engine(model, dtype, max_batch=64).generate(prompts, 30, STOP, Sampling(top_p=0.9), seed=5)
        assert [a.token_ids for a in again] == [b.token_ids for b in found[1]]


def test_the_peak_is_measured_with_products_that_fill_the_card():
    rates = measure("cuda", torch.get_num_threads())["matmul_flops_per_s"]
    assert rates["bfloat16"] > 3 * rates["float32"] > 1e12
