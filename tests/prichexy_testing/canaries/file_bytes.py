"""From a planted dataset to a file, with values where only bytes can be: around the elements."""

from __future__ import annotations

import struct
import warnings
import zlib
from typing import Final

import numpy as np
from pydicom import config, uid
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element, write_file_meta_info

from prichexy_testing.canaries.mint import Value
from prichexy_testing.canaries.planting import Planting, planted_vr

__all__ = ["duplicates", "file_of", "out_of_order", "trailing_bytes", "trailing_padding"]

_LONG: Final = frozenset(
    {"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"}
)


def file_of(planting: Planting, syntax: str, *, behind: bytes = b"", after: bytes = b"") -> bytes:
    """Give the file: preamble, file meta and a command group with planted values, then the dataset.

    ``behind`` are encoded elements after the last, ``after`` bytes behind the data set.
    """
    preamble = planting.mint.text("preamble of ", "")
    planting.note("preamble", "preamble", "OB", preamble)
    meta = _meta(planting, syntax)
    with config.disable_value_validation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _order_pixels(planting)
        body = _dataset(planting, planting.dataset)
    content = _command(planting) + body + behind + after
    if syntax == uid.DeflatedExplicitVRLittleEndian:
        deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        content = deflater.compress(content) + deflater.flush()
        content += b"\0" * (len(content) % 2)
    return preamble.raw.ljust(128, b"\0") + b"DICM" + meta + content


def duplicates(planting: Planting) -> bytes:
    """Give second elements of tags that the data set holds already, each with another value."""
    return b"".join(
        _planted(planting, "duplicate element", tag, vr)
        for tag, vr in ((0x00100010, "PN"), (0x00100020, "LO"), (0x00080050, "SH"))
    )


def out_of_order(planting: Planting) -> bytes:
    """Give elements whose tags are lower than the pixel data's, behind it."""
    return b"".join(
        _planted(planting, "out-of-order element", tag, vr)
        for tag, vr in ((0x00102154, "SH"), (0x00084000, "LT"), (0x00091099, "LO"))
    )


def trailing_padding(planting: Planting) -> bytes:
    """Give Data Set Trailing Padding with text in it."""
    return _planted(planting, "data set trailing padding", 0xFFFCFFFC, "OB")


def trailing_bytes(planting: Planting) -> bytes:
    """Give bytes that are no element."""
    value = planting.mint.text("", " after the data set")
    planting.note("after the data set", "trailing bytes", "OB", value)
    return value.raw


def _dataset(planting: Planting, dataset: Dataset) -> bytes:
    """Encode a data set without a look at its values: pydicom would write some of them anew."""
    written = DicomBytesIO()
    written.is_implicit_VR, written.is_little_endian = planting.implicit, planting.little_endian
    for tag in sorted(dataset.keys()):
        element = dataset.get_item(tag)
        if (
            isinstance(element, RawDataElement)
            and element.VR != "SQ"
            and element.is_little_endian == planting.little_endian
        ):
            vr = element.VR or planted_vr(tag)
            written.write(_element(planting, tag, vr, element.value or b""))
            continue
        element = dataset[tag]
        if element.VR == "SQ":
            items = b"".join(_item(planting, item) for item in element.value)
            written.write(_element(planting, tag, "SQ", items))
        else:
            write_data_element(written, element)
    return written.getvalue()


def _item(planting: Planting, item: Dataset) -> bytes:
    content = _dataset(planting, item)
    order = "<" if planting.little_endian else ">"
    return struct.pack(order + "HHI", 0xFFFE, 0xE000, len(content)) + content


def _planted(planting: Planting, place: str, tag: int, vr: str) -> bytes:
    value = planting.mint.of(vr)
    planting.note(place, f"{tag >> 16:04X},{tag & 0xFFFF:04X}", vr, value)
    return _element(planting, tag, vr, value.raw)


def _element(planting: Planting, tag: int, vr: str, raw: bytes) -> bytes:
    raw += b" " * (len(raw) % 2)
    order = "<" if planting.little_endian else ">"
    head = struct.pack(order + "HH", tag >> 16, tag & 0xFFFF)
    if planting.implicit:
        return head + struct.pack(order + "I", len(raw)) + raw
    if vr in _LONG:
        return head + vr.encode() + b"\0\0" + struct.pack(order + "I", len(raw)) + raw
    return head + vr.encode() + struct.pack(order + "H", len(raw)) + raw


def _meta(planting: Planting, syntax: str) -> bytes:
    dataset, mint = planting.dataset, planting.mint
    meta = FileMetaDataset()
    planted: dict[int, tuple[str, Value]] = {
        0x00020012: ("UI", mint.of("UI")),
        0x00020013: ("SH", mint.of("SH")),
        0x00020016: ("AE", mint.of("AE")),
        0x00020017: ("AE", mint.of("AE")),
        0x00020018: ("AE", mint.of("AE")),
        0x00020100: ("UI", mint.of("UI")),
        0x00020102: ("OB", mint.of("OB")),
    }
    for tag, (vr, value) in planted.items():
        planting.note("file meta", f"{tag >> 16:04X},{tag & 0xFFFF:04X}", vr, value)
        raw = value.raw + b"\0" * (len(value.raw) % 2)
        meta[tag] = DataElement(tag, vr, raw if vr == "OB" else value.raw.decode())
    meta.FileMetaInformationVersion = b"\0\1"
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    uids = [c for c in planting.canaries if c.path == "0008,0018"]
    instance = Value(uids[-1].raw, uids[-1].forms)
    planting.note("file meta", "0002,0003", "UI", instance)
    meta.MediaStorageSOPInstanceUID = uid.UID(instance.raw.decode())
    meta.TransferSyntaxUID = uid.UID(syntax)
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = False, True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_file_meta_info(buffer, meta, enforce_standard=True)
    return buffer.getvalue()


def _command(planting: Planting) -> bytes:
    """Give elements of a command group, which some archives leave in files (PS3.7: implicit)."""
    if not planting.little_endian or not planting.implicit:
        return b""
    content = b""
    for tag in (0x00001000, 0x00001001):
        value = planting.mint.of("UI")
        planting.note("command group", f"{tag >> 16:04X},{tag & 0xFFFF:04X}", "UI", value)
        raw = value.raw + b"\0" * (len(value.raw) % 2)
        content += struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(raw)) + raw
    return content


def _order_pixels(planting: Planting) -> None:
    """Turn native 16-bit pixels to the file's byte order; they are little endian until here."""
    element = planting.dataset[0x7FE00010]
    if planting.little_endian or element.VR != "OW":
        return
    swapped = np.frombuffer(element.value, "<u2").astype(">u2").tobytes()
    planting.dataset[0x7FE00010] = DataElement(0x7FE00010, "OW", swapped)
