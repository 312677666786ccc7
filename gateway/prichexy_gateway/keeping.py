"""Keeps a native gateway serving when a part of it dies, as a container's restart policy does."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from prichexy_gateway.errors import Failed
from prichexy_gateway.services import INGEST
from prichexy_gateway.supervisor import Supervisor

__all__ = ["Keeper", "ReceptionEnded"]

#: Seconds before a service that died is started anew: the first time, and at most. Each time in a
#: row is twice as long as the one before.
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 60.0
#: Who ran for so long has not died in a row: longer than an image that kills its worker takes.
_STEADY: Final = 600.0
#: So often in a row the ingest Orthanc may end before it answers once. It takes three minutes.
_MOST_STARTS: Final = 8


class ReceptionEnded(Failed):
    """The ingest Orthanc does not start any more: nothing can be received."""


@dataclass(slots=True)
class _Past:
    """What is known of one service.

    ``in_a_row``: so many deaths with less than ``_STEADY`` seconds before each. ``vain``: so many
    starts in a row without an answer. ``due``: when it is started anew, unless it runs.
    """

    started: float = -math.inf
    in_a_row: int = 0
    ready: bool = True
    vain: int = 0
    due: float | None = None


class Keeper:
    """Looks after the processes of ``supervisor``, which are ready when it begins.

    ``tell`` is given a sentence for each death and for each service that is ready again.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        tell: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._supervisor = supervisor
        self._tell = tell
        self._clock = clock
        self._pasts: defaultdict[str, _Past] = defaultdict(_Past)

    def look(self) -> None:
        """See who died, start who is due, say who is ready again; waits for nobody.

        No service is stopped because another one died. Raises ReceptionEnded when the ingest
        Orthanc ended in vain too often: whoever runs it may find out why, and start all anew.
        """
        for death in self._supervisor.deaths():
            if self._pasts[death.name].due is None:
                self._plan(death.name, death.sentence())
        for name, past in self._pasts.items():
            if past.due is not None and self._clock() >= past.due:
                self._start(name, past)
            elif past.due is None and not past.ready and self._supervisor.is_ready(name):
                past.ready, past.vain = True, 0
                self._tell(f"{name} is ready again")

    def _plan(self, name: str, sentence: str) -> None:
        """Say when a service that died is started anew. Raises ReceptionEnded."""
        past, now = self._pasts[name], self._clock()
        past.vain += not past.ready
        if name == INGEST and past.vain >= _MOST_STARTS:
            raise ReceptionEnded(
                f"{sentence}. It was started {past.vain} times in vain. All was stopped."
            )
        if now - past.started >= _STEADY:
            past.in_a_row = 0
        # No power of more than it takes to reach the longest: a float ends somewhere.
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(past.in_a_row, 16))
        past.in_a_row += 1
        past.due = now + pause
        self._tell(f"{sentence}. It is started anew in {pause:.0f} s; all else goes on.")

    def _start(self, name: str, past: _Past) -> None:
        past.due, past.ready, past.started = None, False, self._clock()
        try:
            self._supervisor.restart(name)
        except Failed as error:
            self._plan(name, str(error).removesuffix("."))
