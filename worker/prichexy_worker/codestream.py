"""Compressed frames as bytes: the size that they announce, and JPEG decoded at arm's length."""

from __future__ import annotations

import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from prichexy_worker.layout import Layout

__all__ = ["Announced", "announced", "decode_jpeg"]

#: JPEG's SOF0 to SOF15 (without DHT, JPG, DAC, which share the range) and JPEG-LS's SOF55.
_START_OF_FRAME: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
_CHILD: Final = Path(__file__).with_name("gdcm_child.py")
_CHILD_SECONDS: Final = 120


@dataclass(frozen=True, slots=True)
class Announced:
    """What a codestream says about its own image. Decoders allocate by it, not by the header."""

    rows: int
    columns: int
    components: int
    precision: int


def announced(frame: bytes) -> Announced | None:
    """Give what a JPEG, JPEG-LS or JPEG 2000 codestream announces; None where it is none."""
    if frame[:4] == b"\xff\x4f\xff\x51":  # JPEG 2000: SOC, SIZ
        if len(frame) < 43:
            return None
        width, height, left, top = struct.unpack(">4I", frame[8:24])
        components, depth = struct.unpack(">HB", frame[40:43])
        return Announced(height - top, width - left, components, (depth & 0x7F) + 1)
    if frame[:2] != b"\xff\xd8":  # JPEG and JPEG-LS: SOI
        return None
    position = 2
    while position + 10 <= len(frame) and frame[position] == 0xFF:
        marker = frame[position + 1]
        if marker in _START_OF_FRAME:
            precision, rows, columns, components = struct.unpack(
                ">BHHB", frame[position + 4 : position + 10]
            )
            return Announced(rows, columns, components, precision)
        if marker == 0xFF:  # a fill byte before the marker
            position += 1
        else:
            position += 2 + int.from_bytes(frame[position + 2 : position + 4], "big")
    return None


def decode_jpeg(frame: bytes, layout: Layout) -> NDArray[Any]:
    """Decode a grey JPEG of any process with GDCM: (rows, columns), in the codestream's own depth.

    GDCM runs in a process of its own (about 0.1 s), as damaged frames can end it. Raises
    ValueError when it gives no image of the layout's size, without a word of what it said.
    """
    header = announced(frame)
    if header is None or not 8 <= header.precision <= 16:
        raise ValueError("no JPEG of 8 to 16 bits")
    # Lossy 12-bit frames may hold fewer stored bits than their precision: GDCM needs the latter.
    allocated = 8 if header.precision == 8 else 16
    sign = int(layout.signed)
    numbers = (layout.rows, layout.columns, allocated, header.precision, sign)
    command = [sys.executable, "-I", str(_CHILD), str(layout.syntax), *map(str, numbers)]
    try:
        child = subprocess.run(
            command,
            input=frame,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_CHILD_SECONDS,
            check=True,
        )
    except subprocess.SubprocessError:
        raise ValueError("GDCM gave up") from None
    dtype = np.dtype(f"<{'i' if layout.signed else 'u'}{allocated // 8}")
    if len(child.stdout) != layout.rows * layout.columns * dtype.itemsize:
        raise ValueError("GDCM gave another size")
    return np.frombuffer(child.stdout, dtype=dtype).reshape(layout.rows, layout.columns)
