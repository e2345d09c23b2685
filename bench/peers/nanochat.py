"""nanochat's model and optimizer from a checkout, against the clock as minutes.py runs: python peers/nanochat.py CHECKOUT FILE...

The texts, the tokenizer, the rows and the counting of what is held out are those of texts.py. The rest is nanochat's: the model
of a depth (heads of 64 and full attention, as its script for CPUs has them; width 64 a layer), Muon with AdamW, and the scaling
of rates and weight decay with the batch and the tokens, their schedules following the clock instead of the steps, all with
its base_train.py's defaults. NANOCHAT_DTYPE=bfloat16 in the environment computes in bf16. Compiled, as there.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fromnoise.run.machine import clock as device_clock
from fromnoise.run.machine import prepare_environment, resolve_device, threads

prepare_environment()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from texts import TICKS, Clock, Rows, Texts, add_options, held_out_nats, tell  # noqa: E402

DATA_A_PARAMETER = 12  # tokens, what its rates and weight decay are tuned for
REFERENCE_BATCH, REFERENCE_DEPTH = 2**19, 12
WARMUP_STEPS, COOLDOWN_FRAC, FINAL_FRAC = 40, 0.65, 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkout", type=Path)
    add_options(parser, seconds=300.0, vocab=4096, row_tokens=512, rows=32)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--head-size", type=int, default=64, help="64 in its script for CPUs, 128 in the one for GPUs")
    options = parser.parse_args()
    torch.set_num_threads(threads(options.threads))
    device = resolve_device(options.device)
    torch.manual_seed(options.seed)
    sys.path.insert(0, str(options.checkout))
    from nanochat.common import COMPUTE_DTYPE
    from nanochat.gpt import GPT, GPTConfig

    texts = Texts.read(options.files, options.vocab)

    def shaped(depth: int) -> GPT:
        with torch.device("meta"):
            heads = 64 * depth // options.head_size
            return GPT(GPTConfig(sequence_len=options.row_tokens, vocab_size=texts.tokenizer.vocab_size, n_layer=depth, n_head=heads, n_kv_head=heads,
                                 n_embd=64 * depth, window_pattern="L"))  # fmt: skip

    def tokens_wanted(model: GPT) -> int:
        counts = model.num_scaling_params()
        return DATA_A_PARAMETER * (counts["transformer_matrices"] + counts["lm_head"])

    model = shaped(options.depth)
    step_tokens = options.rows * options.row_tokens
    batch_scale = (step_tokens / REFERENCE_BATCH) ** 0.5
    weight_decay = 0.28 * batch_scale * tokens_wanted(shaped(REFERENCE_DEPTH)) / tokens_wanted(model)
    model.to_empty(device=device)
    model.init_weights()
    optimizer = model.setup_optimizer(unembedding_lr=0.008 * batch_scale, embedding_lr=0.3 * batch_scale, scalar_lr=0.5 * batch_scale,
                                      matrix_lr=0.02 * batch_scale, weight_decay=weight_decay)  # fmt: skip
    compiled = torch.compile(model, dynamic=False)
    rows = Rows(texts.train, options.row_tokens, options.seed)

    def schedule(clock: Clock) -> None:
        gone = clock.tick / TICKS
        cooled = max(0.0, (gone - (1 - COOLDOWN_FRAC)) / COOLDOWN_FRAC)
        momentum = 0.97 - 0.07 * cooled if cooled else 0.85 + 0.12 * min(1.0, clock.steps / 400)
        rate = min(1.0, (clock.steps + 1) / WARMUP_STEPS) * (1 - (1 - FINAL_FRAC) * cooled)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * rate
            if group["kind"] == "muon":
                group["momentum"], group["weight_decay"] = momentum, weight_decay * 0.5 * (1 + math.cos(math.pi * gone))

    clock = Clock(options.seconds, options.from_first_step)
    while clock.another():
        window = torch.from_numpy(rows.next(options.rows)).to(device)
        loss = compiled(window[:, :-1].contiguous(), window[:, 1:].contiguous())
        loss.backward()
        schedule(clock)
        optimizer.step()
        model.zero_grad(set_to_none=True)
        device_clock(device)  # its own loop waits for the device after each step as well
        clock.stepped()
        if clock.steps % 50 == 0:
            print(f"step {clock.steps}, {clock.last:.0f} s, loss {float(loss):.3f} nats a token", flush=True)
    torch.save(model.state_dict(), Path(tempfile.gettempdir()) / "nanochat-weights.pt")
    started = time.perf_counter()

    def nats(window: np.ndarray) -> float:
        ids = torch.from_numpy(window).to(device)
        if ids.shape[1] == 2:  # its forward wants at least two inputs: one more, not counted
            ids = torch.cat((ids, ids[:, -1:]), 1)
            return float(model(ids[:, :-1], ids[:, 1:].contiguous(), loss_reduction="none")[0])
        return float(model(ids[:, :-1], ids[:, 1:].contiguous(), loss_reduction="sum"))

    with torch.no_grad():
        total = held_out_nats(texts, options.row_tokens, nats)
    size = sum(p.numel() for p in model.parameters())
    tell(texts, total, clock, step_tokens, started, f"nanochat depth {options.depth}, seed {options.seed}, {size:,} parameters, {COMPUTE_DTYPE}")


if __name__ == "__main__":
    main()
