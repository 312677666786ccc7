"""Decodes one compressed frame and nothing else: run as a process of its own, never imported.

    python -I frame_child.py MEMORY SECONDS SYNTAX ROWS COLUMNS BITS_ALLOCATED BITS_STORED SIGNED

with the frame on standard input and the pixels, little endian, on standard output. MEMORY is in
bytes, SECONDS are of the processor: both end this process, also when nobody is left to end it.

Codecs end the process, ask for all memory or never come back on some damaged frames; here that
costs a process and not the worker with its model. Nothing of numpy or pydicom is imported that the
codec does not need: it has to start in a moment.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

__all__: list[str] = []

_RLE = "1.2.840.10008.1.2.5"
_JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
_JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")


def main() -> None:
    """Read a frame from standard input, write its pixels to standard output."""
    memory, seconds = int(sys.argv[1]), int(sys.argv[2])
    bound(memory, seconds)
    syntax, *numbers = sys.argv[3:]
    sys.stdout.buffer.write(decoded(syntax, sys.stdin.buffer.read(), *map(int, numbers)))


def bound(memory: int, seconds: int) -> None:
    """Let this process have so much and no more, and leave no memory behind in a file."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    # SIGXCPU a second before SIGKILL, so that the parent knows that one from the machine's.
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    # Where the whole machine runs out of memory, this is what has to go.
    Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def decoded(
    syntax: str, frame: bytes, rows: int, columns: int, allocated: int, stored: int, signed: int
) -> bytes:
    """Give the pixels as their codec gives them."""
    if syntax == _RLE:
        from rle.rle import decode_frame  # type: ignore  # noqa: PLC0415

        return bytes(decode_frame(frame, rows * columns, allocated, "<"))
    if syntax in _JPEG_LS:
        import jpeg_ls  # type: ignore[import-untyped]  # noqa: PLC0415

        return bytes(jpeg_ls.decode_pixel_data(frame)[0])
    if syntax in _JPEG_2000:
        import openjpeg.utils  # noqa: PLC0415

        return bytes(openjpeg.utils.decode_pixel_data(frame, version=2))
    return _decoded_by_gdcm(syntax, frame, rows, columns, allocated, stored, signed)


def _decoded_by_gdcm(
    syntax: str, frame: bytes, rows: int, columns: int, allocated: int, stored: int, signed: int
) -> bytes:
    import gdcm  # type: ignore[import-untyped]  # noqa: PLC0415

    for off in (gdcm.Trace.WarningOff, gdcm.Trace.ErrorOff, gdcm.Trace.DebugOff):
        off()
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(frame)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((columns, rows, 1))
    image.SetDataElement(element)
    grey = gdcm.PhotometricInterpretation.GetPIType("MONOCHROME2")
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(grey))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(syntax)))
    image.SetPixelFormat(gdcm.PixelFormat(1, allocated, stored, stored - 1, signed))
    # GDCM gives char* as str.
    pixels: bytes = image.GetBuffer().encode("utf-8", "surrogateescape")
    return pixels


if __name__ == "__main__":
    main()
