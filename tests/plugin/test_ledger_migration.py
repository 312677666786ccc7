"""A ledger that older software wrote is brought up to date and keeps all that is in it."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest
from sqlalchemy import Engine, inspect, select
from sqlalchemy.orm import Session

from prichexy_plugin import database, migration
from prichexy_plugin.chain import PERSON, verify
from prichexy_plugin.database import open_database
from prichexy_plugin.intake import Rank, stream_of, targets_of
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.schema import NEW_COLUMNS, SCHEMA_VERSION, KeyOfPlaceRow, StudyRow
from prichexy_testing.fake_orthanc import orthanc_id
from prichexy_testing.old_ledgers import DONE, QUEUED, schema_1
from prichexy_testing.plugin_fakes import FakeClock, report_of
from prichexy_worker.contract import MAX_ATTEMPTS, Reason, State, StudyMessage
from prichexy_worker.retry import Blame, Circuit

#: A line of the trail as schema 1 had it.
EVENT_ROW: Final = "INSERT INTO events VALUES (?, ?, '2026-02-01 08:00:01.000000', ?, ?, ?, NULL)"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Give a ledger of schema 1 with two studies and their trails."""
    path = tmp_path / "ledger.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript(schema_1("sqlite"))
    connection.commit()
    connection.close()
    return path


def _shape(engine: Engine) -> dict[str, dict[str, tuple[str, bool]]]:
    """Give each table's columns with their type and whether they may be empty."""
    found = inspect(engine)
    return {
        table: {
            column["name"]: (str(column["type"]), bool(column["nullable"]))
            for column in found.get_columns(table)
        }
        for table in found.get_table_names()
    }


def _take_studies_back_to(schema: int, connection: sqlite3.Connection) -> None:
    """Take away the studies' indices, and all columns that later schemas brought."""
    indices = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = 'studies' AND sql <> ''"
    )
    for (name,) in indices.fetchall():
        connection.execute(f"DROP INDEX {name}")
    for later in range(schema + 1, SCHEMA_VERSION + 1):
        for table, columns in NEW_COLUMNS.get(later, {}).items():
            for column in columns:
                connection.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
    connection.execute("UPDATE facts SET number = ? WHERE name = 'schema'", (schema,))


def test_a_migrated_ledger_has_the_shape_of_a_new_one(old: Path) -> None:
    migrated, new = open_database(f"sqlite:///{old}"), open_database("sqlite://")
    assert _shape(migrated) == _shape(new)
    migrated.dispose()
    new.dispose()


def test_what_was_in_the_ledger_is_there_and_goes_on(old: Path) -> None:
    engine = open_database(f"sqlite:///{old}")
    ledger = Ledger(engine, FakeClock())
    assert ledger.cursor() == 42
    assert {study.job_id: study.state for study in ledger.studies().studies} == {
        QUEUED: State.QUEUED,
        DONE: State.EXPORTED,
    }
    assert {study.targets for study in ledger.studies().studies} == {()}
    assert [event.actor for event in ledger.events(DONE)] == ["worker-1"]
    message = StudyMessage(QUEUED, orthanc_id("a"), revision=1)
    claim = ledger.report(report_of(message, State.PROCESSING))
    assert (claim.attempt, claim.left) == (2, MAX_ATTEMPTS - 1), "the attempt of before counts"
    given_back = report_of(message, State.QUEUED, Reason.TARGET_UNREACHABLE, attempt=2)
    assert ledger.report(given_back).proceed
    engine.dispose()


def test_a_ledger_is_brought_up_to_date_once(old: Path) -> None:
    for _ in range(2):
        engine = open_database(f"sqlite:///{old}")
        engine.dispose()
    connection = sqlite3.connect(old)
    [(version,)] = connection.execute("SELECT number FROM facts WHERE name = 'schema'")
    connection.close()
    assert version == SCHEMA_VERSION


def test_a_migration_that_fails_leaves_the_ledger_as_it_was(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dump() -> list[str]:
        connection = sqlite3.connect(old)
        lines = list(connection.iterdump())
        connection.close()
        return lines

    class DiskFull(Exception):
        pass

    def fails(*_arguments: object) -> None:
        raise DiskFull

    before = dump()
    with monkeypatch.context() as patch, pytest.raises(DiskFull):
        patch.setattr(database.Base.metadata, "create_all", fails)
        open_database(f"sqlite:///{old}")
    assert dump() == before


def test_the_lines_of_before_are_chained_and_marked(old: Path) -> None:
    engine = open_database(f"sqlite:///{old}")
    ledger = Ledger(engine, FakeClock())
    lines = ledger.lines()
    assert [(line.number, line.deed, line.actor) for line in lines] == [
        (1, "step", "plugin"),
        (2, "step", "worker-1"),
        (3, "migrated", "plugin"),
    ]
    assert lines[1].details == {"chained_by_schema": 6, "number_before": 2}
    assert lines[1].at == datetime(2026, 2, 1, 8, 0, 1, tzinfo=UTC)
    assert lines[2].details == {"lines": 2, "schema": 6}
    state = ledger.chain_state()
    assert verify(lines, checkpoint=state.checkpoint, head=state.head).whole
    assert ledger.verdict().whole, "no row is suspected for what lines of before do not say"
    connection = sqlite3.connect(old)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute("DELETE FROM events WHERE number = 1")
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    connection.close()
    assert not [name for name in tables if "before" in name]
    engine.dispose()


def test_many_lines_of_before_are_chained_in_their_order(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migration, "_PAGE", 3)
    connection = sqlite3.connect(old)
    numbers = [5, 6, 9, 12, 13, 14, 20]
    for number in numbers:
        connection.execute(EVENT_ROW, (number, DONE, "processing", "processing", "worker-2"))
    connection.commit()
    connection.close()
    engine = open_database(f"sqlite:///{old}")
    lines = Ledger(engine, FakeClock()).lines()
    assert [line.details.get("number_before") for line in lines] == [1, 2, *numbers, None]
    assert [line.number for line in lines] == [*range(1, 11)]
    engine.dispose()


def test_studies_of_before_stand_in_the_line_of_their_targets(old: Path) -> None:
    open_database(f"sqlite:///{old}").dispose()
    connection = sqlite3.connect(old)
    _take_studies_back_to(6, connection)
    connection.execute("UPDATE studies SET state = 'pending'")
    connection.execute(
        """UPDATE studies SET targets = '["research", "archive"]', backfilled = 1
        WHERE job_id = ?""",
        (QUEUED,),
    )
    connection.commit()
    connection.close()
    engine = open_database(f"sqlite:///{old}")
    with Session(engine) as session:
        lines = {row.job_id: (row.stream, row.rank) for row in session.scalars(select(StudyRow))}
    engine.dispose()
    assert lines == {
        QUEUED: (stream_of(("archive", "research"), ""), Rank.LOW),
        DONE: (stream_of((), ""), Rank.NORMAL),
    }


def test_a_study_exported_before_stands_under_the_key_that_its_worker_told(old: Path) -> None:
    open_database(f"sqlite:///{old}").dispose()
    connection = sqlite3.connect(old)
    _take_studies_back_to(11, connection)
    connection.execute("DROP TABLE keys_of_places")
    connection.execute("""UPDATE studies SET targets = '["research", "archive"]'""")
    connection.execute("UPDATE studies SET key_id = ?", ("1" * 16,))
    connection.commit()
    connection.close()
    engine = open_database(f"sqlite:///{old}")
    with Session(engine) as session:
        keys = {row.job_id: row.exported_key for row in session.scalars(select(StudyRow))}
        places = {row.place: row.key_id for row in session.scalars(select(KeyOfPlaceRow))}
    engine.dispose()
    assert keys == {QUEUED: "", DONE: "1" * 16}
    assert places == {"archive,research": "1" * 16}


def test_an_ended_study_of_before_that_is_tried_again_waits_in_the_line_of_its_targets(
    old: Path,
) -> None:
    engine = open_database(f"sqlite:///{old}")
    with Session(engine) as session, session.begin():
        row = session.get_one(StudyRow, orthanc_id("b"))
        row.targets, row.backfilled = ["archive"], True
    clock = FakeClock()
    ledger = Ledger(engine, clock)
    assert ledger.again(DONE, revision=1, actor=f"{PERSON}somebody")
    with Session(engine) as session:
        row = session.get_one(StudyRow, orthanc_id("b"))
        assert targets_of(row.stream) == ("archive",)
        assert row.rank == Rank.LOW
    away = Circuit(
        Blame.TARGET, targets=("archive",), opened=clock(), probe_at=clock() + timedelta(minutes=1)
    )
    assert ledger.outbox(stops=[away]) == ()
    assert len(ledger.outbox()) == 1
    engine.dispose()
