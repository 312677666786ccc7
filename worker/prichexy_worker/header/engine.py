"""De-identifying a header: the Basic Profile of PS3.15 and its options, by allow-list."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataset import Dataset

from prichexy_worker.contract import Reason
from prichexy_worker.errors import Rejected
from prichexy_worker.header import elements
from prichexy_worker.header.keeping import Person, keep_attributes
from prichexy_worker.header.lossy import carry_over_lossy_history
from prichexy_worker.header.marks import Provenance, describe_file, mark
from prichexy_worker.header.profile import BASIC, Profile
from prichexy_worker.header.sweep import sweep
from prichexy_worker.pseudonyms import Pseudonyms

__all__ = ["deidentify", "person_of"]

_SOP_CLASS_UID: Final = 0x00080016
_SOP_INSTANCE_UID: Final = 0x00080018
_PATIENT_ID: Final = 0x00100020
_ISSUER_OF_PATIENT_ID: Final = 0x00100021
_STUDY_DATE: Final = 0x00080020
_ACCESSION_NUMBER: Final = 0x00080050
_ISSUER_OF_ACCESSION_NUMBER: Final = 0x00080051
_LOCAL_NAMESPACE: Final = 0x00400031
_STUDY_INSTANCE_UID: Final = 0x0020000D
_SERIES_INSTANCE_UID: Final = 0x0020000E
_PIXEL_REPRESENTATION: Final = 0x00280103
#: What the stored values mean: Rescale Intercept and Slope, Modality LUT Sequence.
_MEANING: Final = (0x00281052, 0x00281053, 0x00283000)
_WINDOW: Final = (0x00281050, 0x00281051)
#: What says nothing without others: RescaleType without a rescale, a description of a calibration
#: without its type. A list may have turned the others away.
_ONLY_WITH: Final[Mapping[int, tuple[int, ...]]] = MappingProxyType(
    {0x00281054: (0x00281052, 0x00281053), 0x00280A04: (0x00280A02,)}
)
#: Series, Acquisition and Instance Number: some devices number them by the study.
_COUNTERS: Final = (0x00200011, 0x00200012, 0x00200013)
#: Patient ID, Other Patient IDs, Accession Number, Study ID; dates of birth, study and series.
_NUMBERS_OF_OTHERS: Final = (
    *(0x00100020, 0x00101000, 0x00080050, 0x00200010),
    *(0x00100030, 0x00080020, 0x00080021),
)
#: Fewer digits are a count like any other.
_FEWEST_DIGITS: Final = 4
_NEEDED: Final = (_SOP_INSTANCE_UID, _STUDY_INSTANCE_UID, _SERIES_INSTANCE_UID)


def deidentify(
    dataset: Dataset,
    pseudonyms: Pseudonyms,
    provenance: Provenance,
    profile: Profile = BASIC,
) -> Dataset:
    """Give the header that may leave: a new dataset, with file meta, without pixel data.

    It holds what the profile's allow-list of the object's SOP class keeps and what marks it as
    de-identified; an attribute on no list is not in it, at any depth, and what Table E.1-1 names
    got the action of the Basic Profile or of a chosen option. A counter that repeats an identifier
    is empty. ``pseudonyms`` are the profile's project's. The given dataset is not altered. The same
    dataset, key, provenance and profile give the same result, byte by byte. No promise is made
    about the pixels.

    Raises Rejected: UNSUPPORTED_SOP_CLASS where there is no list, INCOMPLETE_HEADER without a
    UID of instance, series or study, UNREADABLE for a malformed sequence, UNSUPPORTED_PIXELS for
    a rescale or Modality LUT that may not be kept, IDENTITY_SURVIVED where the last look finds what
    must not leave.
    """
    rules = profile.lists.get("".join(elements.texts(dataset, _SOP_CLASS_UID)))
    if rules is None:
        raise Rejected(Reason.UNSUPPORTED_SOP_CLASS)
    for tag in _NEEDED:
        if len(elements.texts(dataset, tag)) != 1:
            raise Rejected(Reason.INCOMPLETE_HEADER, elements.name(tag))
    result = keep_attributes(dataset, rules, person_of(dataset, pseudonyms))
    _keep_the_meaning(dataset, result)
    _empty_borrowed_numbers(dataset, result)
    carry_over_lossy_history(dataset, result)
    mark(result, provenance, profile)
    sweep(result, profile.options)
    describe_file(result, provenance.software_version)
    return result


def person_of(dataset: Dataset, pseudonyms: Pseudonyms) -> Person:
    """Give whom ``dataset`` is about. Raises Rejected INCOMPLETE_HEADER without a study's UID."""
    studies = elements.texts(dataset, _STUDY_INSTANCE_UID)
    if len(studies) != 1:
        raise Rejected(Reason.INCOMPLETE_HEADER, elements.name(_STUDY_INSTANCE_UID))
    (study_uid,) = studies
    patient_id = elements.identifier(dataset, _PATIENT_ID)
    issuer = elements.identifier(dataset, _ISSUER_OF_PATIENT_ID)
    issuers = elements.items(dataset, _ISSUER_OF_ACCESSION_NUMBER)
    return Person(
        patient_id=pseudonyms.patient_id(patient_id, issuer, study_uid=study_uid),
        patient_name=pseudonyms.patient_name(patient_id, issuer, study_uid=study_uid),
        accession_number=pseudonyms.accession_number(
            elements.identifier(dataset, _ACCESSION_NUMBER),
            elements.identifier(issuers[0], _LOCAL_NAMESPACE) if issuers else "",
        ),
        days_earlier=pseudonyms.days_earlier(patient_id, issuer, study_uid=study_uid),
        study_date="".join(elements.texts(dataset, _STUDY_DATE)),
        names=_words_of_names(dataset),
        uid=pseudonyms.uid,
        signed=elements.numbers(dataset, _PIXEL_REPRESENTATION) in ((1,), (1.0,)),
    )


def _words_of_names(dataset: Dataset) -> frozenset[str]:
    """Give the words of every name at top level, in capitals: what they are not kept as."""
    tags = (int(tag) for tag in dataset.keys())  # noqa: SIM118 - it would convert the elements
    names = (elements.texts(dataset, tag) for tag in tags if _is_name(tag))
    return frozenset(
        word for name in names for text in name for word in re.split(r"[^A-Z0-9]+", text.upper())
    )


def _is_name(tag: int) -> bool:
    return dictionary_has_tag(tag) and dictionary_VR(tag) == "PN"


def _empty_borrowed_numbers(dataset: Dataset, result: Dataset) -> None:
    """Empty a counter that is, by its digits, an identifier or a date of the source."""
    taken = {_digits(text) for tag in _NUMBERS_OF_OTHERS for text in elements.texts(dataset, tag)}
    for tag in _COUNTERS:
        number = _digits(str(result[tag].value)) if tag in result else ""
        if len(number) >= _FEWEST_DIGITS and number in taken:
            result[tag].value = None


def _digits(text: str) -> str:
    return "".join(re.findall("[0-9]", text)).lstrip("0")


def _keep_the_meaning(dataset: Dataset, result: Dataset) -> None:
    """Raise Rejected UNSUPPORTED_PIXELS where a Modality LUT or rescale could not be kept.

    Without it the stored values would quietly mean something else. Half a window is dropped, and so
    is what says nothing alone.
    """
    for tag in _MEANING:
        if tag not in result and elements.holds_a_value(dataset, tag):
            raise Rejected(Reason.UNSUPPORTED_PIXELS, f"{elements.name(tag)} may not be kept")
    if len({result[tag].VM if tag in result else 0 for tag in _WINDOW}) > 1:
        for tag in _WINDOW:
            result.pop(tag, None)
    for tag, others in _ONLY_WITH.items():
        if not all(other in result for other in others):
            result.pop(tag, None)
