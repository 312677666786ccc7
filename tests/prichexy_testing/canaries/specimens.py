"""Whole files with planted values: which original, which syntax, which places."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from pydicom import uid

from prichexy_testing.canaries import file_bytes, pixel_places
from prichexy_testing.canaries.character_sets import CHARACTER_SETS, in_character_set
from prichexy_testing.canaries.mint import Mint, Value
from prichexy_testing.canaries.originals import Original, built_originals, real_originals
from prichexy_testing.canaries.other_places import EXPLICIT_ONLY, PLACES
from prichexy_testing.canaries.planting import Canary, Planting
from prichexy_testing.canaries.table_attributes import (
    DEEPEST,
    nested,
    other_tags,
    table_tags,
    top_level,
)
from prichexy_testing.dicoms import write

__all__ = ["COUNT", "Specimen", "specimen", "specimens"]

#: Enough that every place, character set, syntax and attribute at each depth has its turn.
COUNT: Final = 56
_BUILT: Final = 12
#: The attributes are dealt out in so many hands; a specimen gets one for each depth.
_HANDS: Final = 16
_SYNTAXES: Final = (
    uid.ExplicitVRLittleEndian,
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.RLELossless,
    uid.ExplicitVRLittleEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.JPEGLSLossless,
    uid.ExplicitVRBigEndian,
    uid.ExplicitVRLittleEndian,
    uid.JPEG2000Lossless,
)
#: In every specimen: whose it is, and what tells it from all others.
_IDENTITY: Final = (
    *(0x00080018, 0x0020000D, 0x0020000E, 0x00100010, 0x00100020, 0x00100030),
    *(0x00080050, 0x00080020, 0x00080030, 0x00080090),
)
_TOP: Final = "table attribute, top level"
_SELDOM: Final = {"very long": 12}


@dataclass(frozen=True, slots=True)
class Specimen:
    """One file, what was planted in it, and what should become of it.

    ``file_name`` holds a planted name, too, which is the last of the canaries. Every specimen is
    one that can be made safe: none may end in quarantine.
    """

    name: str
    file_name: str = field(repr=False)
    content: bytes = field(repr=False)
    canaries: tuple[Canary, ...] = field(repr=False)


def specimens(
    count: int = COUNT,
    *,
    seed: str = "prichexy",
    originals: Sequence[Original] | None = None,
    hands: int = _HANDS,
    long: bool = True,
) -> Iterator[Specimen]:
    """Give ``count`` specimens of real radiographs, the last 12, or quarter, built in code.

    Where none is at hand all are built in code, or all of ``originals`` where these are given.
    ``hands`` and ``long`` as ``specimen`` has them.
    """
    built = built_originals()
    real = real_originals() or built
    for number in range(count):
        if originals is not None:
            original = originals[number % len(originals)]
        elif number < count - min(_BUILT, count // 4):
            original = real[number % len(real)]
        else:
            original = built[number % len(built)]
        yield specimen(number, original, seed=seed, hands=hands, long=long)


def specimen(
    number: int,
    original: Original,
    *,
    seed: str = "prichexy",
    hands: int = _HANDS,
    long: bool = True,
) -> Specimen:
    """Give specimen ``number``; the same arguments give the same bytes.

    It gets one of ``hands`` parts of all attributes at each depth, and very long values where it
    is their turn and ``long``.
    """
    dataset = original.make()
    mint = Mint(f"{seed}/{number}", avoid=write(dataset))
    syntax = _SYNTAXES[number % len(_SYNTAXES)]
    planting = Planting(
        dataset,
        mint,
        implicit=syntax == uid.ImplicitVRLittleEndian,
        little_endian=syntax != uid.ExplicitVRBigEndian,
    )
    dataset.Modality = (
        "CR" if dataset.get("Modality") not in ("CR", "DX", "RG") else dataset.Modality
    )
    dataset.BodyPartExamined = "CHEST"
    dataset.BurnedInAnnotation = "NO"
    top_level(planting, _hand(other_tags(), number, hands), "text attribute outside the table")
    for depth in range(1, DEEPEST + 1):
        nested(planting, _hand(table_tags(), number + 3 * depth, hands), depth, number + depth)
    _places(planting, number, long=long)
    top_level(planting, _hand(table_tags(), number, hands), _TOP)
    top_level(planting, _IDENTITY, _TOP)
    if number % 2 == 0:
        in_character_set(planting, CHARACTER_SETS[number // 2 % len(CHARACTER_SETS)])
    if uid.UID(syntax).is_encapsulated:
        pixel_places.beside_the_codestream(planting, syntax)
    else:
        pixel_places.in_unused_bits(planting)
        pixel_places.after_the_last_pixel(planting)
    behind = b""
    if number % 3 == 0:
        behind += file_bytes.duplicates(planting)
    if number % 3 == 1:
        behind += file_bytes.out_of_order(planting)
    if number % 2:
        behind += file_bytes.trailing_padding(planting)
    after = file_bytes.trailing_bytes(planting) if number % 10 == 9 else b""
    content = file_bytes.file_of(planting, syntax, behind=behind, after=after)
    word = mint.word()
    planting.note("file name", "file name", "PN", Value(word.encode(), (word.lower().encode(),)))
    return Specimen(
        name=f"{number:03} {original.name} {uid.UID(syntax).name}",
        file_name=f"{word}^{word}_{number:03}.dcm",
        content=content,
        canaries=tuple(planting.canaries),
    )


def _places(planting: Planting, number: int, *, long: bool) -> None:
    for index, (name, place) in enumerate(PLACES.items()):
        if name in _SELDOM and not long:
            continue
        due = number % _SELDOM[name] == 0 if name in _SELDOM else (number + index) % 2 == 0
        if due and not (planting.implicit and name in EXPLICIT_ONLY):
            place(planting)


def _hand(tags: tuple[int, ...], number: int, hands: int) -> tuple[int, ...]:
    return tags[number % hands :: hands]
