"""Errors of the worker, each named by what happens to the study next."""

from __future__ import annotations

from dataclasses import dataclass, field

from prichexy_worker.contract import Box, Reason

__all__ = ["Doubt", "Misconfigured", "Rejected", "Retryable", "StudyError"]


class StudyError(Exception):
    """Base of the errors that decide over a study.

    The text is made of the reason's sentence and an optional technical ``detail``; neither ever
    holds a value taken from a DICOM object.
    """

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason.sentence} ({detail})" if detail else reason.sentence)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Doubt:
    """An image that a person may decide over: ``contract.ImageInDoubt`` without its study."""

    digest: str
    rows: int
    columns: int
    boxes: tuple[Box, ...]
    picture: bytes = field(repr=False)


class Rejected(StudyError):
    """The study cannot be made safe: it goes to quarantine, whole, and is not tried again.

    For the human who decides: ``findings`` are boxes (left, top, right, bottom) in pixels of an
    image, as they would be erased, ``pictures`` PNG files of what lies there, and ``doubts`` the
    whole images that the reason is about, where a look at them can tell (``RELEASABLE``). They
    show patients' data, and so belong where the originals lie; no text of the error holds them.
    """

    def __init__(
        self,
        reason: Reason,
        detail: str = "",
        *,
        findings: tuple[Box, ...] = (),
        pictures: tuple[bytes, ...] = (),
        doubts: tuple[Doubt, ...] = (),
    ) -> None:
        super().__init__(reason, detail)
        self.findings = findings
        self.pictures = pictures
        self.doubts = doubts


class Retryable(StudyError):
    """Something around the study failed: the same work is tried again later.

    ``target`` names the export target that failed, blank where none did.
    """

    def __init__(self, reason: Reason, detail: str = "", *, target: str = "") -> None:
        super().__init__(reason, detail)
        self.target = target


class Misconfigured(Exception):
    """The worker or the command cannot start; the text names the setting and what to do."""
