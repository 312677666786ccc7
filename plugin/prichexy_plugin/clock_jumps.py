"""How much of what the clock shows did not pass, after it was set. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

__all__ = ["Jump", "uncounted"]


@dataclass(frozen=True, slots=True)
class Jump:
    """The clock went on by ``by`` more than the time that passed; by less, where that is negative.

    With ``watched`` that is known: the plugin ran. Else it was off, and nobody knows how much of
    ``by`` passed meanwhile.
    """

    by: timedelta
    watched: bool


def uncounted(jumps: Iterable[Jump]) -> timedelta:
    """Give what to take from an age by the clock: ``jumps`` are those since, in their order.

    A clock that was behind and was set right makes everything of before as much too old as one that
    is ahead now. What is unknown counts as time that passed, until the clock is set back: then it
    was ahead. Never negative.
    """
    sure = unknown = timedelta()
    for jump in jumps:
        if jump.by >= timedelta():
            if jump.watched:
                sure += jump.by
            else:
                unknown += jump.by
        else:
            was_ahead = min(unknown, -jump.by)
            unknown -= was_ahead
            sure += jump.by + was_ahead
    return max(sure, timedelta())
