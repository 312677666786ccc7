"""Radiographs with what may give a patient away hidden or made alike: functions of batches.

Each takes ``images`` (B, 1, S, S) in [0, 1] and gives as many of the same shape and range, on the
same device. Nothing is drawn at random.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

import torch
from torch import Tensor
from torch.nn import functional

from prichexy_model.preprocessing import resize

__all__ = [
    "CENTRE",
    "CORNER",
    "STRETCH",
    "STRIP",
    "Part",
    "centre_enlarged",
    "from_one_aspect",
    "grey_quantiles",
    "with_one_histogram",
    "without",
    "without_markers",
]

#: What is painted over.
Part = Literal["border", "centre"]

#: Where side markers and labels are: squares in the corners and a strip along the upper edge, as
#: parts of the image's side.
CORNER: Final = 0.2
STRIP: Final = 0.1
#: The most that one axis is stretched against the other, where each image gets its own aspect.
STRETCH: Final = 1.25
#: The part of the side that ``centre_enlarged`` keeps.
CENTRE: Final = 0.6

#: Grey values that are told apart: those of an 8-bit radiograph.
_GREYS: Final = 256


def without_markers(images: Tensor) -> Tensor:
    """Give ``images`` with corners and upper edge painted over in their local background.

    The corners are squares of ``CORNER`` of the side, the strip is ``STRIP`` high. Each corner, and
    each piece of the strip as wide as a corner, gets its own median grey: a marker or a label
    covers less than half of it.
    """
    painted = images.clone()
    for rows, columns in _marker_places(images.shape[-1]):
        place = painted[..., rows, columns]
        painted[..., rows, columns] = place.flatten(1).median(1).values[:, None, None, None]
    return painted


def without(images: Tensor, part: Part, width: float) -> Tensor:
    """Give ``images`` with one part painted over, in the mean grey of the other.

    The border is ``width`` of the image's side wide.
    """
    size = images.shape[-1]
    edge = max(1, round(width * size))
    centre = torch.zeros(size, size, dtype=torch.bool, device=images.device)
    centre[edge : size - edge, edge : size - edge] = True
    kept = centre if part == "border" else ~centre
    mean = (images * kept).sum(dim=(1, 2, 3), keepdim=True) / kept.sum()
    return torch.where(kept, images, mean)


def from_one_aspect(images: Tensor, aspects: Tensor, common: float) -> Tensor:
    """Give ``images`` as if each original had had the same aspect ratio, columns by rows.

    ``aspects`` (B,) are those of the originals, before they were squeezed into a square; NaN where
    unknown: such an image stays as it is. Of every other one the largest middle part whose
    original has the aspect ``common`` is squeezed into the square instead.
    """
    aspects = torch.where(aspects.isnan(), common, aspects).to(images)
    width, height = (common / aspects).clamp(max=1), (aspects / common).clamp(max=1)
    none = torch.zeros_like(width)
    matrix = torch.stack(
        (torch.stack((width, none, none), 1), torch.stack((none, height, none), 1)), 1
    )
    grid = functional.affine_grid(matrix, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def grey_quantiles(images: Tensor) -> Tensor:
    """Give the mean over ``images`` of their grey values from the darkest to the brightest.

    As quantiles at 256 ranks, evenly spread from 0 to 1: a common histogram for others.
    """
    ordered = images.flatten(1).sort(1).values
    ranks = torch.linspace(0, ordered.shape[1] - 1, _GREYS, device=images.device).round().long()
    return ordered[:, ranks].mean(0)


def with_one_histogram(images: Tensor, quantiles: Tensor) -> Tensor:
    """Give ``images`` with the grey values that ``grey_quantiles`` gave of others, by rank.

    What is equally grey, of 256 values, stays so: no order of pixels is invented.
    """
    greys = (images.flatten(1) * (_GREYS - 1)).round().long()
    counts = torch.zeros(len(images), _GREYS, device=images.device)
    counts.scatter_add_(1, greys, torch.ones_like(greys, dtype=counts.dtype))
    middle = (counts.cumsum(1) - counts / 2) / greys.shape[1]
    place = middle * (len(quantiles) - 1)
    low = place.floor().long().clamp(max=len(quantiles) - 2)
    share = place - low
    mapped = quantiles[low] * (1 - share) + quantiles[low + 1] * share
    return mapped.gather(1, greys).reshape(images.shape).to(images)


def centre_enlarged(images: Tensor) -> Tensor:
    """Give the middle ``CENTRE`` of ``images``, along each side, enlarged to their size."""
    size = images.shape[-1]
    edge = round((1 - CENTRE) / 2 * size)
    return resize(images[..., edge : size - edge, edge : size - edge], size).clamp(0, 1)


def _marker_places(size: int) -> Iterator[tuple[slice, slice]]:
    corner, strip = max(1, round(CORNER * size)), max(1, round(STRIP * size))
    first, last = slice(0, corner), slice(size - corner, size)
    yield from ((rows, columns) for rows in (first, last) for columns in (first, last))
    for left in range(corner, size - corner, corner):
        yield slice(0, strip), slice(left, min(left + corner, size - corner))
