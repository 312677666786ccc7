"""How often one user may ask for what costs something.

It is for a script that runs wild and for a password in wrong hands. Who has no password never comes
here: Orthanc checks it before.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Final

__all__ = ["DEFAULTS", "Kind", "Limiter", "Limits"]

#: So many users' allowances of each kind are remembered. Who comes beyond shares one.
_MOST: Final = 1024
_MINUTE: Final = 60.0


class Kind(StrEnum):
    """What is counted."""

    CHANGE = "change"  # a form, or a POST of a person's program
    PICTURE = "picture"  # a picture of a study
    SEARCH = "search"  # a search for studies or lines, a file of them, a verification
    REFUSAL = "refusal"  # what was refused: a token or a role that is wrong


@dataclass(frozen=True, slots=True)
class Limits:
    """How many of each a user may have in a minute; None is for no limit."""

    changes: int | None = 60
    pictures: int | None = 600
    searches: int | None = 120
    refusals: int | None = 20

    def by_kind(self) -> Mapping[Kind, int]:
        """Give those that there are."""
        every = {
            Kind.CHANGE: self.changes,
            Kind.PICTURE: self.pictures,
            Kind.SEARCH: self.searches,
            Kind.REFUSAL: self.refusals,
        }
        return {kind: limit for kind, limit in every.items() if limit is not None}


DEFAULTS: Final = Limits()


@dataclass(frozen=True, slots=True)
class _Allowance:
    """What was left at a moment; it grows by the limit in each minute, up to the limit."""

    left: float
    at: datetime


class Limiter:
    """Counts by user and kind; any thread may ask. Its memory does not grow with what is asked.

    Who has waited for a minute may have the whole limit at once, and then one by one with time.
    """

    def __init__(self, limits: Limits, clock: Callable[[], datetime], most: int = _MOST) -> None:
        self._limits = limits.by_kind()
        self._clock = clock
        self._most = most
        self._lock = threading.Lock()
        self._known: dict[tuple[Kind, bytes], _Allowance] = {}

    def __len__(self) -> int:
        """Say how many allowances are remembered."""
        return len(self._known)

    def take(self, user: str | None, kind: Kind) -> int:
        """Take one of ``user``'s: 0, or the seconds until there is one; then nothing is taken."""
        return self._ask(user, kind, takes=True)

    def look(self, user: str | None, kind: Kind) -> int:
        """Say what ``take`` would, and take nothing."""
        return self._ask(user, kind, takes=False)

    def _ask(self, user: str | None, kind: Kind, *, takes: bool) -> int:
        limit = self._limits.get(kind)
        if limit is None:
            return 0
        now = self._clock()
        # A digest: a name may be as long as a header.
        key = kind, b"" if user is None else sha256(user.encode()).digest()
        with self._lock:
            if key not in self._known and len(self._known) >= self._most:
                self._forget_the_whole(now)
                if len(self._known) >= self._most:
                    key = kind, b"others"
            allowance = self._known.get(key, _Allowance(limit, now))
            if allowance.at > now:
                # The clock was put back: what was left is left, and from now on there is more.
                allowance = self._known[key] = replace(allowance, at=now)
            left = _left(allowance, limit, now)
            if left < 1:
                return max(1, math.ceil((1 - left) * _MINUTE / limit))
            if takes:
                self._known[key] = _Allowance(left - 1, now)
            return 0

    def _forget_the_whole(self, now: datetime) -> None:
        """Forget whose allowance is whole again: nothing is lost by that."""
        self._known = {
            key: one
            for key, one in self._known.items()
            if _left(one, self._limits[key[0]], now) < self._limits[key[0]]
        }


def _left(allowance: _Allowance, limit: int, now: datetime) -> float:
    # A clock that was put back gives nothing and takes nothing.
    passed = max(0.0, (now - allowance.at).total_seconds())
    return min(float(limit), allowance.left + passed * limit / _MINUTE)
