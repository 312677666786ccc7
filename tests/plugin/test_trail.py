"""The audit trail in the ledger: complete, append-only, one chain whoever writes."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.orm import Session

from prichexy_plugin.chain import GENESIS, ChainKey, Deed, Head, Verdict, verify
from prichexy_plugin.database import open_database
from prichexy_plugin.intake import Decision
from prichexy_plugin.ledger import Ledger
from prichexy_testing.fake_orthanc import orthanc_id
from prichexy_testing.plugin_fakes import FakeClock, announcement_of, report_of
from prichexy_worker.contract import Reason, State
from prichexy_worker.retry import LIMITS, Blame

STUDY = orthanc_id("a")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_database(f"sqlite:///{tmp_path}/ledger.sqlite")
    yield engine
    engine.dispose()


@pytest.fixture
def ledger(engine: Engine, clock: FakeClock) -> Ledger:
    return Ledger(engine, clock)


def verdict_of(ledger: Ledger, *keys: ChainKey) -> Verdict:
    state = ledger.chain_state()
    assert state.ends_at_head
    return verify(
        ledger.lines(limit=100_000),
        checkpoint=state.checkpoint,
        head=state.head,
        keys={key.key_id: key for key in keys},
    )


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("postgresql+psycopg://anna:hush@db.example/prichexy?password=hush", "postgresql"),
        ("sqlite:////srv/ledger.sqlite", "/srv/ledger.sqlite"),
    ],
)
def test_it_says_where_it_is_and_tells_no_secret(url: str, place: str, clock: FakeClock) -> None:
    engine = create_engine(url)
    assert Ledger(engine, clock).place == place
    engine.dispose()


def deeds(ledger: Ledger) -> list[str]:
    return [line.deed for line in ledger.lines(limit=1000)]


def export(ledger: Ledger, study: str = STUDY) -> str:
    """Take a study all the way; give its job id."""
    ledger.note({study: ledger._clock()}, cursor=1)
    ledger.settle(study, Decision(None), content="c1", instances=2)
    [message] = ledger.outbox()
    ledger.sent(message)
    attempt = ledger.report(report_of(message, State.PROCESSING)).attempt
    made_with = {"key_id": "0" * 16, "profile": "1" * 64, "edition": "2026c", "model": "2" * 64}
    ended = report_of(message, State.EXPORTED, attempt=attempt, instances=2, **made_with)
    assert ledger.report(ended).proceed
    return message.job_id


def test_a_step_says_who_did_what_with_which_model_profile_edition_and_key(ledger: Ledger) -> None:
    job = export(ledger)
    lines = ledger.lines(job_id=job)
    assert [(line.from_state, line.to_state, line.actor) for line in lines] == [
        (None, "watched", "plugin"),
        ("watched", "pending", "plugin"),
        ("pending", "queued", "plugin"),
        ("queued", "processing", "worker-1"),
        ("processing", "exported", "worker-1"),
    ]
    assert lines[-1].details == {
        "revision": 1,
        "attempt": 1,
        "instances": 2,
        "key_id": "0" * 16,
        "profile": "1" * 64,
        "edition": "2026c",
        "model": "2" * 64,
        "content": "c1",
        "proved": 0,
    }
    assert verdict_of(ledger).whole


def test_what_belongs_to_no_study_has_its_lines(ledger: Ledger, clock: FakeClock) -> None:
    ledger.begin({"software": "1", "settings": "3" * 64}, tells=False)
    ledger.announce(announcement_of())
    ledger.announce(announcement_of())
    ledger.announce(announcement_of(statement="Another one."))
    ledger.start_backfill(per_minute=60, total=3, by="anna")
    ledger.stop_backfill("ben")
    ledger.record(Deed.ACTION, by="anna", details={"action": "pause"})
    ledger.record(Deed.STOPPED)
    lines = ledger.lines()
    assert [(line.deed, line.actor) for line in lines] == [
        ("started", "plugin"),
        ("model_taken_up", "worker-1"),
        ("model_taken_up", "worker-1"),
        ("backfill_started", "user anna"),
        ("backfill_stopped", "user ben"),
        ("action", "anna"),
        ("stopped", "plugin"),
    ]
    assert lines[0].details["settings"] == "3" * 64
    assert lines[1].details == {"model": "ab" * 32, "evidence": "untrained"}
    assert {line.job_id for line in lines} == {None}
    assert verdict_of(ledger).whole


def test_a_stopped_handing_out_and_its_end_have_lines(ledger: Ledger) -> None:
    for number in range(LIMITS[Blame.TARGET]):
        study = orthanc_id(str(number))
        ledger.note({study: ledger._clock()}, cursor=1)
        ledger.settle(study, Decision(None), content="c1", instances=1)
        [message] = [one for one in ledger.outbox() if one.study_id == study]
        ledger.sent(message)
        attempt = ledger.report(report_of(message, State.PROCESSING)).attempt
        given_back = report_of(message, State.QUEUED, Reason.TARGET_UNREACHABLE, attempt=attempt)
        assert ledger.report(given_back).proceed
    [line] = [line for line in ledger.lines(limit=1000) if line.deed != Deed.STEP]
    assert (line.deed, line.reason) == ("handing_out_stopped", "target_unreachable")
    assert line.details == {"blame": "target"}


def test_the_database_refuses_to_alter_delete_or_go_back(ledger: Ledger, tmp_path: Path) -> None:
    export(ledger)
    connection = sqlite3.connect(tmp_path / "ledger.sqlite")
    for statement in (
        "UPDATE events SET actor = 'me' WHERE number = 2",
        "UPDATE events SET number = 99 WHERE number = 5",
        "DELETE FROM events WHERE number = 5",
        "DELETE FROM events",
        "UPDATE audit_chain SET number = 1 WHERE name = 'head'",
        "UPDATE audit_chain SET name = 'x' WHERE name = 'head'",
        "DELETE FROM audit_chain",
    ):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute(statement)
    connection.close()
    assert verdict_of(ledger).whole


def test_what_is_altered_past_the_database_shows(ledger: Ledger, tmp_path: Path) -> None:
    export(ledger)
    connection = sqlite3.connect(tmp_path / "ledger.sqlite")
    connection.execute("DROP TRIGGER events_are_not_altered")
    connection.execute("UPDATE events SET actor = 'me' WHERE number = 4")
    connection.commit()
    connection.close()
    assert verdict_of(ledger).broken == 4


def test_many_writers_at_once_make_one_chain(engine: Engine, clock: FakeClock) -> None:
    ready = threading.Barrier(4)

    def write(name: str) -> None:
        ledger = Ledger(engine, clock)
        ready.wait(60)
        for _ in range(25):
            ledger.record(Deed.ACTION, by=name)

    threads = [threading.Thread(target=write, args=(f"user {n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    ledger = Ledger(engine, clock)
    verdict = verdict_of(ledger)
    assert verdict.whole
    assert (verdict.lines, verdict.head.number) == (100, 100)


def test_a_change_that_fails_leaves_neither_itself_nor_a_line(
    ledger: Ledger, clock: FakeClock
) -> None:
    class Broken(Exception):
        pass

    before = ledger.chain_state()
    with pytest.raises(Broken), ledger._writing() as session:
        ledger._add(session, STUDY)
        raise Broken
    assert ledger.chain_state() == before
    assert ledger.studies().total == 0


def test_a_ledger_goes_on_under_a_key(engine: Engine, clock: FakeClock) -> None:
    Ledger(engine, clock).record(Deed.STARTED)
    key = ChainKey("0123456789abcdef", b"k" * 32)
    ledger = Ledger(engine, clock, key)
    ledger.record(Deed.STOPPED)
    assert ledger.chain_state().keyed
    verdict = verdict_of(ledger, key)
    assert verdict.whole
    assert verdict.unkeyed == 1


def test_old_lines_are_deleted_up_to_a_checkpoint_that_the_chain_begins_after(
    ledger: Ledger, clock: FakeClock
) -> None:
    for _ in range(10):
        ledger.record(Deed.ACTION, by="anna")
        clock.move(60)
    fourth = ledger.lines()[3].head
    # The fifth was written four minutes after the first.
    assert ledger.prune(ledger.lines()[4].at, told=None, most=100) == 4
    state = ledger.chain_state()
    assert (state.checkpoint, state.lines, state.head.number) == (fourth, 7, 11)
    last = ledger.lines()[-1]
    before = "2026-03-01T08:04:00"
    assert last.details == {"upto": 4, "digest": fourth.digest, "lines": 4, "before": before}
    assert verdict_of(ledger).whole
    assert ledger.prune(ledger.lines()[0].at, told=None, most=100) == 0
    assert ledger.chain_state().head.number == 11, "nothing was deleted, so nothing is said"


def test_no_line_is_deleted_that_the_syslog_server_has_not_got(
    ledger: Ledger, clock: FakeClock
) -> None:
    for _ in range(5):
        ledger.record(Deed.ACTION)
    clock.move(60)
    assert ledger.prune(clock(), told=2, most=100) == 2
    assert ledger.prune(clock(), told=2, most=100) == 0
    assert ledger.prune(clock(), told=5, most=2) == 2, "so many at a time"
    assert next(line.number for line in ledger.lines()) == 5
    assert verdict_of(ledger).whole


def test_even_all_lines_may_be_due(ledger: Ledger, clock: FakeClock) -> None:
    ledger.record(Deed.STARTED)
    clock.move(60)
    assert ledger.prune(clock(), told=None, most=100) == 1
    assert deeds(ledger) == ["pruned"]
    assert verdict_of(ledger).whole
    assert ledger.prune(clock() + timedelta(seconds=1), told=None, most=100) == 1
    assert verdict_of(ledger).whole


def test_the_chain_state_says_when_the_last_line_is_not_the_head(
    ledger: Ledger, engine: Engine
) -> None:
    assert ledger.chain_state().ends_at_head
    with Session(engine) as session, session.begin():
        session.execute(text("UPDATE audit_chain SET number = 7 WHERE name = 'head'"))
    state = ledger.chain_state()
    assert state.head.number == 7
    assert not state.ends_at_head


def test_what_the_server_was_told_begins_with_the_start_that_named_it(ledger: Ledger) -> None:
    ledger.record(Deed.ACTION)
    assert ledger.told() is None
    ledger.begin({}, tells=True)
    assert ledger.told() == 1
    ledger.note_told(2)
    ledger.begin({}, tells=True)
    assert ledger.told() == 2, "it goes on where it was"


def test_a_new_chain_begins_with_nothing(ledger: Ledger) -> None:
    state = ledger.chain_state()
    assert state.head == state.checkpoint == Head(0, GENESIS)
    assert (state.lines, state.keyed, state.told) == (0, False, None)
