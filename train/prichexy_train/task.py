"""What a stage brings to the loop, and what the loop tells it at each step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prichexy_train.randomness import generator

__all__ = ["Moment", "Task"]


@dataclass(frozen=True, slots=True)
class Moment:
    """Where the loop stands; the only source of randomness of a step.

    ``epoch`` and ``iteration`` count from 1, ``iteration`` over the whole run.
    """

    seed: int
    epoch: int
    iteration: int
    rank: int
    world: int

    def common_generator(self, purpose: str) -> torch.Generator:
        """Give a CPU generator that is a function of ``purpose``, seed, epoch and iteration.

        So it is the same on all processes, however many there are.
        To draw for a step's rows as one process would, draw for ``world`` times the rows at
        hand and take each ``world``-th from ``rank`` on, as ``parallel.share`` does.
        """
        return generator(self.seed, "step", purpose, self.epoch, self.iteration)


class Task(Protocol):
    """What a stage brings to the loop; inherit from it for the methods that may do nothing."""

    #: Saved in checkpoints and, of the best epoch, in ``best.pt``, under these names.
    networks: Mapping[str, nn.Module]
    optimizers: Mapping[str, torch.optim.Optimizer]
    #: The value of ``validate`` that early stopping and the best epoch go by.
    monitor: str
    better: Literal["lower", "higher"]

    def batches(self, epoch: int) -> Sequence[NDArray[np.int64]]:
        """Give the rows of each step of an epoch, counted from 1, over all processes together.

        A function of the run's seed and the epoch alone; each epoch has as many steps.
        """
        ...

    def step(self, rows: NDArray[np.int64], moment: Moment) -> Mapping[str, float | Tensor]:
        """Learn from this process's share of a step's rows: forward, backward, optimizer.

        Gives what is to be averaged over the epoch, weighted by rows: numbers, or detached
        tensors of one value, which nothing waits for.
        """
        ...

    def validate(self) -> Mapping[str, float]:
        """Give the networks' measures on validation data; every process calls it."""
        ...

    def end_epoch(self, epoch: int, measures: Mapping[str, float]) -> None:  # noqa: ARG002
        """Do what an epoch ends with, after its validation and before its checkpoint."""
        return

    def extra_state(self) -> dict[str, Any]:
        """Give what else a checkpoint must hold: plain values and tensors."""
        return {}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:  # noqa: ARG002
        """Go on from what ``extra_state`` gave."""
        return
