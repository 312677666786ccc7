"""What happened to the studies since the last time somebody asked."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Engine, func, or_, select
from sqlalchemy.orm import Session

from prichexy_plugin.chain import Deed
from prichexy_plugin.database import READS
from prichexy_plugin.schema import EventRow, StudyRow
from prichexy_worker.contract import ENDED, Reason, State

__all__ = ["EventFeed", "Happened"]

_BATCH: Final = 2000
_ENDS: Final = tuple(state.value for state in ENDED)


@dataclass(frozen=True, slots=True)
class Happened:
    """One step of a study.

    At an end, ``seconds`` is the time since the study came in, or came in again, and ``durations``
    are the seconds of a worker's steps; both are empty before.
    """

    before: State | None
    after: State
    reason: Reason | None
    seconds: float | None
    durations: Mapping[str, float]


class EventFeed:
    """Reads the audit trail from where it ends now; any thread may ask, each step is told once."""

    def __init__(self, engine: Engine) -> None:
        """Begin behind the last line. Raises SQLAlchemyError."""
        self._engine = engine.execution_options(**{READS: True})
        self._lock = threading.Lock()
        with Session(self._engine) as session:
            self._last = session.scalar(select(func.max(EventRow.number))) or 0

    def new(self) -> tuple[Happened, ...]:
        """Give what came since the last call, oldest first. Raises SQLAlchemyError."""
        with self._lock, Session(self._engine) as session:
            found: list[Happened] = []
            last = self._last
            while True:
                rows = session.execute(
                    select(EventRow, StudyRow.durations)
                    # A study may be forgotten before its steps are told.
                    .outerjoin(StudyRow, StudyRow.job_id == EventRow.job_id)
                    .where(EventRow.number > last, EventRow.deed == Deed.STEP.value)
                    .order_by(EventRow.number)
                    .limit(_BATCH)
                ).all()
                found.extend(_happened(session, row, durations) for row, durations in rows)
                if rows:
                    last = rows[-1][0].number
                if len(rows) < _BATCH:
                    break
            # Only now: what a failing database kept from being told is told the next time.
            self._last = last
            return tuple(found)


def _happened(session: Session, row: EventRow, durations: Mapping[str, float] | None) -> Happened:
    record = row.to_record()
    ended = record.to_state in ENDED
    return Happened(
        before=record.from_state,
        after=record.to_state,
        reason=record.reason,
        seconds=_seconds(session, row) if ended else None,
        durations=durations or {} if ended else {},
    )


def _seconds(session: Session, row: EventRow) -> float | None:
    """Give the time between a study's end and the step before by which it came, or came again."""
    came = session.scalar(
        select(EventRow.at)
        .where(
            EventRow.job_id == row.job_id,
            EventRow.number < row.number,
            EventRow.deed == Deed.STEP.value,
            or_(EventRow.from_state.is_(None), EventRow.from_state.in_(_ENDS)),
        )
        .order_by(EventRow.number.desc())
        .limit(1)
    )
    return None if came is None else (row.at - came).total_seconds()
