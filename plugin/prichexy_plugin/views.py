"""What people see of the ledger: its reading half."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Engine, and_, func, or_, select
from sqlalchemy.orm import Session

from prichexy_plugin.backfill import WAITING_LIMIT, Backfill
from prichexy_plugin.database import READS
from prichexy_plugin.records import EventRecord, Page, StudyRecord, WorkerRecord
from prichexy_plugin.schema import BackfillRow, CircuitRow, EventRow, StudyRow, WorkerRow
from prichexy_plugin.sweep import PATIENCE, Late, Surroundings, cause_of
from prichexy_worker.contract import ANNOUNCE_INTERVAL_SECONDS, ContractError, State
from prichexy_worker.retry import Blame, Circuit

__all__ = ["LATE_SHOWN", "WORKER_LIVES", "Views", "circuits_in", "living_workers"]

#: A worker that announced itself so lately still works on what it claimed.
WORKER_LIVES: Final = timedelta(seconds=4 * ANNOUNCE_INTERVAL_SECONDS)
#: Of the late studies so many are looked at.
LATE_SHOWN: Final = 500


class Views:
    """Reads the ledger; any thread, no writing. Every method raises SQLAlchemyError."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

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
        """Say whether a backfill should wait: the handing out is stopped, or many wait for it."""
        with self._reading() as session:
            if any(circuit.is_open for circuit in circuits_in(session).values()):
                return True
            waiting = select(StudyRow.study_id).where(StudyRow.state == State.PENDING.value)
            found = waiting.limit(WAITING_LIMIT).subquery()
            return (session.scalar(select(func.count()).select_from(found)) or 0) >= WAITING_LIMIT

    def circuits(self) -> dict[Blame, Circuit]:
        """Tell how each thing around the studies is doing."""
        with self._reading() as session:
            return circuits_in(session)

    def late(
        self, now: datetime, *, broker_reachable: bool, limit: int = LATE_SHOWN
    ) -> tuple[Late, ...]:
        """Give the studies that are late, with their cause, the longest waiting first."""
        with self._reading() as session:
            circuits = circuits_in(session).values()
            around = Surroundings(
                now,
                held=any(circuit.is_open for circuit in circuits),
                broker_reachable=broker_reachable,
                living=living_workers(session, now),
            )
            old = [
                and_(StudyRow.state == state.value, StudyRow.updated < now - patience)
                for state, patience in PATIENCE.items()
            ]
            rows = session.scalars(
                select(StudyRow).where(or_(*old)).order_by(StudyRow.updated).limit(limit)
            )
            found = [row.to_waiting() for row in rows]
            causes = [(study, cause_of(study, around)) for study in found]
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
        """Give a study's audit trail, oldest first."""
        with self._reading() as session:
            rows = session.scalars(
                select(EventRow).where(EventRow.job_id == job_id).order_by(EventRow.number)
            )
            return tuple(row.to_record() for row in rows)


def circuits_in(session: Session) -> dict[Blame, Circuit]:
    """Give every circuit; those of which nothing was ever written are closed."""
    rows = {row.blame: row.to_circuit() for row in session.scalars(select(CircuitRow))}
    return {blame: rows.get(blame.value, Circuit(blame)) for blame in Blame}


def living_workers(session: Session, now: datetime) -> frozenset[str]:
    """Name the workers that announced themselves lately."""
    seen = select(WorkerRow.worker_id).where(WorkerRow.seen >= now - WORKER_LIVES)
    return frozenset(session.scalars(seen))
