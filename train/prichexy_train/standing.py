"""How far a run is: its steps, the sums of the epoch so far, its history and its best epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from prichexy_train.parallel import Process, sum_values

__all__ = ["Standing"]


class Standing:
    """What the loop keeps count of.

    ``iteration`` counts steps over the whole run; ``history`` has an entry for each epoch that
    was validated; ``best_epoch`` is 0 and ``best`` NaN before the first.
    """

    def __init__(self, better: Literal["lower", "higher"]) -> None:
        self.iteration = 0
        self.history: list[dict[str, Any]] = []
        self.best_epoch = 0
        self.best = math.nan
        #: Seconds of earlier starts.
        self.seconds = 0.0
        self._better = better
        self._sums: dict[str, Tensor] = {}
        self._rows = 0

    def add(self, values: Mapping[str, float | Tensor], rows: int) -> None:
        """Take a step's values, each the mean over ``rows`` rows, into the epoch's means."""
        for name, value in values.items():
            # No .item(): it would wait for the GPU, step after step.
            sum_ = torch.as_tensor(value).detach().to(torch.float64) * rows
            self._sums[name] = self._sums[name] + sum_ if name in self._sums else sum_
        self._rows += rows

    def means(self) -> dict[str, float]:
        """Give the means of the epoch so far, over all processes."""
        names, rows, sums = self._totals()
        return {name: total / rows for name, total in zip(names, sums, strict=True)}

    def close(self, entry: Mapping[str, Any], monitored: float) -> bool:
        """End the epoch with its entry in the history; say whether it is the best so far."""
        self.history.append(dict(entry))
        self._sums, self._rows = {}, 0
        lower = self._better == "lower"
        if self.best_epoch and (monitored >= self.best if lower else monitored <= self.best):
            return False
        self.best_epoch, self.best = entry["epoch"], monitored
        return True

    def state_dict(self) -> dict[str, Any]:
        """Give all of it for a checkpoint; every process has to ask."""
        names, rows, sums = self._totals()
        return {
            "iteration": self.iteration,
            "history": self.history,
            "best": [self.best_epoch, self.best],
            "rows": int(rows),
            "sums": dict(zip(names, sums, strict=True)),
        }

    def load_state_dict(self, state: Mapping[str, Any], process: Process) -> None:
        """Go on from what ``state_dict`` gave."""
        self.iteration = state["iteration"]
        self.history = state["history"]
        self.best_epoch, self.best = state["best"]
        # What all processes had summed up the first one carries on.
        first = process.first
        self._rows = state["rows"] if first else 0
        self._sums = {
            name: torch.tensor(total if first else 0.0, dtype=torch.float64)
            for name, total in state["sums"].items()
        }

    def _totals(self) -> tuple[list[str], float, list[float]]:
        names = sorted(self._sums)
        rows, *sums = sum_values([float(self._rows), *(float(self._sums[n]) for n in names)])
        return names, rows, sums
