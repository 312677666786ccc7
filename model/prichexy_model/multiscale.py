"""A deformation at two scales: the paper's fine field, and a coarse, smooth one of its own bound.

A field of one pixel hides no contour of a lung, and contours alone identify a patient. The coarse
part moves them: the generator's raw field, averaged over a few cells and lifted back to every
pixel by a uniform cubic B-spline. The outermost cells stay where they are: otherwise a generator
learns to shift the whole image, which hides nobody from who shifts it back, and leaves nothing to
sample at the border. It costs the generator no weight, so the same file of weights serves with and
without it. Coordinates and signs are those of ``flow``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from prichexy_model.anonymizer import INPUT_SIZE, Anonymizer
from prichexy_model.flow import Border, displacement
from prichexy_model.methods import Deformation

__all__ = [
    "LEAST_CELLS",
    "MultiscaleAnonymizer",
    "MultiscaleDeformation",
    "coarse_displacement",
    "largest_coarse_mu",
    "lift",
]

# A uniform cubic B-spline in two dimensions folds nowhere when no control point moves further
# than a spacing divided by this: Choi and Lee, Graphical Models 62 (2000) 411-427.
_FOLDING: Final = 2.046392675
#: Along an axis: two of them stay where they are.
LEAST_CELLS: Final = 3


def largest_coarse_mu(cells: int) -> float:
    """Give the largest bound of a coarse field of ``cells`` × ``cells`` that cannot fold.

    Normalised coordinates: 15.5 pixels at 256 for eight cells, 7.8 for sixteen. Up to it the
    coarse part by itself is a diffeomorphism.
    """
    return 2 / (cells * _FOLDING)


def lift(coarse: Tensor, size: int) -> Tensor:
    """Give the cubic B-spline (B, C, size, size) whose control points are ``coarse`` (B, C, n, n).

    The control points lie at the centres of n × n equal cells that cover the image; beyond the
    image the outermost are repeated. Its weights are positive and sum to one, so no value exceeds
    the largest of ``coarse``, which bicubic interpolation does not promise, and a constant stays
    itself.
    """
    return _lift_along(_lift_along(coarse, size, -1), size, -2)


def coarse_displacement(raw: Tensor, mu: float, cells: int) -> Tensor:
    """Give the coarse displacement (B, 2, S, S) of a raw field (B, 2, S, S) in [-1, 1].

    -mu · B-spline of the raw field's mean over each of ``cells`` × ``cells``, the outermost of
    which are 0: zero stays zero, no component exceeds mu, and none mu / 48 at the very border. At
    least float32, whatever precision the network ran in. Raises ValueError for another shape, for
    fewer than three cells, or when S is not a multiple of ``cells``.
    """
    size = raw.shape[-1]
    if raw.ndim != 4 or raw.shape[1:] != (2, size, size):
        raise ValueError("a raw field has the shape (B, 2, S, S)")
    _check_cells(cells, size)
    wide = raw.to(torch.promote_types(raw.dtype, torch.float32))
    side = size // cells
    means = wide.reshape(-1, 2, cells, side, cells, side).mean(dim=(3, 5))
    return -mu * lift(functional.pad(means[..., 1:-1, 1:-1], (1, 1, 1, 1)), size)


class MultiscaleAnonymizer(Anonymizer):
    """An anonymizer whose displacement is the sum of the paper's field and of a coarse one."""

    def __init__(
        self,
        generator: nn.Module,
        mu: float = 0.01,
        border: Border = "corrected",
        *,
        size: int = INPUT_SIZE,
        mu_coarse: float = 0.0,
        cells: int = 8,
    ) -> None:
        """Join ``generator`` and both operators.

        ``mu_coarse`` is the bound of the coarse part in normalised coordinates: along an axis no
        pixel moves further than mu + mu_coarse. Raises ValueError as ``Anonymizer`` does, when
        ``size`` is not a multiple of ``cells``, for fewer than three cells, and for a coarse part
        that could fold.
        """
        super().__init__(generator, mu, border, size=size)
        _check_cells(cells, size)
        if not 0 <= mu_coarse <= largest_coarse_mu(cells):
            raise ValueError(
                f"mu_coarse is at least 0 and, for {cells} cells, at most "
                f"{largest_coarse_mu(cells):.3f}: beyond it the image could fold"
            )
        self.mu_coarse = mu_coarse
        self.cells = cells

    def displacement(self, images: Tensor) -> Tensor:
        """Give the displacement (B, 2, size, size) of ``images``, as ``Anonymizer`` promises."""
        if images.shape[1:] != (1, self.size, self.size):
            raise ValueError(f"images have the shape (B, 1, {self.size}, {self.size})")
        raw: Tensor = self.generator(images)
        fine = displacement(raw, self.mu, self.border)
        return (fine + coarse_displacement(raw, self.mu_coarse, self.cells)).contiguous()


@dataclass(frozen=True, eq=False)
class MultiscaleDeformation(Deformation):
    """The method of a trained multi-scale anonymizer."""

    anonymizer: MultiscaleAnonymizer

    @property
    def name(self) -> str:
        """``prichexy-net:mu=0.01,coarse=0.05,cells=8``."""
        both = self.anonymizer
        return f"{super().name},coarse={both.mu_coarse:g},cells={both.cells}"


def _check_cells(cells: int, size: int) -> None:
    if cells < LEAST_CELLS or size % cells:
        raise ValueError(
            f"{size} pixels cannot be parted into {cells} cells of which one is not at the border"
        )


def _lift_along(values: Tensor, size: int, axis: int) -> Tensor:
    # Sums, not a matrix product: autocast and TF32 would round it, and move every pixel.
    count = values.shape[axis]
    place = (torch.arange(size, device=values.device, dtype=torch.float64) + 0.5) * count / size
    left = (place - 0.5).floor()
    t = place - 0.5 - left
    weights = (
        (1 - t) ** 3 / 6,
        (3 * t**3 - 6 * t**2 + 4) / 6,
        (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6,
        t**3 / 6,
    )
    total = torch.zeros((), dtype=values.dtype, device=values.device)
    for k, weight in enumerate(weights):
        control = (left.long() + k - 1).clamp(0, count - 1)
        along = weight.to(values.dtype)
        total = total + values.index_select(axis, control) * (
            along if axis == -1 else along[:, None]
        )
    return total
