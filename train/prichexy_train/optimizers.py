"""Optimizers and learning rates as the settings say, and one step down a loss."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from prichexy_train.parallel import average_gradients
from prichexy_train.settings import Training

__all__ = ["Schedule", "build_optimizer", "descend"]


def build_optimizer(
    parameters: Iterable[nn.Parameter], training: Training
) -> torch.optim.Optimizer:
    """Give the optimizer of the settings over ``parameters``, those that want a gradient."""
    wanted = [parameter for parameter in parameters if parameter.requires_grad]
    rate, decay = training.learning_rate, training.weight_decay
    if training.optimizer == "sgd":
        return torch.optim.SGD(wanted, lr=rate, momentum=training.momentum, weight_decay=decay)
    kind = torch.optim.AdamW if training.optimizer == "adamw" else torch.optim.Adam
    return kind(wanted, lr=rate, weight_decay=decay)


def descend(
    loss: Tensor, network: nn.Module, optimizer: torch.optim.Optimizer, clip: float | None = None
) -> None:
    """Take one step of ``optimizer`` on ``network`` down ``loss``, averaged over all processes.

    ``clip`` limits the norm of the network's gradient. Gradients of other networks that ``loss``
    depends on are left behind in them. Nothing waits for a GPU.
    """
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    average_gradients(network)
    if clip is not None:
        nn.utils.clip_grad_norm_(network.parameters(), clip)
    optimizer.step()


class Schedule:
    """The learning rates of some optimizers over a run, each relative to its own first one.

    "constant" and "cosine" are functions of the step alone; "plateau" remembers the validations.
    """

    def __init__(
        self,
        optimizers: Iterable[torch.optim.Optimizer],
        training: Training,
        steps_per_epoch: int,
        better: Literal["lower", "higher"],
    ) -> None:
        self._training = training
        self._optimizers = tuple(optimizers)
        for group in self._groups():
            group.setdefault("initial_lr", group["lr"])
        self._warmup = training.warmup_epochs * steps_per_epoch
        self._steps = training.epochs * steps_per_epoch
        self._sign = 1.0 if better == "lower" else -1.0
        self._best = math.inf
        self._waited = 0
        self._factor = 1.0

    def before(self, iteration: int) -> None:
        """Set the rates for a step; ``iteration`` counts from 1 over the whole run."""
        factor = self.factor(iteration)
        for group in self._groups():
            group["lr"] = group["initial_lr"] * factor

    def factor(self, iteration: int) -> float:
        """Give what the first learning rates are multiplied by at a step, counted from 1."""
        factor = self._factor
        if self._training.schedule == "cosine":
            done = (iteration - 1 - self._warmup) / max(1.0, self._steps - self._warmup)
            factor = 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, done))))
        if iteration <= self._warmup:
            factor *= iteration / self._warmup
        return factor

    def after(self, monitored: float) -> None:
        """Take note of an epoch's validation."""
        if self._training.schedule != "plateau":
            return
        if self._sign * monitored < self._best:
            self._best = self._sign * monitored
            self._waited = 0
            return
        self._waited += 1
        if self._waited > self._training.plateau_patience:
            self._factor *= self._training.plateau_factor
            self._waited = 0

    def _groups(self) -> Iterator[dict[str, Any]]:
        # Each time anew: loading an optimizer's state replaces its groups.
        for optimizer in self._optimizers:
            yield from optimizer.param_groups

    def state_dict(self) -> dict[str, float]:
        """Give what it remembers."""
        return {"best": self._best, "waited": self._waited, "factor": self._factor}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Go on from what ``state_dict`` gave."""
        self._best = state["best"]
        self._waited = int(state["waited"])
        self._factor = state["factor"]
