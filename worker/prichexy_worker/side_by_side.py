"""Small pictures of one image before and after, for a human who judges what was done to it.

They show patients' data, the original among them: they are for where the originals are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from prichexy_worker.deform import displacement_in_pixels
from prichexy_worker.pixels import Radiograph
from prichexy_worker.risk import FINDINGS_MOVED, RECOGNISED
from prichexy_worker.view import displayed_alike

__all__ = ["MOST_BYTES", "SideBySide", "drawn", "spacing_of"]

#: Of one picture (``contract.ImagePictures``).
MOST_BYTES: Final = 512 * 1024
#: From the best on; the last one holds 2048 by 2048 pixels of noise within the bytes.
_QUALITIES: Final = (90, 75, 50, 25, 5)
#: So many arrows along the longer side.
_ARROWS: Final = 24
#: Of the pixels, those that differ more are shown as if they differed so much.
_MOST_DIFFERENT: Final = 99.9
#: What is darker afterwards is blue, what is brighter is orange (BGR); equally bright at the ends.
_DARKER: Final = np.array([255, 150, 70], dtype=np.float32)
_BRIGHTER: Final = np.array([60, 160, 255], dtype=np.float32)

Grey = npt.NDArray[np.float32]
Colours = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class SideBySide:
    """JPEG files, those of ``contract.IMAGE_PARTS``, and what has to be known to read them.

    ``figures``: ``rows`` and ``columns`` of the original; ``max_displacement_px`` and
    ``mean_displacement_px`` in its pixels, ``changed_share`` and ``psnr_db`` (deform.measure), of
    which the first is the brightest colour of the displacement; ``arrow_length``, how many times
    as long as the displacement its arrows are drawn; ``full_difference``, the share of the grey
    range that the difference's brightest colours stand for. Where the model's bundle has a network
    for them: the figures of ``risk``. Where pixels have a size: ``row_spacing_mm``,
    ``column_spacing_mm``, ``max_displacement_mm``, and ``at_detector`` 1 where it is one at the
    detector's plane.
    """

    figures: Mapping[str, float]
    pictures: tuple[bytes, ...] = field(repr=False)


def drawn(
    before: Radiograph,
    after: Radiograph,
    displacement: Grey,
    measures: Mapping[str, float],
    dataset: Dataset,
    side: int,
) -> SideBySide:
    """Draw what became of an image: pictures of at most ``side`` pixels a side, one of them half.

    ``before`` is what came in, with the text in it. ``displacement`` is the generator's (see
    deform), ``measures`` those of ``deform.measure`` and ``risk.measured``. Both are shown in the
    grey that ``dataset`` gives the first.
    """
    rows, columns = before.values.shape
    shrink = min(1.0, side / max(rows, columns))
    height, width = max(1, round(rows * shrink)), max(1, round(columns * shrink))
    first, second = (
        _reduced(view, height, width) for view in displayed_alike(before, after, dataset)
    )
    # Half as large: a displacement has no detail to be seen closer, and as a file is the largest.
    low, narrow = max(1, height // 2), max(1, width // 2)
    coarse = displacement_in_pixels(displacement, low, narrow)
    length = np.hypot(*_enlarged(coarse, rows, columns))
    field_picture, arrow_length = _drawn_field(coarse, length, measures["max_displacement_px"])
    difference = second - first
    full = max(float(np.percentile(np.abs(difference), _MOST_DIFFERENT)), 1 / 255)
    figures = {
        "rows": float(rows),
        "columns": float(columns),
        "arrow_length": arrow_length,
        "full_difference": min(full, 1.0),
        **{
            name: measures[name]
            for name in ("max_displacement_px", "mean_displacement_px", "changed_share", "psnr_db")
        },
        **{name: measures[name] for name in (RECOGNISED, FINDINGS_MOVED) if name in measures},
        **_millimetres(dataset, displacement, rows, columns),
    }
    shown = (_grey(first), _grey(second), field_picture, _coloured(difference / full))
    return SideBySide(figures, tuple(_jpeg(picture) for picture in shown))


def spacing_of(dataset: Dataset) -> tuple[float, float, bool] | None:
    """Give the millimetres from row to row and from column to column, or None where none is known.

    Of the patient (PixelSpacing) where the header knows it; else True says that it is one at the
    detector's plane (ImagerPixelSpacing), where the patient is magnified.
    """
    for keyword, at_detector in (("PixelSpacing", False), ("ImagerPixelSpacing", True)):
        try:
            down, across = (float(value) for value in dataset.get(keyword) or ())
        except (TypeError, ValueError, OverflowError):
            continue
        if all(math.isfinite(value) and value > 0 for value in (down, across)):
            return down, across, at_detector
    return None


def _reduced(view: Grey, height: int, width: int) -> Grey:
    smaller: Any = cv2.resize(view, (width, height), interpolation=cv2.INTER_AREA)
    reduced: Grey = smaller
    return reduced


def _enlarged(lifted: Grey, rows: int, columns: int) -> Grey:
    """Give a displacement in pixels of its own picture in those of the original."""
    _, height, width = lifted.shape
    scale = np.array([columns / width, rows / height], dtype=np.float32)
    native: Grey = lifted * scale[:, None, None]
    return native


def _millimetres(dataset: Dataset, displacement: Grey, rows: int, columns: int) -> dict[str, float]:
    spacing = spacing_of(dataset)
    if spacing is None:
        return {}
    down, across, at_detector = spacing
    samples = displacement_in_pixels(displacement, *displacement.shape[1:])
    native = _enlarged(samples, rows, columns)
    length = np.hypot(native[0] * np.float32(across), native[1] * np.float32(down))
    return {
        "row_spacing_mm": down,
        "column_spacing_mm": across,
        "max_displacement_mm": float(length.max()),
        **({"at_detector": 1.0} if at_detector else {}),
    }


def _drawn_field(lifted: Grey, length: Grey, largest: float) -> tuple[Colours, float]:
    """Colour each pixel by how far it moved, and lay arrows over it in which direction.

    The result's pixel at p was at p + displacement(p): so the arrows go the other way.
    """
    share = np.clip(length / largest, 0, 1) if largest > 0 else np.zeros_like(length)
    picture: Any = cv2.applyColorMap(np.rint(share * 255).astype(np.uint8), cv2.COLORMAP_VIRIDIS)
    height, width = length.shape
    step = max(height, width) / _ARROWS
    longest = float(np.hypot(*lifted).max())
    if longest <= 0 or step < 4:
        return picture, 0.0
    factor = 0.9 * step / longest
    for y in np.arange(step / 2, height, step):
        for x in np.arange(step / 2, width, step):
            at = np.array([x, y])
            moved = -lifted[:, int(y), int(x)] * factor
            tail, head = (_point(at + part * moved) for part in (-0.5, 0.5))
            for colour, thick in (((0, 0, 0), 3), ((255, 255, 255), 1)):
                cv2.arrowedLine(picture, tail, head, colour, thick, cv2.LINE_AA, tipLength=0.3)
    return picture, factor


def _point(place: npt.NDArray[np.floating]) -> tuple[int, int]:
    return round(float(place[0])), round(float(place[1]))


def _coloured(difference: Grey) -> Colours:
    share = np.clip(difference, -1, 1)[..., None]
    return np.rint(np.where(share < 0, -share * _DARKER, share * _BRIGHTER)).astype(np.uint8)


def _grey(view: Grey) -> Colours:
    return np.rint(np.clip(view, 0, 1) * 255).astype(np.uint8)


def _jpeg(picture: Colours) -> bytes:
    """Encode in the best quality that fits; the file holds pixels alone, no text."""
    encoded = b""
    for quality in _QUALITIES:
        options = [cv2.IMWRITE_JPEG_QUALITY, quality]
        if picture.ndim == 3:  # the colours as sharp as the lines
            sampling = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
            options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
        encoded = bytes(cv2.imencode(".jpg", picture, options)[1])
        if len(encoded) <= MOST_BYTES:
            break
    return encoded
