"""The one owner of every study's state: each operation is one transaction.

A row is committed before anything about it is sent, so the ledger is the outbox as well. Every
step writes its line of the audit trail in the same transaction.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Engine, and_, or_, select
from sqlalchemy.orm import Session

from prichexy_plugin.backfill import Backfill
from prichexy_plugin.intake import Decision
from prichexy_plugin.schema import BackfillRow, CircuitRow, EventRow, FactRow, StudyRow, WorkerRow
from prichexy_plugin.studies import Listed
from prichexy_plugin.transitions import ACTIVE, Situation, is_legal, step_for
from prichexy_plugin.views import WORKER_LIVES, Views, circuits_in, living_workers
from prichexy_worker.contract import (
    MAX_ATTEMPTS,
    Claim,
    Reason,
    State,
    StudyMessage,
    StudyReport,
    WorkerAnnouncement,
)
from prichexy_worker.retry import BLAMED, Blame, Circuit, after_report, excuses

__all__ = ["PLUGIN", "Clock", "IllegalStep", "Ledger"]

#: Gives the present moment with its time zone.
Clock = Callable[[], datetime]
#: The plugin's name as an actor in the audit trail.
PLUGIN: Final = "plugin"
_CURSOR: Final = "changes"
#: A worker that has been silent for longer is forgotten.
_FORGET_WORKER_AFTER: Final = timedelta(days=1)
#: But on no study for so long: it was started anew under the same name and knows nothing of it.
_LONGEST_CLAIM: Final = timedelta(days=1)
#: How often a study that no worker claims is sent before it is given up.
_MAX_SENDINGS: Final = MAX_ATTEMPTS


class IllegalStep(Exception):
    """A step that no study may take, or not by this actor: a mistake in this program.

    Nothing was written.
    """

    def __init__(self, before: State | None, after: State) -> None:
        super().__init__(f"from {before} to {after}")


class Ledger(Views):
    """Keeps studies, their audit trail, the workers' announcements and the place in the changes.

    Every method may be called from any thread and raises SQLAlchemyError when the database fails.
    """

    def __init__(self, engine: Engine, clock: Clock) -> None:
        super().__init__(engine)
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
                row.backfilled = False
            session.merge(FactRow(name=_CURSOR, number=cursor))

    def due(self, limit: int = 100) -> tuple[str, ...]:
        """Name the studies to look at now, the longest due first.

        A watched one that nobody would ever look at, whatever made it so, is among them.
        """
        forgotten = and_(StudyRow.state == State.WATCHED.value, StudyRow.look_at.is_(None))
        with self._reading() as session:
            rows = session.scalars(
                select(StudyRow.study_id)
                .where(or_(StudyRow.look_at <= self._clock(), forgotten))
                .order_by(StudyRow.look_at)
                .limit(limit)
            )
            return tuple(rows)

    def look_later(self, study_id: str, at: datetime) -> None:
        """Look at the study again at ``at``; this look succeeded."""
        with self._writing() as session:
            row = session.get_one(StudyRow, study_id)
            row.look_at, row.failed_looks = at, 0

    def look_failed(self, study_id: str, pauses: Sequence[timedelta]) -> None:
        """Look at an unreadable study again after the next of ``pauses``, and end it after all."""
        with self._writing() as session:
            row = session.get_one(StudyRow, study_id)
            if row.failed_looks < len(pauses):
                row.look_at = self._clock() + pauses[row.failed_looks]
                row.failed_looks += 1
            else:
                self._turn_away(session, row, Reason.UNREADABLE)

    def settle(
        self,
        study_id: str,
        decision: Decision,
        *,
        content: str,
        instances: int,
        last_update: datetime | None = None,
    ) -> None:
        """Write down the decision over a stable study that holds ``content``, a digest.

        ``last_update`` is when its last instance came, by which a backfill sees later ones.

        A study that was taken in with this same content before stays as it is; any other content
        is a new revision, which voids all that workers still do and report on the older one.
        """
        with self._writing() as session:
            row = session.get_one(StudyRow, study_id)
            row.last_update = last_update
            if decision.reason is not None:
                row.instances = instances
                self._turn_away(session, row, decision.reason)
                return
            row.look_at, row.failed_looks = None, 0
            before = State(row.state)
            if before not in (State.WATCHED, State.REJECTED) and row.content == content:
                return
            row.content, row.instances = content, instances
            self._renew(row, before)
            self._step(session, row, State.PENDING, None)

    def gone(self, study_id: str) -> None:
        """Write down that Orthanc no longer has the study; one that has ended stays as it is."""
        with self._writing() as session:
            row = session.get_one(StudyRow, study_id)
            if State(row.state) in ACTIVE:
                self._turn_away(session, row, Reason.GONE)
            row.look_at, row.failed_looks = None, 0

    # --- Backfill ---------------------------------------------------------------------------

    def start_backfill(self, *, per_minute: int, total: int, by: str) -> Backfill:
        """Begin a walk over ``total`` studies, or give the one under way the new rate."""
        now = self._clock()
        with self._writing() as session:
            row = self._running_backfill(session)
            if row is None:
                fresh = Backfill(0, now, by, per_minute, total)
                values = asdict(fresh)
                del values["number"]
                row = BackfillRow(**values)
                session.add(row)
                session.flush()
            row.per_minute, row.next_at = per_minute, None
            return row.to_backfill()

    def stop_backfill(self, by: str) -> None:
        """End the walk that is under way, if any; what it brought goes on."""
        with self._writing() as session:
            row = self._running_backfill(session)
            if row is not None:
                row.ended, row.stopped_by = self._clock(), by

    def backfill_page(self, walk: Backfill, page: Sequence[Listed]) -> Backfill:
        """Have all of ``page`` looked at that calls for it, and write down how far ``walk`` is.

        Nothing is done when the walk was stopped or another call was faster.
        """
        now = self._clock()
        with self._writing() as session:
            row = self._running_backfill(session)
            if row is None or row.to_backfill() != walk:
                return walk if row is None else row.to_backfill()
            found = again = 0
            for listed in page:
                study = session.get(StudyRow, listed.study_id)
                if study is None:
                    study = self._add(session, listed.study_id)
                    study.backfilled = True
                    found += 1
                elif study.look_at is None and _calls_for_a_look(study, listed):
                    study.look_at = now
                    again += 1
            after = walk.after_page(tuple(page), found=found, again=again, now=now)
            for name, value in asdict(after).items():
                setattr(row, name, value)
            return after

    def _running_backfill(self, session: Session) -> BackfillRow | None:
        return session.scalar(
            select(BackfillRow)
            .where(BackfillRow.ended.is_(None))
            .order_by(BackfillRow.number)
            .limit(1)
        )

    # --- Outbox -----------------------------------------------------------------------------

    def outbox(self, limit: int = 50) -> tuple[StudyMessage, ...]:
        """Give the messages that wait to be sent: arrivals before a backfill's, oldest first."""
        with self._reading() as session:
            found: list[StudyRow] = []
            for backfilled in (False, True):
                rows = session.scalars(
                    select(StudyRow)
                    .where(
                        StudyRow.state == State.PENDING.value, StudyRow.backfilled.is_(backfilled)
                    )
                    .order_by(StudyRow.updated, StudyRow.study_id)
                    .limit(limit - len(found))
                )
                found += rows
            messages = tuple(
                StudyMessage(job_id=row.job_id, study_id=row.study_id, revision=row.revision)
                for row in found
            )
            returned = [row.study_id for row in found if row.returned]
        if returned:
            # They are sent after this: whatever came back was an older message.
            with self._writing() as session:
                for study_id in returned:
                    session.get_one(StudyRow, study_id).returned = False
        return messages

    def sent(self, message: StudyMessage) -> None:
        """Write down that the broker has the message, unless the study has moved on since."""
        with self._writing() as session:
            row = session.get_one(StudyRow, message.study_id)
            if row.state != State.PENDING.value or row.revision != message.revision:
                return
            if row.returned:
                row.returned = False
                return
            row.sendings += 1
            self._step(session, row, State.QUEUED, None)

    def probe(self) -> StudyMessage | None:
        """While the handing out is stopped, give the one study to let through now, if any.

        It is the one under way as long as its message has yet to be sent; else, when it is time,
        the one that waited longest since it was last touched.
        """
        now = self._clock()
        with self._writing() as session:
            row = self._probe_under_way(session)
            if row is None:
                opened = [one for one in circuits_in(session).values() if one.is_open]
                if not opened or not all(circuit.wants_probe(now) for circuit in opened):
                    return None
                row = session.scalar(
                    select(StudyRow)
                    .where(StudyRow.state == State.PENDING.value)
                    .order_by(StudyRow.updated, StudyRow.study_id)
                    .limit(1)
                )
                if row is None:
                    return None
                for circuit in opened:
                    session.merge(CircuitRow.of(circuit.with_probe(row.job_id, now)))
                row.returned = False
            return StudyMessage(job_id=row.job_id, study_id=row.study_id, revision=row.revision)

    def _probe_under_way(self, session: Session) -> StudyRow | None:
        """Give the probe that waits to be sent; let go of one that ended by another way."""
        for circuit in circuits_in(session).values():
            if circuit.probe is None:
                continue
            row = session.scalar(select(StudyRow).where(StudyRow.job_id == circuit.probe))
            if row is None or State(row.state) not in ACTIVE:
                over = circuit.after_no_answer(circuit.probe, self._clock())
                session.merge(CircuitRow.of(over))
                continue
            if row.state == State.PENDING.value:
                return row
        return None

    def recall(self, silent_for: timedelta, at_broker: Collection[str] = ()) -> int:
        """Put handed-out studies that nobody reported on for so long back into the outbox.

        For a broker that lost what it held; a message may so exist twice, which the claim makes
        harmless. What a living worker has claimed stays with it, and so do the jobs whose messages
        are ``at_broker``. A study that was sent
        ``_MAX_SENDINGS`` times without any claim is given up: workers do not understand its
        message. Gives the number of studies put back.
        """
        now = self._clock()
        back = 0
        with self._writing() as session:
            living = living_workers(session, now)
            rows = session.scalars(
                select(StudyRow).where(
                    StudyRow.state.in_((State.QUEUED.value, State.PROCESSING.value)),
                    StudyRow.updated < now - silent_for,
                )
            ).all()
            for row in rows:
                claimed = row.state == State.PROCESSING.value and row.worker_id in living
                if claimed and row.updated >= now - _LONGEST_CLAIM:
                    continue
                if row.job_id in at_broker:
                    continue
                if row.sendings >= _MAX_SENDINGS:
                    self._step(session, row, State.FAILED, Reason.TOO_MANY_ATTEMPTS)
                else:
                    self._step(session, row, State.PENDING, None)
                    back += 1
        return back

    def silent_since(self, silent_for: timedelta) -> bool:
        """Say whether a study was handed out and not spoken of for so long."""
        with self._reading() as session:
            found = session.scalar(
                select(StudyRow.study_id)
                .where(
                    StudyRow.state.in_((State.QUEUED.value, State.PROCESSING.value)),
                    StudyRow.updated < self._clock() - silent_for,
                )
                .limit(1)
            )
            return found is not None

    def recall_orphans(self) -> int:
        """Put claimed studies whose worker fell silent back into the outbox; give their number.

        The broker would give such a study to another worker, too, but only after the longest time
        that a worker may take. A worker that lives after all keeps its claim until another one
        makes a new claim; its message, if it comes again, finds the study ended or claimed.
        """
        silent_since = self._clock() - WORKER_LIVES
        with self._writing() as session:
            rows = session.scalars(
                select(StudyRow)
                .join(WorkerRow, WorkerRow.worker_id == StudyRow.worker_id)
                .where(
                    StudyRow.state == State.PROCESSING.value,
                    StudyRow.updated < silent_since,
                    WorkerRow.seen < silent_since,
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
            circuits = circuits_in(session)
            situation = Situation(
                State(row.state),
                revision=row.revision,
                attempts=row.attempts,
                excused=row.excused,
                worked=row.work_time(),
                held=_held(circuits, row.job_id),
            )
            step = step_for(situation, report)
            if step is None:
                return Claim(proceed=False)
            if not step.moves:
                return Claim(proceed=True, attempt=step.attempts)
            # Whatever it is: a worker understood the message.
            row.sendings = 0
            if step.state is State.PENDING:
                row.returned = situation.state is State.PENDING
                self._step(session, row, State.PENDING, step.reason)
                return Claim(proceed=False)
            if step.state is not State.PROCESSING:
                self._learn(session, row, circuits, report)
            row.attempts = step.attempts
            row.worker_id = report.worker_id
            row.instances = report.instances or row.instances
            row.durations = dict(report.durations)
            row.measures = dict(report.measures)
            row.key_id, row.profile = report.key_id, report.profile
            if step.state is State.QUEUED:
                row.trouble = step.reason
            self._step(session, row, step.state, step.reason, actor=report.worker_id)
            if not step.proceed:
                return Claim(proceed=False)
            if step.state is not State.PROCESSING:
                return Claim(proceed=True, attempt=step.attempts)
            return Claim(proceed=True, attempt=step.attempts, left=step.left, final=step.final)

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

    # --- Inside -----------------------------------------------------------------------------

    def _learn(
        self,
        session: Session,
        row: StudyRow,
        circuits: Mapping[Blame, Circuit],
        report: StudyReport,
    ) -> None:
        """Take from a worker's verdict what it says of all around the study, and of the attempt."""
        now = self._clock()
        after = after_report(circuits, row.job_id, report.state, report.reason, now)
        for blame, circuit in after.items():
            if circuit != circuits[blame]:
                session.merge(CircuitRow.of(circuit))
        if report.state is not State.QUEUED:
            return
        row.worked += max(0.0, (now - row.updated).total_seconds())
        reason = report.reason
        if reason is not None and reason in BLAMED:
            succeeded = circuits[BLAMED[reason]].succeeded
            row.excused += excuses(
                reason,
                others_succeeded=succeeded is not None and succeeded >= row.updated,
                circuit_open=after[BLAMED[reason]].is_open,
            )

    @contextmanager
    def _writing(self) -> Iterator[Session]:
        with Session(self._engine) as session, session.begin():
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
            failed_looks=0,
            sendings=0,
            excused=0,
            worked=0.0,
            returned=False,
            backfilled=False,
            last_update=None,
            worker_id=None,
            durations={},
            measures={},
            key_id="",
            profile="",
        )
        session.add(row)
        session.flush()
        self._write_event(session, row, None, PLUGIN)
        return row

    def _turn_away(self, session: Session, row: StudyRow, reason: Reason) -> None:
        row.look_at, row.failed_looks = None, 0
        before = State(row.state)
        if before is not State.REJECTED or row.reason != reason:
            self._renew(row, before)
            self._step(session, row, State.REJECTED, reason)

    def _renew(self, row: StudyRow, before: State) -> None:
        """Make the row that of a new revision; the first decision is on revision 1."""
        if before is not State.WATCHED:
            row.revision += 1
        row.attempts = 0
        row.excused = 0
        row.worked = 0.0
        row.returned = False
        row.sendings = 0
        row.trouble = None
        row.worker_id = None
        row.durations = {}
        row.measures = {}
        row.key_id = row.profile = ""

    def _step(
        self,
        session: Session,
        row: StudyRow,
        after: State,
        reason: Reason | None,
        actor: str = PLUGIN,
    ) -> None:
        before = State(row.state)
        if not is_legal(before, after, by="plugin" if actor == PLUGIN else "worker"):
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


def _held(circuits: Mapping[Blame, Circuit], job_id: str) -> Reason | None:
    """Say why the handing out is stopped for a study, None when it is not."""
    for circuit in circuits.values():
        if not circuit.admits(job_id):
            return circuit.reason or Reason.UNEXPECTED
    return None


def _calls_for_a_look(study: StudyRow, listed: Listed) -> bool:
    """Say whether a backfill has a known study looked at: it grew unseen, or no rule took it."""
    if study.reason == Reason.NO_RULE_MATCHES.value:
        return True
    return study.last_update is None or study.last_update != listed.last_update
