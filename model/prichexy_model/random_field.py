"""Random smooth deformations, a baseline: what warping hides when nothing was taught to hide."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from prichexy_model.flow import Border, displacement

__all__ = ["random_displacement"]


def random_displacement(
    batch: int,
    size: int,
    mu: float,
    generator: torch.Generator,
    *,
    border: Border = "corrected",
    coarseness: int = 1,
) -> Tensor:
    """Give random displacements (B, 2, size, size), float32, on the CPU.

    Uniform draws from [-1, 1], one for every ``coarseness`` pixels along each axis and linear in
    between, take the place of the generator's raw field in ``flow.displacement``: the same
    smoothing, the same bound ``mu``. Draws for every pixel (1) nearly cancel under the smoothing;
    coarser ones move whole structures. Raises ValueError for a coarseness below 1.
    """
    if coarseness < 1:
        raise ValueError("coarseness is 1 pixel or more")
    cells = math.ceil(size / coarseness)
    raw = torch.rand(batch, 2, cells, cells, generator=generator) * 2 - 1
    if coarseness > 1:
        raw = functional.interpolate(raw, scale_factor=coarseness, mode="bilinear")
    return displacement(raw[:, :, :size, :size], mu, border)
