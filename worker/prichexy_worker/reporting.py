"""Reports to the plugin, over its REST interface inside the ingest Orthanc."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pyorthanc

from prichexy_worker.contract import (
    API_ROOT,
    REQUEST_HEADER,
    Claim,
    ContractError,
    Reason,
    StudyReport,
    TextPictures,
    WorkerAnnouncement,
)
from prichexy_worker.errors import Retryable
from prichexy_worker.orthanc_client import ask

__all__ = ["PluginReporter"]

_HEADERS: Final = {REQUEST_HEADER: "worker"}


class PluginReporter:
    """A Reporter that posts JSON to the plugin."""

    def __init__(self, orthanc: pyorthanc.Orthanc) -> None:
        self._orthanc = orthanc

    def report(self, report: StudyReport) -> Claim:
        """Tell of a transition. A 404 is no refusal: it means that the plugin is not loaded."""
        return _claim(self._post("/reports", report.to_json()))

    def show(self, pictures: TextPictures) -> Claim:
        """Have pictures kept beside the originals in the ingest Orthanc."""
        return _claim(self._post("/pictures", pictures.to_json()))

    def announce(self, announcement: WorkerAnnouncement) -> None:
        """Tell that this worker is alive."""
        self._post("/workers", announcement.to_json())

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


def _claim(answer: object) -> Claim:
    try:
        return Claim.from_json(answer)
    except ContractError:
        text = "the plugin's answer is not of this version"
        raise Retryable(Reason.SOURCE_UNREACHABLE, text) from None
