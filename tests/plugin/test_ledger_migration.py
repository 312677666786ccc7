"""A ledger that older software wrote is brought up to date and keeps all that is in it."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

import pytest
from sqlalchemy import Engine, inspect

from prichexy_plugin import database
from prichexy_plugin.database import open_database
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.schema import SCHEMA_VERSION
from prichexy_testing.fake_orthanc import orthanc_id
from prichexy_testing.plugin_fakes import FakeClock, report_of
from prichexy_worker.contract import MAX_ATTEMPTS, Reason, State, StudyMessage

#: Word for word what software with schema 1 made, and one study in each of two states.
SCHEMA_1: Final = """
CREATE TABLE studies (
    study_id VARCHAR(44) NOT NULL, job_id VARCHAR(32) NOT NULL, state VARCHAR(16) NOT NULL,
    reason VARCHAR(64), trouble VARCHAR(64), revision INTEGER NOT NULL, attempts INTEGER NOT NULL,
    instances INTEGER NOT NULL, content VARCHAR(64) NOT NULL, first_seen DATETIME NOT NULL,
    updated DATETIME NOT NULL, look_at DATETIME, failed_looks INTEGER NOT NULL,
    sendings INTEGER NOT NULL, worker_id VARCHAR(128), durations JSON NOT NULL,
    measures JSON NOT NULL, PRIMARY KEY (study_id), UNIQUE (job_id)
);
CREATE INDEX ix_studies_look_at ON studies (look_at);
CREATE INDEX studies_by_state ON studies (state, updated);
CREATE TABLE workers (
    worker_id VARCHAR(128) NOT NULL, announcement JSON NOT NULL, seen DATETIME NOT NULL,
    PRIMARY KEY (worker_id)
);
CREATE TABLE facts (
    name VARCHAR(32) NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (name)
);
CREATE TABLE events (
    number INTEGER NOT NULL, job_id VARCHAR(32) NOT NULL, at DATETIME NOT NULL,
    from_state VARCHAR(16), to_state VARCHAR(16) NOT NULL, actor VARCHAR(128) NOT NULL,
    reason VARCHAR(64), PRIMARY KEY (number), FOREIGN KEY(job_id) REFERENCES studies (job_id)
);
CREATE INDEX ix_events_job_id ON events (job_id);
INSERT INTO facts VALUES ('schema', 1), ('changes', 42);
"""
STUDY_ROW: Final = """
INSERT INTO studies VALUES (?, ?, ?, NULL, NULL, 1, ?, 2, 'c1', '2026-02-01 08:00:00.000000',
    '2026-02-01 08:00:01.000000', NULL, 0, 0, ?, '{}', '{}')
"""
EVENT_ROW: Final = "INSERT INTO events VALUES (?, ?, '2026-02-01 08:00:01.000000', ?, ?, ?, NULL)"
QUEUED, DONE = "a" * 32, "b" * 32


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Give a ledger of schema 1 with two studies and their trails."""
    path = tmp_path / "ledger.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript(SCHEMA_1)
    connection.execute(STUDY_ROW, (orthanc_id("a"), QUEUED, "queued", 1, "worker-1"))
    connection.execute(STUDY_ROW, (orthanc_id("b"), DONE, "exported", 1, "worker-1"))
    connection.execute(EVENT_ROW, (1, QUEUED, "pending", "queued", "plugin"))
    connection.execute(EVENT_ROW, (2, DONE, "processing", "exported", "worker-1"))
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
