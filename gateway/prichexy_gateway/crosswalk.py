"""The crosswalk: which patient and study stands behind which pseudonym, encrypted as it is made.

It is computed anew from the originals and the key whenever it is asked for, and kept nowhere: what
is not stored cannot be stolen. Who may make one is who may read the key file and the originals.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Final

import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian

from prichexy_gateway.client import OrthancClient
from prichexy_gateway.dicom_files import DicomFile
from prichexy_gateway.errors import Failed
from prichexy_gateway.sealed import seal
from prichexy_worker import inspection
from prichexy_worker.errors import Rejected
from prichexy_worker.header import Profile
from prichexy_worker.header.elements import identifier
from prichexy_worker.header.engine import person_of
from prichexy_worker.pseudonyms import Pseudonyms
from prichexy_worker.quiet import without_noise

__all__ = ["Row", "Skipped", "encrypted", "of_files", "of_orthanc", "write_new"]

_PATIENT_ID: Final = 0x00100020
_ISSUER: Final = 0x00100021
_STUDY_UID: Final = 0x0020000D
_ACCESSION_NUMBER: Final = 0x00080050
_ISSUER_OF_ACCESSION_NUMBER: Final = 0x00080051
_LOCAL_NAMESPACE: Final = 0x00400031
#: SpecificCharacterSet, and what pseudonyms are made of.
_TAGS: Final = (0x00080005, _ACCESSION_NUMBER, _PATIENT_ID, _ISSUER, _STUDY_UID)


@dataclass(frozen=True, slots=True)
class Row:
    """One study: the original's identifiers, then what stands for them in the results."""

    patient_id: str
    issuer_of_patient_id: str
    accession_number: str
    study_instance_uid: str
    pseudonym: str
    pseudonymous_accession_number: str
    pseudonymous_study_instance_uid: str
    days_earlier: int


@dataclass(slots=True)
class Skipped:
    """Counts the objects that no row could be made of."""

    count: int = 0


def of_files(
    files: Iterable[DicomFile], pseudonyms: Pseudonyms, profile: Profile, skipped: Skipped
) -> Iterator[Row]:
    """Give a row for each study of the files, in their order."""
    seen: set[Row] = set()
    for file in files:
        try:
            row = _row(_identifiers(file), pseudonyms, profile)
        except Exception:  # noqa: BLE001 - pydicom raises anything for what only looks like DICOM
            skipped.count += 1
            continue
        if row not in seen:
            seen.add(row)
            yield row


def _identifiers(file: DicomFile) -> Dataset:
    if file.transfer_syntax == DeflatedExplicitVRLittleEndian:
        return inspection.read(file.path.read_bytes())  # which inflates no more than an image
    with without_noise():  # its texts hold values of the object
        return pydicom.dcmread(
            file.path,
            force=True,
            stop_before_pixels=True,
            specific_tags=[*_TAGS, _ISSUER_OF_ACCESSION_NUMBER],
        )


def of_orthanc(
    client: OrthancClient, pseudonyms: Pseudonyms, profile: Profile, skipped: Skipped
) -> Iterator[Row]:
    """Give a row for each study that the ingest Orthanc holds. Raises Unreachable."""
    for study_id in client.all_studies():
        instance = client.first_instance(study_id)
        if instance is None:  # deleted since
            continue
        dataset = Dataset()
        for tag in _TAGS:
            value = client.value(instance, tag)
            if value is not None:
                dataset[tag] = _raw(tag, value)
        issuer = client.value(instance, _ISSUER_OF_ACCESSION_NUMBER, 0, _LOCAL_NAMESPACE)
        if issuer is not None:
            item = Dataset()
            item[_LOCAL_NAMESPACE] = _raw(_LOCAL_NAMESPACE, issuer)
            dataset.add_new(_ISSUER_OF_ACCESSION_NUMBER, "SQ", [item])
        try:
            yield _row(dataset, pseudonyms, profile)
        except (Rejected, ValueError):
            skipped.count += 1


def _raw(tag: int, value: bytes) -> RawDataElement:
    return RawDataElement(Tag(tag), None, len(value), value, 0, True, True)


def encrypted(rows: Sequence[Row], recipients: Sequence[str]) -> bytes:
    """Give the rows as CSV (UTF-8, with a header line), encrypted to each age recipient.

    Any of them can decrypt it: ``age --decrypt -i KEY``. Raises Misconfigured where one is no
    recipient, or there is none.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(field.name for field in fields(Row))
    writer.writerows(astuple(row) for row in rows)
    return seal(text.getvalue().encode(), recipients)


def write_new(path: Path, content: bytes) -> None:
    """Write a file that is not there yet, for this user alone, or leave none. Raises Failed."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            path.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise Failed(f"The crosswalk cannot be written ({error.strerror}).") from None


def _row(dataset: Dataset, pseudonyms: Pseudonyms, profile: Profile) -> Row:
    with without_noise():
        inspection.convert(
            dataset
        )  # as a worker does: an odd character set is read in one way only
    person = person_of(dataset, pseudonyms)
    study_uid = identifier(dataset, _STUDY_UID)
    return Row(
        patient_id=identifier(dataset, _PATIENT_ID),
        issuer_of_patient_id=identifier(dataset, _ISSUER),
        accession_number=identifier(dataset, _ACCESSION_NUMBER),
        study_instance_uid=study_uid,
        pseudonym=person.patient_id,
        pseudonymous_accession_number=person.accession_number,
        pseudonymous_study_instance_uid=profile.study_uid(pseudonyms, study_uid),
        days_earlier=person.days_earlier,
    )
