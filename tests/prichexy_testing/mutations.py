"""Damaged DICOM files: one change or several, drawn from a seed, of a file that was whole.

The changes are those that hostile or broken senders make: lengths that lie, VRs that do not fit,
elements twice, in the wrong order or in each other's place, nesting without end, files cut short.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pydicom import uid

__all__ = ["MUTATIONS", "mutant"]

_META_START: Final = 132
_LONG: Final = frozenset(
    {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
)
_VRS: Final = tuple(
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR "
    b"US UT UV ZZ \0\0".split(b" ")
)
_LENGTHS: Final = (0, 1, 2, 7, 0x7FFF, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF)
_NUMBERS: Final = (0, 1, 2, 3, 7, 8, 9, 12, 15, 16, 17, 31, 32, 64, 255, 4096, 32768, 65535)
_SYNTAXES: Final = (
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.RLELossless,
    uid.JPEGLSLossless,
    uid.JPEG2000Lossless,
    uid.JPEG2000,
    "1.2.3",
    "",
)
_PIXEL_DATA: Final = 0x7FE00010


@dataclass(frozen=True, slots=True)
class _Element:
    """Where an element of the data set stands: its tag, its value, the size of its length field."""

    tag: int
    start: int
    value: int
    end: int
    wide: bool


@dataclass
class _File:
    """A file in parts. ``body`` is inflated where the file is deflated."""

    head: bytes
    body: bytes
    implicit: bool
    little: bool
    deflated: bool
    elements: list[_Element]

    def content(self) -> bytes:
        if not self.deflated:
            return self.head + self.body
        deflater = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
        return self.head + deflater.compress(self.body) + deflater.flush()

    @property
    def order(self) -> str:
        return "<" if self.little else ">"


Mutation = Callable[[_File, random.Random], None]


def mutant(content: bytes, seed: str) -> bytes:
    """Give ``content`` damaged in one to three ways; the same arguments give the same bytes."""
    drawn = random.Random(seed)
    file = _parts(content)
    for _ in range(drawn.choice((1, 1, 1, 2, 3))):
        drawn.choice(MUTATIONS)(file, drawn)
        file.elements = _elements(file)
    return file.content()


def _parts(content: bytes) -> _File:
    length = int.from_bytes(content[140:144], "little")
    end = 144 + length
    head, body = content[:end], content[end:]
    syntaxes = (uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian)
    implicit, big = (_names(head, syntax) for syntax in syntaxes)
    deflated = _names(head, uid.DeflatedExplicitVRLittleEndian)
    if deflated:
        body = zlib.decompress(body, -zlib.MAX_WBITS)
    file = _File(head, body, implicit, not big, deflated, [])
    file.elements = _elements(file)
    return file


def _names(head: bytes, syntax: str) -> bool:
    raw = syntax.encode()
    raw += b"\0" * (len(raw) % 2)
    return b"\x02\x00\x10\x00UI" + struct.pack("<H", len(raw)) + raw in head


def _elements(file: _File) -> list[_Element]:
    """Give the elements of the top level, as far as they can be made out."""
    found, position, body = [], 0, file.body
    while position + 8 <= len(body):
        group, number = struct.unpack_from(file.order + "HH", body, position)
        wide = file.implicit or body[position + 4 : position + 6] in _LONG
        at = position + (4 if file.implicit else 8 if wide else 6)
        if at + 4 > len(body):
            break
        (length,) = struct.unpack_from(file.order + ("I" if wide else "H"), body, at)
        value = at + (4 if wide else 2)
        end = value + length
        if length == 0xFFFFFFFF:
            closed = body.find(struct.pack(file.order + "HHI", 0xFFFE, 0xE0DD, 0), value)
            end = closed + 8 if closed >= 0 else len(body)
        if end > len(body):
            break
        found.append(_Element(group << 16 | number, position, value, end, wide))
        position = end
    return found


def _flip_bytes(file: _File, drawn: random.Random) -> None:
    body = bytearray(file.body)
    header = next((e.start for e in file.elements if e.tag == _PIXEL_DATA), len(body))
    for _ in range(drawn.choice((1, 2, 4, 16, 64))):
        # Most in the header, where little bytes mean much.
        limit = header if drawn.random() < 0.8 else len(body)
        if limit:
            body[drawn.randrange(limit)] = drawn.randrange(256)
    file.body = bytes(body)


def _flip_meta(file: _File, drawn: random.Random) -> None:
    head = bytearray(file.head)
    if len(head) < _META_START:
        return
    for _ in range(drawn.choice((1, 1, 4))):
        head[drawn.randrange(_META_START - 4, len(head))] = drawn.randrange(256)
    file.head = bytes(head)


def _cut(file: _File, drawn: random.Random) -> None:
    file.body = file.body[: drawn.randrange(len(file.body) + 1)]


def _cut_at_an_element(file: _File, drawn: random.Random) -> None:
    if file.elements:
        chosen = drawn.choice(file.elements)
        file.body = file.body[: drawn.choice((chosen.start, chosen.value, chosen.start + 4))]


def _lie_about_a_length(file: _File, drawn: random.Random) -> None:
    if not file.elements:
        return
    chosen = drawn.choice(file.elements)
    size = 4 if chosen.wide else 2
    true = chosen.end - chosen.value
    near = (true + step for step in (-8, -2, -1, 1, 2, 8, 64))
    length = drawn.choice((*_LENGTHS, *near)) & (0xFFFFFFFF if size == 4 else 0xFFFF)
    raw = struct.pack(file.order + ("I" if size == 4 else "H"), length)
    file.body = file.body[: chosen.value - size] + raw + file.body[chosen.value :]


def _swap_vr(file: _File, drawn: random.Random) -> None:
    if file.elements and not file.implicit:
        chosen = drawn.choice(file.elements)
        at = chosen.start + 4
        file.body = file.body[:at] + drawn.choice(_VRS) + file.body[at + 2 :]


def _duplicate(file: _File, drawn: random.Random) -> None:
    if file.elements:
        copied, place = drawn.choice(file.elements), drawn.choice(file.elements)
        piece = file.body[copied.start : copied.end]
        file.body = file.body[: place.start] + piece + file.body[place.start :]


def _remove(file: _File, drawn: random.Random) -> None:
    if file.elements:
        chosen = drawn.choice(file.elements)
        file.body = file.body[: chosen.start] + file.body[chosen.end :]


def _reorder(file: _File, drawn: random.Random) -> None:
    pieces = [file.body[e.start : e.end] for e in file.elements]
    rest = file.body[file.elements[-1].end :] if file.elements else file.body
    drawn.shuffle(pieces)
    file.body = b"".join(pieces) + rest


def _exchange_values(file: _File, drawn: random.Random) -> None:
    """Put the value of one element into another: an identifier where a list expects a term."""
    if not file.elements:
        return
    given, taken = drawn.choice(file.elements), drawn.choice(file.elements)
    value = file.body[given.value : given.end]
    if not taken.wide and len(value) > 0xFFFE:
        return
    length = struct.pack(file.order + ("I" if taken.wide else "H"), len(value))
    before = file.body[: taken.value - len(length)]
    file.body = before + length + value + file.body[taken.end :]


def _new_number(file: _File, drawn: random.Random) -> None:
    """Let an attribute that describes the pixels say something else."""
    numbers = [e for e in file.elements if e.tag >> 16 == 0x28 and e.end - e.value == 2]
    if numbers:
        chosen = drawn.choice(numbers)
        raw = struct.pack(file.order + "H", drawn.choice(_NUMBERS))
        file.body = file.body[: chosen.value] + raw + file.body[chosen.end :]


def _new_tag(file: _File, drawn: random.Random) -> None:
    """Give an element the tag of another, or any."""
    if not file.elements:
        return
    chosen = drawn.choice(file.elements)
    tag = drawn.choice(file.elements).tag if drawn.random() < 0.7 else drawn.randrange(1 << 32)
    raw = struct.pack(file.order + "HH", tag >> 16, tag & 0xFFFF)
    file.body = file.body[: chosen.start] + raw + file.body[chosen.start + 4 :]


def _nest(file: _File, drawn: random.Random) -> None:
    """Insert a sequence in a sequence in a sequence, closed or left open."""
    depth = drawn.choice((2, 60, 70, 400, 3000, 20_000))
    tag = struct.pack(
        file.order + "HH", *drawn.choice(((0x40, 0x275), (0x8, 0x2112), (0x9, 0x1001)))
    )
    start = tag + (b"" if file.implicit else b"SQ\0\0") + b"\xff" * 4
    start += struct.pack(file.order + "HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    close = struct.pack(file.order + "HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    bomb = start * depth + close * drawn.choice((depth, 0, depth // 2))
    place = drawn.choice(file.elements).start if file.elements else 0
    file.body = file.body[:place] + bomb + file.body[place:]


def _insert_noise(file: _File, drawn: random.Random) -> None:
    place = drawn.randrange(len(file.body) + 1)
    noise = drawn.randbytes(drawn.choice((1, 2, 8, 100)))
    file.body = file.body[:place] + noise + file.body[place:]


def _other_syntax(file: _File, drawn: random.Random) -> None:
    """Let the file meta name another transfer syntax than the one that was written."""
    at = file.head.find(b"\x02\x00\x10\x00UI")
    if at < 0:
        return
    old = struct.unpack_from("<H", file.head, at + 6)[0]
    raw = drawn.choice(_SYNTAXES).encode()
    raw += b"\0" * (len(raw) % 2)
    element = file.head[at : at + 6] + struct.pack("<H", len(raw)) + raw
    head = file.head[:at] + element + file.head[at + 8 + old :]
    file.head = head[:140] + struct.pack("<I", len(head) - 144) + head[144:]


def _no_meta(file: _File, drawn: random.Random) -> None:
    """Drop the preamble, the prefix, or all of the file meta."""
    file.head = drawn.choice(
        (b"", file.head[_META_START:], file.head[128:], file.head[:_META_START])
    )


MUTATIONS: Final[tuple[Mutation, ...]] = (
    _flip_bytes,
    _flip_bytes,
    _flip_meta,
    _cut,
    _cut_at_an_element,
    _lie_about_a_length,
    _lie_about_a_length,
    _swap_vr,
    _swap_vr,
    _duplicate,
    _remove,
    _reorder,
    _exchange_values,
    _exchange_values,
    _new_number,
    _new_number,
    _new_tag,
    _new_tag,
    _nest,
    _insert_noise,
    _other_syntax,
    _no_meta,
)
