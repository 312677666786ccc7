"""What the dashboard and the API may ask for, as a port; the runtime is behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from sqlalchemy.exc import SQLAlchemyError

from prichexy_plugin.backfill import Backfill
from prichexy_plugin.event_feed import EventFeed
from prichexy_plugin.intake import Rule
from prichexy_plugin.key_watch import Refusal
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.pauses import Pause
from prichexy_plugin.queries import StudySearch
from prichexy_plugin.records import WorkerRecord
from prichexy_plugin.relay import BrokerState
from prichexy_plugin.sweep import Group, grouped
from prichexy_plugin.trail import ChainState
from prichexy_worker.contract import State
from prichexy_worker.retry import Circuit

__all__ = ["UNPROVED_COUNTED", "Gateway", "Overview", "overview_of"]

#: Beyond this it is said that there are more: to count them all would cost more than it tells.
UNPROVED_COUNTED: Final = 1000


class Gateway(Protocol):
    """The running gateway."""

    @property
    def ledger(self) -> Ledger | None:
        """Give the ledger, None before it was opened."""

    @property
    def ledger_state(self) -> str:
        """Say "ok", or what is wrong."""
        ...

    @property
    def troubles(self) -> tuple[str, ...]:
        """Tell what keeps the gateway's threads from their work, a sentence for each."""
        ...

    @property
    def targets(self) -> frozenset[str]:
        """Name the export targets that the intake rules name."""
        ...

    @property
    def queues(self) -> frozenset[str]:
        """Name the queues that the intake rules send studies to."""
        ...

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Give the intake rules in force, in their order."""
        ...

    @property
    def feed(self) -> EventFeed | None:
        """Give what tells of the studies' steps, None before the ledger was opened."""

    @property
    def broker_state(self) -> BrokerState:
        """Tell what the last contact with the broker showed; never asks it."""
        ...

    def tidy(self) -> None:
        """Go on with deletions at once; returns before they are done."""
        ...

    def start_backfill(self, per_minute: int, by: str) -> Backfill:
        """Take in what was in Orthanc before. Raises StudiesUnavailable, SQLAlchemyError."""
        ...


@dataclass(frozen=True, slots=True)
class Overview:
    """How the gateway is at one moment. ``ledger`` is "ok" or what is wrong with it.

    ``problems`` are those of the configuration, ``troubles`` those of the gateway's threads;
    ``unreadable`` counts the studies that cannot be read now and are looked at again; ``circuits``
    are the open ones, which stop the handing out; ``late`` are the studies that have waited for
    unusually long, by cause; ``backfill`` is the last one; ``targets`` are the export targets that
    the intake rules name, ``queues`` the queues that they send to; ``audit`` is where the audit
    trail ends, None without a ledger; ``rules`` are these rules; ``pauses`` are what somebody
    stopped for a while; ``other_keys`` are the workers that get no study for their pseudonyms' key;
    ``place`` is where the ledger is (``Trail.place``), "" without one; ``unproved`` counts the
    exports that nothing shows to be whole, up to ``UNPROVED_COUNTED`` and one more.
    """

    problems: tuple[str, ...]
    ledger: str
    broker: BrokerState
    counts: Mapping[State, int]
    workers: tuple[WorkerRecord, ...]
    at: datetime
    troubles: tuple[str, ...] = ()
    unreadable: int = 0
    circuits: tuple[Circuit, ...] = ()
    late: tuple[Group, ...] = ()
    backfill: Backfill | None = None
    targets: frozenset[str] = frozenset()
    queues: frozenset[str] = frozenset()
    audit: ChainState | None = None
    place: str = ""
    pauses: tuple[Pause, ...] = ()
    rules: tuple[Rule, ...] = ()
    other_keys: tuple[Refusal, ...] = ()
    unproved: int = 0


_UNTRIED = BrokerState(reachable=False, detail="not tried", checked=None)


def overview_of(gateway: Gateway | None, problems: tuple[str, ...], at: datetime) -> Overview:
    """Look at everything without raising; ``gateway`` is None with a wrong configuration."""
    if gateway is None:
        return Overview(problems, "not opened: the configuration is wrong", _UNTRIED, {}, (), at)
    state = gateway.ledger_state
    counts: Mapping[State, int] = {}
    workers: tuple[WorkerRecord, ...] = ()
    unreadable = 0
    circuits: tuple[Circuit, ...] = ()
    late: tuple[Group, ...] = ()
    backfill: Backfill | None = None
    audit: ChainState | None = None
    pauses: tuple[Pause, ...] = ()
    unproved = 0
    if gateway.ledger is not None:
        try:
            counts, workers = gateway.ledger.counts(), gateway.ledger.workers()
            unreadable = gateway.ledger.unreadable()
            backfill = gateway.ledger.backfill()
            audit = gateway.ledger.chain_state()
            late = grouped(gateway.ledger.late(at, broker_reachable=gateway.broker_state.reachable))
            pauses = gateway.ledger.pauses()
            unproved = gateway.ledger.count(StudySearch(unproved=True), UNPROVED_COUNTED + 1)
            circuits = tuple(one for one in gateway.ledger.circuits().values() if one.is_open)
        except SQLAlchemyError as error:
            state = f"does not work ({type(error).__name__})"
    return Overview(
        problems,
        state,
        gateway.broker_state,
        counts,
        workers,
        at,
        troubles=gateway.troubles,
        unreadable=unreadable,
        circuits=circuits,
        late=late,
        backfill=backfill,
        targets=gateway.targets,
        queues=gateway.queues,
        audit=audit,
        place="" if gateway.ledger is None else gateway.ledger.place,
        pauses=pauses,
        rules=gateway.rules,
        unproved=unproved,
        other_keys=() if gateway.ledger is None else gateway.ledger.other_keys(),
    )
