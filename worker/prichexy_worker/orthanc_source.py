"""Studies of the ingest Orthanc, read through pyorthanc."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import httpx
import pyorthanc

from prichexy_worker.bounded_http import AnswerTooLong
from prichexy_worker.contract import Reason
from prichexy_worker.errors import Rejected, Retryable
from prichexy_worker.orthanc_client import ask
from prichexy_worker.ports import Snapshot

__all__ = ["OrthancSource"]


class OrthancSource:
    """A StudySource over one Orthanc. Every request only reads."""

    def __init__(self, orthanc: pyorthanc.Orthanc) -> None:
        self._orthanc = orthanc

    def snapshot(self, study_id: str) -> Snapshot:
        """Give the study's instances; ``LastUpdate`` moves when one of them is replaced.

        Raises Rejected (GONE; TOO_MANY_INSTANCES for more than an answer can list).
        """
        study = _read(partial(self._orthanc.get_studies_id, study_id))
        too_long = Rejected(Reason.TOO_MANY_INSTANCES, "too many to list")
        instances = partial(self._orthanc.get_studies_id_instances, study_id)
        listed = _read(_refusing(instances, too_long))
        if study is None or listed is None:
            raise Rejected(Reason.GONE)
        try:
            said, entries = study.json(), listed.json()
            return Snapshot(
                instances=tuple(sorted(str(entry["ID"]) for entry in entries)),
                version=str(said["LastUpdate"]),
                study_uid=str(said["MainDicomTags"]["StudyInstanceUID"]).strip(" \0"),
                size=sum(int(entry["FileSize"]) for entry in entries),
            )
        except (KeyError, TypeError, ValueError):
            raise Retryable(Reason.SOURCE_UNREACHABLE, "not an answer of Orthanc's") from None

    def fetch(self, instance_id: str) -> bytes:
        """Give the instance's DICOM file, which is held in memory only.

        Raises Rejected (UNREADABLE) for one that is longer than any that we can read.
        """
        file = partial(self._orthanc.get_instances_id_file, instance_id)
        response = _read(_refusing(file, Rejected(Reason.UNREADABLE, "too long")))
        if response is None:
            raise Retryable(Reason.CHANGED_MEANWHILE, "an instance is gone")
        return response.content


def _read(call: Callable[[], httpx.Response]) -> httpx.Response | None:
    return ask(call, Reason.SOURCE_UNREACHABLE, Reason.SOURCE_UNREACHABLE)


def _refusing(
    call: Callable[[], httpx.Response], too_long: Rejected
) -> Callable[[], httpx.Response]:
    """Give ``call`` that raises ``too_long`` for an answer that is too long."""

    def bounded() -> httpx.Response:
        try:
            return call()
        except AnswerTooLong:
            raise too_long from None

    return bounded
