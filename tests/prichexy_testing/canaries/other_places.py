"""Values in the places that a table of attributes does not reach."""

from __future__ import annotations

import struct
from typing import Final

import numpy as np
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from prichexy_testing.canaries.mint import Value
from prichexy_testing.canaries.planting import Place, Planting

__all__ = ["EXPLICIT_ONLY", "PLACES"]


def private(planting: Planting) -> None:
    """Plant in private blocks: creator, text, bytes, UID, a sequence with a block of its own."""
    planting.plant("private", 0x00090010, "LO")
    for number, vr in enumerate(("LO", "PN", "DA", "UI", "UN", "OB", "UT")):
        planting.plant("private", 0x00091001 + number, vr)
    planting.plant("private", 0x00E1_1050, "LT")  # no creator reserves it
    planting.plant("private", 0x7FE3_0010, "LO")
    planting.plant("private", 0x7FE3_1001, "OB")
    if not planting.implicit:
        item = Dataset()
        inner = planting.into(item, 0x00091020)
        inner.plant("private", 0x00290010, "LO")
        inner.plant("private", 0x00291001, "ST")
        planting.append(0x00091020, item)


def overlay(planting: Planting) -> None:
    """Plant in overlay planes of groups 6000 and 601E: data, comments, label, description."""
    for group in (0x60000000, 0x601E0000):
        _overlay_plane(planting, group)
        for element, vr in ((0x3000, "OW"), (0x4000, "LT"), (0x1500, "LO"), (0x0022, "LO")):
            planting.plant("overlay 60xx", group | element, vr)


def curve(planting: Planting) -> None:
    """Plant in retired curves of group 5000."""
    for tag, vr in ((0x50003000, "OW"), (0x50000022, "LO"), (0x50002500, "LO"), (0x50200040, "SH")):
        planting.plant("curve 50xx", tag, vr)


def icon(planting: Planting) -> None:
    """Plant in an icon image's pixels and palette."""
    item = Dataset()
    item.SamplesPerPixel, item.PhotometricInterpretation = 1, "MONOCHROME2"
    item.Rows, item.Columns, item.BitsAllocated, item.BitsStored, item.HighBit = 8, 8, 8, 8, 7
    item.PixelRepresentation = 0
    inside = planting.into(item, 0x00880200)
    inside.plant("icon image", 0x7FE00010, "OB")
    inside.plant("icon image", 0x00281201, "OW")
    planting.append(0x00880200, item)


def signature(planting: Planting) -> None:
    """Plant in digital signatures and their certificates."""
    parameters = Dataset()
    planting.into(parameters, 0x4FFE0001).plant("digital signature", 0x04000015, "CS")
    planting.append(0x4FFE0001, parameters)
    item = Dataset()
    inside = planting.into(item, 0xFFFAFFFA)
    for tag in (0x04000100, 0x04000105, 0x04000110, 0x04000115, 0x04000120, 0x04000310):
        inside.plant("digital signature", tag)
    planting.append(0xFFFAFFFA, item)


def encrypted(planting: Planting) -> None:
    """Plant in encrypted attributes, of which nobody without a key can say what they hold."""
    item = Dataset()
    inside = planting.into(item, 0x04000500)
    inside.plant("encrypted attributes", 0x04000520, "OB")
    inside.plant("encrypted attributes", 0x04000510, "UI")
    planting.append(0x04000500, item)


def original_attributes(planting: Planting) -> None:
    """Plant in the record of what an earlier program changed."""
    item, modified = Dataset(), Dataset()
    inside = planting.into(item, 0x04000561)
    for tag in (0x04000562, 0x04000563, 0x04000564, 0x04000565):
        inside.plant("original attributes", tag)
    deep = inside.into(modified, 0x04000550)
    for tag in (0x00100010, 0x00100020, 0x00100030, 0x00080050, 0x00080080):
        deep.plant("original attributes", tag)
    inside.append(0x04000550, modified)
    planting.append(0x04000561, item)


def unknown_standard(planting: Planting) -> None:
    """Plant in even groups, in elements that no edition of the dictionary names."""
    for tag, vr in (
        (0x00081F01, "LO"),
        (0x00101F02, "PN"),
        (0x00181F03, "UN"),
        (0x00281F04, "OB"),
        (0x00421F05, "ST"),
        (0x7FDE1001, "UT"),
    ):
        planting.plant("unknown standard element", tag, "UN" if planting.implicit else vr)


def coded(planting: Planting) -> None:
    """Plant free text in attributes that hold codes."""
    place = "free text in a coded attribute"
    mint = planting.mint
    value = mint.text("ORIGINAL\\PRIMARY\\")
    planting.plant(place, 0x00080008, "CS", value)
    for tag in (0x00185101, 0x00200020, 0x00200060, 0x00280040, 0x00181260, 0x00181160, 0x00181166):
        planting.plant(place, tag, "CS")
    planting.plant(place, 0x00281054, "LO")  # Rescale Type
    planting.plant(place, 0x00280A04, "LO")  # Pixel Spacing Calibration Description
    planting.plant(place, 0x00281055, "LO")  # Window Center & Width Explanation
    for sequence in (0x00081032, 0x00400260, 0x00540220, 0x00089215):
        item = Dataset()
        inside = planting.into(item, sequence)
        inside.plant(place, 0x00080100, "SH")
        inside.plant(place, 0x00080102, "SH")
        inside.plant(place, 0x00080104, "LO")
        planting.append(sequence, item)
        # A published code that a list may keep, with a meaning of the sender's own.
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator = "272479007", "SCT"
        inside = planting.into(item, sequence)
        inside.plant(place, 0x00080104, "LO")
        inside.plant(place, 0x00080119, "UC")
        inside.plant(place, 0x00080120, "UR")
        planting.append(sequence, item)


def multi_valued(planting: Planting) -> None:
    """Plant three values in one element."""
    mint = planting.mint
    for tag, vr in (
        (0x00101000, "LO"),
        (0x00101001, "PN"),
        (0x00081060, "PN"),
        (0x00080201, "SH"),
        (0x00181012, "DA"),
        (0x00081155, "UI"),
        (0x00181400, "LO"),
    ):
        values = [mint.of(vr) for _ in range(3)]
        planting.set_raw(tag, vr, b"\\".join(value.raw for value in values))
        for value in values:
            planting.note("multi-valued element", planting.path_of(tag), vr, value)


def very_long(planting: Planting) -> None:
    """Plant at the beginning, in the middle and at the end of values of greatest length."""
    mint = planting.mint
    place = "very long value"
    for tag, vr, length in (
        (0x0040A160, "UT", 1 << 20),
        (0x00104000, "LT", 10240),
        (0x00102180, "SH", 60_000 if not planting.implicit else 1 << 17),
        (0x00080081, "ST", 1024),
    ):
        words = [mint.text(" ", " ") for _ in range(3)]
        filling = b"x y " * ((length - 40) // 8)
        planting.set_raw(tag, vr, filling.join(word.raw for word in words))
        for word in words:
            planting.note(place, planting.path_of(tag), vr, word)
    groups = [[mint.word() for _ in range(5)] for _ in range(3)]
    # 64 characters in each group, the most that a name may have (PS3.5 table 6.2-1).
    written = ("^".join(word.ljust(12, "X") for word in group)[:64] for group in groups)
    planting.set_raw(0x00101005, "PN", "=".join(written).encode())
    for part in (part for group in groups for part in group):
        shown = Value(part.encode(), (part.lower().encode(),))
        planting.note(place, planting.path_of(0x00101005), "PN", shown)


def lookup_tables(planting: Planting) -> None:
    """Plant in explanations of lookup tables, and text in the place of a table's entries."""
    place = "lookup table"
    item = Dataset()
    inside = planting.into(item, 0x00283010)
    value = planting.mint.text("text as table ", "")
    entries = np.frombuffer(value.raw + b" " * (len(value.raw) % 2), "<u2")
    item.add(DataElement(0x00283002, "US", [len(entries), 0, 16]))
    inside.plant(place, 0x00283006, "OW", value)
    inside.plant(place, 0x00283003, "LO")
    planting.append(0x00283010, item)
    item = Dataset()
    item.add(DataElement(0x00283002, "US", [256, 0, 8]))
    item.add(DataElement(0x00283006, "OW", np.arange(256, dtype="<u2").tobytes()))
    planting.into(item, 0x00283010).plant(place, 0x00283003, "LO")
    planting.append(0x00283010, item)


def sequences_as_unknown(planting: Planting) -> None:
    """Plant in sequences of the standard that are encoded as UN, in both ways that are found."""
    for implicit, tags in ((True, (0x00400008, 0x00540414)), (False, (0x00081115, 0x00400100))):
        place = f"sequence as UN, {'implicit' if implicit else 'explicit'} VR"
        for tag in tags:
            texts = ((0x00080104, "LO"), (0x00100010, "PN"), (0x00100020, "LO"))
            values = [planting.mint.of(vr) for _, vr in texts]
            content = b"".join(
                _encoded(inner, vr, value.raw, implicit=implicit)
                for (inner, vr), value in zip(texts, values, strict=True)
            )
            planting.set_raw(tag, "UN", struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content)
            for (inner, vr), value in zip(texts, values, strict=True):
                planting.note(place, planting.into(Dataset(), tag).path_of(inner), vr, value)


def _encoded(tag: int, vr: str, raw: bytes, *, implicit: bool) -> bytes:
    raw += b" " * (len(raw) % 2)
    start = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    if implicit:
        return start + struct.pack("<I", len(raw)) + raw
    return start + vr.encode() + struct.pack("<H", len(raw)) + raw


def _overlay_plane(planting: Planting, group: int) -> None:
    for element, number in ((0x0010, 64), (0x0011, 64), (0x0100, 1), (0x0102, 0)):
        planting.set_raw(group | element, "US", planting.number(number))
    planting.set_raw(group | 0x0040, "CS", b"G")


#: By name. Sequences in here are written by pydicom in the file's own encoding.
PLACES: Final[dict[str, Place]] = {
    "private": private,
    "overlay": overlay,
    "curve": curve,
    "icon": icon,
    "signature": signature,
    "encrypted": encrypted,
    "original attributes": original_attributes,
    "unknown standard": unknown_standard,
    "coded": coded,
    "multi-valued": multi_valued,
    "lookup tables": lookup_tables,
    "very long": very_long,
    "sequences as UN": sequences_as_unknown,
}
#: A file in Implicit VR cannot say UN.
EXPLICIT_ONLY: Final = frozenset({"sequences as UN"})
