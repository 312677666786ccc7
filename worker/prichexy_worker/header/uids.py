"""Which UIDs may stay as they are under Retain UIDs, and which tell too much."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["may_stay"]

_UID: Final = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+", re.ASCII)
_LONGEST: Final = 64
#: A date, with or without a time after it, or one of six digits.
_DATE: Final = re.compile(
    r"(?:19|20)[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])[0-9]*"
    r"|[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])",
    re.ASCII,
)


def may_stay(uid: str) -> bool:
    """Tell whether ``uid`` is a UID (PS3.5 9.1) without a component that reads as a date.

    Many devices make UIDs of the time of the examination.
    """
    if len(uid) > _LONGEST or not _UID.fullmatch(uid):
        return False
    return not any(_DATE.fullmatch(component) for component in uid.split("."))
