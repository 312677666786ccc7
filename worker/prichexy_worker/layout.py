"""What a header says about its pixels, checked before anything touches them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset

from prichexy_worker.contract import Reason
from prichexy_worker.errors import Rejected

__all__ = ["MAX_BYTES", "MAX_PIXELS", "MAX_SIDE", "Layout", "integer", "read_layout"]

#: Ten times the largest flat-panel detectors sold; what is beyond is a mistake or a bomb.
MAX_PIXELS: Final = 200_000_000
#: The longest object: the largest image at 16 bits, and 64 MiB of a header with all its LUTs.
MAX_BYTES: Final = 2 * MAX_PIXELS + (64 << 20)
#: OpenCV's remap takes no longer side.
MAX_SIDE: Final = 32_766

_COLOURS: Final = ("RGB", "YBR", "PALETTE", "HSV", "ARGB", "CMYK", "XYB")


@dataclass(frozen=True, slots=True)
class Layout:
    """What a header says about its pixels, checked to be a grey single-frame image we support."""

    rows: int
    columns: int
    bits_allocated: int  # 8 or 16
    bits_stored: int  # 8 to 16
    signed: bool
    inverted: bool  # MONOCHROME1: the least value is shown white
    syntax: uid.UID

    @property
    def least(self) -> int:
        """Give the least value that fits the stored bits."""
        return -(1 << (self.bits_stored - 1)) if self.signed else 0

    @property
    def greatest(self) -> int:
        """Give the greatest value that fits the stored bits."""
        return (1 << (self.bits_stored - (1 if self.signed else 0))) - 1

    @property
    def dtype(self) -> np.dtype[Any]:
        """Give the type of a stored value, in this machine's byte order."""
        return np.dtype(f"{'i' if self.signed else 'u'}{self.bits_allocated // 8}")


def read_layout(dataset: Dataset) -> Layout:
    """Read how the pixels are laid out, without touching them.

    Raises Rejected: NO_PIXEL_DATA, MULTI_FRAME, COLOUR, UNSUPPORTED_PIXELS.
    """
    if "PixelData" not in dataset:
        if "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset:
            raise Rejected(Reason.UNSUPPORTED_PIXELS, "floating point")
        raise Rejected(Reason.NO_PIXEL_DATA)
    if not dataset["PixelData"].value:
        raise Rejected(Reason.NO_PIXEL_DATA, "empty")
    if integer(dataset, "NumberOfFrames", default=1) != 1:
        raise Rejected(Reason.MULTI_FRAME)
    photometric = str(dataset.get("PhotometricInterpretation") or "").strip().upper()
    if integer(dataset, "SamplesPerPixel", default=1) != 1 or photometric.startswith(_COLOURS):
        raise Rejected(Reason.COLOUR)
    if photometric not in {"MONOCHROME1", "MONOCHROME2"}:
        raise Rejected(Reason.UNSUPPORTED_PIXELS, "PhotometricInterpretation")
    allocated, stored = integer(dataset, "BitsAllocated"), integer(dataset, "BitsStored")
    if allocated not in {8, 16}:
        raise Rejected(Reason.UNSUPPORTED_PIXELS, "BitsAllocated")
    if not 8 <= stored <= allocated:
        raise Rejected(Reason.UNSUPPORTED_PIXELS, "BitsStored")
    if integer(dataset, "HighBit", default=stored - 1) != stored - 1:
        raise Rejected(Reason.UNSUPPORTED_PIXELS, "HighBit")
    representation = integer(dataset, "PixelRepresentation")
    if representation not in {0, 1}:
        raise Rejected(Reason.UNSUPPORTED_PIXELS, "PixelRepresentation")
    rows, columns = integer(dataset, "Rows"), integer(dataset, "Columns")
    _check_size(rows, columns)
    return Layout(
        rows=rows,
        columns=columns,
        bits_allocated=allocated,
        bits_stored=stored,
        signed=representation == 1,
        inverted=photometric == "MONOCHROME1",
        syntax=_transfer_syntax(dataset),
    )


def integer(dataset: Dataset, keyword: str, default: int | None = None) -> int:
    """Give an attribute as a whole number, or ``default`` where it is absent or empty.

    Raises Rejected UNSUPPORTED_PIXELS where it is no number, or absent without a default.
    """
    value = dataset.get(keyword)
    if value is None or value == "":
        if default is None:
            raise Rejected(Reason.UNSUPPORTED_PIXELS, f"{keyword} is absent")
        return default
    try:
        # Bytes are an element that did not fit its VR; int would read them as digits.
        return int("" if isinstance(value, bytes) else value)
    except (TypeError, ValueError):
        raise Rejected(Reason.UNSUPPORTED_PIXELS, f"{keyword} is no number") from None


def _transfer_syntax(dataset: Dataset) -> uid.UID:
    meta = getattr(dataset, "file_meta", None)
    syntax = None if meta is None else meta.get("TransferSyntaxUID")
    # Looked at as it was read: to make a UID of it anew would warn, and quote it.
    if not isinstance(syntax, uid.UID) or not syntax.is_transfer_syntax:
        raise Rejected(Reason.UNSUPPORTED_PIXELS, "transfer syntax")
    return syntax


def _check_size(rows: int, columns: int) -> None:
    if rows < 1 or columns < 1 or max(rows, columns) > MAX_SIDE or rows * columns > MAX_PIXELS:
        raise Rejected(Reason.UNSUPPORTED_PIXELS, "Rows x Columns")
