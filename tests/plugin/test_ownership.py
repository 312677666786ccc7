"""A ledger belongs to one Orthanc: another one leaves it as it is, until a person gives it away."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pytest
from pydicom.uid import generate_uid
from sqlalchemy import Engine
from sqlalchemy.orm import Session
from typer.testing import CliRunner, Result

from prichexy_gateway.cli import create_app
from prichexy_gateway.deeds import noted
from prichexy_gateway.home import Home
from prichexy_plugin.chain import Deed, Line
from prichexy_plugin.database import open_database
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.outside_deeds import read_deeds
from prichexy_plugin.ownership import PROPERTY, OthersLedger, admit, number_of
from prichexy_plugin.schema import NEW_COLUMNS, FactRow
from prichexy_plugin.studies import StudiesUnavailable
from prichexy_testing.dicoms import CANARIES, radiograph_dataset, write
from prichexy_testing.fake_orthanc import FakeOrthanc, orthanc_id
from prichexy_testing.old_ledgers import schema_1
from prichexy_testing.plugin_fakes import FakeClock
from prichexy_testing.plugin_servers import PluginOrthanc, running_plugin_orthanc
from prichexy_testing.servers import PostgresServer, free_port, wait_until

OURS, THEIRS = 4711, 815


def facts(engine: Engine) -> dict[str, int]:
    with Session(engine) as session:
        return {row.name: row.number for row in session.query(FactRow)}


def deeds(ledger: Ledger) -> list[tuple[str, object]]:
    lines = [line for line in ledger.lines() if isinstance(line, Line)]
    return [(line.deed, line.details.get("action")) for line in lines]


def adopt(*words: str) -> Result:
    return CliRunner().invoke(create_app(), ["ledger", "adopt", *words])


# --- The number ---------------------------------------------------------------------------------


def test_an_orthanc_has_one_number_as_long_as_it_has_its_database() -> None:
    one, other = FakeOrthanc(), FakeOrthanc()
    number = number_of(one)
    assert 0 < number < 2**31
    assert number_of(one) == number
    assert number_of(other) != number
    copied = FakeOrthanc()
    copied.properties[PROPERTY] = one.properties[PROPERTY]
    assert number_of(copied) == number


def test_a_database_that_does_not_work_gives_no_number() -> None:
    orthanc = FakeOrthanc()
    orthanc.broken = True
    with pytest.raises(StudiesUnavailable):
        number_of(orthanc)
    orthanc.broken = False
    number_of(orthanc)


# --- The ledger ---------------------------------------------------------------------------------


def test_the_first_orthanc_has_the_ledger_and_another_alters_nothing(
    open_ledger_database: Callable[[], Engine], clock: FakeClock
) -> None:
    ours = Ledger(open_ledger_database(), clock)
    ours.begin({}, tells=False, orthanc=OURS)
    ours.note({orthanc_id("a"): clock()}, cursor=7)
    engine = open_ledger_database()
    before = facts(engine), ours.chain_state()
    theirs = Ledger(engine, clock)
    with pytest.raises(OthersLedger):
        theirs.begin({}, tells=True, orthanc=THEIRS)
    assert (facts(engine), ours.chain_state()) == before
    Ledger(engine, clock).begin({}, tells=False, orthanc=OURS)


def test_a_ledger_of_before_goes_on_with_the_orthanc_that_opens_it_first(
    engine: Engine, clock: FakeClock
) -> None:
    Ledger(engine, clock).begin({}, tells=False)
    assert "orthanc" not in facts(engine)
    Ledger(engine, clock).begin({}, tells=False, orthanc=OURS)
    with pytest.raises(OthersLedger):
        Ledger(engine, clock).begin({}, tells=False, orthanc=THEIRS)
    assert [action for _, action in deeds(Ledger(engine, clock))] == [None, None]


def test_a_restored_ledger_goes_on_with_the_orthanc_that_finds_it(
    engine: Engine, clock: FakeClock
) -> None:
    Ledger(engine, clock).begin({}, tells=False, orthanc=OURS)
    with Session(engine) as session, session.begin():
        session.add(FactRow(name="restored", number=1))
    Ledger(engine, clock).begin({}, tells=False, orthanc=THEIRS)
    with pytest.raises(OthersLedger):
        Ledger(engine, clock).begin({}, tells=False, orthanc=OURS)


def test_a_ledger_that_was_given_away_is_not_written_by_who_still_has_it_open(
    tmp_path: Path, clock: FakeClock
) -> None:
    """As when the one that was said to have crashed is there after all."""
    file = tmp_path / "ledger.sqlite"
    engine = open_database(f"sqlite:///{file}")
    ours = Ledger(engine, clock)
    ours.begin({}, tells=False, orthanc=OURS)
    ours.note({orthanc_id("a"): clock()}, cursor=7)
    ours.check_owner()
    assert adopt("--ledger", str(file), "--crashed").exit_code == 0
    for work in (
        ours.check_owner,
        partial(ours.gone, orthanc_id("a")),
        partial(ours.note, {}, cursor=9),
        partial(ours.record, Deed.STOPPED),
    ):
        with pytest.raises(OthersLedger):
            work()
    Ledger(engine, clock).begin({}, tells=False, orthanc=THEIRS)
    with pytest.raises(OthersLedger):
        ours.gone(orthanc_id("a"))
    engine.dispose()


def test_an_older_ledger_of_another_orthanc_is_not_brought_up_to_date(tmp_path: Path) -> None:
    file = tmp_path / "ledger.sqlite"
    with closing(sqlite3.connect(file)) as database:
        database.executescript(schema_1("sqlite"))
        database.execute("INSERT INTO facts VALUES ('orthanc', ?)", (OURS,))
        database.commit()
        before = list(database.iterdump())
        with pytest.raises(OthersLedger):
            open_database(f"sqlite:///{file}", admit=partial(admit, number=THEIRS))
        assert list(database.iterdump()) == before
    open_database(f"sqlite:///{file}", admit=partial(admit, number=OURS)).dispose()


# --- The command --------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path, clock: FakeClock) -> Home:
    """Give a gateway's folder whose ledger an Orthanc has let go of."""
    home = Home(tmp_path / "home")
    home.prepare()
    engine = open_database(f"sqlite:///{home.ledger_file}")
    ledger = Ledger(engine, clock)
    ledger.begin({}, tells=False, orthanc=OURS)
    ledger.note({orthanc_id("a"): clock()}, cursor=7)
    ledger.record(Deed.STOPPED)
    engine.dispose()
    return home


@pytest.mark.parametrize(("words", "place"), [((), 0), (("--keep-place",), 7)])
def test_a_ledger_is_given_to_another_orthanc(
    home: Home, clock: FakeClock, words: tuple[str, ...], place: int
) -> None:
    done = adopt("--home", str(home.root), *words)
    assert done.exit_code == 0, done.output
    engine = open_database(f"sqlite:///{home.ledger_file}")
    ledger = Ledger(engine, clock)
    assert str(ledger.chain_state().head) in done.stdout
    assert ledger.cursor() == place
    ledger.begin({}, tells=False, orthanc=THEIRS)
    assert deeds(ledger)[-2:] == [(Deed.ACTION, "take over"), (Deed.STARTED, None)]
    assert ledger.study(ledger.studies().studies[0].job_id) is not None
    with pytest.raises(OthersLedger):
        Ledger(engine, clock).begin({}, tells=False, orthanc=OURS)
    [deed] = read_deeds({"deeds": [asdict(one) for one in noted(home)]})
    assert (deed.action, deed.studies) == ("adopt", 1)
    ledger.note_deeds([deed], "user admin")
    assert deeds(ledger)[-1] == (Deed.ACTION, "adopt")
    assert ledger.verdict().whole
    engine.dispose()


def test_a_ledger_in_use_is_given_away_only_when_its_plugin_has_crashed(home: Home) -> None:
    engine = open_database(f"sqlite:///{home.ledger_file}")
    Ledger(engine, FakeClock()).begin({}, tells=False, orthanc=OURS)
    before = facts(engine)
    refused = adopt("--home", str(home.root))
    assert "in use" in str(refused.exception)
    assert facts(engine) == before
    assert noted(home) == []
    assert adopt("--home", str(home.root), "--crashed").exit_code == 0
    assert facts(engine)["orthanc"] == 0
    engine.dispose()


def _dump(file: Path) -> list[str]:
    with closing(sqlite3.connect(file)) as database:
        return list(database.iterdump())


@pytest.mark.parametrize("schema", [1, 11])
def test_a_refused_adoption_or_copy_leaves_an_older_ledger_as_it_was(
    tmp_path: Path, schema: int
) -> None:
    file = tmp_path / "ledger.sqlite"
    with closing(sqlite3.connect(file)) as database:
        database.executescript(schema_1("sqlite"))
    if schema == 11:
        open_database(f"sqlite:///{file}").dispose()
        with closing(sqlite3.connect(file)) as database, database:
            database.execute("DROP INDEX studies_by_rule")
            for table, columns in (*NEW_COLUMNS[12].items(), *NEW_COLUMNS[13].items()):
                for column in columns:
                    database.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
            database.execute("UPDATE facts SET number = 11 WHERE name = 'schema'")
    before = _dump(file)
    to = tmp_path / "copy.sqlite"
    refused = adopt("--ledger", str(file))
    assert "in use" in str(refused.exception)
    words = ["ledger", "copy", "--ledger", str(file), "--to", f"sqlite:///{to}"]
    assert "in use" in str(CliRunner().invoke(create_app(), words).exception)
    assert _dump(file) == before
    assert CliRunner().invoke(create_app(), [*words, "--crashed"]).exit_code == 0
    assert adopt("--ledger", str(file), "--crashed").exit_code == 0
    assert _dump(file) != before


def test_what_is_no_ledger_is_not_made_one(tmp_path: Path) -> None:
    nothing = tmp_path / "nothing.sqlite"
    assert "no ledger at" in str(adopt("--ledger", str(nothing)).exception)
    assert not nothing.exists()
    nothing.touch()
    assert "unknown schema" in str(adopt("--ledger", f"sqlite:///{nothing}").exception)
    with closing(sqlite3.connect(nothing)) as database:
        assert list(database.iterdump()) == ["BEGIN TRANSACTION;", "COMMIT;"]
    assert "URL" in str(adopt("--ledger", "mysql://there/ledger").exception)


# --- Two Orthancs -------------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def shared_ledger(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """Give the settings of one ledger, for two Orthancs."""
    if request.param == "sqlite":
        return {"Url": f"sqlite:///{tmp_path}/ledger.sqlite"}
    server: PostgresServer = request.getfixturevalue("postgres")
    password = tmp_path / "password"
    password.write_text(server.password)
    return {"Url": server.new_database(), "PasswordFile": str(password)}


def _send(orthanc: PluginOrthanc, name: str) -> str:
    uids = {
        keyword: generate_uid(entropy_srcs=[name, keyword])
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    }
    content = write(radiograph_dataset(identity={**CANARIES, **uids}))
    return str(orthanc.post("/instances", content).json()["ParentStudy"])


def _states(orthanc: PluginOrthanc) -> dict[str, str]:
    return {study["study_id"]: study["state"] for study in orthanc.studies()}


@pytest.mark.orthanc
def test_two_orthancs_on_one_ledger_end_no_study_of_each_other(
    shared_ledger: dict[str, str],
) -> None:
    section = {
        "Broker": {"Url": f"redis://127.0.0.1:{free_port()}/0"},
        "Ledger": shared_ledger,
    }
    options = ["--ledger", shared_ledger["Url"]]
    if "PasswordFile" in shared_ledger:
        options += ["--password-file", shared_ledger["PasswordFile"]]

    def is_open(orthanc: PluginOrthanc) -> bool:
        return bool(orthanc.health()["ledger"] == "ok")

    def is_refused(orthanc: PluginOrthanc) -> bool:
        return "belongs to another Orthanc" in orthanc.health()["ledger"]

    with ExitStack() as stack:
        ours = stack.enter_context(running_plugin_orthanc(section))
        wait_until(lambda: is_open(ours), what="the first one has the ledger")
        mine = _send(ours, "mine")
        wait_until(lambda: _states(ours) == {mine: "pending"}, what="its study is taken in")

        theirs = stack.enter_context(running_plugin_orthanc(section))
        wait_until(lambda: is_refused(theirs), what="the second one is refused")
        other = _send(theirs, "other")
        assert "prichexy ledger adopt" in theirs.get("/prichexy").text
        assert theirs.post_as_worker("/workers", {}).status_code == 503
        wait_until(
            lambda: theirs.get(f"/studies/{other}").json()["IsStable"], what="it is received"
        )
        ours.stop()
        ours.start()
        wait_until(lambda: is_open(ours), what="the first one goes on")
        assert _states(ours) == {mine: "pending"}
        assert "in use" in str(adopt(*options).exception)

        ours.stop()
        given = adopt(*options)
        assert given.exit_code == 0, given.output
        expected = {mine: "pending", other: "pending"}
        wait_until(lambda: _states(theirs) == expected, what="the second one goes on")
        ours.start()
        wait_until(lambda: is_refused(ours), what="the first one is refused now")
        theirs.stop()
        theirs.start()
        wait_until(lambda: is_open(theirs), what="the second one has the ledger still")
        assert _states(theirs) == expected
