"""How much of an image is left, against the definitions in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from prichexy_train.measures.fidelity import MOST_PSNR, moved, psnr, ssim


def images(seed: int) -> torch.Tensor:
    return torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(seed))


def test_psnr_is_the_mean_square_error_in_decibel() -> None:
    a = torch.zeros(2, 1, 16, 16)
    b = a + torch.tensor([0.1, 0.01])[:, None, None, None]
    assert psnr(b, a).tolist() == pytest.approx([20, 40])
    assert psnr(a, a).tolist() == pytest.approx([MOST_PSNR] * 2)


def test_ssim_is_its_authors_formula_over_a_gaussian_window() -> None:
    a, b = images(1), (images(1) + 0.3 * images(2)).clamp(0, 1)
    line = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2
    for number, found in enumerate(ssim(b, a).tolist()):
        x, y = (one[number, 0].double().numpy() for one in (b, a))
        values = []
        for row in range(6):
            for column in range(6):
                p, q = (one[row : row + 11, column : column + 11] for one in (x, y))
                mean_p, mean_q = (window * p).sum(), (window * q).sum()
                var_p = (window * p**2).sum() - mean_p**2
                var_q = (window * q**2).sum() - mean_q**2
                both = (window * p * q).sum() - mean_p * mean_q
                values.append(
                    (2 * mean_p * mean_q + 1e-4)
                    * (2 * both + 9e-4)
                    / ((mean_p**2 + mean_q**2 + 1e-4) * (var_p + var_q + 9e-4))
                )
        assert found == pytest.approx(np.mean(values), abs=1e-4)


def test_an_image_is_all_that_is_left_of_itself() -> None:
    assert ssim(images(3), images(3)).tolist() == pytest.approx([1, 1], abs=1e-5)


def test_movement_is_in_pixels_of_256_whatever_the_size() -> None:
    # One pixel along x and none along y; then, in one place, five by the rule of Pythagoras.
    one = 2 / 255
    still = torch.zeros(3, 2, 16, 16)
    still[:, 0] = one
    found = moved([still[:2], still[2:]])
    assert found.rms == pytest.approx(2**-0.5)
    assert (found.p95, found.max) == pytest.approx((1.0, 1.0))
    still[0, :, 0, 0] = torch.tensor([3 * one, -4 * one])
    found = moved([still])
    assert (found.p95, found.max) == pytest.approx((1.0, 5.0))
    assert found.rms == pytest.approx(((3 * 256 - 1 + 25) / (3 * 256 * 2)) ** 0.5)
    with pytest.raises(ValueError, match="no displacement"):
        moved([])


def test_the_95th_percentile_is_of_all_pixels_of_all_images() -> None:
    lengths = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(4))
    fields = torch.cat((lengths, torch.zeros_like(lengths)), 1) * 2 / 255
    found = moved(fields.split(1))
    assert found.p95 == pytest.approx(np.quantile(lengths.numpy(), 0.95), abs=1e-3)
