from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from prichexy_model.flow import warp
from prichexy_model.multiscale import lift
from prichexy_train.attacks.inversion import inverse_displacement
from prichexy_train.attacks.registration import correlation, register

SIZE = 64


def drawn(batch: int) -> Tensor:
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, SIZE),) * 2, indexing="ij")
    waves = [torch.sin(7 * x + k) * torch.cos(6 * y - k) + 0.5 * x for k in range(batch)]
    return torch.stack(waves)[:, None] * 0.3 + 0.5


def warped(images: Tensor) -> tuple[Tensor, Tensor]:
    raw = torch.rand(len(images), 2, 8, 8, generator=torch.Generator().manual_seed(4)) * 2 - 1
    forth = 0.08 * lift(raw, SIZE)
    return warp(images, forth), inverse_displacement(forth)


def test_a_known_deformation_is_found() -> None:
    images = drawn(2)
    moving, back = warped(images)
    control = register(moving, images, steps=80, stiffness=0.01)
    found = lift(control, SIZE)
    before, after = 1 - correlation(moving, images), 1 - correlation(warp(moving, found), images)
    assert (after < 0.15 * before).all()
    inside = (..., slice(6, -6), slice(6, -6))
    assert (found - back)[inside].abs().mean() < 0.5 * back[inside].abs().mean()


def test_equal_images_need_no_moving() -> None:
    images = drawn(1)
    assert lift(register(images, images, steps=20), SIZE).abs().max() * (SIZE - 1) / 2 < 0.5


def test_pairs_do_not_influence_each_other() -> None:
    images = drawn(3)
    moving, _ = warped(images)
    together = register(moving, images, steps=10)
    alone = register(moving[1:2], images[1:2], steps=10)
    assert torch.allclose(together[1:2], alone, atol=1e-5)


def test_a_flat_image_moves_nothing_and_spoils_nothing() -> None:
    flat = torch.full((1, 1, SIZE, SIZE), 0.3)
    for moving, fixed in ((flat, drawn(1)), (drawn(1), flat)):
        control = register(moving, fixed, steps=5)
        assert control.isfinite().all()
        assert control.abs().max() < 0.05


def test_it_works_where_gradients_are_turned_off_and_keeps_none() -> None:
    with torch.no_grad():
        control = register(*(drawn(1), drawn(2)[1:]), steps=3)
    assert not control.requires_grad
    assert control.any()


def test_correlation_is_the_pixels_own() -> None:
    source = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 3, 1, 9, 9, generator=source)
    expected = [np.corrcoef(a[k].numpy().ravel(), b[k].numpy().ravel())[0, 1] for k in range(3)]
    assert np.allclose(correlation(a, b).numpy(), expected, atol=1e-5)
