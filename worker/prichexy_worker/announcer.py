"""The heartbeat by which the plugin knows this worker."""

from __future__ import annotations

import logging
import threading
from typing import Final

from prichexy_worker.contract import ANNOUNCE_INTERVAL_SECONDS, WorkerAnnouncement
from prichexy_worker.errors import Retryable
from prichexy_worker.logs import where
from prichexy_worker.ports import Reporter

__all__ = ["Announcer"]

_LOG: Final = logging.getLogger(__name__)


class Announcer:
    """A thread that announces the worker, at once and then at each interval, until stopped.

    A plugin that does not answer is logged once, and once more when it is back. All methods may be
    called from any thread.
    """

    def __init__(
        self,
        reporter: Reporter,
        announcement: WorkerAnnouncement,
        interval: float = ANNOUNCE_INTERVAL_SECONDS,
    ) -> None:
        self._reporter = reporter
        self._announcement = announcement
        self._interval = interval
        self._stopped = False
        #: Whether the plugin took the last announcement.
        self.heard = False
        self._woken = threading.Event()
        self._thread = threading.Thread(target=self._run, name="announcer", daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def update(self, announcement: WorkerAnnouncement) -> None:
        """Announce this from now on, for the first time at once; returns before that is done."""
        self._announcement = announcement
        self._woken.set()

    def stop(self, timeout: float = 5.0) -> None:
        """End; waits for a request under way, at most ``timeout`` seconds."""
        self._stopped = True
        self._woken.set()
        self._thread.join(timeout)

    def _run(self) -> None:
        heard = True
        while True:
            self.heard = heard = self._announce(heard)
            self._woken.wait(self._interval)
            # Cleared before it is looked why: what comes after that wakes the next wait.
            self._woken.clear()
            if self._stopped:
                return

    def _announce(self, heard: bool) -> bool:
        """Announce once; takes and gives whether the plugin has heard."""
        try:
            self._reporter.announce(self._announcement)
        except Retryable as error:
            if heard:
                _LOG.warning("the plugin does not hear this worker: %s", error)
            return False
        except Exception as error:  # noqa: BLE001 - the heartbeat outlives any single failure
            if heard:
                _LOG.error("announcing failed: %s", where(error))
            return False
        if not heard:
            _LOG.info("the plugin hears this worker again")
        return True
