"""Opens a ledger for the command line, which works on it while no plugin does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pydantic import SecretStr
from sqlalchemy import Connection, Engine, inspect, literal, select
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from prichexy_plugin.chain import Deed
from prichexy_plugin.database import ForeignLedger, open_database
from prichexy_plugin.schema import EventRow

__all__ = ["Unusable", "check_let_go", "opened"]


class Unusable(Exception):
    """Nothing was done; the text says why and names no study."""


@contextmanager
def opened(
    url: str,
    password: SecretStr | None = None,
    *,
    make: bool = True,
    admit: Callable[[Connection], None] = lambda _connection: None,
) -> Iterator[Engine]:
    """Give the ledger at ``url``, brought up to date; with ``make`` there need be none yet.

    ``admit`` is asked about one that is there before anything is altered; what it raises, this
    raises. Raises Unusable.
    """
    try:
        engine = open_database(
            url, password, make=make, admit=lambda session: admit(session.connection())
        )
    except ForeignLedger as error:
        raise Unusable(f"The ledger {error}.") from None
    except (ArgumentError, ImportError):
        raise Unusable("The address is no SQLAlchemy URL of PostgreSQL or SQLite.") from None
    except SQLAlchemyError as error:
        raise Unusable(f"A ledger cannot be opened ({type(error).__name__}).") from None
    try:
        yield engine
    finally:
        engine.dispose()


def check_let_go(connection: Connection, *, even_if_open: bool) -> None:
    """Raise Unusable unless the last line says that a plugin let go of the ledger.

    With ``even_if_open`` it need not. The ledger may be of any schema: lines of the first ones say
    nothing of this.
    """
    columns = {column["name"] for column in inspect(connection).get_columns(EventRow.__tablename__)}
    deed = EventRow.deed if EventRow.deed.key in columns else literal("")
    last = connection.scalar(
        select(deed).select_from(EventRow).order_by(EventRow.number.desc()).limit(1)
    )
    if last not in (None, Deed.STOPPED) and not even_if_open:
        raise Unusable(
            "The ledger is in use, or its plugin ended in a crash: stop its ingest Orthanc first. "
            "If it has crashed and is not running, say --crashed."
        )
