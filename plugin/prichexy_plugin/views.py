"""What people see of the ledger: its reading half."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import ColumnElement, Engine, and_, func, literal_column, not_, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from prichexy_plugin.backfill import WAITING_LIMIT, Backfill
from prichexy_plugin.chain import Deed
from prichexy_plugin.database import READS
from prichexy_plugin.intake import Rank, targets_of
from prichexy_plugin.pauses import Pause, Stage, holds, intake_is_paused
from prichexy_plugin.records import EventRecord, Page, StudyRecord, WorkerRecord
from prichexy_plugin.schema import (
    BackfillRow,
    CircuitRow,
    EventRow,
    PauseRow,
    StudyRow,
    WorkerRow,
)
from prichexy_plugin.stops import concerns
from prichexy_plugin.sweep import PATIENCE, Late, Surroundings, cause_of
from prichexy_worker.contract import (
    ANNOUNCE_INTERVAL_SECONDS,
    DEFAULT_QUEUE,
    ContractError,
    State,
)
from prichexy_worker.retry import Blame, Circuit

__all__ = [
    "LATE_SHOWN",
    "WAITS",
    "WORKER_LIVES",
    "Views",
    "circuits_in",
    "lines_in",
    "living_workers",
    "long_before",
    "pauses_in",
]

#: A worker that announced itself so lately still works on what it claimed.
WORKER_LIVES: Final = timedelta(seconds=4 * ANNOUNCE_INTERVAL_SECONDS)
#: The studies that the index of those that wait holds: as it stands there, not as a parameter.
WAITS: Final = StudyRow.state == literal_column(f"'{State.PENDING.value}'")
#: Of the late studies so many are looked at.
LATE_SHOWN: Final = 500


class Views:
    """Reads the ledger; any thread, no writing. Every method raises SQLAlchemyError."""

    def __init__(
        self,
        engine: Engine,
        own_queue: str = DEFAULT_QUEUE,
        named_queues: Collection[str] | None = None,
    ) -> None:
        """Read ``engine``; ``named_queues`` are those of the intake rules, None for any."""
        self._engine = engine
        self._own_queue = own_queue
        self._named = None if named_queues is None else frozenset({"", *named_queues})

    @contextmanager
    def _reading(self) -> Iterator[Session]:
        engine = self._engine.execution_options(**{READS: True})
        with Session(engine) as session, session.begin():
            yield session

    def unreadable(self) -> int:
        """Count the studies whose last look failed and that are looked at again later."""
        with self._reading() as session:
            query = select(func.count()).select_from(StudyRow).where(StudyRow.failed_looks > 0)
            return session.scalar(query) or 0

    def backfill(self) -> Backfill | None:
        """Give the last backfill, which may have ended; None when there was none."""
        with self._reading() as session:
            row = session.scalar(select(BackfillRow).order_by(BackfillRow.number.desc()).limit(1))
            return None if row is None else row.to_backfill()

    def is_congested(self) -> bool:
        """Say whether a backfill should wait: nothing is taken in or handed out, or many wait.

        Those do not count that wait for an export target which others do without.
        """
        with self._reading() as session:
            pauses = pauses_in(session)
            if any(pause.stage is not Stage.TARGET for pause in pauses):
                return True
            opened = [circuit for circuit in circuits_in(session).values() if circuit.is_open]
            if any(circuit.blame is not Blame.TARGET for circuit in opened):
                return True
            waiting = select(StudyRow.study_id).where(StudyRow.state == State.PENDING.value)
            if opened or pauses:
                lines = {stream for _queue, _rank, stream in lines_in(session)}
                stops: list[Circuit | Pause] = [*opened, *pauses]
                held = {one for one in lines if any(s.concerns(targets_of(one)) for s in stops)}
                if held == lines:
                    return bool(lines)
                waiting = waiting.where(StudyRow.stream.not_in(held))
            found = waiting.limit(WAITING_LIMIT).subquery()
            return (session.scalar(select(func.count()).select_from(found)) or 0) >= WAITING_LIMIT

    def circuits(self) -> dict[str, Circuit]:
        """Tell how each thing around the studies is doing, by the circuits' keys."""
        with self._reading() as session:
            return circuits_in(session)

    def pauses(self) -> tuple[Pause, ...]:
        """Tell what somebody stopped for a while, by the pauses' keys in order."""
        with self._reading() as session:
            return pauses_in(session)

    def waiting_by_targets(self) -> dict[tuple[str, ...], int]:
        """Count the studies that wait to be handed out, by where they go to."""
        query = select(StudyRow.stream, func.count()).where(WAITS).group_by(StudyRow.stream)
        found: Counter[tuple[str, ...]] = Counter()
        with self._reading() as session:
            for stream, count in session.execute(query):
                found[targets_of(stream)] += count
        return dict(found)

    def due_count(self) -> int:
        """Count the studies that came in and are yet to be decided over, new or grown."""
        query = select(func.count()).select_from(StudyRow).where(StudyRow.look_at.is_not(None))
        with self._reading() as session:
            return session.scalar(query) or 0

    def takers(self, now: datetime) -> Counter[str]:
        """Count the living workers by the queues that they take from, "" for the gateway's own."""
        with self._reading() as session:
            return self._takers(session, now)

    def queues_that_wait(self) -> frozenset[str]:
        """Name the queues of the studies that wait to be handed out, "" for the gateway's own.

        It does not matter how many wait.
        """
        with self._reading() as session:
            return frozenset(_steps(session, StudyRow.queue))

    def _takers(self, session: Session, now: datetime) -> Counter[str]:
        lately = not_(long_before(WorkerRow.seen, now, WORKER_LIVES))
        living = select(WorkerRow.announcement).where(lately)
        found: Counter[str] = Counter()
        for announcement in session.scalars(living):
            queues = announcement.get("queues") or [self._own_queue]
            found.update("" if queue == self._own_queue else queue for queue in queues)
        return found

    def late(
        self, now: datetime, *, broker_reachable: bool, limit: int = LATE_SHOWN
    ) -> tuple[Late, ...]:
        """Give the studies that are late, with their cause, the longest waiting first."""
        with self._reading() as session:
            opened = [circuit for circuit in circuits_in(session).values() if circuit.is_open]
            pauses = pauses_in(session)
            around = Surroundings(
                now,
                held=False,
                broker_reachable=broker_reachable,
                living=living_workers(session, now),
                served=frozenset(self._takers(session, now)),
                named=self._named,
            )
            old = [
                and_(StudyRow.state == state.value, StudyRow.updated < now - patience)
                for state, patience in PATIENCE.items()
            ]
            rows = session.scalars(
                select(StudyRow).where(or_(*old)).order_by(StudyRow.updated).limit(limit)
            )
            causes = []
            for row in rows:
                study, targets = row.to_waiting(), row.targets
                held = any(concerns(circuit, targets, row.rank) for circuit in opened)
                arriving = study.state is State.WATCHED
                paused = intake_is_paused(pauses) if arriving else holds(pauses, targets, row.rank)
                here = replace(around, held=held, paused=paused)
                causes.append((study, cause_of(study, here)))
            return tuple(Late(study, cause) for study, cause in causes if cause is not None)

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
        """Give the steps that a study took, oldest first."""
        with self._reading() as session:
            rows = session.scalars(
                select(EventRow)
                .where(EventRow.job_id == job_id, EventRow.deed == Deed.STEP.value)
                .order_by(EventRow.number)
            )
            return tuple(row.to_record() for row in rows)


def circuits_in(session: Session) -> dict[str, Circuit]:
    """Give every circuit by its key.

    Those of which nothing was ever written are closed; of the ones of single export targets only
    these others are given.
    """
    closed = {blame.value: Circuit(blame) for blame in Blame}
    return closed | {row.blame: row.to_circuit() for row in session.scalars(select(CircuitRow))}


def pauses_in(session: Session) -> tuple[Pause, ...]:
    """Give every pause, in the order of their keys."""
    return tuple(
        row.to_pause() for row in session.scalars(select(PauseRow).order_by(PauseRow.name))
    )


def lines_in(session: Session, queue: str | None = None) -> Iterator[tuple[str, Rank, str]]:
    """Give the queues, ranks and streams of all that wait to be handed out, in their order.

    Each step is one look into an index: it does not matter how many wait.
    """
    queues = [queue] if queue is not None else list(_steps(session, StudyRow.queue))
    for name in queues:
        for rank in Rank:
            of_rank = (StudyRow.queue == name, StudyRow.rank == rank.value)
            for stream in _steps(session, StudyRow.stream, *of_rank):
                yield name, rank, stream


def _steps(
    session: Session, column: InstrumentedAttribute[str], *among: ColumnElement[bool]
) -> Iterator[str]:
    """Give the different values of a column among the studies that wait."""
    value: str | None = None
    while True:
        beyond = [] if value is None else [column > value]
        value = session.scalar(select(func.min(column)).where(WAITS, *among, *beyond))
        if value is None:
            return
        yield value


def living_workers(session: Session, now: datetime) -> frozenset[str]:
    """Name the workers that announced themselves lately."""
    seen = select(WorkerRow.worker_id).where(not_(long_before(WorkerRow.seen, now, WORKER_LIVES)))
    return frozenset(session.scalars(seen))


def long_before(
    moment: InstrumentedAttribute[datetime], now: datetime, silent_for: timedelta
) -> ColumnElement[bool]:
    """Select the rows whose ``moment`` is longer ago than ``silent_for``, or as far ahead.

    What was written while the clock was ahead lies in the future once it is right, and would be
    taken for news until then.
    """
    return or_(moment < now - silent_for, moment > now + silent_for)
