"""The ten checks of the MIDI-B challenge, over an answer key of our own.

The checks mean what they mean in the challenge's script (github.com/CBIIT/MIDI_validation_script,
``validate_tag_retained`` to ``validate_pixels_hidden``): a file that is missing from the results
passes what had to go and fails what had to stay; an attribute that is absent passes every check but
``tag_retained``, ``text_notnull`` and ``text_retained``. Four differences: an attribute in a
sequence is looked for in all its items; numbers are compared as such also where there are several;
``pixels_retained`` compares the decoded stored values, not the encoded bytes, so that another
lossless transfer syntax does not count; and text in pixels is read by whatever reader is given.
"""

from __future__ import annotations

import csv
import hashlib
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np
import pydicom
from pydicom import config
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian

from prichexy_testing.canaries import Canary

__all__ = [
    "ACTIONS",
    "Check",
    "Renamed",
    "Results",
    "Scored",
    "answer_key",
    "hidden_text",
    "pixel_digest",
    "read_key",
    "score",
    "totals",
    "write_key",
]

ACTIONS: Final = (
    "tag_retained",
    "text_notnull",
    "text_retained",
    "text_removed",
    "date_shifted",
    "uid_changed",
    "uid_consistent",
    "patid_consistent",
    "pixels_hidden",
    "pixels_retained",
)
_PIXELS: Final = "7FE0,0010"
#: Type 1 and 2 attributes of every radiograph (PS3.3 A.2, A.26, A.8): there in the result.
_THERE: Final = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
_WITH_A_VALUE: Final = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality"),
    *("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("SamplesPerPixel", "PhotometricInterpretation", "PatientID", "PatientName"),
)
#: What says how the image was made and is shown: of use to whoever reads it, of nobody in person.
_OF_USE: Final = (
    *("BodyPartExamined", "ViewPosition", "PatientOrientation", "Laterality", "ImageLaterality"),
    *("Rows", "Columns", "BitsStored", "PhotometricInterpretation", "SamplesPerPixel"),
    *("PixelSpacing", "ImagerPixelSpacing", "WindowCenter", "WindowWidth", "RescaleSlope"),
    *("RescaleIntercept", "RescaleType", "PresentationLUTShape", "PixelIntensityRelationship"),
    *("KVP", "XRayTubeCurrent", "ExposureTime", "Exposure", "Sensitivity", "RelativeXRayExposure"),
    *("DistanceSourceToDetector", "DistanceSourceToPatient", "ExposureIndex", "Grid"),
    *("DetectorType", "PositionerType", "PresentationIntentType", "LossyImageCompression"),
)
_UIDS: Final = ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_WORDS: Final = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the answer key.

    ``instance`` is the original's SOPInstanceUID, ``tag_ds`` the tags that lead to the attribute
    ("0040,0275/0010,0010"), ``value`` the original's value, ``action_text`` what the check needs
    beside it: for text_removed the part of the value that identifies, for pixels_retained the
    digest, for pixels_hidden "left,top,right,bottom".
    """

    instance: str
    action: str
    tag_ds: str
    value: str = ""
    action_text: str = ""


@dataclass(frozen=True, slots=True)
class Scored:
    """A check and whether it passed; ``missing``: no result of that instance was there."""

    check: Check
    passed: bool
    missing: bool = False


@dataclass(frozen=True, slots=True)
class Renamed:
    """What the originals' UIDs and patient identifiers became, as the de-identifier says."""

    uids: Mapping[str, str]
    patients: Mapping[str, str]


Results = Mapping[str, bytes]
#: Reads text in an image (rows, columns), stored values, within a box.
Reader = Callable[[np.ndarray, tuple[int, int, int, int]], str]


def answer_key(content: bytes, canaries: Iterable[Canary]) -> Iterator[Check]:
    """Give the lines for one original with what was planted in it.

    A line that the original itself would pass is left out: what the checks cannot see, such as a
    name in a character set that is declared wrongly, they cannot judge.
    """
    dataset = _read(content)
    instance = str(dataset.SOPInstanceUID)
    planted = set()
    for canary in canaries:
        if "," not in canary.path or canary.path.startswith(("0000", "0002", _PIXELS)):
            continue  # no place that the challenge's checks can name
        planted.add(canary.path)
        action = {"UI": "uid_changed", "DA": "date_shifted", "DT": "date_shifted"}.get(canary.vr)
        if canary.forms:
            value, telling = canary.raw.decode("latin-1"), _telling(canary)
            check = Check(instance, action or "text_removed", canary.path, value, telling)
            if not _passes(check, dataset, Renamed({}, {}), None):
                yield check
    for keyword in _THERE:
        if keyword in dataset:
            yield Check(instance, "tag_retained", _tag(dataset, keyword))
    for keyword in _WITH_A_VALUE:
        if dataset.get(keyword) not in (None, ""):
            yield Check(instance, "text_notnull", _tag(dataset, keyword))
    for keyword in _OF_USE:
        if keyword in dataset and _tag(dataset, keyword) not in planted:
            value = _text(dataset, _tag(dataset, keyword))
            # A spacing of 0 is no length, and an empty value says nothing.
            if value.strip("0.\\ "):
                yield Check(instance, "text_retained", _tag(dataset, keyword), value)
    for keyword in _UIDS:
        yield Check(instance, "uid_consistent", _tag(dataset, keyword), str(dataset[keyword].value))
    yield Check(instance, "patid_consistent", "0010,0020", _text(dataset, "0010,0020"))
    yield Check(instance, "pixels_retained", _PIXELS, action_text=pixel_digest(dataset))


def hidden_text(content: bytes, text: str, box: tuple[int, int, int, int]) -> Check:
    """Give the line for a text that was written into the image, within a box of pixels."""
    instance = str(_read(content).SOPInstanceUID)
    return Check(instance, "pixels_hidden", _PIXELS, text, ",".join(map(str, box)))


def pixel_digest(dataset: Dataset) -> str:
    """Give the SHA-256 of the stored values, without what stands above the stored bits."""
    if not dataset.file_meta.get("TransferSyntaxUID"):
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    values = _stored(dataset).astype(np.int64) & ((1 << dataset.BitsStored) - 1)
    return hashlib.sha256(values.astype("<u2").tobytes()).hexdigest()


def write_key(path: Path, checks: Iterable[Check]) -> None:
    """Write the answer key as CSV, one line a check."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Check)])
        writer.writeheader()
        writer.writerows(asdict(check) for check in checks)


def read_key(path: Path) -> list[Check]:
    """Read what ``write_key`` wrote. Raises TypeError where a column is none of the key's."""
    with path.open(newline="", encoding="utf-8") as file:
        return [Check(**row) for row in csv.DictReader(file)]


def score(
    checks: Iterable[Check], results: Results, mapping: Renamed, reader: Reader | None = None
) -> list[Scored]:
    """Check every line of the key against the results by original SOPInstanceUID.

    Without a ``reader`` pixels_hidden of a result that is there fails.
    """
    datasets = {instance: _read(content) for instance, content in results.items()}
    scored = []
    for check in checks:
        dataset = datasets.get(check.instance)
        if dataset is None:
            retained = check.action in ("tag_retained", "text_notnull", "text_retained")
            retained |= check.action in ("pixels_retained", "uid_consistent", "patid_consistent")
            scored.append(Scored(check, not retained, missing=True))
        else:
            scored.append(Scored(check, _passes(check, dataset, mapping, reader)))
    return scored


def totals(scored: Iterable[Scored]) -> dict[str, tuple[int, int]]:
    """Give (passed, all) by action, in the challenge's order."""
    passed, all_ = Counter[str](), Counter[str]()
    for one in scored:
        all_[one.check.action] += 1
        passed[one.check.action] += one.passed
    return {action: (passed[action], all_[action]) for action in ACTIONS}


def _passes(check: Check, dataset: Dataset, mapping: Renamed, reader: Reader | None) -> bool:
    found = _text(dataset, check.tag_ds)
    there = bool(_elements(dataset, check.tag_ds))
    match check.action:
        case "tag_retained":
            return there
        case "text_notnull":
            return bool(found)
        case "text_retained":
            return bool(found) and _same(found, check.value, retained=True)
        case "text_removed":
            return not found or _same(found, check.action_text or check.value, retained=False)
        case "date_shifted" | "uid_changed":
            return check.value not in found
        case "uid_consistent":
            return not there or found == mapping.uids.get(check.value, "")
        case "patid_consistent":
            return not there or found == mapping.patients.get(check.value, "")
        case "pixels_retained":
            return pixel_digest(dataset) == check.action_text
        case "pixels_hidden":
            if reader is None:
                return False
            left, top, right, bottom = map(int, check.action_text.split(","))
            text = reader(_stored(dataset), (left, top, right, bottom))
            return _same(text, check.value, retained=False)
    raise ValueError(check.action)


def _same(found: str, value: str, *, retained: bool) -> bool:
    """Compare as the challenge does: as numbers, as a whole, else word by word."""
    found, value = found.lower(), value.lower()
    numbers, expected = _numbers(found), _numbers(value)
    if numbers is not None and expected is not None:
        return (numbers == expected) is retained
    if value in found:
        return retained
    words = _WORDS.findall(value)
    return all((word in found) is retained for word in words)


def _numbers(text: str) -> list[float] | None:
    """Give the values of a text that is numbers and nothing else."""
    parts = [part.strip() for part in text.split("\\")]
    plain = all(part.removeprefix("-").replace(".", "", 1).isdigit() for part in parts)
    return [float(part) for part in parts] if plain else None


def _telling(canary: Canary) -> str:
    """Give the part of a text that identifies, as it reads; "" where all of it does."""
    for form in canary.forms:
        try:
            text = form.decode("utf-8")
        except UnicodeDecodeError:
            continue
        if "\0" not in text and "\x1b" not in text and any(map(str.isalpha, text)):
            return text
    return ""


def _stored(dataset: Dataset) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of bytes after the last pixel
        return dataset.pixel_array


def _read(content: bytes) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pydicom.dcmread(BytesIO(content), force=True)


def _tag(dataset: Dataset, keyword: str) -> str:
    tag = dataset[keyword].tag
    return f"{tag.group:04X},{tag.element:04X}"


def _elements(dataset: Dataset, path: str) -> list[pydicom.DataElement]:
    first, _, rest = path.partition("/")
    tag = int(first.replace(",", ""), 16)
    if tag not in dataset:
        return []
    with warnings.catch_warnings(), config.disable_value_validation():
        warnings.simplefilter("ignore")
        element = dataset[tag]
        if not rest:
            return [element]
        if element.VR != "SQ":
            return []
        return [found for item in element.value for found in _elements(item, rest)]


def _text(dataset: Dataset, path: str) -> str:
    return "\\".join(_written(element) for element in _elements(dataset, path)).strip(" \0")


def _written(element: pydicom.DataElement) -> str:
    value = element.value
    if value is None or element.VR == "SQ":
        return ""
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return "\\".join(map(str, value)) if element.VM > 1 else str(value)
