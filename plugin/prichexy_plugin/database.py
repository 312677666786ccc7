"""Opens the ledger's database."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session

from prichexy_plugin.schema import SCHEMA_VERSION, Base, FactRow

__all__ = ["READS", "LedgerTooNew", "open_database"]

#: Execution option of a connection that only reads.
READS = "prichexy_reads"


class LedgerTooNew(Exception):
    """The ledger was written by newer software."""

    def __init__(self) -> None:
        super().__init__("the ledger was written by a newer version of this software")


def open_database(url: str) -> Engine:
    """Connect, make the tables where they are missing, and give the engine.

    SQLite runs with a write-ahead log and syncs every commit to the disk: a study that was taken
    in stays so over a power failure. Its file is readable by its owner only. Raises LedgerTooNew
    and whatever SQLAlchemy and the driver raise.
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
    Base.metadata.create_all(engine)
    with Session(engine) as session, session.begin():
        version = session.get(FactRow, "schema")
        if version is None:
            session.add(FactRow(name="schema", number=SCHEMA_VERSION))
        elif version.number > SCHEMA_VERSION:
            raise LedgerTooNew


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
