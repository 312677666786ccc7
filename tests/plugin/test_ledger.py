"""The ledger: one owner of every study's state."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from prichexy_plugin.database import ForeignLedger, open_database
from prichexy_plugin.intake import Decision
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.schema import SCHEMA_VERSION, FactRow
from prichexy_testing.fake_orthanc import orthanc_id
from prichexy_testing.plugin_fakes import FakeClock, announcement_of, report_of
from prichexy_worker.contract import (
    ANNOUNCE_INTERVAL_SECONDS,
    MAX_ATTEMPTS,
    MAX_CLAIMS,
    REPORTABLE,
    Claim,
    Reason,
    State,
    StudyMessage,
)

STUDY = orthanc_id("a")
TAKEN = Decision(None)


def _take_in(ledger: Ledger, clock: FakeClock, content: str = "c1") -> StudyMessage:
    ledger.note({STUDY: clock()}, cursor=1)
    ledger.settle(STUDY, TAKEN, content=content, instances=2)
    return ledger.outbox()[0]


def _state(ledger: Ledger) -> State:
    return ledger.studies().studies[0].state


def test_a_study_goes_its_whole_way_and_every_step_is_in_the_trail(
    ledger: Ledger, clock: FakeClock
) -> None:
    message = _take_in(ledger, clock)
    clock.move(1)
    ledger.sent(message)
    clock.move(1)
    assert ledger.report(report_of(message, State.PROCESSING)).proceed
    clock.move(5)
    done = report_of(
        message,
        State.EXPORTED,
        attempt=1,
        instances=2,
        durations={"deform": 1.5, "export": 0.5},
        measures={"psnr_db": 40.0},
        key_id="0123456789abcdef",
        profile="a" * 64,
    )
    ledger.report(done)
    study = ledger.study(message.job_id)
    assert study is not None
    assert study.state is State.EXPORTED
    assert study.attempts == 1
    assert study.instances == 2
    assert study.worker_id == "worker-1"
    assert study.durations == {"deform": 1.5, "export": 0.5}
    assert study.measures == {"psnr_db": 40.0}
    assert (study.key_id, study.profile) == ("0123456789abcdef", "a" * 64)
    assert study.updated - study.first_seen == timedelta(seconds=7)
    trail = [
        (event.from_state, event.to_state, event.actor) for event in ledger.events(study.job_id)
    ]
    assert trail == [
        (None, State.WATCHED, "plugin"),
        (State.WATCHED, State.PENDING, "plugin"),
        (State.PENDING, State.QUEUED, "plugin"),
        (State.QUEUED, State.PROCESSING, "worker-1"),
        (State.PROCESSING, State.EXPORTED, "worker-1"),
    ]


def test_what_was_noted_is_there_after_the_program_was_killed(
    open_ledger_database: Callable[[], Engine], clock: FakeClock
) -> None:
    message = _take_in(Ledger(open_ledger_database(), clock), clock)
    # No closing of the first: as after kill -9.
    again = Ledger(open_ledger_database(), clock)
    assert again.outbox() == (message,)
    assert again.cursor() == 1


def test_a_study_not_taken_in_is_recorded_with_the_reason(ledger: Ledger, clock: FakeClock) -> None:
    ledger.note({STUDY: clock()}, cursor=1)
    ledger.settle(STUDY, Decision(Reason.NO_RULE_MATCHES), content="", instances=3)
    study = ledger.studies().studies[0]
    assert (study.state, study.reason, study.instances) == (
        State.REJECTED,
        Reason.NO_RULE_MATCHES,
        3,
    )
    assert ledger.outbox() == ()


def test_the_same_content_again_changes_nothing(ledger: Ledger, clock: FakeClock) -> None:
    message = _take_in(ledger, clock)
    ledger.sent(message)
    ledger.note({STUDY: clock()}, cursor=2)
    ledger.settle(STUDY, TAKEN, content="c1", instances=2)
    assert ledger.outbox() == ()
    assert _state(ledger) is State.QUEUED
    assert ledger.due() == ()


@pytest.mark.parametrize("end", [State.EXPORTED, State.QUARANTINED, State.FAILED])
def test_a_late_instance_makes_a_new_revision(ledger: Ledger, clock: FakeClock, end: State) -> None:
    first = _take_in(ledger, clock)
    ledger.report(report_of(first, State.PROCESSING))
    ledger.report(report_of(first, end, attempt=1))
    second = _take_in(ledger, clock, content="c2")
    assert second.job_id == first.job_id
    assert second.revision == first.revision + 1
    study = ledger.study(first.job_id)
    assert study is not None
    assert (study.state, study.attempts, study.durations) == (State.PENDING, 0, {})


def test_a_report_on_an_older_revision_is_void(ledger: Ledger, clock: FakeClock) -> None:
    first = _take_in(ledger, clock)
    assert ledger.report(report_of(first, State.PROCESSING)).proceed
    second = _take_in(ledger, clock, content="c2")
    assert not ledger.report(report_of(first, State.EXPORTED, attempt=1)).proceed
    assert not ledger.report(report_of(first, State.PROCESSING)).proceed
    assert ledger.outbox() == (second,)


def test_a_message_sent_twice_is_dropped_by_the_second_worker_once_it_ended(
    ledger: Ledger, clock: FakeClock
) -> None:
    message = _take_in(ledger, clock)
    ledger.report(report_of(message, State.PROCESSING))
    ledger.report(report_of(message, State.EXPORTED, attempt=1))
    assert not ledger.report(report_of(message, State.PROCESSING, worker_id="worker-2")).proceed
    assert _state(ledger) is State.EXPORTED


def test_a_claim_may_overtake_the_note_that_the_message_was_sent(
    ledger: Ledger, clock: FakeClock
) -> None:
    message = _take_in(ledger, clock)
    assert ledger.report(report_of(message, State.PROCESSING)).proceed
    ledger.sent(message)
    assert _state(ledger) is State.PROCESSING


def test_a_study_that_kills_its_workers_is_given_up(ledger: Ledger, clock: FakeClock) -> None:
    message = _take_in(ledger, clock)
    for number in range(1, MAX_CLAIMS + 1):
        claim = ledger.report(report_of(message, State.PROCESSING))
        left = max(0, MAX_ATTEMPTS + 1 - number)
        assert claim == Claim(True, number, left, final=number == MAX_CLAIMS)
    assert not ledger.report(report_of(message, State.PROCESSING)).proceed
    study = ledger.study(message.job_id)
    assert study is not None
    assert (study.state, study.reason) == (State.FAILED, Reason.TOO_MANY_ATTEMPTS)
    assert study.attempts == MAX_CLAIMS


def test_a_study_given_up_tells_the_last_trouble(ledger: Ledger, clock: FakeClock) -> None:
    message = _take_in(ledger, clock)
    for number in range(1, MAX_ATTEMPTS + 1):
        ledger.report(report_of(message, State.PROCESSING))
        back = report_of(message, State.QUEUED, Reason.TARGET_UNREACHABLE, attempt=number)
        assert ledger.report(back).proceed
    ledger.report(report_of(message, State.PROCESSING))
    given_up = report_of(message, State.FAILED, Reason.TOO_MANY_ATTEMPTS, attempt=MAX_ATTEMPTS + 1)
    assert ledger.report(given_up).proceed
    study = ledger.study(message.job_id)
    assert study is not None
    assert study.state is State.FAILED
    assert study.reason_sentence is not None
    assert Reason.TOO_MANY_ATTEMPTS.sentence in study.reason_sentence
    assert Reason.TARGET_UNREACHABLE.sentence in study.reason_sentence


@pytest.mark.parametrize("state", [State.EXPORTED, State.QUARANTINED, State.FAILED, State.QUEUED])
def test_nothing_ends_that_no_worker_claimed(
    ledger: Ledger, clock: FakeClock, state: State
) -> None:
    message = _take_in(ledger, clock)
    for attempt in (0, 1):
        assert not ledger.report(report_of(message, state, attempt=attempt)).proceed
    assert _state(ledger) is State.PENDING


def test_a_report_on_an_unknown_job_is_void(ledger: Ledger) -> None:
    unknown = StudyMessage(job_id="0" * 32, study_id=STUDY, revision=1)
    assert not ledger.report(report_of(unknown, State.PROCESSING)).proceed
    assert ledger.studies().total == 0


def test_a_study_deleted_before_its_end_is_recorded_as_gone(
    ledger: Ledger, clock: FakeClock
) -> None:
    message = _take_in(ledger, clock)
    ledger.gone(STUDY)
    study = ledger.studies().studies[0]
    assert (study.state, study.reason) == (State.REJECTED, Reason.GONE)
    assert not ledger.report(report_of(message, State.PROCESSING)).proceed


def test_a_study_deleted_after_its_export_stays_exported(ledger: Ledger, clock: FakeClock) -> None:
    message = _take_in(ledger, clock)
    ledger.report(report_of(message, State.PROCESSING))
    ledger.report(report_of(message, State.EXPORTED, attempt=1))
    ledger.note({STUDY: clock()}, cursor=3)
    ledger.gone(STUDY)
    assert _state(ledger) is State.EXPORTED
    assert ledger.due() == ()


def test_what_a_broker_lost_is_put_back_into_the_outbox(ledger: Ledger, clock: FakeClock) -> None:
    message = _take_in(ledger, clock)
    ledger.sent(message)
    clock.move(60)
    assert ledger.recall(timedelta(minutes=5)) == 0
    clock.move(300)
    assert ledger.recall(timedelta(minutes=5)) == 1
    assert ledger.outbox() == (message,)


def test_an_end_is_taken_from_a_worker_that_was_thought_dead(
    ledger: Ledger, clock: FakeClock
) -> None:
    message = _take_in(ledger, clock)
    ledger.report(report_of(message, State.PROCESSING))
    clock.move(600)
    ledger.recall(timedelta(minutes=5))
    assert ledger.report(report_of(message, State.EXPORTED, attempt=1)).proceed
    assert _state(ledger) is State.EXPORTED


def test_the_claim_of_a_second_worker_voids_all_that_the_first_one_reports(
    ledger: Ledger, clock: FakeClock
) -> None:
    message = _take_in(ledger, clock)
    assert ledger.report(report_of(message, State.PROCESSING)) == Claim(True, attempt=1)
    second = report_of(message, State.PROCESSING, worker_id="worker-2")
    assert ledger.report(second) == Claim(True, attempt=2, left=MAX_ATTEMPTS - 1)
    for state in REPORTABLE:
        late = report_of(message, state, Reason.UNEXPECTED, attempt=1)
        assert ledger.report(late) == Claim(proceed=False)
    study = ledger.study(message.job_id)
    assert study is not None
    assert (study.state, study.worker_id) == (State.PROCESSING, "worker-2")
    end = report_of(message, State.EXPORTED, attempt=2, worker_id="worker-2")
    assert ledger.report(end) == Claim(True, attempt=2)


def test_asking_whether_a_claim_holds_changes_nothing(ledger: Ledger, clock: FakeClock) -> None:
    message = _take_in(ledger, clock)
    ledger.report(report_of(message, State.PROCESSING))
    before, trail = ledger.study(message.job_id), ledger.events(message.job_id)
    clock.move(60)
    asks = report_of(message, State.PROCESSING, attempt=1)
    assert ledger.report(asks) == Claim(True, attempt=1)
    assert not ledger.report(report_of(message, State.PROCESSING, attempt=2)).proceed
    assert ledger.study(message.job_id) == before
    assert ledger.events(message.job_id) == trail


def test_an_end_whose_answer_was_lost_may_be_reported_again(
    ledger: Ledger, clock: FakeClock
) -> None:
    message = _take_in(ledger, clock)
    ledger.report(report_of(message, State.PROCESSING))
    end = report_of(message, State.EXPORTED, attempt=1)
    assert ledger.report(end) == Claim(True, attempt=1)
    trail = ledger.events(message.job_id)
    assert ledger.report(end) == Claim(True, attempt=1)
    assert ledger.events(message.job_id) == trail
    assert not ledger.report(report_of(message, State.FAILED, attempt=1)).proceed
    assert not ledger.report(report_of(message, State.PROCESSING, attempt=1)).proceed


def test_what_a_living_worker_has_claimed_is_left_with_it(ledger: Ledger, clock: FakeClock) -> None:
    message = _take_in(ledger, clock)
    ledger.sent(message)
    ledger.report(report_of(message, State.PROCESSING))
    clock.move(3 * 3600)
    ledger.announce(announcement_of("worker-1"))
    clock.move(ANNOUNCE_INTERVAL_SECONDS * 3)
    assert ledger.recall(timedelta(hours=2)) == 0
    clock.move(ANNOUNCE_INTERVAL_SECONDS * 3)
    assert ledger.recall(timedelta(hours=2)) == 1


def test_a_study_whose_worker_fell_silent_goes_to_another_one_soon(
    ledger: Ledger, clock: FakeClock
) -> None:
    message = _take_in(ledger, clock)
    ledger.sent(message)
    ledger.announce(announcement_of("worker-1"))
    ledger.report(report_of(message, State.PROCESSING))
    clock.move(ANNOUNCE_INTERVAL_SECONDS * 5)
    ledger.announce(announcement_of("worker-1"))
    assert ledger.recall_orphans() == 0
    clock.move(ANNOUNCE_INTERVAL_SECONDS * 5)
    ledger.announce(announcement_of("worker-2"))
    assert ledger.recall_orphans() == 1
    assert ledger.outbox() == (message,)
    second = report_of(message, State.PROCESSING, worker_id="worker-2")
    assert ledger.report(second) == Claim(True, attempt=2, left=MAX_ATTEMPTS - 1)
    assert not ledger.report(report_of(message, State.EXPORTED, attempt=1)).proceed


def test_a_worker_started_anew_under_the_same_name_keeps_a_forgotten_study_a_day_at_most(
    ledger: Ledger, clock: FakeClock
) -> None:
    message = _take_in(ledger, clock)
    ledger.sent(message)
    ledger.report(report_of(message, State.PROCESSING))
    clock.move(24 * 3600 + 1)
    ledger.announce(announcement_of("worker-1"))
    assert ledger.recall(timedelta(hours=2)) == 1


def test_a_study_noted_while_the_clock_was_ahead_is_looked_at_when_it_is_right_again(
    ledger: Ledger, clock: FakeClock
) -> None:
    ledger.note({STUDY: clock() + timedelta(days=1)}, cursor=1)
    assert ledger.due() == (STUDY,)
    ledger.look_later(STUDY, clock() + timedelta(hours=1))
    assert ledger.due() == ()


def test_a_worker_that_died_while_the_clock_was_ahead_is_found_dead_when_it_is_right_again(
    ledger: Ledger, clock: FakeClock
) -> None:
    clock.move(86_400)
    message = _take_in(ledger, clock)
    ledger.sent(message)
    ledger.announce(announcement_of("worker-1"))
    ledger.report(report_of(message, State.PROCESSING))
    clock.move(-86_400)
    assert ledger.takers(clock()) == {}, "it has not announced itself since"
    assert ledger.recall_orphans() == 1


def test_what_a_broker_lost_while_the_clock_was_ahead_is_put_back_when_it_is_right_again(
    ledger: Ledger, clock: FakeClock
) -> None:
    clock.move(86_400)
    ledger.sent(_take_in(ledger, clock))
    clock.move(-86_400)
    assert len(ledger.silent_jobs(timedelta(hours=2))) == 1
    assert ledger.recall(timedelta(hours=2)) == 1


def test_a_study_sent_again_and_again_that_no_worker_claims_is_given_up(
    ledger: Ledger, clock: FakeClock
) -> None:
    message = _take_in(ledger, clock)
    for _ in range(MAX_ATTEMPTS - 1):
        ledger.sent(message)
        clock.move(3600)
        assert ledger.recall(timedelta(minutes=5)) == 1
    ledger.sent(message)
    clock.move(3600)
    assert ledger.recall(timedelta(minutes=5)) == 0
    study = ledger.study(message.job_id)
    assert study is not None
    assert (study.state, study.reason) == (State.FAILED, Reason.TOO_MANY_ATTEMPTS)
    assert ledger.outbox() == ()


def test_a_claim_begins_the_count_of_sendings_anew(ledger: Ledger, clock: FakeClock) -> None:
    message = _take_in(ledger, clock)
    for _ in range(MAX_ATTEMPTS):
        ledger.sent(message)
        ledger.report(report_of(message, State.PROCESSING))
        clock.move(3600)
        assert ledger.recall(timedelta(minutes=5)) == 1


def test_lists_are_filtered_paged_and_counted(ledger: Ledger, clock: FakeClock) -> None:
    for number in range(5):
        clock.move(1)
        ledger.note({orthanc_id(str(number)): clock()}, cursor=number)
    for number in (1, 3):
        ledger.settle(orthanc_id(str(number)), TAKEN, content="c", instances=1)
    assert ledger.counts()[State.WATCHED] == 3
    assert ledger.counts()[State.PENDING] == 2
    assert ledger.counts()[State.FAILED] == 0
    page = ledger.studies(state=State.WATCHED, limit=2, offset=1)
    assert page.total == 3
    assert [study.study_id for study in page.studies] == [orthanc_id("2"), orthanc_id("0")]
    assert ledger.studies(study_id=orthanc_id("4")).total == 1
    assert ledger.studies(study_id=ledger.studies().studies[0].job_id).total == 1


def test_only_what_is_due_is_looked_at_the_longest_due_first(
    ledger: Ledger, clock: FakeClock
) -> None:
    first, second, later = (orthanc_id(name) for name in "abc")
    minute = timedelta(minutes=1)
    ledger.note(
        {second: clock() - minute, first: clock() - 2 * minute, later: clock() + minute}, cursor=1
    )
    assert ledger.due() == (first, second)
    ledger.look_later(first, clock() + minute)
    assert ledger.due() == (second,)


def test_a_worker_is_remembered_by_its_last_announcement_and_forgotten_after_a_day(
    ledger: Ledger, clock: FakeClock
) -> None:
    ledger.announce(announcement_of("old"))
    clock.move(3600 * 20)
    ledger.announce(announcement_of("new", statement="first"))
    ledger.announce(announcement_of("new", statement="second"))
    assert [one.announcement.worker_id for one in ledger.workers()] == ["new", "old"]
    assert ledger.workers()[0].announcement.model.statement == "second"
    clock.move(3600 * 5)
    ledger.announce(announcement_of("new"))
    assert [one.announcement.worker_id for one in ledger.workers()] == ["new"]


def test_only_its_owner_may_read_the_ledgers_file(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path}/deep/ledger.sqlite")
    engine.dispose()
    assert stat.S_IMODE((tmp_path / "deep" / "ledger.sqlite").stat().st_mode) == 0o600


def _database(path: Path, *statements: str) -> str:
    """Run statements on a database file; give its address."""
    connection = sqlite3.connect(path)
    with connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()
    return f"sqlite:///{path}"


def _tables(path: Path) -> set[str]:
    connection = sqlite3.connect(path)
    found = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
    connection.close()
    return found


@pytest.mark.parametrize(
    ("version", "said"), [(SCHEMA_VERSION + 1, "newer software"), (0, "older software")]
)
def test_a_ledger_of_another_schema_is_refused_by_number_and_left_alone(
    tmp_path: Path, version: int, said: str
) -> None:
    path = tmp_path / "ledger.sqlite"
    facts = "CREATE TABLE facts (name TEXT PRIMARY KEY, number INTEGER NOT NULL)"
    url = _database(path, facts, f"INSERT INTO facts VALUES ('schema', {version})")
    before = _tables(path)
    with pytest.raises(ForeignLedger, match=rf"^is of schema {version}, which {said} wrote; this "):
        open_database(url)
    assert _tables(path) == before


@pytest.mark.parametrize("table", ["studies", "facts"])
def test_a_ledger_that_names_no_schema_is_refused_and_left_alone(
    tmp_path: Path, table: str
) -> None:
    path = tmp_path / "ledger.sqlite"
    url = _database(path, f"CREATE TABLE {table} (name TEXT PRIMARY KEY, number INTEGER)")
    before = _tables(path)
    with pytest.raises(ForeignLedger, match=r"^is of an unknown schema; this "):
        open_database(url)
    assert _tables(path) == before


def test_a_ledger_is_opened_again_and_may_stand_beside_other_tables(tmp_path: Path) -> None:
    url = _database(tmp_path / "ledger.sqlite", "CREATE TABLE somebody_elses (x)")
    for _ in range(2):
        engine = open_database(url)
        with Session(engine) as session:
            assert session.get_one(FactRow, "schema").number == SCHEMA_VERSION
        engine.dispose()


def test_a_database_error_names_no_value(tmp_path: Path, clock: FakeClock) -> None:
    engine = open_database(f"sqlite:///{tmp_path}/ledger.sqlite")
    with Session(engine) as session, session.begin():
        session.connection().exec_driver_sql("DROP TABLE studies")
    with pytest.raises(OperationalError) as caught:
        Ledger(engine, clock).note({STUDY: clock()}, cursor=1)
    engine.dispose()
    assert STUDY not in str(caught.value)


def test_a_study_is_sent_with_the_targets_of_its_newest_revision(
    ledger: Ledger, clock: FakeClock
) -> None:
    ledger.note({STUDY: clock()}, cursor=1)
    ledger.settle(STUDY, Decision(None, ("archive", "research")), content="c1", instances=1)
    (message,) = ledger.outbox()
    assert message.targets == ("archive", "research")
    assert ledger.studies().studies[0].targets == message.targets
    ledger.settle(STUDY, TAKEN, content="c2", instances=2)
    (message,) = ledger.outbox()
    assert (message.revision, message.targets) == (2, ())


@pytest.mark.parametrize(
    ("left", "told"), [(0, ""), (1, "left at an export target:"), (2, "left at 2 export targets:")]
)
def test_people_are_told_where_something_of_a_study_may_be_left(
    ledger: Ledger, clock: FakeClock, left: int, told: str
) -> None:
    message = _take_in(ledger, clock)
    ledger.report(report_of(message, State.PROCESSING))
    measures = {"targets_not_withdrawn": float(left)} if left else {}
    ledger.report(
        report_of(message, State.QUARANTINED, Reason.COLOUR, attempt=1, measures=measures)
    )
    sentence = ledger.studies().studies[0].reason_sentence
    assert sentence is not None
    assert sentence.startswith(Reason.COLOUR.sentence)
    assert told in sentence
    assert (sentence == Reason.COLOUR.sentence) == (left == 0)


def test_people_are_told_where_an_earlier_export_may_be_left(
    ledger: Ledger, clock: FakeClock
) -> None:
    message = _take_in(ledger, clock)
    ledger.report(report_of(message, State.PROCESSING))
    measures = {"targets_not_withdrawn": 1.0, "targets_unproved": 0.0}
    ledger.report(
        report_of(message, State.EXPORTED, attempt=1, measures=measures, left_at=("old",))
    )
    [study] = ledger.studies().studies
    assert study.reason_sentence == (
        "Exported. An earlier export may be left at old, to which the study does not go."
    )
    assert study.proved


def test_a_study_that_is_turned_away_has_no_targets(ledger: Ledger, clock: FakeClock) -> None:
    ledger.note({STUDY: clock()}, cursor=1)
    ledger.settle(STUDY, Decision(None, ("research",)), content="c1", instances=1)
    ledger.settle(STUDY, Decision(Reason.OWN_OUTPUT), content="", instances=1)
    assert ledger.studies().studies[0].targets == ()
