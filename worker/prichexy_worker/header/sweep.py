"""The last look at a finished header, by VR and group: a net under the allow-lists.

It knows nothing of the lists and trusts none: whatever a list will one day say, no date, name,
address, free text or foreign UID leaves, and nothing of a private, overlay or curve group, but
what Table E.1-1 has in the column of a chosen option.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any, Final

from pydicom import config
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import UID

from prichexy_worker.contract import Reason
from prichexy_worker.errors import Rejected
from prichexy_worker.header import table
from prichexy_worker.header.elements import name
from prichexy_worker.header.options import Option
from prichexy_worker.header.uids import is_pseudonym

__all__ = ["sweep"]

#: Nothing of these VRs leaves, except what this gateway writes itself.
_NEVER: Final = frozenset(
    {"AE", "AS", "DA", "DT", "LT", "OB", "OD", "OF", "OL", "OV", "PN", "ST", "TM"}
    | {"UC", "UN", "UR", "UT"}
)
_OWN: Final = frozenset({0x00100010, 0x00082111})  # PatientName, DerivationDescription
#: Where a value of VR LO or SH may stand: pseudonyms, codes, closed lists and the gateway's own.
_SHORT_TEXT: Final = frozenset(
    {
        0x00080070,  # Manufacturer, of our own equipment item
        0x00080100,  # CodeValue
        0x00080102,  # CodingSchemeDesignator
        0x00080104,  # CodeMeaning
        0x00081090,  # ManufacturerModelName, of our own equipment item
        0x00100020,  # PatientID
        0x00120063,  # DeidentificationMethod
        0x00181020,  # SoftwareVersions, of our own equipment item
        0x00280A04,  # PixelSpacingCalibrationDescription, a fixed text
        0x00281054,  # RescaleType
        0x00283004,  # ModalityLUTType
    }
)
_WORDS: Final = frozenset({0x00283006})  # LUTData
#: What tells a device and stands in no row of the table.
_DEVICE: Final = frozenset(
    {
        0x00080070,  # Manufacturer
        0x00081090,  # ManufacturerModelName
        0x00181020,  # SoftwareVersions
        0x0018702A,  # DetectorManufacturerName
        0x0018702B,  # DetectorManufacturerModelName
    }
)
_ACCESSION_NUMBER: Final = 0x00080050
_PSEUDONYM: Final = re.compile("[A-Z2-7]{16}")


def sweep(result: Dataset, options: Collection[Option] = ()) -> None:
    """Raise Rejected IDENTITY_SURVIVED, naming tags, where something must not be in a header."""
    found = sorted({element.tag for element in _walk(result) if not _may_leave(element, options)})
    if found:
        raise Rejected(Reason.IDENTITY_SURVIVED, "tags " + " ".join(name(tag) for tag in found))


def _walk(dataset: Dataset) -> Iterator[DataElement]:
    for element in dataset:
        yield element
        if element.VR == "SQ":
            for item in element.value:
                yield from _walk(item)


def _may_leave(element: DataElement, options: Collection[Option]) -> bool:
    tag = element.tag
    if tag.group % 2 or tag.group >> 8 in (0x50, 0x60):
        return False
    if element.VR == "SQ" or element.is_empty or tag in _OWN:
        return True
    if table.under_options(tag, options):
        return True
    if element.VR == "UI":
        return all(_is_known(uid) for uid in _values(element))
    if tag == _ACCESSION_NUMBER:
        return bool(_PSEUDONYM.fullmatch(element.value))
    if element.VR in ("LO", "SH"):
        return tag in _SHORT_TEXT or (Option.DEVICE_IDENTITY in options and tag in _DEVICE)
    if element.VR == "OW":
        return tag in _WORDS
    return element.VR not in _NEVER


def _values(element: DataElement) -> list[Any]:
    return [element.value] if element.VM == 1 else list(element.value)


def _is_known(uid: str) -> bool:
    """Tell whether a UID is the standard's own, or of the form of our pseudonyms."""
    return bool(UID(uid, validation_mode=config.IGNORE).type) or is_pseudonym(uid)
