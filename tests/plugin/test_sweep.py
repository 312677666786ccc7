"""Whatever a study waits for, it is shown when it waits for unusually long, with the cause."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine

from prichexy_plugin.intake import Decision
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.sweep import PATIENCE, Cause, Late, Surroundings, Waiting, cause_of, grouped
from prichexy_plugin.transitions import ACTIVE
from prichexy_testing.fake_orthanc import orthanc_id
from prichexy_testing.plugin_fakes import FakeClock, announcement_of, report_of
from prichexy_worker.contract import ENDED, Reason, State

NOW = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
AROUND = Surroundings(NOW, held=False, broker_reachable=True, living=frozenset({"worker-1"}))
UNSERVED = replace(AROUND, served=frozenset({""}), named=frozenset({""}))
HOURS = timedelta(hours=3)


def _waiting(state: State, since: datetime = NOW - HOURS, **changes: object) -> Waiting:
    study = Waiting(
        job_id="a" * 32,
        study_id=orthanc_id("a"),
        state=state,
        reason=None,
        since=since,
        look_at=None,
        failed_looks=0,
        worker_id="worker-1",
    )
    return replace(study, **changes)  # type: ignore[arg-type]


def test_each_state_that_is_no_end_has_its_patience() -> None:
    assert set(PATIENCE) == ACTIVE


@pytest.mark.parametrize(
    ("study", "around", "cause"),
    [
        (_waiting(State.WATCHED, failed_looks=2, look_at=NOW), AROUND, Cause.UNREADABLE),
        (_waiting(State.WATCHED, look_at=NOW + HOURS), AROUND, Cause.STILL_ARRIVING),
        (_waiting(State.WATCHED, look_at=NOW - HOURS), AROUND, Cause.WATCHER_BEHIND),
        (_waiting(State.WATCHED), AROUND, Cause.WATCHER_BEHIND),
        (_waiting(State.PENDING), replace(AROUND, held=True), Cause.HELD),
        (_waiting(State.PENDING), replace(AROUND, broker_reachable=False), Cause.BROKER_AWAY),
        (_waiting(State.PENDING), replace(AROUND, living=frozenset()), Cause.NO_WORKER),
        (_waiting(State.PENDING), AROUND, Cause.BEHIND_OTHERS),
        (_waiting(State.PENDING, queue="gpu"), UNSERVED, Cause.QUEUE_OF_NO_RULE),
        (_waiting(State.QUEUED, queue="gpu"), UNSERVED, Cause.QUEUE_OF_NO_RULE),
        (
            _waiting(State.PENDING, queue="gpu"),
            replace(UNSERVED, named=frozenset({"", "gpu"})),
            Cause.NO_WORKER,
        ),
        (
            _waiting(State.PENDING, queue="gpu"),
            replace(UNSERVED, served=frozenset({"gpu"})),
            Cause.BEHIND_OTHERS,
        ),
        (_waiting(State.QUEUED), AROUND, Cause.BEHIND_OTHERS),
        (_waiting(State.QUEUED), replace(AROUND, living=frozenset()), Cause.NO_WORKER),
        (_waiting(State.QUEUED), replace(AROUND, held=True), Cause.HELD),
        (_waiting(State.PROCESSING), AROUND, Cause.WORKER_SLOW),
        (_waiting(State.PROCESSING, worker_id="gone"), AROUND, Cause.WORKER_SILENT),
    ],
)
def test_a_late_study_has_its_cause(study: Waiting, around: Surroundings, cause: Cause) -> None:
    assert cause_of(study, around) is cause
    assert cause.sentence


@given(
    st.sampled_from(sorted(State)),
    st.integers(0, 10**6),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_a_study_is_late_exactly_when_its_states_patience_is_over(
    state: State, seconds: int, held: bool, reachable: bool, alive: bool
) -> None:
    living = frozenset({"worker-1"}) if alive else frozenset()
    study = _waiting(state, since=NOW - timedelta(seconds=seconds))
    cause = cause_of(study, Surroundings(NOW, held, reachable, living))
    late = state not in ENDED and timedelta(seconds=seconds) > PATIENCE[state]
    assert (cause is not None) is late


def test_late_ones_are_put_together_with_the_oldest_first() -> None:
    young, old = _waiting(State.QUEUED), _waiting(State.QUEUED, since=NOW - 2 * HOURS)
    other = _waiting(State.PROCESSING, since=NOW - 3 * HOURS)
    late = [Late(one, Cause.BEHIND_OTHERS) for one in (young, old)]
    groups = grouped([*late, Late(other, Cause.WORKER_SLOW)])
    assert [(group.cause, group.count, group.oldest) for group in groups] == [
        (Cause.WORKER_SLOW, 1, other),
        (Cause.BEHIND_OTHERS, 2, old),
    ]


def test_the_ledger_finds_the_late_of_every_state(ledger: Ledger, clock: FakeClock) -> None:
    ledger.note({orthanc_id(name): clock() for name in "abcde"}, cursor=1)
    for name in "bcde":
        ledger.settle(orthanc_id(name), Decision(None), content="c", instances=1)
    _pending, queued, processing, ended = ledger.outbox()
    for message in (queued, processing, ended):
        ledger.sent(message)
    ledger.report(report_of(processing, State.PROCESSING))
    ledger.report(report_of(ended, State.PROCESSING))
    ledger.report(report_of(ended, State.QUARANTINED, Reason.COLOUR, attempt=1))
    clock.move(600)
    assert ledger.late(clock(), broker_reachable=True) == ()
    clock.move(3600)
    ledger.announce(announcement_of("worker-1"))
    late = ledger.late(clock(), broker_reachable=True)
    assert {(one.study.state, one.cause) for one in late} == {
        (State.WATCHED, Cause.WATCHER_BEHIND),
        (State.PENDING, Cause.BEHIND_OTHERS),
        (State.QUEUED, Cause.BEHIND_OTHERS),
        (State.PROCESSING, Cause.WORKER_SLOW),
    }


def test_a_watched_study_that_nobody_would_look_at_is_looked_at(
    engine: Engine, ledger: Ledger, clock: FakeClock
) -> None:
    ledger.note({orthanc_id("a"): clock() + HOURS}, cursor=1)
    assert ledger.due() == ()
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE studies SET look_at = NULL")
    assert ledger.due() == (orthanc_id("a"),)
