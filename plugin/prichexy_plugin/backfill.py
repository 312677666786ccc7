"""Takes in what was in Orthanc before the gateway, and what the change log no longer tells.

It walks Orthanc's list of studies, a page at a time, and lets the watcher look at each study that
the ledger does not know, whose last instance came after the ledger's last look, or that no rule
took in: the rules may be other ones now. Where it is stands in the ledger: after a restart it goes
on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from prichexy_plugin.moments import has_come
from prichexy_plugin.studies import Listed, Studies

if TYPE_CHECKING:
    from prichexy_plugin.ledger import Ledger
    from prichexy_plugin.trail import Clock

__all__ = [
    "DEFAULT_RATE",
    "MAX_RATE",
    "MOST_PASSES",
    "WAITING_LIMIT",
    "Backfill",
    "Backfiller",
    "page_size",
]

#: Studies a minute, by default and at most.
DEFAULT_RATE: Final = 60
MAX_RATE: Final = 6000
#: While so many studies wait in the ledger for the broker, no more are added to them.
WAITING_LIMIT: Final = 500
MOST_PASSES: Final = 3
_MOST: Final = 100
#: A page is for so many seconds at most, so that the rate holds from minute to minute.
_PAGE_SECONDS: Final = 10
#: No page is farther off, whatever the rate: at one study a minute two of them are read.
_LONGEST_PAUSE: Final = timedelta(minutes=2)


@dataclass(frozen=True, slots=True)
class Backfill:
    """One walk. ``total`` is how many studies Orthanc held when it began.

    ``place`` is how many of Orthanc's list were read in this pass, ``last_id`` the last of them,
    ``seen`` the largest place of any pass. ``found`` were not in the ledger, ``again`` are looked
    at anew. Deletions move the list while it is walked, so that some of it is passed over: a
    ``disturbed`` pass is followed by another, up to ``MOST_PASSES`` in all.
    """

    number: int
    started: datetime
    started_by: str
    per_minute: int
    total: int
    place: int = 0
    last_id: str = ""
    seen: int = 0
    found: int = 0
    again: int = 0
    passes: int = 1
    disturbed: bool = False
    next_at: datetime | None = None
    ended: datetime | None = None
    stopped_by: str | None = None

    @property
    def running(self) -> bool:
        """Say whether it has not come to its end."""
        return self.ended is None

    def is_due(self, now: datetime) -> bool:
        """Say whether the rate allows the next page."""
        return self.running and has_come(self.next_at, now, longest=_LONGEST_PAUSE)

    def after_page(
        self, page: tuple[Listed, ...], *, found: int, again: int, now: datetime
    ) -> Backfill:
        """Go on behind ``page``, which was read from one before ``place``; see ``Backfiller``."""
        first = page[0].study_id if page else ""
        new = page[1:] if self.place else page
        touched = found + again
        moved = replace(
            self,
            place=self.place + len(new),
            last_id=page[-1].study_id if page else self.last_id,
            seen=max(self.seen, self.place + len(new)),
            found=self.found + found,
            again=self.again + again,
            disturbed=self.disturbed or (self.place > 0 and first != self.last_id),
            next_at=now + touched * timedelta(minutes=1) / self.per_minute,
        )
        if new:
            return moved
        if moved.disturbed and moved.passes < MOST_PASSES:
            return replace(moved, place=0, last_id="", passes=moved.passes + 1, disturbed=False)
        return replace(moved, ended=now)


def page_size(per_minute: int) -> int:
    """Give how many studies one page may hold at this rate."""
    return max(1, min(_MOST, per_minute * _PAGE_SECONDS // 60))


class Backfiller:
    """Does the ledger's running backfill, a page at each call. One thread only."""

    def __init__(self, studies: Studies, ledger: Ledger, clock: Clock) -> None:
        self._studies = studies
        self._ledger = ledger
        self._clock = clock

    def run_once(self) -> bool:
        """Read the next page when it is time; say whether more may be read at once.

        While the handing out is stopped, or many studies wait for the broker, it waits as well.
        Raises StudiesUnavailable and SQLAlchemyError; calling it again goes on.
        """
        walk = self._ledger.backfill()
        if walk is None or not walk.is_due(self._clock()) or self._ledger.is_congested():
            return False
        # One before: it has to be the last of the page before, or something was deleted.
        since = max(0, walk.place - 1)
        page = self._studies.listed(since, page_size(walk.per_minute) + 1)
        return self._ledger.backfill_page(walk, page).running
