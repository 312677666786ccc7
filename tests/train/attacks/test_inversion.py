from __future__ import annotations

import pytest
import torch
from torch import Tensor

from prichexy_model.flow import BORDERS, displacement, warp
from prichexy_model.multiscale import lift
from prichexy_train.attacks.inversion import inverse_displacement, undeformed

SIZE = 64


def drawn(batch: int = 3) -> Tensor:
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, SIZE),) * 2, indexing="ij")
    waves = [torch.sin(5 * x + k) * torch.cos(4 * y - k) for k in range(batch)]
    return torch.stack(waves)[:, None] * 0.4 + 0.5


def smooth_field(mu: float, batch: int = 3, seed: int = 0) -> Tensor:
    raw = torch.rand(batch, 2, 6, 6, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return mu * lift(raw, SIZE)


def pixels(field: Tensor) -> Tensor:
    return field * (SIZE - 1) / 2


def test_no_displacement_is_its_own_inverse() -> None:
    assert not inverse_displacement(torch.zeros(1, 2, 8, 8)).any()


def test_it_leads_back_to_where_every_pixel_came_from() -> None:
    forth = smooth_field(0.1)
    back = inverse_displacement(forth)
    assert pixels(forth).abs().max() > 2, "too little to undo"
    assert pixels(back + warp(forth, back)).abs().max() < 1e-3


def test_the_generators_own_fields_can_be_inverted() -> None:
    # At the strength of the published model and four times of it.
    raw = torch.rand(2, 2, SIZE, SIZE, generator=torch.Generator().manual_seed(1)) * 2 - 1
    for mu in (0.01, 0.04):
        forth = displacement(raw, mu)
        back = inverse_displacement(forth)
        assert pixels(back + warp(forth, back)).abs().max() < 0.01


def test_an_image_that_was_warped_by_a_known_field_is_given_back() -> None:
    images, forth = drawn(), smooth_field(0.1)
    warped = warp(images, forth)
    restored = warp(warped, inverse_displacement(forth))
    inside = (..., slice(6, -6), slice(6, -6))
    assert (restored - images)[inside].abs().mean() < 0.1 * (warped - images)[inside].abs().mean()


def proposed(images: Tensor) -> Tensor:
    """Stand for a generator: a smooth field that depends on the image, and survives warping."""
    means = torch.nn.functional.adaptive_avg_pool2d(images, 6)
    field: Tensor = 0.15 * lift(torch.cat((means - 0.5, 0.5 - means), 1), SIZE)
    return field


def test_the_public_generator_undoes_what_it_did_without_the_original() -> None:
    images = drawn()
    deformed = warp(images, proposed(images))
    restored = undeformed(deformed, proposed)
    assert (restored - images).abs().mean() < 0.2 * (deformed - images).abs().mean()


def test_each_image_is_undone_by_itself() -> None:
    deformed = warp(drawn(), proposed(drawn()))
    alone = torch.cat([undeformed(deformed[k : k + 1], proposed) for k in range(3)])
    assert torch.allclose(alone, undeformed(deformed, proposed), atol=1e-6)


def test_what_is_given_explains_the_image_no_worse_than_the_image_itself() -> None:
    asked = []

    def folding(images: Tensor) -> Tensor:
        asked.append(len(images))
        return 0.3 * torch.cat((torch.sin(40 * images), torch.cos(40 * images)), 1)

    def unexplained(images: Tensor) -> Tensor:
        return (warp(images, folding(images)) - deformed).square().mean(dim=(1, 2, 3))

    deformed = drawn()
    found = undeformed(deformed, folding, rounds=2)
    assert asked == [3] * 5, "about the image, then twice about an estimate and what it explains"
    assert (unexplained(found) <= unexplained(deformed)).all()


@pytest.mark.parametrize("border", BORDERS)
def test_either_operator_is_undone_to_finite_values(border: str) -> None:
    raw = torch.rand(1, 2, SIZE, SIZE, generator=torch.Generator().manual_seed(3)) * 2 - 1
    found = undeformed(drawn(1), lambda _: displacement(raw, 0.01, border))  # type: ignore[arg-type]
    assert found.isfinite().all()
    assert found.min() >= 0
    assert found.max() <= 1
