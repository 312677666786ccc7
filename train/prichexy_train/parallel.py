"""One training in several processes, started by ``torchrun``.

Every process holds the networks whole and computes its share of each step's rows. Gradients are
averaged and the batch norms' statistics taken over all shares, so that what the processes compute
together is what one process computes alone, to rounding. With one process everything here does
nothing. See docs/decisions/0007-gradients-are-averaged-by-hand.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = [
    "Process",
    "average_gradients",
    "broadcast",
    "connected",
    "gather_rows",
    "same_weights",
    "share",
    "sum_values",
    "synchronise_batch_norms",
    "this_process",
    "whether_any",
]


@dataclass(frozen=True, slots=True)
class Process:
    """A process among those of the run; ``rank`` counts from 0."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one process that writes files and shows progress."""
        return self.rank == 0


def this_process() -> Process:
    """Give this process's place; the only one, unless ``connected`` joined it to others."""
    if distributed.is_available() and distributed.is_initialized():
        return Process(distributed.get_rank(), distributed.get_world_size())
    return Process()


@contextmanager
def connected() -> Iterator[Process]:
    """Within the block, the processes that torchrun started are joined; without it, nothing is.

    Uses gloo between processors and NCCL between GPUs.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Process()
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(backend)
    try:
        yield this_process()
        # Who is done first does not take the connection from the others.
        distributed.barrier()
    finally:
        distributed.destroy_process_group()


def share(rows: NDArray[np.int64], process: Process) -> NDArray[np.int64]:
    """Give this process's share of a step's ``rows``: as many as any other process's.

    Rows that cannot be shared out evenly, fewer than there are processes, are left out; the
    share may then be empty.
    """
    even = len(rows) - len(rows) % process.world
    return rows[:even][process.rank :: process.world]


def same_weights(networks: Iterable[nn.Module]) -> None:
    """Give all processes the first one's parameters and buffers."""
    if this_process().world == 1:
        return
    for network in networks:
        for tensor in (*network.parameters(), *network.buffers()):
            distributed.broadcast(tensor.detach(), src=0)


def average_gradients(*networks: nn.Module) -> None:
    """Replace the gradients by their mean over the processes; call it after ``backward``.

    A parameter must have a gradient on all processes or on none.
    """
    world = this_process().world
    if world == 1:
        return
    gradients = [
        parameter.grad
        for network in networks
        for parameter in network.parameters()
        if parameter.grad is not None
    ]
    # One message instead of hundreds: on a small network the waiting would outweigh the sending.
    message = torch.cat([gradient.reshape(-1) for gradient in gradients])
    distributed.all_reduce(message)
    message /= world
    start = 0
    for gradient in gradients:
        size = gradient.numel()
        gradient.copy_(message[start : start + size].view_as(gradient))
        start += size


def sum_values(values: Sequence[float]) -> list[float]:
    """Give the sum of each value over the processes; there are as many on all."""
    if this_process().world == 1:
        return list(values)
    message = torch.tensor(values, dtype=torch.float64)
    distributed.all_reduce(message)
    total: list[float] = message.tolist()
    return total


def broadcast(value: Any) -> Any:
    """Give the first process's ``value`` (plain Python values) on all of them."""
    if this_process().world == 1:
        return value
    box = [value]
    distributed.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]


def whether_any(flags: tuple[bool, ...]) -> tuple[bool, ...]:
    """Give, for each flag, whether it is set on any process: the same answer on all."""
    if this_process().world == 1:
        return flags
    message = torch.tensor(flags, dtype=torch.uint8)
    distributed.all_reduce(message, op=distributed.ReduceOp.MAX)
    return tuple(bool(flag) for flag in message.tolist())


def gather_rows(values: Tensor) -> Tensor:
    """Give the rows of all processes, differentiable, in the order that ``share`` took them from.

    Row ``i`` of process ``r`` becomes row ``i · world + r``. A loss that every process computes
    from the result has, after ``average_gradients``, the gradient of that loss computed once.
    """
    world = this_process().world
    if world == 1:
        return values
    gathered: Tensor = _Gather.apply(values)  # type: ignore[no-untyped-call]
    return gathered.transpose(0, 1).reshape(-1, *values.shape[1:])


def synchronise_batch_norms(network: nn.Module) -> None:
    """Let the batch norms inside ``network`` take their statistics over all processes.

    In place, with the same parameters, buffers and names. In eval mode nothing changes.
    """
    if this_process().world == 1:
        return
    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, _BatchNorm) and not isinstance(child, nn.SyncBatchNorm):
                setattr(module, name, _shared(child))


class _SharedBatchNorm(_BatchNorm):
    """Batch norm over the batches of all processes.

    torch's SyncBatchNorm runs on GPUs only. This one is plain arithmetic with two sums that run
    over the processes, and so goes anywhere; it is there for few processes on CPUs.
    """

    def forward(self, values: Tensor) -> Tensor:
        if not self.training:
            return super().forward(values)
        wide = values.to(torch.promote_types(values.dtype, torch.float32))
        count = values.numel() // values.shape[1] * this_process().world
        # All dimensions but the channels': batch, and rows and columns where there are some.
        others = [0, *range(2, values.ndim)]
        each = [1, -1] + [1] * (values.ndim - 2)
        mean = _summed(wide.sum(others)) / count
        centred = wide - mean.view(each)
        variance = _summed(centred.square().sum(others)) / count
        self._remember(mean.detach(), variance.detach() * (count / (count - 1)))
        normal = centred * torch.rsqrt(variance + self.eps).view(each)
        if self.affine:
            normal = normal * self.weight.view(each) + self.bias.view(each)
        return normal.to(values.dtype)

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 - torch's name for it
        if input.ndim < 2:
            raise ValueError("expected a batch and its channels")

    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None  # noqa: S101 - made with the two others
        self.num_batches_tracked.add_(1)
        part = self.momentum
        if part is None:
            part = 1 / int(self.num_batches_tracked)
        self.running_mean.lerp_(mean, part)
        self.running_var.lerp_(variance, part)


def _shared(norm: _BatchNorm) -> nn.Module:
    on_gpu = norm.running_mean is not None and norm.running_mean.is_cuda
    shared = (nn.SyncBatchNorm if on_gpu else _SharedBatchNorm)(
        norm.num_features,
        eps=norm.eps,
        momentum=norm.momentum,
        affine=norm.affine,
        track_running_stats=norm.track_running_stats,
    )
    # The very tensors, not copies: optimizers hold them already.
    shared._parameters = norm._parameters
    shared._buffers = norm._buffers
    return shared.train(norm.training)


class _Sum(torch.autograd.Function):
    """The sum over all processes; so is its gradient, since each process's loss hangs on it."""

    @staticmethod
    def forward(_: Any, values: Tensor) -> Tensor:
        total = values.contiguous().clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        distributed.all_reduce(total)
        return total


def _summed(values: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(values)  # type: ignore[no-untyped-call]
    return total


class _Gather(torch.autograd.Function):
    """The values of all processes, stacked; a value's gradient is the sum of what all give it."""

    @staticmethod
    def forward(_: Any, values: Tensor) -> Tensor:
        values = values.contiguous()
        parts = [torch.empty_like(values) for _ in range(this_process().world)]
        distributed.all_gather(parts, values)
        return torch.stack(parts)

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        distributed.all_reduce(total)
        return total[this_process().rank]
