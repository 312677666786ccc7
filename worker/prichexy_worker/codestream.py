"""Compressed frames as bytes: the size that they announce, and their decoding at arm's length."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from prichexy_worker.layout import Layout

__all__ = [
    "MOST_SECONDS",
    "Announced",
    "Starved",
    "announced",
    "at_arms_length",
    "decode_jpeg",
    "memory_for",
]

#: JPEG's SOF0 to SOF15 (without DHT, JPG, DAC, which share the range) and JPEG-LS's SOF55.
_START_OF_FRAME: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
_CHILD: Final = Path(__file__).with_name("frame_child.py")
#: Of the processor: some times what JPEG 2000 needs for the largest image that is taken in. It
#: holds for a child whose worker was killed meanwhile, too.
MOST_SECONDS: Final = 120
#: Of the clock on the wall: a codec waits for nothing but the processor.
_MOST_WAITED: Final = 240
_MEMORY: Final = 1 << 30
#: JPEG 2000 holds each pixel in 32 bits, twice while it transforms, and once in the result.
_MEMORY_OF_A_PIXEL: Final = 24


class Starved(BaseException):
    """The machine kept a codec from its end, by no fault of the frame.

    No Exception: pydicom takes any of those for the frame's fault.
    """


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

    Raises ValueError when it gives no image of the layout's size, without a word of what it said.
    """
    header = announced(frame)
    if header is None or not 8 <= header.precision <= 16:
        raise ValueError("no JPEG of 8 to 16 bits")
    # Lossy 12-bit frames may hold fewer stored bits than their precision: GDCM needs the latter.
    allocated = 8 if header.precision == 8 else 16
    content = at_arms_length(
        frame,
        syntax=layout.syntax,
        rows=layout.rows,
        columns=layout.columns,
        bits_allocated=allocated,
        bits_stored=header.precision,
        signed=layout.signed,
    )
    dtype = np.dtype(f"<{'i' if layout.signed else 'u'}{allocated // 8}")
    if len(content) != layout.rows * layout.columns * dtype.itemsize:
        raise ValueError("GDCM gave another size")
    return np.frombuffer(content, dtype=dtype).reshape(layout.rows, layout.columns)


def at_arms_length(
    frame: bytes,
    *,
    syntax: str,
    rows: int,
    columns: int,
    bits_allocated: int,
    bits_stored: int,
    signed: bool,
) -> bytes:
    """Give the pixels of a compressed frame, little endian, as its codec gives them.

    The codec runs in a process of its own (0.1 to 0.2 s), as a damaged frame can end it, fill all
    memory or never come back: it has MOST_SECONDS and ``memory_for`` the image. Raises ValueError
    when it gave nothing, without a word of what it said; Starved when it was killed from outside,
    as it is first where the machine has no memory left, or hardly came to run.
    """
    bounds = (memory_for(rows, columns), MOST_SECONDS)
    numbers = (rows, columns, bits_allocated, bits_stored, int(signed))
    command = [sys.executable, "-I", str(_CHILD), *map(str, (*bounds, syntax, *numbers))]
    try:
        child = subprocess.run(
            command,
            input=frame,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # A numeric library would reserve memory for each processor, out of the bound.
            env={**_environment(), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            timeout=_MOST_WAITED,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Starved("a codec hardly came to run") from None
    if child.returncode == -signal.SIGKILL:  # its own bounds end it otherwise
        raise Starved("a codec was killed from outside")
    if child.returncode:
        raise ValueError("the codec gave up")
    return child.stdout


def _environment() -> dict[str, str]:
    """Give this process's environment without our settings: passwords may be among them."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PRICHEXY_")}


def memory_for(rows: int, columns: int) -> int:
    """Give the bytes that the decoding of such an image may take, those of Python included."""
    return _MEMORY + _MEMORY_OF_A_PIXEL * rows * columns
