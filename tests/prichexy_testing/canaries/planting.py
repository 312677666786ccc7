"""A dataset into which values are planted, and the answer key that grows with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag

from prichexy_testing.canaries.mint import Mint, Value

__all__ = ["Canary", "Planting", "planted_vr"]


@dataclass(frozen=True, slots=True)
class Canary:
    """One planted value: the kind of place, the tags that lead to it, and what would show it.

    ``path`` names a place in the file where no tags lead to one, such as "preamble". ``raw`` is
    the value as it stands in the file.
    """

    place: str
    path: str
    vr: str
    raw: bytes = field(repr=False)
    forms: tuple[bytes, ...] = field(repr=False)


def planted_vr(tag: int) -> str:
    """Give the VR in which a value is planted: the dictionary's first, LO where it knows none."""
    try:
        vr = dictionary_VR(tag)
    except KeyError:
        return "LO"
    return "OW" if vr.endswith("or OW") else vr.split(" or ")[0]


@dataclass
class Planting:
    """A dataset of one encoding, and what has been planted in it so far."""

    dataset: Dataset
    mint: Mint
    implicit: bool = False
    little_endian: bool = True
    canaries: list[Canary] = field(default_factory=list)
    path: tuple[int, ...] = ()

    def note(self, place: str, path: str, vr: str, value: Value) -> None:
        """Add to the answer key what was planted."""
        self.canaries.append(Canary(place, path, vr, value.raw, value.forms))

    def into(self, dataset: Dataset, *path: int) -> Planting:
        """Give the same planting for an item below the tags ``path``."""
        return Planting(
            dataset,
            self.mint,
            self.implicit,
            self.little_endian,
            self.canaries,
            (*self.path, *path),
        )

    def plant(
        self, place: str, tag: int, vr: str | None = None, value: Value | None = None
    ) -> None:
        """Set the element ``tag`` to a value of its VR; a sequence gets an item with a text."""
        vr = vr or planted_vr(tag)
        if vr == "SQ":
            item = Dataset()
            self.into(item, tag).plant(place, 0x0040A160)
            self.append(tag, item)
            return
        value = value or self.mint.of(vr, little_endian=self.little_endian)
        self.set_raw(tag, vr, value.raw)
        self.note(place, self.path_of(tag), vr, value)

    def number(self, number: int, size: int = 2) -> bytes:
        """Give an unsigned number as this encoding stores it."""
        return number.to_bytes(size, "little" if self.little_endian else "big")

    def path_of(self, tag: int) -> str:
        """Give the tags that lead to an element: "0040,0275/0008,0050"."""
        return "/".join(map(_written, (*self.path, tag)))

    def set_raw(self, tag: int, vr: str, raw: bytes) -> None:
        """Set an element to bytes, padded to an even length, as a reader would have found it.

        What was planted there before leaves the answer key; note what ``raw`` holds afterwards.
        """
        self._forget(tag)
        padding = b"\0" if vr in ("UI", "OB", "UN") else b" "
        raw += padding * (len(raw) % 2)
        stored = None if self.implicit else vr
        self.dataset[tag] = RawDataElement(
            Tag(tag), stored, len(raw), raw, 0, self.implicit, self.little_endian
        )

    def append(self, tag: int, item: Dataset) -> None:
        """Add an item to a sequence, which may be there already; as UN it is replaced."""
        there = self.dataset.get_item(tag) if tag in self.dataset else None
        if there is None or there.VR == "SQ":
            items = list(self.dataset[tag].value) if there is not None else []
        else:
            items = []
        self.dataset[tag] = DataElement(tag, "SQ", Sequence([*items, item]))

    def _forget(self, tag: int) -> None:
        gone = self.path_of(tag)
        self.canaries[:] = [
            canary
            for canary in self.canaries
            if canary.path != gone and not canary.path.startswith(f"{gone}/")
        ]


Place = Callable[[Planting], None]


def _written(tag: int) -> str:
    return f"{tag >> 16:04X},{tag & 0xFFFF:04X}"
