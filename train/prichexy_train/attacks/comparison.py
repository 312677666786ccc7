"""Ways to compare an anonymised image with a real one: each image once, then every pair.

A trained verifier is one; correlation of coarse pixels and features of an ImageNet network,
which nobody trained on radiographs, are others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Final, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from prichexy_model.backbones import Backbone, build_backbone
from prichexy_model.preprocessing import imagenet, resize
from prichexy_model.verifier import SiameseVerifier
from prichexy_model.weights import WeightsError
from prichexy_train.attacks.validating import Scores
from prichexy_train.data.pairs import Pairs
from prichexy_train.errors import Misconfigured
from prichexy_train.feed import Feed, Gathers
from prichexy_train.randomness import initialising

__all__ = [
    "SIDES",
    "Comparator",
    "Features",
    "OfVerifier",
    "Pixels",
    "Side",
    "embed_rows",
    "likeness",
    "score",
]

#: Of a pair: the anonymised image is the first, the real one the second.
Side = Literal["first", "second"]
SIDES: Final[tuple[Side, Side]] = ("first", "second")

#: Numbers that a block of compared embeddings may hold.
_BLOCK: Final = 2**25


class Comparator(Protocol):
    """Knows images by numbers, and how alike two of them are."""

    def embed(self, images: Tensor, side: Side) -> Tensor:
        """Give (B, E), on the images' device, for ``images`` (B, 1, S, S) in [0, 1]."""

    def compare(self, a: Tensor, b: Tensor) -> Tensor:
        """Give the likeness (B,) of first images' ``a`` and second ones' ``b`` (B, E)."""

    def across(self, a: Tensor, b: Tensor) -> Tensor:
        """Give the likeness (n, m) of each of ``a`` (n, E) with each of ``b`` (m, E).

        In the order of ``compare``, though not by its values.
        """


class OfVerifier:
    """A verifier's comparison, in eval mode; its logit is the likeness."""

    def __init__(
        self,
        verifier: SiameseVerifier,
        precision: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self._verifier = verifier.eval()
        self._precision = precision

    def embed(self, images: Tensor, side: Side) -> Tensor:  # noqa: ARG002
        """Give the verifier's embeddings; see ``Comparator``."""
        with self._precision():
            return self._verifier.embed(images)

    def compare(self, a: Tensor, b: Tensor) -> Tensor:
        """Give the logits; see ``Comparator``."""
        return self._verifier.compare(a, b)

    def across(self, a: Tensor, b: Tensor) -> Tensor:
        """Give logits, or the cosines that they grow with; see ``Comparator``."""
        if self._verifier.head == "cosine":
            return a @ b.T
        step = max(1, _BLOCK // max(b.numel(), 1))
        rows = []
        for start in range(0, len(a), step):
            part = a[start : start + step]
            left = part[:, None].expand(-1, len(b), -1).flatten(0, 1)
            right = b[None].expand(len(part), -1, -1).flatten(0, 1)
            rows.append(self._verifier.compare(left, right).reshape(len(part), len(b)))
        return torch.cat(rows)


class Pixels:
    """The correlation of images that are shrunk to a few pixels."""

    def __init__(self, size: int = 16) -> None:
        self._size = size

    def embed(self, images: Tensor, side: Side) -> Tensor:  # noqa: ARG002
        """Give the pixels, less their mean, scaled to length 1; a flat image's are all 0."""
        pixels = resize(images, self._size).flatten(1)
        pixels = pixels - pixels.mean(1, keepdim=True)
        # A flat image's rounding errors are no picture.
        return functional.normalize(pixels, dim=1) * (pixels.abs().amax(1, keepdim=True) > 1e-6)

    def compare(self, a: Tensor, b: Tensor) -> Tensor:
        """Give the correlations; see ``Comparator``."""
        return (a * b).sum(1)

    def across(self, a: Tensor, b: Tensor) -> Tensor:
        """Give the correlations; see ``Comparator``."""
        return a @ b.T


class Features:
    """Cosine of an ImageNet network's features, less the mean features of each side.

    The mean is that of images other than the tested ones, and each side has its own: what all
    anonymised images have in common says nothing about a patient.
    """

    def __init__(self, backbone: Backbone, size: int) -> None:
        self._backbone = backbone.eval()
        self._size = size
        self._means: dict[Side, Tensor] = {}

    @classmethod
    def of(cls, name: str, pretrained: Path | None, size: int, device: torch.device) -> Features:
        """Give the features of a network; of a random one, always the same, without weights.

        Raises Misconfigured when the weights do not fit.
        """
        weights = None if pretrained is None else pretrained.expanduser()
        try:
            with initialising(0, "features"):
                backbone = build_backbone(name, pretrained=weights)
        except (WeightsError, ValueError) as error:
            raise Misconfigured(f"features: {error}") from error
        return cls(backbone.requires_grad_(requires_grad=False).to(device), size)

    def centre(self, side: Side, images: Feed, rows: NDArray[np.int64], batch_size: int) -> None:
        """Take the mean features of these images for those of the side."""
        self._means.pop(side, None)
        total = torch.zeros((), device=images.device)
        with torch.no_grad():
            for start in range(0, len(rows), batch_size):
                part = self._features(images.gather(rows[start : start + batch_size]))
                total = total + part.sum(0)
        self._means[side] = total / max(len(rows), 1)

    def embed(self, images: Tensor, side: Side) -> Tensor:
        """Give features of length 1; see ``Comparator``. ``centre`` has been called."""
        return functional.normalize(self._features(images) - self._means[side], dim=1)

    def compare(self, a: Tensor, b: Tensor) -> Tensor:
        """Give the cosines; see ``Comparator``."""
        return (a * b).sum(1)

    def across(self, a: Tensor, b: Tensor) -> Tensor:
        """Give the cosines; see ``Comparator``."""
        return a @ b.T

    def _features(self, images: Tensor) -> Tensor:
        features: Tensor = self._backbone(imagenet(resize(images, self._size)))
        return features.float()


def embed_rows(
    comparator: Comparator, images: Gathers, rows: NDArray[np.int64], side: Side, batch_size: int
) -> Tensor:
    """Give the embeddings (n, E) of the images numbered ``rows``, on the device."""
    with torch.no_grad():
        return torch.cat(
            [
                comparator.embed(images.gather(rows[start : start + batch_size]), side)
                for start in range(0, len(rows), batch_size)
            ]
        )


def score(
    comparator: Comparator, first: Gathers, second: Gathers, pairs: Pairs, *, batch_size: int = 64
) -> Scores:
    """Give each pair's likeness, its first image looked up in ``first``, its second in ``second``.

    No image is embedded twice.
    """
    sides: list[Tensor] = []
    looked_up: tuple[tuple[Side, Gathers, NDArray[np.int64]], ...] = (
        ("first", first, pairs.first),
        ("second", second, pairs.second),
    )
    for side, images, wanted in looked_up:
        rows, place = np.unique(wanted, return_inverse=True)
        embedded = embed_rows(comparator, images, rows, side, batch_size)
        sides.append(embedded[torch.from_numpy(place).to(embedded.device)])
    with torch.no_grad():
        likenesses = comparator.compare(sides[0], sides[1])
    found: Scores = likenesses.double().cpu().numpy()
    return found


def likeness(members: Sequence[tuple[Comparator, float, Tensor, Tensor]]) -> Tensor:
    """Give how alike (n, m) first and second images are to several comparators together.

    Each with its share, below 0 where it is to be turned round, and its embeddings (n, E) and
    (m, E). Each one's likenesses are standardised for each first image by itself, which changes
    no ranking, and added up by their shares.
    """
    total = torch.zeros(())
    for comparator, share, a, b in members:
        with torch.no_grad():
            across = comparator.across(a, b).double()
        spread = across.std(1, keepdim=True).clamp(min=1e-12)
        standard = (across - across.mean(1, keepdim=True)) / spread
        total = share * standard + total.to(across.device)
    return total
