"""Which way an attacker's scores point, and how much they are worth, before he meets the test.

Whoever has the anonymiser makes anonymised–real pairs of patients he knows: here those of the
validation part. On them he sees that scores which are lower for one patient tell as much as
scores which are higher, and whom of several to believe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from prichexy_train.measures.auc import auc
from prichexy_train.measures.bootstrap import Resamples, interval, weighted_auc

__all__ = ["Scores", "Sign", "Validated", "combined", "standardised", "validated", "weights"]

#: The higher, the likelier one patient; one a pair, float64.
Scores = NDArray[np.float64]
#: What scores are multiplied by.
Sign = Literal[1, -1]


@dataclass(frozen=True, slots=True)
class Validated:
    """What scores reach on validation pairs, as they are: ``auc`` and its patient-level interval.

    ``sign`` is -1 where the whole interval is below 0.5. At chance every second AUC is below it,
    and turning at each of them would turn the scores of weak attackers, who are right by little,
    and hide what they find. Of attackers who are right or at chance this turns one in forty, and
    the test has no part in it, so that no figure is raised by the choice.
    """

    auc: float
    interval: tuple[float, float] | None

    @property
    def sign(self) -> Sign:
        """Give what the scores are to be multiplied by."""
        return -1 if self.interval is not None and self.interval[1] < 0.5 else 1

    @property
    def weight(self) -> float:
        """Give the say in an ensemble, from 0 at chance, or below it, to 1."""
        return max(0.0, self.sign * (2 * self.auc - 1))


def validated(
    scores: Scores, same: NDArray[np.bool_], first: NDArray[np.int64], second: NDArray[np.int64]
) -> Validated:
    """Give what ``scores`` of validation pairs reach; the last two are the pairs' patients."""
    resamples = Resamples(np.concatenate([first, second]))
    return Validated(
        auc(scores, same), interval(resamples.of(weighted_auc(scores, same), first, second))
    )


def weights(members: Mapping[str, Validated | None]) -> dict[str, float]:
    """Give each member's share in an ensemble, with the sign that his scores need; sizes add to 1.

    Members at chance have 0. Where all are, or one could not be validated, all have the same.
    """
    sizes = {name: 0.0 if one is None else one.weight for name, one in members.items()}
    if not any(sizes.values()) or any(one is None for one in members.values()):
        sizes = dict.fromkeys(members, 1.0)
    total = sum(sizes.values())
    return {
        name: (1 if one is None else one.sign) * sizes[name] / total
        for name, one in members.items()
    }


def standardised(scores: Scores) -> Scores:
    """Give ``scores`` with mean 0 and standard deviation 1; all 0 where all are equal."""
    spread = scores.std()
    return (scores - scores.mean()) / spread if spread > 0 else scores * 0.0


def combined(members: Mapping[str, Scores], shares: Mapping[str, float]) -> Scores:
    """Give the sum of the members' standardised scores of the same pairs, each with its share."""
    total: Scores = np.sum(
        [shares[name] * standardised(scores) for name, scores in members.items()], axis=0
    )
    return total
