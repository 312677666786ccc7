"""What the ledger keeps of the clock, so that a restart makes no wrong one believable."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from prichexy_plugin.chain import Deed, Line
from prichexy_plugin.clock_jumps import Jump, uncounted
from prichexy_plugin.raw_lines import in_the_chain, read_these
from prichexy_plugin.schema import EventRow, FactRow, StudyRow
from prichexy_plugin.trail import Entry, Trail

__all__ = ["ClockMemory"]

#: Facts, in minutes: seconds would not fit into the numbers of PostgreSQL in 2038.
_SEEN: Final = "clock seen"
_RESTS: Final = "clock rests"
_MINUTE: Final = timedelta(minutes=1)
_BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)
#: What the index ``events_of_the_clock`` is for; it needs the very same words.
_OF_THE_CLOCK: Final = text("deed = 'clock_jumped'")
#: No study is left alone for longer before its age is counted anew.
_LONGEST: Final = timedelta(days=1)


class ClockMemory(Trail):
    """Remembers the clock and counts ages by it; every method raises SQLAlchemyError."""

    def clock_seen(self) -> datetime | None:
        """Say what the clock showed when it was last looked at, None before the first time."""
        with self._reading() as session:
            seen = session.get(FactRow, _SEEN)
            return None if seen is None else _BEGINNING + seen.number * _MINUTE

    def clock_rests(self) -> timedelta:
        """Say for how long nothing was to be deleted yet."""
        with self._reading() as session:
            rests = session.get(FactRow, _RESTS)
            return timedelta() if rests is None else rests.number * _MINUTE

    def note_clock(self, seen: datetime, rests: timedelta, jump: Jump | None = None) -> None:
        """Write both down, and a line of the trail when the clock jumped."""
        with self._writing() as session:
            # Rounded up: it shall not rest for less.
            session.merge(FactRow(name=_RESTS, number=-(-rests // _MINUTE)))
            session.merge(FactRow(name=_SEEN, number=(seen - _BEGINNING) // _MINUTE))
            if jump is not None:
                details: dict[str, int | str] = {
                    "seconds": round(jump.by.total_seconds()),
                    "watched": int(jump.watched),
                }
                self._tell(session, Entry(Deed.CLOCK_JUMPED, self._clock(), details=details))

    def is_as_old(self, study_id: str, age: timedelta) -> bool:
        """Say whether so much time passed since the study's last step, whatever the clock did.

        If not, it is left alone until then, for a day at most.
        """
        with self._writing() as session:
            row = session.get(StudyRow, study_id)
            if row is None:
                return False
            last = session.scalar(
                select(func.max(EventRow.number)).where(
                    EventRow.job_id == row.job_id, EventRow.deed == Deed.STEP.value
                )
            )
            now = self._clock()
            missing = age - (now - row.updated - _uncounted_since(session, last or 0))
            if missing <= timedelta():
                return True
            row.dispose_at = now + min(missing, _LONGEST)
            return False

    def uncounted_since(self, number: int) -> timedelta:
        """Say how much of what the clock went on since this line did not pass."""
        with self._reading() as session:
            return _uncounted_since(session, number)


def _uncounted_since(session: Session, number: int) -> timedelta:
    numbers = session.scalars(
        select(EventRow.number)
        .where(_OF_THE_CLOCK, EventRow.number > number, in_the_chain(EventRow.__table__))
        .order_by(EventRow.number)
    ).all()
    lines = read_these(session.connection(), numbers)
    return uncounted(_jump_of(line) for line in lines if isinstance(line, Line))


def _jump_of(line: Line) -> Jump:
    seconds = line.details.get("seconds")
    by = timedelta(seconds=seconds) if isinstance(seconds, int) else timedelta()
    return Jump(by, watched=line.details.get("watched") == 1)
