"""The pictures of before and after show what was done to an image, in the same grey."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from prichexy_testing.dicoms import phantom, radiograph_dataset, write
from prichexy_testing.finders import Finds
from prichexy_testing.generators import Unjudged
from prichexy_worker import deform
from prichexy_worker.contract import IMAGE_PARTS, ImagePictures, ModelInfo
from prichexy_worker.pipeline import Tools, anonymize
from prichexy_worker.pixels import Radiograph
from prichexy_worker.pseudonyms import Pseudonyms
from prichexy_worker.side_by_side import MOST_BYTES, SideBySide, drawn, spacing_of

ROWS, COLUMNS = 300, 200


def shift(right: float, down: float = 0.0) -> npt.NDArray[np.float32]:
    field = np.zeros((2, 64, 64), np.float32)
    field[0], field[1] = right, down
    return field


def shown(
    radiograph: Radiograph,
    displacement: npt.NDArray[np.float32],
    dataset: Dataset | None = None,
    side: int = 1024,
) -> SideBySide:
    after = deform.warp(radiograph, displacement)
    measures = deform.measure(radiograph, after, displacement)
    return drawn(radiograph, after, displacement, measures, dataset or Dataset(), side)


def radiograph(rows: int = ROWS, columns: int = COLUMNS) -> Radiograph:
    return Radiograph(phantom(rows, columns, bits_stored=12, signed=False), 12)


def read(jpeg: bytes) -> npt.NDArray[np.uint8]:
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_UNCHANGED)
    assert picture is not None
    return np.asarray(picture, np.uint8)


def test_the_pictures_are_those_of_the_contract_and_no_larger_than_asked_for() -> None:
    found = shown(radiograph(), shift(0.05), side=150)
    assert len(found.pictures) == len(IMAGE_PARTS)
    shapes = [read(picture).shape for picture in found.pictures]
    assert shapes == [(150, 100), (150, 100), (75, 50, 3), (150, 100, 3)]
    pictures = ImagePictures("0" * 32, 1, 1, 1, 1, found.figures, found.pictures)
    assert ImagePictures.from_json(pictures.to_json()) == pictures


def test_a_small_image_is_not_enlarged() -> None:
    assert read(shown(radiograph(30, 20), shift(0)).pictures[0]).shape == (30, 20)


def test_an_image_that_nothing_was_done_to_shows_no_difference_and_no_displacement() -> None:
    found = shown(radiograph(), shift(0))
    original, anonymised, displacement, difference = (read(one) for one in found.pictures)
    np.testing.assert_array_equal(original, anonymised)
    assert difference.max() <= 1
    assert np.ptp(displacement.reshape(-1, 3), axis=0).max() <= 2
    assert found.figures["arrow_length"] == 0


def test_the_second_is_shown_in_the_grey_of_the_first() -> None:
    # By its own percentiles the second would look like the first.
    before = radiograph()
    after = Radiograph(before.values // 2, 12)
    measures = deform.measure(before, after, shift(0))
    found = drawn(before, after, shift(0), measures, Dataset(), 1024)
    original, anonymised, _, difference = (read(one).astype(float) for one in found.pictures)
    assert anonymised.mean() < 0.75 * original.mean()
    blue, _green, red = difference.reshape(-1, 3).T
    assert blue.mean() > red.mean(), "darker is blue"


def test_the_arrows_point_to_where_the_image_went() -> None:
    # A mark in the middle, and a result whose pixels come from 20 columns further right.
    values = np.zeros((ROWS, COLUMNS), np.uint16)
    values[140:160, 110:130] = 4095
    found = shown(Radiograph(values, 12), shift(2 * 20 / COLUMNS * 64 / 63))
    difference = read(found.pictures[3]).astype(int)
    brighter = difference[..., 2] > difference[..., 0] + 50
    assert np.flatnonzero(brighter.any(axis=0)).max() < 112, "what is bright went to the left"
    assert found.figures["max_displacement_px"] == pytest.approx(20, rel=1e-4)
    assert found.figures["arrow_length"] > 0


def test_millimetres_are_told_where_pixels_have_a_size_and_of_which_plane() -> None:
    dataset = Dataset()
    field = shift(0.1, 0.2)
    assert "max_displacement_mm" not in shown(radiograph(), field, dataset).figures
    dataset.ImagerPixelSpacing = [0.2, 0.1]
    figures = shown(radiograph(), field, dataset).figures
    right, down = 0.05 * 63 / 64 * COLUMNS * 0.1, 0.1 * 63 / 64 * ROWS * 0.2
    assert figures["max_displacement_mm"] == pytest.approx(np.hypot(right, down), rel=1e-4)
    assert figures["at_detector"] == 1
    dataset.PixelSpacing = [0.14, 0.14]
    figures = shown(radiograph(), field, dataset).figures
    assert "at_detector" not in figures
    assert figures["max_displacement_mm"] == pytest.approx(
        0.14 * figures["max_displacement_px"], rel=1e-4
    )


@pytest.mark.parametrize("value", [[0, 0.1], [-1, 1], [0.1], ["a", "b"], None, [1e999, 1]])
def test_a_size_that_makes_no_sense_is_none(value: object) -> None:
    class Header(Dataset):
        def get(self, key: str, default: object = None) -> object:  # type: ignore[override]
            return value

    assert spacing_of(Header()) is None


def test_a_picture_of_noise_fits_all_the_same() -> None:
    noise = np.random.default_rng(4).integers(0, 4096, (1500, 1500)).astype(np.uint16)
    found = shown(Radiograph(noise, 12), shift(0.01), side=1500)
    assert max(map(len, found.pictures)) <= MOST_BYTES


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(8, 400),
    columns=st.integers(8, 400),
    side=st.integers(1, 300),
    amount=st.sampled_from([0.0, 0.001, 0.3]),
)
def test_an_image_of_any_shape_can_be_drawn(
    rows: int, columns: int, side: int, amount: float
) -> None:
    found = shown(radiograph(rows, columns), shift(amount), side=side)
    assert all(max(read(one).shape[:2]) <= side for one in found.pictures)


class _Mover(Unjudged):
    model = ModelInfo("mover", "1", "ab" * 32, "untrained", "Moves everything.")
    input_size = 64

    def displacement(self, view: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return shift(0.05)


def test_the_pipeline_draws_only_when_it_is_asked_to_and_leaves_the_same_bytes() -> None:
    content = write(radiograph_dataset())
    plain = Tools(_Mover(), Pseudonyms(bytes(32)), Finds())
    drawing = Tools(_Mover(), Pseudonyms(bytes(32)), Finds(), picture_side=64)
    without, found = anonymize(content, plain), anonymize(content, drawing)
    assert without.side_by_side is None
    assert "draw" not in without.durations
    assert found.side_by_side is not None
    assert found.content == without.content
    assert found.side_by_side.figures["psnr_db"] == found.measures["psnr_db"]
    assert list(found.durations)[-1] == "draw"
