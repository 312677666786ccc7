"""Decodes one JPEG frame with GDCM and nothing else: run as a process of its own, never imported.

    python -I gdcm_child.py SYNTAX ROWS COLUMNS BITS_ALLOCATED BITS_STORED SIGNED < frame > pixels

GDCM ends the process, or reads beyond its memory, on some damaged frames; here that costs a
process and not the worker with its model. The pixels come in little endian.
"""

from __future__ import annotations

import sys

import gdcm  # type: ignore[import-untyped]

__all__: list[str] = []


def main() -> None:
    """Read a frame from standard input, write its pixels to standard output."""
    syntax, *numbers = sys.argv[1:]
    rows, columns, allocated, stored, signed = (int(number) for number in numbers)
    for off in (gdcm.Trace.WarningOff, gdcm.Trace.ErrorOff, gdcm.Trace.DebugOff):
        off()
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(sys.stdin.buffer.read())
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
    sys.stdout.buffer.write(image.GetBuffer().encode("utf-8", "surrogateescape"))


if __name__ == "__main__":
    main()
