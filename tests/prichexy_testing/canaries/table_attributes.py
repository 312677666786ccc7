"""Values in every attribute that Table E.1-1 of PS3.15 names, at each depth, and in others."""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
from pydicom._dicom_dict import DicomDictionary
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from prichexy_testing.canaries.planting import Planting
from prichexy_testing.dicoms import code, lut
from prichexy_worker.header.table import table

__all__ = ["DEEPEST", "nested", "other_tags", "table_tags", "top_level"]

DEEPEST: Final = 5
#: Sequences that an allow-list keeps, with an item that it takes.
_KEPT: Final = (
    "AnatomicRegionSequence",
    "ViewCodeSequence",
    "SourceImageSequence",
    "ReferencedImageSequence",
    "DerivationCodeSequence",
    "VOILUTSequence",
    "PatientOrientationCodeSequence",
)
#: What an allow-list keeps within them.
_KEPT_WITHIN: Final = {
    "AnatomicRegionSequence": "AnatomicRegionModifierSequence",
    "ViewCodeSequence": "ViewModifierCodeSequence",
    "SourceImageSequence": "PurposeOfReferenceCodeSequence",
    "ReferencedImageSequence": "PurposeOfReferenceCodeSequence",
    "PatientOrientationCodeSequence": "PatientOrientationModifierCodeSequence",
}
_CODES: Final = {
    "AnatomicRegionSequence": ("51185008", "SCT", "Chest"),
    "ViewCodeSequence": ("272479007", "SCT", "postero-anterior"),
    "DerivationCodeSequence": ("113040", "DCM", "Lossy Compression"),
    "PatientOrientationCodeSequence": ("10904000", "SCT", "erect"),
    "AnatomicRegionModifierSequence": ("7771000", "SCT", "Left"),
    "PurposeOfReferenceCodeSequence": ("121322", "DCM", "Source image"),
}
_OTHERS: Final = (
    "RequestAttributesSequence",
    "ReferencedStudySequence",
    "ReferencedPerformedProcedureStepSequence",
    "OtherPatientIDsSequence",
    "ProcedureCodeSequence",
    "RequestedProcedureCodeSequence",
    "PerformedProtocolCodeSequence",
    "ScheduledProtocolCodeSequence",
    "AcquisitionContextSequence",
    "ContributingEquipmentSequence",
    "ReferencedImageEvidenceSequence",
    "GraphicAnnotationSequence",
    "DetectorInformationSequence",
    "ConceptNameCodeSequence",
    "ContentSequence",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "ReasonForRequestedProcedureCodeSequence",
)
#: Read to decide on an object: another value there turns it away, as it should.
_DECIDING: Final = frozenset(
    {"SpecificCharacterSet", "SOPClassUID", "Modality", "BodyPartExamined", "BurnedInAnnotation"}
    | {"PatientSpeciesDescription", "PatientBreedDescription", "PresentationIntentType"}
    | {"PhotometricInterpretation", "CodeValue", "CodingSchemeDesignator"}
)
_TEXTS: Final = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})


@cache
def table_tags() -> tuple[int, ...]:
    """Give the tags of the table that may stand in a data set, in order; repeating groups apart."""
    tags = (int(key[1:5] + key[6:10], 16) for key in table() if "x" not in key)
    return tuple(tag for tag in tags if tag >> 16 > 4)


@cache
def other_tags() -> tuple[int, ...]:
    """Give the attributes of the standard that hold text and are not in the table."""
    ours = set(table_tags())
    deciding = {tag_for_keyword(keyword) for keyword in _DECIDING}
    return tuple(
        tag
        for tag, (vr, *_) in sorted(DicomDictionary.items())
        if vr in _TEXTS and tag >> 16 > 4 and tag not in ours and tag not in deciding
    )


def top_level(planting: Planting, tags: tuple[int, ...], place: str) -> None:
    """Plant in each of ``tags``."""
    for tag in tags:
        planting.plant(place, tag)


def nested(planting: Planting, tags: tuple[int, ...], depth: int, number: int) -> None:
    """Plant in each of ``tags``, ``depth`` sequences deep; ``number`` picks the sequences.

    Every other chain begins with a sequence that an allow-list keeps, with an item that it takes.
    """
    place = f"table attribute, {depth} deep"
    chain = _chain(depth, number)
    holder = planting
    for keyword in chain:
        tag = tag_for_keyword(keyword)
        assert tag is not None
        item = _item(keyword)
        holder.append(tag, item)
        holder = holder.into(item, tag)
    for tag in tags:
        if tag_for_keyword(chain[-1]) != tag:
            holder.plant(place, tag)


def _chain(depth: int, number: int) -> tuple[str, ...]:
    if number % 2:
        first = _KEPT[number // 2 % len(_KEPT)]
        second = _KEPT_WITHIN.get(first, _OTHERS[number % len(_OTHERS)])
    else:
        first = _OTHERS[number // 2 % len(_OTHERS)]
        second = _KEPT[number // 2 % len(_KEPT)]
    rest = (_OTHERS[(number + 3 * step) % len(_OTHERS)] for step in range(1, DEEPEST))
    return (first, second, *rest)[:depth]


def _item(keyword: str) -> Dataset:
    if keyword in _CODES:
        return code(*_CODES[keyword])
    if keyword == "VOILUTSequence":
        return lut(np.arange(256, dtype=np.uint16) * 256, first=0, bits=16)
    item = Dataset()
    if keyword in ("SourceImageSequence", "ReferencedImageSequence"):
        item.ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
        item.ReferencedSOPInstanceUID = "1.2.826.0.1.3680043.10.778.1"
    return item
