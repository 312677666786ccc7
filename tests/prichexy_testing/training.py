"""What tests of the loop train: a line through points, in milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prichexy_train.loop import Fitted, Moment, Task, fit
from prichexy_train.optimizers import build_optimizer, descend
from prichexy_train.randomness import initialising, numpy_generator
from prichexy_train.runs import RunFolder
from prichexy_train.settings import Training

__all__ = ["Killed", "LineTask", "MemoryImages", "Ticks", "fit_line", "losses", "training"]


class Killed(BaseException):
    """Stands for kill -9: nothing that the code under test catches."""


class Ticks:
    """A clock that goes on by one second at each look."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


class MemoryImages:
    """Images (N, 1, S, S) that lie in memory."""

    def __init__(self, pixels: Tensor) -> None:
        self.pixels = pixels
        self.size = pixels.shape[-1]

    def __len__(self) -> int:
        return len(self.pixels)

    def gather(self, indices: NDArray[np.int64]) -> Tensor:
        return self.pixels[torch.from_numpy(indices)]


class LineTask(Task):
    """Fits a small network with batch norm to 50 points; each step adds noise of its moment."""

    better: Literal["lower", "higher"] = "lower"

    def __init__(
        self,
        settings: Training,
        *,
        validation: Callable[[int, float], float] = lambda _, loss: loss,
        die_at: int | None = None,
    ) -> None:
        self.settings = settings
        self.monitor = "loss"
        with initialising(settings.seed, "line"):
            self.network = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
        self.networks = {"line": self.network}
        self.optimizers = {"line": build_optimizer(self.network.parameters(), settings)}
        self.validation = validation
        self.die_at = die_at
        self.epochs_ended: list[int] = []
        self.iterations: list[int] = []
        self.x = torch.randn(50, 3, generator=torch.Generator().manual_seed(7))
        self.y = self.x.sum(1, keepdim=True)

    def batches(self, epoch: int) -> Sequence[NDArray[np.int64]]:
        order = numpy_generator(self.settings.seed, "batches", epoch).permutation(50)
        return np.split(order, range(self.settings.batch_size, 50, self.settings.batch_size))

    def step(self, rows: NDArray[np.int64], moment: Moment) -> Mapping[str, float | Tensor]:
        if moment.iteration == self.die_at:
            raise Killed
        self.iterations.append(moment.iteration)
        self.network.train()
        source = moment.common_generator("noise")
        noise = torch.randn(len(rows) * moment.world, 3, generator=source)
        predicted = self.network(self.x[rows] + 0.1 * noise[moment.rank :: moment.world])
        loss = (predicted - self.y[rows]).square().mean()
        descend(loss, self.network, self.optimizers["line"], self.settings.gradient_clip)
        return {"loss": loss.detach(), "rows": float(len(rows))}

    def validate(self) -> Mapping[str, float]:
        self.network.eval()
        with torch.no_grad():
            loss = float((self.network(self.x) - self.y).square().mean())
        return {"loss": self.validation(len(self.epochs_ended) + 1, loss)}

    def end_epoch(self, epoch: int, measures: Mapping[str, float]) -> None:
        self.epochs_ended.append(epoch)

    def extra_state(self) -> dict[str, Any]:
        return {"epochs_ended": list(self.epochs_ended)}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        self.epochs_ended = list(state["epochs_ended"])


def training(**changes: Any) -> Training:
    """Give settings for ``LineTask``: 5 steps an epoch."""
    words: dict[str, Any] = {"batch_size": 10, "epochs": 4, "learning_rate": 0.05, "device": "cpu"}
    return Training.model_validate(words | changes)


def fit_line(
    folder: Path, settings: Training | None = None, **words: Any
) -> tuple[Fitted, LineTask]:
    """Fit the line in a run folder; the words are ``LineTask``'s and ``fit``'s."""
    settings = settings or training()
    loop = {name: words.pop(name) for name in ("deadline", "clock") if name in words}
    task = LineTask(settings, **words)
    run = RunFolder(folder)
    run.path.mkdir(exist_ok=True)
    return fit(task, settings, run, **loop), task


def losses(history: Sequence[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
    """Give what must not depend on when a run was stopped."""
    return [
        (one["epoch"], one["train"], one["validation"], one["learning_rates"]) for one in history
    ]
