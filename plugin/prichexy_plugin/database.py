"""Opens the ledger's database."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr
from sqlalchemy import Connection, Engine, create_engine, event, inspect
from sqlalchemy.engine import URL, make_url
from sqlalchemy.orm import Session

from prichexy_plugin.chaining import begin_chain
from prichexy_plugin.guards import set_guards
from prichexy_plugin.migration import migrate
from prichexy_plugin.schema import SCHEMA_VERSION, Base, FactRow

__all__ = ["READS", "ForeignLedger", "lift_limits", "open_database"]

#: Execution option of a connection that only reads.
READS = "prichexy_reads"
#: Any number that no other software takes in this database, the same for all of this one.
_WRITERS_LOCK: Final = 0x5072694368655879
#: In milliseconds, of PostgreSQL. A writer waits so long for the others; a statement takes so long
#: at most; and one that hangs within a transaction, on a machine that froze, lets the others go on.
#: What goes over a whole ledger lifts the last two (``lift_limits``).
_POSTGRESQL_LIMITS: Final = {
    "lock_timeout": 10_000,
    "statement_timeout": 60_000,
    "idle_in_transaction_session_timeout": 60_000,
}
_POSTGRESQL: Final = {
    "connect_timeout": 5,  # seconds
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,  # milliseconds
    "application_name": "prichexy",
}


#: How long one statement, and a pause between two, may take.
_OF_TIME: Final = ("statement_timeout", "idle_in_transaction_session_timeout")


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


def open_database(
    url: str,
    password: SecretStr | None = None,
    *,
    make: bool = True,
    admit: Callable[[Session], None] = lambda _session: None,
) -> Engine:
    """Connect, make the tables or bring older ones up to date, and give the engine.

    SQLite runs with a write-ahead log and syncs every commit to the disk: a study that was taken
    in stays so over a power failure. Its file is readable by its owner only. PostgreSQL does the
    same where ``synchronous_commit`` is as it is by default. On both, one writer at a time is at
    work, from the beginning of its transaction to its end, and a reader sees one moment.

    Without ``make`` a database that holds no ledger is a ForeignLedger, too. ``admit`` is asked
    about one that is there before anything is altered; what it raises, this raises.

    Bringing a large ledger up to date takes as long as it takes.

    Raises ForeignLedger, and then has altered nothing, and what SQLAlchemy and the driver raise.
    """
    parsed = make_url(url)
    if password is not None:
        parsed = parsed.set(password=password.get_secret_value())
    if parsed.get_backend_name() == "sqlite":
        engine = _open_sqlite(url, parsed.database)
    else:
        engine = _open_postgresql(parsed)
    try:
        _prepare_tables(engine, admit, make=make)
    except BaseException:
        # It is tried again each second: every try would leave its connections behind.
        engine.dispose()
        raise
    return engine


def lift_limits(connection: Connection, limits: Iterable[str] = _OF_TIME) -> None:
    """Let this transaction take as long as it takes: a large ledger is gone over in it."""
    if connection.dialect.name == "postgresql":
        for name in limits:
            connection.exec_driver_sql(f"SET LOCAL {name} = 0")


def _prepare_tables(engine: Engine, admit: Callable[[Session], None], *, make: bool) -> None:
    """Make the tables, bring an older schema up to date, or find it as it must be.

    All in one transaction: a ledger is of one schema or of the next, never between. Indices and
    guards that an older version of the same schema did not make yet are added. Other software's
    tables may stand beside ours in the same database.
    """
    with Session(engine) as session, session.begin():
        connection = session.connection()
        # An index that is added reads all rows; nothing here waits between two statements.
        lift_limits(connection, ["statement_timeout"])
        there = Base.metadata.tables.keys() & set(inspect(connection).get_table_names())
        if there or not make:
            named = session.get(FactRow, "schema") if FactRow.__tablename__ in there else None
            if named is None:
                raise ForeignLedger(None)
            if named.number not in range(1, SCHEMA_VERSION + 1):
                raise ForeignLedger(named.number)
            admit(session)
            if named.number < SCHEMA_VERSION:
                lift_limits(connection)
                migrate(session, named.number)
                session.merge(FactRow(name="schema", number=SCHEMA_VERSION))
            # An index changes nothing that is kept, so it needs no new schema.
            for table in Base.metadata.sorted_tables:
                for index in table.indexes:
                    index.create(connection, checkfirst=True)
            set_guards(connection)
            return
        Base.metadata.create_all(connection)
        set_guards(connection)
        session.add(FactRow(name="schema", number=SCHEMA_VERSION))
        begin_chain(session, datetime.now(UTC))


def _open_postgresql(url: URL) -> Engine:
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    limits = (f"-c {name}={value}" for name, value in _POSTGRESQL_LIMITS.items())
    theirs = url.query.get("options", ())
    options = " ".join((*((theirs,) if isinstance(theirs, str) else theirs), *limits))
    engine = create_engine(
        url,
        # A server that was restarted meanwhile is noticed before a transaction begins, not in it.
        pool_pre_ping=True,
        hide_parameters=True,
        isolation_level="READ COMMITTED",
        connect_args={**_POSTGRESQL, "options": options},
    )

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        if connection.get_execution_options().get(READS, False):
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        else:
            # Held until the transaction has ended. What each statement then reads is what the
            # writer before has committed.
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITERS_LOCK})")

    return engine


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
