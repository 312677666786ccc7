from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from prichexy_train.data.images import CachedImages, HalfImages, JoinedImages
from prichexy_train.data.problems import UnusableData

Array = NDArray[Any]


def stored(folder: Path, name: str, values: Array) -> Path:
    np.save(folder / name, values)
    return folder / name


@pytest.fixture
def values() -> Array:
    return np.random.default_rng(1).integers(0, 256, (5, 8, 8), dtype=np.uint8)


@pytest.fixture
def cached(tmp_path: Path, values: Array) -> CachedImages:
    return CachedImages(stored(tmp_path, "images.npy", values))


def test_cached_images_come_as_floats_from_0_to_1_in_the_order_asked(
    cached: CachedImages, values: Array
) -> None:
    batch = cached.gather(np.array([3, 0, 3]))
    assert (batch.shape, batch.dtype, batch.device.type) == ((3, 1, 8, 8), torch.float32, "cpu")
    np.testing.assert_array_equal(batch[:, 0].numpy(), values[[3, 0, 3]].astype(np.float32) / 255)
    assert (len(cached), cached.size) == (5, 8)


def test_a_batch_is_the_callers_to_change(cached: CachedImages) -> None:
    before = cached.gather(np.array([2])).clone()
    cached.gather(np.array([2])).zero_()
    torch.testing.assert_close(cached.gather(np.array([2])), before)


def test_an_empty_batch_is_a_batch(cached: CachedImages) -> None:
    assert cached.gather(np.empty(0, np.int64)).shape == (0, 1, 8, 8)
    assert JoinedImages([cached, cached]).gather(np.empty(0, np.int64)).shape == (0, 1, 8, 8)


@pytest.mark.parametrize("index", [-1, 5])
def test_an_index_that_is_none_is_an_error(cached: CachedImages, index: int) -> None:
    with pytest.raises(IndexError, match="images 0 to 4"):
        cached.gather(np.array([0, index]))


def test_a_pickled_cache_is_a_path_and_no_pixels(cached: CachedImages) -> None:
    pickled = pickle.dumps(cached)
    assert len(pickled) < 400
    again = pickle.loads(pickled)
    torch.testing.assert_close(again.gather(np.arange(5)), cached.gather(np.arange(5)))


def test_anonymised_images_come_from_half_precision(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 128, dtype=np.float16).reshape(2, 8, 8)
    half = HalfImages(stored(tmp_path, "half.npy", values))
    batch = half.gather(np.array([1]))
    assert batch.dtype == torch.float32
    np.testing.assert_array_equal(batch[0, 0].numpy(), values[1].astype(np.float32))


def test_joined_images_count_through(cached: CachedImages, tmp_path: Path) -> None:
    half = HalfImages(stored(tmp_path, "half.npy", np.full((2, 8, 8), 0.5, np.float16)))
    joined = JoinedImages([cached, half, cached])
    assert (len(joined), joined.size) == (12, 8)
    batch = joined.gather(np.array([11, 5, 0, 6, 7]))
    torch.testing.assert_close(batch[[0, 2, 4]], cached.gather(np.array([4, 0, 0])))
    assert batch[[1, 3]].unique().tolist() == [0.5]
    with pytest.raises(IndexError):
        joined.gather(np.array([12]))


def test_images_of_different_sizes_are_not_joined(cached: CachedImages, tmp_path: Path) -> None:
    other = CachedImages(stored(tmp_path, "o.npy", np.zeros((1, 16, 16), np.uint8)))
    with pytest.raises(UnusableData, match="8 and 16 pixels a side"):
        JoinedImages([cached, other])


@pytest.mark.parametrize(
    "values",
    [np.zeros((2, 8, 8), np.float16), np.zeros((2, 8, 4), np.uint8), np.zeros(3, np.uint8)],
)
def test_a_file_of_something_else_is_told(tmp_path: Path, values: Array) -> None:
    with pytest.raises(UnusableData, match=r"x\.npy: holds"):
        CachedImages(stored(tmp_path, "x.npy", values))


@pytest.mark.parametrize("content", [None, b"", b"PNG"])
def test_a_file_that_is_none_is_told(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(UnusableData, match=r"x\.npy: cannot be read"):
        CachedImages(tmp_path / "x.npy")
