"""What ended in the last hours and days, counted once when it is over."""

from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import OperationalError

from prichexy_plugin.database import open_database
from prichexy_plugin.history import DAY, HOUR, PLOTTED, History, edges
from prichexy_plugin.intake import Decision
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.records import Span
from prichexy_plugin.warming import Warming
from prichexy_testing.fake_orthanc import orthanc_id
from prichexy_testing.plugin_fakes import FakeClock, report_of
from prichexy_worker.contract import State


class CountedLedger(Ledger):
    """Notes which spans it is asked for."""

    def __init__(self, ledger: Ledger, clock: FakeClock) -> None:
        super().__init__(ledger._engine, clock)
        self.asked: list[tuple[datetime, datetime]] = []

    def span(self, begin: datetime, end: datetime) -> Span:
        self.asked.append((begin, end))
        return super().span(begin, end)


def _export(ledger: Ledger, clock: FakeClock, name: str, seconds: float) -> None:
    ledger.note({orthanc_id(name): clock()}, cursor=1)
    ledger.settle(orthanc_id(name), Decision(None), content="c", instances=1)
    clock.move(seconds)
    message = ledger.outbox()[0]
    ledger.report(report_of(message, State.PROCESSING))
    ledger.report(report_of(message, State.EXPORTED, attempt=1))


def test_what_is_over_is_asked_once_and_the_running_hour_always(
    ledger: Ledger, clock: FakeClock
) -> None:
    counted, history = CountedLedger(ledger, clock), History()
    clock.move(DAY.total_seconds() / 2 + 600)
    history.spans(counted, clock(), HOUR, 24)
    history.spans(counted, clock(), DAY, 14)
    assert len(counted.asked) == 24 + 13 + 1, "the running hour for each plot"
    for _ in range(2):
        counted.asked.clear()
        history.spans(counted, clock(), HOUR, 24)
        history.spans(counted, clock(), DAY, 14)
        running = edges(clock(), HOUR, 1)
        assert set(counted.asked) == {running}
        clock.move(59)
    clock.move(2 * HOUR.total_seconds())
    counted.asked.clear()
    history.spans(counted, clock(), HOUR, 24)
    assert len(counted.asked) == 3, "two more are over, one runs"


def test_a_span_that_was_over_is_asked_again_until_its_last_steps_are_written(
    ledger: Ledger, clock: FakeClock
) -> None:
    counted, history = CountedLedger(ledger, clock), History()
    begin, end = edges(clock(), HOUR, 1)
    clock.move((end - clock()).total_seconds() + 59)
    for times in (1, 2):
        history.spans(counted, clock(), HOUR, 2)
        assert counted.asked.count((begin, end)) == times
    clock.move(1)
    for _ in range(2):
        history.spans(counted, clock(), HOUR, 2)
        assert counted.asked.count((begin, end)) == 3


def test_what_the_plots_no_longer_show_is_forgotten(ledger: Ledger, clock: FakeClock) -> None:
    history = History()
    for _ in range(40):
        history.spans(ledger, clock(), HOUR, 24)
        history.spans(ledger, clock(), DAY, 14)
        clock.move(HOUR.total_seconds() * 7)
    assert len(history._over) <= 24 + 14


class FailingLedger(CountedLedger):
    """Fails from the third question on."""

    def span(self, begin: datetime, end: datetime) -> Span:
        if len(self.asked) == 2:
            raise OperationalError("SELECT", {}, Exception("gone"))
        return super().span(begin, end)


def test_what_is_over_is_counted_soon_after_the_ledger_opens_and_a_page_asks_for_the_rest(
    ledger: Ledger, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prichexy_plugin.warming._LOOK_SECONDS", 0.01)
    counted, history = CountedLedger(ledger, clock), History()
    clock.move(DAY.total_seconds() / 2 + 600)
    opened: list[Ledger] = []
    warming = Warming(history, lambda: opened[0] if opened else None, clock)
    warming.start()
    warming.start()
    assert not counted.asked
    opened.append(counted)
    warming._thread.join(300)
    assert len(counted.asked) == len(set(counted.asked)) == 23 + 13
    counted.asked.clear()
    for step, count in PLOTTED:
        history.spans(counted, clock(), step, count)
    assert set(counted.asked) == {edges(clock(), HOUR, 1)}
    warming.stop()


def test_the_counting_beforehand_ends_when_orthanc_does(clock: FakeClock) -> None:
    warming = Warming(History(), lambda: None, clock)
    warming.stop()
    warming.start()
    warming.stop()
    assert not warming._thread.is_alive()


def test_a_ledger_that_fails_while_it_is_counted_beforehand_is_counted_by_the_page(
    ledger: Ledger, clock: FakeClock
) -> None:
    history = History()
    failing = FailingLedger(ledger, clock)
    warming = Warming(history, lambda: failing, clock)
    warming.start()
    warming._thread.join(300)
    assert len(failing.asked) == len(history._over) == 2
    assert len(history.spans(ledger, clock(), HOUR, 24)) == 24


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 30_000), st.booleans()), max_size=8))
def test_days_and_hours_are_what_the_ledger_counts(steps: list[tuple[int, bool]]) -> None:
    engine = open_database("sqlite://")
    clock = FakeClock()
    ledger, history = Ledger(engine, clock), History()
    for number, (seconds, looks) in enumerate(steps):
        _export(ledger, clock, str(number), float(seconds))
        if looks:
            history.spans(ledger, clock(), HOUR, 24)
            history.spans(ledger, clock(), DAY, 14)
    for step, count in ((HOUR, 24), (DAY, 14)):
        wanted = edges(clock(), step, count)
        fresh = tuple(ledger.span(*wanted[place : place + 2]) for place in range(count))
        assert history.spans(ledger, clock(), step, count) == fresh
    engine.dispose()
