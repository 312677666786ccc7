"""The deformation operator, against independent float64 arithmetic."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prichexy_model.flow import (
    BORDERS,
    Border,
    border_defect,
    displacement,
    gaussian_weights,
    identity_grid,
    smooth,
    warp,
)
from prichexy_testing import model_reference

PIXELS = 127.5  # a normalised coordinate at 256 pixels


def raw_field(seed: int, rows: int = 256, columns: int = 256) -> torch.Tensor:
    """Give a raw field (1, 2, rows, columns), float64, uniform in [-1, 1]."""
    source = torch.Generator().manual_seed(seed)
    return torch.rand(1, 2, rows, columns, generator=source, dtype=torch.float64) * 2 - 1


seeds = st.integers(0, 2**32)
sizes = st.integers(2, 40)
any_border = st.sampled_from(BORDERS)
unhurried = settings(deadline=None, max_examples=30)


def test_the_gaussian_is_nine_by_nine_with_a_sigma_of_two_pixels() -> None:
    line = np.array(gaussian_weights())
    assert line.sum() == pytest.approx(1, abs=1e-15)
    np.testing.assert_allclose(
        np.outer(line, line), model_reference.gaussian_kernel(9, 2.0), rtol=1e-12
    )


@unhurried
@given(seed=seeds, rows=sizes, columns=sizes)
def test_smoothing_is_the_convolution_with_zeros_outside(
    seed: int, rows: int, columns: int
) -> None:
    field = raw_field(seed, rows, columns)
    expected = model_reference.smooth(field[0].numpy())
    np.testing.assert_allclose(smooth(field)[0].numpy(), expected, rtol=0, atol=1e-14)


def test_the_identity_grid_names_x_before_y() -> None:
    grid = identity_grid(3, 5, like=torch.zeros((), dtype=torch.float64))
    np.testing.assert_allclose(grid[0].numpy(), model_reference.identity(3, 5))
    assert grid[0, 0, 0].tolist() == [-1, -0.5, 0, 0.5, 1]
    assert grid[0, 1, :, 0].tolist() == [-1, 0, 1]


@unhurried
@given(seed=seeds, mu=st.floats(0, 1), border=any_border)
def test_the_displacement_is_what_the_definition_says(seed: int, mu: float, border: Border) -> None:
    raw = raw_field(seed, 24, 40)
    values = raw[0].numpy()
    grid = model_reference.identity(24, 40)
    expected = (
        -model_reference.smooth(mu * values)
        if border == "corrected"
        else model_reference.smooth(grid - mu * values) - grid
    )
    result = displacement(raw, mu, border)[0].numpy()
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("mu", "pixels"), [(0.001, 0.1275), (0.005, 0.6375), (0.01, 1.275)])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_a_saturated_field_displaces_by_exactly_127_5_mu_pixels_inside(
    mu: float, pixels: float, sign: float
) -> None:
    result = displacement(torch.full((1, 2, 256, 256), sign), mu) * PIXELS
    inside = result[:, :, 4:-4, 4:-4]
    torch.testing.assert_close(inside, torch.full_like(inside, -sign * pixels), rtol=1e-6, atol=0)


@unhurried
@given(seed=seeds, mu=st.floats(0, 0.1))
def test_no_displacement_exceeds_127_5_mu_pixels_along_an_axis(seed: int, mu: float) -> None:
    raw = raw_field(seed, 64, 64).sign().float()
    assert displacement(raw, mu).abs().max().item() <= mu * (1 + 1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_a_zero_field_or_a_zero_mu_gives_a_displacement_of_exactly_zero(dtype: torch.dtype) -> None:
    raw = raw_field(5).to(dtype)
    assert torch.count_nonzero(displacement(torch.zeros_like(raw), 0.01)) == 0
    assert torch.count_nonzero(displacement(raw, 0.0)) == 0


def test_both_borders_agree_four_pixels_inside_and_nowhere_on_the_frame() -> None:
    raw = raw_field(6)
    difference = (displacement(raw, 0.01, "paper") - displacement(raw, 0.01, "corrected")).abs()
    assert difference[:, :, 4:-4, 4:-4].max() < 1e-12
    frame = difference.amax(dim=(0, 1)).numpy()
    assert frame[:4].min() > 1e-3
    assert frame[:, -4:].min() > 1e-3


def test_the_papers_border_displaces_the_frame_even_without_a_field() -> None:
    nothing = displacement(torch.zeros(1, 2, 256, 256, dtype=torch.float64), 0.01, "paper")
    length = nothing[0].square().sum(0).sqrt() * PIXELS
    assert length.max().item() == pytest.approx(116, abs=1)
    assert length[0, 0] == length.max()
    assert border_defect(256) == pytest.approx(nothing.abs().max().item() * PIXELS)
    assert border_defect(256) == pytest.approx(81.7, abs=0.05)
    never = ~model_reference.touched(nothing[0].numpy())
    assert never.mean() == pytest.approx(0.06, abs=0.005)


def test_the_corrected_border_samples_all_of_the_source_without_a_field() -> None:
    nothing = displacement(torch.zeros(1, 2, 256, 256, dtype=torch.float64), 0.01)
    assert model_reference.touched(nothing[0].numpy()).all()


@pytest.mark.parametrize("border", BORDERS)
def test_autocast_does_not_round_a_displacement(border: Border) -> None:
    raw = raw_field(7).float()
    expected = displacement(raw, 0.01, border)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = displacement(raw, 0.01, border)
    assert result.dtype == torch.float32
    assert torch.equal(result, expected)


def test_a_field_of_half_precision_is_scaled_and_smoothed_in_single() -> None:
    raw = raw_field(8).to(torch.bfloat16)
    result = displacement(raw, 0.01)
    assert result.dtype == torch.float32
    assert torch.equal(result, displacement(raw.float(), 0.01))


@pytest.mark.parametrize("shape", [(2, 8, 8), (1, 3, 8, 8), (1, 1, 8, 8)])
def test_a_field_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="shape"):
        displacement(torch.zeros(shape), 0.01)


def test_an_unknown_border_is_refused() -> None:
    with pytest.raises(ValueError, match="corrected, paper"):
        displacement(torch.zeros(1, 2, 8, 8), 0.01, "reflect")  # type: ignore[arg-type]


@unhurried
@given(seed=seeds, rows=sizes, columns=sizes, mu=st.floats(0, 2))
def test_warping_is_bilinear_sampling_with_the_borders_value_outside(
    seed: int, rows: int, columns: int, mu: float
) -> None:
    shift = raw_field(seed, rows, columns) * mu
    image = raw_field(seed + 1, rows, columns)[:, :1]
    expected = model_reference.warp(image[0, 0].numpy(), shift[0].numpy())
    np.testing.assert_allclose(warp(image, shift)[0, 0].numpy(), expected, rtol=0, atol=1e-11)


def test_warping_by_zero_is_the_identity_up_to_single_precision(noise: torch.Tensor) -> None:
    result = warp(noise, torch.zeros(2, 2, 256, 256))
    assert (result - noise).abs().max() < 1e-4
    exact = warp(noise.double(), torch.zeros(2, 2, 256, 256, dtype=torch.float64))
    assert torch.equal(exact.float(), noise)


def test_a_positive_x_takes_from_the_right_and_a_positive_y_from_below() -> None:
    image = torch.arange(25.0, dtype=torch.float64).reshape(1, 1, 5, 5)
    one_pixel = 2 / 4
    right = torch.zeros(1, 2, 5, 5, dtype=torch.float64)
    right[:, 0] = one_pixel
    below = torch.zeros(1, 2, 5, 5, dtype=torch.float64)
    below[:, 1] = one_pixel
    assert warp(image, right)[0, 0, 2].tolist() == pytest.approx([11, 12, 13, 14, 14])
    assert warp(image, below)[0, 0, :, 2].tolist() == pytest.approx([7, 12, 17, 22, 22])


def test_warping_keeps_every_channel_and_invents_no_value() -> None:
    image = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(2))
    shift = 0.3 * torch.cat((raw_field(1, 32, 48), raw_field(2, 32, 48))).float()
    result = warp(image, shift)
    assert result.shape == image.shape
    assert result.min() >= image.min() - 1e-6
    assert result.max() <= image.max() + 1e-6


@pytest.mark.parametrize("shape", [(1, 2, 16, 16), (2, 2, 8, 8), (1, 1, 8, 8), (2, 8, 8)])
def test_a_displacement_of_another_image_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="of its image"):
        warp(torch.zeros(1, 1, 8, 8), torch.zeros(shape))


@pytest.mark.parametrize("size", [64, 256, 512, 2048])
def test_at_every_resolution_a_saturated_field_moves_the_same_share_of_the_image(size: int) -> None:
    raw = torch.ones(1, 2, 9, size, dtype=torch.float64)
    pixels = -displacement(raw, 0.01)[0, 0, 4, size // 2].item() * (size - 1) / 2
    assert pixels / (size - 1) == pytest.approx(0.005, rel=1e-12)


def rings(places: torch.Tensor) -> torch.Tensor:
    """Give a smooth picture (1, 1, H, W) at the places (1, 2, H, W)."""
    x, y = places[0]
    return (0.5 + 0.5 * torch.cos(4 * x + 1) * torch.sin(3 * y))[None, None]


def swirl(places: torch.Tensor) -> torch.Tensor:
    """Give a smooth displacement (1, 2, H, W), up to 0.1, at the places."""
    x, y = places[0]
    return 0.1 * torch.stack((torch.sin(2 * y + x), torch.cos(3 * x)))[None]


def test_one_displacement_deforms_alike_at_every_resolution() -> None:
    # Bilinear sampling: the error falls with the square of the spacing, and nothing else is left.
    errors = []
    for size in (32, 64, 128, 256):
        places = identity_grid(size, size, like=torch.zeros((), dtype=torch.float64))
        field = swirl(places)
        true = rings((places + field).clamp(-1, 1))
        errors.append((warp(rings(places), field) - true).abs().max().item())
    assert errors[0] < 0.01
    for coarse, fine in itertools.pairwise(errors):
        assert fine == pytest.approx(coarse / 4, rel=0.15)


def test_a_field_lifted_to_a_finer_image_deforms_it_as_the_coarse_one_and_stays_bounded() -> None:
    like = torch.zeros((), dtype=torch.float64)
    coarse, fine = identity_grid(64, 64, like), identity_grid(500, 410, like)
    field = swirl(coarse)
    lifted = torch.nn.functional.interpolate(
        field, size=(500, 410), mode="bilinear", align_corners=True
    )
    assert lifted.abs().max() <= field.abs().max()
    true = rings((fine + swirl(fine)).clamp(-1, 1))
    assert (warp(rings(fine), lifted) - true).abs().max() < 1e-3


def test_a_field_is_smoothed_before_it_is_lifted_for_the_gaussian_is_of_pixels() -> None:
    raw = raw_field(3, 32, 32)
    twice = torch.nn.functional.interpolate(raw, scale_factor=2, mode="bilinear")
    lifted = torch.nn.functional.interpolate(
        displacement(raw, 0.01), scale_factor=2, mode="bilinear"
    )
    assert (displacement(twice, 0.01) - lifted).abs().max() > 0.1 * lifted.abs().max()


@pytest.mark.parametrize("shape", [(2, 3), (17, 33), (64, 64), (255, 256)])
def test_at_every_shape_warping_by_zero_is_the_identity(shape: tuple[int, int]) -> None:
    image = raw_field(4, *shape)
    result = warp(image, displacement(torch.zeros_like(image), 0.01))
    torch.testing.assert_close(result, image, rtol=0, atol=1e-12)


@pytest.mark.parametrize("border", BORDERS)
def test_the_displacements_gradient_agrees_with_finite_differences(border: Border) -> None:
    raw = raw_field(1, 7, 6).requires_grad_()
    assert torch.autograd.gradcheck(lambda given: displacement(given, 0.3, border), (raw,))


def test_the_warps_gradients_agree_with_finite_differences() -> None:
    # To both of its arguments, at places between the pixels: on one, a bilinear value has a kink.
    image = raw_field(1, 6, 7)[:, :1].requires_grad_()
    between = 0.5 + 0.3 * raw_field(2, 6, 7)
    spacing = torch.tensor([2 / 6, 2 / 5], dtype=torch.float64)[None, :, None, None]
    shift = (between * spacing).requires_grad_()
    assert torch.autograd.gradcheck(warp, (image, shift))


def test_a_training_loss_reaches_the_raw_field(noise: torch.Tensor) -> None:
    raw = torch.cat((raw_field(1), raw_field(2))).float().requires_grad_()
    warp(noise, displacement(raw, 0.01)).square().sum().backward()
    assert raw.grad is not None
    assert raw.grad.isfinite().all()
    assert torch.count_nonzero(raw.grad) > 0.99 * math.prod(raw.shape)
