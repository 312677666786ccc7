"""The names of people as the ledger keeps them. Pure.

Orthanc takes any text for a user's name. PostgreSQL refuses what is longer than its column, and a
NUL: what that user did would be refused, or done without a line of the audit trail.
"""

from __future__ import annotations

import unicodedata
from hashlib import sha256
from typing import Final

from prichexy_plugin.chain import PERSON

__all__ = ["LONGEST_ACTOR", "kept_name", "person"]

#: So many characters has the actor of a line of the audit trail (``schema.EventRow``).
LONGEST_ACTOR: Final = 128
_LONGEST_NAME: Final = LONGEST_ACTOR - len(PERSON)
#: Digits of a digest that tell names apart whose rest is not kept.
_DIGITS: Final = 16
#: Control characters, and halves of characters, which no text in UTF-8 has.
_NOT_KEPT: Final = ("Cc", "Cs")


def person(user: str) -> str:
    """Give a user of Orthanc as an actor, as ``kept_name`` keeps the name."""
    return f"{PERSON}{kept_name(user)}"


def kept_name(user: str) -> str:
    """Give a user's name as it is, or as much of it as is kept and a digest of all of it.

    Two users' names stay two. Of 123 characters at most; none is a control character.
    """
    plain = "".join("?" if unicodedata.category(one) in _NOT_KEPT else one for one in user)
    if plain == user and len(user) <= _LONGEST_NAME:
        return user
    mark = f" #{sha256(user.encode(errors='surrogatepass')).hexdigest()[:_DIGITS]}"
    return f"{plain[: _LONGEST_NAME - len(mark)]}{mark}"
