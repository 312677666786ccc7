"""How many workers the ledger knows at a time, and how often they may change.

Whoever has the workers' password can announce workers that there are not. Each that is new, or has
another model, costs a line of the audit trail for ever, and a place on the pages.
"""

from __future__ import annotations

from collections import deque
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from prichexy_plugin.moments import has_passed
from prichexy_plugin.schema import WorkerRow
from prichexy_plugin.views import WORKER_LIVES

__all__ = ["MOST_WORKERS", "Newcomers"]

#: So many workers are known at a time.
MOST_WORKERS: Final = 256
#: And so many may be new or take up another model within an hour: all of them twice.
_MOST_CHANGES: Final = 2 * MOST_WORKERS
_WITHIN: Final = timedelta(hours=1)


class Newcomers:
    """Says which announcements that tell something new are taken note of.

    It counts from the plugin's start. Calls must not overlap.
    """

    def __init__(self) -> None:
        self._changes: deque[datetime] = deque()

    def admits(self, session: Session, now: datetime, *, is_new: bool) -> bool:
        """Say whether there is room, and take it. Raises SQLAlchemyError.

        A new worker takes the place of the one that fell silent first. No living one gives way.
        """
        while self._changes and has_passed(_WITHIN, self._changes[0], now):
            self._changes.popleft()
        if len(self._changes) >= _MOST_CHANGES:
            return False
        known = session.scalar(select(func.count()).select_from(WorkerRow)) or 0
        if is_new and known >= MOST_WORKERS:
            longest = session.scalars(select(WorkerRow).order_by(WorkerRow.seen).limit(1)).one()
            if abs(now - longest.seen) < WORKER_LIVES:
                return False
            session.delete(longest)
        self._changes.append(now)
        return True
