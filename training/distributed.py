"""Several processes that train together: who they are, and the few things they tell each other.

torchrun starts them. Gradients travel on the device, by torch's DistributedDataParallel or by `World.add_up`; the small
things (numbers, lists, errors) travel by gloo on the CPU, whatever the device.
"""

from __future__ import annotations

import builtins
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist

from saaa.errors import OptionInvalid, SaaaError

T = TypeVar("T")

PATIENCE = timedelta(hours=6)
"""How long a process waits for the others, which may be busy evaluating. When one dies, torchrun ends all."""
CPU = torch.device("cpu")


@dataclass(frozen=True)
class World:
    """The processes of a run, seen from one of them. Every method but `share` and `print` must be called by all."""

    rank: int = 0
    """This process's number, 0 to size - 1."""
    size: int = 1
    """How many there are."""
    device: torch.device = CPU
    """Where this process computes."""

    @property
    def main(self) -> bool:
        """Whether this is the process that writes files and talks to the user."""
        return self.rank == 0

    def share(self, count: int) -> range:
        """This process's part of `count` things: every size-th, from its rank on."""
        return range(self.rank, count, self.size)

    def gather(self, value: T) -> list[T]:
        """Give every process the values of all, by rank; anything that can be pickled."""
        if self.size == 1:
            return [value]
        found: list[T | None] = [None] * self.size
        dist.all_gather_object(found, value)
        return found  # type: ignore[return-value]

    def total(self, values: Sequence[float]) -> list[float]:
        """Add up a few numbers over the processes, in float64; the same on all of them."""
        numbers = torch.tensor(values, dtype=torch.float64)
        if self.size > 1:
            dist.all_reduce(numbers)
        return numbers.tolist()

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Add up tensors over the processes, in place and in one message; of one type, on `device`."""
        if self.size == 1:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, total in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(total.view_as(tensor))

    def first(self, do: Callable[[], T]) -> T:
        """Let the main process do something and give all its result, which can be pickled.

        Raises:
            Exception: on all processes, what `do` raised on the main one.
        """
        if self.size == 1:
            return do()
        answer: list[object] = [None, None]
        if self.main:
            try:
                answer[0] = do()
            except Exception as error:
                # An error of ours goes over as it is; others may hold what cannot be pickled.
                answer[1] = RuntimeError(repr(error)) if not isinstance(error, SaaaError) else error
                dist.broadcast_object_list(answer, src=0)
                raise
        dist.broadcast_object_list(answer, src=0)
        if isinstance(answer[1], Exception):
            raise answer[1]
        return answer[0]  # type: ignore[return-value]

    def align(self, net: nn.Module) -> None:
        """Give all processes the main one's buffers: batch norm's statistics are each process's own between steps."""
        if self.size > 1:
            for buffer in net.buffers():
                dist.broadcast(buffer, src=0)

    def print(self, *values: object) -> None:
        """Print, on the main process only."""
        if self.main:
            builtins.print(*values, flush=True)


@contextmanager
def world(device: str, url: str = "env://") -> Iterator[World]:
    """Meet the other processes that torchrun started; without torchrun the world is this process alone.

    Args:
        device: as `torch_device`; of several GPUs each process takes its own.
        url: where the processes meet, as torch's `init_method`.

    Raises:
        OptionInvalid: no such device, fewer GPUs than processes on this machine, or the processes cannot meet.
    """
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    chosen = torch_device(device, local_rank=int(os.environ.get("LOCAL_RANK", 0)) if size > 1 else None)
    if size == 1:
        yield World(device=chosen)
        return
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo"
    try:
        dist.init_process_group(backend, init_method=url, rank=rank, world_size=size, timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise OptionInvalid(
            f"The {size} processes cannot meet at {url}: {str(error).splitlines()[0]}", field="dist_url"
        ) from error
    try:
        yield World(rank, size, chosen)
    finally:
        dist.destroy_process_group()


def torch_device(name: str, *, local_rank: int | None = None) -> torch.device:
    """Give the torch device of that name.

    Args:
        name: a torch device, or "auto": cuda where there is one, else cpu.
        local_rank: the process's number on this machine; a GPU without a number is then the one of that number.

    Raises:
        OptionInvalid: no such device here.
    """
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
        if device.type == "cuda" and device.index is None and local_rank is not None:
            device = torch.device("cuda", local_rank)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise OptionInvalid(
            f"device {name!r} cannot be used here: {str(error).splitlines()[0]}", field="device"
        ) from error
    return device
