"""Moments that were noted by a clock which may have been set since. Pure.

One that lies ahead was noted while the clock was ahead, and would stop what waits for it until the
clock is there again. ``views.long_before`` is the same for the ledger's rows.
"""

from __future__ import annotations

from datetime import datetime, timedelta

__all__ = ["has_come", "has_passed"]


def has_passed(pause: timedelta, since: datetime | None, now: datetime) -> bool:
    """Say whether ``pause`` has passed, also where ``since`` is None or lies ahead."""
    return since is None or not timedelta() <= now - since < pause


def has_come(at: datetime | None, now: datetime, *, longest: timedelta) -> bool:
    """Say whether ``at`` has come, also where it is None or farther ahead than it is ever put."""
    return at is None or now >= at or at - now > longest
