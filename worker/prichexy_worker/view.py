"""How a radiograph looks on a viewing station, in grey from 0 to 1: what networks are shown.

The stored pixels stay as they are; a view is made of them, used and thrown away.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence

from prichexy_worker.pixels import Radiograph

__all__ = ["displayed", "displayed_alike", "searched", "shrink"]

View = NDArray[np.float32]
_Levels = NDArray[np.float64]

#: A header's window or LUT is believed where the view's 5th and 95th percentile are further apart.
_LEAST_CONTRAST: Final = 0.1
#: The greatest share of the pixels that may be clipped in the one view that text is searched in:
#: 100 of 5,000,000. The lines of one word, in letters of 14 rows, are three times as many.
MOST_HIDDEN: Final = 2e-5
#: Percentiles are taken over about this many pixels a side: on all of them they cost more than
#: the rest of the view.
_SAMPLED_SIDE: Final = 256
#: Rows of a smaller image made at a time: each needs a few rows of the view, not all.
_BLOCK: Final = 16


def displayed(radiograph: Radiograph, dataset: Dataset) -> View:
    """Give the image as a radiologist sees it: (rows, columns), 0 black to 1 white, bone bright.

    Modality LUT or Rescale, then the first VOI LUT, else the first window, of ``dataset``; where
    there is none or it leaves hardly any contrast, the 0.5th to 99.5th percentile. MONOCHROME1
    is inverted. Padding is black. Never raises for what a header says: an attribute that makes no
    sense is passed over.
    """
    return _shown(_table(radiograph, dataset, radiograph.padded()), radiograph)


def displayed_alike(before: Radiograph, after: Radiograph, dataset: Dataset) -> tuple[View, View]:
    """Give both images, the first as ``displayed``, the second with the same grey for each value.

    So where they differ to the eye, their values do. Both store values of the same type.
    """
    table = _table(before, dataset, before.padded())
    return _shown(table, before), _shown(table, after)


def _shown(table: View, radiograph: Radiograph) -> View:
    view: View = _look_up(table, radiograph.values)
    padded = radiograph.padded()
    if padded is not None:
        view[padded] = 0
    return view


def searched(radiograph: Radiograph, dataset: Dataset) -> tuple[View, ...]:
    """Give what must be looked at to see all that is drawn in the image: one view, or two.

    The first is ``displayed`` with the padding shown as any other value, since a header may call
    anything padding. Where that shows more than ``MOST_HIDDEN`` of the pixels in its darkest or its
    brightest grey (of 256) although they differ from the commonest value there, the second view
    shows these two greys unfolded: over the whole range from black to white, half by the values
    that occur and half by their order, so that no outlier leaves the others alike. Values that a
    VOI LUT makes equal between its ends stay equal.
    """
    values = radiograph.values
    table = _table(radiograph, dataset, radiograph.padded())
    view: View = _look_up(table, values)
    counts = np.bincount(values.view(f"u{values.dtype.itemsize}").ravel(), minlength=table.size)
    grey = np.round(table * 255)
    there = counts > 0
    ends = [there & (grey == end) for end in (grey[there].min(), grey[there].max())]
    hidden = sum(int(counts[end].sum() - counts[end].max()) for end in ends)
    if hidden <= MOST_HIDDEN * values.size:
        return (view,)
    stored = _stored_values(values.dtype)
    unfolded = table.copy()
    for end in ends:
        spread = _spread(stored[end].astype(np.float64))
        # Turned back where the window ends, so that nothing jumps there.
        unfolded[end] = spread if radiograph.inverted else 1 - spread
    return view, _look_up(unfolded, values)


def _spread(values: _Levels) -> _Levels:
    """Give different values in any order as numbers from 0 for the least to 1 for the greatest."""
    order = np.argsort(np.argsort(values)) / max(values.size - 1, 1)
    share = (values - values.min()) / max(float(np.ptp(values)), 1.0)
    spread: _Levels = (order + share) / 2
    return spread


def _table(radiograph: Radiograph, dataset: Dataset, padded: NDArray[np.bool_] | None) -> View:
    """Give the grey of each stored value, in the order of its bits."""
    values = radiograph.values
    stored = _stored_values(values.dtype)
    step = max(1, min(values.shape) // _SAMPLED_SIDE)
    sample = values[::step, ::step]
    if padded is not None:
        chosen = sample[~padded[::step, ::step]]
        sample = chosen if chosen.size else sample
    levels = _modality_levels(stored.astype(np.float64), dataset)
    grey = _voi_grey(levels, dataset)
    if grey is None or _contrast(_look_up(grey, sample)) < _LEAST_CONTRAST:
        grey = _between_percentiles(levels, _look_up(levels, sample))
    if radiograph.inverted:
        grey = 1 - grey
    table: View = grey.astype(np.float32)
    return table


def shrink(view: View, size: int = 256) -> View:
    """Resize to the generator's input: (size, size), whatever the aspect ratio.

    Bilinear with a kernel as wide as the reduction, as Pillow does it and torch's ``interpolate``
    with ``antialias=True, align_corners=False`` (equal to rounding, tested). Without the wide
    kernel a 3,000-pixel image is decimated twelvefold and its noise folds into the input.
    """
    rows, columns = view.shape
    vertical = _weights(rows, size)
    lower = np.empty((size, columns), dtype=np.float32)
    for start in range(0, size, _BLOCK):
        block = vertical[start : start + _BLOCK]
        used = np.flatnonzero(block.any(axis=0))
        band = slice(used[0], used[-1] + 1)
        lower[start : start + _BLOCK] = block[:, band] @ view[band]
    smaller: View = np.matmul(lower, _weights(columns, size).T)
    return smaller


@lru_cache(maxsize=8)  # a department's detectors come in few sizes
def _weights(length: int, size: int) -> View:
    """Give the (size, length) matrix that resizes one axis; each row sums to 1."""
    scale = length / size
    centre = (np.arange(size)[:, None] + 0.5) * scale
    distance = np.abs(np.arange(length)[None, :] + 0.5 - centre)
    weights = np.maximum(1 - distance / max(scale, 1.0), 0)
    normalised: View = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    normalised.setflags(write=False)
    return normalised


def _stored_values(dtype: np.dtype[Any]) -> NDArray[Any]:
    """Give every value of ``dtype`` in the order of its bits, so that bits index a table."""
    unsigned = np.dtype(f"u{dtype.itemsize}")
    return np.arange(1 << (8 * dtype.itemsize), dtype=unsigned).view(dtype)


def _look_up(table: NDArray[Any], values: NDArray[Any]) -> NDArray[Any]:
    return np.take(table, values.view(f"u{values.dtype.itemsize}"))


def _contrast(view: NDArray[Any]) -> float:
    dark, bright = np.percentile(view, [5, 95])
    return float(bright - dark)


def _modality_levels(stored: _Levels, dataset: Dataset) -> _Levels:
    """Give each stored value in the units that windows and VOI LUTs are meant for."""
    lut = _first_lut(dataset, "ModalityLUTSequence")
    if lut is not None:
        return lut.apply(stored)
    slope, intercept = _number(dataset, "RescaleSlope"), _number(dataset, "RescaleIntercept")
    if not slope or intercept is None:
        return stored
    return stored * slope + intercept


def _voi_grey(levels: _Levels, dataset: Dataset) -> _Levels | None:
    """Give the grey (0 to 1) of each level by the header's first VOI LUT or window, if any."""
    lut = _first_lut(dataset, "VOILUTSequence")
    if lut is not None:
        return np.clip(lut.apply(levels) / ((1 << lut.bits) - 1), 0, 1)
    centre, width = _number(dataset, "WindowCenter"), _number(dataset, "WindowWidth")
    function = str(dataset.get("VOILUTFunction") or "LINEAR").strip().upper()
    if centre is None or width is None or width <= 0 or (function == "LINEAR" and width < 1):
        return None
    if function == "SIGMOID":
        exponent = np.clip(-4 * (levels - centre) / width, -500, 500)
        return 1 / (1 + np.exp(exponent))
    if function == "LINEAR_EXACT":
        return np.clip((levels - centre) / width + 0.5, 0, 1)
    # PS3.3 C.11.2.1.2.1: the linear window's half-pixel convention; width 1 is a threshold.
    return np.clip((levels - (centre - 0.5)) / max(width - 1, 1e-9) + 0.5, 0, 1)


def _between_percentiles(levels: _Levels, sample: _Levels) -> _Levels:
    low, high = (float(level) for level in np.percentile(sample, [0.5, 99.5]))
    return np.clip((levels - low) / max(high - low, 1e-9), 0, 1)


@dataclass(frozen=True, slots=True, eq=False)
class _Lut:
    """A LUT of a header: ``data[0]`` for levels up to ``first``, its last for all beyond."""

    data: NDArray[np.uint16]
    first: int
    bits: int

    def apply(self, levels: _Levels) -> _Levels:
        index = np.clip(np.round(levels) - self.first, 0, len(self.data) - 1)
        return self.data[index.astype(np.intp)].astype(np.float64)


def _first_lut(dataset: Dataset, keyword: str) -> _Lut | None:
    """Give the first LUT of a sequence, or None where there is none that makes sense."""
    items = dataset.get(keyword)
    if not isinstance(items, Sequence) or not items:
        return None
    descriptor, data = items[0].get("LUTDescriptor"), items[0].get("LUTData")
    try:
        entries, first, bits = (int(number) for number in descriptor)
        if isinstance(data, bytes):
            wide = len(data) >= 2 * (entries or 1 << 16)
            table = np.frombuffer(data, dtype="<u2" if wide else "u1").astype(np.uint16)
        else:
            table = np.array(data, dtype=np.int64).astype(np.uint16)
    except (TypeError, ValueError, OverflowError):
        return None
    table = table[: entries or 1 << 16]
    if table.ndim != 1 or not table.size or not 1 <= bits <= 16:
        return None
    signed = bool(dataset.get("PixelRepresentation")) or first < 0
    if signed and first >= 1 << 15 and items[0]["LUTDescriptor"].VR == "US":
        first -= 1 << 16
    return _Lut(table, first, bits)


def _number(dataset: Dataset, keyword: str) -> float | None:
    """Give the first value of an attribute as a finite number, or None."""
    value = dataset.get(keyword)
    if isinstance(value, MultiValue | list | tuple):
        value = value[0] if value else None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
