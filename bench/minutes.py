"""How well texts can be learnt in some minutes: python bench/minutes.py FILE... [--seconds 180] [--seed 0] [--out FOLDER]

The first nine tenths of each text's characters train, the rest is held out (of tiny Shakespeare that is nanoGPT's split). The
clock starts with the process and stops when the weights are written: imports, learning the tokenizer (from the training part
alone), compiling and measuring the machine's rate included.

Then what was held out is cut into windows of the training length, none overlapping; every character is counted once, on a CPU in
float32, on a GPU in the dtype of training (as nanochat does on either). Nats a
character and bits a byte compare across tokenizers. The defaults are those for tiny Shakespeare; beside nanochat on books:
peers/nanochat.py and README.md.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

from fromnoise.run.machine import apply, choose, measure, prepare_environment, resolve_device, threads

prepare_environment()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from texts import TICKS, Clock, Rows, Texts, add_options, held_out_nats, tell  # noqa: E402

from fromnoise.algorithms.logprobs import linear_cross_entropy  # noqa: E402
from fromnoise.algorithms.schedules import lr_scale  # noqa: E402
from fromnoise.data.loader import prefetch, stream_batch  # noqa: E402
from fromnoise.data.packing import Batch  # noqa: E402
from fromnoise.model.compiled import compile_blocks  # noqa: E402
from fromnoise.model.config import ModelConfig  # noqa: E402
from fromnoise.model.flops import num_parameters, training_flops_per_token  # noqa: E402
from fromnoise.model.hf import save_model  # noqa: E402
from fromnoise.model.initialize import initialize  # noqa: E402
from fromnoise.model.transformer import Transformer  # noqa: E402
from fromnoise.optim.groups import make_optimizer  # noqa: E402
from fromnoise.run.recipe import OptimizerSection, Recipe  # noqa: E402
from fromnoise.run.update import Loss, update  # noqa: E402


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser, seconds=180.0, vocab=512, row_tokens=512, rows=4)
    parser.add_argument("--out", type=Path, help="where the weights go; a temporary folder otherwise")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--head-size", type=int, default=64)
    parser.add_argument("--ffn", type=int, default=512)
    parser.add_argument("--muon-lr", type=float, default=0.02)
    parser.add_argument("--adamw-lr", type=float, default=0.025)
    parser.add_argument("--embedding-lr", type=float, default=0.1)
    parser.add_argument("--muon-momentum", type=float, default=0.95)
    parser.add_argument("--weight-decay", type=float, default=0.0)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    texts = Texts.read(options.files, options.vocab)
    endoftext_id = texts.tokenizer.endoftext_id
    seconds = math.inf if options.from_first_step else options.seconds  # compiling costs nothing where the clock starts after it
    machine = choose(Recipe(), measure(resolve_device(options.device), threads(options.threads)), seconds)
    apply(machine)
    num_heads = options.width // options.head_size
    config = ModelConfig(
        vocab_size=texts.tokenizer.vocab_size, num_layers=options.layers, width=options.width, num_heads=num_heads, num_kv_heads=num_heads,
        head_size=options.head_size, ffn_width=options.ffn, context_tokens=options.row_tokens,
    )  # fmt: skip
    model = initialize(Transformer(config), options.seed).to(machine.device)
    section = OptimizerSection(muon_lr=options.muon_lr, adamw_lr=options.adamw_lr, embedding_lr=options.embedding_lr,
                               muon_momentum=options.muon_momentum, weight_decay=options.weight_decay)  # fmt: skip
    optimizer = make_optimizer(model, section, machine.torch_dtype)
    if machine.compile:
        compile_blocks(model)
    rows, step_tokens = Rows(texts.train, options.row_tokens, options.seed), options.rows * options.row_tokens

    def nll(batch: Batch) -> torch.Tensor:
        hidden = model(batch.input_ids, batch.position_ids, batch.segment_ids)
        return linear_cross_entropy(hidden, model.head_weight, batch.labels, batch.num_targets)

    def losses(batch: Batch) -> dict[str, Loss]:
        with machine.autocast():
            return {"loss": Loss(nll(batch), batch.num_targets, "token")}

    def batch_of(window: np.ndarray) -> Batch:
        return stream_batch(window[:, :-1].copy(), window[:, 1:].copy(), endoftext_id).to(machine.device)

    clock = Clock(options.seconds, options.from_first_step)
    for _, batch in prefetch(lambda _: batch_of(rows.next(options.rows)), 0, sys.maxsize):
        if not clock.another():
            break
        scale = lr_scale(clock.tick, TICKS, section.warmup_frac, section.decay_frac, section.final_lr_frac)
        stats = update(list(model.parameters()), optimizer, [batch], losses, {"loss": float(step_tokens)}, lr_scale=scale, max_grad_norm=1.0)
        clock.stepped()
        if clock.steps % 200 == 0:
            print(f"step {clock.steps}, {clock.last:.0f} s, loss {stats.losses['loss']:.3f} nats a token", flush=True)
    save_model(options.out or Path(tempfile.gettempdir()) / f"minutes-{options.seed}", model, texts.tokenizer)
    started = time.perf_counter()
    eager = "default" if machine.device_type == "cpu" else "force_eager"  # the last window of each text has a length of its own
    with torch.no_grad(), torch.compiler.set_stance(eager), machine.autocast() if machine.device_type != "cpu" else nullcontext():
        nats = held_out_nats(texts, options.row_tokens, lambda window: float(nll(batch_of(window))))
    flops = clock.steps * step_tokens * training_flops_per_token(config, options.row_tokens)
    tell(texts, nats, clock, step_tokens, started, f"seed {options.seed}, {num_parameters(config):,} parameters, {machine.dtype}, {flops:.2e} FLOPs")


if __name__ == "__main__":
    main()
