"""Whose a ledger is: one Orthanc's, which is known by the number of its database.

A ledger keeps the place in its Orthanc's changes, and a study that it knows and this Orthanc does
not hold has been deleted. Two Orthancs on one ledger would end each other's studies.
"""

from __future__ import annotations

import secrets
from typing import Final

from sqlalchemy.orm import Session

from prichexy_plugin.host import Host
from prichexy_plugin.schema import FactRow
from prichexy_plugin.studies import StudiesUnavailable

__all__ = [
    "CURSOR",
    "PROPERTY",
    "RESTORED",
    "OthersLedger",
    "admit",
    "check_owner",
    "give_free",
    "number_of",
    "take_over",
]

#: The global property of Orthanc's database that holds its number. Orthanc leaves those from 1024
#: on to its plugins; no other takes this one.
PROPERTY: Final = 0x50724368
#: The fact that says up to which of its Orthanc's changes the ledger has read.
CURSOR: Final = "changes"
#: The fact that names its Orthanc.
_OWNER: Final = "orthanc"
#: The fact that says when the ledger was restored, in minutes since 1970, since seconds would not
#: fit into the numbers of PostgreSQL in 2038; prichexy_gateway.ledger_copy writes it. Whoever finds
#: it first goes on with the ledger.
RESTORED: Final = "restored"
#: Stands there when somebody said that the next Orthanc may have it.
_NOBODY: Final = 0
_HIGHEST: Final = 2**31 - 1


class OthersLedger(Exception):
    """The ledger is another Orthanc's; the text goes on after "The ledger …"."""

    def __init__(self) -> None:
        super().__init__(
            "belongs to another Orthanc, or this one's database was replaced; it was left as it "
            "was. If it is to go on with this Orthanc, stop the other for good, and run "
            "prichexy ledger adopt"
        )


def number_of(orthanc: Host) -> int:
    """Give the number of this Orthanc's database, drawn at random at the first call ever.

    It goes where the database goes: into its backups and its copies. Raises StudiesUnavailable
    when Orthanc's database does not work, and before ORTHANC_STARTED.
    """
    try:
        known = orthanc.GetGlobalProperty(PROPERTY, "")
        if known:
            return int(known)
        drawn = 1 + secrets.randbelow(_HIGHEST)
        orthanc.SetGlobalProperty(PROPERTY, str(drawn))
    except orthanc.OrthancException as error:
        raise StudiesUnavailable from error
    return drawn


def admit(session: Session, number: int) -> None:
    """Raise OthersLedger unless this Orthanc may open the ledger.

    It may when the ledger is its own, names no Orthanc, was given free, or was restored since.
    """
    owner = session.get(FactRow, _OWNER)
    ours = owner is None or owner.number in (_NOBODY, number)
    if not ours and session.get(FactRow, RESTORED) is None:
        raise OthersLedger


def take_over(session: Session, number: int) -> bool:
    """Write down that the ledger is this Orthanc's; say whether somebody had given it free."""
    owner = session.get(FactRow, _OWNER)
    freed = owner is not None and owner.number == _NOBODY
    session.merge(FactRow(name=_OWNER, number=number))
    return freed


def check_owner(session: Session, number: int) -> None:
    """Raise OthersLedger when the ledger, which was this Orthanc's, was given away since."""
    owner = session.get(FactRow, _OWNER)
    if owner is None or owner.number != number:
        raise OthersLedger


def give_free(session: Session) -> None:
    """Let the next Orthanc that opens the ledger have it."""
    session.merge(FactRow(name=_OWNER, number=_NOBODY))
