"""How long what is kept: the rules, as frozen values. Pure.

Without a rule everything is kept. docs/audit.md tells the rules to people.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from prichexy_worker.contract import State

__all__ = ["Due", "Originals", "Rules"]


class Originals(StrEnum):
    """What the rules did to a study's originals."""

    KEPT = "kept"
    DELETING = "deleting"  # some of them may be gone already
    DELETED = "deleted"  # by a rule: those that are named in "disposed_originals"
    GONE = "gone"  # not by a rule: somebody deleted them in Orthanc


@dataclass(frozen=True, slots=True)
class Rules:
    """How long after its last step a study that has ended keeps what it has; None is for ever.

    ``originals`` are by the state in which the study ended. ``ledger`` is for lines of the audit
    trail, and for the rows of studies of which Orthanc holds nothing any more.
    """

    originals: Mapping[State, timedelta] = field(default_factory=dict)
    pictures: timedelta | None = None
    ledger: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Due:
    """A study whose originals are due, as it was when its worker ended it.

    ``content`` is the digest of what it held then, ``last_update`` when its last instance came.
    ``deleting``: the deletion has begun.
    """

    study_id: str
    state: State
    revision: int
    updated: datetime
    content: str
    instances: int
    last_update: datetime | None
    deleting: bool
