"""Where one training step's time goes: python bench/training_step.py [4x192 6x256 8x512] [--seconds 4] [--eager]

Each shape is timed as a whole step (`run/update.py`: forward, backward, clipping, optimizer), then part by part, each part
beside what its matrix products alone would take at the machine's best rate: the best median over square products of 1k to
4k, taken before and after in the same process, in the dtype that a stage would choose here. Threads: OMP_NUM_THREADS, else all cores. Text is random ids in
documents of 100 tokens on average, packed; the arithmetic does not depend on the ids.

MFU counts 6 x (parameters in matrix products) + 6 L T D a token, the optimizer's own products not at all.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable

from fromnoise.run.machine import Machine, apply, choose, measure, prepare_environment

prepare_environment()

import torch  # noqa: E402

from fromnoise.algorithms.logprobs import linear_cross_entropy  # noqa: E402
from fromnoise.model.attention import plan_attention  # noqa: E402
from fromnoise.model.compiled import autocast, compile_blocks  # noqa: E402
from fromnoise.model.config import ModelConfig  # noqa: E402
from fromnoise.model.flops import num_matrix_parameters, training_flops_per_token  # noqa: E402
from fromnoise.model.initialize import initialize  # noqa: E402
from fromnoise.model.transformer import Transformer, rope_angles  # noqa: E402
from fromnoise.optim.groups import make_optimizer  # noqa: E402
from fromnoise.run.recipe import OptimizerSection, Recipe  # noqa: E402
from fromnoise.run.update import Loss, update  # noqa: E402

DTYPE = choose(Recipe(compile="off"), measure("cpu", torch.get_num_threads()), 0.0).torch_dtype
VOCAB = 4096
# name: layers, width, heads, FFN width, rows a micro-batch, tokens a row, micro-batches a step
SHAPES = {
    "4x192": (4, 192, 3, 512, 8, 256, 1),
    "6x256": (6, 256, 4, 704, 16, 256, 1),
    "8x512": (8, 512, 8, 1408, 16, 256, 4),
}


def median_s(run: Callable[[], object], seconds: float) -> float:
    """Median time of `run`, at least three times and for about `seconds`."""
    times, until = [], time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < until:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def peak_flops() -> float:
    """Best median rate over square products of 1,024, 2,048 and 4,096."""
    rates = []
    for size in (1024, 2048, 4096):
        left, right = (torch.randn(size, size).to(DTYPE) for _ in range(2))
        left @ right
        rates.append(2 * size**3 / median_s(lambda left=left, right=right: left @ right, 0.7))
    return max(rates)


class Step:
    """A model of one shape, its batch, and its parts to be timed."""

    def __init__(self, name: str, compiled: bool):
        layers, width, heads, ffn, self.rows, self.length, self.micro_batches = SHAPES[name]
        size = width // heads
        self.config = ModelConfig(VOCAB, layers, width, heads, heads, size, ffn)
        self.model = initialize(Transformer(self.config), 0)
        if compiled:
            compile_blocks(self.model)
        self.optimizer = make_optimizer(self.model, OptimizerSection(), DTYPE)
        self.parameters = list(self.model.parameters())
        generator = torch.Generator().manual_seed(0)
        self.ids = torch.randint(0, VOCAB, (self.rows, self.length + 1), generator=generator)
        self.segments = (torch.rand(self.rows, self.length, generator=generator) < 0.01).long().cumsum(1)
        self.positions = torch.arange(self.length).expand(self.rows, -1)
        self.tokens = self.rows * self.length

    def losses(self, _batch: int) -> dict[str, Loss]:
        with autocast(DTYPE):
            hidden = self.model(self.ids[:, :-1], self.positions, self.segments)
            nll = linear_cross_entropy(hidden, self.model.head_weight, self.ids[:, 1:])
        return {"loss": Loss(nll.sum(), self.tokens, "token")}

    def step(self) -> None:
        batches, count = range(self.micro_batches), float(self.tokens * self.micro_batches)
        update(self.parameters, self.optimizer, batches, self.losses, {"loss": count}, lr_scale=0.01, max_grad_norm=1.0)

    def parts(self) -> dict[str, tuple[Callable[[], object], float, int]]:
        """name: (what to time, FLOPs of its products, how often a step does it)."""
        c, model = self.config, self.model
        x = torch.randn(self.rows, self.length, c.width, requires_grad=True)
        grad = torch.randn(x.shape)
        cos, sin = rope_angles(self.positions, c.head_size, c.rope_theta)
        plan = plan_attention(self.segments, self.length, x.device)
        hidden = torch.randn(self.tokens, c.width).to(DTYPE).requires_grad_()

        def block(backward: bool) -> None:
            y = model.block_forward(x, cos, sin, plan, model.layers[0].weights(), c.head_size, c.rms_norm_eps, DTYPE)
            if backward:
                y.backward(grad)

        def head() -> None:
            with autocast(DTYPE):
                linear_cross_entropy(hidden, model.head_weight, self.ids[:, 1:].flatten()).sum().backward()

        def embedding() -> None:
            torch.nn.functional.embedding(self.ids[:, :-1], model.embed_tokens.weight).backward(grad)

        head_flops = 6.0 * VOCAB * c.width * self.tokens
        block_flops = (training_flops_per_token(c, self.length) * self.tokens - head_flops) / c.num_layers
        n = self.micro_batches
        return {
            "blocks, forward (saving for backward)": (lambda: block(False), block_flops / 3, n * c.num_layers),
            "blocks, forward and backward": (lambda: block(True), block_flops, n * c.num_layers),
            "head and loss, forward and backward": (head, head_flops, n),
            "embedding, forward and backward": (embedding, 0.0, n),
            "attention mask": (lambda: plan_attention(self.segments, self.length, x.device), 0.0, n),
            "rotary angles": (lambda: rope_angles(self.positions, c.head_size, c.rope_theta), 0.0, n),
            "optimizer": (lambda: self.optimizer.step(lr_scale=0.0), 0.0, 1),
        }


def report(name: str, seconds: float, compiled: bool) -> None:
    start = time.perf_counter()
    step = Step(name, compiled)
    step.step()
    first_s = time.perf_counter() - start
    step.step()
    before = peak_flops()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step.step()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    step_s = median_s(step.step, seconds)
    peak = max(before, peak_flops())
    tokens = step.tokens * step.micro_batches
    mfu = training_flops_per_token(step.config, step.length) * tokens / step_s / peak
    print(
        f"\n{name}: {num_matrix_parameters(step.config) / 1e6:.1f} M matrix parameters, {step.micro_batches} x {step.rows} rows x {step.length} tokens, "
        f"{torch.get_num_threads()} threads, {'compiled' if compiled else 'eager'}; products at {peak / 1e9:,.0f} GFLOP/s\n"
        f"  {tokens / step_s:,.0f} tokens/s, {step_s * 1e3:,.1f} ms a step, MFU {mfu:.1%}, first step {first_s:.1f} s, {faults:,} page faults a step"
    )
    print(f"  {'part':42s} {'ms a step':>10s} {'share':>7s} {'of peak':>8s}")
    for part, (run, flops, times) in step.parts().items():
        run()
        took = median_s(run, seconds / 4)
        rate = f"{flops / took / peak:8.0%}" if flops else ""
        print(f"  {part:42s} {took * times * 1e3:10.2f} {took * times / step_s:7.1%} {rate}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shapes", nargs="*", help="which of " + ", ".join(SHAPES) + "; all by default")
    parser.add_argument("--seconds", type=float, default=4.0, help="to time each whole step for")
    parser.add_argument("--eager", action="store_true", help="without torch.compile")
    options = parser.parse_args()
    if unknown := [name for name in options.shapes if name not in SHAPES]:
        parser.error(f"no shape {unknown[0]!r}; there are {', '.join(SHAPES)}")
    apply(Machine("cpu", str(DTYPE).removeprefix("torch."), not options.eager, torch.get_num_threads(), 1.0))
    for name in options.shapes or SHAPES:
        report(name, options.seconds, not options.eager)


if __name__ == "__main__":
    main()
