"""The coarse part of a deformation, against its definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from prichexy_model.anonymizer import Anonymizer
from prichexy_model.flow import displacement
from prichexy_model.multiscale import (
    MultiscaleAnonymizer,
    coarse_displacement,
    largest_coarse_mu,
    lift,
)

unhurried = settings(deadline=None, max_examples=25)


def points(seed: int, cells: int) -> torch.Tensor:
    """Give control points (1, 2, cells, cells), float64, uniform in [-1, 1]."""
    source = torch.Generator().manual_seed(seed)
    return torch.rand(1, 2, cells, cells, generator=source, dtype=torch.float64) * 2 - 1


def spline(u: float) -> float:
    """Give the cubic B-spline at distance u of its middle, from the recursion of de Boor."""

    def basis(order: int, x: float) -> float:
        if order == 0:
            return 1.0 if 0 <= x < 1 else 0.0
        return (x * basis(order - 1, x) + (order + 1 - x) * basis(order - 1, x - 1)) / order

    return basis(3, u + 2)


class Field(nn.Module):
    """A generator that proposes the same raw field for every image."""

    def __init__(self, raw: torch.Tensor) -> None:
        super().__init__()
        self.raw = nn.Parameter(raw)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.raw.expand(len(images), -1, -1, -1)


@unhurried
@given(seed=st.integers(0, 2**32), cells=st.integers(1, 6), size=st.integers(6, 24))
def test_lifting_is_the_sum_of_the_b_splines_of_all_control_points(
    seed: int, cells: int, size: int
) -> None:
    control = points(seed, cells)
    at = (np.arange(size) + 0.5) * cells / size - 0.5
    # Two repetitions beyond each border are all that a cubic spline reaches.
    weights = np.array([[spline(u - k) for k in range(-2, cells + 2)] for u in at])
    padded = np.pad(control[0].numpy(), ((0, 0), (2, 2), (2, 2)), mode="edge")
    expected = np.einsum("yi,xj,cij->cyx", weights, weights, padded)
    np.testing.assert_allclose(lift(control, size)[0].numpy(), expected, rtol=0, atol=1e-12)


@unhurried
@given(seed=st.integers(0, 2**32), mu=st.floats(0, 0.1), cells=st.sampled_from([4, 8, 16]))
def test_no_coarse_displacement_exceeds_its_bound(seed: int, mu: float, cells: int) -> None:
    raw = points(seed, 32).sign().float()
    assert coarse_displacement(raw, mu, cells).abs().max().item() <= mu * (1 + 1e-6)


def test_a_saturated_field_moves_what_is_inside_by_the_bound_and_leaves_the_border() -> None:
    result = coarse_displacement(torch.ones(2, 2, 256, 256), 0.05, 8)
    inside = result[..., 80:-80, 80:-80]
    torch.testing.assert_close(inside, torch.full_like(inside, -0.05))
    for edge in (result[..., 0], result[..., -1], result[..., 0, :], result[..., -1, :]):
        assert edge.abs().max() <= 0.05 / 40, "half a pixel inside the border"


def test_what_a_generator_wants_of_the_outermost_cells_counts_for_nothing() -> None:
    raw = points(9, 32)
    other = raw.clone()
    other[..., :8, :] = other[..., -8:, :] = other[..., :8] = other[..., -8:] = 1
    torch.testing.assert_close(
        coarse_displacement(raw, 0.05, 4), coarse_displacement(other, 0.05, 4)
    )


def test_a_coarse_field_averages_each_cell() -> None:
    raw = points(3, 32)
    cell = raw[0, 1, 8:16, 16:24].mean()
    other = raw.clone()
    other[0, 1, 8:16, 16:24] = cell
    torch.testing.assert_close(
        coarse_displacement(raw, 0.05, 4), coarse_displacement(other, 0.05, 4)
    )


def test_a_coarse_field_is_the_same_at_every_resolution() -> None:
    control = points(4, 4)
    centres = lift(control, 96).reshape(1, 2, 32, 3, 32, 3)[:, :, :, 1, :, 1]
    torch.testing.assert_close(centres, lift(control, 32))


@pytest.mark.parametrize("cells", [8, 16])
def test_up_to_the_largest_bound_no_pixel_overtakes_its_neighbour(cells: int) -> None:
    size = 128
    for seed in range(20):
        control = points(seed, cells).sign() * largest_coarse_mu(cells)
        shift = lift(control, size)[0] * (size - 1) / 2
        dx = torch.diff(shift, dim=-1)[:, 1:]
        dy = torch.diff(shift, dim=-2)[:, :, 1:]
        jacobian = (1 + dx[0]) * (1 + dy[1]) - dx[1] * dy[0]
        assert jacobian.min() > 0


def test_autocast_and_half_precision_do_not_round_a_coarse_displacement() -> None:
    raw = points(5, 64).to(torch.bfloat16)
    expected = coarse_displacement(raw.float(), 0.1, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = coarse_displacement(raw, 0.1, 8)
    assert result.dtype == torch.float32
    assert torch.equal(result, expected)


def test_gradients_of_the_coarse_part_agree_with_finite_differences() -> None:
    raw = points(6, 8).requires_grad_()
    assert torch.autograd.gradcheck(lambda field: coarse_displacement(field, 0.3, 4), (raw,))


def test_a_multiscale_anonymizer_adds_the_coarse_field_to_the_papers() -> None:
    raw = points(7, 32).float()
    images = torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    anonymizer = MultiscaleAnonymizer(Field(raw), 0.01, size=32, mu_coarse=0.05, cells=4)
    expected = displacement(raw, 0.01) + coarse_displacement(raw, 0.05, 4)
    torch.testing.assert_close(anonymizer.displacement(images), expected.expand(3, -1, -1, -1))
    assert anonymizer(images).shape == images.shape


def test_without_a_coarse_bound_it_is_the_papers_anonymizer() -> None:
    raw = points(8, 32).float()
    images = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(2))
    plain = Anonymizer(Field(raw), 0.02, size=32)
    both = MultiscaleAnonymizer(Field(raw), 0.02, size=32, cells=4)
    assert torch.equal(plain(images), both(images))


def test_its_weights_are_the_generators_alone() -> None:
    anonymizer = MultiscaleAnonymizer(Field(torch.zeros(1, 2, 32, 32)), size=32, mu_coarse=0.1)
    assert set(anonymizer.state_dict()) == {"generator.raw"}


def test_what_could_fold_or_does_not_fit_is_refused() -> None:
    field = Field(torch.zeros(1, 2, 32, 32))
    with pytest.raises(ValueError, match="fold"):
        MultiscaleAnonymizer(field, size=32, mu_coarse=0.2, cells=8)
    with pytest.raises(ValueError, match="cells"):
        MultiscaleAnonymizer(field, size=32, mu_coarse=0.01, cells=5)
    for cells in (2, 5):
        with pytest.raises(ValueError, match="cells"):
            coarse_displacement(torch.zeros(1, 2, 32, 32), 0.1, cells)
    with pytest.raises(ValueError, match="shape"):
        coarse_displacement(torch.zeros(1, 2, 32, 16), 0.1, 4)
    with pytest.raises(ValueError, match="shape"):
        MultiscaleAnonymizer(field, size=32, cells=4).displacement(torch.zeros(1, 1, 16, 16))
