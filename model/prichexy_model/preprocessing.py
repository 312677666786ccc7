"""How a grey radiograph becomes what an ImageNet network was made for."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "imagenet", "resize"]

#: Mean and standard deviation of ImageNet's red, green and blue, in [0, 1].
IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)


def resize(images: Tensor, size: int) -> Tensor:
    """Give ``images`` (B, C, H, W) as (B, C, size, size), at least float32, differentiably.

    Bilinear with a kernel as wide as the reduction: what the gateway's worker does to a view
    before the generator sees it. An image of that size already is given back as it is.
    """
    images = images.to(torch.promote_types(images.dtype, torch.float32))
    if images.shape[-2:] == (size, size):
        return images
    return functional.interpolate(
        images, size=(size, size), mode="bilinear", align_corners=False, antialias=True
    )


def imagenet(images: Tensor) -> Tensor:
    """Give grey ``images`` (B, 1, H, W) in [0, 1] as three equal channels, normalised each.

    Less ImageNet's mean, over its standard deviation. Raises ValueError for another shape.
    """
    if images.ndim != 4 or images.shape[1] != 1:
        raise ValueError("grey images have the shape (B, 1, H, W)")
    # Numbers, not a tensor of them: nothing is copied to the device at every step.
    channels = zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)
    return torch.cat([(images - mean) / std for mean, std in channels], dim=1)
