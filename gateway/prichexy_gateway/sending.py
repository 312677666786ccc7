"""C-STORE: sending DICOM files to the ingest Orthanc as a modality does."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pydicom
from pynetdicom import AE
from pynetdicom.presentation import build_context

from prichexy_gateway.dicom_files import DicomFile
from prichexy_gateway.errors import Failed

__all__ = ["Sent", "send"]

# The standard allows 128 presentation contexts in an association, one for each kind of object.
_KINDS_AT_ONCE: Final = 100
_TIMEOUT: Final = 60.0  # seconds
_TAKEN: Final = 1
_REFUSED: Final = 0


@dataclass(frozen=True, slots=True)
class Sent:
    """What a transfer came to. ``study_uids`` are those of the objects that were taken."""

    stored: int
    refused: int
    study_uids: tuple[str, ...] = field(repr=False)


def send(
    files: Sequence[DicomFile],
    host: str,
    port: int,
    called_aet: str,
    calling_aet: str,
    progress: Callable[[int], None] = lambda _: None,
) -> Sent:
    """Send ``files``; ``progress`` is told how many were dealt with after each.

    An object over which the server ends the association is counted as refused, and the rest goes
    on in a new one. Raises Failed when there is no association to be had.
    """
    # pynetdicom logs identifiers of what it sends.
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)
    entity = AE(ae_title=calling_aet)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = _TIMEOUT
    entity.connection_timeout = 30.0
    nameable = [file for file in files if file.sop_class and file.transfer_syntax]
    stored, refused = 0, len(files) - len(nameable)
    uids: dict[str, None] = {}
    for kinds, batch in _batches(nameable):
        rest = iter(batch)
        file = next(rest, None)
        while file is not None:
            association = _associate(entity, kinds, host, port, called_aet)
            try:
                answer: int | None = _TAKEN
                while file is not None and answer is not None:
                    answer = _store(association, file)
                    if answer == _TAKEN:
                        stored += 1
                        uids.setdefault(file.study_uid)
                    else:
                        refused += 1
                    progress(stored + refused)
                    file = next(rest, None)
            finally:
                association.release()
    return Sent(stored, refused, tuple(uids))


def _associate(
    entity: AE, kinds: Iterable[tuple[str, str]], host: str, port: int, called_aet: str
) -> Any:
    """Give an association for these kinds of objects. Raises Failed."""
    contexts = [build_context(*kind) for kind in kinds]
    association = entity.associate(host, port, contexts=contexts, ae_title=called_aet)
    if not association.is_established:
        why = "rejects us" if association.is_rejected else "does not answer"
        raise Failed(
            f"The DICOM server at {host}:{port} {why}. It must know the sender {entity.ae_title} "
            f"at this machine's address (DicomModalities in its configuration) and be called "
            f"{called_aet}."
        )
    return association


def _batches(
    files: Iterable[DicomFile],
) -> Iterable[tuple[list[tuple[str, str]], list[DicomFile]]]:
    """Give the files by association, each with the kinds of objects it is for."""
    by_kind: dict[tuple[str, str], list[DicomFile]] = {}
    for file in files:
        by_kind.setdefault((file.sop_class, file.transfer_syntax), []).append(file)
    kinds = list(by_kind)
    for start in range(0, len(kinds), _KINDS_AT_ONCE):
        some = kinds[start : start + _KINDS_AT_ONCE]
        yield some, [file for kind in some for file in by_kind[kind]]


def _store(association: Any, file: DicomFile) -> int | None:
    """Send one file as it is. Gives _TAKEN, _REFUSED, or None when that ended the association."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # their texts hold values of the object
            dataset = pydicom.dcmread(file.path, force=True)
            dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(file.transfer_syntax)
            status = association.send_c_store(dataset)
    except (ValueError, AttributeError, OSError):
        # No context accepted for this kind of object, it lacks what C-STORE must name, or the
        # file cannot be read (any more).
        return _REFUSED
    except RuntimeError:
        return None
    if "Status" not in status:
        return None
    code = int(status.Status)
    # Success, or a warning (Bxxx): the object was taken.
    return _TAKEN if code == 0 or code >> 12 == 0xB else _REFUSED
