"""Empties the ledger's outbox into the broker, and knows whether the broker answers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from prichexy_plugin.broker import Broker, BrokerUnavailable
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.moments import has_passed
from prichexy_plugin.pauses import Pause
from prichexy_plugin.trail import Clock
from prichexy_worker.contract import StudyMessage
from prichexy_worker.retry import Circuit

__all__ = ["AT_LEAST", "PER_WORKER", "RECALL_AFTER", "BrokerState", "Relay"]

#: With nothing at the broker, neither waiting nor taken, a study that no worker spoke of for so
#: long is sent anew: the broker lost it. Well above the workers' ``broker.redelivery_seconds``.
RECALL_AFTER: Final = timedelta(hours=2)
#: On a busy gateway the broker is never empty: this often it is asked which messages it has, when a
#: study has been silent for RECALL_AFTER.
_ASK_EVERY: Final = timedelta(minutes=10)
_IN_THE_DARK: Final = "; too many others in its database to see whether it lost one"
#: So many messages wait in a queue of the broker for each living worker that takes from it, and so
#: many at least. All others wait in the ledger, which keeps them safer, and where what comes later
#: may go first: at the broker it does not.
PER_WORKER: Final = 2
AT_LEAST: Final = 4
_PAGE: Final = 50
#: More circuits than that are not open at a time; the others get their probe in the next round.
_PROBES: Final = 16


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
        queues: Collection[str] = (),
        at_least: int = AT_LEAST,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        """Send what ``ledger`` holds; ``queues`` are those that the intake rules name."""
        self._ledger = ledger
        self._broker = broker
        self._clock = clock
        self._named = frozenset(queues)
        self._queues: frozenset[str] = frozenset()
        self._at_least = at_least
        self._stopping = stopping
        self._state = BrokerState(reachable=False, detail="not tried yet", checked=None)
        self._asked: datetime | None = None
        #: Nobody could tell which messages the broker has when it was asked last.
        self._in_the_dark = False

    @property
    def state(self) -> BrokerState:
        """Tell what the last contact showed, without asking the broker."""
        return self._state

    def run_once(self) -> bool:
        """Send up to one page of messages; say whether more may be sent at once.

        Ends early when ``stopping`` says so. Takes a few seconds at most when the broker hangs.
        Raises SQLAlchemyError.
        """
        sent = False
        if not self._queues:
            self._queues = self._named | self._ledger.queues() | {""}
        # Those of before a restart, too, which no rule may name any more.
        self._queues |= self._ledger.queues_that_wait()
        try:
            lengths = {queue: self._broker.waiting(queue) for queue in sorted(self._queues)}
            waiting = sum(lengths.values())
            for message, queue in self._next(lengths):
                if self._stopping():
                    return False
                self._broker.send(message, queue)
                self._ledger.sent(message)
                sent = True
            silent = waiting == 0 and not sent and self._broker.unacknowledged() == 0
            lost = self._lost() if not silent else frozenset()
        except BrokerUnavailable as error:
            self._state = BrokerState(reachable=False, detail=str(error), checked=self._clock())
            return False
        detail = f"{waiting} waiting for a worker{_IN_THE_DARK if self._in_the_dark else ''}"
        self._state = BrokerState(reachable=True, detail=detail, checked=self._clock())
        again = self._ledger.recall_orphans()
        if silent:
            again += self._ledger.recall(silent_for=RECALL_AFTER)
        elif lost:
            again += self._ledger.recall(silent_for=RECALL_AFTER, lost=lost)
        return sent or again > 0

    def _lost(self) -> frozenset[str]:
        """Name the silent studies that a busy broker does not have; now and then it is asked.

        None of them when it was not, or nobody can tell.
        """
        now = self._clock()
        if not has_passed(_ASK_EVERY, self._asked, now):
            return frozenset()
        self._asked = now
        jobs = self._ledger.silent_jobs(RECALL_AFTER)
        held = self._broker.held(jobs, self._queues) if jobs else None
        self._in_the_dark = bool(jobs) and held is None
        return frozenset() if held is None else jobs - held

    def _next(self, lengths: Mapping[str, int]) -> Iterator[tuple[StudyMessage, str]]:
        """Give what may be sent now, with its queue; each is to be sent before the next is asked.

        What an open circuit holds goes one study at a time; what a pause holds does not go.
        """
        opened = [one for one in self._ledger.circuits().values() if one.is_open]
        for _ in range(_PROBES if opened else 0):
            probe = self._ledger.probe()
            if probe is None:
                break
            yield probe, self._ledger.queue_of(probe)
        stops: list[Circuit | Pause] = [*opened, *self._ledger.pauses()]
        takers = self._ledger.takers(self._clock())
        for queue, length in lengths.items():
            room = max(self._at_least, PER_WORKER * takers[queue]) - length
            if room > 0:
                page = self._ledger.outbox(min(room, _PAGE), queue=queue, stops=stops)
                yield from ((message, queue) for message in page)
