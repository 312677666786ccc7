"""Moves the stored pixels of a radiograph by a displacement field, at native resolution and depth.

A *displacement* is what the generator gives: float32 (2, height, width) in normalised
coordinates, channel 0 along the columns and 1 along the rows, where 2 is the distance between
the centres of the field's first and last sample. The result's pixel at p is the source at
p + displacement(p).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from prichexy_worker.contract import Reason
from prichexy_worker.errors import Rejected
from prichexy_worker.pixels import Radiograph

__all__ = ["IDENTICAL_DB", "displacement_in_pixels", "measure", "warp"]

#: The peak signal-to-noise ratio given for images without any difference, in place of infinity.
IDENTICAL_DB: Final = 200.0

Field = NDArray[np.float32]


def displacement_in_pixels(displacement: Field, rows: int, columns: int) -> Field:
    """Lift a displacement to an image: float32 (2, rows, columns) in pixels of that image.

    The field's samples are the centres of equal cells that tile the image (half-pixel geometry,
    as in the resize that made the generator's input), so a pixel spacing needs no correction.
    Bilinear between them, constant beyond the outermost; no value exceeds the field's greatest.
    Raises ValueError for another shape or a value that is not finite.
    """
    in_pixels = _in_native_pixels(displacement, rows, columns)
    lifted = np.empty((2, rows, columns), dtype=np.float32)
    for channel in range(2):
        cv2.resize(
            in_pixels[channel], (columns, rows), dst=lifted[channel], interpolation=cv2.INTER_LINEAR
        )
    return lifted


def warp(radiograph: Radiograph, displacement: Field) -> Radiograph:
    """Give the radiograph with its pixels moved, in the same type and range of stored values.

    Bicubic (a = -0.75) in float32 without quantised coordinates; beyond the border the outermost
    pixels go on. Pixels that are not displaced keep their value bit for bit. Values stay within
    the least and greatest of the source's image, so nothing overshoots into a value that a
    window, a LUT or a padding range would read as something else. Padding moves as a whole: it is
    not mixed with the image, and no pixel of the image becomes padding by interpolation. Raises
    Rejected UNSUPPORTED_PIXELS where a displacement meets nothing but padding.
    """
    rows, columns = radiograph.values.shape
    _check(displacement)
    if not displacement.any():
        return radiograph
    field = displacement_in_pixels(displacement, rows, columns)
    padded = radiograph.padded()
    if padded is None or radiograph.padding is None:
        moved = _sample(radiograph.values, field, cv2.INTER_CUBIC)
        low, high = radiograph.values.min(), radiograph.values.max()
        np.clip(moved, low, high, out=moved)
        values = moved.astype(radiograph.values.dtype, copy=False)
    elif padded.all():
        # Nothing here could be deformed; as it is it must not pass for an anonymised image.
        raise Rejected(Reason.UNSUPPORTED_PIXELS, "padding covers all")
    else:
        values = _warp_beside_padding(radiograph.values, padded, radiograph.padding, field)
    values.setflags(write=False)
    return replace(radiograph, values=values)


def measure(before: Radiograph, after: Radiograph, displacement: Field) -> dict[str, float]:
    """Give how far pixels moved and how much the image changed.

    ``max_displacement_px`` and ``mean_displacement_px``: lengths in native pixels, over the
    field's samples; ``changed_share``: of all pixels, 0 to 1; ``psnr_db``: over pixels that are
    image in both, with the range of the stored bits as peak, ``IDENTICAL_DB`` where none differs.
    """
    length = np.hypot(*_in_native_pixels(displacement, *before.values.shape))
    difference = before.values.astype(np.float32) - after.values
    changed = float(np.count_nonzero(difference)) / difference.size
    masks = [mask for mask in (before.padded(), after.padded()) if mask is not None]
    if masks:
        difference = difference[~np.logical_or.reduce(masks)]
    error = float(np.mean(np.square(difference), dtype=np.float64)) if difference.size else 0.0
    peak = float((1 << before.bits_stored) - 1)
    psnr = 10 * math.log10(peak * peak / error) if error else IDENTICAL_DB
    return {
        "max_displacement_px": float(length.max()),
        "mean_displacement_px": float(length.mean(dtype=np.float64)),
        "changed_share": changed,
        "psnr_db": min(psnr, IDENTICAL_DB),
    }


def _check(displacement: Field) -> None:
    if displacement.ndim != 3 or displacement.shape[0] != 2 or min(displacement.shape) < 2:
        raise ValueError("a displacement has the shape (2, height, width)")
    if not np.isfinite(displacement).all():
        raise ValueError("a displacement must be finite")


def _in_native_pixels(displacement: Field, rows: int, columns: int) -> Field:
    """Give the field's own samples in pixels of the image."""
    _check(displacement)
    _, height, width = displacement.shape
    # 2 spans the centres of `width` samples, width - 1 of them apart; each is columns / width wide.
    scale = [(width - 1) / 2 * columns / width, (height - 1) / 2 * rows / height]
    return displacement * np.array(scale, dtype=np.float32)[:, None, None]


def _sample(values: NDArray[Any], field: Field, interpolation: int) -> NDArray[Any]:
    """Sample ``values`` at identity + field; int8 comes back as int16, which OpenCV can do."""
    source = values.astype(np.int16) if values.dtype == np.int8 else values
    sampled: NDArray[Any] = cv2.remap(
        source,
        field[0],
        field[1],
        interpolation | cv2.WARP_RELATIVE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return sampled


def _warp_beside_padding(
    values: NDArray[Any], padded: NDArray[np.bool_], padding: tuple[int, int], field: Field
) -> NDArray[Any]:
    first, last = padding
    image = values[~padded]
    low, high = int(image.min()), int(image.max())
    moved = _sample(_without_padding(values, padded), field, cv2.INTER_CUBIC)
    moved = np.clip(moved, low, high)
    # A padding range inside the image's own range: step over it, to the nearer side.
    fallen = (moved >= first) & (moved <= last)
    if fallen.any():
        nearer = np.where(moved - (first - 1) < (last + 1) - moved, first - 1, last + 1)
        moved = np.where(fallen, nearer, moved)
    nearest = _sample(values, field, cv2.INTER_NEAREST)
    keep = (nearest >= first) & (nearest <= last)
    return np.where(keep, nearest, moved).astype(values.dtype)


def _without_padding(values: NDArray[Any], padded: NDArray[np.bool_]) -> NDArray[Any]:
    """Give ``values`` with each padding pixel replaced by the nearest pixel of the image."""
    _, labels = cv2.distanceTransformWithLabels(
        padded.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    by_label = np.empty(int(labels.max()) + 1, dtype=values.dtype)
    by_label[labels[~padded]] = values[~padded]
    filled: NDArray[Any] = by_label[labels]
    return filled
