"""Dates moved by a whole number of days."""

from __future__ import annotations

import re
from datetime import date, timedelta
from typing import Final

__all__ = ["moved_earlier"]

#: A date of VR DA, also in the form of ACR-NEMA, or the beginning of a DT.
_DATE: Final = re.compile(r"([0-9]{4})(\.?)([0-9]{2})\2([0-9]{2})(.*)", re.ASCII)
#: What may follow the date in a DT: a time of day, and an offset from UTC.
_REST: Final = re.compile(
    r"([0-9]{2}([0-9]{2}([0-9]{2}(\.[0-9]{1,6})?)?)?)?([+-][0-9]{4})?", re.ASCII
)


def moved_earlier(text: str, days: int) -> str | None:
    """Give the date of a DA or DT, ``days`` earlier, as YYYYMMDD.

    None for what is no whole date: a year alone, a range, a day that the calendar does not have,
    or one that would come to lie before the year 1000. A time of day is left out.
    """
    match = _DATE.fullmatch(text.strip())
    if match is None or not _REST.fullmatch(match[5]):
        return None
    try:
        moved = date(int(match[1]), int(match[3]), int(match[4])) - timedelta(days=days)
    except (ValueError, OverflowError):
        return None
    return moved.strftime("%Y%m%d") if moved.year >= 1000 else None
