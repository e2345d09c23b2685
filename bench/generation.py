"""How fast answers are generated on this device: python bench/generation.py [--shape 12x768] [--rows 1 64 512] [--peer]

Random weights of a shape of training_step.py, prompts of 32 random tokens, 128 sampled tokens each (no stop), in the dtype that a
stage would choose here. Every number of rows is done once to warm up, then timed; the median of three is told. --peer does the
same with `transformers` `generate` on the same weights (which that package must be installed for). bench.py compares the
two side by side on a CPU; this script is for one device at a time.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

from fromnoise.run.machine import Machine, apply, choose, clock, measure, prepare_environment, resolve_device

prepare_environment()

import torch  # noqa: E402
from shape import NEW_TOKENS, PROMPT_TOKENS  # noqa: E402
from training_step import SHAPES, config_of  # noqa: E402

from fromnoise.data.tokenizer import Tokenizer  # noqa: E402
from fromnoise.generate.engine import Engine  # noqa: E402
from fromnoise.model.hf import save_model  # noqa: E402
from fromnoise.model.initialize import initialize  # noqa: E402
from fromnoise.model.transformer import Transformer  # noqa: E402
from fromnoise.run.recipe import Recipe, SamplingSection  # noqa: E402


def told(what: str, rows: int, device: str, run: Callable[[], object]) -> None:
    times = []
    for _ in range(4):
        start = clock(device)
        run()
        times.append(clock(device) - start)
    seconds = statistics.median(times[1:])
    print(f"  {what}: {rows} rows x {NEW_TOKENS} tokens, {rows * NEW_TOKENS / seconds:,.0f} tokens/s, {seconds / NEW_TOKENS * 1e3:.2f} ms a step", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="12x768")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 64, 512])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--peer", action="store_true")
    options = parser.parse_args()
    device = resolve_device(options.device)
    dtype = choose(Recipe(compile="off"), measure(device, torch.get_num_threads()), 0.0).torch_dtype
    apply(Machine(device, str(dtype).removeprefix("torch."), False, torch.get_num_threads(), 1.0))
    tokenizer = Tokenizer.train(["The cat sat on the mat."] * 20, 320)
    config = config_of(options.shape, context_tokens=PROMPT_TOKENS + NEW_TOKENS)
    model = initialize(Transformer(config), 0).to(device)
    engine = Engine(model, dtype, max_batch=max(options.rows))
    print(f"{options.shape}, {dtype} on {device}, {type(engine.decoder).__name__}")
    prompts = torch.randint(300, config.vocab_size, (max(options.rows), PROMPT_TOKENS), generator=torch.Generator().manual_seed(0))
    for rows in options.rows:
        told("fromnoise", rows, device, lambda rows=rows: engine.generate(prompts[:rows].tolist(), NEW_TOKENS, frozenset(), SamplingSection(), 0))
    if options.peer:
        from transformers import AutoModelForCausalLM

        with tempfile.TemporaryDirectory() as folder:
            save_model(Path(folder), model, tokenizer)
            peer = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(device)
        for rows in options.rows:
            given = {"input_ids": prompts[:rows].to(device), "attention_mask": torch.ones_like(prompts[:rows], device=device)}
            ask = {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS, "do_sample": True, "top_k": 0, "top_p": 1.0, "pad_token_id": 0}
            told("transformers", rows, device, lambda given=given, ask=ask: peer.generate(**given, **ask))


if __name__ == "__main__":
    main()
