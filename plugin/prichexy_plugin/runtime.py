"""The plugin's threads: one watches what arrives, one hands it on, one keeps and tells of it.

They are not Orthanc's threads: those only set an event here, so no C-STORE and no REST call ever
waits for the ledger's decisions, for Redis or for a worker.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from prichexy_plugin.backfill import Backfill
from prichexy_plugin.backfiller import Backfiller
from prichexy_plugin.broker import Broker
from prichexy_plugin.chain import Deed
from prichexy_plugin.changes import Watcher
from prichexy_plugin.clock_watch import ClockWatch
from prichexy_plugin.database import ForeignLedger, open_database
from prichexy_plugin.event_feed import EventFeed
from prichexy_plugin.intake import Rule
from prichexy_plugin.keeper import Keeper
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.moments import has_passed
from prichexy_plugin.ownership import OthersLedger, admit
from prichexy_plugin.pictures import Pictures
from prichexy_plugin.relay import BrokerState, Relay
from prichexy_plugin.settings import Settings
from prichexy_plugin.studies import Studies, StudiesUnavailable
from prichexy_plugin.teller import Teller
from prichexy_plugin.trail import Clock
from prichexy_worker.contract import SOFTWARE_VERSION

__all__ = ["Runtime"]


class _SyslogAway(Exception):
    """The syslog server takes nothing; the lines wait in the ledger."""


#: What the threads do, for people.
_WATCHING: Final = "watching"
_HANDING_ON: Final = "handing on"
_KEEPING: Final = "keeping"
#: Longest pause between two rounds, in seconds, when nothing wakes the thread earlier.
_WATCH_PAUSE: Final = 1.0
_RELAY_PAUSE: Final = 2.0
_KEEP_PAUSE: Final = 10.0
#: How often the trail's head is written to the log, where it can be compared with later.
_HEAD_EVERY: Final = timedelta(days=1)
#: A round against a hung Redis takes two socket time limits.
_STOP_SECONDS: Final = 6.0


class Runtime:
    """Runs the watcher, the relay and the keeper from ``start`` to ``stop``.

    Troubles are logged when they begin and end, not at each round, by their kind only: the texts
    of errors may hold what a DICOM object held.
    """

    def __init__(
        self,
        settings: Settings,
        studies: Studies,
        broker: Broker,
        *,
        pictures: Pictures,
        number: Callable[[], int],
        clock: Clock,
        log: Callable[[str], None],
    ) -> None:
        """Have ``number`` give that of this Orthanc's database; see ``ownership``."""
        self._settings = settings
        self._studies = studies
        self._broker = broker
        self._pictures = pictures
        self._number = number
        self._clock = clock
        self._log = log
        self._engine: Engine | None = None
        self._relay: Relay | None = None
        self._watcher: Watcher | None = None
        self._backfiller: Backfiller | None = None
        self._keeper: Keeper | None = None
        self._teller: Teller | None = None
        self._head_at: datetime | None = None
        self._stopping = threading.Event()
        self._arrived = threading.Event()
        self._decided = threading.Event()
        self._kept = threading.Event()
        self._threads: tuple[threading.Thread, ...] = ()
        self.ledger: Ledger | None = None
        #: What tells of the steps since the ledger was opened.
        self.feed: EventFeed | None = None
        #: "ok", or what is wrong with the ledger.
        self.ledger_state = "not opened yet"
        # Each thread sets its own key only, so that no lock is needed.
        self._troubles: dict[str, str | None] = dict.fromkeys((_WATCHING, _HANDING_ON, _KEEPING))

    @property
    def troubles(self) -> tuple[str, ...]:
        """Tell what keeps the threads from their work, a sentence for each."""
        return tuple(f"{name}: {trouble}." for name, trouble in self._troubles.items() if trouble)

    @property
    def targets(self) -> frozenset[str]:
        """Name the export targets that the intake rules name."""
        return frozenset(name for rule in self._settings.rules for name in rule.targets)

    @property
    def queues(self) -> frozenset[str]:
        """Name the queues that the intake rules send studies to."""
        return frozenset(rule.queue or self._settings.queue for rule in self._settings.rules)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Give the intake rules in force, in their order."""
        return self._settings.rules

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
            threading.Thread(
                target=self._repeat,
                args=(_KEEPING, self._keep, self._kept, _KEEP_PAUSE),
                name="prichexy-keeper",
                daemon=True,
            ),
        )
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """Look at once: something became stable. Returns at once; any thread may call it."""
        self._arrived.set()

    def tidy(self) -> None:
        """Go on with deletions at once; returns before they are done."""
        self._kept.set()

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
        self._kept.set()
        for thread in self._threads:
            thread.join(_STOP_SECONDS)
        if any(thread.is_alive() for thread in self._threads):
            return
        self._say_goodbye()
        self._broker.close()
        if self._engine is not None:
            self._engine.dispose()

    def _say_goodbye(self) -> None:
        """Write the trail's last line, and where it ends; a ledger that fails keeps nobody."""
        if self.ledger is None:
            return
        with suppress(SQLAlchemyError, OthersLedger):
            self.ledger.record(Deed.STOPPED)
            self._log_head(self.ledger)

    def _log_head(self, ledger: Ledger) -> None:
        self._log(f"PriCheXy, audit trail: {ledger.chain_state().head}.")

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
            except (ForeignLedger, OthersLedger) as error:
                self.ledger_state = str(error)
                trouble = f"the ledger {self.ledger_state}"
            except _SyslogAway as error:
                trouble = f"the syslog server does not take the audit trail ({error})"
            except StudiesUnavailable:
                trouble = "Orthanc does not answer the plugin"
            except Exception as error:  # noqa: BLE001 - the thread must go on; it is logged below
                trouble = f"unexpected error ({type(error).__name__}, {_place(error)})"
            # For what is kept and told no study waits: it is in the log alone.
            self._troubles[name] = None if name == _KEEPING else trouble
            if trouble != before:
                self._log(f"PriCheXy, {name}: {trouble or 'works again'}.")
            if not more:
                wake.wait(pause)
                wake.clear()

    def _watch(self) -> bool:
        if self._watcher is None:
            self._watcher = self._open()
        elif self.ledger is not None:
            # What another Orthanc's ledger knows would all be gone here.
            self.ledger.check_owner()
        progress = self._watcher.run_once()
        self.ledger_state = "ok"
        if progress.looked:
            self._decided.set()
        # Arrivals first: a backfill goes on between them.
        more = self._backfiller is not None and self._backfiller.run_once()
        return progress.more or more

    def _hand_on(self) -> bool:
        return self._relay.run_once() if self._relay is not None else False

    def _keep(self) -> bool:
        """Tell the syslog server, keep the retention rules, and note the trail's head."""
        ledger = self.ledger
        if ledger is None or self._keeper is None:
            return False
        now = self._clock()
        if has_passed(_HEAD_EVERY, self._head_at, now):
            self._head_at = now
            self._log_head(ledger)
        more = False
        try:
            more = self._teller is not None and self._teller.run_once()
        finally:
            # Whatever keeps the one from its work keeps not the other.
            if not self._stopping.is_set():
                more = self._keeper.run_once() or more
        if self._teller is not None and not self._teller.state.reachable:
            raise _SyslogAway(self._teller.state.detail)
        return more

    def _open(self) -> Watcher:
        """Open the ledger; tried anew at each round until it succeeds."""
        audit = self._settings.audit
        number = self._number()
        engine = open_database(
            self._settings.ledger_url,
            self._settings.ledger_password,
            admit=partial(admit, number=number),
        )
        ledger = Ledger(
            engine,
            self._clock,
            audit.key,
            retired_keys=audit.retired_keys,
            own_queue=self._settings.queue,
            named_queues={rule.queue for rule in self._settings.rules},
            accepted_keys=self._settings.accepted_keys,
            # A message has left the broker: there is room for another.
            on_claim=self._decided.set,
        )
        details = {"software": SOFTWARE_VERSION, "settings": audit.digest}

        def say(text: str) -> None:
            self._log(f"PriCheXy, {_KEEPING}: {text}.")

        try:
            watch = ClockWatch(self._clock, time.monotonic, ledger, say)
            ledger.begin(details, tells=audit.sender is not None, orthanc=number)
        except BaseException:
            engine.dispose()
            raise
        self._engine, self.ledger, self.feed = engine, ledger, EventFeed(engine)
        if audit.sender is not None:
            self._teller = Teller(ledger, audit.sender, audit.source, self._clock)
        self._keeper = Keeper(
            self._studies,
            self._pictures,
            ledger,
            self._settings.retention,
            self._clock,
            tells=audit.sender is not None,
            stopping=self._stopping.is_set,
            believable=watch.may_delete,
            say=say,
        )
        self._kept.set()
        self._relay = Relay(
            self.ledger,
            self._broker,
            self._clock,
            queues={rule.queue for rule in self._settings.rules},
            stopping=self._stopping.is_set,
        )
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
