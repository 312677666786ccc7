"""How much of an image is left as it was: cheap measures, an image at a time."""

from __future__ import annotations

from typing import Final

from monai.metrics.regression import compute_ssim_and_cs
from torch import Tensor

__all__ = ["MOST_PSNR", "psnr", "ssim"]

#: What ``psnr`` says of images that are equal, in dB.
MOST_PSNR: Final = 100.0


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
