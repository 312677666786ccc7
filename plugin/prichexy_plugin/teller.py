"""Tells a syslog server of the audit trail, line by line; the ledger is the outbox.

At least once and in order: what the server has is written down after it has it, so a crash between
the two tells it again. While the server is away the lines wait in the ledger. That note protects
no digest: where it is not as this program wrote it, or is beyond the last line, it is put right.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from prichexy_plugin.audit_messages import Source, message_of
from prichexy_plugin.chain import Damaged
from prichexy_plugin.moments import has_come
from prichexy_plugin.syslog import Sender, SyslogUnavailable, packet

if TYPE_CHECKING:
    from prichexy_plugin.ledger import Ledger
    from prichexy_plugin.trail import Clock

__all__ = ["BATCH", "LONGEST_PAUSE", "Teller", "TellerState"]

#: So many lines are told at a time.
BATCH: Final = 100
_FIRST_PAUSE: Final = timedelta(seconds=5)
LONGEST_PAUSE: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class TellerState:
    """What the last contact with the server showed; None before the first."""

    reachable: bool
    detail: str
    checked: datetime | None


class Teller:
    """One thread calls ``run_once``; any thread may read ``state``."""

    def __init__(self, ledger: Ledger, sender: Sender, source: Source, clock: Clock) -> None:
        self._ledger = ledger
        self._sender = sender
        self._source = source
        self._clock = clock
        #: Up to which line the server was told, as far as this process knows.
        self._known: int | None = None
        self._failed = 0
        self._next_at: datetime | None = None
        self._state = TellerState(reachable=True, detail="not tried yet", checked=None)

    @property
    def state(self) -> TellerState:
        """Tell what the last contact showed, without asking the server."""
        return self._state

    def run_once(self) -> bool:
        """Tell the next lines, when it is time; say whether more may be told at once.

        Raises SQLAlchemyError.
        """
        now = self._clock()
        told = self._told()
        if not has_come(self._next_at, now, longest=LONGEST_PAUSE):
            return False
        lines = self._ledger.lines(after=told, limit=BATCH)
        if not lines:
            return False
        # One that somebody altered says nothing; that it was, a verification says.
        sound = [line for line in lines if not isinstance(line, Damaged)]
        messages = [message_of(line, self._source) for line in sound]
        packets = [packet(message) for message in messages if message is not None]
        try:
            if packets:
                self._sender.send(packets)
        except SyslogUnavailable as error:
            pause = min(LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(self._failed, 10))
            self._failed += 1
            self._next_at = now + pause
            self._state = TellerState(reachable=False, detail=str(error), checked=now)
            return False
        self._ledger.note_told(lines[-1].number)
        self._known = lines[-1].number
        self._failed, self._next_at = 0, None
        self._state = TellerState(reachable=True, detail="ok", checked=now)
        return len(lines) == BATCH

    def _told(self) -> int:
        """Give the number of the last line that the server has; have the ledger say the same."""
        if self._known is None:
            self._known = self._ledger.told() or 0
        if self._known != (self._ledger.told_word() or 0):
            self._ledger.tell_again(self._known)
        return self._known
