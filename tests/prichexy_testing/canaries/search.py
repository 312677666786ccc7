"""What of the planted is still there, sought without the worker's code.

The whole file is searched, in whatever way its bytes may be packed: as they are, inflated, and the
decoded image: by bytes, by the upper and lower byte of each value, and by each single bit.
"""

from __future__ import annotations

import re
import warnings
import zlib
from collections.abc import Iterable
from datetime import UTC, datetime, time
from io import BytesIO
from typing import Final

import numpy as np
import pydicom
from pydicom import config
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from prichexy_testing.canaries.planting import Canary

__all__ = ["Haystack", "is_told_by_clocks", "survivors"]

#: Pseudonymous UIDs and digests: any eight digits stand in one of them by chance at last.
_CHANCE: Final = re.compile(rb"2\.25\.[0-9]{30,39}|(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


class Haystack:
    """The bytes of one result in every packing, in small letters."""

    def __init__(self, content: bytes, *, result: bool = True) -> None:
        """Take the bytes of a file.

        Of a ``result`` of ours every element must be readable and the image decode; what of
        another file does not is searched as the bytes that it is.
        """
        self._strands = [_CHANCE.sub(b"", content).lower()]
        self._elements: set[tuple[int, bytes]] = set()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.dataset = pydicom.dcmread(BytesIO(content), force=True)
            syntax = self.dataset.file_meta.get("TransferSyntaxUID")
            if syntax == DeflatedExplicitVRLittleEndian:
                self._strands.append(_inflated(content).lower())
            try:
                self._strands += [strand.lower() for strand in _unpacked(self.dataset)]
            except Exception:  # whatever a decoder raises
                if result:
                    raise
            self._elements = {
                (int(element.tag), _stored(element))
                for element in _walk(self.dataset, strict=result)
                if element.VR in ("US", "SS", "UL", "SL", "AT", "FL")
            }

    def shows(self, canary: Canary) -> bool:
        """Tell whether the canary is there, whole or by its telling part."""
        if canary.forms:
            return any(form in strand for form in canary.forms for strand in self._strands)
        tag = int(canary.path[-9:].replace(",", ""), 16)
        words = np.frombuffer(canary.raw, "<u2")
        swapped = words.astype(">u2").tobytes()
        return not {(tag, canary.raw), (tag, swapped)}.isdisjoint(self._elements)


def survivors(content: bytes, canaries: Iterable[Canary]) -> list[Canary]:
    """Give the canaries that the file ``content`` still shows."""
    haystack = Haystack(content)
    return [canary for canary in canaries if haystack.shows(canary)]


def is_told_by_clocks(form: bytes, began: datetime, ended: datetime) -> bool:
    """Say whether a form is a time of day between two moments, here or in UTC.

    Logs and reports of that time tell it of themselves.
    """
    try:
        told = time.fromisoformat(form.decode("ascii"))
    except ValueError:
        return False
    for zone in (UTC, None):
        first, last = (at.astimezone(zone).time().replace(microsecond=0) for at in (began, ended))
        if (first <= told <= last) if first <= last else (told >= first or told <= last):
            return True
    return False


def _walk(dataset: Dataset, *, strict: bool) -> Iterable[pydicom.DataElement]:
    for tag in sorted(dataset.keys()):
        try:
            with config.disable_value_validation():
                element = dataset[tag]
        except (NotImplementedError, ValueError):
            if strict:
                raise
            continue
        yield element
        if element.VR == "SQ":
            for item in element.value:
                yield from _walk(item, strict=strict)


def _stored(element: pydicom.DataElement) -> bytes:
    values = element.value if element.VM > 1 else [element.value] if element.VM else []
    code = {"US": "<u2", "SS": "<i2", "UL": "<u4", "SL": "<i4", "FL": "<f4"}.get(element.VR)
    if code is None:
        pairs = [(int(tag) >> 16, int(tag) & 0xFFFF) for tag in values]
        return np.array(pairs, "<u2").tobytes()
    return np.array(values, code).tobytes()


def _inflated(content: bytes) -> bytes:
    meta_end = 144 + int.from_bytes(content[140:144], "little")
    return zlib.decompress(content[meta_end:], -zlib.MAX_WBITS)


def _unpacked(dataset: Dataset) -> Iterable[bytes]:
    """Give the stored values as bytes, and every bit of them as a picture of its own.

    Of an uncompressed image the words as they are stored, with what no pixel uses.
    """
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        values = dataset.pixel_array
        yield values.tobytes()
    else:
        little = dataset.file_meta.TransferSyntaxUID.is_little_endian
        size = dataset.BitsAllocated // 8
        content = dataset.PixelData[: len(dataset.PixelData) // size * size]
        values = np.frombuffer(content, f"{'<' if little else '>'}u{size}")
    words = values.astype("<u2" if values.dtype.itemsize == 2 else "u1").ravel()
    yield words.tobytes()
    yield words.astype(">u2").tobytes()
    yield (words & 0xFF).astype("u1").tobytes()
    yield (words >> 8).astype("u1").tobytes() if words.itemsize == 2 else b""
    for bit in range(8 * words.itemsize):
        plane = ((words >> bit) & 1).astype("u1")
        yield np.packbits(plane, bitorder="little").tobytes()
        yield np.packbits(plane, bitorder="big").tobytes()
