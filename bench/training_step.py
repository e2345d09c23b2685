"""Where one training step's time goes: python bench/training_step.py [4x192 6x256 8x512 12x768 20x1280] [--seconds 4] [--eager]

Each shape is timed as a whole step (`run/update.py`: forward, backward, clipping, optimizer), then part by part, each part
beside what its matrix products alone would take at the machine's best rate: the best median over square products of 1k to
4k (on a GPU, 8k), taken before and after in the same process, in the dtype that a stage would choose here. On a GPU where there is one, or
--device. Threads: OMP_NUM_THREADS, else all cores. Text is random ids in documents of 100 tokens on average (the two largest
shapes: 400), packed; the arithmetic does not depend on the ids.

MFU counts 6 x (parameters in matrix products) + 6 L T D a token, the optimizer's own products not at all.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable

from fromnoise.run.machine import Machine, apply, choose, clock, measure, prepare_environment, resolve_device

prepare_environment()

import torch  # noqa: E402

from fromnoise.algorithms.logprobs import linear_cross_entropy  # noqa: E402
from fromnoise.model.attention import plan_attention  # noqa: E402
from fromnoise.model.compiled import autocast, compile_blocks  # noqa: E402
from fromnoise.model.config import ModelConfig  # noqa: E402
from fromnoise.model.flops import num_matrix_parameters, training_flops_per_token  # noqa: E402
from fromnoise.model.fp8 import problem  # noqa: E402
from fromnoise.model.initialize import initialize  # noqa: E402
from fromnoise.model.transformer import Transformer, rope_angles  # noqa: E402
from fromnoise.optim.groups import make_optimizer  # noqa: E402
from fromnoise.run.recipe import OptimizerSection, Recipe  # noqa: E402
from fromnoise.run.update import Loss, update  # noqa: E402

# name: layers, width, heads, FFN width, vocabulary, rows a micro-batch, tokens a row, micro-batches a step, tokens a document
SHAPES = {
    "4x192": (4, 192, 3, 512, 4096, 8, 256, 1, 100),
    "6x256": (6, 256, 4, 704, 4096, 16, 256, 1, 100),
    "8x512": (8, 512, 8, 1408, 4096, 16, 256, 4, 100),
    "12x768": (12, 768, 6, 2048, 32_768, 32, 1024, 4, 400),
    "20x1280": (20, 1280, 10, 3456, 32_768, 16, 1024, 8, 400),
}


DEVICE, DTYPE = "cpu", torch.float32  # set by `main`


def config_of(name: str, **more) -> ModelConfig:
    """The model of a shape; `more`: further fields of its config."""
    layers, width, heads, ffn, vocab, *_ = SHAPES[name]
    return ModelConfig(vocab, layers, width, heads, heads, width // heads, ffn, **more)


def median_s(run: Callable[[], object], seconds: float) -> float:
    """Median time of `run`, at least three times and for about `seconds`."""
    times, until = [], time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < until:
        start = clock(DEVICE)
        run()
        times.append(clock(DEVICE) - start)
    return statistics.median(times)


def peak_flops() -> float:
    """Best median rate over square products of 1,024, 2,048 and 4,096, on a GPU of 8,192."""
    rates = []
    for size in (1024, 2048, 4096) if DEVICE == "cpu" else (8192,):
        left, right = (torch.randn(size, size).to(DEVICE, DTYPE) for _ in range(2))
        left @ right
        rates.append(2 * size**3 / median_s(lambda left=left, right=right: left @ right, 0.7))
    return max(rates)


class Step:
    """A model of one shape, its batch, and its parts to be timed."""

    def __init__(self, name: str, compiled: bool, fp8: bool):
        *_, vocab, self.rows, self.length, self.micro_batches, document_tokens = SHAPES[name]
        self.config = config_of(name)
        self.model = initialize(Transformer(self.config), 0).to(DEVICE)
        self.model.fp8 = fp8
        if fp8 and (why := problem(self.config, self.rows * self.length, torch.device(DEVICE), DTYPE)):
            raise SystemExit(f"--fp8: {why}")
        if compiled:
            compile_blocks(self.model)
        self.optimizer = make_optimizer(self.model, OptimizerSection(), DTYPE)
        self.parameters = list(self.model.parameters())
        generator = torch.Generator().manual_seed(0)
        self.ids = torch.randint(0, vocab, (self.rows, self.length + 1), generator=generator).to(DEVICE)
        self.segments = (torch.rand(self.rows, self.length, generator=generator) < 1 / document_tokens).long().cumsum(1).to(DEVICE)
        self.positions = torch.arange(self.length, device=DEVICE).expand(self.rows, -1)
        self.tokens = self.rows * self.length

    def losses(self, _batch: int) -> dict[str, Loss]:
        with autocast(DTYPE, DEVICE):
            hidden = self.model(self.ids[:, :-1], self.positions, self.segments)
            total = linear_cross_entropy(hidden, self.model.head_weight, self.ids[:, 1:], self.tokens)
        return {"loss": Loss(total, self.tokens, "token")}

    def step(self) -> None:
        batches, count = range(self.micro_batches), float(self.tokens * self.micro_batches)
        update(self.parameters, self.optimizer, batches, self.losses, {"loss": count}, lr_scale=0.01, max_grad_norm=1.0)

    def parts(self) -> dict[str, tuple[Callable[[], object], float, int]]:
        """name: (what to time, FLOPs of its products, how often a step does it)."""
        c, model = self.config, self.model
        x = torch.randn(self.rows, self.length, c.width, device=DEVICE, requires_grad=True)
        grad = torch.randn_like(x)
        cos, sin = rope_angles(self.positions, c.head_size, c.rope_theta)
        plan = plan_attention(self.segments, self.length, x.device, DTYPE, c.head_size)
        hidden = torch.randn(self.tokens, c.width).to(DEVICE, DTYPE).requires_grad_()

        def block(backward: bool) -> None:
            y = model.block_forward(x, cos, sin, plan, model.layers[0].weights(), c.head_size, c.rms_norm_eps, DTYPE, model.fp8)
            if backward:
                y.backward(grad)

        def head() -> None:
            with autocast(DTYPE, DEVICE):
                linear_cross_entropy(hidden, model.head_weight, self.ids[:, 1:].flatten(), self.tokens).backward()

        def embedding() -> None:
            torch.nn.functional.embedding(self.ids[:, :-1], model.embed_tokens.weight).backward(grad)

        head_flops = 6.0 * c.vocab_size * c.width * self.tokens
        block_flops = (training_flops_per_token(c, self.length) * self.tokens - head_flops) / c.num_layers
        n = self.micro_batches
        return {
            "blocks, forward (saving for backward)": (lambda: block(False), block_flops / 3, n * c.num_layers),
            "blocks, forward and backward": (lambda: block(True), block_flops, n * c.num_layers),
            "head and loss, forward and backward": (head, head_flops, n),
            "embedding, forward and backward": (embedding, 0.0, n),
            "attention mask": (lambda: plan_attention(self.segments, self.length, x.device, DTYPE, c.head_size), 0.0, n),
            "rotary angles": (lambda: rope_angles(self.positions, c.head_size, c.rope_theta), 0.0, n),
            "optimizer": (lambda: self.optimizer.step(lr_scale=0.0), 0.0, 1),
        }


def report(name: str, seconds: float, compiled: bool, fp8: bool) -> None:
    start = clock(DEVICE)
    step = Step(name, compiled, fp8)
    step.step()
    first_s = clock(DEVICE) - start
    step.step()
    before = peak_flops()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step.step()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    step_s = median_s(step.step, seconds)
    peak = max(before, peak_flops())
    tokens = step.tokens * step.micro_batches
    mfu = training_flops_per_token(step.config, step.length) * tokens / step_s / peak
    eight = ", the blocks in 8 bits" if fp8 else ""
    print(
        f"\n{name}{eight}: {num_matrix_parameters(step.config) / 1e6:.1f} M matrix parameters, "
        f"{step.micro_batches} x {step.rows} rows x {step.length} tokens, "
        f"{torch.get_num_threads()} threads, {DTYPE} on {DEVICE}, {'compiled' if compiled else 'eager'}; products at {peak / 1e9:,.0f} GFLOP/s\n"
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
    parser.add_argument("shapes", nargs="*", help="which of " + ", ".join(SHAPES) + "; by default those for the device")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seconds", type=float, default=4.0, help="to time each whole step for")
    parser.add_argument("--fp8", action="store_true", help="the blocks' products in 8 bits; the peak stays that of 16")
    parser.add_argument("--eager", action="store_true", help="without torch.compile")
    options = parser.parse_args()
    if unknown := [name for name in options.shapes if name not in SHAPES]:
        parser.error(f"no shape {unknown[0]!r}; there are {', '.join(SHAPES)}")
    global DEVICE, DTYPE
    DEVICE = resolve_device(options.device)
    DTYPE = choose(Recipe(compile="off"), measure(DEVICE, torch.get_num_threads()), 0.0).torch_dtype
    apply(Machine(DEVICE, str(DTYPE).removeprefix("torch."), not options.eager, torch.get_num_threads(), 1.0))
    for name in options.shapes or (list(SHAPES)[:3] if DEVICE == "cpu" else list(SHAPES)[3:]):
        report(name, options.seconds, not options.eager, options.fp8)


if __name__ == "__main__":
    main()
