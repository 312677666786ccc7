"""Once lossy, always lossy: what the result says of lossy compression in its history.

The result itself is written without loss, but detail that a lossy compression took does not come
back (PS3.3 C.7.6.1.1.5).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

__all__ = ["carry_over_lossy_history"]

_PIXEL_DATA: Final = 0x7FE00010
#: Transfer syntaxes that are always lossy, and their method.
_ALWAYS: Final[Mapping[str, str]] = MappingProxyType(
    {"1.2.840.10008.1.2.4.50": "ISO_10918_1", "1.2.840.10008.1.2.4.51": "ISO_10918_1"}
)
#: Transfer syntaxes that may be lossy: the object's own word counts, and lossy where it has none.
_PERHAPS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "1.2.840.10008.1.2.4.81": "ISO_14495_1",
        "1.2.840.10008.1.2.4.91": "ISO_15444_1",
        "1.2.840.10008.1.2.4.203": "ISO_15444_15",
    }
)


def carry_over_lossy_history(source: Dataset, result: Dataset) -> None:
    """Mark ``result`` as once lossy where ``source`` says so or is encoded so.

    A source that names a method, or a ratio above 1, and does not deny it says so. The method and
    the ratio are set where the source's transfer syntax tells them and the result has none.
    """
    syntax = str(getattr(source, "file_meta", {}).get("TransferSyntaxUID", ""))
    stated = result.get("LossyImageCompression")
    if syntax in _ALWAYS or (stated is None and (syntax in _PERHAPS or _tells_of_one(result))):
        result.LossyImageCompression = stated = "01"
    if stated != "01":
        return
    method = _ALWAYS.get(syntax) or _PERHAPS.get(syntax)
    if method and "LossyImageCompressionMethod" not in result:
        result.LossyImageCompressionMethod = method
    if method and "LossyImageCompressionRatio" not in result:
        ratio = _ratio(source, result)
        if ratio is not None:
            result.LossyImageCompressionRatio = ratio


def _tells_of_one(result: Dataset) -> bool:
    ratios = result.get("LossyImageCompressionRatio")
    numbers = [] if ratios is None else [ratios] if isinstance(ratios, float) else ratios
    return "LossyImageCompressionMethod" in result or any(number > 1 for number in numbers)


def _ratio(source: Dataset, result: Dataset) -> str | None:
    """Give uncompressed by compressed size, to two digits."""
    if _PIXEL_DATA not in source:
        return None
    element = source.get_item(_PIXEL_DATA, keep_deferred=True)
    size = element.length if isinstance(element, RawDataElement) else len(element.value or b"")
    whole = result.get("Rows", 0) * result.get("Columns", 0) * result.get("BitsAllocated", 0) // 8
    if size in (0, 0xFFFFFFFF) or not whole:
        return None
    return f"{whole / size:.2f}"
