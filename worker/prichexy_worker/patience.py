"""A worker outlives a broker that refuses: one whose memory or disk is full says so at each write.

Celery takes a connection that is lost for something that passes, and what Redis answers for the
end of the worker. Nothing that Redis refuses is a fault of this worker's, and all of it passes once
somebody makes room there, or gives the worker its rights.
"""

from __future__ import annotations

import logging
import time
from typing import Any, Final

from celery.worker.consumer import Consumer
from celery.worker.state import maybe_shutdown

__all__ = ["PatientConsumer", "code_of"]

_LOG: Final = logging.getLogger(__name__)
#: Seconds between two tries: they cost a full Redis nothing, and room is used soon.
_PAUSE: Final = 5.0
#: In which one who waits sees that the worker is told to stop.
_STEP: Final = 0.2
#: Redis's words for what is wrong; redis-py has classes of its own for others.
_CODES: Final = ("MISCONF", "NOPERM", "NOREPLICAS", "READONLY")


def code_of(refusal: BaseException) -> str:
    """Give Redis's word for what is wrong, such as MISCONF, or else the class of the error.

    The text itself is not for a log: it may hold the command with all that was to be written.
    """
    text = str(refusal)
    return next((code for code in _CODES if code in text), type(refusal).__name__)


class PatientConsumer(Consumer):  # type: ignore[misc, unused-ignore]
    """Waits after a refusal before it connects anew; a lost connection is as in Celery.

    Needs ``broker_channel_error_retry``. Raises WorkerShutdown when told to stop meanwhile.
    """

    def on_connection_error_before_connected(self, exc: Any) -> None:
        """Say that there is no connection, and wait where the broker is there and refuses."""
        super().on_connection_error_before_connected(exc)
        self._wait_after(exc)

    def on_connection_error_after_connected(self, exc: Any) -> None:
        """Let go of the connection, and wait where the broker is there and refuses."""
        super().on_connection_error_after_connected(exc)
        self._wait_after(exc)

    def _wait_after(self, exc: BaseException) -> None:
        if not isinstance(exc, self.channel_errors) or isinstance(exc, self.connection_errors):
            return
        _LOG.warning("the broker refuses (%s); again in %.0f seconds", code_of(exc), _PAUSE)
        again = time.monotonic() + _PAUSE
        while time.monotonic() < again:
            maybe_shutdown()
            time.sleep(_STEP)
