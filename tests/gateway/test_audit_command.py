"""``prichexy audit`` on a ledger, also on one that is being written to."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session
from typer.testing import CliRunner, Result

from prichexy_gateway.cli import create_app
from prichexy_gateway.errors import Misconfigured
from prichexy_gateway.home import LEDGER_FILE
from prichexy_plugin import settings
from prichexy_plugin.chain import ChainKey, Deed, Line, digest_of, read_key
from prichexy_plugin.database import open_database
from prichexy_plugin.intake import Decision
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.schema import EventRow
from prichexy_testing.fake_orthanc import orthanc_id
from prichexy_testing.plugin_fakes import FakeClock
from prichexy_worker.contract import Reason

WHOLE, BROKEN, PRUNED = 0, 3, 5


def audit(*words: str | Path) -> Result:
    return CliRunner().invoke(create_app(), ["audit", *map(str, words)])


def verdict(*words: str | Path) -> dict[str, object]:
    found: dict[str, object] = json.loads(audit("verify", "--json", *words).stdout)
    return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ingest" / LEDGER_FILE


@pytest.fixture
def engine(file: Path) -> Iterator[Engine]:
    engine = open_database(f"sqlite:///{file}")
    yield engine
    engine.dispose()


def written(engine: Engine, count: int, key: ChainKey | None = None) -> Ledger:
    ledger = Ledger(engine, FakeClock(), key)
    for _ in range(count):
        ledger.record(Deed.ACTION, by="anna", details={"action": "pause"})
    return ledger


def forge(file: Path, *statements: str) -> None:
    """Do to the database what its owner can do."""
    connection = sqlite3.connect(file)
    for (name,) in connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'trigger'"
    ).fetchall():
        connection.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def test_a_whole_trail_is_called_whole_and_its_head_is_told(engine: Engine, file: Path) -> None:
    head = written(engine, 3).chain_state().head
    answer = audit("verify", "--ledger", file)
    assert answer.exit_code == WHOLE
    assert answer.stdout.splitlines() == ["The audit trail is whole: 3 lines.", f"Head: {head}"]
    assert audit("verify", "--ledger", f"sqlite:///{file}").exit_code == WHOLE
    assert audit("verify", "--home", file.parents[1]).exit_code == WHOLE


def test_the_first_broken_line_is_named_and_the_lines_counted(engine: Engine, file: Path) -> None:
    written(engine, 5)
    forge(file, "UPDATE events SET actor = 'ben' WHERE number = 3")
    answer = audit("verify", "--ledger", file)
    assert answer.exit_code == BROKEN
    assert "broken at line 3" in answer.stdout
    assert "5 lines were read" in answer.stdout
    found = verdict("--ledger", file)
    assert (found["whole"], found["broken"], found["lines"]) == (False, 3, 5)
    assert found["head"] != found["checkpoint"]


#: What the owner of the database may put into a line's place, by the column.
ODD_VALUES = {
    "details": ("'5'", "'[1]'", "'{'", "''", "x'00'", "'\"a\"'", "NULL"),
    "at": ("'x'", "5", "'2026-03-01 08:00:00+02:00'"),
    "actor": ("x'ff00'", "CAST(x'ff' AS TEXT)"),
    "digest": ("'\u00e9'", "x'ff'", "''"),
    "key_id": ("'0123456789abcdef'", "x'01'"),
    "reason": ("5", "x'05'"),
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in ODD_VALUES.items() for value in values]
)
def test_whatever_stands_in_a_line_it_is_the_line_that_is_named(
    engine: Engine, file: Path, name: str, value: str
) -> None:
    ledger = written(engine, 5)
    forge(
        file,
        "PRAGMA writable_schema = ON",
        "UPDATE sqlite_master SET sql = replace(sql, ' NOT NULL', '') WHERE name = 'events'",
    )
    forge(file, f"UPDATE events SET {name} = {value} WHERE number = 3")
    found = verdict("--ledger", file)
    assert (found["whole"], found["broken"], found["lines"]) == (False, 3, 5)
    assert audit("verify", "--ledger", file).exit_code == BROKEN
    judged = ledger.verdict()
    assert (judged.broken, judged.lines) == (3, 5), "the dashboard says the same"


@pytest.mark.parametrize("value", ["number = 'x'", "digest = x'ff'", "digest = 'A'"])
@pytest.mark.parametrize(("name", "line"), [("head", 5), ("checkpoint", 1)])
def test_an_altered_word_on_the_ends_is_a_break(
    engine: Engine, file: Path, value: str, name: str, line: int
) -> None:
    ledger = written(engine, 5)
    forge(file, f"UPDATE audit_chain SET {value} WHERE name = '{name}'")
    found = verdict("--ledger", file)
    assert (found["whole"], found["broken"], found["lines"]) == (False, line, 5)
    assert not ledger.verdict().whole
    assert ledger.chain_state().ends_at_head is (name == "checkpoint")
    forge(file, f"DELETE FROM audit_chain WHERE name = '{name}'")
    assert verdict("--ledger", file)["broken"] == line


def test_a_line_that_cannot_be_written_stops_the_export_with_its_number(
    engine: Engine, file: Path
) -> None:
    written(engine, 5)
    forge(file, "UPDATE events SET details = '{' WHERE number = 3")
    answer = audit("export", "--ledger", file)
    assert [json.loads(one)["number"] for one in answer.stdout.splitlines()] == [1, 2]
    assert isinstance(answer.exception, Misconfigured)
    assert "line 3" in str(answer.exception)


def test_a_ledger_of_before_the_chain_is_told_from_what_is_none(tmp_path: Path) -> None:
    old = tmp_path / "old.sqlite"
    connection = sqlite3.connect(old)
    for name in ("facts", "studies", "events"):
        connection.execute(f"CREATE TABLE {name} (number INTEGER)")
    connection.close()
    answer = audit("verify", "--ledger", old)
    assert isinstance(answer.exception, Misconfigured)
    assert "of older software" in str(answer.exception)


def test_a_line_that_was_taken_out_shows(engine: Engine, file: Path) -> None:
    written(engine, 5)
    forge(file, "DELETE FROM events WHERE number = 2")
    assert verdict("--ledger", file)["broken"] == 2
    assert verdict("--ledger", file)["trouble"] == "the line is missing"


def test_an_end_that_was_cut_off_shows_against_a_head_that_was_noted(
    engine: Engine, file: Path, tmp_path: Path
) -> None:
    head = written(engine, 5).chain_state().head
    log = tmp_path / "orthanc.log"
    log.write_text(f"W0301 08:00:00 PriCheXy, audit trail: {head}.\n")
    assert audit("verify", "--ledger", file, "--against", log).exit_code == WHOLE
    assert verdict("--ledger", file, "--head", f"{head.number}:{head.digest}")["compared"] == 1
    third = written(engine, 0).lines()[2]
    forge(
        file,
        "DELETE FROM events WHERE number > 3",
        f"UPDATE audit_chain SET number = 3, digest = '{third.digest}' WHERE name = 'head'",
    )
    assert audit("verify", "--ledger", file).exit_code == WHOLE, "nothing in the ledger shows it"
    for noted in (("--against", str(log)), ("--head", f"{head.number}:{head.digest}")):
        assert audit("verify", "--ledger", file, *noted).exit_code == BROKEN
        assert verdict("--ledger", file, *noted)["broken"] == 4


def test_under_a_key_only_who_has_it_verifies(engine: Engine, file: Path, tmp_path: Path) -> None:
    key_file = tmp_path / "audit.key"
    key_file.write_text("k" * 64)
    written(engine, 2, read_key(key_file))
    answer = audit("verify", "--ledger", file)
    assert isinstance(answer.exception, Misconfigured)
    assert "line 1 is under the key" in str(answer.exception)
    assert "no --key-file holds" in str(answer.exception)
    assert "the line is altered" in str(answer.exception)
    assert audit("verify", "--ledger", file, "--key-file", key_file).exit_code == WHOLE
    other = tmp_path / "other.key"
    other.write_text("k" * 5)
    short = audit("verify", "--ledger", file, "--key-file", other)
    assert isinstance(short.exception, Misconfigured)
    assert "kkkkk" not in str(short.exception)


def test_what_was_deleted_when_due_is_said(engine: Engine, file: Path) -> None:
    ledger = written(engine, 5)
    assert ledger.prune(FakeClock().now.replace(year=2027), told=None, most=2) == 2
    answer = audit("verify", "--ledger", file)
    assert answer.exit_code == WHOLE
    assert f"It begins after {ledger.chain_state().checkpoint}" in answer.stdout
    assert verdict("--ledger", file)["lines"] == 4


def test_a_beginning_that_was_cut_off_by_a_forged_line_is_no_silent_matter(
    engine: Engine, file: Path, tmp_path: Path
) -> None:
    ledger = written(engine, 5)
    log = tmp_path / "log"
    log.write_text("\n".join(str(line.head) for line in ledger.lines()))
    cut = ledger.chain_state().head
    forged = Line(
        cut.number + 1,
        FakeClock()(),
        Deed.PRUNED.value,
        "plugin",
        details={"upto": cut.number, "digest": cut.digest, "lines": cut.number},
    )
    digest = digest_of(forged, cut.digest)
    # With every trigger in place.
    connection = sqlite3.connect(file)
    head = f"number = {forged.number}, digest = '{digest}' WHERE name = 'head'"
    connection.execute(f"UPDATE audit_chain SET {head}")
    connection.commit()
    with Session(engine) as session, session.begin():
        session.add(EventRow.of(replace(forged, digest=digest)))
    checkpoint = f"number = {cut.number}, digest = '{cut.digest}' WHERE name = 'checkpoint'"
    connection.execute(f"UPDATE audit_chain SET {checkpoint}")
    assert connection.execute("DELETE FROM events WHERE number < 6").rowcount == 5
    connection.commit()
    connection.close()
    answer = audit("verify", "--ledger", file, "--against", log)
    assert answer.exit_code == PRUNED
    assert "up to number 5 are gone" in answer.output
    for allowed, code in ((5, WHOLE), (4, PRUNED)):
        asked = audit("verify", "--ledger", file, "--against", log, "--pruned", str(allowed))
        assert asked.exit_code == code
    assert audit("verify", "--ledger", file, "--pruned", "0").exit_code == PRUNED


@pytest.mark.parametrize(("number", "where"), [(-2, -2), (0, 0), (1, 1), (2, 2), (7, 7)])
def test_a_row_where_the_trail_does_not_go_is_found_by_both_verifications(
    engine: Engine, file: Path, number: int, where: int
) -> None:
    ledger = written(engine, 5)
    assert ledger.prune(FakeClock().now.replace(year=2027), told=None, most=2) == 2
    columns = "at, deed, from_state, to_state, actor, reason, details, key_id, digest"
    forge(
        file,
        f"INSERT INTO events (number, job_id, {columns}) "
        f"SELECT {number}, '{'f' * 32}', {columns} FROM events WHERE number = 4",
    )
    assert audit("verify", "--ledger", file).exit_code == BROKEN
    found, judged = verdict("--ledger", file), ledger.verdict()
    assert (found["broken"], found["trouble"]) == (judged.broken, judged.trouble)
    assert (found["broken"], found["lines"]) == (where, 5)


@pytest.mark.parametrize(
    "altered",
    [
        """details = '{"action": "nothing", ' || substr(details, 2)""",
        "at = replace(at, '-', '')",
        "at = substr(at, 1, 19)",
    ],
)
def test_what_other_programs_would_read_otherwise_is_altered(
    engine: Engine, file: Path, altered: str
) -> None:
    written(engine, 3)
    forge(file, f"UPDATE events SET {altered} WHERE number = 2")
    found = verdict("--ledger", file)
    assert (found["whole"], found["broken"]) == (False, 2)


def test_studies_that_stand_elsewhere_than_the_trail_says_are_named(
    engine: Engine, file: Path
) -> None:
    clock = FakeClock()
    ledger = Ledger(engine, clock)
    for name in "ab":
        ledger.note({orthanc_id(name): clock()}, cursor=1)
        ledger.settle(orthanc_id(name), Decision(Reason.NO_RULE_MATCHES), content="c", instances=1)
    assert audit("verify", "--ledger", file).exit_code == WHOLE
    job = ledger.studies(study_id=orthanc_id("a")).studies[0].job_id
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f"UPDATE studies SET state = 'exported', reason = NULL WHERE job_id = '{job}'"
        )
    answer = audit("verify", "--ledger", file)
    assert answer.exit_code == BROKEN
    assert job in answer.stdout
    assert verdict("--ledger", file)["standing"] == [job]
    assert ledger.verdict().standing == (job,)


@pytest.mark.parametrize("broken", ["absent", "text", "empty", "folder", "url", "driver"])
def test_what_cannot_be_read_is_neither_whole_nor_broken(tmp_path: Path, broken: str) -> None:
    path = tmp_path / "ledger"
    if broken == "text":
        path.write_text("this is no database, but long enough to be looked at" * 100)
    elif broken == "empty":
        sqlite3.connect(path).close()
        path.touch()
    elif broken == "folder":
        path.mkdir()
    where = {"url": "://hush", "driver": "nosuch://hush@host/db"}.get(broken, str(path))
    answer = audit("verify", "--ledger", where)
    assert isinstance(answer.exception, Misconfigured), "which ends with the exit code 2"
    assert "hush" not in str(answer.exception)
    against = audit("verify", "--ledger", where, "--head", "1:abc")
    assert against.exit_code == 2


def test_a_file_without_any_head_is_not_taken_for_an_agreement(
    engine: Engine, file: Path, tmp_path: Path
) -> None:
    written(engine, 1)
    log = tmp_path / "log"
    log.write_text("nothing of it")
    answer = audit("verify", "--ledger", file, "--against", log)
    assert isinstance(answer.exception, Misconfigured)


def test_it_verifies_a_ledger_that_is_being_written_to(engine: Engine, file: Path) -> None:
    written(engine, 1)
    stop = threading.Event()

    def write() -> None:
        ledger = Ledger(engine, FakeClock())
        while not stop.is_set():
            ledger.record(Deed.ACTION, by="anna")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        lines = []
        for _ in range(10):
            found = verdict("--ledger", file)
            assert found["whole"], found
            lines.append(found["lines"])
    finally:
        stop.set()
        writer.join(300)
    assert lines == sorted(lines)  # type: ignore[type-var]
    assert verdict("--ledger", file)["lines"] == written(engine, 0).chain_state().head.number


def test_verifying_writes_nothing(engine: Engine, file: Path) -> None:
    written(engine, 3)
    engine.dispose()
    before = file.read_bytes()
    file.chmod(0o400)
    assert audit("verify", "--ledger", file).exit_code == WHOLE
    assert audit("export", "--ledger", file).exit_code == 0
    assert file.read_bytes() == before
    assert file.stat().st_mode & 0o777 == 0o400


def test_the_lines_are_written_as_json_lines_and_as_csv(engine: Engine, file: Path) -> None:
    ledger = written(engine, 2)
    ledger.note({"-".join(["0a1b2c3d"] * 5): FakeClock().now}, cursor=1)
    [study] = ledger.studies().studies
    rows = [json.loads(one) for one in audit("export", "--ledger", file).stdout.splitlines()]
    assert [row["number"] for row in rows] == [1, 2, 3]
    assert rows[0]["details"] == {"action": "pause"}
    assert rows[2]["job_id"] == study.job_id
    of_job = audit("export", "--ledger", file, "--job", study.job_id).stdout.splitlines()
    assert [json.loads(one)["number"] for one in of_job] == [3]
    text = audit("export", "--ledger", file, "--format", "csv").stdout
    table = list(csv.DictReader(io.StringIO(text)))
    assert [row["actor"] for row in table] == ["anna", "anna", "plugin"]
    assert json.loads(table[0]["details"]) == {"action": "pause"}


def test_the_ledgers_file_is_called_as_the_plugin_calls_it() -> None:
    assert LEDGER_FILE == settings.LEDGER_FILE
