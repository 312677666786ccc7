"""The ledger's tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import (
    JSON,
    DateTime,
    Dialect,
    Index,
    LargeBinary,
    String,
    Text,
    false,
    text,
    true,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from prichexy_plugin.backfill import Backfill
from prichexy_plugin.chain import Head, Line
from prichexy_plugin.intake import Rank
from prichexy_plugin.orders import Orders
from prichexy_plugin.pauses import Pause, Stage
from prichexy_plugin.records import EventRecord, StudyRecord, WorkerRecord
from prichexy_plugin.sweep import Waiting
from prichexy_worker.contract import Reason, State, StudyMessage, WorkerAnnouncement
from prichexy_worker.retry import Blame, Circuit

__all__ = [
    "CHECKPOINT",
    "HEAD",
    "KEPT",
    "LOSES",
    "NEW_COLUMNS",
    "REMADE",
    "RULE_LENGTH",
    "SCHEMA_VERSION",
    "BackfillRow",
    "Base",
    "ChainRow",
    "CircuitRow",
    "DisposedRow",
    "DoubtRow",
    "EventRow",
    "FactRow",
    "KeyOfPlaceRow",
    "PauseRow",
    "StudyRow",
    "WorkerRow",
]

#: Raised with every change of the tables; it stands in the ledger's facts. An older ledger is
#: brought up to date (migration.py), a newer one is refused.
SCHEMA_VERSION: Final = 13
#: By schema and table: the columns that it brought. Each has a default for the rows of before.
#: A table that it brought needs no list: it has all its columns at once.
NEW_COLUMNS: Final[Mapping[int, Mapping[str, tuple[str, ...]]]] = {
    2: {"studies": ("excused", "worked", "returned")},
    3: {"studies": ("backfilled", "last_update")},
    4: {"studies": ("key_id", "profile")},
    5: {"studies": ("targets",)},
    6: {"studies": ("model", "edition", "proved", "pictured", "originals", "dispose_at")},
    7: {"studies": ("queue", "rank", "stream")},
    8: {"studies": ("orders", "left_at")},
    11: {"studies": ("exported", "exported_of", "taken_of", "sent")},
    12: {"studies": ("exported_key", "unconsented", "study_uids", "rule")},
    13: {"disposed_originals": ("digest",)},
}
#: By schema: the tables that it made anew, with the indices that stood on the ones of before. Their
#: rows are carried over (migration.py).
REMADE: Final[Mapping[int, Mapping[str, tuple[str, ...]]]] = {6: {"events": ("ix_events_job_id",)}}
#: So much of a rule's name is kept.
RULE_LENGTH: Final = 200
#: The rows of "audit_chain": where the trail ends, and after which line it begins.
HEAD: Final = "head"
CHECKPOINT: Final = "checkpoint"
#: Only these are in the index that the outbox is read by.
_WAITS: Final = text("state = 'pending'")
#: And only these in those that the retention rules read by. A database uses such an index where a
#: question has the very same condition in it, not a parameter.
KEPT: Final = text("originals = 'kept'")
LOSES: Final = text("originals = 'deleting'")
_REASONED: Final = text("reason IS NOT NULL")
_JUMPED: Final = text("deed = 'clock_jumped'")


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
    #: The names of the export targets it goes to; none for those that the workers have for it.
    targets: Mapped[list[str]] = mapped_column(JSON, default=list, server_default="[]")
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
    #: Of the generator's weights, and of PS3.15 Table E.1-1, likewise.
    model: Mapped[str] = mapped_column(String(64), default="", server_default="")
    edition: Mapped[str] = mapped_column(String(16), default="", server_default="")
    #: It was exported, and every target has shown that it holds the export.
    proved: Mapped[bool] = mapped_column(default=False, server_default=false())
    #: Pictures of what was in doubt lie beside the originals.
    pictured: Mapped[bool] = mapped_column(default=False, server_default=false())
    #: What the retention rules did to the originals (``retention.Originals``).
    originals: Mapped[str] = mapped_column(String(16), default="kept", server_default="kept")
    #: Before this the retention rules leave it alone; None for "no matter when".
    dispose_at: Mapped[datetime | None] = mapped_column(Moment)

    #: The queue that its rule names, blank for the gateway's own.
    queue: Mapped[str] = mapped_column(String(64), default="", server_default="")
    #: Its ``intake.Rank`` among those that wait.
    rank: Mapped[int] = mapped_column(default=Rank.NORMAL.value, server_default="1")
    #: Where it comes from and goes to (``stream_of``): those that wait take turns by this.
    stream: Mapped[str] = mapped_column(Text, default="", server_default="")
    #: What people decided (``orders.Orders``), for the next message.
    orders: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict, server_default="{}")
    #: The export targets that may hold something of it although it did not end exported.
    left_at: Mapped[list[str]] = mapped_column(JSON, default=list, server_default="[]")

    #: An export of it, or a part of one, may stand at the targets: from when the first worker is
    #: about to send it until one says that nothing is left.
    exported: Mapped[bool] = mapped_column(default=False, server_default=true())
    #: Under which keys of pseudonyms it may stand there, with blanks between them (``key_watch``);
    #: "" where nobody said.
    exported_key: Mapped[str] = mapped_column(Text, default="", server_default="")
    #: Of which originals (``exports``); None where a ledger of before did not say.
    exported_of: Mapped[bytes | None] = mapped_column(LargeBinary)
    #: Of which originals the revision of now is, likewise.
    taken_of: Mapped[bytes | None] = mapped_column(LargeBinary)
    #: The images of it that workers were to send to a target ever, by the workers' marks.
    sent: Mapped[bytes | None] = mapped_column(LargeBinary)
    #: Its originals were deleted, or its export was to be withdrawn, for want of consent.
    unconsented: Mapped[bool] = mapped_column(default=False, server_default=false())
    #: The pseudonymous StudyInstanceUIDs under which workers were to send it to a target, each with
    #: the id of the pseudonyms' key.
    study_uids: Mapped[dict[str, str]] = mapped_column(JSON, default=dict, server_default="{}")

    #: The beginning of the name of the rule that took it in (``intake.Decision``); blank where a
    #: ledger of before did not say.
    rule: Mapped[str] = mapped_column(String(RULE_LENGTH), default="", server_default="")

    __table_args__ = (
        # The last two let the dashboard tell the times without reading the rows.
        Index("studies_by_state_and_time", "state", "updated", "revision", "first_seen"),
        Index("studies_by_time", "updated", "study_id"),
        Index("studies_by_reason", "reason", "updated"),
        Index("studies_by_state_and_reason", "state", "reason", "updated"),
        # Sets of targets as JSON writes a list (``queries``). PostgreSQL compares no JSON; and
        # SQLAlchemy does not see whether SQLite has an index of an expression.
        Index("studies_by_targets", "targets", "state", "updated", "study_id").ddl_if(
            dialect="sqlite"
        ),
        Index(
            "studies_by_written_targets",
            text("(CAST(targets AS VARCHAR))"),
            "state",
            "updated",
            "study_id",
        ).ddl_if(dialect="postgresql"),
        Index("studies_by_rule", "rule", "state", "updated", "study_id"),
        Index(
            "studies_that_wait",
            "queue",
            "rank",
            "stream",
            "updated",
            sqlite_where=_WAITS,
            postgresql_where=_WAITS,
        ),
        # What the retention rules look for, among all that has ended.
        Index(
            "studies_with_originals", "state", "updated", sqlite_where=KEPT, postgresql_where=KEPT
        ),
        Index(
            "studies_unproved",
            # Always the same here; without them SQLite would go through all exports instead.
            "state",
            "proved",
            "updated",
            "study_id",
            sqlite_where=text("state = 'exported' AND proved = 0"),
            postgresql_where=text("state = 'exported' AND proved = false"),
        ),
        Index("studies_losing_originals", "updated", sqlite_where=LOSES, postgresql_where=LOSES),
        Index(
            "studies_with_pictures",
            "state",
            "updated",
            sqlite_where=text("pictured IS 1"),
            postgresql_where=text("pictured IS true"),
        ),
    )

    def work_time(self) -> timedelta:
        """Give ``worked`` as a duration."""
        return timedelta(seconds=self.worked)

    def to_message(self) -> StudyMessage:
        """Give what a worker is asked for: the study as it is now, where to, what people said."""
        orders = Orders.from_json(self.orders)
        return StudyMessage(
            job_id=self.job_id,
            study_id=self.study_id,
            revision=self.revision,
            targets=tuple(self.targets),
            looked=orders.looked,
            errand=orders.errand,
            bundle=orders.bundle,
            strength=orders.strength,
        )

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
            queue=self.queue,
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
            targets=tuple(self.targets),
            first_seen=self.first_seen,
            updated=self.updated,
            worker_id=self.worker_id,
            durations=self.durations,
            measures=self.measures,
            key_id=self.key_id,
            profile=self.profile,
            proved=self.proved,
            has_originals=self.originals == "kept",
            left_at=tuple(self.left_at),
            orders=Orders.from_json(self.orders),
            pictured=self.pictured,
            stands=self.exported,
            rule=self.rule,
            exported_keys=tuple(self.exported_key.split()) if self.exported else (),
            unconsented=self.unconsented,
            named=bool(self.study_uids),
        )


class EventRow(Base):
    """One line of the audit trail (``prichexy_plugin.chain.Line``); the database alters none.

    A line outlives its study, so ``job_id`` refers to no row.
    """

    __tablename__ = "events"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    job_id: Mapped[str | None] = mapped_column(String(32), index=True)
    at: Mapped[datetime] = mapped_column(Moment, index=True)
    deed: Mapped[str] = mapped_column(String(32))
    from_state: Mapped[str | None] = mapped_column(String(16))
    to_state: Mapped[str | None] = mapped_column(String(16))
    actor: Mapped[str] = mapped_column(String(128))
    reason: Mapped[str | None] = mapped_column(String(64))
    details: Mapped[dict[str, int | str]] = mapped_column(JSON)
    key_id: Mapped[str] = mapped_column(String(16))
    digest: Mapped[str] = mapped_column(String(64))

    @classmethod
    def of(cls, line: Line) -> EventRow:
        """Make the row of a line."""
        values = {field.name: getattr(line, field.name) for field in fields(Line)}
        return cls(**{**values, "details": dict(line.details)})

    __table_args__ = (
        Index("events_by_step", "to_state", "at", "from_state"),
        # All that a search looks at, so that whose lines are many are gone through here.
        Index("events_by_actor", "actor", "number", "at", "to_state", "deed"),
        # Likewise; most lines have no reason.
        Index(
            "events_by_reason",
            "reason",
            "number",
            "at",
            "to_state",
            "deed",
            "actor",
            sqlite_where=_REASONED,
            postgresql_where=_REASONED,
        ),
        # A handful in millions: whatever is deleted by its age asks for those since.
        Index("events_of_the_clock", "number", sqlite_where=_JUMPED, postgresql_where=_JUMPED),
    )

    def to_record(self) -> EventRecord:
        """Give the step of a study; ValueError for a line with another deed than STEP."""
        return EventRecord(
            at=self.at,
            from_state=None if self.from_state is None else State(self.from_state),
            to_state=State(self.to_state or ""),
            actor=self.actor,
            reason=_reason(self.reason),
        )


class ChainRow(Base):
    """Where the audit trail ends or begins; whoever appends to it locks the row of its head."""

    __tablename__ = "audit_chain"

    name: Mapped[str] = mapped_column(String(16), primary_key=True)
    number: Mapped[int]
    digest: Mapped[str] = mapped_column(String(64))
    at: Mapped[datetime] = mapped_column(Moment)

    def to_head(self) -> Head:
        """Give the frozen value."""
        return Head(self.number, self.digest)


class DisposedRow(Base):
    """One original of a study that was deleted, or is being deleted, for a retention rule."""

    __tablename__ = "disposed_originals"

    study_id: Mapped[str] = mapped_column(String(44), primary_key=True)
    instance_id: Mapped[str] = mapped_column(String(44), primary_key=True)
    #: Of its file as it was when it was named (``studies.Studies.digest``); blank in ledgers of
    #: before.
    digest: Mapped[str] = mapped_column(String(64), default="", server_default="")


class DoubtRow(Base):
    """An image that a worker was in doubt about in one attempt (``orders.InDoubt``)."""

    __tablename__ = "images_in_doubt"

    study_id: Mapped[str] = mapped_column(String(44), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    revision: Mapped[int]
    attempt: Mapped[int]
    digest: Mapped[str] = mapped_column(String(64))
    rows: Mapped[int]
    columns: Mapped[int]
    #: The numbers of its boxes, one after the other.
    boxes: Mapped[list[int]] = mapped_column(JSON)


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

    #: ``Circuit.key``. Before there were circuits of single targets it was the blame alone.
    blame: Mapped[str] = mapped_column(Text, primary_key=True)
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
            blame=circuit.key,
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
        blame, *targets = self.blame.split(":")
        return Circuit(
            blame=Blame(blame),
            targets=tuple(targets) if blame != Blame.RESULT.value else (),
            studies=tuple(self.studies),
            reason=_reason(self.reason),
            opened=self.opened,
            probe=self.probe,
            probe_at=self.probe_at,
            failed_probes=self.failed_probes,
            succeeded=self.succeeded,
        )


class PauseRow(Base):
    """What somebody stopped for a while (``prichexy_plugin.pauses.Pause``)."""

    __tablename__ = "pauses"

    #: ``Pause.key``.
    name: Mapped[str] = mapped_column(String(128), primary_key=True)
    stage: Mapped[str] = mapped_column(String(16))
    target: Mapped[str] = mapped_column(String(64))
    since: Mapped[datetime] = mapped_column(Moment)
    actor: Mapped[str] = mapped_column(String(256))
    reason: Mapped[str] = mapped_column(String(64))

    @classmethod
    def of(cls, pause: Pause) -> PauseRow:
        """Make the row of a pause."""
        return cls(
            name=pause.key,
            stage=pause.stage.value,
            target=pause.target,
            since=pause.since,
            actor=pause.by,
            reason=pause.reason.value,
        )

    def to_pause(self) -> Pause:
        """Give the frozen value."""
        return Pause(Stage(self.stage), self.target, self.since, self.actor, Reason(self.reason))


class KeyOfPlaceRow(Base):
    """Under which key of pseudonyms was exported last to one set of targets (``key_watch``)."""

    __tablename__ = "keys_of_places"

    #: The targets' names, sorted, with commas between them; "" for those that the workers have.
    place: Mapped[str] = mapped_column(Text, primary_key=True)
    key_id: Mapped[str] = mapped_column(String(16))


class FactRow(Base):
    """A single value: the schema's version, the place in Orthanc's changes."""

    __tablename__ = "facts"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    number: Mapped[int]


def _reason(code: str | None) -> Reason | None:
    return None if code is None else Reason(code)
