"""What the ledger gives out: frozen values, cut off from the database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from prichexy_worker.contract import Reason, State, WorkerAnnouncement

__all__ = ["EventRecord", "Page", "StudyRecord", "WorkerRecord"]


@dataclass(frozen=True, slots=True)
class StudyRecord:
    """One study as the ledger has it; ``updated`` is its last step, ``durations`` are seconds.

    ``excused`` are those of ``attempts`` that do not count against it. ``key_id`` and ``profile``
    are of the pseudonyms' key and the project profile, blank before a worker told.
    """

    job_id: str
    study_id: str
    state: State
    reason: Reason | None
    trouble: Reason | None
    revision: int
    attempts: int
    excused: int
    instances: int
    first_seen: datetime
    updated: datetime
    worker_id: str | None
    durations: Mapping[str, float]
    measures: Mapping[str, float]
    key_id: str
    profile: str

    @property
    def reason_sentence(self) -> str | None:
        """Tell people why the study is where it is; of a study given up, also the last trouble."""
        if self.reason is None:
            return None
        if self.reason is Reason.TOO_MANY_ATTEMPTS and self.trouble is not None:
            return f"{self.reason.sentence} The last time: {self.trouble.sentence}"
        return self.reason.sentence


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list, newest first, and how long the whole list is."""

    total: int
    studies: tuple[StudyRecord, ...]


@dataclass(frozen=True, slots=True)
class EventRecord:
    """One line of the audit trail; ``actor`` is "plugin" or a worker's id."""

    at: datetime
    from_state: State | None
    to_state: State
    actor: str
    reason: Reason | None


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """A worker and when it last announced itself."""

    announcement: WorkerAnnouncement
    seen: datetime
