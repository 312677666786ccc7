"""The stored pixels of one radiograph, out of a dataset and back into one.

What is stored is kept as it is: no rescale, no window, no change of depth or sign. What a header
claims is checked before a decoder sees a byte, because a decoder believes it.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.encoders.base import get_encoder

from prichexy_worker.codestream import Starved, announced, decode_jpeg
from prichexy_worker.contract import Reason
from prichexy_worker.errors import Rejected, Retryable
from prichexy_worker.frame_plugin import LABEL, decoder_for
from prichexy_worker.layout import Layout, integer, read_layout
from prichexy_worker.quiet import without_noise

__all__ = [
    "MOST_PADDING",
    "Radiograph",
    "Syntax",
    "decode",
    "refuse_padding",
    "with_pixels",
]

#: The greatest share of an image that may be padding. Collimators and turned images leave a third
#: or so; of the anatomy, which fills most of a chest radiograph, padding must not hide much.
MOST_PADDING: Final = 0.5

Values = NDArray[np.integer[Any]]
Syntax = Literal["explicit-little-endian", "rle-lossless", "jpeg-ls-lossless"]

_PIXEL_DATA: Final = 0x7FE00010
_SYNTAXES: Final[dict[str, tuple[uid.UID, str]]] = {
    "explicit-little-endian": (uid.ExplicitVRLittleEndian, ""),
    "rle-lossless": (uid.RLELossless, "pylibjpeg"),
    "jpeg-ls-lossless": (uid.JPEGLSLossless, "pyjpegls"),
}
#: Which decoder reads which syntax; the first that succeeds. Codecs run at arm's length: a damaged
#: frame may end them, fill all memory or keep them for ever. GDCM only where there is no other of a
#: fitting licence.
_DECODERS: Final[dict[str, tuple[str, ...]]] = {
    uid.ImplicitVRLittleEndian: ("",),
    uid.ExplicitVRLittleEndian: ("",),
    uid.DeflatedExplicitVRLittleEndian: ("",),
    uid.ExplicitVRBigEndian: ("",),
    uid.RLELossless: (LABEL, "pydicom"),
    uid.JPEGBaseline8Bit: ("gdcm",),
    uid.JPEGExtended12Bit: ("gdcm",),
    uid.JPEGLossless: ("gdcm",),
    uid.JPEGLosslessSV1: ("gdcm",),
    uid.JPEGLSLossless: (LABEL,),
    uid.JPEGLSNearLossless: (LABEL,),
    uid.JPEG2000Lossless: (LABEL,),
    uid.JPEG2000: (LABEL,),
}
#: A lossy codec may overshoot BitsStored by a few grey levels, which masking would turn into black.
_LOSSY: Final = frozenset(
    {
        uid.JPEGBaseline8Bit,
        uid.JPEGExtended12Bit,
        uid.JPEGLSNearLossless,
        uid.JPEG2000,
    }
)


@dataclass(frozen=True, slots=True, eq=False)
class Radiograph:
    """The stored values of one radiograph, and what is needed to tell image from padding.

    ``values`` (rows, columns) is uint8, int8, uint16 or int16 in this machine's byte order and
    read-only; each value fits ``bits_stored``, so nothing survives in unused high bits.
    ``padding`` is the inclusive range of stored values that stand for "no image here".
    """

    values: Values
    bits_stored: int
    inverted: bool = False
    padding: tuple[int, int] | None = None

    def padded(self) -> NDArray[np.bool_] | None:
        """Give where padding is, as (rows, columns); None where there is none at all."""
        if self.padding is None:
            return None
        low, high = self.padding
        mask = (self.values >= low) & (self.values <= high)
        return mask if mask.any() else None

    def content(self) -> bytes:
        """Give the values as the bytes that are stored, or coded: little endian, row by row."""
        size = 1 if self.bits_stored <= 8 else 2
        kind = f"<{self.values.dtype.kind}{size}"
        return self.values.astype(kind, copy=False).tobytes()


def decode(dataset: Dataset) -> Radiograph:
    """Decode the one grey frame of ``dataset``, which is not altered.

    Bytes after the last pixel and bits above BitsStored are left behind. Raises Rejected:
    NO_PIXEL_DATA, MULTI_FRAME, COLOUR, UNSUPPORTED_PIXELS, UNDECODABLE; its detail names a
    decoder's exception by class only, as their texts quote what they read. Raises Retryable
    (UNEXPECTED) when the machine left a codec no memory or time.
    """
    layout = read_layout(dataset)
    if layout.syntax not in _DECODERS:
        raise Rejected(Reason.UNSUPPORTED_PIXELS, "transfer syntax")
    content = bytes(dataset.PixelData)
    if layout.syntax.is_encapsulated:
        _check_codestream(content, layout)
    elif dataset["PixelData"].is_undefined_length:
        raise Rejected(Reason.UNDECODABLE, "encapsulated, but the transfer syntax is not")
    elif len(content) < layout.rows * layout.columns * layout.bits_allocated // 8:
        raise Rejected(Reason.UNDECODABLE, "fewer bytes than Rows x Columns")
    with without_noise():
        raw = _decode_frame(dataset, layout)
    if raw.shape != (layout.rows, layout.columns) or raw.dtype.kind not in "iu":
        raise Rejected(Reason.UNDECODABLE, "the decoded image is not Rows x Columns")
    values = _within_stored_bits(raw, layout)
    values.setflags(write=False)
    return Radiograph(
        values=values,
        bits_stored=layout.bits_stored,
        inverted=layout.inverted,
        padding=_padding(dataset, layout),
    )


def refuse_padding(radiograph: Radiograph) -> None:
    """Return when padding covers no more than ``MOST_PADDING`` of the image.

    Padding moves as a whole, without interpolation, and the generator sees it black: a header that
    calls the anatomy padding would have it released as good as unchanged. Raises Rejected
    UNSUPPORTED_PIXELS.
    """
    padded = radiograph.padded()
    if padded is not None and np.count_nonzero(padded) > MOST_PADDING * padded.size:
        raise Rejected(Reason.UNSUPPORTED_PIXELS, f"more than {MOST_PADDING:.0%} is padding")


def with_pixels(
    dataset: Dataset, radiograph: Radiograph, syntax: Syntax = "explicit-little-endian"
) -> Dataset:
    """Give a new dataset: ``dataset`` with these pixels and all attributes that describe them.

    PixelData holds exactly the image's bytes, padded to an even length. An image that ``syntax``
    would not make smaller stays uncompressed. ``dataset`` is not altered: its other elements are
    shared, its file meta is copied and names the new syntax.
    """
    transfer_syntax, plugin = _SYNTAXES[syntax]
    values, stored = radiograph.values, radiograph.bits_stored
    if plugin and stored <= 8:
        # Encoders choose the container by the stored bits, so the header must agree with them.
        values = values.astype(f"{values.dtype.kind}1", copy=False)
    frame = _encode_frame(values, stored, transfer_syntax, plugin) if plugin else None
    if frame is None:
        transfer_syntax = uid.ExplicitVRLittleEndian
        content = values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
        vr = "OB" if values.dtype.itemsize == 1 else "OW"
        element = DataElement(_PIXEL_DATA, vr, content + b"\0" * (len(content) % 2))
    else:
        element = DataElement(_PIXEL_DATA, "OB", encapsulate([frame]), is_undefined_length=True)
    description = {
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME1" if radiograph.inverted else "MONOCHROME2",
        "Rows": values.shape[0],
        "Columns": values.shape[1],
        "BitsAllocated": values.dtype.itemsize * 8,
        "BitsStored": stored,
        "HighBit": stored - 1,
        "PixelRepresentation": int(values.dtype.kind == "i"),
    }
    result = Dataset(dict(dataset.items()))
    for keyword in ("NumberOfFrames", "PlanarConfiguration", *description):
        # Setting an attribute that is there would write into the element shared with ``dataset``.
        result.pop(keyword, None)
    for keyword, value in description.items():
        setattr(result, keyword, value)
    result.add(element)
    result.file_meta = copy.deepcopy(getattr(dataset, "file_meta", FileMetaDataset()))
    result.file_meta.TransferSyntaxUID = transfer_syntax
    return result


def _padding(dataset: Dataset, layout: Layout) -> tuple[int, int] | None:
    """Give the padding range that stored values can reach, mended where its sign was mistaken."""
    ends = []
    for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
        if dataset.get(keyword) in (None, ""):
            continue
        value = integer(dataset, keyword)
        if layout.signed and value > layout.greatest:
            value -= 1 << layout.bits_allocated  # a negative value written as US
        elif not layout.signed and value < 0:
            value += 1 << layout.bits_allocated  # a large value written as SS
        if layout.least <= value <= layout.greatest:
            ends.append(value)
    if not ends or dataset.get("PixelPaddingValue") in (None, ""):
        return None
    return min(ends), max(ends)


def _decode_frame(dataset: Dataset, layout: Layout) -> NDArray[Any]:
    # pydicom's own correction of unused bits would wrap what a lossy codec overshoots.
    options: dict[str, Any] = {"correct_unused_bits": False}
    failure = ""
    for plugin in _DECODERS[layout.syntax]:
        try:
            if plugin == "gdcm":
                return decode_jpeg(get_frame(dataset.PixelData, 0, number_of_frames=1), layout)
            array: NDArray[Any]
            own = decoder_for if plugin == LABEL else get_decoder
            array, _ = own(layout.syntax).as_array(
                dataset, index=0, raw=True, decoding_plugin=plugin, **options
            )
        except (KeyboardInterrupt, SystemExit):
            raise
        except Starved as starved:
            raise Retryable(Reason.UNEXPECTED, str(starved)) from None
        except BaseException as error:  # noqa: BLE001 - decoders raise anything, with values in texts
            # A panic of one that is written in Rust is no Exception: it would end the worker.
            failure = type(error).__name__
        else:
            return array
    raise Rejected(Reason.UNDECODABLE, failure)


def _within_stored_bits(raw: NDArray[Any], layout: Layout) -> NDArray[Any]:
    """Give a copy of ``raw`` in the layout's type, with nothing left in unused high bits."""
    if layout.syntax in _LOSSY:
        clipped: NDArray[Any] = np.clip(raw, layout.least, layout.greatest)
        return clipped.astype(layout.dtype)
    values = raw.astype(layout.dtype)  # wraps, so that signed codestreams keep their bits
    spare = layout.bits_allocated - layout.bits_stored
    if spare:
        np.left_shift(values, spare, out=values)
        np.right_shift(values, spare, out=values)
    return values


def _encode_frame(
    values: NDArray[Any], stored: int, transfer_syntax: uid.UID, plugin: str
) -> bytes | None:
    """Encode without loss, or give None where the result would not be smaller."""
    rows, columns = values.shape
    if transfer_syntax == uid.JPEGLSLossless:
        # JPEG-LS knows no sign: the stored bits are what is coded.
        unsigned = np.dtype(f"u{values.dtype.itemsize}")
        values = values.view(unsigned) & unsigned.type((1 << stored) - 1)
    try:
        with without_noise():
            frame: bytes = get_encoder(transfer_syntax).encode(
                values.astype(values.dtype.newbyteorder("<"), copy=False),
                encoding_plugin=plugin,
                rows=rows,
                columns=columns,
                samples_per_pixel=1,
                number_of_frames=1,
                bits_allocated=values.dtype.itemsize * 8,
                bits_stored=stored,
                pixel_representation=int(values.dtype.kind == "i"),
                photometric_interpretation="MONOCHROME2",
            )
    except RuntimeError:  # CharLS, for what does not fit into the image's own size
        return None
    return frame if len(frame) < values.nbytes else None


def _check_codestream(content: bytes, layout: Layout) -> None:
    """Refuse a codestream that announces another size than the header: decoders allocate by it."""
    try:
        frame = get_frame(content, 0, number_of_frames=1)
    except Exception as error:  # noqa: BLE001 - a parser of hostile input; its texts quote it
        raise Rejected(Reason.UNDECODABLE, type(error).__name__) from None
    if layout.syntax == uid.RLELossless:
        return  # no size of its own; decoded into Rows x Columns
    header = announced(frame)
    expected = (layout.rows, layout.columns, 1)
    if header is None or (header.rows, header.columns, header.components) != expected:
        raise Rejected(Reason.UNDECODABLE, "the codestream is not Rows x Columns")
