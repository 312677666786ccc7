"""What an element of a dataset holds, read without altering the dataset and without a warning.

pydicom converts an element when it is looked at: it keeps the result in the dataset, and of a
value that does not fit its VR it warns with the value in the text. Neither may happen to a
patient's object, so this module reads the bytes as they came, for the few VRs that are kept.
An element whose own VR does not fit what the data dictionary says is treated as absent.
"""

from __future__ import annotations

import math
import re
import struct
import warnings
from collections.abc import Sequence
from typing import Any, Final

from pydicom.charset import convert_encodings, decode_bytes
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.values import convert_SQ

from prichexy_worker.contract import Reason
from prichexy_worker.errors import Rejected
from prichexy_worker.quiet import without_noise

__all__ = ["holds_a_value", "identifier", "items", "name", "numbers", "texts", "words"]

Number = int | float

_BINARY: Final = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d"}
_TEXTUAL: Final = frozenset(
    {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM"}
    | {"UC", "UI", "UR", "UT"}
    | {"UN"}  # a text's bytes are the same under it
)
#: The VR of an element of a file in Implicit VR, and of one whose writer did not know it.
_UNSAID: Final = (None, "UN")
_WORDS: Final = (*_UNSAID, "US", "SS", "OW", "US or OW", "US or SS or OW")
_DECIMAL: Final = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_DELIMITERS: Final = {0x0D, 0x0A, 0x09, 0x0C}
#: What pydicom raises over a malformed sequence.
_MALFORMED: Final = (
    EOFError,
    OSError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    NotImplementedError,
    RecursionError,
    struct.error,
)


def name(tag: int) -> str:
    """Give a tag as people read it: "(0010,0020)"."""
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def holds_a_value(dataset: Dataset, tag: int) -> bool:
    """Tell whether the element is there and not empty, of whatever VR."""
    element = _element(dataset, tag)
    if element is None or element.value is None:
        return False
    value: Any = element.value
    if isinstance(value, bytes):
        value = value.strip(b" \0")
    return len(value) > 0 if hasattr(value, "__len__") else True


def texts(dataset: Dataset, tag: int) -> tuple[str, ...]:
    """Give the values of a text element, unpadded; empty where it is absent or empty.

    Bytes beyond ASCII come as other characters: good to compare with a list, not to show.
    """
    element = _element(dataset, tag)
    if element is None or (element.VR or dictionary_VR(tag)) not in _TEXTUAL:
        return ()
    value: Any = element.value
    if value is None:
        return ()
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if isinstance(value, str):
        value = value.split("\\")
    elif not isinstance(value, Sequence):
        value = [value]
    values = tuple(str(one).strip(" \0") for one in value)
    return values if any(values) else ()


def identifier(dataset: Dataset, tag: int) -> str:
    """Give a single text in the dataset's own character set, unpadded; "" where there is none.

    Two different byte strings never give the same text, even in a broken character set. Raises
    Rejected INCOMPLETE_HEADER where the text was already decoded with losses.
    """
    element = _element(dataset, tag)
    if element is None or element.value is None:
        return ""
    value: Any = element.value
    if isinstance(value, bytes):
        value = _decoded(value, texts(dataset, 0x00080005))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        value = "\\".join(str(one) for one in value)
    if "\ufffd" in str(value):
        raise Rejected(Reason.INCOMPLETE_HEADER, f"{name(tag)} is not decodable")
    return str(value).strip(" \0")


def numbers(dataset: Dataset, tag: int) -> tuple[Number, ...] | None:
    """Give the values of a numeric element; None where it is absent, empty or not numeric."""
    element = _element(dataset, tag)
    if element is None:
        return None
    declared = dictionary_VR(tag).split(" or ")
    if declared[0] in ("DS", "IS"):
        return _parsed(texts(dataset, tag))
    if element.VR not in (*declared, *_UNSAID, " or ".join(declared)):
        return None
    vr = element.VR if element.VR in declared else declared[0]
    value: Any = element.value
    if isinstance(value, bytes):
        if vr not in _BINARY:  # data of a lookup table in OW: see ``words``
            return None
        size = struct.calcsize(_BINARY[vr])
        if not value or len(value) % size:
            return None
        return struct.unpack(f"{_order(dataset, element)}{len(value) // size}{_BINARY[vr]}", value)
    if isinstance(value, int | float):
        return (value,)
    if not isinstance(value, Sequence) or not value:
        return None
    return tuple(value) if all(isinstance(one, int | float) for one in value) else None


def words(dataset: Dataset, tag: int) -> bytes | None:
    """Give the data of an element of 16-bit words (US or OW) in little endian, or None."""
    element = _element(dataset, tag)
    if element is None or element.value is None or element.VR not in _WORDS:
        return None
    value: Any = element.value
    if isinstance(value, bytes):
        if len(value) % 2:
            return None
        if _order(dataset, element) == "<":
            return value
        return struct.pack(f"<{len(value) // 2}H", *struct.unpack(f">{len(value) // 2}H", value))
    values = [value] if isinstance(value, int) else list(value)
    if not all(isinstance(one, int) and -0x8000 <= one <= 0xFFFF for one in values):
        return None
    return struct.pack(f"<{len(values)}H", *(one & 0xFFFF for one in values))


def items(dataset: Dataset, tag: int) -> tuple[Dataset, ...]:
    """Give the items of a sequence; none where it is absent or was not encoded as a sequence.

    Raises Rejected UNREADABLE when it cannot be parsed.
    """
    element = _element(dataset, tag)
    if element is None:
        return ()
    if isinstance(element, DataElement):
        return tuple(element.value) if element.VR == "SQ" else ()
    if (element.VR or dictionary_VR(tag)) != "SQ" or not element.value:
        return ()
    try:
        with without_noise():
            parsed = convert_SQ(element.value, element.is_implicit_VR, element.is_little_endian)
    except _MALFORMED as error:
        # The text of the error may hold bytes of the object.
        raise Rejected(Reason.UNREADABLE, f"{name(tag)} is malformed") from error
    return tuple(parsed)


def _element(dataset: Dataset, tag: int) -> DataElement | RawDataElement | None:
    if tag not in dataset:
        return None
    # pydicom converts an empty element at once, and keeps that, unless it is told to defer.
    element = dataset.get_item(tag, keep_deferred=True)
    if isinstance(element, RawDataElement) and element.value is None and element.length:
        return dataset.get_item(tag)  # left in the file by the reader: it must be fetched
    return element


def _parsed(values: tuple[str, ...]) -> tuple[Number, ...] | None:
    if not values or not all(_DECIMAL.fullmatch(value) for value in values):
        return None
    parsed = [float(value) for value in values]
    return tuple(parsed) if all(math.isfinite(value) for value in parsed) else None


def _order(dataset: Dataset, element: DataElement | RawDataElement) -> str:
    if isinstance(element, RawDataElement):
        return "<" if element.is_little_endian else ">"
    return ">" if dataset.original_encoding[1] is False else "<"


def _decoded(value: bytes, character_sets: tuple[str, ...]) -> str:
    if value.isascii() and b"\x1b" not in value:
        return value.decode("ascii")
    try:
        with without_noise(), warnings.catch_warnings():
            warnings.simplefilter("error")
            return decode_bytes(value, convert_encodings(list(character_sets)), _DELIMITERS)
    except (UserWarning, LookupError, UnicodeError):
        # Latin-1 loses nothing: whatever the bytes mean, different ones stay different.
        return value.decode("latin-1")
