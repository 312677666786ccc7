"""What the dashboard and the API may ask for, as a port; the runtime is behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from sqlalchemy.exc import SQLAlchemyError

from prichexy_plugin.backfill import Backfill
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.records import WorkerRecord
from prichexy_plugin.relay import BrokerState
from prichexy_plugin.sweep import Group, grouped
from prichexy_worker.contract import State
from prichexy_worker.retry import Circuit

__all__ = ["Gateway", "Overview", "overview_of"]


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
    def broker_state(self) -> BrokerState:
        """Tell what the last contact with the broker showed; never asks it."""
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
    unusually long, by cause; ``backfill`` is the last one.
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
    if gateway.ledger is not None:
        try:
            counts, workers = gateway.ledger.counts(), gateway.ledger.workers()
            unreadable = gateway.ledger.unreadable()
            backfill = gateway.ledger.backfill()
            late = grouped(gateway.ledger.late(at, broker_reachable=gateway.broker_state.reachable))
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
    )
