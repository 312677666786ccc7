"""One walk over what was in Orthanc before: where it is, and when and how far it goes on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from prichexy_plugin.moments import has_come
from prichexy_plugin.studies import Listed

__all__ = [
    "DEFAULT_RATE",
    "MAX_RATE",
    "MOST_PASSES",
    "WAITING_LIMIT",
    "Backfill",
]

#: Studies a minute, by default and at most.
DEFAULT_RATE: Final = 60
MAX_RATE: Final = 6000
#: While so many studies wait in the ledger for the broker, no more are added to them.
WAITING_LIMIT: Final = 500
MOST_PASSES: Final = 3
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
        """Go on behind ``page``, which was read from one before ``place``; see ``backfiller``."""
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
