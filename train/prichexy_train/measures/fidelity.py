"""How much of an image is left as it was, and how far its pixels were moved: cheap measures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import torch
from monai.metrics.regression import compute_ssim_and_cs
from torch import Tensor

__all__ = ["MOST_PSNR", "Moved", "moved", "psnr", "ssim"]

#: What ``psnr`` says of images that are equal, in dB.
MOST_PSNR: Final = 100.0

#: Pixels, of images of 256 × 256, to 1 in normalised coordinates: from -1 to 1 are 255 steps.
_PIXELS: Final = 255 / 2


@dataclass(frozen=True, slots=True)
class Moved:
    """How far a deformation moves pixels, in pixels of an image of 256 × 256.

    ``rms`` is the root mean square along one axis, over both; ``p95`` the 95th percentile of the
    length, ``max`` the greatest.
    """

    rms: float
    p95: float
    max: float


def psnr(images: Tensor, originals: Tensor) -> Tensor:
    """Give the peak signal-to-noise ratio (B,) in dB of ``images`` (B, 1, H, W) in [0, 1]."""
    error = (images.float() - originals.float()).square().mean(dim=(1, 2, 3))
    return -10 * error.clamp(min=10 ** (-MOST_PSNR / 10)).log10()


def ssim(images: Tensor, originals: Tensor) -> Tensor:
    """Give the structural similarity (B,) of ``images`` (B, 1, H, W) in [0, 1].

    As its authors define it (Wang et al. 2004): a Gaussian window of 11 pixels, σ = 1.5. Images
    have 11 rows and columns at least.
    """
    values: Tensor
    values, _ = compute_ssim_and_cs(
        images, originals, spatial_dims=2, kernel_size=(11, 11), kernel_sigma=(1.5, 1.5)
    )
    return values.mean(dim=(1, 2, 3))


def moved(fields: Iterable[Tensor]) -> Moved:
    """Give how far displacements (B, 2, H, W), in normalised coordinates, move all their pixels.

    Raises ValueError where there is none.
    """
    lengths: list[Tensor] = []
    squares = 0.0
    for field in fields:
        each = field.float().square().sum(1)
        squares += float(each.double().sum())
        lengths.append(each.sqrt().flatten().cpu())
    if not sum(len(each) for each in lengths):
        raise ValueError("there is no displacement")
    every = torch.cat(lengths)
    rank = max(1, round(0.95 * len(every)))
    return Moved(
        rms=(squares / (2 * len(every))) ** 0.5 * _PIXELS,
        p95=float(every.kthvalue(rank).values) * _PIXELS,
        max=float(every.max()) * _PIXELS,
    )
