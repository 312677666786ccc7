"""The ledger's tables."""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import JSON, DateTime, Dialect, ForeignKey, Index, String, false
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from prichexy_plugin.backfill import Backfill
from prichexy_plugin.records import EventRecord, StudyRecord, WorkerRecord
from prichexy_plugin.sweep import Waiting
from prichexy_worker.contract import Reason, State, WorkerAnnouncement
from prichexy_worker.retry import Blame, Circuit

__all__ = [
    "NEW_COLUMNS",
    "SCHEMA_VERSION",
    "BackfillRow",
    "Base",
    "CircuitRow",
    "EventRow",
    "FactRow",
    "StudyRow",
    "WorkerRow",
]

#: Raised with every change of the tables; it stands in the ledger's facts. An older ledger is
#: brought up to date (database.py), a newer one is refused.
SCHEMA_VERSION: Final = 4
#: By schema: the columns of "studies" that it brought. Each has a default for the rows of before.
#: Tables that it brought need no list.
NEW_COLUMNS: Final[dict[int, tuple[str, ...]]] = {
    2: ("excused", "worked", "returned"),
    3: ("backfilled", "last_update"),
    4: ("key_id", "profile"),
}


class Moment(TypeDecorator[datetime]):
    """A moment in UTC; SQLite itself knows no time zones."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Store without the zone; a moment that has none is a mistake."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a moment without a time zone")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Give the zone back."""
        return None if value is None else value.replace(tzinfo=UTC)


class Base(DeclarativeBase):
    """The tables' common registry."""


class StudyRow(Base):
    """One study of the ingest Orthanc, as it is now."""

    __tablename__ = "studies"

    study_id: Mapped[str] = mapped_column(String(44), primary_key=True)
    job_id: Mapped[str] = mapped_column(String(32), unique=True)
    state: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(String(64))
    #: Why the last attempt was given back; kept when the study is given up.
    trouble: Mapped[str | None] = mapped_column(String(64))
    revision: Mapped[int]
    attempts: Mapped[int]
    instances: Mapped[int]
    #: Digest of what the study held when it was last taken in.
    content: Mapped[str] = mapped_column(String(64))
    first_seen: Mapped[datetime] = mapped_column(Moment)
    updated: Mapped[datetime] = mapped_column(Moment)
    #: When to look at the study in Orthanc; None when nothing came in since the last look.
    look_at: Mapped[datetime | None] = mapped_column(Moment, index=True)
    #: How many looks in a row failed although Orthanc itself answered.
    failed_looks: Mapped[int]
    #: How often the message was sent since the last claim.
    sendings: Mapped[int]
    #: How many of ``attempts`` do not count: what failed in them was not the study.
    excused: Mapped[int] = mapped_column(default=0, server_default="0")
    #: Seconds that the attempts took which workers gave back.
    worked: Mapped[float] = mapped_column(default=0.0, server_default="0")
    #: The message came back before it was noted as sent: that note, when it comes, is void.
    returned: Mapped[bool] = mapped_column(default=False, server_default=false())
    #: A backfill brought it and nothing came in since: new arrivals go before it.
    backfilled: Mapped[bool] = mapped_column(default=False, server_default=false())
    #: When its last instance came, as Orthanc said at the last decision.
    last_update: Mapped[datetime | None] = mapped_column(Moment)
    worker_id: Mapped[str | None] = mapped_column(String(128))
    durations: Mapped[dict[str, float]] = mapped_column(JSON)
    measures: Mapped[dict[str, float]] = mapped_column(JSON)
    #: Of the pseudonyms' key, and the SHA-256 of the project profile, as a worker last told.
    key_id: Mapped[str] = mapped_column(String(16), default="", server_default="")
    profile: Mapped[str] = mapped_column(String(64), default="", server_default="")

    __table_args__ = (Index("studies_by_state", "state", "updated"),)

    def work_time(self) -> timedelta:
        """Give ``worked`` as a duration."""
        return timedelta(seconds=self.worked)

    def to_waiting(self) -> Waiting:
        """Give what says whether the study is late."""
        return Waiting(
            job_id=self.job_id,
            study_id=self.study_id,
            state=State(self.state),
            reason=_reason(self.reason),
            since=self.updated,
            look_at=self.look_at,
            failed_looks=self.failed_looks,
            worker_id=self.worker_id,
        )

    def to_record(self) -> StudyRecord:
        """Give the frozen value."""
        return StudyRecord(
            job_id=self.job_id,
            study_id=self.study_id,
            state=State(self.state),
            reason=_reason(self.reason),
            trouble=_reason(self.trouble),
            revision=self.revision,
            attempts=self.attempts,
            excused=self.excused,
            instances=self.instances,
            first_seen=self.first_seen,
            updated=self.updated,
            worker_id=self.worker_id,
            durations=self.durations,
            measures=self.measures,
            key_id=self.key_id,
            profile=self.profile,
        )


class EventRow(Base):
    """One line of the audit trail; never altered."""

    __tablename__ = "events"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(String(32), ForeignKey("studies.job_id"), index=True)
    at: Mapped[datetime] = mapped_column(Moment)
    from_state: Mapped[str | None] = mapped_column(String(16))
    to_state: Mapped[str] = mapped_column(String(16))
    actor: Mapped[str] = mapped_column(String(128))
    reason: Mapped[str | None] = mapped_column(String(64))

    def to_record(self) -> EventRecord:
        """Give the frozen value."""
        return EventRecord(
            at=self.at,
            from_state=None if self.from_state is None else State(self.from_state),
            to_state=State(self.to_state),
            actor=self.actor,
            reason=_reason(self.reason),
        )


class WorkerRow(Base):
    """The last announcement of a worker."""

    __tablename__ = "workers"

    worker_id: Mapped[str] = mapped_column(String(128), primary_key=True)
    announcement: Mapped[dict[str, Any]] = mapped_column(JSON)
    seen: Mapped[datetime] = mapped_column(Moment)

    def to_record(self) -> WorkerRecord:
        """Give the frozen value; raises ContractError when another version wrote it."""
        return WorkerRecord(WorkerAnnouncement.from_json(self.announcement), seen=self.seen)


class BackfillRow(Base):
    """One walk over what was in Orthanc before (``prichexy_plugin.backfill.Backfill``)."""

    __tablename__ = "backfills"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    started: Mapped[datetime] = mapped_column(Moment)
    started_by: Mapped[str] = mapped_column(String(128))
    per_minute: Mapped[int]
    total: Mapped[int]
    place: Mapped[int]
    last_id: Mapped[str] = mapped_column(String(44))
    seen: Mapped[int]
    found: Mapped[int]
    again: Mapped[int]
    passes: Mapped[int]
    disturbed: Mapped[bool]
    next_at: Mapped[datetime | None] = mapped_column(Moment)
    ended: Mapped[datetime | None] = mapped_column(Moment)
    stopped_by: Mapped[str | None] = mapped_column(String(128))

    def to_backfill(self) -> Backfill:
        """Give the frozen value."""
        return Backfill(**{field.name: getattr(self, field.name) for field in fields(Backfill)})


class CircuitRow(Base):
    """How one thing around the studies is doing (``prichexy_worker.retry.Circuit``)."""

    __tablename__ = "circuits"

    blame: Mapped[str] = mapped_column(String(16), primary_key=True)
    studies: Mapped[list[str]] = mapped_column(JSON)
    reason: Mapped[str | None] = mapped_column(String(64))
    opened: Mapped[datetime | None] = mapped_column(Moment)
    probe: Mapped[str | None] = mapped_column(String(32))
    probe_at: Mapped[datetime | None] = mapped_column(Moment)
    failed_probes: Mapped[int]
    succeeded: Mapped[datetime | None] = mapped_column(Moment)

    @classmethod
    def of(cls, circuit: Circuit) -> CircuitRow:
        """Make the row of a circuit."""
        return cls(
            blame=circuit.blame.value,
            studies=list(circuit.studies),
            reason=None if circuit.reason is None else circuit.reason.value,
            opened=circuit.opened,
            probe=circuit.probe,
            probe_at=circuit.probe_at,
            failed_probes=circuit.failed_probes,
            succeeded=circuit.succeeded,
        )

    def to_circuit(self) -> Circuit:
        """Give the frozen value."""
        return Circuit(
            blame=Blame(self.blame),
            studies=tuple(self.studies),
            reason=_reason(self.reason),
            opened=self.opened,
            probe=self.probe,
            probe_at=self.probe_at,
            failed_probes=self.failed_probes,
            succeeded=self.succeeded,
        )


class FactRow(Base):
    """A single value: the schema's version, the place in Orthanc's changes."""

    __tablename__ = "facts"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    number: Mapped[int]


def _reason(code: str | None) -> Reason | None:
    return None if code is None else Reason(code)
