"""A DICOM node, such as a PACS, as export target: C-STORE, and storage commitment if it offers it.

DIMSE has no way to take an object back, and none to read one back without a port that the peer may
call. So what a node holds is known by its word alone: the status of each C-STORE, and, where it is
asked for, its commitment to keep what it was sent (PS3.4 annex J).
"""

from __future__ import annotations

import io
import logging
import ssl
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Final

import pydicom
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID
from pynetdicom import AE, build_context, evt
from pynetdicom.dsutils import encode
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import (  # type: ignore[attr-defined, unused-ignore]
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    Verification,
)

from prichexy_worker.contract import Reason
from prichexy_worker.errors import Retryable
from prichexy_worker.export.connection_limit import ConnectionLimit, LateHandshakes
from prichexy_worker.ports import Anonymized, Check, InstanceName, unhindered
from prichexy_worker.sent import Sent

__all__ = ["Commitment", "DicomNodeExport", "Node"]

#: The preamble, "DICM" and the element that tells how long the rest of the group is (PS3.10 7.1).
_BEFORE_META: Final = 128 + 4 + 12
_SUCCESS: Final = 0x0000
_REQUEST_COMMITMENT: Final = 1  # action type, PS3.4 J.3.2

#: Gives the UIDs of the SOP instances that a node commits itself to.
_Reports = SimpleQueue[frozenset[str]]


@dataclass(frozen=True, slots=True)
class Node:
    """Whom to call, as whom; with ``tls`` encrypted. ``timeout`` is in seconds, for each wait.

    An association has twice that to begin in, and as much to do its work and end in, with what a
    commitment is waited for; then its connection is cut.
    """

    host: str
    port: int
    called_aet: str
    calling_aet: str
    timeout: float
    tls: ssl.SSLContext | None = None


@dataclass(frozen=True, slots=True)
class Commitment:
    """How a commitment is heard of, within ``seconds``.

    On the association that asked for it, and, where ``port`` is given, also on one that the node
    makes to that port: open while an answer is waited for, with ``tls`` encrypted.
    """

    seconds: float
    port: int | None = None
    tls: ssl.SSLContext | None = None


class DicomNodeExport:
    """An ExportTarget that cannot take back."""

    recalls = False

    def __init__(self, node: Node, commitment: Commitment | None = None) -> None:
        # pynetdicom logs addresses, and identifiers of what it sends.
        logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)
        self._node = node
        self._commitment = commitment

    @property
    def proves(self) -> bool:
        """Whether the node commits itself; the status of a C-STORE alone proves nothing."""
        return self._commitment is not None

    def check(self) -> None:
        """Ask for a C-ECHO, and whether storage commitment is offered where it is wanted."""
        contexts = [build_context(Verification)]
        if self._commitment is not None:
            contexts.append(build_context(StorageCommitmentPushModel))
        with self._associated(contexts) as association:
            accepted = {context.abstract_syntax for context in association.accepted_contexts}
            if accepted != {context.abstract_syntax for context in contexts}:
                raise Retryable(Reason.TARGET_REFUSED, "no verification, or no storage commitment")
            _succeeded(association.send_c_echo())

    def store(self, instance: Anonymized) -> None:
        """Send the instance; what the node does with an earlier one of its name is its own affair.

        A warning is no success: it says that the node altered or dropped something.
        """
        dataset = _as_released(instance.content)
        syntax = dataset.file_meta.TransferSyntaxUID
        with self._associated([build_context(dataset.SOPClassUID, syntax)]) as association:
            _succeeded(association.send_c_store(dataset))

    def holds(self, instance: InstanceName) -> bool:  # noqa: ARG002
        """Nobody asks, as nothing is taken back."""
        return False

    def differences(self, kept: Sequence[Anonymized]) -> Iterator[tuple[str, ...]]:
        """Have the node commit itself to all of ``kept``; without commitment, ask nothing."""
        if self._commitment is not None:
            committed = self._committed(kept, self._commitment)
            missing = {instance.sop_uid for instance in kept} - committed
            yield (f"{len(missing)} not committed",) if missing else ()

    def withdraw(self, instance: InstanceName) -> None:
        """Change nothing."""

    def withdraw_study(
        self,
        study_uid: str,
        sent: Sent,
        may_go_on: Check = unhindered,
    ) -> bool:
        """Change nothing."""
        del study_uid, sent, may_go_on
        return False

    def withdraw_others(
        self, kept: Sequence[Anonymized], sent: Sent, may_go_on: Check = unhindered
    ) -> None:
        """Change nothing."""

    def close(self) -> None:
        """Nothing is kept open."""

    def _committed(self, kept: Sequence[Anonymized], commitment: Commitment) -> frozenset[str]:
        """Give the instances that the node commits itself to. Raises Retryable."""
        # Random, so only who was asked can answer.
        transaction = UID(f"2.25.{uuid.uuid4().int}")
        reports: _Reports = SimpleQueue()
        handlers = [(evt.EVT_N_EVENT_REPORT, _listener(transaction, reports))]
        request = Dataset()
        request.TransactionUID = transaction
        request.ReferencedSOPSequence = Items(_reference(instance) for instance in kept)
        contexts = [build_context(StorageCommitmentPushModel)]
        with (
            self._listening(commitment, handlers),
            self._associated(contexts, handlers, commitment.seconds) as association,
        ):
            status, _reply = association.send_n_action(
                request,
                _REQUEST_COMMITMENT,
                StorageCommitmentPushModel,
                StorageCommitmentPushModelInstance,
            )
            _succeeded(status)
            try:
                return reports.get(timeout=commitment.seconds)
            except Empty:
                raise Retryable(Reason.TARGET_UNREACHABLE, "no word on the commitment") from None

    @contextmanager
    def _associated(
        self,
        contexts: Sequence[PresentationContext],
        handlers: Sequence[tuple[Any, Callable[..., Any]]] = (),
        seconds: float = 0.0,
    ) -> Iterator[Any]:
        """Give an association for ``contexts``, in which ``seconds`` are waited. Raises Retryable.

        It ends, and so does each wait within it, whatever the node does.
        """
        node = self._node
        entity = AE(ae_title=node.calling_aet)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = node.timeout
        entity.connection_timeout = node.timeout
        limit = ConnectionLimit(2 * node.timeout)
        try:
            try:
                association = entity.associate(
                    node.host,
                    node.port,
                    contexts=list(contexts),
                    ae_title=node.called_aet,
                    evt_handlers=[*handlers, (evt.EVT_CONN_OPEN, limit.opened)],
                    tls_args=None if node.tls is None else (node.tls, node.host),
                )
            except (OSError, UnicodeError) as error:  # a name that is not found, or can be none
                raise Retryable(Reason.TARGET_UNREACHABLE, type(error).__name__) from None
            if not association.is_established:
                raise _not_associated(association)
            limit.within(2 * node.timeout + seconds)
            try:
                yield association
            except BaseException:
                if association.is_established:
                    association.abort()
                raise
            association.release()
        finally:
            limit.lift()

    @contextmanager
    def _listening(
        self, commitment: Commitment, handlers: Sequence[tuple[Any, Callable[..., Any]]]
    ) -> Iterator[None]:
        """Take associations on the port of ``commitment`` for the block. Raises Retryable."""
        if commitment.port is None:
            yield
            return
        entity = AE(ae_title=self._node.calling_aet)
        # The node calls us and still is the provider of the service.
        entity.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
        longest = commitment.seconds + 2 * self._node.timeout
        limited = evt.EVT_CONN_OPEN, lambda event: ConnectionLimit(longest).opened(event)
        tls = None if commitment.tls is None else LateHandshakes(commitment.tls)
        try:
            server = entity.start_server(
                ("", commitment.port),
                block=False,
                evt_handlers=[*handlers, limited],
                ssl_context=tls,  # type: ignore[arg-type, unused-ignore]
            )
        except OSError as error:
            text = f"commitment_port: {type(error).__name__}"
            raise Retryable(Reason.TARGET_UNREACHABLE, text) from None
        try:
            yield
        finally:
            if server is not None:  # never: only a blocking one gives None
                server.shutdown()


def _not_associated(association: Any) -> Retryable:
    """Give why there is no association."""
    if association.is_rejected:
        return Retryable(Reason.TARGET_REFUSED, "the association was rejected")
    if association.rejected_contexts:
        return Retryable(Reason.TARGET_REFUSED, "no such objects in this encoding are taken")
    return Retryable(Reason.TARGET_UNREACHABLE, "no association")


def _as_released(content: bytes) -> Dataset:
    """Give the data set of a DICOM file, to be sent as the bytes that it is in the file.

    Raises Retryable when it would be written otherwise: what was never judged must not leave.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # their texts hold values
        dataset = pydicom.dcmread(io.BytesIO(content))
        syntax = dataset.file_meta.TransferSyntaxUID
        written = encode(dataset, syntax.is_implicit_VR, syntax.is_little_endian)
    begin = _BEFORE_META + dataset.file_meta.FileMetaInformationGroupLength
    if written != content[begin:]:
        raise Retryable(Reason.TARGET_REFUSED, "the instance would be written anew")
    return dataset


def _succeeded(status: Dataset) -> None:
    """Return for success. Raises Retryable for another status, or none."""
    if "Status" not in status:
        raise Retryable(Reason.TARGET_UNREACHABLE, "no answer")
    if status.Status != _SUCCESS:
        raise Retryable(Reason.TARGET_REFUSED, f"status {int(status.Status):04X}")


def _reference(instance: Anonymized) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = pydicom.dcmread(io.BytesIO(instance.content), specific_tags=["SOPClassUID"])
    item = Dataset()
    item.ReferencedSOPClassUID = source.SOPClassUID
    item.ReferencedSOPInstanceUID = instance.sop_uid
    return item


def _listener(transaction: UID, reports: _Reports) -> Callable[[Any], tuple[int, None]]:
    """Give what takes a node's report of this transaction into ``reports``; others are ignored."""

    def heard(event: Any) -> tuple[int, None]:
        told = event.event_information
        if told.get("TransactionUID") == transaction:
            failed = {
                str(item.ReferencedSOPInstanceUID) for item in told.get("FailedSOPSequence", ())
            }
            kept = {
                str(it.ReferencedSOPInstanceUID) for it in told.get("ReferencedSOPSequence", ())
            }
            reports.put(frozenset(kept - failed))
        return _SUCCESS, None

    return heard
