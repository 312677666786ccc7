"""What a ledger on a real PostgreSQL has to bear that a file never meets."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, inspect, text
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session

from prichexy_plugin import database, migration
from prichexy_plugin.database import READS, open_database
from prichexy_plugin.intake import Decision
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.schema import SCHEMA_VERSION
from prichexy_testing.fake_orthanc import orthanc_id
from prichexy_testing.old_ledgers import DONE, QUEUED, schema_1
from prichexy_testing.plugin_fakes import FakeClock, announcement_of, report_of
from prichexy_testing.servers import PostgresServer, running_postgres, wait_until
from prichexy_worker.contract import Reason, State, StudyMessage

pytestmark = pytest.mark.postgres

#: As many as worker reports that come at the same moment.
WRITERS = 8


@pytest.fixture
def opened(postgres: PostgresServer, clock: FakeClock) -> Iterator[Callable[[], Ledger]]:
    """Open one and the same ledger again and again, as other processes would."""
    url, password = postgres.new_database(), SecretStr(postgres.password)
    engines: list[Engine] = []

    def another() -> Ledger:
        engines.append(open_database(url, password))
        return Ledger(engines[-1], clock)

    yield another
    for engine in engines:
        engine.dispose()


def test_of_many_workers_that_claim_one_study_at_once_each_gets_a_number_of_its_own(
    opened: Callable[[], Ledger], clock: FakeClock
) -> None:
    ledgers = [opened() for _ in range(WRITERS)]
    ledgers[0].note({orthanc_id("a"): clock()}, cursor=1)
    ledgers[0].settle(orthanc_id("a"), Decision(None), content="c", instances=1)
    [message] = ledgers[0].outbox()
    ready = threading.Barrier(WRITERS)

    def claim(number: int) -> int:
        ready.wait(120)
        report = report_of(message, State.PROCESSING, worker_id=f"worker-{number}")
        return ledgers[number].report(report).attempt

    with ThreadPoolExecutor(WRITERS) as pool:
        numbers = sorted(pool.map(claim, range(WRITERS)))
    assert numbers == list(range(1, WRITERS + 1))
    trail = ledgers[0].events(message.job_id)
    assert len(trail) == 2 + WRITERS
    assert all(one.to_state is other.from_state for one, other in pairwise(trail))


def test_failures_that_are_reported_at_once_are_all_counted_by_the_circuit(
    opened: Callable[[], Ledger], clock: FakeClock
) -> None:
    ledgers = [opened() for _ in range(3)]
    for name in "abc":
        ledgers[0].note({orthanc_id(name): clock()}, cursor=1)
        ledgers[0].settle(orthanc_id(name), Decision(None, ("t",)), content="c", instances=1)
    messages = ledgers[0].outbox()
    ready = threading.Barrier(3)

    def fail(number: int) -> None:
        claim = ledgers[number].report(report_of(messages[number], State.PROCESSING))
        ready.wait(120)
        back = report_of(
            messages[number],
            State.QUEUED,
            Reason.TARGET_UNREACHABLE,
            attempt=claim.attempt,
            target="t",
        )
        assert ledgers[number].report(back).proceed

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(fail, range(3)))
    assert len(ledgers[0].circuits()["target:t"].studies) == 3


def test_a_reader_sees_one_moment_and_writes_nothing(
    opened: Callable[[], Ledger], clock: FakeClock
) -> None:
    ledger, other = opened(), opened()
    with ledger._engine.execution_options(**{READS: True}).begin() as reading:
        assert reading.exec_driver_sql("SELECT count(*) FROM studies").scalar() == 0
        other.note({orthanc_id("a"): clock()}, cursor=1)
        assert reading.exec_driver_sql("SELECT count(*) FROM studies").scalar() == 0
        with pytest.raises(SQLAlchemyError, match="read-only"):
            reading.exec_driver_sql("DELETE FROM studies")
    assert ledger.counts()[State.WATCHED] == 1


def test_two_gateways_that_start_at_once_make_the_tables_or_migrate_them_once(
    postgres: PostgresServer,
) -> None:
    for made_before in (False, True):
        url = postgres.new_database()
        if made_before:
            postgres.query(schema_1("postgresql"), url.rpartition("/")[2])
        ready = threading.Barrier(4)

        def start(_number: int, url: str = url, ready: threading.Barrier = ready) -> Engine:
            ready.wait(120)
            return open_database(url, SecretStr(postgres.password))

        with ThreadPoolExecutor(4) as pool:
            engines = list(pool.map(start, range(4)))
        ledger = Ledger(engines[0], FakeClock())
        if made_before:
            assert ledger.cursor() == 42
            states = {study.job_id: study.state for study in ledger.studies().studies}
            assert states == {QUEUED: State.QUEUED, DONE: State.EXPORTED}
            message = StudyMessage(QUEUED, orthanc_id("a"), revision=1)
            assert ledger.report(report_of(message, State.PROCESSING)).attempt == 2
        columns = {column["name"] for column in inspect(engines[0]).get_columns("studies")}
        assert {"excused", "targets", "queue", "rank", "stream"} <= columns
        indexes = {index["name"] for index in inspect(engines[0]).get_indexes("studies")}
        assert "studies_that_wait" in indexes
        version = postgres.query(
            "SELECT number FROM facts WHERE name = 'schema'", url.rpartition("/")[2]
        )
        assert int(version) == SCHEMA_VERSION
        for engine in engines:
            engine.dispose()


def test_a_large_ledger_is_brought_up_to_date_however_long_it_takes(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one of millions of studies, each statement over which takes minutes."""
    limits = {**database._POSTGRESQL_LIMITS, "statement_timeout": 1000}
    monkeypatch.setattr(database, "_POSTGRESQL_LIMITS", limits)
    url = postgres.new_database()
    name = url.rpartition("/")[2]
    postgres.query(schema_1("postgresql"), name)
    postgres.query(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM pg_sleep(1.2); RETURN NEW; END $$",
        name,
    )
    postgres.query(
        "CREATE TRIGGER slow BEFORE UPDATE ON studies FOR EACH ROW EXECUTE FUNCTION slow()", name
    )
    shown = set()

    def migrate(session: Session, version: int) -> None:
        for limit in ("statement_timeout", "idle_in_transaction_session_timeout"):
            shown.add(session.scalar(text(f"SHOW {limit}")))
        migration.migrate(session, version)

    monkeypatch.setattr(database, "migrate", migrate)
    engine = open_database(url, SecretStr(postgres.password))
    assert shown == {"0"}
    assert Ledger(engine, FakeClock()).cursor() == 42
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SHOW statement_timeout").scalar() == "1s"
    engine.dispose()


def test_after_a_restart_of_the_server_the_ledger_goes_on(clock: FakeClock) -> None:
    with running_postgres() as server:
        ledger = Ledger(open_database(server.url, SecretStr(server.password)), clock)
        ledger.note({orthanc_id("a"): clock()}, cursor=1)
        ledger.announce(announcement_of())
        server.stop()
        with pytest.raises(OperationalError) as failed:
            ledger.note({}, cursor=2)
        assert server.password not in str(failed.value)
        server.start()
        ledger.note({}, cursor=3)
        assert ledger.cursor() == 3
        assert [worker.announcement for worker in ledger.workers()] == [announcement_of()]
        ledger._engine.dispose()


def test_what_was_committed_is_there_after_the_server_was_killed(clock: FakeClock) -> None:
    with running_postgres() as server:
        ledger = Ledger(open_database(server.url, SecretStr(server.password)), clock)
        for number in range(20):
            ledger.note({orthanc_id(str(number)): clock()}, cursor=number)
        server.kill()
        wait_until(lambda: not _answers(ledger), what="its connections are gone")
        server.start()
        assert ledger.counts()[State.WATCHED] == 20
        assert ledger.cursor() == 19
        ledger._engine.dispose()


def _answers(ledger: Ledger) -> bool:
    try:
        ledger.cursor()
    except SQLAlchemyError:
        return False
    return True


def test_a_writer_that_hangs_on_a_frozen_machine_does_not_stop_the_others_for_ever(
    postgres: PostgresServer, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = {"lock_timeout": 200, "statement_timeout": 5000}
    options = {**limits, "idle_in_transaction_session_timeout": 3000}
    monkeypatch.setattr(database, "_POSTGRESQL_LIMITS", options)
    url, password = postgres.new_database(), SecretStr(postgres.password)
    frozen, ledger = open_database(url, password), Ledger(open_database(url, password), clock)
    hangs = frozen.connect()
    transaction = hangs.begin()
    with pytest.raises(SQLAlchemyError, match="lock timeout"):
        ledger.note({}, cursor=1)
    assert ledger.cursor() is None, "who reads waits for nobody"
    wait_until(lambda: _notes(ledger), what="the server has ended the transaction that hangs")
    assert ledger.cursor() == 7
    with pytest.raises(SQLAlchemyError):
        hangs.exec_driver_sql("SELECT 1")
    with pytest.raises(SQLAlchemyError):
        transaction.commit()
    frozen.dispose()
    ledger._engine.dispose()


def _notes(ledger: Ledger) -> bool:
    try:
        ledger.note({}, cursor=7)
    except SQLAlchemyError:
        return False
    return True


def test_the_outbox_reads_by_its_index_however_many_have_ended(
    postgres: PostgresServer, clock: FakeClock
) -> None:
    url = postgres.new_database()
    engine = open_database(url, SecretStr(postgres.password))
    ledger = Ledger(engine, clock)
    ledger.note({orthanc_id("a"): clock()}, cursor=1)
    ledger.settle(orthanc_id("a"), Decision(None), content="c", instances=1)
    name = url.rpartition("/")[2]
    columns = ", ".join(column["name"] for column in inspect(engine).get_columns("studies"))
    changed = columns.replace("study_id", "'s' || n").replace("job_id", "'j' || n")
    changed = changed.replace(" state,", " 'exported',")
    copies = f"SELECT {changed} FROM studies, generate_series(1, 20000) AS n"
    postgres.query(f"INSERT INTO studies ({columns}) {copies}", name)
    postgres.query("ANALYZE studies", name)
    plan = postgres.query(
        "EXPLAIN SELECT min(stream) FROM studies WHERE state = 'pending' AND queue = '' "
        "AND rank = 1",
        name,
    )
    assert "studies_that_wait" in plan
    assert len(ledger.outbox()) == 1
    engine.dispose()


def test_options_in_the_address_hold_beside_the_limits(
    postgres: PostgresServer, clock: FakeClock
) -> None:
    url = postgres.new_database()
    postgres.query("CREATE SCHEMA prichexy", url.rpartition("/")[2])
    address = f"{url}?options=-c%20search_path%3Dprichexy&sslmode=disable"
    engine = open_database(address, SecretStr(postgres.password))
    Ledger(engine, clock).note({}, cursor=5)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SHOW lock_timeout").scalar() == "10s"
    engine.dispose()
    found = postgres.query("SELECT number FROM prichexy.facts ORDER BY 1", url.rpartition("/")[2])
    assert found.split() == ["5", str(SCHEMA_VERSION)]


@pytest.mark.parametrize("wrong", ["password", "address"])
def test_what_is_wrong_is_said_without_the_password(postgres: PostgresServer, wrong: str) -> None:
    secret = "sTrictly-secret"
    url = postgres.url if wrong == "password" else "postgresql://postgres@127.0.0.1:1/postgres"
    with pytest.raises(SQLAlchemyError) as failed:
        open_database(url, SecretStr(secret))
    assert secret not in str(failed.value)


def test_a_worker_record_of_another_version_is_kept_as_it_came(
    opened: Callable[[], Ledger], clock: FakeClock
) -> None:
    ledger = opened()
    ledger.announce(replace(announcement_of(), queues=("gpu", "prichexy")))
    assert ledger.takers(clock()) == {"gpu": 1, "": 1}
