"""A DICOM file as encoded bytes: where every value of it lies, and nothing left between them.

Written for the release check, which must not rely on the library that wrote the file: it reads
what this gateway may write (Part 10, Explicit VR Little Endian, pixel data native or
encapsulated) and refuses everything else. All bytes of a file that is accepted are either the
128 bytes of preamble, structure (tags, VRs, lengths, delimiters) or the value of one element.
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Final

__all__ = ["PIXEL_DATA", "PREAMBLE", "Element", "NotSearchable", "elements"]

PIXEL_DATA: Final = 0x7FE00010
_TRANSFER_SYNTAX: Final = 0x00020010
_ITEM: Final = 0xFFFEE000
_ITEM_END: Final = 0xFFFEE00D
_SEQUENCE_END: Final = 0xFFFEE0DD
_UNDEFINED: Final = 0xFFFFFFFF
_LONG: Final = frozenset(
    {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
)
_SHORT: Final = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
#: Implicit VR, big endian and what is deflated as a whole: its text is not there to be searched.
_UNREADABLE_SYNTAXES: Final = frozenset(
    {
        b"1.2.840.10008.1.2",
        b"1.2.840.10008.1.2.2",
        b"1.2.840.10008.1.2.1.99",
        b"1.2.840.10008.1.2.4.95",
        b"1.2.840.10008.1.2.4.205",
    }
)
PREAMBLE: Final = 128
_DEEPEST: Final = 64


class NotSearchable(Exception):
    """The bytes are not a file of the kind read here; the text holds no value of it."""


@dataclass(frozen=True, slots=True)
class Element:
    """One element that is no sequence: its tag below the tags of its sequences, and its value.

    The value is ``content[start:end]``. Encapsulated pixel data is one value, with its item tags.
    ``item`` is where the dataset or item that holds it begins: the same for all elements of one.
    """

    path: tuple[int, ...]
    vr: str
    start: int
    end: int
    encapsulated: bool = False
    item: int = 0

    @property
    def tag(self) -> int:
        """The element's own tag."""
        return self.path[-1]


def elements(content: bytes) -> Iterator[Element]:
    """Give every element of the file in order, the file meta's first.

    Raises NotSearchable where the bytes end early, go on after the last element, or do not follow
    Explicit VR Little Endian.
    """
    if content[PREAMBLE : PREAMBLE + 4] != b"DICM":
        raise NotSearchable("no DICOM prefix")
    try:
        yield from _file(content)
    except (struct.error, IndexError):
        raise NotSearchable("the file ends within an element") from None


def _file(content: bytes) -> Iterator[Element]:
    position, syntax = PREAMBLE + 4, b""
    while position < len(content) and content[position : position + 2] == b"\x02\x00":
        element, position = _element(content, position, len(content))
        if element.vr == "SQ":
            raise NotSearchable("a sequence in the file meta")
        if element.tag == _TRANSFER_SYNTAX:
            syntax = content[element.start : element.end].rstrip(b" \0")
        yield element
    if not syntax or syntax in _UNREADABLE_SYNTAXES:
        raise NotSearchable("a transfer syntax that is not searched")
    end = yield from _dataset(content, position, len(content), ())
    if end != len(content):
        raise NotSearchable("bytes after the last element")


def _dataset(
    content: bytes, position: int, end: int, path: tuple[int, ...], *, delimited: bool = False
) -> Generator[Element, None, int]:
    """Give the elements up to ``end`` or to the item's delimiter; return where they stopped."""
    if len(path) > _DEEPEST:
        raise NotSearchable("sequences nested too deep")
    item = position
    while position < end:
        if delimited and _tag(content, position) == _ITEM_END:
            return position + 8
        element, position = _element(content, position, end, path, item)
        if element.vr == "SQ":
            position = yield from _sequence(content, element, end)
        else:
            yield element
    if delimited or position != end:
        raise NotSearchable("an item without an end")
    return position


def _sequence(content: bytes, sequence: Element, limit: int) -> Generator[Element, None, int]:
    delimited = sequence.end == _UNDEFINED
    position, end = sequence.start, limit if delimited else sequence.end
    while position < end:
        tag, length = _tag(content, position), _length(content, position + 4)
        position += 8
        if delimited and tag == _SEQUENCE_END:
            return position
        if tag != _ITEM:
            raise NotSearchable("something else than an item in a sequence")
        open_ended = length == _UNDEFINED
        item_end = end if open_ended else position + length
        if item_end > end:
            raise NotSearchable("an item longer than its sequence")
        position = yield from _dataset(
            content, position, item_end, sequence.path, delimited=open_ended
        )
    if delimited:
        raise NotSearchable("a sequence without an end")
    return position


def _element(
    content: bytes, position: int, limit: int, path: tuple[int, ...] = (), item: int = 0
) -> tuple[Element, int]:
    """Give the element at ``position`` and where the next one starts.

    Of a sequence ``start`` is its first item and ``end`` may be undefined.
    """
    tag, vr = _tag(content, position), content[position + 4 : position + 6]
    path = (*path, tag)
    if vr in _SHORT:
        length, start = struct.unpack_from("<H", content, position + 6)[0], position + 8
    elif vr in _LONG:
        length, start = _length(content, position + 8), position + 12
    else:
        raise NotSearchable("an element without a VR")
    if vr == b"SQ":
        end = _UNDEFINED if length == _UNDEFINED else start + length
        if end != _UNDEFINED and end > limit:
            raise NotSearchable("a sequence longer than the file")
        return Element(path, "SQ", start, end, item=item), start
    if length == _UNDEFINED:
        if path != (PIXEL_DATA,):
            raise NotSearchable("a value of undefined length")
        end = _fragments(content, start, limit)
        return Element(path, vr.decode(), start, end, encapsulated=True, item=item), end + 8
    if start + length > limit:
        raise NotSearchable("a value longer than the file")
    end = start + length
    return Element(path, vr.decode(), start, end, item=item), end


def _fragments(content: bytes, position: int, limit: int) -> int:
    while position < limit:
        tag, length = _tag(content, position), _length(content, position + 4)
        if tag == _SEQUENCE_END:
            return position
        if tag != _ITEM or length == _UNDEFINED:
            raise NotSearchable("something else than a fragment in the pixel data")
        position += 8 + length
    raise NotSearchable("pixel data without an end")


def _tag(content: bytes, position: int) -> int:
    group, element = struct.unpack_from("<HH", content, position)
    return int(group << 16 | element)


def _length(content: bytes, position: int) -> int:
    return int(struct.unpack_from("<I", content, position)[0])
