"""What is left in a result: the patient, for who knows the original, and the findings.

The bundle's own verifier and classifier judge each image before and after. The original is the
likest image of its patient that an attacker can hold; another network than the verifier may see
more in it (docs/residual-risk.md). Like the generator they see the image shrunk, in the original's
grey.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from prichexy_worker.contract import Reason
from prichexy_worker.errors import Misconfigured, Rejected
from prichexy_worker.pixels import Radiograph
from prichexy_worker.view import displayed_alike, shrink

__all__ = ["ANYTHING", "FINDINGS_MOVED", "RECOGNISED", "Judge", "Tolerated", "measured"]

#: The verifier's probability, 0 to 1, that the original and the result show one patient.
RECOGNISED: Final = "max_recognised"
#: The most that the classifier's probability of any finding changed by, 0 to 1.
FINDINGS_MOVED: Final = "max_finding_change"


class Judge(Protocol):
    """What compares an image with what became of it; ``engine.Engine`` is one."""

    @property
    def judges(self) -> frozenset[str]:
        """The figures that ``judged`` gives: those whose network the bundle holds."""

    @property
    def input_size(self) -> int:
        """Rows and columns of the views that it sees."""
        ...

    def judged(
        self, before: npt.NDArray[np.float32], after: npt.NDArray[np.float32]
    ) -> Mapping[str, float]:
        """Give the figures of two views (size, size)."""
        ...


@dataclass(frozen=True, slots=True)
class Tolerated:
    """The largest figures with which an image may leave, 0 to 1; at 1 all may."""

    recognised: float = 1.0
    finding_change: float = 1.0

    def check(self, measures: Mapping[str, float]) -> None:
        """Return when an image with these measures may leave.

        Raises Rejected RECOGNISABLE or FINDINGS_CHANGED, and CHECK_IMPOSSIBLE where a figure that
        is to be small is not there or is no number.
        """
        for name, limit, _, reason in self._limits():
            figure = measures.get(name, math.nan)
            if math.isnan(figure):
                raise Rejected(Reason.CHECK_IMPOSSIBLE, name.replace("_", " "))
            if figure > limit:
                raise Rejected(reason, f"{figure:.3f}, and {limit:g} is allowed")

    def check_judges(self, judges: frozenset[str]) -> None:
        """Raise Misconfigured when a figure that is to be small is not among ``judges``."""
        for name, _, setting, _ in self._limits():
            if name not in judges:
                network = "verifier" if name == RECOGNISED else "classifier"
                raise Misconfigured(
                    f"risk.{setting}: the model's bundle holds no {network} to measure it with; "
                    "set 1, or use another bundle"
                )

    def _limits(self) -> tuple[tuple[str, float, str, Reason], ...]:
        """Give figure, limit, setting and reason of all that not every image passes."""
        all_of_them = (
            (RECOGNISED, self.recognised, "recognised", Reason.RECOGNISABLE),
            (FINDINGS_MOVED, self.finding_change, "finding_change", Reason.FINDINGS_CHANGED),
        )
        return tuple(one for one in all_of_them if one[1] < 1)


#: Measures, and keeps nothing back.
ANYTHING: Final = Tolerated()


def measured(
    judge: Judge, before: Radiograph, after: Radiograph, dataset: Dataset
) -> dict[str, float]:
    """Give what ``judge`` makes of an image and its result, both in the grey of ``dataset``.

    Empty where the bundle holds no network for it. What is no number cannot be told, and is left
    out.
    """
    if not judge.judges:
        return {}
    first, second = (
        shrink(view, judge.input_size) for view in displayed_alike(before, after, dataset)
    )
    figures = judge.judged(first, second)
    return {name: figure for name, figure in figures.items() if math.isfinite(figure)}
