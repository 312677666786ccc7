"""The area under the ROC curve, and the curve itself."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score, roc_curve

__all__ = ["MeasureError", "auc", "mean_auc_by_set", "roc_points"]


class MeasureError(ValueError):
    """A figure does not exist for these scores; the text says why."""


def auc(scores: NDArray[Any], positive: NDArray[np.bool_]) -> float:
    """Give the chance that a positive's score is above a negative's, half of it for equal ones.

    Raises MeasureError when there is no positive or no negative, or a score is not finite.
    """
    _check(scores, positive)
    return float(roc_auc_score(positive, scores))


def mean_auc_by_set(
    scores: NDArray[Any], targets: NDArray[np.floating[Any]], sets: NDArray[np.int64]
) -> tuple[float, tuple[float | None, ...]]:
    """Give the mean AUC over the labels, and each label's own: its mean over the sets that know it.

    ``scores`` and ``targets`` are (images, labels), targets 0 or 1, or NaN where the label is not
    known; ``sets`` holds each image's set. Never over several sets at once: a label is on more
    images of one than of another, and telling the sets apart would count as telling the label.
    A set counts for a label where some of its images have it and some have not. Raises MeasureError
    when no label is so in any set.
    """
    found: list[list[float]] = [[] for _ in range(targets.shape[1])]
    for own in np.unique(sets):
        rows = sets == own
        for label, values in enumerate(found):
            read = rows & ~np.isnan(targets[:, label])
            column = targets[read, label] > 0
            if 0 < column.sum() < len(column):
                values.append(auc(scores[read, label], column))
    each = tuple(float(np.mean(values)) if values else None for values in found)
    known = [value for value in each if value is not None]
    if not known:
        raise MeasureError("no label has both positive and negative images in any set")
    return float(np.mean(known)), each


def roc_points(
    scores: NDArray[Any], positive: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give the false and the true positive rates of the ROC curve, from (0, 0) to (1, 1).

    Corners only: the points between them lie on straight lines. Raises MeasureError as ``auc``.
    """
    _check(scores, positive)
    false, true, _ = roc_curve(positive, scores)
    return np.asarray(false, np.float64), np.asarray(true, np.float64)


def _check(scores: NDArray[Any], positive: NDArray[np.bool_]) -> None:
    if scores.shape != positive.shape or scores.ndim != 1:
        raise MeasureError("scores and answers are not two lists of one length")
    if not np.isfinite(scores).all():
        raise MeasureError("a score is not finite")
    if positive.all() or not positive.any():
        raise MeasureError("there are no positives or no negatives")
