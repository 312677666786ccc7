"""Errors of the worker, each named by what happens to the study next."""

from __future__ import annotations

from prichexy_worker.contract import Reason

__all__ = ["Misconfigured", "Rejected", "Retryable", "StudyError"]


class StudyError(Exception):
    """Base of the errors that decide over a study.

    The text is made of the reason's sentence and an optional technical ``detail``; neither ever
    holds a value taken from a DICOM object.
    """

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason.sentence} ({detail})" if detail else reason.sentence)
        self.reason = reason
        self.detail = detail


class Rejected(StudyError):
    """The study cannot be made safe: it goes to quarantine, whole, and is not tried again.

    For the human who decides: ``findings`` are boxes (left, top, right, bottom) in pixels of an
    image, and ``pictures`` PNG files of what lies there. They show patients' data, and so belong
    where the originals lie; no text of the error holds them.
    """

    def __init__(
        self,
        reason: Reason,
        detail: str = "",
        *,
        findings: tuple[tuple[int, int, int, int], ...] = (),
        pictures: tuple[bytes, ...] = (),
    ) -> None:
        super().__init__(reason, detail)
        self.findings = findings
        self.pictures = pictures


class Retryable(StudyError):
    """Something around the study failed: the same work is tried again later."""


class Misconfigured(Exception):
    """The worker or the command cannot start; the text names the setting and what to do."""
