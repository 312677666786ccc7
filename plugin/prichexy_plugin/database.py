"""Opens the ledger's database."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session
from sqlalchemy.schema import CreateColumn

from prichexy_plugin.schema import NEW_COLUMNS, SCHEMA_VERSION, Base, FactRow, StudyRow

__all__ = ["READS", "ForeignLedger", "open_database"]

#: Execution option of a connection that only reads.
READS = "prichexy_reads"


class ForeignLedger(Exception):
    """The ledger is not of this software's schema; the text goes on after "The ledger …"."""

    def __init__(self, version: int | None) -> None:
        what = "of an unknown schema"
        if version is not None:
            age = "newer" if version > SCHEMA_VERSION else "older"
            what = f"of schema {version}, which {age} software wrote"
        super().__init__(
            f"is {what}; this software has schema {SCHEMA_VERSION} and has left it as it was"
        )


def open_database(url: str) -> Engine:
    """Connect, make the tables or bring older ones up to date, and give the engine.

    SQLite runs with a write-ahead log and syncs every commit to the disk: a study that was taken
    in stays so over a power failure. Its file is readable by its owner only. Raises ForeignLedger,
    and then has altered nothing, and whatever SQLAlchemy and the driver raise.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        engine = _open_sqlite(url, parsed.database)
    else:
        engine = create_engine(url, pool_pre_ping=True, hide_parameters=True)
    try:
        _prepare_tables(engine)
    except BaseException:
        # It is tried again each second: every try would leave its connections behind.
        engine.dispose()
        raise
    return engine


def _prepare_tables(engine: Engine) -> None:
    """Make the tables, bring an older schema up to date, or find it as it must be.

    All in one transaction: a ledger is of one schema or of the next, never between. Other
    software's tables may stand beside ours in the same database.
    """
    with Session(engine) as session, session.begin():
        connection = session.connection()
        there = Base.metadata.tables.keys() & set(inspect(connection).get_table_names())
        if there:
            named = session.get(FactRow, "schema") if FactRow.__tablename__ in there else None
            if named is None:
                raise ForeignLedger(None)
            if named.number not in range(1, SCHEMA_VERSION + 1):
                raise ForeignLedger(named.number)
            if named.number < SCHEMA_VERSION:
                _migrate(connection, named.number)
                named.number = SCHEMA_VERSION
            return
        Base.metadata.create_all(connection)
        session.add(FactRow(name="schema", number=SCHEMA_VERSION))


def _migrate(connection: Connection, version: int) -> None:
    """Add what schemas after ``version`` brought. Nothing is taken away or rewritten."""
    studies = Base.metadata.tables[StudyRow.__tablename__]
    for later in range(version + 1, SCHEMA_VERSION + 1):
        for name in NEW_COLUMNS.get(later, ()):
            column = CreateColumn(studies.c[name]).compile(dialect=connection.dialect)
            connection.exec_driver_sql(f"ALTER TABLE {studies.name} ADD COLUMN {column}")
    Base.metadata.create_all(connection)


def _open_sqlite(url: str, database: str | None) -> Engine:
    if database:
        path = Path(database)
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    engine = create_engine(url, connect_args={"timeout": 10}, hide_parameters=True)

    # The driver's own way of beginning transactions lets two readers become writers at once, and
    # one of them fails; a writer takes the lock when it begins instead.
    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        reads = connection.get_execution_options().get(READS, False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine
