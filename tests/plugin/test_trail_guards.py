"""The database itself lets nobody put in, replace, alter or take out a line, on both databases."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from prichexy_plugin.chain import Deed
from prichexy_plugin.ledger import Ledger
from prichexy_testing.plugin_fakes import FakeClock

#: What a row of the table needs, but for its number.
_ROW = "'2026-01-01', 'forgotten', 'plugin', '{}', '', '0'"
_COLUMNS = "number, at, deed, actor, details, key_id, digest"


@pytest.fixture
def pruned(ledger: Ledger, clock: FakeClock) -> Ledger:
    """Give a trail of lines 3 to 6, whose checkpoint is line 2."""
    for _ in range(5):
        ledger.record(Deed.ACTION, by="anna")
    clock.move(60)
    assert ledger.prune(clock(), told=None, most=2) == 2
    return ledger


def refused(engine: Engine, statement: str) -> bool:
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql(statement)
    except DBAPIError as error:
        return "append-only" in str(error)
    return False


@pytest.mark.parametrize("number", [-2, 0, 1, 2, 3, 6, 7, 8])
def test_no_line_can_be_put_in(pruned: Ledger, engine: Engine, number: int) -> None:
    assert refused(engine, f"INSERT INTO events ({_COLUMNS}) VALUES ({number}, {_ROW})")
    assert pruned.verdict().whole
    pruned.record(Deed.ACTION, by="anna")
    assert pruned.verdict().whole


def test_nothing_can_be_replaced(pruned: Ledger, engine: Engine) -> None:
    if engine.dialect.name == "sqlite":
        line, end = "INSERT OR REPLACE", ""
    else:
        line, end = "INSERT", "ON CONFLICT DO NOTHING"
    assert refused(engine, f"{line} INTO events ({_COLUMNS}) VALUES (4, {_ROW}) {end}")
    ends = f"{line} INTO audit_chain (name, number, digest, at)"
    assert refused(engine, f"{ends} VALUES ('checkpoint', 0, '0', '2026-01-01') {end}")
    assert pruned.verdict().whole


def test_a_guard_that_is_missing_is_set_at_the_next_start(
    open_ledger_database: Callable[[], Engine], clock: FakeClock
) -> None:
    engine = open_ledger_database()
    Ledger(engine, clock).record(Deed.ACTION, by="anna")
    names = ("events_are_only_appended", "events_are_not_altered")
    with engine.begin() as connection:
        for name in names:
            on = "" if engine.dialect.name == "sqlite" else " ON events"
            connection.exec_driver_sql(f"DROP TRIGGER {name}{on}")
    again = open_ledger_database()
    assert refused(again, f"INSERT INTO events ({_COLUMNS}) VALUES (-1, {_ROW})")
    assert refused(again, "UPDATE events SET actor = 'ben'")
    assert Ledger(again, clock).verdict().whole
