"""A ledger as software with schema 1 made it, for both databases."""

from __future__ import annotations

from typing import Final

from prichexy_testing.fake_orthanc import orthanc_id

__all__ = ["DONE", "QUEUED", "schema_1"]

#: Word for word.
_TABLES: Final = """
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
"""
_STUDY: Final = """
INSERT INTO studies VALUES ('{study}', '{job}', '{state}', NULL, NULL, 1, 1, 2, 'c1',
    '2026-02-01 08:00:00.000000', '2026-02-01 08:00:01.000000', NULL, 0, 0, 'worker-1', '{{}}',
    '{{}}');
INSERT INTO events VALUES ({number}, '{job}', '2026-02-01 08:00:01.000000', '{before}', '{state}',
    '{actor}', NULL);
"""
QUEUED, DONE = "a" * 32, "b" * 32


def schema_1(dialect: str) -> str:
    """Give the statements that make it, with one study in each of two states and their trails."""
    tables, counted = _TABLES, ""
    if dialect == "postgresql":
        tables = _TABLES.replace("DATETIME", "TIMESTAMP")
        tables = tables.replace("number INTEGER NOT NULL, job_id", "number SERIAL NOT NULL, job_id")
        counted = "SELECT setval('events_number_seq', 2);"
    facts = "INSERT INTO facts VALUES ('schema', 1), ('changes', 42);"
    queued = _STUDY.format(
        study=orthanc_id("a"),
        job=QUEUED,
        state="queued",
        number=1,
        before="pending",
        actor="plugin",
    )
    done = _STUDY.format(
        study=orthanc_id("b"),
        job=DONE,
        state="exported",
        number=2,
        before="processing",
        actor="worker-1",
    )
    return tables + facts + queued + done + counted
