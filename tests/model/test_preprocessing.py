"""One resizer for training and serving, and ImageNet's normalisation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prichexy_model.preprocessing import imagenet, resize
from prichexy_testing import network_reference
from prichexy_worker import view


def noise(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(2, 1, rows, columns, generator=torch.Generator().manual_seed(seed))


def along(length: int, size: int) -> np.ndarray:
    """Give the (size, length) matrix of a triangle as wide as the reduction, in float64."""
    scale = max(length / size, 1.0)
    matrix = np.zeros((size, length))
    for i in range(size):
        centre = (i + 0.5) * length / size
        for j in range(length):
            matrix[i, j] = max(0.0, 1 - abs(j + 0.5 - centre) / scale)
    return matrix / matrix.sum(axis=1, keepdims=True)


@settings(deadline=None, max_examples=30)
@given(rows=st.integers(1, 50), columns=st.integers(1, 50), size=st.integers(1, 40))
def test_resizing_is_bilinear_with_a_kernel_as_wide_as_the_reduction(
    rows: int, columns: int, size: int
) -> None:
    images = noise(rows, columns).double()
    expected = along(rows, size) @ images[1, 0].numpy() @ along(columns, size).T
    result = resize(images, size)
    assert result.shape == (2, 1, size, size)
    np.testing.assert_allclose(result[1, 0].numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(700, 512), (1024, 1024), (300, 900), (200, 180)])
def test_training_resizes_as_the_gateways_worker_does(shape: tuple[int, int]) -> None:
    image = noise(*shape)[:1]
    expected = view.shrink(image[0, 0].numpy(), 256)
    np.testing.assert_allclose(resize(image, 256)[0, 0].numpy(), expected, rtol=0, atol=1e-5)


def test_an_image_of_the_size_already_is_left_alone() -> None:
    images = noise(32, 32)
    assert resize(images, 32) is images


@pytest.mark.parametrize("size", [24, 32, 48])
def test_resizing_is_done_in_single_precision_at_least(size: int) -> None:
    images = noise(32, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(resize(images, size), resize(images, size))
        assert resize(images, size).dtype == torch.float32
        assert resize(images.bfloat16(), size).dtype == torch.float32
    assert resize(images.double(), size).dtype == torch.float64


@pytest.mark.parametrize("size", [5, 8, 13])
def test_resizing_passes_gradients_on(size: int) -> None:
    images = noise(8, 9).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda values: resize(values, size), (images,))


def test_imagenets_normalisation_is_the_known_one() -> None:
    images = noise(3, 4)
    result = imagenet(images.double())
    assert result.shape == (2, 3, 3, 4)
    expected = network_reference.normalised(images[1, 0].double().numpy())
    np.testing.assert_allclose(result[1].numpy(), expected, rtol=0, atol=1e-14)
    assert math.isclose(imagenet(torch.zeros(1, 1, 1, 1))[0, 0, 0, 0].item(), -2.1179, abs_tol=1e-4)


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (1, 8, 8), (8, 8)])
def test_what_is_not_grey_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="grey images have the shape"):
        imagenet(torch.zeros(shape))
