"""Turning a deformation back: the inverse of a displacement, and an image before its deformation.

Coordinates are those of ``prichexy_model.flow``: a warped image shows at p what the source has
at p + d(p).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from prichexy_model.flow import warp

__all__ = ["inverse_displacement", "undeformed"]


def inverse_displacement(displacement: Tensor, steps: int = 20) -> Tensor:
    """Give e (B, 2, H, W) with e(q) = -d(q + e(q)): ``warp`` by e undoes ``warp`` by d.

    By fixed-point iteration (Chen et al. 2008), which converges where d changes by less than the
    distance between two places: for every field that does not fold. Elsewhere, as at the border
    of the paper's operator, e is some field no larger than d, and undoes nothing.
    """
    inverse = -displacement
    for _ in range(steps):
        # Beyond the border d is taken for what it is at the border.
        inverse = -warp(displacement, inverse)
    return inverse


def undeformed(
    images: Tensor, propose: Callable[[Tensor], Tensor], *, rounds: int = 4, steps: int = 20
) -> Tensor:
    """Give what ``images`` (B, 1, S, S) in [0, 1] may have been before they were deformed.

    ``propose`` gives the displacement that the public generator would have for an image. It is
    asked first about the deformed image itself, then, ``rounds`` times in all, about the estimate
    so far. Of each image's estimates, the image itself among them, that one is given which,
    deformed by its own proposal, comes nearest to the image at hand: an attacker can see that
    without knowing the original. So what is given is never a worse explanation than none.
    """
    best = images
    nearest = _distance(warp(images, propose(images)), images)
    estimate = images
    for _ in range(rounds):
        estimate = warp(images, inverse_displacement(propose(estimate), steps))
        distance = _distance(warp(estimate, propose(estimate)), images)
        closer = distance < nearest
        nearest = torch.where(closer, distance, nearest)
        best = torch.where(closer[:, None, None, None], estimate, best)
    return best


def _distance(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square().mean(dim=(1, 2, 3))
