"""DP-Pix: means of cells, one draw of Laplace noise for each, cut to the range of an image."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from prichexy_model.dppix import dp_pix


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def images(batch: int, size: int = 32) -> torch.Tensor:
    return torch.rand(batch, 1, size, size, generator=torch.Generator().manual_seed(0))


def noise_of(size: int, cell: int, epsilon: float, m: float = 1.0) -> np.ndarray:
    """Give the noise of each cell of a grey image, with a scale too small for a cut."""
    grey = torch.full((1, 1, size, size), 0.5, dtype=torch.float64)
    result = dp_pix(grey, cell, epsilon, generators(3), m)
    assert result.min() > 0
    assert result.max() < 1
    noise: np.ndarray = result[0, 0, ::cell, ::cell].numpy() - 0.5
    return noise


@pytest.mark.parametrize("cell", [1, 2, 4, 8])
def test_nearly_without_noise_it_gives_the_means_of_the_cells(cell: int) -> None:
    image = images(1).double()
    result = dp_pix(image, cell, 1e12, generators(1))
    side = 32 // cell
    means = image[0, 0].numpy().reshape(side, cell, side, cell).mean(axis=(1, 3))
    expected = np.kron(means, np.ones((cell, cell)))
    np.testing.assert_allclose(result[0, 0].numpy(), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("cell", "epsilon", "m"), [(1, 40, 1), (2, 20, 2), (4, 5, 1), (8, 1, 1)])
def test_the_noise_is_laplaces_with_a_scale_of_m_over_the_cells_area_and_epsilon(
    cell: int, epsilon: float, m: float
) -> None:
    scale = m / (cell**2 * epsilon)
    noise = np.sort(noise_of(128 * cell, cell, epsilon, m).ravel())
    count = len(noise)
    assert count == 128**2
    # Kolmogorov and Smirnov's distance from Laplace's distribution; 1.95 / √n has one chance in a
    # thousand, and the seed is fixed.
    below = np.where(noise < 0, 0.5 * np.exp(noise / scale), 1 - 0.5 * np.exp(-noise / scale))
    distance = np.abs(below - (np.arange(count) + 0.5) / count).max()
    assert distance < 1.95 / math.sqrt(count)
    assert np.abs(noise).mean() == pytest.approx(scale, rel=0.03)


def test_there_is_one_draw_for_a_cell_and_no_two_are_alike() -> None:
    result = dp_pix(torch.full((1, 1, 16, 16), 0.5, dtype=torch.float64), 4, 5, generators(3))
    cells = result.reshape(4, 4, 4, 4)
    assert torch.equal(cells, cells[:, :1, :, :1].expand_as(cells))
    assert len(cells[:, 0, :, 0].unique()) == 16


def test_the_result_stays_in_the_range_and_the_shape_of_the_image() -> None:
    result = dp_pix(images(2), 1, 0.1, generators(1, 2))
    assert result.shape == (2, 1, 32, 32)
    assert result.dtype == torch.float32
    assert result.min() == 0
    assert result.max() == 1


def test_at_the_papers_epsilon_hardly_anything_but_black_and_white_is_left() -> None:
    result = dp_pix(images(1, 64), 1, 0.1, generators(1))
    between = ((result > 0) & (result < 1)).double().mean().item()
    assert between == pytest.approx(0.05, abs=0.02)


def test_an_images_noise_is_its_own_generators() -> None:
    batch = images(3)
    together = dp_pix(batch, 4, 1, generators(5, 6, 7))
    for i, seed in enumerate((5, 6, 7)):
        assert torch.equal(dp_pix(batch[i : i + 1], 4, 1, generators(seed))[0], together[i])


def test_one_generator_serves_all_images_in_turn() -> None:
    batch = images(2)
    (generator,) = generators(5)
    together = dp_pix(batch, 4, 1, generator)
    (generator,) = generators(5)
    alone = torch.cat([dp_pix(image[None], 4, 1, generator) for image in batch])
    assert torch.equal(together, alone)


def test_autocast_does_not_change_it() -> None:
    expected = dp_pix(images(1), 4, 1, generators(1))
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.inference_mode():
        assert torch.equal(dp_pix(images(1), 4, 1, generators(1)), expected)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"cell": 5}, "cells of 5 pixels do not fill 32 rows"),
        ({"cell": 0}, "cells of 0 pixels"),
        ({"epsilon": 0}, "above 0"),
        ({"epsilon": math.nan}, "above 0"),
        ({"m": -1}, "above 0"),
        ({"generators": []}, "one generator for each image"),
        ({"generators": generators(1, 2)}, "one generator for each image"),
    ],
    ids=["uneven", "no-cell", "no-epsilon", "no-number", "no-m", "no-generator", "too-many"],
)
def test_what_makes_no_sense_is_refused(change: dict[str, Any], complaint: str) -> None:
    arguments = {"cell": 4, "epsilon": 0.1, "generators": generators(1), **change}
    with pytest.raises(ValueError, match=complaint):
        dp_pix(images(1), **arguments)
