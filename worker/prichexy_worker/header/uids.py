"""UIDs: which may stay as they are under Retain UIDs, and which are pseudonyms."""

from __future__ import annotations

import re
import uuid
from typing import Final

__all__ = ["is_pseudonym", "may_stay"]

_UID: Final = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+", re.ASCII)
_LONGEST: Final = 64
_OURS: Final = re.compile(r"2\.25\.[1-9][0-9]*", re.ASCII)
_MONTH: Final = "(?:0[1-9]|1[0-2])"
_DAY: Final = "(?:0[1-9]|[12][0-9]|3[01])"
#: A date: eight digits anywhere in a component, six as the whole of one.
_DATE: Final = re.compile(
    rf"(?:19|20)[0-9]{{2}}{_MONTH}{_DAY}|(?<![0-9])[0-9]{{2}}{_MONTH}{_DAY}(?![0-9])", re.ASCII
)
#: The same in three components, which have no leading zeros: 2007.9.19 or 19.9.2007 or 9.19.2007.
_DOTTED: Final = re.compile(
    r"\.(?:(?:19|20)[0-9]{2}(?:\.(?:[1-9]|[12][0-9]|3[01])){2}"
    r"|(?:(?:[1-9]|[12][0-9]|3[01])\.){2}(?:19|20)[0-9]{2})(?![0-9])",
    re.ASCII,
)
#: The root of a private enterprise: its number may look like a year.
_ENTERPRISE: Final = re.compile(r"1\.3\.6\.1\.4\.1\.[0-9]+(?=\.|$)", re.ASCII)


def may_stay(uid: str) -> bool:
    """Tell whether ``uid`` is a UID (PS3.5 9.1) in which nothing reads as a date.

    Many devices make UIDs of the time of the examination. Seconds since some day do not read as
    one. Of random numbers of 39 digits about one in forty seems to hold a date.
    """
    if len(uid) > _LONGEST or not _UID.fullmatch(uid):
        return False
    own = _ENTERPRISE.sub("", uid)
    return not (_DATE.search(own) or _DOTTED.search(own))


def is_pseudonym(uid: str) -> bool:
    """Tell whether ``uid`` is of the form of ``Pseudonyms.uid``: made of a UUID of version 8."""
    if not _OURS.fullmatch(uid) or int(uid[5:]) >> 128:
        return False
    return uuid.UUID(int=int(uid[5:])).version == 8
