"""Copies a whole ledger into an empty one, as from SQLite to PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Final

from pydantic import SecretStr
from sqlalchemy import Connection, Engine, Table, func, select, text, update
from sqlalchemy.exc import SQLAlchemyError

from prichexy_plugin.chain import ChainKey, Head, UnknownKey, verify
from prichexy_plugin.closed_ledger import Unusable, check_let_go, opened
from prichexy_plugin.database import READS, lift_limits
from prichexy_plugin.raw_lines import read_heads, read_lines
from prichexy_plugin.schema import Base, ChainRow, EventRow, FactRow, StudyRow

__all__ = ["copy_ledger"]

#: So many rows are in memory at a time.
_BATCH: Final = 1000


def copy_ledger(
    file: Path,
    url: str,
    password: SecretStr | None,
    *,
    keys: Mapping[str, ChainKey] | None = None,
    even_if_open: bool = False,
) -> Head:
    """Copy every row of a SQLite ``file`` to another database; give where the trail ends.

    Tables of an older version are brought up to date first, in the file, too, which is not altered
    otherwise, and not while it is in use. It is read as it is at one moment, and all is written in
    one transaction, which takes as long as it takes. The audit trail is verified before that
    begins, with ``keys`` by their ids, and every line of it compared afterwards, as it stands in
    both. Raises Unusable when either cannot be used, when ``url`` holds a ledger that is not empty,
    when the trail is not as it was written or a key is missing, and, without ``even_if_open``, when
    the last line does not say that a plugin let go of the ledger.
    """
    admit = partial(check_let_go, even_if_open=even_if_open)
    of_file = opened(f"sqlite:///{file.resolve()}", make=False, admit=admit)
    with of_file as source, opened(url, password) as target:
        try:
            return _copy_all(source, target, keys or {}, even_if_open=even_if_open)
        except SQLAlchemyError as error:
            raise Unusable(f"Nothing was copied ({type(error).__name__}).") from None


def _copy_all(
    source: Engine, target: Engine, keys: Mapping[str, ChainKey], *, even_if_open: bool
) -> Head:
    reading = source.connect().execution_options(**{READS: True})
    with reading, reading.begin():
        # Of a large ledger this takes minutes: nobody may wait for it in the other database, and
        # PostgreSQL ends a transaction in which nothing happens.
        with target.begin() as looking:
            _check_empty(looking)
        _check(reading, keys, even_if_open=even_if_open)
        with target.begin() as writing:
            lift_limits(writing)
            _check_empty(writing)
            return _write_all(reading, writing)


def _write_all(source: Connection, target: Connection) -> Head:
    tables = Base.metadata.sorted_tables
    # The database takes no line beyond the head, so the head goes first.
    for table in sorted(tables, key=lambda table: table.name != ChainRow.__tablename__):
        _copy(table, source, target)
    return _compare(source, target)


def _check_empty(target: Connection) -> None:
    if any(target.execute(select(table).limit(1)).first() for table in _filled_later()):
        raise Unusable("The ledger to copy to is not empty.")


def _check(source: Connection, keys: Mapping[str, ChainKey], *, even_if_open: bool) -> None:
    checkpoint, head = read_heads(source)
    lines = read_lines(source)
    try:
        verdict = verify(lines, checkpoint=checkpoint, head=head, keys=keys)
    except UnknownKey as error:
        raise Unusable(
            f"Line {error.number} of the audit trail is under the key {error}: name its file with "
            "--key-file. If there never was such a key, the line is altered."
        ) from None
    if not verdict.whole:
        raise Unusable("A line of the audit trail was altered; see prichexy audit verify.")
    check_let_go(source, even_if_open=even_if_open)


def _filled_later() -> tuple[Table, Table]:
    """Give the tables that tell a ledger of any past from one that was just made."""
    tables = Base.metadata.tables
    return tables[StudyRow.__tablename__], tables[EventRow.__tablename__]


def _copy(table: Table, source: Connection, target: Connection) -> None:
    rows = source.execute(select(table).execution_options(yield_per=_BATCH)).mappings()
    if table.name == FactRow.__tablename__:
        target.execute(table.delete())
    if table.name == ChainRow.__tablename__:
        # Its rows are there from the beginning, and the database lets nobody delete them.
        for row in rows:
            target.execute(update(table).where(table.c.name == row["name"]).values(dict(row)))
        return
    for batch in rows.partitions(_BATCH):
        target.execute(table.insert(), [dict(row) for row in batch])
    column = table.autoincrement_column
    if column is not None and target.dialect.name == "postgresql":
        # What was inserted with its number does not move the sequence of the next ones.
        highest = target.scalar(select(func.max(column)))
        if highest is not None:
            sequence = text("SELECT setval(pg_get_serial_sequence(:table, :column), :highest)")
            named = {"table": table.name, "column": column.name, "highest": highest}
            target.execute(sequence, named)


def _compare(source: Connection, target: Connection) -> Head:
    checkpoint, head = read_heads(source)
    if head is None or (checkpoint, head) != read_heads(target):
        raise Unusable("The audit trail does not end in the copy as it ends in the ledger.")
    lines = (read_lines(side) for side in (source, target))
    if any(one != other for one, other in zip_longest(*lines)):
        raise Unusable("A line of the audit trail is not in the copy as it is in the ledger.")
    return head
