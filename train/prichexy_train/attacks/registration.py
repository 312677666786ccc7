"""Registering one radiograph to another: the smooth deformation that makes them most alike.

No network and no knowledge of the generator: what an attacker does who suspects that an image was
deformed. A grid of control points, lifted by a cubic B-spline, is moved by gradient descent.
"""

from __future__ import annotations

import torch
from torch import Tensor

from prichexy_model.flow import warp
from prichexy_model.multiscale import lift
from prichexy_model.preprocessing import resize

__all__ = ["correlation", "register"]


def register(
    moving: Tensor,
    fixed: Tensor,
    *,
    cells: int = 8,
    size: int = 64,
    steps: int = 40,
    rate: float = 0.01,
    stiffness: float = 0.1,
) -> Tensor:
    """Give the control points (B, 2, cells, cells) that make ``moving`` most like ``fixed``.

    ``warp(moving, lift(control, S))`` is the moved image. Both are (B, 1, S, S) in [0, 1] on one
    device; pairs do not influence each other. ``steps`` steps of Adam of about ``rate``, in
    normalised coordinates, move the points so that correlation at ``size`` pixels grows;
    ``stiffness`` weighs the squared differences of neighbouring ones against it. Nothing is
    random, no gradient is kept.
    """
    with torch.no_grad():
        small, wanted = resize(moving, size), resize(fixed, size)
    spline = _spline(cells, size, like=small)
    control = torch.zeros(len(moving), 2, cells, cells, device=moving.device, requires_grad=True)
    optimizer = torch.optim.Adam([control], lr=rate)
    # A caller may run without gradients; this loop cannot.
    with torch.enable_grad():
        for _ in range(steps):
            moved = warp(small, spline @ control @ spline.T)
            loss = (1 - correlation(moved, wanted)) + stiffness * _bending(control)
            optimizer.zero_grad(set_to_none=True)
            # A sum over pairs: each pair's gradient is its own, whatever batch it is in.
            loss.sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return control.detach()


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Give the correlation (B,) of the pixels of ``a`` and ``b`` (B, ...); 0 for a flat image."""
    a, b = a.flatten(1), b.flatten(1)
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    # 1e-8 keeps a flat image's 0/0 from becoming NaN, here and in the gradient.
    norm = (a.square().sum(1) * b.square().sum(1) + 1e-8).sqrt()
    return (a * b).sum(1) / norm


def _spline(cells: int, size: int, like: Tensor) -> Tensor:
    """Give the matrix (size, cells) that lifts control points along one axis.

    What ``lift`` does, as one product: dozens of steps call for it, and rounding moves nothing
    here that the next step does not mend.
    """
    basis = torch.eye(cells, dtype=like.dtype, device=like.device)[:, None, None, :]
    return lift(basis.expand(-1, 1, cells, -1), size)[:, 0, 0, :].T


def _bending(control: Tensor) -> Tensor:
    along_x = (control[..., :, 1:] - control[..., :, :-1]).square().sum(dim=(1, 2, 3))
    along_y = (control[..., 1:, :] - control[..., :-1, :]).square().sum(dim=(1, 2, 3))
    return along_x + along_y
