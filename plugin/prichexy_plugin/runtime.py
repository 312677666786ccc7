"""The plugin's two threads: one watches what arrives, one hands it on.

They are not Orthanc's threads: those only set an event here, so no C-STORE and no REST call ever
waits for the ledger's decisions, for Redis or for a worker.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from prichexy_plugin.backfill import Backfill, Backfiller
from prichexy_plugin.broker import Broker
from prichexy_plugin.changes import Watcher
from prichexy_plugin.database import ForeignLedger, open_database
from prichexy_plugin.ledger import Clock, Ledger
from prichexy_plugin.relay import BrokerState, Relay
from prichexy_plugin.settings import Settings
from prichexy_plugin.studies import Studies, StudiesUnavailable

__all__ = ["Runtime"]

#: What the threads do, for people.
_WATCHING: Final = "watching"
_HANDING_ON: Final = "handing on"
#: Longest pause between two rounds, in seconds, when nothing wakes the thread earlier.
_WATCH_PAUSE: Final = 1.0
_RELAY_PAUSE: Final = 2.0
#: A round against a hung Redis takes two socket time limits.
_STOP_SECONDS: Final = 6.0


class Runtime:
    """Runs the watcher and the relay from ``start`` to ``stop``.

    Troubles are logged when they begin and end, not at each round, by their kind only: the texts
    of errors may hold what a DICOM object held.
    """

    def __init__(
        self,
        settings: Settings,
        studies: Studies,
        broker: Broker,
        *,
        clock: Clock,
        log: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._studies = studies
        self._broker = broker
        self._clock = clock
        self._log = log
        self._engine: Engine | None = None
        self._relay: Relay | None = None
        self._watcher: Watcher | None = None
        self._backfiller: Backfiller | None = None
        self._stopping = threading.Event()
        self._arrived = threading.Event()
        self._decided = threading.Event()
        self._threads: tuple[threading.Thread, ...] = ()
        self.ledger: Ledger | None = None
        #: "ok", or what is wrong with the ledger.
        self.ledger_state = "not opened yet"
        # Each thread sets its own key only, so that no lock is needed.
        self._troubles: dict[str, str | None] = {_WATCHING: None, _HANDING_ON: None}

    @property
    def troubles(self) -> tuple[str, ...]:
        """Tell what keeps the threads from their work, a sentence for each."""
        return tuple(f"{name}: {trouble}." for name, trouble in self._troubles.items() if trouble)

    @property
    def broker_state(self) -> BrokerState:
        """Tell what the last contact with the broker showed."""
        if self._relay is None:
            return BrokerState(reachable=False, detail="not tried yet", checked=None)
        return self._relay.state

    def start(self) -> None:
        """Start the threads; not before Orthanc's database is open (ORTHANC_STARTED)."""
        if self._threads:
            return
        self._threads = (
            threading.Thread(
                target=self._repeat,
                args=(_WATCHING, self._watch, self._arrived, _WATCH_PAUSE),
                name="prichexy-watcher",
                daemon=True,
            ),
            threading.Thread(
                target=self._repeat,
                args=(_HANDING_ON, self._hand_on, self._decided, _RELAY_PAUSE),
                name="prichexy-relay",
                daemon=True,
            ),
        )
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """Look at once: something became stable. Returns at once; any thread may call it."""
        self._arrived.set()

    def start_backfill(self, per_minute: int, by: str) -> Backfill:
        """Take in what was in Orthanc before, ``per_minute`` studies a minute.

        Raises SQLAlchemyError, and StudiesUnavailable also before the ledger is open.
        """
        if self.ledger is None:
            raise StudiesUnavailable
        total = self._studies.count()
        begun = self.ledger.start_backfill(per_minute=per_minute, total=total, by=by)
        self._arrived.set()
        return begun

    def stop(self) -> None:
        """Stop the threads within seconds, even when the broker hangs."""
        self._stopping.set()
        self._arrived.set()
        self._decided.set()
        for thread in self._threads:
            thread.join(_STOP_SECONDS)
        if any(thread.is_alive() for thread in self._threads):
            return
        self._broker.close()
        if self._engine is not None:
            self._engine.dispose()

    def _repeat(
        self, name: str, work: Callable[[], bool], wake: threading.Event, pause: float
    ) -> None:
        trouble: str | None = None
        while not self._stopping.is_set():
            before, trouble, more = trouble, None, False
            try:
                more = work()
            except SQLAlchemyError as error:
                self.ledger_state = f"does not work ({type(error).__name__})"
                trouble = f"the ledger {self.ledger_state}"
            except ForeignLedger as error:
                self.ledger_state = str(error)
                trouble = f"the ledger {self.ledger_state}"
            except StudiesUnavailable:
                trouble = "Orthanc does not answer the plugin"
            except Exception as error:  # noqa: BLE001 - the thread must go on; it is logged below
                trouble = f"unexpected error ({type(error).__name__}, {_place(error)})"
            self._troubles[name] = trouble
            if trouble != before:
                self._log(f"PriCheXy, {name}: {trouble or 'works again'}.")
            if not more:
                wake.wait(pause)
                wake.clear()

    def _watch(self) -> bool:
        if self._watcher is None:
            self._watcher = self._open()
        progress = self._watcher.run_once()
        self.ledger_state = "ok"
        if progress.looked:
            self._decided.set()
        # Arrivals first: a backfill goes on between them.
        more = self._backfiller is not None and self._backfiller.run_once()
        return progress.more or more

    def _hand_on(self) -> bool:
        return self._relay.run_once() if self._relay is not None else False

    def _open(self) -> Watcher:
        """Open the ledger; tried anew at each round until it succeeds."""
        self._engine = open_database(self._settings.ledger_url)
        self.ledger = Ledger(self._engine, self._clock)
        self._relay = Relay(self.ledger, self._broker, self._clock, stopping=self._stopping.is_set)
        self._decided.set()
        self._backfiller = Backfiller(self._studies, self.ledger, self._clock)
        return Watcher(
            self._studies,
            self.ledger,
            rules=self._settings.rules,
            stable_age=self._settings.stable_age,
            take_existing=self._settings.take_existing,
            clock=self._clock,
        )


def _place(error: BaseException) -> str:
    """Say where in this program an error arose."""
    step = error.__traceback__
    while step is not None and step.tb_next is not None:
        step = step.tb_next
    return "?" if step is None else f"{step.tb_frame.f_code.co_qualname}:{step.tb_lineno}"
