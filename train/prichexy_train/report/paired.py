"""How far two attacks on the same pairs lie from each other, whoever had been tested."""

from __future__ import annotations

import numpy as np

from prichexy_train.measures.bootstrap import Resamples, interval, weighted_auc
from prichexy_train.measures.summary import AttackSummary
from prichexy_train.records import RecordError

__all__ = ["paired_difference"]

_PAIRS = ("first", "second", "same")


def paired_difference(
    one: AttackSummary, other: AttackSummary
) -> tuple[float, tuple[float, float] | None]:
    """Give the AUC of ``one`` less that of ``other``, with its 95 % interval over patients.

    Of each the first record alone; both count in the same resamples. Raises RecordError where they
    are not of the same pairs.
    """
    ours, theirs = one.records[0].scores(), other.records[0].scores()
    if any(not np.array_equal(ours[name], theirs[name]) for name in _PAIRS):
        raise RecordError(f"{one.records[0].path}: is not of the pairs of {other.records[0].path}")
    first, second, same = (ours[name] for name in _PAIRS)
    resamples = Resamples(np.concatenate([first, second]))
    mine, yours = (
        resamples.of(weighted_auc(scores["scores"], same), first, second)
        for scores in (ours, theirs)
    )
    return one.auc.values[0] - other.auc.values[0], interval(mine - yours)
