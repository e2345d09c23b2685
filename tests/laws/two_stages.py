"""Stages of the smoke recipe, cut short, in as many ranks as torchrun starts.

    python -m tests.laws.two_stages RUN_FOLDER VERB ...

DIVIDE_LOCALLY makes the broken twin: each rank divides by its own counts, and the ranks' gradients are averaged.
"""

from __future__ import annotations

import os
import sys

import torch

from fromnoise.parallel.process import Process
from fromnoise.run.console import Console
from fromnoise.run.execute import execute
from fromnoise.run.folder import RunFolder
from fromnoise.run.recipe_load import load_recipe

SHORT = ["num_threads=1", "pretrain.tokens=40_000", "sft.max_tokens=10_000", "pretrain.num_kept_checkpoints=0"]


def divide_locally() -> None:
    def averaged(self, grads) -> None:
        for grad in grads:
            torch.distributed.all_reduce(grad)
            grad.mul_(1 / self.world_size)

    Process.all_reduce_grads, Process.all_reduce_sum = averaged, lambda self, tensor: tensor


if __name__ == "__main__":
    process = Process.from_environment()
    if os.environ.get("DIVIDE_LOCALLY"):
        divide_locally()
    for verb in sys.argv[2:]:
        execute(load_recipe("smoke", SHORT), RunFolder(sys.argv[1]), verb, console=Console(quiet=True), process=process)
    process.leave()
