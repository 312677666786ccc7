"""What a human is shown of what a machine does not decide: a region alone, or the whole image."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from prichexy_worker.contract import WHOLE_PICTURE_BYTES, WHOLE_SIDE
from prichexy_worker.text.erasing import area_of
from prichexy_worker.text.finder import TextRegion

__all__ = ["LONGEST_SIDE", "picture", "whole_picture"]

#: The longer side of a picture, in pixels: enough to read a line.
LONGEST_SIDE: Final = 480
#: How far apart the greys of a whole image are, tried in this order until the file is small enough;
#: with the last it always is. Radiographs need the first; to read letters, fewer greys are better
#: than fewer pixels.
_STEPS: Final = (1, 2, 4, 8, 16)


def picture(view: npt.NDArray[np.float32], region: TextRegion) -> bytes:
    """Give a PNG, grey, at most LONGEST_SIDE pixels a side, of what would be erased of ``view``.

    ``view`` is (rows, columns), 0 black to 1 white. What lies around the region's turned rectangle
    is black: a neighbouring text is not shown. The file holds pixels alone, no text.
    """
    area = area_of(view.shape, [replace(region, marker=False)])
    rows, columns = np.flatnonzero(area.any(axis=1)), np.flatnonzero(area.any(axis=0))
    window = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    shown = np.where(area[window], np.clip(view[window], 0, 1), 0) * 255
    return _png(shown, LONGEST_SIDE)


def whole_picture(view: npt.NDArray[np.float32]) -> bytes:
    """Give a PNG, grey, of all of ``view`` (rows, columns; 0 black to 1 white), to be read in.

    Its longer side has WHOLE_SIDE pixels, or all that the view has. It has at most
    WHOLE_PICTURE_BYTES.
    """
    grey = _reduced(np.clip(view, 0, 1) * 255, WHOLE_SIDE)
    for step in _STEPS:
        png = _encoded(grey // step * step)
        if len(png) <= WHOLE_PICTURE_BYTES:
            break
    return png


def _png(shown: npt.NDArray[np.floating], longest: int) -> bytes:
    return _encoded(_reduced(shown, longest))


def _reduced(shown: npt.NDArray[np.floating], longest: int) -> npt.NDArray[np.uint8]:
    scale = min(1.0, longest / max(shown.shape))
    size = tuple(max(1, round(side * scale)) for side in reversed(shown.shape))
    grey = cv2.resize(shown.astype(np.uint8), size, interpolation=cv2.INTER_AREA)
    return np.asarray(grey, dtype=np.uint8)


def _encoded(grey: npt.NDArray[np.uint8]) -> bytes:
    _, png = cv2.imencode(".png", grey)
    return bytes(png)
