"""The laws of the one optimizer step, each beside a broken twin that breaks it."""

import os
import socket

import pytest
import torch
import torch.multiprocessing as multiprocessing
from safetensors.torch import load_file

from fromnoise.data.packing import Batch
from fromnoise.parallel.process import Process, _all_there
from fromnoise.run.errors import UserError
from fromnoise.run.update import Loss, NonFiniteGuard, update


class Sgd:
    """Plain gradient descent behind the optimizer's interface: what reaches the weights is the gradient itself."""

    def __init__(self, parameters):
        self.parameters = parameters

    def zero_grad(self, set_to_none=True):
        for parameter in self.parameters:
            parameter.grad = None

    def step(self, lr_scale):
        with torch.no_grad():
            for parameter in self.parameters:
                parameter -= lr_scale * parameter.grad


def problem():
    """Eight rows with very different numbers of counted positions, and a linear model."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(8, 16, 4, generator=generator)
    targets = torch.randn(8, 16, generator=generator)
    mask = torch.arange(16)[None] < torch.tensor([1, 16, 2, 3, 16, 1, 5, 9])[:, None]
    weight = torch.zeros(4, requires_grad=True)
    return inputs, targets, mask, weight


def squared_error(weight):
    def losses(batch):
        inputs, targets, mask = batch
        error = (inputs @ weight - targets).square() * mask
        return {"loss": Loss(error.sum(), float(mask.sum()), "token")}

    return losses


def mean_of_means(weight):
    """The broken twin: each micro-batch averaged by itself, then averaged over micro-batches."""

    def losses(batch):
        inputs, targets, mask = batch
        error = (inputs @ weight - targets).square() * mask
        return {"loss": Loss(error.sum() / mask.sum(), 1.0, "token")}

    return losses


def step(micro_batch_rows, make_losses, count_one=False, process=None, rows=slice(None)):
    inputs, targets, mask, weight = problem()
    pieces = [t[rows].split(micro_batch_rows) for t in (inputs, targets, mask)]
    batches = list(zip(*pieces, strict=True))
    count = float(len(batches)) if count_one else float(sum(batch[2].sum() for batch in batches))
    stats = update([weight], Sgd([weight]), batches, make_losses(weight), {"loss": count}, lr_scale=0.1, max_grad_norm=1e9, process=process)
    return weight.detach().clone(), stats


def test_eight_micro_batches_of_one_equal_one_of_eight():
    one, stats_one = step(8, squared_error)
    eight, stats_eight = step(1, squared_error)
    torch.testing.assert_close(one, eight, rtol=1e-5, atol=1e-7)
    assert stats_one.losses["loss"] == pytest.approx(stats_eight.losses["loss"], rel=1e-6)


def test_the_mean_of_means_breaks_that_law():
    one, _ = step(8, mean_of_means, count_one=True)
    eight, _ = step(1, mean_of_means, count_one=True)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(one, eight, rtol=1e-5, atol=1e-7)


def _rank(rank, port, results, divide_locally):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE="2")
    process = Process.from_environment()
    if divide_locally:  # the broken twin: each rank divides by its own count, and gradients are averaged

        class Local(Process):
            def all_reduce_sum(self, tensor):
                return tensor

            def all_reduce_grads(self, grads):
                Process.all_reduce_grads(process, grads)
                torch._foreach_mul_(list(grads), 0.5)

        used = Local(rank, 2)
    else:
        used = process
    weight, _ = step(2, squared_error, process=used, rows=slice(rank, None, 2))
    if rank == 0:
        results.put(weight.tolist())
    process.barrier()
    torch.distributed.destroy_process_group()


@pytest.mark.dist
@pytest.mark.parametrize("divide_locally", [False, True])
def test_one_rank_equals_two(divide_locally):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    multiprocessing.spawn(_rank, args=(port, results, divide_locally), nprocs=2)
    two = torch.tensor(results.get())
    one, _ = step(8, squared_error)
    equal = torch.allclose(one, two, rtol=1e-5, atol=1e-7)
    assert equal is not divide_locally


def test_a_non_finite_gradient_changes_nothing_and_is_counted(tmp_path):
    inputs, targets, mask, weight = problem()
    inputs[3, 0, 0] = float("inf")
    stats = update(
        [weight], Sgd([weight]), [(inputs, targets, mask)], squared_error(weight), {"loss": float(mask.sum())}, lr_scale=0.1, max_grad_norm=1.0
    )
    assert stats.skipped and weight.tolist() == [0.0] * 4
    ids = torch.arange(8).expand(2, 8)  # a view
    first, second = (Batch(ids + n, ids, ids, ids, *[torch.arange(2)] * 4, extra={"advantages": torch.ones(2, 8)}) for n in range(2))
    guard = NonFiniteGuard(tmp_path, limit=3)
    guard.check(7, stats, [first, second])
    guard.check(7, stats, [second])  # another update of the same iteration
    kept = load_file(tmp_path / "nonfinite-step-7-1.safetensors")
    assert torch.equal(kept["0/input_ids"], first.input_ids) and torch.equal(kept["1/input_ids"], second.input_ids)
    assert torch.equal(kept["1/labels"], ids) and "1/advantages" in kept and "torch_rng_state" in kept
    assert torch.equal(load_file(tmp_path / "nonfinite-step-7-2.safetensors")["0/input_ids"], second.input_ids)
    with pytest.raises(UserError, match=r"3 updates had a non-finite .*nonfinite-step-8-3"):
        guard.check(8, stats, [first])


def test_counts_below_one_divide_as_any_other():
    """Weights of pairs say how they compare: all of them a thousandth is the same step as all of them one."""
    inputs, targets, mask, _ = problem()
    found = []
    for scale in (1.0, 1e-3):
        weight = torch.zeros(4, requires_grad=True)

        def losses(batch, weight=weight, scale=scale):
            total, count, unit = squared_error(weight)(batch)["loss"]
            return {"loss": Loss(scale * total, scale * count / 16, unit)}

        stats = update([weight], Sgd([weight]), [(inputs, targets, mask)], losses, {"loss": scale * float(mask.sum()) / 16}, lr_scale=0.1, max_grad_norm=1e9)
        found.append((weight.detach(), stats.losses["loss"]))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-5, atol=1e-7)
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-5)


def test_clipping_bounds_the_step_and_reports_the_norm_before_it():
    inputs, targets, mask, weight = problem()
    stats = update(
        [weight], Sgd([weight]), [(inputs, targets * 100, mask)], squared_error(weight), {"loss": float(mask.sum())}, lr_scale=1.0, max_grad_norm=0.5
    )
    assert stats.grad_norm > 0.5
    assert float(weight.detach().norm()) == pytest.approx(0.5, rel=1e-4)


def test_a_wrong_count_is_refused():
    inputs, targets, mask, weight = problem()
    with pytest.raises(ValueError, match=r"counted .* announced"):
        update([weight], Sgd([weight]), [(inputs, targets, mask)], squared_error(weight), {"loss": 1.0}, lr_scale=0.1, max_grad_norm=1.0)


@pytest.mark.parametrize(
    "said",
    [
        "[pair.cc:534] Connection closed by peer [127.0.0.1]:5", "Connection reset by peer", "writev [127.0.0.1]:5: Broken pipe",
        "Read error [10.0.0.2]:5: Connection timed out", "Read error [10.0.0.2]:5: No route to host",
    ],
)  # fmt: skip
def test_however_gloo_puts_it_a_rank_that_has_ended_is_told_of_in_words(said):
    with pytest.raises(UserError, match="another rank has ended"), _all_there():
        raise RuntimeError(said)
    with pytest.raises(RuntimeError, match="shapes"), _all_there():
        raise RuntimeError("shapes differ")
