"""Another Orthanc as export target."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import httpx
import pyorthanc

from prichexy_worker import header
from prichexy_worker.contract import Reason
from prichexy_worker.errors import Retryable
from prichexy_worker.orthanc_client import ask
from prichexy_worker.ports import Anonymized, InstanceName

__all__ = ["OrthancExport", "orthanc_instance_id"]


def orthanc_instance_id(patient_id: str, study_uid: str, series_uid: str, sop_uid: str) -> str:
    """Give the id that every Orthanc gives to the instance with these identifiers.

    It is the SHA-1 of the four, joined by "|", in five groups of eight digits (Orthanc Book,
    "Orthanc identifiers").
    """
    return _orthanc_id(patient_id, study_uid, series_uid, sop_uid)


def _orthanc_id(*identifiers: str) -> str:
    text = "|".join(identifiers)
    digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
    return "-".join(digest[start : start + 8] for start in range(0, 40, 8))


class OrthancExport:
    """An ExportTarget over one Orthanc's REST interface.

    The target holds the new bytes after ``store`` whether its ``OverwriteInstances`` is on or
    off: with it off, Orthanc answers that it has the instance already, and the older one is then
    deleted first.
    """

    def __init__(self, orthanc: pyorthanc.Orthanc) -> None:
        self._orthanc = orthanc

    def check(self) -> None:
        """Ask for the system page, which needs the credentials."""
        if _ask(self._orthanc.get_system) is None:
            raise Retryable(Reason.TARGET_REFUSED, "not an Orthanc")

    def store(self, instance: Anonymized) -> None:
        """Send the instance. It replaces one with the same identifiers."""
        status = self._post(instance)
        if status == "AlreadyStored" and self.fetch(instance) != instance.content:
            self.withdraw(instance)
            status = self._post(instance)
        if status not in ("Success", "AlreadyStored"):
            raise Retryable(Reason.TARGET_REFUSED, "the instance was not stored")

    def fetch(self, instance: InstanceName) -> bytes | None:
        """Give the stored DICOM file."""
        response = _ask(partial(self._orthanc.get_instances_id_file, _id(instance)))
        return None if response is None else response.content

    def withdraw(self, instance: InstanceName) -> None:
        """Delete the instance."""
        _ask(partial(self._orthanc.delete_instances_id, _id(instance)))

    def withdraw_study(self, study_uid: str) -> None:
        """Delete the study; every one of that UID, should the target hold it of two patients."""
        # pyorthanc's own method would send the UID as a form.
        address = f"{self._orthanc.url}/tools/lookup"
        response = _ask(partial(self._orthanc.post, address, content=study_uid))
        if response is None:
            raise Retryable(Reason.TARGET_REFUSED, "not an Orthanc")
        try:
            found = [str(entry["ID"]) for entry in response.json() if entry["Type"] == "Study"]
        except (KeyError, TypeError, ValueError):
            raise Retryable(Reason.TARGET_REFUSED, "not an answer of Orthanc's") from None
        for study in found:
            _ask(partial(self._orthanc.delete_studies_id, study))

    def withdraw_others(self, kept: Sequence[Anonymized]) -> None:
        """Delete the study's other images of ours; of another patient's study nothing is known."""
        study = _orthanc_id(kept[0].patient_id, kept[0].study_uid)
        response = _ask(partial(self._orthanc.get_studies_id_instances, study))
        if response is None:
            raise Retryable(Reason.TARGET_REFUSED, "not an Orthanc")
        try:
            held = [str(entry["ID"]) for entry in response.json()]
        except (KeyError, TypeError, ValueError):
            raise Retryable(Reason.TARGET_REFUSED, "not an answer of Orthanc's") from None
        for name in sorted(set(held) - {_id(instance) for instance in kept}):
            tags = _ask(partial(self._orthanc.get_instances_id_simplified_tags, name))
            if tags is not None and _is_ours(tags):
                _ask(partial(self._orthanc.delete_instances_id, name))

    def _post(self, instance: Anonymized) -> str:
        response = _ask(partial(self._orthanc.post_instances, instance.content))
        if response is None:
            raise Retryable(Reason.TARGET_REFUSED, "not an Orthanc")
        try:
            answer = response.json()
            name, status = str(answer["ID"]), str(answer["Status"])
        except (KeyError, TypeError, ValueError):
            raise Retryable(Reason.TARGET_REFUSED, "not an answer of Orthanc's") from None
        if name != _id(instance):
            # Nothing could be read back or withdrawn under a name that is not the expected one.
            _ask(partial(self._orthanc.delete_instances_id, name))
            raise Retryable(Reason.TARGET_REFUSED, "the target changed the identifiers")
        return status


def _id(instance: InstanceName) -> str:
    return orthanc_instance_id(
        instance.patient_id, instance.study_uid, instance.series_uid, instance.sop_uid
    )


def _is_ours(response: httpx.Response) -> bool:
    """Tell by Orthanc's simplified tags whether an instance is an image that this gateway made."""
    try:
        tags = response.json()
    except ValueError:
        tags = None
    if not isinstance(tags, Mapping):
        raise Retryable(Reason.TARGET_REFUSED, "not an answer of Orthanc's")
    methods = str(tags.get("DeidentificationMethod", "")).split("\\")
    return header.is_ours(str(tags.get("SOPClassUID", "")), methods)


def _ask(call: Callable[[], httpx.Response]) -> httpx.Response | None:
    return ask(call, Reason.TARGET_UNREACHABLE, Reason.TARGET_REFUSED)
