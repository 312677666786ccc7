"""Notices a clock that was set, so that nothing is deleted for good on its word."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, Protocol

from prichexy_plugin.clock_jumps import Jump

__all__ = ["RESTS", "ClockWatch", "Memory"]

#: More than this between the clock and the time that ran is a jump.
_JUMP: Final = timedelta(hours=1)
#: So long a gateway runs after a jump, or after it was off for longer, before anything is deleted:
#: time for somebody, or for NTP, to set a wrong clock right.
RESTS: Final = timedelta(days=1)
#: How often what was seen is written down.
_NOTED_EVERY: Final = timedelta(minutes=10)


class Memory(Protocol):
    """What outlives the plugin; ``ClockMemory`` is one."""

    def clock_seen(self) -> datetime | None:
        """Say what the clock showed when it was last noted."""

    def clock_rests(self) -> timedelta:
        """Say for how long nothing was to be deleted yet."""

    def last_written(self) -> datetime | None:
        """Say when anything was last written, None for never."""

    def note_clock(self, seen: datetime, rests: timedelta, jump: Jump | None = None) -> None:
        """Keep this."""


class ClockWatch:
    """Compares ``clock`` with the seconds of ``running``, which nobody sets. For one thread.

    A longer time since the clock was last noted was spent switched off, or the clock is ahead, and
    nobody can tell which. ``say`` hears of it. Whatever ``memory`` raises, this raises.
    """

    def __init__(
        self,
        clock: Callable[[], datetime],
        running: Callable[[], float],
        memory: Memory,
        say: Callable[[str], None],
    ) -> None:
        """Read what is known of before; nothing is written yet."""
        self._clock = clock
        self._running = running
        self._memory = memory
        self._say = say
        self._seen = clock(), running()
        self._noted: float | None = None
        rests = memory.clock_rests()
        self._until = self._seen[1] + rests.total_seconds() if rests else None
        last = memory.clock_seen() or memory.last_written()
        #: What was found at the start, until it is written down.
        self._at_start: Jump | None = None
        since = timedelta() if last is None else self._seen[0] - last
        if since > RESTS or since < -_JUMP:
            self._at_start = Jump(since, watched=False)
        if since > RESTS:
            self._until = self._rest(
                "the gateway was off for more than a day, or the clock is ahead"
            )
        elif self._until is not None:
            self._rest("the clock jumped ahead before this start", rests)

    def may_delete(self) -> bool:
        """Say whether the clock has been believable for long enough."""
        (then, ran), now = self._seen, (self._clock(), self._running())
        by = now[0] - then - timedelta(seconds=now[1] - ran)
        jump = Jump(by, watched=True) if abs(by) > _JUMP else None
        until, over = self._until, False
        if by > _JUMP:
            until = now[1] + RESTS.total_seconds()
        elif until is not None and now[1] >= until:
            until, over = None, True
        late = self._noted is None or now[1] - self._noted >= _NOTED_EVERY.total_seconds()
        if jump is not None or over or late:
            rests = timedelta(seconds=0 if until is None else until - now[1])
            if self._at_start is not None:
                self._memory.note_clock(then, rests, self._at_start)
                self._at_start = None
            self._memory.note_clock(now[0], rests, jump)
            self._noted = now[1]
        # Only now: what could not be written down is found again at the next call.
        self._seen, self._until = now, until
        if by > _JUMP:
            self._rest("the clock jumped ahead")
        elif over:
            self._say("what is old enough is deleted again")
        return until is None

    def _rest(self, why: str, rests: timedelta = RESTS) -> float:
        hours = -(-rests // timedelta(hours=1))
        self._say(f"{why}: nothing is deleted by its age for {hours} hours")
        return self._seen[1] + rests.total_seconds()
