"""What the result says of itself: that, how and by what it was made pseudonymous.

PS3.15 E.1.1 and PS3.3 C.12.1.1.3. Only what was done is claimed: the Basic Profile; the Clean Pixel
Data Option, because the pixels were searched for text and what was found was erased; and each
option that the project's profile chose. BurnedInAnnotation NO follows from our own search, which
ended with none but markers, never from the source's word. Nothing is said of recognisable features,
because no measured rate supports it here. No date of the processing is written: the same input
gives the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian

from prichexy_worker.contract import ModelInfo
from prichexy_worker.header.allowlist import allow_lists
from prichexy_worker.header.options import Option
from prichexy_worker.header.profile import BASIC, Profile
from prichexy_worker.header.table import TABLE_EDITION
from prichexy_worker.header.uids import is_pseudonym

__all__ = [
    "IMPLEMENTATION_CLASS_UID",
    "Provenance",
    "describe_file",
    "is_ours",
    "mark",
    "model_digest",
    "own_texts",
]

#: Names this software in file meta information; made from a UUID, as PS3.5 B.2 allows.
IMPLEMENTATION_CLASS_UID: Final = UID("2.25.144163281163685051470689246217166756650")

_LO: Final = 64
_ST: Final = 1024
_SH: Final = 16
_SOFTWARE: Final = "PriCheXy gateway"
#: StudyInstanceUID, SeriesInstanceUID, FrameOfReferenceUID: what Retain UIDs may keep.
_MAY_STAY: Final = (0x0020000D, 0x0020000E, 0x00200052)
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_SECONDARY_CAPTURE: Final = "1.2.840.10008.5.1.4.1.1.7"


@dataclass(frozen=True, slots=True)
class Provenance:
    """By what a result was made, as far as the result itself tells.

    ``deformed`` says whether the anatomy in the pixels was deformed by ``model``; where it was
    not, nothing is said of a model. ``erased`` says whether areas of them were filled, for a text
    or by a mask. ``strength`` is the factor on the model's displacement.
    """

    software_version: str
    model: ModelInfo
    key_id: str
    deformed: bool
    erased: bool = False
    strength: float = 1.0


def mark(result: Dataset, provenance: Provenance, profile: Profile = BASIC) -> None:
    """Set the marker attributes of a de-identified, derived radiograph in ``result``."""
    software = f"{_SOFTWARE} {provenance.software_version}"
    model = provenance.model
    result.PatientIdentityRemoved = "YES"
    result.BurnedInAnnotation = "NO"
    done = _applied(profile, result)
    moved = Option.MODIFIED_DATES in done
    result.LongitudinalTemporalInformationModified = "MODIFIED" if moved else "REMOVED"
    method = [f"DICOM PS3.15 {TABLE_EDITION} Basic Profile", software, f"key {provenance.key_id}"]
    if profile is not BASIC:
        method.append(f"project profile {profile.name}, SHA-256 {profile.digest[:16]}")
    if provenance.deformed:
        method.append(f"chest anatomy deformed by a model ({model.evidence})")
    method.append("burned-in text: searched for and erased, markers kept")
    result.DeidentificationMethod = [_fitting(text, _LO) for text in method]
    codes = [
        _code("113100", "DCM", "Basic Application Confidentiality Profile"),
        _code("113101", "DCM", "Clean Pixel Data Option"),
    ]
    codes += [_code(one.code, "DCM", one.meaning) for one in Option if one in done]
    result.DeidentificationMethodCodeSequence = Sequence(codes)
    changed = provenance.deformed or provenance.erased
    result.ImageType = _image_type(result, changed=changed)
    result.DerivationDescription = _fitting(_derivation(software, provenance), _ST)
    if provenance.deformed:
        # CID 7203 has no code for it, and "deformed for registration" would mislead.
        deformation = _code("PRIVACY_DEFORM", "99PRICHEXY", "Deformed for privacy")
        earlier = list(result.get("DerivationCodeSequence", ()))
        result.DerivationCodeSequence = Sequence([*earlier, deformation])
    result.ContributingEquipmentSequence = Sequence([_equipment(software, provenance)])
    if not all(str(element.value).isascii() for element in result.iterall() if element.VR != "OW"):
        result.SpecificCharacterSet = "ISO_IR 192"


def _applied(profile: Profile, result: Dataset) -> set[Option]:
    """Give the options that are true of ``result``: dates are in it, no UID had to be replaced."""
    done = set(profile.options)
    if not any(element.VR in ("DA", "DT") and not element.is_empty for element in result):
        done.discard(Option.MODIFIED_DATES)
    if any(is_pseudonym(str(result[uid].value)) for uid in _MAY_STAY if uid in result):
        done.discard(Option.UIDS)
    return done


def is_ours(sop_class: str, methods: Iterable[str]) -> bool:
    """Tell whether an object is an image that this gateway made, of whatever version and key.

    By its SOP Class UID and the values of DeidentificationMethod. Objects of other classes that
    were made from ours, such as a segmentation, may have copied the latter.
    """
    return sop_class in allow_lists() and any(text.startswith(_SOFTWARE) for text in methods)


def model_digest(result: Dataset) -> str:
    """Give the SHA-256 of the model that deformed a result; blank when none did."""
    for item in result.get("ContributingEquipmentSequence") or ():
        versions = item.get("SoftwareVersions") or ""
        if item.get("ManufacturerModelName") == _SOFTWARE and not isinstance(versions, str):
            return next((str(text) for text in versions if _DIGEST.fullmatch(str(text))), "")
    return ""


def describe_file(result: Dataset, software_version: str) -> None:
    """Give ``result`` file meta information and a preamble that hold nothing of the source's.

    The transfer syntax is Explicit VR Little Endian until pixels are added in another.
    """
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\0\1"
    meta.MediaStorageSOPClassUID = result.SOPClassUID
    meta.MediaStorageSOPInstanceUID = result.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = _fitting(f"PRICHEXY_{software_version}", _SH)
    result.file_meta = meta
    result.preamble = b"\0" * 128


def own_texts(provenance: Provenance, profile: Profile = BASIC) -> frozenset[str]:
    """Give every text that ``mark`` and ``describe_file`` write, whatever the source holds.

    The last check may pass over these: a patient called Basic is not named by "Basic Profile".
    """
    own = Dataset()
    own.SOPClassUID, own.SOPInstanceUID = UID(_SECONDARY_CAPTURE), IMPLEMENTATION_CLASS_UID
    own.StudyDate = "20000101"  # so that all is written that may be
    mark(own, provenance, profile)
    describe_file(own, provenance.software_version)
    texts = {str(own.file_meta.ImplementationVersionName)}
    for element in own.iterall():
        if element.VR in ("CS", "LO", "SH", "ST"):
            texts.update(element.value if element.VM > 1 else [str(element.value)])
    return frozenset(texts)


def _image_type(result: Dataset, *, changed: bool) -> list[str]:
    """Give the Image Type: an image whose pixels changed is derived, whatever its source was."""
    value = result.get("ImageType") or ()
    first, second, *more = [*([value] if isinstance(value, str) else value), "", ""][:5]
    if changed or first not in ("ORIGINAL", "DERIVED"):
        first = "DERIVED"
    if second not in ("PRIMARY", "SECONDARY"):
        second = "SECONDARY" if result.SOPClassUID == _SECONDARY_CAPTURE else "PRIMARY"
    while more and not more[-1]:
        more.pop()
    return [first, second, *more]


def _derivation(software: str, provenance: Provenance) -> str:
    begin = (
        f"De-identified by {software} with the Basic Profile of DICOM PS3.15 {TABLE_EDITION}, "
        f"pseudonyms under key {provenance.key_id}. "
    )
    if provenance.erased:
        begin += "Areas of the pixels that showed text, or lie under a mask, were filled. "
    if not provenance.deformed:
        return begin + "The anatomy in the pixels was not deformed."
    model = provenance.model
    strength = provenance.strength
    how = "" if strength == 1 else f"at {strength:g} times its strength "
    return begin + (
        f"The anatomy in the pixels was deformed {how}by model {model.name} {model.model_version} "
        f"(SHA-256 {model.digest}, {model.evidence}): {model.statement}"
    )


def _equipment(software: str, provenance: Provenance) -> Dataset:
    item = Dataset()
    item.Manufacturer = "PriCheXy"
    item.ManufacturerModelName = _SOFTWARE
    versions = [software]
    if provenance.deformed:
        model = provenance.model
        versions += [f"{model.name} {model.model_version}", model.digest]
    item.SoftwareVersions = [_fitting(text, _LO) for text in versions]
    purpose = _code("109104", "DCM", "De-identifying Equipment")
    item.PurposeOfReferenceCodeSequence = Sequence([purpose])
    return item


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _fitting(text: str, length: int) -> str:
    """Give ``text`` as one value of a text VR: no separator, no control character, not too long."""
    clean = "".join(character if character.isprintable() else " " for character in text)
    return clean.replace("\\", "/")[:length].strip()
