"""Labels that not every image was read for: what nobody looked for is nobody's mistake."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from prichexy_model.losses import classification_bce
from prichexy_train.parallel import gather_rows

__all__ = ["label_loss", "split_known"]


def split_known(
    targets: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
    """Give ``targets`` with 0 for what is unknown (NaN), and what is known; None: everything."""
    known = ~np.isnan(targets)
    if known.all():
        return targets, None
    return np.nan_to_num(targets), known


def label_loss(logits: Tensor, labels: Tensor, known: Tensor | None) -> Tensor:
    """Give the cross-entropy, the mean over what is known; ``known`` None: over everything.

    All are (B, L). With several processes, whose shares know more or less, each gives that of all
    their rows together, which ``average_gradients`` makes the gradient of one process.
    """
    if known is None:
        return classification_bce(logits, labels)
    return classification_bce(*map(gather_rows, (logits, labels, known.to(labels.dtype))))
