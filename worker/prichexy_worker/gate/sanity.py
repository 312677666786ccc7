"""Whether the pixels of a result are those of a radiograph like its source.

The result is looked at as it was written: by its own header and bytes.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from pydicom.dataset import Dataset

from prichexy_worker import pixels
from prichexy_worker.contract import Reason
from prichexy_worker.errors import Rejected
from prichexy_worker.layout import Layout, read_layout
from prichexy_worker.pixels import Radiograph, Syntax

__all__ = ["check_pixels", "read_pixels"]

#: In these a source's spacing must come through; in the others only unchanged, if at all.
_KEPT_SPACINGS: Final = ("PixelSpacing", "ImagerPixelSpacing")
_SPACINGS: Final = (*_KEPT_SPACINGS, "NominalScannedPixelSpacing", "PixelAspectRatio")
_NAMES: Final[dict[str, Syntax]] = {
    "1.2.840.10008.1.2.1": "explicit-little-endian",
    "1.2.840.10008.1.2.5": "rle-lossless",
    "1.2.840.10008.1.2.4.80": "jpeg-ls-lossless",
}


def read_pixels(result: Dataset) -> Radiograph:
    """Decode a result. Raises Rejected PIXELS_NOT_SANE when that cannot be done."""
    try:
        return pixels.decode(result)
    except Rejected as error:
        raise Rejected(Reason.PIXELS_NOT_SANE, error.reason.value) from None


def check_pixels(source: Dataset, original: Radiograph, result: Dataset, found: Radiograph) -> None:
    """Return when the pixels ``found`` in ``result`` are sane, measured by ``original``'s.

    Size, depth, sign, polarity and spacing are those of ``source``. Each value is one that its
    image spans, from the least to the greatest, or one of its padding. The image has more than
    one value, and no more padding than ``pixels.MOST_PADDING``. PixelData holds the values and
    nothing else: no bits above BitsStored and no bytes after the last pixel. Of compressed pixels
    that means: byte for byte what our encoder makes of these values. Raises Rejected
    PIXELS_NOT_SANE with the name of what is wrong.
    """
    for wrong in (
        _layout(read_layout(source), read_layout(result)),
        _spacing(source, result),
        _values(original, found),
        _encoding(result, found),
    ):
        if wrong:
            raise Rejected(Reason.PIXELS_NOT_SANE, wrong)


def _layout(before: Layout, after: Layout) -> str:
    for name in ("rows", "columns", "bits_stored", "signed", "inverted"):
        if getattr(before, name) != getattr(after, name):
            return name.replace("_", " ")
    # Where compression is asked for, encoders choose the container by the stored bits.
    narrowed = 8 if before.bits_stored <= 8 else before.bits_allocated
    return "" if after.bits_allocated in (narrowed, before.bits_allocated) else "bits allocated"


def _spacing(source: Dataset, result: Dataset) -> str:
    for keyword in _SPACINGS:
        before, after = _numbers(source, keyword), _numbers(result, keyword)
        if keyword in result and (after is None or before is None or not _same(before, after)):
            return keyword
        positive = before is not None and len(before) == 2 and min(before) > 0
        if keyword in _KEPT_SPACINGS and positive and keyword not in result:
            return keyword
    return ""


def _same(before: tuple[float, ...], after: tuple[float, ...]) -> bool:
    # A decimal string of 16 characters, the longest there is, has ten digits at least.
    return len(before) == len(after) and all(
        math.isclose(one, two, rel_tol=1e-9) for one, two in zip(before, after, strict=True)
    )


def _numbers(dataset: Dataset, keyword: str) -> tuple[float, ...] | None:
    value = dataset.get(keyword)
    if value is None or isinstance(value, bytes):
        return None
    values = [value] if isinstance(value, str | int | float) else value
    try:
        numbers = tuple(float(one) for one in values)
    except (TypeError, ValueError, OverflowError):
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


def _values(original: Radiograph, found: Radiograph) -> str:
    padded, result_padded = original.padded(), found.padded()
    if found.padding not in (None, original.padding):
        return "padding value"
    image = original.values if padded is None else original.values[~padded]
    if not image.size:
        return "all padding"
    least, greatest = int(image.min()), int(image.max())
    shown = found.values if result_padded is None else found.values[~result_padded]
    if not shown.size or shown.min() == shown.max():
        return "constant"
    outside = (found.values < least) | (found.values > greatest)
    if padded is not None:
        padding = original.values[padded]
        outside &= (found.values < padding.min()) | (found.values > padding.max())
    if outside.any():
        return f"{np.count_nonzero(outside)} values out of range"
    try:
        pixels.refuse_padding(found)
    except Rejected:
        return "too much padding"
    return ""


def _encoding(result: Dataset, found: Radiograph) -> str:
    element = result["PixelData"]
    syntax = _NAMES.get(str(result.file_meta.TransferSyntaxUID))
    if syntax is None:
        return "transfer syntax"
    if syntax == "explicit-little-endian":
        content = found.values.astype(found.values.dtype.newbyteorder("<")).tobytes()
        content += b"\0" * (len(content) % 2)
        return "" if element.value == content else "bytes that are no pixels"
    again = pixels.with_pixels(Dataset(), found, syntax=syntax)
    same = again.PixelData == element.value
    return "" if same else "bytes that are no pixels"
