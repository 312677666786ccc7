"""The area under the ROC curve, and the curve itself."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score, roc_curve

__all__ = ["MeasureError", "auc", "mean_auc", "roc_points"]


class MeasureError(ValueError):
    """A figure does not exist for these scores; the text says why."""


def auc(scores: NDArray[Any], positive: NDArray[np.bool_]) -> float:
    """Give the chance that a positive's score is above a negative's, half of it for equal ones.

    Raises MeasureError when there is no positive or no negative, or a score is not finite.
    """
    _check(scores, positive)
    return float(roc_auc_score(positive, scores))


def mean_auc(
    scores: NDArray[Any], targets: NDArray[np.bool_]
) -> tuple[float, tuple[float | None, ...]]:
    """Give the mean AUC over the labels, and each label's own, of (images, labels) arrays.

    A label that all images or none have has no AUC: None, and not in the mean. Raises
    MeasureError when that is so for every label.
    """
    each: list[float | None] = []
    for label in range(targets.shape[1]):
        column = targets[:, label]
        each.append(auc(scores[:, label], column) if 0 < column.sum() < len(column) else None)
    known = [value for value in each if value is not None]
    if not known:
        raise MeasureError("no label has both positive and negative images")
    return float(np.mean(known)), tuple(each)


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
