"""What ended in the last hours and days; what is over is asked of the ledger once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from heapq import merge
from itertools import pairwise
from typing import Final

from prichexy_plugin.ledger import Ledger
from prichexy_plugin.records import Span
from prichexy_worker.contract import State

__all__ = ["DAY", "HOUR", "PLOTTED", "History", "edges"]

HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)
#: What the overview shows: so many of each.
PLOTTED: Final = ((HOUR, 24), (DAY, 14))
#: A step that was taken just before the end of an hour may still be on its way into the database.
_SETTLED: Final = timedelta(minutes=1)


class History:
    """Remembers the spans that are over, as they were when they were first asked for.

    So a page costs what the running hour holds, not what two weeks hold. A study that is tried
    again later no longer stands exported where it did; a span that is remembered still has its
    time, until Orthanc is started again. Any thread may call it: at worst two ask for the same.
    """

    def __init__(self) -> None:
        self._over: dict[tuple[datetime, datetime], Span] = {}

    def spans(self, ledger: Ledger, now: datetime, step: timedelta, count: int) -> tuple[Span, ...]:
        """Give the last ``count`` hours or days in UTC, the running one included.

        Raises SQLAlchemyError.
        """
        wanted = edges(now, step, count)
        for begin, end in list(self._over):
            if end - begin == step and begin < wanted[0]:
                self._over.pop((begin, end), None)
        return tuple(self._span(ledger, begin, end, now) for begin, end in pairwise(wanted))

    def fill(self, ledger: Ledger, now: datetime) -> Iterator[None]:
        """Ask for what is over of all that is plotted; give the word after each. As ``spans``."""
        for step, count in PLOTTED:
            for begin, end in pairwise(edges(now, step, count)):
                if end + _SETTLED <= now:
                    self._span(ledger, begin, end, now)
                    yield

    def _span(self, ledger: Ledger, begin: datetime, end: datetime, now: datetime) -> Span:
        known = self._over.get((begin, end))
        if known is not None:
            return known
        over = end + _SETTLED <= now
        if over or end - begin <= HOUR:
            span = ledger.span(begin, end)
        else:
            hours = range(1 + (now - begin) // HOUR)
            begins = [begin + number * HOUR for number in hours if begin + number * HOUR < end]
            parts = [self._span(ledger, hour, hour + HOUR, now) for hour in begins]
            span = _joined(begin, end, parts)
        if over:
            self._over[begin, end] = span
        return span


def edges(now: datetime, step: timedelta, count: int) -> tuple[datetime, ...]:
    """Give the edges of the last ``count`` hours or days in UTC, the one that runs included."""
    begin = now.replace(minute=0, second=0, microsecond=0)
    if step >= DAY:
        begin = begin.replace(hour=0)
    return tuple(begin + (number + 1 - count) * step for number in range(count + 1))


def _joined(begin: datetime, end: datetime, parts: Iterable[Span]) -> Span:
    ended: Counter[State] = Counter()
    seconds: list[Sequence[float]] = []
    for part in parts:
        ended.update(part.ended)
        seconds.append(part.seconds)
    return Span(begin, end, dict(ended), tuple(merge(*seconds)))
