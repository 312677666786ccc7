"""Picture files in, deformed pictures out."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from prichexy_model.anonymizer import Anonymizer
from prichexy_model.inference import deform_files, read_radiograph


class Still(nn.Module):
    """A generator that proposes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (images * self.weight).expand(-1, 2, -1, -1)


def ramp(dtype: type[np.generic], white: float) -> np.ndarray:
    return (np.linspace(0, white, 48).reshape(4, 12)).astype(dtype)


@pytest.mark.parametrize(("dtype", "white"), [(np.uint8, 255), (np.uint16, 65535)])
@pytest.mark.parametrize("suffix", ["png", "npy"])
def test_integers_are_divided_by_their_largest_value(
    tmp_path: Path, dtype: type[np.generic], white: int, suffix: str
) -> None:
    path = tmp_path / f"image.{suffix}"
    values = ramp(dtype, white)
    if suffix == "png":
        Image.fromarray(values).save(path)
    else:
        np.save(path, values)
    result = read_radiograph(path)
    assert result.shape == (1, 4, 12)
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result[0].numpy(), values / white, atol=1e-7)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floating_values_between_zero_and_one_are_taken_as_they_are(
    tmp_path: Path, dtype: type[np.generic]
) -> None:
    np.save(tmp_path / "image.npy", ramp(dtype, 1))
    result = read_radiograph(tmp_path / "image.npy")
    assert np.array_equal(result[0].numpy(), ramp(dtype, 1).astype(np.float32))


@pytest.mark.parametrize(
    "values",
    [
        np.full((4, 4), 1.01),
        np.full((4, 4), -0.01),
        np.full((4, 4), np.nan),
        np.zeros((4, 4), dtype=np.int16),
        np.zeros((4, 4), dtype=bool),
        np.zeros((4, 4), dtype=complex),
        np.zeros((4, 4, 3), dtype=np.uint8),
        np.zeros((0, 4), dtype=np.uint8),
    ],
    ids=["above 1", "below 0", "nan", "signed", "boolean", "complex", "colour", "empty"],
)
def test_what_is_no_grey_image_in_the_unit_range_is_refused(
    tmp_path: Path, values: np.ndarray
) -> None:
    np.save(tmp_path / "image.npy", values)
    with pytest.raises(ValueError, match=r"image\.npy"):
        read_radiograph(tmp_path / "image.npy")


def test_a_picture_in_colour_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "image.png")
    with pytest.raises(ValueError, match="not one grey image"):
        read_radiograph(tmp_path / "image.png")


def test_a_pickled_array_is_refused(tmp_path: Path) -> None:
    (tmp_path / "image.npy").write_bytes(pickle.dumps(np.zeros((4, 4))))
    with pytest.raises(ValueError, match="pickled"):
        read_radiograph(tmp_path / "image.npy")


def test_a_generator_that_proposes_nothing_returns_the_picture(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 2**16, (32, 32), dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "image.png")
    still = Anonymizer(Still(), size=32)
    written = deform_files(still, read_radiograph, [tmp_path / "image.png"], tmp_path / "out")
    assert [path.name for path in written] == ["image.deformed.png", "image.displacement.npy"]
    picture = np.asarray(Image.open(written[0])).astype(int)
    assert np.abs(picture - values).max() <= 1
    field = np.load(written[1])
    assert field.shape == (2, 32, 32)
    assert field.dtype == np.float32
    assert not field.any()


def test_no_file_and_two_files_of_one_name_are_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    still = Anonymizer(Still(), size=32)
    with pytest.raises(ValueError, match="no file"):
        deform_files(still, read_radiograph, [], tmp_path / "out")
    with pytest.raises(ValueError, match="more than one file is called image"):
        deform_files(still, read_radiograph, ["a/image.png", "b/image.png"], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
