"""Dates moved by a whole number of days, and those that must not be."""

from __future__ import annotations

import re
from datetime import date, timedelta
from typing import Final

__all__ = ["are_of_one_examination", "moved_earlier"]

#: A date of VR DA, also in the form of ACR-NEMA, or the beginning of a DT.
_DATE: Final = re.compile(r"([0-9]{4})(\.?)([0-9]{2})\2([0-9]{2})(.*)", re.ASCII)
#: What may follow the date in a DT: a time of day, and an offset from UTC.
_REST: Final = re.compile(
    r"([0-9]{2}([0-9]{2}([0-9]{2}(\.[0-9]{1,6})?)?)?)?([+-][0-9]{4})?", re.ASCII
)


#: No digital radiograph is older, and what is dated by a device without a clock often is.
_FIRST_DAY: Final = date(1980, 1, 2)
#: Where clocks and programs begin to count: a date that nobody has set.
_BEGINNINGS: Final = frozenset(
    {date(1990, 1, 1), date(2000, 1, 1), date(2001, 1, 1), date(2010, 1, 1), date(2020, 1, 1)}
)
#: The dates of one examination lie so many days apart at most.
_APART: Final = 31


def are_of_one_examination(text: str, study_date: str) -> bool:
    """Tell whether the date of a DA or DT lies within a month of a StudyDate that can be one."""
    day, study = _day(text), _day(study_date)
    if day is None or study is None or study < _FIRST_DAY or study in _BEGINNINGS:
        return False
    return abs((day - study).days) <= _APART


def moved_earlier(text: str, days: int) -> str | None:
    """Give the date of a DA or DT, ``days`` earlier, as YYYYMMDD.

    None for what is no whole date: a year alone, a range, a day that the calendar does not have,
    or one that would come to lie before the year 1000. A time of day is left out.
    """
    day = _day(text)
    try:
        moved = None if day is None else day - timedelta(days=days)
    except OverflowError:
        return None
    return moved.strftime("%Y%m%d") if moved is not None and moved.year >= 1000 else None


def _day(text: str) -> date | None:
    match = _DATE.fullmatch(text.strip())
    if match is None or not _REST.fullmatch(match[5]):
        return None
    try:
        return date(int(match[1]), int(match[3]), int(match[4]))
    except ValueError:
        return None
