"""The random baseline: the paper's operator on a field that nobody taught anything."""

from __future__ import annotations

import math

import pytest
import torch

from prichexy_model.flow import BORDERS, Border, displacement, gaussian_weights, warp
from prichexy_model.random_field import random_displacement


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("border", BORDERS)
def test_it_is_the_papers_operator_on_uniform_draws(border: Border) -> None:
    raw = torch.rand(2, 2, 32, 32, generator=seeded()) * 2 - 1
    result = random_displacement(2, 32, 0.01, seeded(), border=border)
    assert torch.equal(result, displacement(raw, 0.01, border))


@pytest.mark.parametrize("coarseness", [1, 3, 8, 32, 100])
def test_no_displacement_exceeds_mu(coarseness: int) -> None:
    field = random_displacement(4, 64, 0.03, seeded(), coarseness=coarseness)
    assert field.shape == (4, 2, 64, 64)
    assert field.dtype == torch.float32
    assert 0 < field.abs().max() <= 0.03 * (1 + 1e-6)


def test_draws_for_every_pixel_nearly_cancel_under_the_smoothing() -> None:
    # The sum of independent draws: their deviation, 1/√3, times Σ weight² along either axis.
    left = sum(weight**2 for weight in gaussian_weights()) / math.sqrt(3)
    field = random_displacement(8, 64, 0.01, seeded())[:, :, 4:-4, 4:-4]
    assert left == pytest.approx(0.085, abs=0.001)
    assert field.std().item() == pytest.approx(0.01 * left, rel=0.03)


def test_a_coarser_field_moves_further_and_more_together() -> None:
    fields = [random_displacement(8, 64, 0.01, seeded(), coarseness=c) for c in (1, 4, 16)]
    spread = [field.std().item() for field in fields]
    rough = [(field.diff(dim=-1).std() / field.std()).item() for field in fields]
    assert spread[0] < spread[1] < spread[2]
    assert rough[0] > rough[1] > rough[2]


def test_the_same_seed_gives_the_same_field_and_another_another() -> None:
    first = random_displacement(1, 32, 0.01, seeded(1), coarseness=5)
    assert torch.equal(first, random_displacement(1, 32, 0.01, seeded(1), coarseness=5))
    assert not torch.equal(first, random_displacement(1, 32, 0.01, seeded(2), coarseness=5))


def test_a_mu_of_zero_leaves_an_image_alone(noise: torch.Tensor) -> None:
    field = random_displacement(2, 256, 0.0, seeded())
    assert torch.count_nonzero(field) == 0
    assert (warp(noise, field) - noise).abs().max() < 1e-4


def test_a_coarseness_below_a_pixel_is_refused() -> None:
    with pytest.raises(ValueError, match="1 pixel or more"):
        random_displacement(1, 32, 0.01, seeded(), coarseness=0)
