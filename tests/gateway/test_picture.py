"""The picture before / after / displacement."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prichexy_gateway.picture import Panels, colours, draw, save_png
from prichexy_gateway.showing import warning_of
from prichexy_worker.contract import ModelInfo


def panels(rows: int, columns: int, shift: float) -> Panels:
    image = np.linspace(0, 1, rows * columns, dtype=np.float32).reshape(rows, columns)
    field = np.zeros((2, rows, columns), np.float32)
    field[0, :, columns // 2 :] = shift
    return Panels(image, image, field, "caption", "Untrained weights: no privacy is claimed.")


def test_more_displacement_is_lighter_and_the_ends_are_the_ends() -> None:
    shown = colours(np.linspace(-1, 2, 301)).astype(int)
    assert tuple(shown[0]) == (68, 1, 84)
    assert tuple(shown[-1]) == (253, 231, 37)
    luminance = shown @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(luminance) >= -1).all()


@pytest.mark.parametrize(
    ("evidence", "protects", "warning"),
    [
        ("untrained", False, "Untrained weights: no privacy is claimed."),
        ("trained", False, "Trained weights, not fully measured: no privacy is claimed."),
        ("measured", False, "Measured: no protection was shown."),
        ("measured", True, ""),
    ],
)
def test_a_picture_warns_of_a_model_that_was_not_shown_to_protect(
    evidence: str, protects: bool, warning: str
) -> None:
    model = ModelInfo("model", "1", "ab" * 32, evidence, "A statement.", protects=protects)
    assert warning_of(model) == warning


@pytest.mark.parametrize("shape", [(955, 841), (40, 400), (400, 40), (1, 1)])
def test_any_aspect_ratio_gives_three_panels_beside_each_other(shape: tuple[int, int]) -> None:
    image = draw(panels(*shape, 3.0))
    rows, columns = shape
    width = max(1, round(columns * 640 / max(rows, columns)))
    assert image.width == 3 * width + 4 * 24


def test_the_displaced_half_stands_out_from_the_other() -> None:
    image = np.asarray(draw(panels(200, 200, 5.0)))
    panel = image[64 : 64 + 640, 24 * 3 + 2 * 640 :][:, :640]
    assert tuple(panel[320, 100]) == (68, 1, 84)
    assert tuple(panel[320, 540]) == (253, 231, 37)


def test_no_displacement_is_no_error() -> None:
    image = np.asarray(draw(panels(20, 20, 0.0)))
    assert tuple(image[64 + 320, 24 * 3 + 2 * 640 + 320]) == (68, 1, 84)


def test_the_file_holds_pixels_and_no_other_text(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    save_png(draw(panels(20, 20, 1.0)), path)
    with Image.open(path) as image:
        assert not image.info
    assert [item.name for item in tmp_path.iterdir()] == ["picture.png"]
