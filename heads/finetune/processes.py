"""The processes of one training: one of them, or as many as ``torchrun`` has started."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
from torch import distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dynaprop.pipeline.errors import UsageError

T = TypeVar("T")

_PATIENCE = timedelta(hours=2)  # others wait while the first process measures features and writes


class ProcessGroup:
    """What the processes of a training tell each other. Alone, nothing is sent.

    Each process computes the gradients of its part of every batch, and their sum is what all go on with. That is what
    torch's DistributedDataParallel does, but for parts of different sizes, which it would weigh alike: here two
    processes train as one does.

    Args:
        rank: this process's number; 0 writes.
        size: how many there are.
        local_size: how many of them share this machine.
    """

    def __init__(self, rank: int = 0, size: int = 1, local_size: int = 1) -> None:
        self.rank = rank
        self.size = size
        self.local_size = local_size

    def share(self, model: nn.Module) -> None:
        """Give all processes the first one's parameters and buffers."""
        if self.size > 1:
            for tensor in model.state_dict().values():
                sent = tensor.detach().contiguous()
                distributed.broadcast(sent, src=0)
                tensor.detach().copy_(sent)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all processes, in place."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def gather(self, value: T) -> list[T]:
        """What each process has, in their order; it goes from process to process, pickled."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value)
        return cast(list[T], values)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by the sum over all processes; a process without one counts as zero."""
        if self.size == 1:
            return
        parameters = list(parameters)
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        distributed.all_reduce(flat)
        for gradient, summed in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(summed.view(gradient.shape))

    def mean_statistics(self, model: nn.Module) -> None:
        """Average the statistics of batch normalisation that is trained: each process has seen other videos."""
        if self.size == 1:
            return
        for layer in model.modules():
            if isinstance(layer, _BatchNorm) and layer.training:  # what is frozen must not change in the last bit
                for statistics in (layer.running_mean, layer.running_var):
                    if statistics is not None:
                        distributed.all_reduce(statistics)
                        statistics /= self.size

    def wait(self) -> None:
        """Wait until all are here."""
        if self.size > 1:
            distributed.barrier()


@contextmanager
def process_group(device: str) -> Iterator[tuple[ProcessGroup, str]]:
    """Join the processes that ``torchrun`` has started, or be alone.

    Args:
        device: torch device; with several processes ``cuda`` means one GPU each.

    Returns:
        The group, and the device of this process.

    Raises:
        UsageError: more processes than GPUs, or all on one GPU.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ProcessGroup(), device
        return
    rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    if device.startswith("cuda:"):
        raise UsageError(f"device {device!r} is one GPU for {size} processes: leave out its number")
    if device == "cuda":
        if local >= torch.cuda.device_count():
            raise UsageError(f"{torch.cuda.device_count()} GPUs are here: start at most as many processes")
        device = f"cuda:{local}"
        torch.cuda.set_device(local)
    distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo", timeout=_PATIENCE)
    yield ProcessGroup(rank, size, int(os.environ.get("LOCAL_WORLD_SIZE", "1"))), device
    distributed.destroy_process_group()  # not after an error: NCCL would wait for the others, which wait for this one
