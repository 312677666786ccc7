"""Critics at work: each image embedded once and then compared in pairs, or given its labels."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prichexy_model.classifier import AbnormalityClassifier
from prichexy_model.verifier import SiameseVerifier
from prichexy_train.data.pairs import Pairs
from prichexy_train.feed import Feed

__all__ = ["embed_images", "label_logits", "pair_logits"]

Precision = Callable[[], AbstractContextManager[object]]


def embed_images(
    verifier: SiameseVerifier,
    images: Feed,
    rows: NDArray[np.int64],
    *,
    batch_size: int = 128,
    precision: Precision = nullcontext,
) -> Tensor:
    """Give the embeddings (n, E) of the images numbered ``rows``, on the device.

    In eval mode, which is put back afterwards, and without gradients. ``precision`` gives the
    context that the networks run in.
    """
    return _of_each(verifier, verifier.embed, images, rows, batch_size, precision)


def label_logits(
    classifier: AbnormalityClassifier,
    images: Feed,
    rows: NDArray[np.int64],
    *,
    batch_size: int = 128,
    precision: Precision = nullcontext,
) -> Tensor:
    """Give the logits (n, labels) of the images numbered ``rows``, as ``embed_images`` does."""
    return _of_each(classifier, classifier, images, rows, batch_size, precision)


def pair_logits(
    verifier: SiameseVerifier,
    first: Feed,
    second: Feed,
    pairs: Pairs,
    *,
    batch_size: int = 128,
    precision: Precision = nullcontext,
) -> Tensor:
    """Give the logits (n,), on the device, that the two images of each pair are one patient's.

    The first image of a pair is looked up in ``first``, the second in ``second``: one real and
    one anonymised, say. No image is embedded twice.
    """
    if first is second:
        rows, places = np.unique(np.stack((pairs.first, pairs.second)), return_inverse=True)
        places = places.reshape(2, -1)
        embedded = embed_images(verifier, first, rows, batch_size=batch_size, precision=precision)
        sides = [embedded[torch.from_numpy(side).to(embedded.device)] for side in places]
    else:
        sides = []
        for images, wanted in ((first, pairs.first), (second, pairs.second)):
            rows, place = np.unique(wanted, return_inverse=True)
            embedded = embed_images(
                verifier, images, rows, batch_size=batch_size, precision=precision
            )
            sides.append(embedded[torch.from_numpy(place).to(embedded.device)])
    with torch.no_grad():
        return verifier.compare(sides[0], sides[1])


def _of_each(
    network: nn.Module,
    function: Callable[[Tensor], Tensor],
    images: Feed,
    rows: NDArray[np.int64],
    batch_size: int,
    precision: Precision,
) -> Tensor:
    training = network.training
    network.eval()
    try:
        with torch.no_grad(), precision():
            found = [
                function(images.gather(rows[start : start + batch_size]))
                for start in range(0, len(rows), batch_size)
            ]
    finally:
        network.train(training)
    return torch.cat(found)
