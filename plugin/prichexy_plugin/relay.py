"""Empties the ledger's outbox into the broker, and knows whether the broker answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from prichexy_plugin.broker import Broker, BrokerUnavailable
from prichexy_plugin.ledger import Clock, Ledger
from prichexy_worker.contract import StudyMessage

__all__ = ["HAND_OUT", "RECALL_AFTER", "BrokerState", "Relay"]

#: With nothing at the broker, neither waiting nor taken, a study that no worker spoke of for so
#: long is sent anew: the broker lost it. Well above the workers' ``broker.redelivery_seconds``.
RECALL_AFTER: Final = timedelta(hours=2)
#: On a busy gateway the broker is never empty: this often it is asked which messages it has, when a
#: study has been silent for RECALL_AFTER.
_ASK_EVERY: Final = timedelta(minutes=10)
#: So many messages wait at the broker at most. All others wait in the ledger, which keeps them
#: safer, and where an order can be changed.
HAND_OUT: Final = 256


@dataclass(frozen=True, slots=True)
class BrokerState:
    """What the last contact with the broker showed; None before the first."""

    reachable: bool
    detail: str
    checked: datetime | None


class Relay:
    """One thread calls ``run_once``; any thread may read ``state``.

    At least once: a crash between the sending and the note of it sends the message again.
    """

    def __init__(
        self,
        ledger: Ledger,
        broker: Broker,
        clock: Clock,
        *,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._ledger = ledger
        self._broker = broker
        self._clock = clock
        self._stopping = stopping
        self._state = BrokerState(reachable=False, detail="not tried yet", checked=None)
        self._asked: datetime | None = None

    @property
    def state(self) -> BrokerState:
        """Tell what the last contact showed, without asking the broker."""
        return self._state

    def run_once(self) -> bool:
        """Send up to one page of messages; say whether more may be sent at once.

        Ends early when ``stopping`` says so. Takes a few seconds at most when the broker hangs.
        Raises SQLAlchemyError.
        """
        messages: tuple[StudyMessage, ...] = ()
        try:
            waiting = self._broker.waiting()
            messages = self._next()[: max(0, HAND_OUT - waiting)]
            for message in messages:
                if self._stopping():
                    return False
                self._broker.send(message)
                self._ledger.sent(message)
            silent = waiting == 0 and not messages and self._broker.unacknowledged() == 0
            held = self._held() if not silent else None
        except BrokerUnavailable as error:
            self._state = BrokerState(reachable=False, detail=str(error), checked=self._clock())
            return False
        self._state = BrokerState(
            reachable=True, detail=f"{waiting} waiting for a worker", checked=self._clock()
        )
        again = self._ledger.recall_orphans()
        if silent:
            again += self._ledger.recall(silent_for=RECALL_AFTER)
        elif held is not None:
            again += self._ledger.recall(silent_for=RECALL_AFTER, at_broker=held)
        return bool(messages) or again > 0

    def _held(self) -> frozenset[str] | None:
        """Ask a busy broker which jobs it has, now and then and only when some study is silent."""
        now = self._clock()
        if self._asked is not None and now - self._asked < _ASK_EVERY:
            return None
        self._asked = now
        return self._broker.jobs() if self._ledger.silent_since(RECALL_AFTER) else None

    def _next(self) -> tuple[StudyMessage, ...]:
        """Give what may be sent now: while a circuit is open, one study at a time."""
        if any(circuit.is_open for circuit in self._ledger.circuits().values()):
            probe = self._ledger.probe()
            return () if probe is None else (probe,)
        return self._ledger.outbox()
