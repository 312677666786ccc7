"""Does to a ledger what the owner of its database can do."""

from __future__ import annotations

from sqlalchemy import Connection

__all__ = ["drop_guards", "put_in_line"]

_NAMES = {
    "sqlite": "SELECT name, '' FROM sqlite_master WHERE type = 'trigger'",
    "postgresql": "SELECT tgname, ' ON ' || tgrelid::regclass FROM pg_trigger "
    "WHERE NOT tgisinternal",
}


def drop_guards(connection: Connection) -> None:
    """Take away the triggers that keep the audit trail append-only, until the next start."""
    for name, on in connection.exec_driver_sql(_NAMES[connection.dialect.name]).all():
        connection.exec_driver_sql(f"DROP TRIGGER {name}{on}")


def put_in_line(
    connection: Connection, number: int, deed: str, job_id: str, details: str = "{}"
) -> None:
    """Put a row into the audit trail without asking the chain; its digest is none of it."""
    connection.exec_driver_sql(
        "INSERT INTO events (number, job_id, at, deed, actor, details, key_id, digest) "
        f"VALUES ({number}, '{job_id}', '2026-01-01 00:00:00.000000', '{deed}', 'plugin', "
        f"'{details}', '', '{'0' * 64}')"
    )
