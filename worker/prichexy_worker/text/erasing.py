"""Fills areas of a radiograph from what lies just outside them, at full depth.

What is filled is computed from the pixels around the area alone: neither a value of the inside nor
where its padding was has any influence, so no trace of a letter can be left.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from prichexy_worker.contract import Box
from prichexy_worker.pixels import Radiograph
from prichexy_worker.text.finder import Corners, TextRegion

__all__ = ["LENGTHENED", "WIDENED", "area_of", "fill", "reach_of"]

Area = NDArray[np.bool_]
_Floats = NDArray[np.float64]

#: How much longer than found a text is taken to be, at both ends, in heights of its letters. The
#: detector often stops before the first or last letter.
LENGTHENED: Final = 1.5
#: How much higher, at both sides, in heights of its letters; and in pixels, for blurred edges.
WIDENED: Final = 0.25
_BLUR: Final = 2.0
#: A box that is not longer than this many heights is a letter or two, of a line that may run in
#: either direction: it is lengthened in both, by half as much, for it was mostly found whole.
_SQUARE: Final = 1.5
#: How far around an area the pixels are looked at that it is filled from.
_AROUND: Final = 16


def area_of(shape: tuple[int, ...], regions: Iterable[TextRegion]) -> Area:
    """Give where ``regions`` are erased in an image of this shape: (rows, columns), True inside.

    Every outline of a region that is no marker, as a turned rectangle, lengthened by LENGTHENED
    heights at both ends and widened by WIDENED heights at both sides, and by 2 pixels all around.
    One that is not longer than 1.5 heights is lengthened in both directions, by half as much.
    """
    drawn = np.zeros(shape, dtype=np.uint8)
    for region in regions:
        for outline in () if region.marker else region.outlines():
            corners = np.round(_enlarged(outline) * 16).astype(np.int32)
            cv2.fillPoly(drawn, [corners], 1, shift=4)
    return drawn.astype(np.bool_)


def reach_of(shape: tuple[int, ...], region: TextRegion) -> Box:
    """Give the box around all that is erased for ``region`` in an image of this shape."""
    corners = np.concatenate([_enlarged(outline) for outline in region.outlines()])
    left, top = (max(0, math.floor(side)) for side in corners.min(axis=0))
    right, bottom = (math.ceil(side) + 1 for side in corners.max(axis=0))
    rows, columns = shape
    return min(left, columns - 1), min(top, rows - 1), min(right, columns), min(bottom, rows)


def _enlarged(outline: Corners) -> NDArray[np.float64]:
    # Outlines at the edge of an image are cut off obliquely.
    centre, (width, height), degrees = cv2.minAreaRect(np.array(outline, dtype=np.float32))
    letter = min(width, height)
    if max(width, height) <= _SQUARE * letter:
        more = (LENGTHENED / 2, LENGTHENED / 2)
    else:
        more = (LENGTHENED, WIDENED) if width > height else (WIDENED, LENGTHENED)
    turn = math.radians(degrees)
    along = np.array([math.cos(turn), math.sin(turn)]) * (width / 2 + more[0] * letter + _BLUR)
    across = np.array([-math.sin(turn), math.cos(turn)]) * (height / 2 + more[1] * letter + _BLUR)
    signs = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    return np.array([np.array(centre) + one * along + two * across for one, two in signs])


def fill(radiograph: Radiograph, area: Area) -> Radiograph:
    """Give the radiograph with ``area`` (rows, columns) filled from the pixels just outside it.

    Smoothly, near pixels counting most, in the type and range of the stored values. Next to
    padding the area is shared out: what lies nearer to padding becomes padding, and nothing else
    does. Pixels outside the area keep their value bit for bit. An area that leaves nothing outside
    becomes 0.
    """
    if not area.any():
        return radiograph
    values = radiograph.values.copy()
    padded = radiograph.padded()
    _, labels, boxes, _ = cv2.connectedComponentsWithStats(area.astype(np.uint8), connectivity=8)
    for label, (left, top, width, height, _) in enumerate(boxes[1:].tolist(), start=1):
        window = (
            slice(max(0, top - _AROUND), top + height + _AROUND),
            slice(max(0, left - _AROUND), left + width + _AROUND),
        )
        inside = labels[window] == label
        filled = _filled(
            radiograph.values[window],
            ~area[window],
            np.zeros_like(inside) if padded is None else padded[window],
            radiograph.padding,
        )
        values[window][inside] = filled[inside].astype(values.dtype)
    values.setflags(write=False)
    return replace(radiograph, values=values)


def _filled(
    values: NDArray[Any], outside: Area, padded: Area, padding: tuple[int, int] | None
) -> _Floats:
    """Give values for a window of an image, made of those ``outside`` an area alone."""
    image, around = outside & ~padded, outside & padded
    if not outside.any():
        return np.zeros(values.shape)
    if padding is None or not around.any():
        return np.round(_spread(values.astype(np.float64), image))
    blanks, counts = np.unique(values[around], return_counts=True)
    blank = float(blanks[np.argmax(counts)])
    if not image.any():
        return np.full(values.shape, blank)
    smooth = np.round(_spread(values.astype(np.float64), image))
    low, high = padding
    fallen = (smooth >= low) & (smooth <= high)
    smooth[fallen] = np.where(2 * smooth[fallen] < low + high, low - 1, high + 1)
    nearer = _spread(around.astype(np.float64), outside) >= 0.5
    return np.where(nearer, blank, smooth)


def _spread(values: _Floats, known: Area) -> _Floats:
    """Give ``values`` where they are known, and in between what they come to at coarser sizes.

    Push and pull (Gortler et al., The Lumigraph, 1996, section 3.4): a size is halved over the
    known values until all are known, and doubled again, bilinear, into the gaps. At least one value
    must be known. No result lies beyond the least or greatest known value.
    """
    if known.all():
        return values
    weights = _halved(known.astype(np.float64))
    halves = _halved(np.where(known, values, 0.0)) / np.maximum(weights, 0.25)
    coarse = _spread(halves, weights > 0)
    rows, columns = values.shape
    fine = cv2.resize(coarse, (columns, rows), interpolation=cv2.INTER_LINEAR)
    return np.where(known, values, fine)


def _halved(values: _Floats) -> _Floats:
    """Give the means of 2 by 2 values, those beyond an odd end counting 0."""
    rows, columns = values.shape
    even = np.pad(values, ((0, rows % 2), (0, columns % 2)))
    halves: _Floats = even.reshape(even.shape[0] // 2, 2, even.shape[1] // 2, 2).mean(axis=(1, 3))
    return halves
