"""Counts what the overview's plots show before somebody opens it for the first time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from prichexy_plugin.history import History
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.trail import Clock

__all__ = ["Warming"]

#: How often it is looked whether the ledger is open.
_LOOK_SECONDS: Final = 1.0
_STOP_SECONDS: Final = 5.0


class Warming:
    """Fills ``history`` in a thread of its own, once, soon after ``ledger`` gives one.

    Two weeks of a long ledger cost most of a second. They are counted hour by hour and day by day,
    and after each it rests for as long as that took: so it has half of a processor at most, and
    holds nobody up for longer than a day takes. A ledger that fails ends it: then the page counts.
    """

    def __init__(self, history: History, ledger: Callable[[], Ledger | None], clock: Clock) -> None:
        self._history = history
        self._ledger = ledger
        self._clock = clock
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prichexy-warming", daemon=True)

    def start(self) -> None:
        """Begin, the first time; returns at once."""
        if self._thread.ident is None:
            self._thread.start()

    def stop(self) -> None:
        """End within seconds, done or not."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        ledger = self._ledger()
        while ledger is None:
            if self._stopping.wait(_LOOK_SECONDS):
                return
            ledger = self._ledger()
        try:
            began = time.monotonic()
            for _ in self._history.fill(ledger, self._clock()):
                if self._stopping.wait(time.monotonic() - began):
                    return
                began = time.monotonic()
        except SQLAlchemyError:
            return
