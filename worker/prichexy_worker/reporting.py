"""Reports to the plugin, over its REST interface inside the ingest Orthanc."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pyorthanc

from prichexy_worker.contract import (
    API_ROOT,
    CONTRACT_VERSION,
    OLDEST_VERSION,
    REQUEST_HEADER,
    Claim,
    ContractError,
    ImageInDoubt,
    ImagePictures,
    PatientsAsked,
    PatientsTold,
    Reason,
    State,
    StudyReport,
    TextPictures,
    WorkerAnnouncement,
)
from prichexy_worker.errors import Retryable
from prichexy_worker.orthanc_client import ask

__all__ = ["PluginReporter"]

#: By this the plugin knows what we read; a plugin of before passes over the value.
_HEADERS: Final = {REQUEST_HEADER: str(CONTRACT_VERSION)}

#: The version of the contract that brought images in doubt, and the question for patients.
_DECISIONS: Final = 3
_NOT_UNDERSTOOD: Final = "the plugin's answer is not of this version"


class PluginReporter:
    """A Reporter that posts JSON to the plugin, which may be older or newer than this worker.

    It begins each study, and after a failure each announcement, with what every plugin reads; the
    answer tells what this one does. Where a study is refused for the key, and that plugin reads
    which keys the worker names as retired, it is asked for once more with these.
    """

    def __init__(self, orthanc: pyorthanc.Orthanc) -> None:
        self._orthanc = orthanc
        self._version = OLDEST_VERSION

    def report(self, report: StudyReport) -> Claim:
        """Tell of a transition. A 404 is no refusal: it means that the plugin is not loaded."""
        if report.state is State.PROCESSING and not report.attempt:
            self._version = OLDEST_VERSION
        told, claim = self._version, self._report(report)
        if claim.another_key and report.retired_keys and self._version > told:
            claim = self._report(report)
        return claim

    def _report(self, report: StudyReport) -> Claim:
        answer = self._post("/reports", report.to_json(self._version))
        claim = _claim(answer)
        self._version = _version(answer)
        return claim

    def show(self, pictures: TextPictures) -> Claim:
        """Have pictures kept beside the originals in the ingest Orthanc."""
        return _claim(self._post("/pictures", pictures.to_json()))

    def show_whole(self, image: ImageInDoubt) -> Claim:
        """Have an image in doubt kept, where the plugin is of the version that knows them."""
        if self._version < _DECISIONS:
            return Claim(proceed=True)
        return _claim(self._post("/doubts", image.to_json()))

    def show_image(self, pictures: ImagePictures) -> Claim:
        """Have those of an exported image kept there; a plugin of before takes none (Retryable)."""
        return _claim(self._post("/images", pictures.to_json()))

    def patients(self, asked: PatientsAsked, study_uid: str) -> PatientsTold:
        """Ask the plugin; where it is of before, ask its Orthanc, which lets workers ask then."""
        if self._version < _DECISIONS:
            return PatientsTold(proceed=True, patients=self._looked_up(study_uid))
        answer = self._post("/patients", asked.to_json())
        try:
            return PatientsTold.from_json(answer)
        except ContractError:
            raise Retryable(Reason.SOURCE_UNREACHABLE, _NOT_UNDERSTOOD) from None

    def _looked_up(self, study_uid: str) -> int:
        # Not pyorthanc's post_tools_lookup: httpx warns of a body that is given as a form's.
        address = f"{self._orthanc.url}/tools/lookup"
        found = ask(
            lambda: self._orthanc.post(address, content=study_uid),
            Reason.SOURCE_UNREACHABLE,
            Reason.SOURCE_UNREACHABLE,
        )
        try:
            listed = [] if found is None or not study_uid else found.json()
            return max(1, len({one["ID"] for one in listed if one["Type"] == "Study"}))
        except (KeyError, TypeError, ValueError):
            raise Retryable(Reason.SOURCE_UNREACHABLE, "not an answer of Orthanc's") from None

    def announce(self, announcement: WorkerAnnouncement) -> None:
        """Tell that this worker is alive."""
        told, self._version = self._version, OLDEST_VERSION
        self._version = _version(self._post("/workers", announcement.to_json(told)))
        if self._version > told:
            self._post("/workers", announcement.to_json(self._version))

    def _post(self, path: str, body: Mapping[str, object]) -> object:
        address = f"{self._orthanc.url}{API_ROOT}{path}"
        response = ask(
            lambda: self._orthanc.post(address, json=body, headers=_HEADERS),
            Reason.SOURCE_UNREACHABLE,
            Reason.SOURCE_UNREACHABLE,
        )
        if response is None:
            raise Retryable(Reason.SOURCE_UNREACHABLE, "the plugin is not loaded")
        try:
            return response.json()
        except ValueError:
            raise Retryable(Reason.SOURCE_UNREACHABLE, "the answer is not JSON") from None


def _version(answer: object) -> int:
    """Give the version of an answer, which is one that both sides have."""
    told = answer.get("version") if isinstance(answer, Mapping) else None
    if isinstance(told, int) and OLDEST_VERSION <= told <= CONTRACT_VERSION:
        return told
    return OLDEST_VERSION


def _claim(answer: object) -> Claim:
    try:
        return Claim.from_json(answer)
    except ContractError:
        raise Retryable(Reason.SOURCE_UNREACHABLE, _NOT_UNDERSTOOD) from None
