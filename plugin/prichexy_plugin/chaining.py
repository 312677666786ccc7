"""Adds lines to the chain in the ledger, within a transaction of whoever calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from prichexy_plugin.chain import GENESIS, ChainKey, Head, Line, digest_of
from prichexy_plugin.schema import CHECKPOINT, HEAD, ChainRow, EventRow

__all__ = ["append", "begin_chain", "chain_row"]


def begin_chain(session: Session, at: datetime) -> None:
    """Make the rows of a chain without lines."""
    for name in (HEAD, CHECKPOINT):
        session.add(ChainRow(name=name, number=0, digest=GENESIS, at=at))
    session.flush()


def append(session: Session, lines: Sequence[Line], key: ChainKey | None) -> Head:
    """Chain ``lines``, whose numbers and digests are not looked at, and give the new head.

    Holds a lock on the head to the end of the transaction.
    """
    row = chain_row(session, HEAD, lock=True)
    rows = []
    for line in lines:
        placed = replace(line, number=row.number + 1, key_id="" if key is None else key.key_id)
        sealed = replace(placed, digest=digest_of(placed, row.digest, key))
        rows.append(EventRow.of(sealed))
        row.number, row.digest, row.at = sealed.number, sealed.digest, sealed.at
    # The head first: the database takes no line beyond it.
    session.flush()
    session.add_all(rows)
    session.flush()
    return row.to_head()


def chain_row(session: Session, name: str, *, lock: bool = False) -> ChainRow:
    """Give the row HEAD or CHECKPOINT; with ``lock`` no other transaction changes it meanwhile."""
    query = select(ChainRow).where(ChainRow.name == name)
    if lock:
        query = query.with_for_update().execution_options(populate_existing=True)
    return session.scalars(query).one()
