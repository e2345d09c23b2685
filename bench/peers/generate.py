"""`transformers` `generate` on the fixture's model: python generate.py FOLDER --dtype D --num-prompts N [--threads N]"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
import transformers
from pace import serve
from shape import NEW_TOKENS, NUM_PROMPTS, PROMPT_TOKENS


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--dtype", default="float32")
    arguments.add_argument("--num-prompts", type=int, default=NUM_PROMPTS)
    arguments.add_argument("--threads", type=int)
    given = arguments.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    model = transformers.AutoModelForCausalLM.from_pretrained(given.folder / "run" / "sft", dtype=getattr(torch, given.dtype)).eval()
    prompts = torch.randint(300, model.config.vocab_size, (given.num_prompts, PROMPT_TOKENS), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(prompts)
    options = {"do_sample": True, "top_k": 0, "top_p": 1.0, "temperature": 1.0, "max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS}

    @torch.inference_mode()
    def measure() -> tuple[float, float]:
        start = time.perf_counter()
        out = model.generate(prompts, attention_mask=mask, **options)
        seconds = time.perf_counter() - start
        assert out.shape[1] == PROMPT_TOKENS + NEW_TOKENS
        return given.num_prompts * NEW_TOKENS, seconds

    measure()
    serve(measure, transformers=transformers.__version__, torch=torch.__version__, num_threads=torch.get_num_threads())


if __name__ == "__main__":
    main()
