"""Another Orthanc as export target."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial

import httpx
import pyorthanc

from prichexy_worker import header
from prichexy_worker.contract import Reason
from prichexy_worker.errors import Retryable
from prichexy_worker.export.putting_back import or_else
from prichexy_worker.orthanc_client import ask
from prichexy_worker.ports import Anonymized, Check, InstanceName, unhindered
from prichexy_worker.readback import read_back
from prichexy_worker.sent import Image, Sent

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

    recalls = True
    proves = True

    def __init__(self, orthanc: pyorthanc.Orthanc) -> None:
        self._orthanc = orthanc

    def close(self) -> None:
        """Let go of the connections."""
        self._orthanc.close()

    def check(self) -> None:
        """Ask for the system page, then upload what is no DICOM; nothing is stored.

        It is refused as such only after the user was let in.
        """
        if _ask(self._orthanc.get_system) is None:
            raise Retryable(Reason.TARGET_REFUSED, "not an Orthanc")
        try:
            status = self._orthanc.post_instances(b"no DICOM").status_code
        except httpx.HTTPError as error:
            raise Retryable(Reason.TARGET_UNREACHABLE, type(error).__name__) from None
        if status != httpx.codes.BAD_REQUEST:
            raise Retryable(Reason.TARGET_REFUSED, "no uploads are taken from this user")

    def store(self, instance: Anonymized) -> None:
        """Send the instance. It replaces one with the same identifiers, which else stays."""
        if self._post(instance, instance.content) == "Success":
            return
        held = self.fetch(instance)
        if held == instance.content:
            return
        self.withdraw(instance)
        with nullcontext() if held is None else or_else(partial(self._post, instance, held)):
            self._post(instance, instance.content)

    def holds(self, instance: InstanceName) -> bool:
        """Ask for the instance."""
        return _ask(partial(self._orthanc.get_instances_id, _id(instance))) is not None

    def differences(self, kept: Sequence[Anonymized]) -> Iterator[tuple[str, ...]]:
        """Read each instance back, whole."""
        return read_back(self, kept)

    def fetch(self, instance: InstanceName) -> bytes | None:
        """Give the stored DICOM file."""
        response = _ask(partial(self._orthanc.get_instances_id_file, _id(instance)))
        return None if response is None else response.content

    def withdraw(self, instance: InstanceName) -> None:
        """Delete the instance."""
        _ask(partial(self._orthanc.delete_instances_id, _id(instance)))

    def withdraw_study(self, study_uid: str, sent: Sent, may_go_on: Check = unhindered) -> bool:
        """Delete the images of ``sent`` in the study of that UID, of whichever patient it is.

        Where a study holds nothing else, it goes in one step.
        """
        # pyorthanc's own method would send the UID as a form.
        address = f"{self._orthanc.url}/tools/lookup"
        response = _ask(partial(self._orthanc.post, address, content=study_uid))
        if response is None:
            raise Retryable(Reason.TARGET_REFUSED, "not an Orthanc")
        try:
            found = [str(entry["ID"]) for entry in response.json() if entry["Type"] == "Study"]
        except (KeyError, TypeError, ValueError):
            raise Retryable(Reason.TARGET_REFUSED, "not an answer of Orthanc's") from None
        studies = {study: self._held(study) for study in found}
        every = [image for held in studies.values() for image in held.values()]
        mine = sent.among(every)
        for study, held in studies.items():
            names = sorted(name for name, image in held.items() if image in mine)
            if names and len(names) == len(held):
                may_go_on()
                _ask(partial(self._orthanc.delete_studies_id, study))
                continue
            for name in names:
                may_go_on()
                _ask(partial(self._orthanc.delete_instances_id, name))
        return not any(
            sent.left(image, partial(self._is_ours, name))
            for held in studies.values()
            for name, image in held.items()
            if image not in mine
        )

    def withdraw_others(
        self, kept: Sequence[Anonymized], sent: Sent, may_go_on: Check = unhindered
    ) -> None:
        """Delete the study's other images of ours; of another patient's study nothing is known."""
        held = self._held(_orthanc_id(kept[0].patient_id, kept[0].study_uid))
        mine = sent.among(held.values())
        for name in sorted(held.keys() - {_id(instance) for instance in kept}):
            if held[name] in mine and self._is_ours(name):
                may_go_on()
                _ask(partial(self._orthanc.delete_instances_id, name))

    def _held(self, study: str) -> Mapping[str, Image]:
        """Give a study's instances by the target's names of them; none, if it is gone."""
        whose = _ask(partial(self._orthanc.get_studies_id, study))
        if whose is None:
            return {}
        response = _ask(partial(self._orthanc.get_studies_id_instances, study))
        if response is None:
            raise Retryable(Reason.TARGET_REFUSED, "not an Orthanc")
        try:
            found = whose.json()
            patient = str(found["PatientMainDicomTags"]["PatientID"])
            uid = str(found["MainDicomTags"]["StudyInstanceUID"])
            return {
                str(entry["ID"]): Image(patient, uid, str(entry["MainDicomTags"]["SOPInstanceUID"]))
                for entry in response.json()
            }
        except (KeyError, TypeError, ValueError):
            raise Retryable(Reason.TARGET_REFUSED, "not an answer of Orthanc's") from None

    def _is_ours(self, name: str) -> bool:
        tags = _ask(partial(self._orthanc.get_instances_id_simplified_tags, name))
        return tags is not None and _is_ours(tags)

    def _post(self, instance: InstanceName, content: bytes) -> str:
        """Send an instance's bytes; tells whether it is stored ("Success") or was there before."""
        response = _ask(partial(self._orthanc.post_instances, content))
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
        if status not in ("Success", "AlreadyStored"):
            raise Retryable(Reason.TARGET_REFUSED, "the instance was not stored")
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
