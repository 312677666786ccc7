"""Real files made ready for a system test, and what of them must never be seen again."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pydicom
from pydicom._uid_dict import UID_dictionary
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian, generate_uid

from prichexy_testing.dicoms import radiograph_dataset, write

__all__ = ["as_its_own_study", "identifying_values", "occurrences", "radiographs"]

_NAMING_VRS: Final = frozenset({"PN", "LO", "SH", "LT", "ST", "UT", "DA", "TM", "DT", "UI", "AE"})
_PUBLIC_SCHEMES: Final = frozenset({"DCM", "SCT", "SRT", "SNM3"})
_NUMBER: Final = re.compile(r"[-+]?[0-9]*\.?[0-9]+")
#: What a longer number or a digest has before and after a number of its middle.
_NOT_WITHIN: Final = (rb"(?<![0-9])(?<![0-9]\.)(?<![0-9a-f]{2})", rb"(?!\.?[0-9])(?![0-9a-f]{2})")
#: The encodings that a value may be hidden in.
_ENCODINGS: Final = ("utf-8", "utf-16-le", "utf-16-be", "latin-1", "iso2022_jp", "euc_kr")


def as_its_own_study(path: Path, folder: Path) -> Path:
    """Copy a DICOM file with new Study, Series and SOP Instance UIDs; all else stays as it is.

    Many public samples are one image in several transfer syntaxes and share their UIDs; Orthanc
    would hold them for one instance.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(path, force=True)
        meta = dataset.file_meta
        meta.TransferSyntaxUID = meta.get("TransferSyntaxUID", ImplicitVRLittleEndian)
        meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            setattr(dataset, keyword, generate_uid())
        meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        copy = folder / f"{path.parent.name}-{path.stem}.dcm"
        dataset.save_as(copy, enforce_file_format=True)
    return copy


def radiographs(folder: Path, first: int, count: int) -> list[Path]:
    """Write radiographs, each its own study.

    Shown with all their values: by percentiles, these shapes look like text to the real search.
    """
    paths = []
    for number in range(first, first + count):
        uid = f"1.2.3.{number}"
        dataset = radiograph_dataset(
            window=(2048, 4096),
            StudyInstanceUID=uid,
            SeriesInstanceUID=f"{uid}.1",
            SOPInstanceUID=f"{uid}.2",
        )
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        path = folder / f"{number}.dcm"
        path.write_bytes(write(dataset))
        paths.append(path)
    return paths


def _texts(dataset: Dataset) -> Iterator[str]:
    if dataset.get("CodingSchemeDesignator") in _PUBLIC_SCHEMES:
        return  # a published concept and its name
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from _texts(item)
        elif element.VR in _NAMING_VRS and element.value:
            several = element.value if element.VM > 1 else [element.value]
            yield from (str(value).strip() for value in several)


def identifying_values(path: Path) -> set[str]:
    """Give the texts of a file that could tell whose it is: at least 6 characters, or 8 digits.

    Fewer occur by chance: a "0.1000" is in every list of measured figures. UIDs that the standard
    itself registers, such as SOP classes, are no one's.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(path, force=True)
        found = {*_texts(dataset), *_texts(dataset.file_meta)}
    parts = {part for text in found for part in re.split(r"[\^=]", text)}
    return {
        text
        for text in found | parts
        if len(text) >= 6 and not _is_short_number(text) and text not in UID_dictionary
    }


def _is_short_number(text: str) -> bool:
    digits = sum(character.isdigit() for character in text)
    return digits < 8 and _NUMBER.fullmatch(text) is not None


def occurrences(values: set[str], content: bytes) -> set[str]:
    """Give the values that stand in ``content`` in any usual encoding, upper or lower case.

    A number counts where it stands by itself: within a longer number or a digest it is chance.
    """
    lowered = content.lower()
    found = set()
    for value in values:
        for encoding in _ENCODINGS:
            try:
                needle = value.encode(encoding).lower()
            except UnicodeEncodeError:
                continue
            if needle not in lowered:
                continue
            by_itself = _NOT_WITHIN[0] + re.escape(needle) + _NOT_WITHIN[1]
            if not _NUMBER.fullmatch(value) or re.search(by_itself, lowered):
                found.add(value)
    return found
