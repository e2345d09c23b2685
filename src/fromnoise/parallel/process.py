"""Ranks: what a stage needs to know of the other processes that train with it, and nothing more.

Distribution is applied from outside: the model is a plain module, and rank and world size are arguments. A single
process is the same code with a world of one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor

from fromnoise.run.errors import UserError
from fromnoise.run.interrupts import ended_by_ctrl_c

MEETING = timedelta(minutes=30)  # ranks that have not come by then will not


@dataclass(frozen=True, slots=True)
class Process:
    rank: int = 0
    world_size: int = 1

    @staticmethod
    def single() -> Process:
        return Process()

    @staticmethod
    def from_environment() -> Process:
        """The process group `torchrun` describes in RANK and WORLD_SIZE, or a world of one.

        CPU tensors travel by gloo, CUDA tensors by nccl; with GPUs each rank takes the one of its LOCAL_RANK. Raises UserError where
        ranks cannot meet, or some have not come within `MEETING`.
        """
        if os.environ.get("WORLD_SIZE", "1") == "1":
            return Process()
        import torch.distributed as dist
        from torch.distributed.rendezvous import rendezvous

        if not dist.is_initialized():
            own = int(os.environ.get("LOCAL_RANK", "0"))
            if own < torch.cuda.device_count():  # a rank without one may still run on the CPU; `resolve_device` refuses the rest
                torch.cuda.set_device(own)
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            try:
                with ended_by_ctrl_c():
                    store, rank, world_size = next(rendezvous("env://", timeout=MEETING))
                    # Ranks wait for the main one through whole stages that it does alone: far longer than the usual half hour.
                    dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=timedelta(days=7))
            except (ValueError, RuntimeError) as error:
                given = ", ".join(f"{name}={os.environ.get(name, 'unset')}" for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"))
                raise UserError(
                    f"the ranks cannot meet: {str(error).splitlines()[0]} ({given}); start them with torchrun, which sets these, or unset WORLD_SIZE "
                    f"for a single process"
                ) from None
        return Process(rank=dist.get_rank(), world_size=dist.get_world_size())

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def all_reduce_sum(self, tensor: Tensor) -> Tensor:
        """The sum of `tensor` over all ranks, in place; the tensor itself in a world of one."""
        if self.world_size > 1:
            import torch.distributed as dist

            with _all_there():
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
        with _all_there():
            dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]

    def leave(self) -> None:
        """End this process now when it is one of several; a single process goes on to its ordinary end.

        gloo's threads may hold the last messages' tensors while the interpreter shuts down: letting go of them then
        aborts the process, and destroying the group can wait for them for ever. Everything is on disk by now.
        """
        if self.world_size > 1:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)

    def barrier(self) -> None:
        if self.world_size > 1:
            import torch.distributed as dist

            with _all_there():
                dist.barrier()


@contextmanager
def _all_there() -> Iterator[None]:
    """Around a message of all ranks: UserError where another one has ended. Told by gloo's words, since it has no class for that: a connection
    closed or reset by its peer, a broken pipe, or a machine that answers no more. nccl ends the process itself."""
    try:
        yield
    except RuntimeError as error:
        if not any(words in str(error) for words in ("by peer", "Broken pipe", "Connection timed out", "No route to host")):
            raise
        raise UserError("another rank has ended, and this one cannot go on alone; unless that one was killed, it said why") from None
