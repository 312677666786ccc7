"""From the generator's raw field to a displacement, and from a displacement to a warped image.

Coordinates are torch's normalised ones with ``align_corners=True``: -1 is the centre of the first
pixel, 1 the centre of the last, so a displacement of d is d · (n - 1) / 2 pixels along an axis
of n pixels, at whatever resolution. Channel 0 is x (columns), channel 1 is y (rows). A pixel of
the result is taken from the source at *identity + displacement*.
"""

from __future__ import annotations

import math
from typing import Final, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

__all__ = [
    "BORDERS",
    "BORDER_PIXELS",
    "Border",
    "border_defect",
    "displacement",
    "gaussian_weights",
    "identity_grid",
    "smooth",
    "warp",
]

#: How the smoothing treats the image's border; see ``displacement``.
Border = Literal["corrected", "paper"]
BORDERS: Final[tuple[Border, ...]] = get_args(Border)

_RADIUS: Final = 4
_SIGMA: Final = 2.0
#: So many pixels and more inside the border both operators are equal.
BORDER_PIXELS: Final = _RADIUS


def gaussian_weights() -> tuple[float, ...]:
    """Give the nine weights of the Gaussian (σ = 2 pixels), summing to 1.

    Their outer product with themselves is the 9×9 kernel of the paper.
    """
    bell = [math.exp(-0.5 * (k / _SIGMA) ** 2) for k in range(-_RADIUS, _RADIUS + 1)]
    return tuple(weight / sum(bell) for weight in bell)


def smooth(field: Tensor) -> Tensor:
    """Give ``field`` (B, C, H, W) convolved with the 9×9 Gaussian, zero outside the image."""
    # Sums, not a convolution: autocast and TF32 would round a convolution to 8 or 11 bits, and
    # with it the place every pixel is taken from.
    return _smooth_along(_smooth_along(field, -1), -2)


def identity_grid(rows: int, columns: int, like: Tensor) -> Tensor:
    """Give the coordinates (1, 2, rows, columns) of the pixels, with ``like``'s type and device."""
    x = torch.linspace(-1, 1, columns, dtype=like.dtype, device=like.device)
    y = torch.linspace(-1, 1, rows, dtype=like.dtype, device=like.device)
    return torch.stack((x.expand(rows, -1), y[:, None].expand(-1, columns)))[None]


def displacement(raw: Tensor, mu: float, border: Border = "corrected") -> Tensor:
    """Give the displacement (B, 2, H, W) of a raw field (B, 2, H, W) with values in [-1, 1].

    With I the identity grid and G the Gaussian:

    ``corrected``  -G * (mu · raw): zero stays zero, and no component exceeds mu (127.5 · mu
                   pixels at 256). It fades towards the border, where G reaches outside.
    ``paper``      G * (I - mu · raw) - I, as published. G takes what lies outside the image for
                   coordinate 0, the centre: even mu = 0 displaces a border of four pixels, by up
                   to 116 pixels in the corners at 256. For comparison only.

    Both are equal four pixels and more inside the border. The result is at least float32,
    whatever precision the network ran in. Raises ValueError for a shape or border unknown.
    """
    if raw.ndim != 4 or raw.shape[1] != 2:
        raise ValueError("a raw field has the shape (B, 2, H, W)")
    scaled = mu * raw.to(torch.promote_types(raw.dtype, torch.float32))
    if border == "corrected":
        return -smooth(scaled)
    if border == "paper":
        identity = identity_grid(raw.shape[-2], raw.shape[-1], like=scaled)
        return smooth(identity - scaled) - identity
    raise ValueError(f"border is one of {', '.join(BORDERS)}")


def border_defect(size: int) -> float:
    """Give how far ``paper`` moves a pixel of a field of zeros along an axis, at most, in pixels.

    Of a field of ``size`` × ``size`` pixels: 81.7 of 256. That is in the corners, where both axes
    move: 116 in all.
    """
    field = displacement(torch.zeros(1, 2, size, size, dtype=torch.float64), 0.0, "paper")
    return float(field.abs().max()) * (size - 1) / 2


def warp(image: Tensor, displacement: Tensor) -> Tensor:
    """Give ``image`` (B, C, H, W) sampled at identity + ``displacement`` (B, 2, H, W).

    Bilinear; beyond the border lies the border's value. Nothing is promised bit for bit: torch
    computes places in normalised coordinates, which in float32 is right to 1e-4 of a pixel up to
    some 500 pixels. The worker's own warp keeps an undisplaced pixel bit for bit.
    Raises ValueError when the shapes do not belong together.
    """
    batch, _, rows, columns = image.shape
    if displacement.shape != (batch, 2, rows, columns):
        raise ValueError("a displacement has the shape (B, 2, H, W) of its image")
    dtype = torch.promote_types(image.dtype, displacement.dtype)
    places = identity_grid(rows, columns, like=displacement) + displacement
    return functional.grid_sample(
        image.to(dtype),
        places.permute(0, 2, 3, 1).to(dtype),
        mode="bilinear",
        padding_mode="border",
        align_corners=True,
    )


def _smooth_along(field: Tensor, axis: Literal[-1, -2]) -> Tensor:
    size = field.shape[axis]
    margins = (_RADIUS, _RADIUS) if axis == -1 else (0, 0, _RADIUS, _RADIUS)
    padded = functional.pad(field, margins)
    weights = gaussian_weights()
    total = weights[_RADIUS] * field
    for k in range(_RADIUS):
        pair = padded.narrow(axis, k, size) + padded.narrow(axis, 2 * _RADIUS - k, size)
        total = total + weights[k] * pair
    return total
