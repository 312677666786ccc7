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
    """The study cannot be made safe: it goes to quarantine, whole, and is not tried again."""


class Retryable(StudyError):
    """Something around the study failed: the same work is tried again later."""


class Misconfigured(Exception):
    """The worker or the command cannot start; the text names the setting and what to do."""
