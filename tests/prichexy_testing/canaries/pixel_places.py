"""Values within pixel data: above the stored bits, after the last pixel, beside a codestream."""

from __future__ import annotations

from typing import Final

import numpy as np
from pydicom import uid
from pydicom.dataelem import DataElement
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders.base import get_encoder

from prichexy_testing.canaries.mint import Value
from prichexy_testing.canaries.planting import Planting

__all__ = ["after_the_last_pixel", "beside_the_codestream", "in_unused_bits"]

_PIXEL_DATA: Final = 0x7FE00010
_ENCODERS: Final = {
    uid.RLELossless: "pydicom",
    uid.JPEGLSLossless: "pyjpegls",
    uid.JPEG2000Lossless: "pylibjpeg",
}


def in_unused_bits(planting: Planting) -> None:
    """Plant a text in each bit above BitsStored; call the lowest of them an overlay."""
    dataset = planting.dataset
    stored, allocated = dataset.BitsStored, dataset.BitsAllocated
    if allocated != 16 or dataset.HighBit != stored - 1:
        return
    words = np.frombuffer(dataset.PixelData, "<u2").copy()
    words &= np.uint16((1 << stored) - 1)
    for bit in range(stored, allocated):
        value = planting.mint.text("bits of ", " here")
        place = "overlay in pixel bits" if bit == stored else "unused high bits"
        planting.note(place, "7FE0,0010", "OW", value)
        bits = np.unpackbits(np.frombuffer(value.raw, "u1"), bitorder="little")
        words[: bits.size] |= bits.astype("<u2") << np.uint16(bit)
    _set(planting, words.tobytes())
    numbers = ((0x0010, dataset.Rows), (0x0011, dataset.Columns), (0x0100, 16), (0x0102, stored))
    for element, number in numbers if stored < allocated else ():
        planting.set_raw(0x60020000 | element, "US", planting.number(int(number)))
    if stored < allocated:
        planting.set_raw(0x60020040, "CS", b"G")


def after_the_last_pixel(planting: Planting) -> None:
    """Plant in bytes of the pixel data's value that no pixel uses."""
    value = planting.mint.text("after the last pixel ", "")
    planting.note("after the last pixel", "7FE0,0010", "OW", value)
    _set(planting, planting.dataset.PixelData + value.raw + b" " * (len(value.raw) % 2))


def beside_the_codestream(planting: Planting, syntax: str) -> None:
    """Compress the image; plant in the codestream's comment, after its end and in a second item."""
    dataset, mint = planting.dataset, planting.mint
    if dataset.BitsAllocated == 16 and dataset.BitsStored <= 8:
        # Encoders choose the container by the stored bits.
        dataset.BitsAllocated = 8
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype("u1").tobytes()
    size = dataset.Rows * dataset.Columns * dataset.BitsAllocated // 8
    frame = get_encoder(uid.UID(syntax)).encode(
        dataset.PixelData[:size],
        encoding_plugin=_ENCODERS[uid.UID(syntax)],
        rows=dataset.Rows,
        columns=dataset.Columns,
        samples_per_pixel=1,
        number_of_frames=1,
        bits_allocated=dataset.BitsAllocated,
        bits_stored=dataset.BitsStored,
        pixel_representation=dataset.PixelRepresentation,
        photometric_interpretation="MONOCHROME2",
    )
    end = mint.text("after the end ", "")
    planting.note("after the last pixel", "7FE0,0010", "OB", end)
    if syntax != uid.RLELossless:
        comment = mint.text("comment ", "")
        planting.note("comment of a codestream", "7FE0,0010", "OB", comment)
        frame = _with_comment(frame, syntax, comment)
    element = DataElement(_PIXEL_DATA, "OB", encapsulate([frame + end.raw]))
    element.is_undefined_length = True
    dataset[_PIXEL_DATA] = element


def _with_comment(frame: bytes, syntax: str, comment: Value) -> bytes:
    if syntax == uid.JPEGLSLossless:
        segment = b"\xff\xfe" + (len(comment.raw) + 2).to_bytes(2, "big") + comment.raw
        return frame[:2] + segment + frame[2:]
    # JPEG 2000: anywhere in the main header after SIZ; Rcom 1 says Latin text.
    before = frame.index(b"\xff\x52")
    segment = b"\xff\x64" + (len(comment.raw) + 4).to_bytes(2, "big") + b"\0\1" + comment.raw
    return frame[:before] + segment + frame[before:]


def _set(planting: Planting, content: bytes) -> None:
    vr = "OW" if planting.dataset.BitsAllocated == 16 else "OB"
    planting.dataset[_PIXEL_DATA] = DataElement(_PIXEL_DATA, vr, content)
