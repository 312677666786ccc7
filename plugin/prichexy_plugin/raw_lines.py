"""Reads the audit trail as the rows stand, whatever somebody made of them.

The ledger's own mapping believes its rows. Here one that cannot be a line is a finding.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Select,
    Text,
    and_,
    cast,
    column,
    func,
    select,
    table,
)

from prichexy_plugin.chain import Damaged, Head, Line, head_of

__all__ = ["any_text", "in_the_chain", "moment", "read_heads", "read_lines", "read_these"]

#: So many lines are read at a time.
_PAGE: Final = 1000
_TEXTS: Final = ("deed", "actor", "key_id", "digest")
_OPTIONAL: Final = ("job_id", "from_state", "to_state", "reason")
_PLAIN: Final = ("number", *_TEXTS, *_OPTIONAL)
_EVENTS: Final = table("events", *map(column, _PLAIN), column("at"), column("details"))
_CHAIN: Final = table("audit_chain", column("name"), column("number"), column("digest"))
#: A moment's text in PostgreSQL, whatever its settings are.
_MOMENT: Final = "YYYY-MM-DD HH24:MI:SS.US"


def read_heads(connection: Connection) -> tuple[Head | None, Head | None]:
    """Give the checkpoint and the head that the ledger names; None for what is no head."""
    with any_text(connection):
        rows = connection.execute(select(_CHAIN)).all()
    heads = {row.name: head_of(row.number, row.digest) for row in rows}
    return heads.get("checkpoint"), heads.get("head")


def read_lines(
    connection: Connection, upto: int | None = None
) -> Generator[Line | Damaged, None, None]:
    """Give every row, or those up to a number, by their numbers. Raises SQLAlchemyError.

    Those before the checkpoint, too, where no row may stand: what the gateway's own questions could
    find is verified. Close it when it is not read to its end: the database keeps a place open for
    it.
    """
    query = _rows(connection)
    if upto is not None:
        query = query.where(_EVENTS.c.number <= upto)
    paged = query.order_by(_EVENTS.c.number).execution_options(yield_per=_PAGE)
    with any_text(connection), connection.execute(paged) as rows:
        for row in rows:
            yield _line(row._mapping)


def in_the_chain(events: FromClause) -> ColumnElement[bool]:
    """Give the condition that a row of ``events`` stands between the checkpoint and the head.

    Where the ledger's word on these is altered to what is no number, no row does.
    """
    number = events.c.number
    checkpoint, head = (
        select(_CHAIN.c.number).where(_CHAIN.c.name == name).scalar_subquery()
        for name in ("checkpoint", "head")
    )
    return and_(number > 0, number > checkpoint, number <= head)


def read_these(connection: Connection, numbers: Sequence[int]) -> Iterator[Line | Damaged]:
    """Give the rows of these numbers, in their order. Raises SQLAlchemyError."""
    query = _rows(connection)
    with any_text(connection):
        for first in range(0, len(numbers), _PAGE):
            page = numbers[first : first + _PAGE]
            rows = connection.execute(query.where(_EVENTS.c.number.in_(page)))
            lines = {row.number: _line(row._mapping) for row in rows}
            yield from (lines[number] for number in page if number in lines)


def _rows(connection: Connection) -> Select[Any]:
    columns = _EVENTS.c
    return select(
        *(columns[name] for name in _PLAIN),
        moment(connection, columns.at).label("moment"),
        cast(columns.details, Text).label("json"),
    )


def moment(connection: Connection, stored: ColumnElement[Any]) -> ColumnElement[Any]:
    """Give what selects the text of a moment, the same on both databases."""
    return stored if connection.dialect.name == "sqlite" else func.to_char(stored, _MOMENT)


@contextmanager
def any_text(connection: Connection) -> Iterator[None]:
    """Have SQLite's driver give also what is no UTF-8, which ends the whole reading otherwise.

    One may be within another.
    """
    if connection.dialect.name != "sqlite":
        yield
        return
    driver: Any = connection.connection.driver_connection
    before = driver.text_factory
    driver.text_factory = lambda content: content.decode("utf-8", "surrogateescape")
    try:
        yield
    finally:
        driver.text_factory = before


def _is_text(value: object) -> bool:
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def _distinct(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Give an object whose names are all different: of the same ones each program reads another."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands there twice")
    return found


def _line(row: Mapping[Any, Any]) -> Line | Damaged:
    values: dict[str, Any] = {name: row[name] for name in _PLAIN}
    for name in (*_TEXTS, *_OPTIONAL):
        value = values[name]
        if not _is_text(value) and not (value is None and name in _OPTIONAL):
            return Damaged(values["number"], name)
    if head_of(values["number"], values["digest"]) is None:
        return Damaged(values["number"], "digest")
    try:
        at = datetime.fromisoformat(row["moment"])
    except (TypeError, ValueError):
        return Damaged(values["number"], "at")
    # One moment has one spelling here: another would mean the same to us, and not to all.
    if at.tzinfo is not None or row["moment"] != at.isoformat(" ", "microseconds"):
        return Damaged(values["number"], "at")
    try:
        details = json.loads(row["json"], object_pairs_hook=_distinct)
    except (TypeError, ValueError, RecursionError):
        return Damaged(values["number"], "details")
    if not isinstance(details, dict):
        return Damaged(values["number"], "details")
    return Line(**values, at=at.replace(tzinfo=UTC), details=details)
