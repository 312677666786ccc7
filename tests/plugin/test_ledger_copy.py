"""``prichexy ledger copy``: a SQLite ledger goes on in PostgreSQL as if nothing had happened."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import Connection, Engine, Table, select
from typer.testing import CliRunner, Result

from prichexy_gateway.cli import create_app
from prichexy_plugin import copying
from prichexy_plugin.chain import Deed, Verdict, read_key, verify
from prichexy_plugin.closed_ledger import Unusable
from prichexy_plugin.copying import copy_ledger
from prichexy_plugin.database import open_database
from prichexy_plugin.intake import Decision
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.schema import Base
from prichexy_testing.fake_orthanc import orthanc_id
from prichexy_testing.plugin_fakes import FakeClock, announcement_of, report_of
from prichexy_testing.servers import PostgresServer
from prichexy_worker.contract import Reason, State

pytestmark = pytest.mark.postgres


@pytest.fixture
def file(tmp_path: Path, clock: FakeClock) -> Path:
    """Give a ledger with some of everything, closed as a plugin that stops does it."""
    file = tmp_path / "ledger.sqlite"
    engine = open_database(f"sqlite:///{file}")
    ledger = Ledger(engine, clock)
    ledger.begin({"software": "1"}, tells=True)
    ledger.announce(announcement_of())
    ledger.start_backfill(per_minute=60, total=9, by="anna")
    for name in "abcde":
        ledger.note({orthanc_id(name): clock()}, cursor=ord(name))
        ledger.settle(orthanc_id(name), Decision(None, ("t",)), content=name, instances=2)
    for message in ledger.outbox():
        ledger.sent(message)
        ledger.report(report_of(message, State.PROCESSING))
        failed = report_of(
            message, State.QUEUED, attempt=1, reason=Reason.TARGET_UNREACHABLE, target="t"
        )
        ledger.report(failed)
    ledger.record(Deed.STOPPED)
    engine.dispose()
    return file


@pytest.fixture
def place(postgres: PostgresServer, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Give an empty database and the file of its password."""
    password = tmp_path / "password"
    password.write_text(f"{postgres.password}\n")
    return postgres.new_database(), password


def copy(file: Path, place: tuple[str, Path], *words: str) -> Result:
    url, password = place
    options = ["--ledger", str(file), "--to", url, "--password-file", str(password)]
    return CliRunner().invoke(create_app(), ["ledger", "copy", *options, *words])


def rows(engine: Engine) -> dict[str, list[dict[str, Any]]]:
    with engine.connect() as connection:
        return {
            table.name: [
                dict(row)
                for row in connection.execute(
                    select(table).order_by(*table.primary_key.columns)
                ).mappings()
            ]
            for table in Base.metadata.sorted_tables
        }


@pytest.fixture
def copied(place: tuple[str, Path]) -> Iterator[Engine]:
    url, password = place
    engine = open_database(url, SecretStr(password.read_text().strip()))
    yield engine
    engine.dispose()


def test_a_copied_ledger_goes_on(
    file: Path, place: tuple[str, Path], copied: Engine, clock: FakeClock
) -> None:
    source = open_database(f"sqlite:///{file}")
    before = rows(source)
    source.dispose()
    assert all(before[table] for table in ("studies", "events", "workers", "backfills", "circuits"))

    done = copy(file, place)
    assert done.exit_code == 0, done.output
    assert f"line {len(before['events'])}, digest" in done.stdout
    assert rows(copied) == before

    ledger = Ledger(copied, clock)
    assert ledger.verdict().whole
    ledger.begin({"software": "1"}, tells=True)
    ledger.stop_backfill(by="anna")
    begun = ledger.start_backfill(per_minute=60, total=9, by="anna")
    assert begun.number == before["backfills"][-1]["number"] + 1
    assert ledger.verdict().whole


def test_a_large_ledger_is_copied_however_long_it_takes(
    file: Path,
    place: tuple[str, Path],
    postgres: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As one of millions of lines, to verify which takes minutes."""
    name = place[0].rpartition("/")[2]
    open_there, shown = [], set()

    def verified(*arguments: Any, **options: Any) -> Verdict:
        begun = f"datname = '{name}' AND xact_start IS NOT NULL"
        open_there.append(
            postgres.query(f"SELECT count(*) FROM pg_stat_activity WHERE {begun}").strip()
        )
        return verify(*arguments, **options)

    def copied(table: Table, source: Connection, target: Connection) -> None:
        for limit in ("statement_timeout", "idle_in_transaction_session_timeout"):
            shown.add(target.exec_driver_sql(f"SHOW {limit}").scalar())
        one_table(table, source, target)

    one_table = copying._copy
    monkeypatch.setattr(copying, "verify", verified)
    monkeypatch.setattr(copying, "_copy", copied)
    assert copy(file, place).exit_code == 0
    assert open_there == ["0"], "no transaction waits there for the verification"
    assert shown == {"0"}


def test_what_is_there_is_not_written_over(file: Path, place: tuple[str, Path]) -> None:
    assert copy(file, place).exit_code == 0
    again = copy(file, place)
    assert again.exit_code != 0
    assert "not empty" in str(again.exception)


def test_a_ledger_in_use_is_copied_only_when_asked_for(
    file: Path, place: tuple[str, Path], copied: Engine, clock: FakeClock
) -> None:
    engine = open_database(f"sqlite:///{file}")
    Ledger(engine, clock).begin({}, tells=False)
    engine.dispose()
    refused = copy(file, place)
    assert refused.exit_code != 0
    assert "stop its ingest Orthanc first" in str(refused.exception)
    assert rows(copied)["studies"] == []
    assert copy(file, place, "--crashed").exit_code == 0
    assert len(rows(copied)["studies"]) == 5


def test_an_altered_line_is_not_carried_along(
    file: Path, place: tuple[str, Path], copied: Engine
) -> None:
    connection = sqlite3.connect(file)
    connection.execute("DROP TRIGGER events_are_not_altered")
    connection.execute("UPDATE events SET details = '5' WHERE number = 3")
    connection.commit()
    connection.close()
    refused = copy(file, place)
    assert refused.exit_code != 0
    assert "altered" in str(refused.exception)
    assert rows(copied)["events"] == []


@pytest.mark.parametrize(
    "altered",
    [
        "UPDATE events SET actor = 'worker-9' WHERE number = 4",
        "DELETE FROM events WHERE number = 4",
        "UPDATE audit_chain SET number = number - 1 WHERE name = 'head'",
    ],
)
def test_a_trail_that_is_not_as_it_was_written_is_not_carried_along(
    file: Path, tmp_path: Path, altered: str
) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        triggers = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")
        for (name,) in triggers.fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute(altered)
    with pytest.raises(Unusable, match="altered"):
        copy_ledger(file, f"sqlite:///{tmp_path}/copy.sqlite", None)
    with closing(sqlite3.connect(tmp_path / "copy.sqlite")) as connection:
        assert connection.execute("SELECT count(*) FROM studies").fetchone() == (0,)


def test_a_trail_under_a_key_is_verified_with_it(
    file: Path, tmp_path: Path, clock: FakeClock
) -> None:
    path = tmp_path / "audit.key"
    path.write_text("k" * 64)
    key = read_key(path)
    engine = open_database(f"sqlite:///{file}")
    Ledger(engine, clock, key).record(Deed.STOPPED)
    engine.dispose()
    to = f"sqlite:///{tmp_path}/copy.sqlite"
    words = ["ledger", "copy", "--ledger", str(file), "--to", to]
    refused = CliRunner().invoke(create_app(), words)
    assert "--key-file" in str(refused.exception)
    done = CliRunner().invoke(create_app(), [*words, "--key-file", str(path)])
    assert done.exit_code == 0, done.output
