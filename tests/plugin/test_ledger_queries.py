"""What the dashboard asks the ledger: pages by key, the audit trail, the last hours."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event, inspect, select
from sqlalchemy.dialects import postgresql

from prichexy_plugin.chain import Deed, Line
from prichexy_plugin.database import open_database
from prichexy_plugin.intake import Decision
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.queries import Mark, StudySearch, TrailSearch, _SecondsBetween
from prichexy_plugin.schema import StudyRow
from prichexy_testing.fake_orthanc import orthanc_id
from prichexy_testing.plugin_fakes import FakeClock, report_of
from prichexy_worker.contract import Reason, State

HOUR = timedelta(hours=1)


def _take_in(ledger: Ledger, clock: FakeClock, name: str, reason: Reason | None = None) -> None:
    ledger.note({orthanc_id(name): clock()}, cursor=1)
    ledger.settle(orthanc_id(name), Decision(reason), content="c", instances=1)


def test_a_mark_is_read_as_it_is_written(clock: FakeClock) -> None:
    clock.move(0.000001)
    mark = Mark(clock(), orthanc_id("a"))
    assert Mark.read(str(mark)) == mark
    for text in ("", "1", ".a", "1.A", "-1.a", "1.a.b", "1" * 18 + ".a"):
        with pytest.raises(ValueError, match="no mark"):
            Mark.read(text)


def test_pages_go_both_ways_over_studies_of_one_moment(ledger: Ledger, clock: FakeClock) -> None:
    for number in range(7):
        _take_in(ledger, clock, str(number), Reason.NO_RULE_MATCHES)
    search = StudySearch(state=State.REJECTED)
    first = ledger.search(search, limit=3)
    assert first.newer is None
    assert first.older is not None
    second = ledger.search(search, limit=3, older_than=first.older)
    assert second.older is not None
    third = ledger.search(search, limit=3, older_than=second.older)
    assert [len(page.studies) for page in (first, second, third)] == [3, 3, 1]
    assert third.older is None
    ids = [study.study_id for page in (first, second, third) for study in page.studies]
    assert len(set(ids)) == 7
    back = ledger.search(search, limit=3, newer_than=third.newer)
    assert back.studies == second.studies
    assert ledger.search(search, limit=3, newer_than=back.newer).studies == first.studies
    assert ledger.count(search, 100) == 7
    assert ledger.count(search, 5) == 5


def test_studies_of_a_target_are_one_list_whatever_else_each_goes_to(
    ledger: Ledger, clock: FakeClock
) -> None:
    ways = (("archive",), ("archive", "research"), ("research",), (), ("archive-2",))
    for number in range(15):
        clock.move(1)
        ledger.note({orthanc_id(str(number)): clock()}, cursor=1)
        decision = Decision(None, targets=ways[number % 5])
        ledger.settle(orthanc_id(str(number)), decision, content="c", instances=1)
    for message in ledger.outbox()[::2]:
        ledger.sent(message)
    held = next(one for one in ledger.outbox() if "archive" in one.targets)
    ledger.report(report_of(held, State.PROCESSING))
    ledger.report(report_of(held, State.QUARANTINED, Reason.FOLDS, attempt=1))
    every = ledger.search(StudySearch(), limit=100).studies
    for search, count in (
        (StudySearch(target="archive"), 6),
        (StudySearch(target="research", since=clock()), None),
        (StudySearch(target="nowhere"), 0),
        (StudySearch(target="archive", name=every[0].job_id[0]), None),
        (StudySearch(target="archive", state=State.QUEUED), None),
        (StudySearch(target="archive", reason=Reason.FOLDS), 1),
    ):
        state, name = search.state, search.name
        wanted = [
            study
            for study in every
            if search.target in study.targets
            and (state is None or study.state is state)
            and search.reason in (None, study.reason)
            and (study.job_id.startswith(name) or study.study_id.startswith(name))
            and (search.since is None or study.updated >= search.since)
        ]
        assert count in (None, len(wanted))
        found, page = [], ledger.search(search, limit=2)
        found += page.studies
        while page.older is not None:
            before = page
            page = ledger.search(search, limit=2, older_than=page.older)
            found += page.studies
            assert ledger.search(search, limit=2, newer_than=page.newer).studies == before.studies
        assert found == wanted
        assert ledger.count(search, 100) == len(wanted)
        assert ledger.count(search, 2) == min(2, len(wanted))


@pytest.mark.parametrize(
    "search",
    [
        StudySearch(target="seldom"),
        StudySearch(target="seldom", state=State.EXPORTED),
        StudySearch(target="seldom", reason=Reason.FOLDS),
        StudySearch(name="0" * 10, state=State.EXPORTED),
        StudySearch(name="00", reason=Reason.FOLDS, target="seldom"),
        StudySearch(unproved=True, state=State.EXPORTED),
        TrailSearch(actor="user nobody"),
        TrailSearch(actor="user nobody", state=State.EXPORTED),
        TrailSearch(actor="user nobody", since=datetime(2026, 1, 1, tzinfo=UTC)),
        TrailSearch(actor="plugin", state=State.EXPORTED),
        TrailSearch(reason=Reason.FOLDS),
        TrailSearch(reason=Reason.FOLDS, state=State.REJECTED, deed=Deed.STEP),
        TrailSearch(reason=Reason.FOLDS, actor="plugin"),
        TrailSearch(reason=Reason.FOLDS, since=datetime(2026, 1, 1, tzinfo=UTC)),
        TrailSearch(reason=Reason.FOLDS, job_id="0" * 32),
    ],
    ids=str,
)
def test_what_is_not_there_is_sought_by_an_index_made_for_it(
    clock: FakeClock, search: StudySearch | TrailSearch
) -> None:
    engine = open_database("sqlite://")
    ledger = Ledger(engine, clock)
    _take_in(ledger, clock, "a")
    with engine.begin() as connection:
        connection.exec_driver_sql("""UPDATE studies SET targets = '["seldom"]'""")
    asked: list[tuple[str, Any]] = []

    @event.listens_for(engine, "before_cursor_execute")
    def _note(_connection: object, _cursor: object, statement: str, values: Any, *_: Any) -> None:
        if re.search("FROM (studies|events)", statement):
            asked.append((statement, values))

    if isinstance(search, TrailSearch):
        ledger.trail(search, limit=10)
    else:
        ledger.search(search, limit=10)
        ledger.count(search, 10)
    event.remove(engine, "before_cursor_execute", _note)
    assert asked
    with engine.connect() as connection:
        for statement, values in asked:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).all()
            used = [line[3] for line in plan if re.search("(studies|events) USING", line[3])]
            assert used, plan
            for line in used:
                assert not re.search(
                    "INDEX (studies_by_(state_and_time|time|reason)|events_by_step)", line
                )
                assert line.startswith("SEARCH"), plan
                if isinstance(search, TrailSearch) and "events.reason" in statement:
                    assert ("ix_events_job_id" if search.job_id else "by_reason (reason=?") in line
    engine.dispose()


def test_an_older_ledger_gets_the_indices_of_now(tmp_path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.sqlite"
    wanted = {"studies_by_time", "studies_by_reason", "studies_by_state_and_time"}
    engine = open_database(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP INDEX studies_by_time")
        connection.exec_driver_sql("DROP INDEX studies_by_reason")
    engine.dispose()
    engine = open_database(url)
    assert wanted <= {index["name"] for index in inspect(engine).get_indexes("studies")}
    engine.dispose()


def test_what_ended_in_an_hour_is_counted_with_the_time_it_took(
    ledger: Ledger, clock: FakeClock
) -> None:
    begin = clock()
    for name, seconds in (("a", 90.0), ("b", 12.5)):
        _take_in(ledger, clock, name)
        clock.move(seconds)
        message = ledger.outbox()[0]
        ledger.report(report_of(message, State.PROCESSING))
        ledger.report(report_of(message, State.EXPORTED, attempt=1))
    _take_in(ledger, clock, "c")
    clock.move(3600)
    message = ledger.outbox()[0]
    ledger.report(report_of(message, State.PROCESSING))
    assert ledger.working() == {"worker-1": 1}
    assert ledger.oldest_waiting() is None
    ledger.report(report_of(message, State.QUARANTINED, Reason.COLOUR, attempt=1))
    first, second = ledger.span(begin, begin + HOUR), ledger.span(begin + HOUR, begin + 2 * HOUR)
    assert first.ended == {State.EXPORTED: 2}
    assert first.seconds == pytest.approx([12.5, 90.0], abs=0.01)
    assert (second.ended, second.seconds) == ({State.QUARANTINED: 1}, ())


def test_seconds_between_moments_are_asked_of_postgresql_in_its_words() -> None:
    took = select(_SecondsBetween(StudyRow.updated, StudyRow.first_seen))
    text = str(took.compile(dialect=postgresql.dialect()))
    assert "EXTRACT(EPOCH FROM (studies.updated - studies.first_seen))" in text


def test_the_trail_is_searched_and_paged_by_its_numbers(ledger: Ledger, clock: FakeClock) -> None:
    for name in ("a", "b"):
        _take_in(ledger, clock, name, Reason.NO_RULE_MATCHES)
        clock.move(3600)
    job = ledger.studies(study_id=orthanc_id("a")).studies[0].job_id
    ledger.again(job, revision=1, actor="user omar")
    every = ledger.trail(TrailSearch(), limit=100)
    numbers = [line.number for line in every]
    assert len(every) == 5
    assert numbers == sorted(numbers, reverse=True)
    assert ledger.trail(TrailSearch(), limit=2, before=numbers[1]) == every[2:4]
    assert ledger.trail(TrailSearch(), limit=2, after=numbers[3]) == every[1:3]

    def found(**wanted: object) -> int:
        return len(ledger.trail(TrailSearch(**wanted), limit=100))  # type: ignore[arg-type]

    assert found(actor="user omar") == 1
    assert found(job_id=job) == 3
    assert found(state=State.WATCHED) == 2
    assert found(since=clock() - HOUR) == 3
    assert found(until=clock() - HOUR) == 2


def test_the_trail_is_searched_by_a_persons_name_as_people_write_it_and_by_reason(
    ledger: Ledger, clock: FakeClock
) -> None:
    for name in ("a", "b"):
        _take_in(ledger, clock, name, Reason.NO_RULE_MATCHES)
    job = ledger.studies(study_id=orthanc_id("a")).studies[0].job_id
    ledger.again(job, revision=1, actor="user omar")

    def found(**wanted: object) -> int:
        return len(ledger.trail(TrailSearch(**wanted), limit=100))  # type: ignore[arg-type]

    ledger.record(Deed.ACTION, by="User Omar")
    ledger.record(Deed.ACTION, by="omar")
    ledger.record(Deed.ACTION, by="user omar2")
    assert found(actor="omar") == found(actor="OMAR") == 3
    assert found(actor="user omar") == found(actor="USER OMAR") == 2
    assert found(actor="oma") == found(actor="user") == found(actor="%") == 0
    names = TrailSearch(actor="omar")
    first = ledger.trail(names, limit=2)
    assert [line.actor for line in first if isinstance(line, Line)] == ["omar", "User Omar"]
    [last] = ledger.trail(names, limit=2, before=first[-1].number)
    assert isinstance(last, Line)
    assert last.actor == "user omar"
    assert ledger.trail(names, limit=2, after=last.number) == first
    assert found(reason=Reason.NO_RULE_MATCHES) == 3
    assert found(reason=Reason.NO_RULE_MATCHES, actor="omar", job_id=job) == 1
    assert found(reason=Reason.NO_RULE_MATCHES, actor="plugin", state=State.REJECTED) == 2
    assert found(reason=Reason.NO_RULE_MATCHES, state=State.WATCHED) == 0
    assert found(reason=Reason.FOLDS) == 0
