"""DP-Pix, a baseline: coarse pixels with Laplace noise on them (Fan, 2018)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["dp_pix"]


def dp_pix(
    images: Tensor,
    cell: int,
    epsilon: float,
    generators: Sequence[torch.Generator] | torch.Generator,
    m: float = 1.0,
) -> Tensor:
    """Give ``images`` (B, C, H, W) in [0, 1] as noisy means of ``cell`` × ``cell`` pixels.

    Each mean gets one draw of Laplace(0, m / (cell² · ``epsilon``)), fills its cell and is cut to
    [0, 1]: differentially private for two images that differ in up to ``m`` pixels. The noise of
    an image comes from its own of the CPU ``generators`` alone, or from the one given for all,
    image after image; it is not differentiated. Raises ValueError when cells do not fill the
    image, for an epsilon or m that is not above 0, or a wrong number of generators.
    """
    batch, channels, rows, columns = images.shape
    if cell < 1 or rows % cell or columns % cell:
        raise ValueError(f"cells of {cell} pixels do not fill {rows} rows and {columns} columns")
    if not epsilon > 0 or not m > 0:
        raise ValueError("epsilon and m are above 0")
    if isinstance(generators, torch.Generator):
        generators = [generators] * batch
    if len(generators) != batch:
        raise ValueError("there is one generator for each image, or one for all")
    images = images.to(torch.promote_types(images.dtype, torch.float32))
    means = functional.avg_pool2d(images, cell)
    shape = (channels, rows // cell, columns // cell)
    noise = torch.stack([_laplace(shape, generator) for generator in generators])
    scale = m / (cell**2 * epsilon)
    noisy = (means + scale * noise.to(means)).clamp(0, 1)
    return noisy.repeat_interleave(cell, dim=-2).repeat_interleave(cell, dim=-1)


def _laplace(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw from Laplace(0, 1), float64: the difference of two exponential draws."""
    draws = torch.empty((2, *shape), dtype=torch.float64).exponential_(generator=generator)
    return draws[0] - draws[1]
