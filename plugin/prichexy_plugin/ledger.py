"""The one owner of every study's state: each operation is one transaction.

A row is committed before anything about it is sent, so the ledger is the outbox as well. Every
step writes its line of the audit trail in the same transaction.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Engine, func, or_, select
from sqlalchemy.orm import Session

from prichexy_plugin.database import READS
from prichexy_plugin.intake import Decision
from prichexy_plugin.records import EventRecord, Page, StudyRecord, WorkerRecord
from prichexy_plugin.schema import EventRow, FactRow, StudyRow, WorkerRow
from prichexy_plugin.transitions import ACTIVE, LEGAL, Situation, step_for
from prichexy_worker.contract import (
    Claim,
    ContractError,
    Reason,
    State,
    StudyMessage,
    StudyReport,
    WorkerAnnouncement,
)

__all__ = ["PLUGIN", "Clock", "IllegalStep", "Ledger"]

#: Gives the present moment with its time zone.
Clock = Callable[[], datetime]
#: The plugin's name as an actor in the audit trail.
PLUGIN: Final = "plugin"
_CURSOR: Final = "changes"
#: A worker that has been silent for longer is forgotten.
_FORGET_WORKER_AFTER: Final = timedelta(days=1)


class IllegalStep(Exception):
    """A step that no study may take: a mistake in this program; nothing was written."""

    def __init__(self, before: State | None, after: State) -> None:
        super().__init__(f"from {before} to {after}")


class Ledger:
    """Keeps studies, their audit trail, the workers' announcements and the place in the changes.

    Every method may be called from any thread and raises SQLAlchemyError when the database fails.
    """

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    # --- Intake -----------------------------------------------------------------------------

    def cursor(self) -> int | None:
        """Give the number of the last change that was noted, None in a new ledger."""
        with self._reading() as session:
            fact = session.get(FactRow, _CURSOR)
            return None if fact is None else fact.number

    def note(self, arrivals: Mapping[str, datetime], cursor: int) -> None:
        """Note when to look at each study that something came in for, up to change ``cursor``."""
        with self._writing() as session:
            for study_id, look_at in arrivals.items():
                row = session.get(StudyRow, study_id)
                if row is None:
                    row = self._add(session, study_id)
                row.look_at = look_at
            session.merge(FactRow(name=_CURSOR, number=cursor))

    def due(self, limit: int = 100) -> tuple[str, ...]:
        """Name the studies to look at now, the longest due first."""
        with self._reading() as session:
            rows = session.scalars(
                select(StudyRow.study_id)
                .where(StudyRow.look_at <= self._clock())
                .order_by(StudyRow.look_at)
                .limit(limit)
            )
            return tuple(rows)

    def look_later(self, study_id: str, at: datetime) -> None:
        """Look at the study again at ``at``."""
        with self._writing() as session:
            session.get_one(StudyRow, study_id).look_at = at

    def settle(self, study_id: str, decision: Decision, *, content: str, instances: int) -> None:
        """Write down the decision over a stable study that holds ``content``, a digest.

        A study that was taken in with this same content before stays as it is; any other content
        is a new revision, which voids all that workers still do and report on the older one.
        """
        with self._writing() as session:
            row = session.get_one(StudyRow, study_id)
            row.look_at = None
            before = State(row.state)
            if decision.taken:
                if before not in (State.WATCHED, State.REJECTED) and row.content == content:
                    return
                row.content = content
            elif before is State.REJECTED and row.reason == decision.reason:
                return
            row.instances = instances
            self._renew(row, before)
            self._step(
                session, row, State.PENDING if decision.taken else State.REJECTED, decision.reason
            )

    def gone(self, study_id: str) -> None:
        """Write down that Orthanc no longer has the study; one that has ended stays as it is."""
        with self._writing() as session:
            row = session.get_one(StudyRow, study_id)
            row.look_at = None
            before = State(row.state)
            if before in ACTIVE:
                self._renew(row, before)
                self._step(session, row, State.REJECTED, Reason.GONE)

    # --- Outbox -----------------------------------------------------------------------------

    def outbox(self, limit: int = 50) -> tuple[StudyMessage, ...]:
        """Give the messages that wait to be sent, oldest first."""
        with self._reading() as session:
            rows = session.scalars(
                select(StudyRow)
                .where(StudyRow.state == State.PENDING.value)
                .order_by(StudyRow.updated, StudyRow.study_id)
                .limit(limit)
            )
            return tuple(
                StudyMessage(job_id=row.job_id, study_id=row.study_id, revision=row.revision)
                for row in rows
            )

    def sent(self, message: StudyMessage) -> None:
        """Write down that the broker has the message, unless the study has moved on since."""
        with self._writing() as session:
            row = session.get_one(StudyRow, message.study_id)
            if row.state == State.PENDING.value and row.revision == message.revision:
                self._step(session, row, State.QUEUED, None)

    def recall(self, silent_for: timedelta) -> int:
        """Put handed-out studies that nobody reported on for so long back into the outbox.

        For a broker that lost what it held. Gives their number. A message may so exist twice,
        which the claim and the idempotent work make harmless.
        """
        with self._writing() as session:
            rows = session.scalars(
                select(StudyRow).where(
                    StudyRow.state.in_((State.QUEUED.value, State.PROCESSING.value)),
                    StudyRow.updated < self._clock() - silent_for,
                )
            ).all()
            for row in rows:
                self._step(session, row, State.PENDING, None)
            return len(rows)

    # --- Workers ----------------------------------------------------------------------------

    def report(self, report: StudyReport) -> Claim:
        """Take a worker's report in and say whether the worker may go on with the study."""
        with self._writing() as session:
            row = session.scalar(select(StudyRow).where(StudyRow.job_id == report.job_id))
            if row is None:
                return Claim(proceed=False)
            situation = Situation(State(row.state), revision=row.revision, attempts=row.attempts)
            step = step_for(situation, report)
            if step is None:
                return Claim(proceed=False)
            row.attempts = step.attempts
            row.worker_id = report.worker_id
            row.instances = report.instances or row.instances
            row.durations = dict(report.durations)
            row.measures = dict(report.measures)
            if step.state is State.QUEUED:
                row.trouble = step.reason
            self._step(session, row, step.state, step.reason, actor=report.worker_id)
            return Claim(proceed=step.proceed)

    def announce(self, announcement: WorkerAnnouncement) -> None:
        """Remember that this worker lives; forget those that were not heard of for a day."""
        now = self._clock()
        with self._writing() as session:
            session.merge(
                WorkerRow(
                    worker_id=announcement.worker_id,
                    announcement=announcement.to_json(),
                    seen=now,
                )
            )
            for row in session.scalars(
                select(WorkerRow).where(WorkerRow.seen < now - _FORGET_WORKER_AFTER)
            ):
                session.delete(row)

    # --- What people see --------------------------------------------------------------------

    def workers(self) -> tuple[WorkerRecord, ...]:
        """Give the workers by their ids."""
        with self._reading() as session:
            workers = []
            for row in session.scalars(select(WorkerRow).order_by(WorkerRow.worker_id)):
                # One of an older version says nothing until the worker announces itself anew.
                with suppress(ContractError):
                    workers.append(row.to_record())
            return tuple(workers)

    def counts(self) -> dict[State, int]:
        """Count the studies in each state, 0 included."""
        with self._reading() as session:
            rows = session.execute(
                select(StudyRow.state, func.count()).group_by(StudyRow.state)
            ).all()
            found = {State(state): count for state, count in rows}
            return {state: found.get(state, 0) for state in State}

    def studies(
        self,
        *,
        state: State | None = None,
        study_id: str | None = None,
        limit: int = 50,
        offset: int = 0,
    ) -> Page:
        """Give one page of the studies, the last changed first."""
        wanted = []
        if state is not None:
            wanted.append(StudyRow.state == state.value)
        if study_id is not None:
            wanted.append(or_(StudyRow.study_id == study_id, StudyRow.job_id == study_id))
        with self._reading() as session:
            total = session.scalar(select(func.count()).select_from(StudyRow).where(*wanted))
            rows = session.scalars(
                select(StudyRow)
                .where(*wanted)
                .order_by(StudyRow.updated.desc(), StudyRow.study_id)
                .limit(limit)
                .offset(offset)
            )
            return Page(total=total or 0, studies=tuple(row.to_record() for row in rows))

    def study(self, job_id: str) -> StudyRecord | None:
        """Give one study, None when there is no such job."""
        with self._reading() as session:
            row = session.scalar(select(StudyRow).where(StudyRow.job_id == job_id))
            return None if row is None else row.to_record()

    def events(self, job_id: str) -> tuple[EventRecord, ...]:
        """Give a study's audit trail, oldest first."""
        with self._reading() as session:
            rows = session.scalars(
                select(EventRow).where(EventRow.job_id == job_id).order_by(EventRow.number)
            )
            return tuple(row.to_record() for row in rows)

    # --- Inside -----------------------------------------------------------------------------

    @contextmanager
    def _writing(self) -> Iterator[Session]:
        with Session(self._engine) as session, session.begin():
            yield session

    @contextmanager
    def _reading(self) -> Iterator[Session]:
        engine = self._engine.execution_options(**{READS: True})
        with Session(engine) as session, session.begin():
            yield session

    def _add(self, session: Session, study_id: str) -> StudyRow:
        now = self._clock()
        row = StudyRow(
            study_id=study_id,
            job_id=uuid.uuid4().hex,
            state=State.WATCHED.value,
            reason=None,
            trouble=None,
            revision=1,
            attempts=0,
            instances=0,
            content="",
            first_seen=now,
            updated=now,
            look_at=now,
            worker_id=None,
            durations={},
            measures={},
        )
        session.add(row)
        session.flush()
        self._write_event(session, row, None, PLUGIN)
        return row

    def _renew(self, row: StudyRow, before: State) -> None:
        """Make the row that of a new revision; the first decision is on revision 1."""
        if before is not State.WATCHED:
            row.revision += 1
        row.attempts = 0
        row.trouble = None
        row.worker_id = None
        row.durations = {}
        row.measures = {}

    def _step(
        self,
        session: Session,
        row: StudyRow,
        after: State,
        reason: Reason | None,
        actor: str = PLUGIN,
    ) -> None:
        before = State(row.state)
        if after not in LEGAL[before]:
            raise IllegalStep(before, after)
        row.state = after.value
        row.reason = None if reason is None else reason.value
        row.updated = self._clock()
        self._write_event(session, row, before, actor)

    def _write_event(
        self, session: Session, row: StudyRow, before: State | None, actor: str
    ) -> None:
        session.add(
            EventRow(
                job_id=row.job_id,
                at=row.updated,
                from_state=None if before is None else before.value,
                to_state=row.state,
                actor=actor,
                reason=row.reason,
            )
        )
