"""Reads one DICOM object and decides whether it is a radiograph that this release can handle.

Reading is permissive, because old modalities write what they like; deciding is not: where the
header leaves a doubt, the object is turned away.
"""

from __future__ import annotations

import zlib
from io import BytesIO
from typing import Final

from pydicom import dcmread, uid
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag

from prichexy_worker.contract import Reason
from prichexy_worker.errors import Rejected
from prichexy_worker.layout import MAX_BYTES, read_layout
from prichexy_worker.quiet import without_noise

__all__ = ["SUPPORTED_SOP_CLASSES", "convert", "inspect", "read", "speaks_of_text"]

SUPPORTED_SOP_CLASSES: Final = frozenset(
    {
        uid.ComputedRadiographyImageStorage,
        uid.DigitalXRayImageStorageForPresentation,
        uid.DigitalXRayImageStorageForProcessing,
        uid.SecondaryCaptureImageStorage,
    }
)
#: A radiograph that was captured by another device, from film or screen, keeps its modality.
_MODALITIES: Final = frozenset({"CR", "DX", "RG"})
#: The one defined term (PS3.16 annex L). Others (THORAX, CHESTABDOMEN, LUNG) leave a doubt, and
#: THORAX is what veterinary systems write.
_CHEST_TERMS: Final = frozenset({"CHEST"})
#: (code, scheme) for the chest as a region: SNOMED CT now and before 2020, and its two old forms.
_CHEST_CODES: Final = frozenset(
    {
        ("816094009", "SCT"),
        ("51185008", "SCT"),
        ("T-D3000", "SRT"),
        ("T-D3000", "SNM3"),
    }
)
_HUMAN_CODES: Final = frozenset({("337915000", "SCT"), ("L-85B00", "SRT")})
_HUMAN_WORDS: Final = frozenset({"", "HUMAN", "HOMO SAPIENS"})
_WORD_SIZES: Final = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}


def read(content: bytes) -> Dataset:
    """Parse a DICOM object, with or without preamble and file meta, wholly: no element stays raw.

    An element whose bytes do not fit its VR is kept as UN with these bytes. Word data of
    big-endian objects come in little endian, except PixelData, which keeps its transfer syntax.
    The file meta names a transfer syntax in any case. Nothing is logged and no warning leaves
    here, because both would quote values. Raises Rejected UNREADABLE.
    """
    _refuse_inflated_bomb(content)
    with without_noise():
        try:
            dataset = dcmread(BytesIO(content), force=True)
            convert(dataset)
            convert(dataset.file_meta)
        except Exception as error:  # noqa: BLE001 - parsing hostile input; the texts quote it
            raise Rejected(Reason.UNREADABLE, type(error).__name__) from None
        if "SOPClassUID" not in dataset and "PixelData" not in dataset:
            raise Rejected(Reason.UNREADABLE, "neither SOPClassUID nor PixelData")
        _name_transfer_syntax(dataset)
        return dataset


def inspect(dataset: Dataset) -> None:
    """Return when ``dataset`` is a grey single-frame chest radiograph of a person, with its UIDs.

    Says nothing on whether the pixels can be decoded or show text. Raises Rejected:
    UNSUPPORTED_SOP_CLASS, INCOMPLETE_HEADER, NOT_A_CHEST_RADIOGRAPH, NO_PIXEL_DATA, MULTI_FRAME,
    COLOUR, UNSUPPORTED_PIXELS.
    """
    if _text(dataset, "SOPClassUID") not in SUPPORTED_SOP_CLASSES:
        raise Rejected(Reason.UNSUPPORTED_SOP_CLASS)
    for keyword in ("SOPInstanceUID", "StudyInstanceUID"):
        if not _text(dataset, keyword):
            raise Rejected(Reason.INCOMPLETE_HEADER, keyword)
    _require_chest(dataset)
    read_layout(dataset)


def speaks_of_text(dataset: Dataset) -> bool:
    """Tell whether BurnedInAnnotation is there and anything but NO."""
    return _text(dataset, "BurnedInAnnotation").upper() not in {"", "NO"}


def _require_chest(dataset: Dataset) -> None:
    if _text(dataset, "Modality").upper() not in _MODALITIES:
        raise Rejected(Reason.NOT_A_CHEST_RADIOGRAPH, "Modality")
    if not _person(dataset):
        raise Rejected(Reason.NOT_A_CHEST_RADIOGRAPH, "species or breed")
    term = _text(dataset, "BodyPartExamined").upper()
    regions = _codes(dataset, "AnatomicRegionSequence")
    if not term and not regions:
        raise Rejected(Reason.NOT_A_CHEST_RADIOGRAPH, "no body part is named")
    if term and term not in _CHEST_TERMS:
        raise Rejected(Reason.NOT_A_CHEST_RADIOGRAPH, "BodyPartExamined")
    if not regions <= _CHEST_CODES:
        raise Rejected(Reason.NOT_A_CHEST_RADIOGRAPH, "AnatomicRegionSequence")


def _person(dataset: Dataset) -> bool:
    """Say whether nothing in the header tells of an animal."""
    species = _codes(dataset, "PatientSpeciesCodeSequence")
    return (
        _text(dataset, "PatientSpeciesDescription").upper() in _HUMAN_WORDS
        and species <= _HUMAN_CODES
        and not _text(dataset, "PatientBreedDescription")
        and not dataset.get("PatientBreedCodeSequence")
    )


def _codes(dataset: Dataset, keyword: str) -> frozenset[tuple[str, str]]:
    """Give (value, scheme) of each item; ("", "") for a sequence that could not be read."""
    items = dataset.get(keyword)
    if not items:
        return frozenset()
    if not isinstance(items, Sequence):
        return frozenset({("", "")})
    return frozenset(
        (_text(item, "CodeValue"), _text(item, "CodingSchemeDesignator")) for item in items
    )


def _text(dataset: Dataset, keyword: str) -> str:
    """Give a single-valued attribute as text without padding; several values are joined."""
    value = dataset.get(keyword)
    return "" if value is None else str(value).strip(" \0")


def convert(dataset: Dataset) -> None:
    """Turn every raw element into a converted one, recursively, in place.

    What is then read of it, in whatever character set it came, is what pseudonyms are made of. An
    element whose bytes do not fit its VR is kept as UN with these bytes. Quiet only within
    ``quiet.without_noise``: pydicom warns with values.
    """
    for tag in list(dataset.keys()):
        raw = dataset.get_item(tag)
        try:
            element = dataset[tag]
            if element.VR == "SQ":
                for item in element.value:
                    convert(item)
        except Exception:  # noqa: BLE001 - whatever a wrong value raises, its bytes are kept as UN
            dataset[tag] = _unknown(tag, raw)
            continue
        if isinstance(raw, RawDataElement) and not raw.is_little_endian:
            _swap_words(element)


def _unknown(tag: BaseTag, raw: object) -> DataElement:
    content = raw.value if isinstance(raw, RawDataElement) else None
    element = DataElement(tag, "UN", content if isinstance(content, bytes) else b"")
    element.VR = "UN"  # pydicom takes the dictionary's VR in its place
    return element


def _swap_words(element: DataElement) -> None:
    """Turn a big-endian word string into little endian; pydicom leaves them as they are."""
    size = _WORD_SIZES.get(element.VR)
    if size is None or element.keyword == "PixelData" or not isinstance(element.value, bytes):
        return
    words = bytearray(element.value[: len(element.value) // size * size])
    swapped = bytearray(len(words))
    for position in range(size):
        swapped[position::size] = words[size - 1 - position :: size]
    element.value = bytes(swapped)


def _name_transfer_syntax(dataset: Dataset) -> None:
    """Write the syntax that the parser found by itself into a file meta that names none."""
    if dataset.file_meta.get("TransferSyntaxUID"):
        return
    implicit, little = dataset.original_encoding
    if "PixelData" in dataset and dataset["PixelData"].is_undefined_length:
        raise Rejected(Reason.UNREADABLE, "compressed, and no transfer syntax is named")
    if implicit:
        dataset.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian
    else:
        dataset.file_meta.TransferSyntaxUID = (
            uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian
        )


def _refuse_inflated_bomb(content: bytes) -> None:
    """Refuse a deflated object that unpacks beyond the largest image, as pydicom would not."""
    meta_end = 0
    if content[128:136] == b"DICM\x02\x00\x00\x00" and content[136:140] == b"UL\x04\x00":
        meta_end = 144 + int.from_bytes(content[140:144], "little")
    meta = content[: meta_end or 4096]
    if uid.DeflatedExplicitVRLittleEndian.encode() not in meta:
        return
    if not meta_end:
        raise Rejected(Reason.UNREADABLE, "deflated, and the file meta has no length")
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    size, rest = 0, content[meta_end:]
    try:
        while rest and size <= MAX_BYTES:
            size += len(inflater.decompress(rest, 1 << 20))
            rest = inflater.unconsumed_tail
    except zlib.error:
        raise Rejected(Reason.UNREADABLE, "deflated data are damaged") from None
    if size > MAX_BYTES:
        raise Rejected(Reason.UNREADABLE, "deflated data are too long")
