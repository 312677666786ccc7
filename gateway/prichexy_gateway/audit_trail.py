"""Reads the audit trail out of a gateway's ledger, and nothing else; never writes to it.

The ledger may be in use meanwhile: all is read in one transaction, which sees it as it was when it
began.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event, inspect
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from prichexy_gateway.errors import Misconfigured
from prichexy_plugin.chain import Damaged, Head, Line
from prichexy_plugin.raw_lines import read_heads, read_lines
from prichexy_plugin.standing import contradicted

__all__ = ["AuditTrail", "opened"]


@dataclass(frozen=True, slots=True)
class AuditTrail:
    """A ledger's trail at one moment: after which line it begins, and where it says it ends."""

    checkpoint: Head | None
    head: Head | None
    connection: Connection

    def lines(self) -> Iterator[Line | Damaged]:
        """Give every row, by its number: before the checkpoint none may stand.

        Raises Misconfigured.
        """
        try:
            yield from read_lines(self.connection)
        except SQLAlchemyError as error:
            raise _unreadable(error) from None

    def contradicted(self) -> tuple[str, ...]:
        """Give jobs whose study stands elsewhere than the trail says. Raises Misconfigured."""
        try:
            return tuple(contradicted(self.connection))
        except SQLAlchemyError as error:
            raise _unreadable(error) from None


@contextmanager
def opened(ledger: str) -> Iterator[AuditTrail]:
    """Give the trail of a ledger, by its file or its SQLAlchemy URL. Raises Misconfigured."""
    engine = _engine(ledger)
    try:
        with engine.connect() as connection, connection.begin():
            yield _trail(connection)
    except SQLAlchemyError as error:
        raise _unreadable(error) from None
    finally:
        engine.dispose()


def _trail(connection: Connection) -> AuditTrail:
    tables = set(inspect(connection).get_table_names())
    if not {"audit_chain", "events"} <= tables:
        if {"facts", "studies", "events"} <= tables:
            raise Misconfigured(
                "the ledger is of older software and has no chained audit trail: start the gateway "
                "once, which brings it up to date"
            )
        raise Misconfigured("this is no ledger with a chained audit trail")
    return AuditTrail(*read_heads(connection), connection)


def _engine(ledger: str) -> Engine:
    if "://" in ledger:
        try:
            url = make_url(ledger)
        except ArgumentError:
            raise Misconfigured("--ledger is neither a file nor an SQLAlchemy URL") from None
        if url.get_backend_name() != "sqlite":
            try:
                return create_engine(url, isolation_level="REPEATABLE READ", hide_parameters=True)
            except (ImportError, ArgumentError) as error:
                raise _unreadable(error) from None
        path = Path(url.database or "")
    else:
        path = Path(ledger).expanduser()
    if not path.is_file():
        raise Misconfigured(f"there is no ledger at {path}")
    # By SQLite's own kind of URL: only so can it be opened for nothing but reading.
    engine = create_engine(f"sqlite:///file:{quote(str(path.resolve()))}?mode=ro&uri=true")

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def _began(connection: Connection) -> None:
        # The driver itself would begin none for reading, and each question would see another state.
        connection.exec_driver_sql("BEGIN")

    return engine


def _unreadable(error: Exception) -> Misconfigured:
    return Misconfigured(f"the ledger cannot be read ({type(error).__name__})")
