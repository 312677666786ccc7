"""A plugin of pydicom's decoders that has the codec run at arm's length; see ``codestream``.

All that pydicom does before and after a codec stays pydicom's: the frame's bytes, the container of
the result, and a sign that header and codestream disagree on.
"""

from __future__ import annotations

from functools import cache
from typing import Final

from pydicom import uid
from pydicom.pixels.decoders.base import Decoder, DecodeRunner

from prichexy_worker.codestream import announced, at_arms_length

__all__ = ["DECODER_DEPENDENCIES", "LABEL", "decode_frame", "decoder_for", "is_available"]

LABEL: Final = "child"
#: pydicom asks each plugin for this.
DECODER_DEPENDENCIES: Final[dict[uid.UID, tuple[str, ...]]] = {
    uid.RLELossless: ("pylibjpeg-rle",),
    uid.JPEGLSLossless: ("pyjpegls",),
    uid.JPEGLSNearLossless: ("pyjpegls",),
    uid.JPEG2000Lossless: ("pylibjpeg-openjpeg",),
    uid.JPEG2000: ("pylibjpeg-openjpeg",),
}


def is_available(syntax: str) -> bool:
    """Say whether this plugin is for a transfer syntax; pydicom asks."""
    return syntax in DECODER_DEPENDENCIES


@cache
def decoder_for(syntax: uid.UID) -> Decoder:
    """Give a decoder of pydicom's that has this plugin, called LABEL, and no other."""
    decoder = Decoder(syntax)
    decoder.add_plugin(LABEL, (__name__, decode_frame.__name__))
    return decoder


def decode_frame(frame: bytes, runner: DecodeRunner) -> bytearray:
    """Give the pixels of a grey frame. Raises ValueError when the codec gave nothing."""
    content = at_arms_length(
        frame,
        syntax=runner.transfer_syntax,
        rows=runner.rows,
        columns=runner.columns,
        bits_allocated=runner.bits_allocated,
        bits_stored=runner.bits_stored,
        signed=bool(runner.pixel_representation),
    )
    header = announced(frame)
    if header is not None:  # JPEG-LS and JPEG 2000 choose the container by their own precision
        runner.set_option("bits_allocated", 8 if header.precision <= 8 else 16)
    return bytearray(content)
