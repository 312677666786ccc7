"""Whether an export target holds what was sent to it."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.tag import Tag

from prichexy_worker import pixels
from prichexy_worker.errors import Rejected
from prichexy_worker.ports import Anonymized, Readable

__all__ = ["differences", "read_back"]

_PIXEL_DATA: Final = Tag("PixelData")


def differences(sent: bytes, held: bytes | None) -> tuple[str, ...]:
    """Name the tags in which ``held`` differs from ``sent``; nothing when it is as good.

    Most targets store what they get, and the bytes are equal. One that writes objects anew is
    allowed another encoding and its own file meta information, but each element of the data set
    must be there with its value, and each pixel. The answer holds tags and the words "missing"
    and "unreadable", never a value.
    """
    if held is None:
        return ("missing",)
    if held == sent:
        return ()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # their texts hold values
        ours = pydicom.dcmread(io.BytesIO(sent))
        try:
            theirs = pydicom.dcmread(io.BytesIO(held))
            tags = {element.tag for element in ours} | {element.tag for element in theirs}
            differing = {
                tag
                for tag in tags
                if tag not in ours or tag not in theirs or ours[tag] != theirs[tag]
            }
        except (InvalidDicomError, ValueError, TypeError, KeyError, EOFError, AttributeError):
            return ("unreadable",)
        recoded = ours.file_meta.TransferSyntaxUID != theirs.file_meta.get("TransferSyntaxUID")
        if recoded and _PIXEL_DATA in differing and _same_pixels(ours, theirs):
            differing.remove(_PIXEL_DATA)
    return tuple(f"({tag >> 16:04X},{tag & 0xFFFF:04X})" for tag in sorted(differing))


def read_back(target: Readable, kept: Sequence[Anonymized]) -> Iterator[tuple[str, ...]]:
    """Give, for each of ``kept``, the differences of what ``target`` gives back of it."""
    for instance in kept:
        yield differences(instance.content, target.fetch(instance))


def _same_pixels(ours: pydicom.Dataset, theirs: pydicom.Dataset) -> bool:
    try:
        return np.array_equal(pixels.decode(ours).values, pixels.decode(theirs).values)
    except Rejected:
        return False
