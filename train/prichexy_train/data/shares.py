"""A share of the patients, so that it can be seen what more of them are worth."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["rows_of_a_share"]


def rows_of_a_share(
    rows: NDArray[np.int64],
    patients: NDArray[np.int64],
    sets: NDArray[np.int64],
    share: float,
    source: np.random.Generator,
) -> NDArray[np.int64]:
    """Give those of ``rows`` that are of a share of their patients, in their order.

    Patients are drawn, never single images: ``share``, in (0, 1], of those with several images
    among the rows and of the others, in each set, but at least one of each kind. ``patients`` and
    ``sets`` hold a code for every image. From a source in the same state a smaller share's
    patients are among a larger one's.
    """
    codes, first, counts = np.unique(patients[rows], return_index=True, return_counts=True)
    kinds = np.stack([sets[rows][first], counts > 1], axis=1)
    order = source.permutation(len(codes))
    kept: list[NDArray[np.int64]] = []
    for kind in np.unique(kinds, axis=0):
        own = order[(kinds[order] == kind).all(axis=1)]
        kept.append(own[: max(1, round(share * len(own)))])
    chosen = codes[np.concatenate([np.empty(0, np.int64), *kept])]
    return rows[np.isin(patients[rows], chosen)]
