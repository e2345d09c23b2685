"""Ranks: what a stage needs to know of the other processes that train with it, and nothing more.

Distribution is applied from outside: the model is a plain module, and rank and world size are arguments. A single
process is the same code with a world of one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Process:
    rank: int = 0
    world_size: int = 1

    @staticmethod
    def single() -> Process:
        return Process()

    @staticmethod
    def from_environment() -> Process:
        """The process group `torchrun` describes in RANK and WORLD_SIZE (gloo on CPU, nccl on GPUs), or a world of one."""
        world_size = int(os.environ.get("WORLD_SIZE", "1"))
        if world_size == 1:
            return Process()
        import torch.distributed as dist

        if not dist.is_initialized():
            dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        return Process(rank=dist.get_rank(), world_size=dist.get_world_size())

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def all_reduce_sum(self, tensor: Tensor) -> Tensor:
        """The sum of `tensor` over all ranks, in place; the tensor itself in a world of one."""
        if self.world_size > 1:
            import torch.distributed as dist

            dist.all_reduce(tensor)
        return tensor

    def all_reduce_grads(self, grads: Sequence[Tensor]) -> None:
        """Sum gradients over ranks in place. One flat buffer for all of them: one message instead of one a tensor."""
        if self.world_size == 1 or not grads:
            return
        flat = torch._utils._flatten_dense_tensors(grads)
        self.all_reduce_sum(flat)
        for grad, summed in zip(grads, torch._utils._unflatten_dense_tensors(flat, grads), strict=True):
            grad.copy_(summed)

    def broadcast(self, value: object) -> object:
        """The main rank's JSON-like value, on every rank."""
        if self.world_size == 1:
            return value
        import torch.distributed as dist

        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def barrier(self) -> None:
        if self.world_size > 1:
            import torch.distributed as dist

            dist.barrier()
