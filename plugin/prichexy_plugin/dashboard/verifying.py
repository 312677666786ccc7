"""Verifies the audit trail for its page: one verification at a time, and a long one beside it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from prichexy_plugin.chain import UnknownKey, Verdict
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.trail import ChainState, Clock

__all__ = ["Found", "Verifications", "Verifying"]

#: So many lines take a tenth of a second: they are verified while the page is waited for.
_AT_ONCE: Final = 1000
#: So many take minutes, for which the ledger is read as it was when they began: SQLite's log of
#: what is written meanwhile grows for as long, and PostgreSQL cleans nothing up.
_MOST: Final = 2_000_000
#: What others in this Orthanc have for every second of a long verification, before the next one.
_REST: Final = 10.0
_STOP_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Found:
    """What a verification found that began ``at``; ``trouble`` names why it came to no end."""

    at: datetime
    verdict: Verdict | None = None
    unknown_key: UnknownKey | None = None
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Verifying:
    """What the page shows: the last that was ``found``; ``seen`` lines of one that runs, or None.

    ``again_at`` is when the next one may begin, None where that is now; ``too_long`` a trail for
    which the command line is.

    What was found holds for its moment alone: whoever alters an old line leaves the head as it is,
    so nothing here is told as if it were of now.
    """

    found: Found | None
    seen: int | None = None
    again_at: datetime | None = None
    too_long: bool = False


class _Stopped(Exception):
    """Orthanc ends."""


class Verifications:
    """Begins a verification when somebody looks; any thread may call it.

    None runs beside another, and none soon after a long one: that would take a processor from all
    of Orthanc. A long one itself leaves it to others for half of its time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._found: Found | None = None
        self._seen = 0
        self._rests_until = 0.0
        self._noted = 0.0

    def look(self, ledger: Ledger, state: ChainState) -> Verifying:
        """Give what is known, and begin anew where that may be. Raises SQLAlchemyError."""
        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                return Verifying(self._found, self._seen)
            if state.lines > _MOST:
                return Verifying(self._found, too_long=True)
            rest = self._rests_until - time.monotonic()
            if state.lines <= _AT_ONCE:
                self._found = self._verify(ledger)
            elif rest > 0:
                again_at = self._clock() + timedelta(seconds=rest)
                return Verifying(self._found, again_at=again_at)
            elif not self._stopping.is_set():
                self._seen = 0
                self._thread = threading.Thread(
                    target=self._run, args=(ledger,), name="prichexy-verifying", daemon=True
                )
                self._thread.start()
                return Verifying(self._found, 0)
            return Verifying(self._found)

    def stop(self) -> None:
        """Give a verification up that runs; within seconds."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(_STOP_SECONDS)

    def _run(self, ledger: Ledger) -> None:
        began = self._noted = time.monotonic()
        try:
            self._found = self._verify(ledger, self._note)
        except _Stopped:
            return
        except Exception as error:  # noqa: BLE001 - nobody else would hear of it
            self._found = Found(self._clock(), trouble=type(error).__name__)
        now = time.monotonic()
        self._rests_until = now + _REST * (now - began)

    def _verify(self, ledger: Ledger, seen: Callable[[int], None] = lambda _count: None) -> Found:
        at = self._clock()
        try:
            return Found(at, ledger.verdict(seen))
        except UnknownKey as error:
            return Found(at, unknown_key=error)

    def _note(self, seen: int) -> None:
        self._seen = seen
        if self._stopping.wait(time.monotonic() - self._noted):
            raise _Stopped
        self._noted = time.monotonic()
