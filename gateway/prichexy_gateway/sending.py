"""C-STORE: sending DICOM files to the ingest Orthanc as a modality does."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
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

#: Why an object was refused.
_UNNAMED: Final = "no SOP Class or no transfer syntax in the file"
_UNREADABLE: Final = "the file cannot be read, or lacks what C-STORE must name"
_ENDED: Final = "the server ended the association over it: the file is malformed"
_NO_CONTEXT: Final = "the server takes no objects of this kind"
_STATUSES: Final = (  # PS3.4 table B.2-1: the first hexadecimal digits, and what they mean
    ("A7", "the server is out of resources"),
    ("A9", "the server finds that the object is not of its SOP Class"),
    ("C", "the server cannot understand the object"),
)


@dataclass(frozen=True, slots=True)
class Sent:
    """What a transfer came to. ``study_uids`` are those of the objects that were taken.

    ``refusals`` says how many were refused, by reason.
    """

    stored: int
    refusals: Mapping[str, int]
    study_uids: tuple[str, ...] = field(repr=False)

    @property
    def refused(self) -> int:
        """How many objects were refused."""
        return sum(self.refusals.values())

    def refused_sentence(self) -> str:
        """Say how many objects were refused, and why; nothing of it identifies anyone."""
        reasons = "; ".join(f"{count}: {reason}" for reason, count in self.refusals.items())
        return (
            f"{self.refused} {'object was' if self.refused == 1 else 'objects were'} refused "
            f"({reasons})."
        )


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
    stored, refusals = 0, Counter({_UNNAMED: len(files) - len(nameable)})
    uids: dict[str, None] = {}
    for kinds, batch in _batches(nameable):
        rest = iter(batch)
        file = next(rest, None)
        while file is not None:
            association = _associate(entity, kinds, host, port, called_aet)
            try:
                refusal = ""
                while file is not None and refusal != _ENDED:
                    refusal = _store(association, file)
                    if refusal:
                        refusals[refusal] += 1
                    else:
                        stored += 1
                        uids.setdefault(file.study_uid)
                    progress(stored + refusals.total())
                    file = next(rest, None)
            finally:
                association.release()
    return Sent(stored, +refusals, tuple(uids))


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


def _store(association: Any, file: DicomFile) -> str:
    """Send one file as it is; give why it was refused, or nothing."""
    accepted = {str(context.abstract_syntax) for context in association.accepted_contexts}
    if file.sop_class not in accepted:
        return _NO_CONTEXT
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # their texts hold values of the object
            dataset = pydicom.dcmread(file.path, force=True)
            dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(file.transfer_syntax)
            status = association.send_c_store(dataset)
    except (ValueError, AttributeError, OSError):
        return _UNREADABLE
    except RuntimeError:
        return _ENDED
    if "Status" not in status:
        return _ENDED
    code = f"{int(status.Status):04X}"
    # Success, or a warning (Bxxx): the object was taken.
    if code == "0000" or code.startswith("B"):
        return ""
    meanings = (meaning for digits, meaning in _STATUSES if code.startswith(digits))
    return f"{next(meanings, 'the server refuses it')} (status {code})"
