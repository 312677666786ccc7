"""Takes in what was in Orthanc before the gateway, and what the change log no longer tells.

It walks Orthanc's list of studies, a page at a time, and lets the watcher look at each study that
the ledger does not know, whose last instance came after the ledger's last look, or that no rule
took in: the rules may be other ones now. Where it is stands in the ledger: after a restart it goes
on.
"""

from __future__ import annotations

from typing import Final

from prichexy_plugin.ledger import Ledger
from prichexy_plugin.studies import Studies
from prichexy_plugin.trail import Clock

__all__ = ["Backfiller", "page_size"]

_MOST: Final = 100
#: A page is for so many seconds at most, so that the rate holds from minute to minute.
_PAGE_SECONDS: Final = 10


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
