"""What a gateway's start has to do with its plugin, which may be able to work only later."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from prichexy_gateway.bundle_check import store_at
from prichexy_gateway.client import OrthancClient, Unreachable
from prichexy_gateway.deeds import check_read, noted
from prichexy_gateway.errors import Failed
from prichexy_gateway.home import Addresses, Home
from prichexy_gateway.services import ingest_client
from prichexy_gateway.waiting import wait_until

__all__ = ["PluginStart"]

#: How the plugin's word on its ledger begins when its configuration is wrong.
_MISCONFIGURED: Final = "not opened:"
#: Its ledger is opened a moment after it answers, and a trouble may pass: that is waited for.
_TROUBLE_PASSES_WITHIN: Final = 30.0  # seconds
#: How often it is asked later, in seconds.
_ASKED_EVERY: Final = 5.0


class PluginStart:
    """Sees that the plugin of the ingest Orthanc can do its work, and helps it once.

    When its ledger is open, the home notes where that is, for those who back it up, and the audit
    trail is told what the command line did while no gateway ran. ``tell`` is given a sentence for
    each trouble and for its end.
    """

    def __init__(
        self,
        home: Home,
        addresses: Addresses,
        tell: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._home = home
        self._addresses = addresses
        self._tell = tell
        self._clock = clock
        self._next = 0.0
        self._helped = False
        #: Whether it could do its work when it was asked last; then it is asked no more.
        self.works = False

    def wait(self, called_off: threading.Event | None = None, *, must_work: bool) -> None:
        """Return once it can do its work; unless it must, also when a trouble does not pass.

        Raises Failed when its configuration is wrong, or when it must and cannot; Interrupted.
        """
        trouble = ""
        with ingest_client(self._home, self._addresses) as client:

            def settled() -> bool:
                nonlocal trouble
                trouble = self._ask(client)
                return self.works

            wait_until(settled, _TROUBLE_PASSES_WITHIN, called_off)
        if self.works:
            return
        if must_work:
            raise Failed(trouble)
        self._tell(f"{trouble} The gateway goes on; what it receives waits.")
        self._next = self._clock() + _ASKED_EVERY

    def look(self) -> None:
        """See now and then whether a plugin that could not work can by now. Raises nothing."""
        if self.works or self._clock() < self._next:
            return
        self._next = self._clock() + _ASKED_EVERY
        try:
            with ingest_client(self._home, self._addresses) as client:
                self._ask(client)
        except Failed:
            return  # somebody is at its configuration; it says itself what is wrong there
        if self.works:
            self._tell("the plugin can do its work now")

    def _ask(self, client: OrthancClient) -> str:
        """Say why the plugin cannot do its work, "" when it can. Raises Failed, see ``wait``."""
        try:
            health = client.health()
        except Unreachable as error:
            return str(error)
        if health.ledger.startswith(_MISCONFIGURED):
            problems = " ".join(health.problems)
            raise Failed(f"The plugin's configuration in ingest.json is wrong. {problems}")
        if health.ledger != "ok":
            return f"The plugin cannot work. The ledger {health.ledger}."
        trouble = self._help(client, health.ledger_place)
        if health.problems:
            trouble = f"The plugin cannot work. {' '.join(health.problems)}"
        self.works = not trouble
        return trouble

    def _help(self, client: OrthancClient, place: str) -> str:
        """Do once what its open ledger was waited for; say what keeps it from that, or ""."""
        if self._helped:
            return ""
        try:
            self._home.note_ledger(place)
        except OSError as error:
            return f"Where the ledger is cannot be noted ({error.strerror})."
        self._helped = True
        try:
            client.tell_model_changes(store_at(self._home.models).history())
            client.tell_deeds(noted(self._home))
            check_read(self._home)
        except Failed as error:
            self._tell(f"the audit trail was not told of all: {error}")
        return ""
