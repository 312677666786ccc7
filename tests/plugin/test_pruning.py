"""Old lines are verified before they are deleted: what was altered stays, on both databases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from sqlalchemy import Engine

from prichexy_plugin.chain import GENESIS, Broken, ChainKey, Deed, Line, UnknownKey, digest_of
from prichexy_plugin.ledger import Ledger
from prichexy_testing.forgers import drop_guards, put_in_line
from prichexy_testing.plugin_fakes import FakeClock

KEY = ChainKey("0123456789abcdef", b"k" * 32)
FORMER = ChainKey("fedcba9876543210", b"f" * 32)
LONG_AGO = "2001-01-01 00:00:00.000000"


@pytest.fixture
def ledger(engine: Engine, clock: FakeClock) -> Ledger:
    """Give a trail of ten lines under a key."""
    ledger = Ledger(engine, clock, KEY)
    for _ in range(10):
        ledger.record(Deed.ACTION, by="anna")
    clock.move(60)
    return ledger


def forge(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        drop_guards(connection)
        for statement in statements:
            connection.exec_driver_sql(statement)


def stays(ledger: Ledger, clock: FakeClock, broken: int, *, most: int = 6) -> None:
    """Hold that nothing is deleted, and that a verification finds what it found before."""
    before = ledger.chain_state(), ledger.lines()
    assert ledger.verdict().broken == broken
    with pytest.raises(Broken) as found:
        ledger.prune(clock(), told=None, most=most)
    assert found.value.number == broken
    assert (ledger.chain_state(), ledger.lines()) == before
    assert ledger.verdict().broken == broken


def test_lines_that_were_made_older_are_not_deleted_and_signed_for(
    ledger: Ledger, engine: Engine, clock: FakeClock
) -> None:
    forge(engine, f"UPDATE events SET at = '{LONG_AGO}' WHERE number BETWEEN 2 AND 6")
    stays(ledger, clock, 2)


@pytest.mark.parametrize("number", [5, 6, 7])
def test_a_line_that_was_taken_out_at_the_edge_shows(
    ledger: Ledger, engine: Engine, clock: FakeClock, number: int
) -> None:
    forge(engine, f"DELETE FROM events WHERE number = {number}")
    stays(ledger, clock, number)


def test_an_end_that_was_cut_off_shows(ledger: Ledger, engine: Engine, clock: FakeClock) -> None:
    forge(engine, "DELETE FROM events WHERE number > 8")
    stays(ledger, clock, 9, most=100)


def test_a_row_before_the_checkpoint_is_not_swept_away(
    ledger: Ledger, engine: Engine, clock: FakeClock
) -> None:
    assert ledger.prune(clock(), told=None, most=2) == 2
    with engine.begin() as connection:
        drop_guards(connection)
        put_in_line(connection, 1, Deed.FORGOTTEN.value, "f" * 32)
    stays(ledger, clock, 1)


def test_lines_that_were_all_computed_anew_without_the_key_show_at_the_line_after_them(
    ledger: Ledger, engine: Engine, clock: FakeClock
) -> None:
    digest, statements = GENESIS, []
    for line in ledger.lines(limit=6):
        assert isinstance(line, Line)
        digest = digest_of(replace(line, actor="ben", key_id=""), digest)
        new = f"actor = 'ben', key_id = '', digest = '{digest}'"
        statements.append(f"UPDATE events SET {new} WHERE number = {line.number}")
    forge(engine, *statements)
    stays(ledger, clock, 7)


@pytest.mark.parametrize("name", ["checkpoint", "head"])
def test_an_altered_word_on_the_ends_deletes_nothing(
    ledger: Ledger, engine: Engine, clock: FakeClock, name: str
) -> None:
    forge(engine, f"UPDATE audit_chain SET digest = 'A' WHERE name = '{name}'")
    with pytest.raises(Broken):
        ledger.prune(clock(), told=None, most=6)
    assert len(ledger.lines()) == 10


def test_only_what_is_about_to_go_is_read(ledger: Ledger, engine: Engine, clock: FakeClock) -> None:
    forge(engine, "UPDATE events SET actor = 'ben' WHERE number = 8")
    assert ledger.prune(clock(), told=None, most=6) == 6
    assert ledger.verdict().broken == 8


def test_lines_under_a_former_key_go_when_it_is_named(
    open_ledger_database: Callable[[], Engine], ledger: Ledger, clock: FakeClock
) -> None:
    engine = open_ledger_database()
    new = Ledger(engine, clock, FORMER)
    new.record(Deed.ACTION, by="anna")
    with pytest.raises(UnknownKey, match=KEY.key_id):
        new.prune(clock(), told=None, most=6)
    named = Ledger(engine, clock, FORMER, retired_keys=[KEY])
    assert named.prune(clock(), told=None, most=6) == 6
    assert named.verdict().whole
