"""Fixed masks: areas where a device always writes, filled whatever a search finds there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from typing import Final, TypeGuard

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from prichexy_worker.errors import Misconfigured
from prichexy_worker.header.elements import texts

__all__ = ["Box", "Mask", "masked_area", "masks_of"]

#: Left, top, right, bottom in pixels of the stored image, without right and bottom. What is
#: negative counts from the right or bottom edge; a right or bottom of 0 is the edge itself.
Box = tuple[int, int, int, int]

_ATTRIBUTES: Final = {
    "manufacturer": 0x00080070,
    "model": 0x00081090,
    "station": 0x00081010,
}
_SIZES: Final = ("rows", "columns")


@dataclass(frozen=True, slots=True)
class Mask:
    """Boxes to fill in every image that meets all conditions; None is no condition.

    ``manufacturer``, ``model`` and ``station`` are patterns with ``*``, ``?`` and ``[…]`` (as in
    file names) for Manufacturer, ManufacturerModelName and StationName, in any case of letters;
    ``rows`` and ``columns`` are the exact size of the stored image.
    """

    boxes: tuple[Box, ...]
    manufacturer: str | None = None
    model: str | None = None
    station: str | None = None
    rows: int | None = None
    columns: int | None = None

    def applies(self, dataset: Dataset, shape: tuple[int, ...]) -> bool:
        """Tell whether an image of this shape with this header meets all conditions."""
        size = zip((self.rows, self.columns), shape, strict=True)
        if any(wanted not in (None, found) for wanted, found in size):
            return False
        patterns = ((tag, getattr(self, name)) for name, tag in _ATTRIBUTES.items())
        return all(
            fnmatchcase("\\".join(texts(dataset, tag)).upper(), pattern.upper())
            for tag, pattern in patterns
            if pattern is not None
        )


def masked_area(
    masks: Iterable[Mask], dataset: Dataset, shape: tuple[int, ...]
) -> NDArray[np.bool_]:
    """Give where the masks that apply lie in an image of this shape: True inside, (rows, columns).

    A box is cut off at the edges of the image; one that lies beyond them covers nothing.
    """
    area = np.zeros(shape, dtype=np.bool_)
    rows, columns = shape
    for mask in masks:
        for left, top, right, bottom in mask.boxes if mask.applies(dataset, shape) else ():
            across = slice(_start(left, columns), _end(right, columns))
            area[_start(top, rows) : _end(bottom, rows), across] = True
    return area


def _start(number: int, length: int) -> int:
    return max(0, number + length) if number < 0 else number


def _end(number: int, length: int) -> int:
    return max(0, number + length) if number <= 0 else number


def masks_of(entries: Sequence[Mapping[str, object]]) -> tuple[Mask, ...]:
    """Read masks from a configuration: each a table with ``boxes`` and at least one condition.

    Raises Misconfigured, which names the entry (counted from 1) and the key that does not fit.
    """
    return tuple(_mask(f"mask {number}", entry) for number, entry in enumerate(entries, start=1))


def _mask(name: str, entry: object) -> Mask:
    if not isinstance(entry, Mapping):
        raise Misconfigured(f"{name} must be a table of conditions and boxes")
    known = [field.name for field in fields(Mask)]
    for key in entry:
        if key not in known:
            raise Misconfigured(f"{name}: {key!r} is not known; write one of {', '.join(known)}")
    if set(entry) <= {"boxes"}:
        raise Misconfigured(
            f"{name} has no condition and would be laid on every image: name a manufacturer, "
            "model, station, rows or columns"
        )
    boxes = entry.get("boxes")
    if not isinstance(boxes, list | tuple) or not boxes:
        raise Misconfigured(f"{name}: boxes must be a list of [left, top, right, bottom]")
    patterns = {key: _pattern(name, key, entry[key]) for key in _ATTRIBUTES if key in entry}
    sizes = {key: _size(name, key, entry[key]) for key in _SIZES if key in entry}
    return Mask(
        boxes=tuple(
            _box(f"{name}: boxes, number {number}", box) for number, box in enumerate(boxes, 1)
        ),
        manufacturer=patterns.get("manufacturer"),
        model=patterns.get("model"),
        station=patterns.get("station"),
        rows=sizes.get("rows"),
        columns=sizes.get("columns"),
    )


def _pattern(name: str, key: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise Misconfigured(f"{name}: {key} must be a text, such as 'Example*'")
    return value.strip()


def _size(name: str, key: str, value: object) -> int:
    if not _whole(value) or int(value) < 1:
        raise Misconfigured(f"{name}: {key} must be a whole number of pixels, 1 or more")
    return int(value)


def _box(place: str, value: object) -> Box:
    if not isinstance(value, list | tuple) or len(value) != 4 or not all(map(_whole, value)):
        raise Misconfigured(f"{place} must be four whole numbers: left, top, right, bottom")
    left, top, right, bottom = value
    for start, end, names in ((left, right, "left and right"), (top, bottom, "top and bottom")):
        # Only ends that are counted from the same edge can be compared without an image.
        if (start < 0) == (end <= 0) and start >= end:
            raise Misconfigured(f"{place} is empty: {names} are the wrong way round")
    return left, top, right, bottom


def _whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
