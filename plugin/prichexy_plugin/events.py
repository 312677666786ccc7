"""What a line of Orthanc's ``/changes`` means for the gateway. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final

__all__ = ["Arrival", "Level", "arrival_of", "moment_of"]


class Level(Enum):
    """What kind of thing an Arrival's id names."""

    STUDY = "study"
    INSTANCE = "instance"


@dataclass(frozen=True, slots=True)
class Arrival:
    """Something of a study came in.

    ``stable`` says that Orthanc called the study stable; ``at`` is when, to the second, None when
    Orthanc does not say.
    """

    level: Level
    orthanc_id: str
    stable: bool
    at: datetime | None


_ARRIVALS: Final = {
    "NewStudy": (Level.STUDY, False),
    "StableStudy": (Level.STUDY, True),
    # A late instance of a known study is announced by this line alone when Orthanc is killed
    # before the study becomes stable again.
    "NewInstance": (Level.INSTANCE, False),
}


def arrival_of(change: Mapping[str, Any]) -> Arrival | None:
    """Read one change; None when it tells of no arrival. Raises KeyError when it is no change."""
    known = _ARRIVALS.get(change["ChangeType"])
    if known is None:
        return None
    level, stable = known
    return Arrival(
        level=level,
        orthanc_id=change["ID"],
        stable=stable,
        at=moment_of(change.get("Date")),
    )


def moment_of(text: object) -> datetime | None:
    """Read one of Orthanc's own times, which are in UTC; None when it is none."""
    try:
        return datetime.strptime(str(text), "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None
