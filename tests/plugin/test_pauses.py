"""What somebody pauses waits, loses nothing, and goes on when somebody lets it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import Engine

from prichexy_plugin.changes import Watcher
from prichexy_plugin.intake import Decision, Rule
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.pauses import Pause, Stage, holds, intake_is_paused
from prichexy_plugin.relay import Relay
from prichexy_plugin.studies import OrthancStudies
from prichexy_plugin.sweep import Cause
from prichexy_testing.fake_orthanc import FakeOrthanc, orthanc_id
from prichexy_testing.plugin_fakes import CHEST, FakeBroker, FakeClock, announcement_of, report_of
from prichexy_worker.contract import Errand, Reason, State, StudyMessage
from prichexy_worker.retry import Blame

WHO = "user omar"
WHY = Reason.PAUSED_WORK


@pytest.fixture
def broker() -> FakeBroker:
    return FakeBroker()


@pytest.fixture
def relay(ledger: Ledger, broker: FakeBroker, clock: FakeClock) -> Relay:
    return Relay(ledger, broker, clock, at_least=64)


def _pause(ledger: Ledger, stage: Stage, target: str = "") -> Pause:
    assert ledger.pause(stage, target, actor=WHO, reason=WHY)
    return next(one for one in ledger.pauses() if (one.stage, one.target) == (stage, target))


def _resume(ledger: Ledger, pause: Pause) -> bool:
    return ledger.resume(pause.stage, pause.target, actor=WHO, since=pause.since)


def _take_in(ledger: Ledger, clock: FakeClock, name: str, *targets: str) -> str:
    ledger.note({orthanc_id(name): clock()}, cursor=1)
    ledger.settle(orthanc_id(name), Decision(None, targets), content="c", instances=1)
    found = ledger.studies(study_id=orthanc_id(name)).studies
    return found[0].job_id


def _sent(relay: Relay, broker: FakeBroker) -> list[StudyMessage]:
    while relay.run_once():
        pass
    sent, broker.messages = broker.messages, []
    return sent


def _state(ledger: Ledger, job_id: str) -> tuple[State, Reason | None, int]:
    study = ledger.study(job_id)
    assert study is not None
    return study.state, study.reason, study.attempts


@pytest.mark.parametrize(
    ("stage", "target", "targets", "waits"),
    [
        (Stage.INTAKE, "", (), False),
        (Stage.EXPORT, "", ("archive",), True),
        (Stage.EXPORT, "", (), True),
        (Stage.TARGET, "archive", ("archive", "research"), True),
        (Stage.TARGET, "archive", ("research",), False),
        (Stage.TARGET, "archive", (), False),
        (Stage.TARGET, "", (), True),
        (Stage.TARGET, "", ("research",), False),
    ],
)
def test_a_pause_holds_the_studies_that_need_what_it_stops(
    clock: FakeClock, stage: Stage, target: str, targets: tuple[str, ...], waits: bool
) -> None:
    pause = Pause(stage, target, clock(), WHO, WHY)
    assert holds([pause], targets) is waits
    assert intake_is_paused([pause]) is (stage is Stage.INTAKE)


def test_a_pause_outlives_the_plugin_and_both_its_ends_are_in_the_trail(
    open_ledger_database: Callable[[], Engine], clock: FakeClock
) -> None:
    ledger = Ledger(open_ledger_database(), clock)
    pause = _pause(ledger, Stage.TARGET, "archive")
    again = Ledger(open_ledger_database(), clock)
    assert again.pauses() == (pause,)
    clock.move(60)
    assert _resume(again, pause)
    assert again.pauses() == ()
    told = [(line.deed, line.actor, line.reason, dict(line.details)) for line in again.lines()]
    about = {"stage": "target", "target": "archive"}
    assert told == [
        ("action", WHO, WHY.value, {"action": "pause", **about}),
        ("action", WHO, None, {"action": "resume", **about}),
    ]
    assert again.verdict().whole


def test_who_saw_another_pause_than_that_of_now_changes_nothing(
    ledger: Ledger, clock: FakeClock
) -> None:
    first = _pause(ledger, Stage.INTAKE)
    assert not ledger.pause(Stage.INTAKE, actor="user ada", reason=Reason.PAUSED_LOAD)
    assert _resume(ledger, first)
    clock.move(1)
    second = _pause(ledger, Stage.INTAKE)
    lines = ledger.chain_state().head.number
    assert not _resume(ledger, first), "it was ended, and somebody paused anew"
    assert ledger.pauses() == (second,)
    assert ledger.chain_state().head.number == lines


def test_while_the_intake_is_paused_arrivals_are_noted_and_decided_over_afterwards(
    ledger: Ledger, clock: FakeClock
) -> None:
    orthanc = FakeOrthanc(clock=clock)
    rule = Rule("chest", modality=frozenset({"CR"}))
    watcher = Watcher(
        OrthancStudies(orthanc),
        ledger,
        rules=(rule,),
        stable_age=60.0,
        take_existing=True,
        clock=clock,
    )
    pause = _pause(ledger, Stage.INTAKE)
    for name in ("a", "b"):
        orthanc.store(CHEST, study=name)
        orthanc.settle(orthanc_id(name))
    clock.move(120)
    for _ in range(3):
        watcher.run_once()
    assert ledger.counts()[State.WATCHED] == 2
    assert ledger.due_count() == 2
    # Orthanc may forget its changes meanwhile: the ledger has read them.
    orthanc.changes.clear()
    assert _resume(ledger, pause)
    while watcher.run_once().looked:
        pass
    assert ledger.counts()[State.PENDING] == 2


def test_no_decision_is_written_once_the_intake_is_paused(ledger: Ledger, clock: FakeClock) -> None:
    ledger.note({orthanc_id("a"): clock()}, cursor=1)
    pause = _pause(ledger, Stage.INTAKE)
    # A look that was under way when it was paused.
    ledger.settle(orthanc_id("a"), Decision(None), content="c", instances=1)
    assert ledger.counts()[State.WATCHED] == 1
    assert _resume(ledger, pause)
    assert ledger.due() == (orthanc_id("a"),), "it is looked at again"


def test_while_the_intake_is_paused_what_was_taken_in_goes_on(
    ledger: Ledger, relay: Relay, broker: FakeBroker, clock: FakeClock
) -> None:
    _take_in(ledger, clock, "a")
    _pause(ledger, Stage.INTAKE)
    [message] = _sent(relay, broker)
    assert ledger.report(report_of(message, State.PROCESSING)).proceed


def test_while_the_export_is_paused_nothing_is_handed_out_and_what_workers_have_ends(
    ledger: Ledger, relay: Relay, broker: FakeBroker, clock: FakeClock
) -> None:
    working, at_the_broker = _take_in(ledger, clock, "a"), _take_in(ledger, clock, "b", "archive")
    messages = {one.job_id: one for one in _sent(relay, broker)}
    claim = ledger.report(report_of(messages[working], State.PROCESSING))
    pause = _pause(ledger, Stage.EXPORT)
    waiting = _take_in(ledger, clock, "c")
    assert _sent(relay, broker) == []
    assert not ledger.report(report_of(messages[at_the_broker], State.PROCESSING)).proceed
    assert _state(ledger, at_the_broker) == (State.PENDING, Reason.PAUSED, 0)
    ended = report_of(messages[working], State.EXPORTED, attempt=claim.attempt)
    assert ledger.report(ended).proceed
    assert _state(ledger, working)[0] is State.EXPORTED
    clock.move(24 * 3600)
    assert _sent(relay, broker) == []
    assert _resume(ledger, pause)
    assert {one.job_id for one in _sent(relay, broker)} == {at_the_broker, waiting}
    assert _state(ledger, waiting) == (State.QUEUED, None, 0)


def test_a_pause_of_one_target_holds_the_studies_that_go_there_and_no_others(
    ledger: Ledger, relay: Relay, broker: FakeBroker, clock: FakeClock
) -> None:
    both = _take_in(ledger, clock, "a", "archive", "research")
    research = _take_in(ledger, clock, "b", "research")
    unnamed = _take_in(ledger, clock, "c")
    pause = _pause(ledger, Stage.TARGET, "archive")
    unnamed_pause = _pause(ledger, Stage.TARGET)
    assert [one.job_id for one in _sent(relay, broker)] == [research]
    assert ledger.waiting_by_targets() == {("archive", "research"): 1, (): 1}
    assert _resume(ledger, pause)
    assert [one.job_id for one in _sent(relay, broker)] == [both]
    assert _resume(ledger, unnamed_pause)
    assert [one.job_id for one in _sent(relay, broker)] == [unnamed]


def _outage(ledger: Ledger, sent: list[StudyMessage]) -> None:
    """Let the ingest Orthanc fail all of these, and put their messages back."""
    for message in sent:
        claim = ledger.report(report_of(message, State.PROCESSING))
        back = report_of(message, State.QUEUED, Reason.SOURCE_UNREACHABLE, attempt=claim.attempt)
        assert ledger.report(back).proceed
    for message in sent:
        assert not ledger.report(report_of(message, State.PROCESSING)).proceed


def test_a_study_that_is_paused_is_no_probe_and_its_circuit_takes_another_one(
    ledger: Ledger, relay: Relay, broker: FakeBroker, clock: FakeClock
) -> None:
    for name in "abc":
        _take_in(ledger, clock, name, "archive")
    _outage(ledger, _sent(relay, broker))
    other = _take_in(ledger, clock, "other", "research")
    clock.move(30)
    _pause(ledger, Stage.TARGET, "archive")
    pause = _pause(ledger, Stage.TARGET, "research")
    assert _sent(relay, broker) == [], "all that waits is paused: there is no probe"
    assert _resume(ledger, pause)
    assert [one.job_id for one in _sent(relay, broker)] == [other]


def test_a_probe_that_is_paused_before_it_is_sent_is_let_go(
    ledger: Ledger, relay: Relay, broker: FakeBroker, clock: FakeClock
) -> None:
    for name in "abc":
        _take_in(ledger, clock, name)
    _outage(ledger, _sent(relay, broker))
    clock.move(30)
    probe = ledger.probe()
    assert probe is not None
    pause = _pause(ledger, Stage.EXPORT)
    assert ledger.probe() is None
    assert ledger.circuits()[Blame.SOURCE].probe is None
    assert _resume(ledger, pause)
    assert ledger.probe() is not None


def test_a_backfill_waits_while_it_is_paused_and_not_for_a_target_that_others_do_without(
    ledger: Ledger, clock: FakeClock
) -> None:
    for stage in (Stage.INTAKE, Stage.EXPORT):
        pause = _pause(ledger, stage)
        assert ledger.is_congested()
        assert _resume(ledger, pause)
        assert not ledger.is_congested()
    _take_in(ledger, clock, "a", "archive")
    _pause(ledger, Stage.TARGET, "archive")
    assert ledger.is_congested(), "all that waits goes there"
    _take_in(ledger, clock, "b", "research")
    assert not ledger.is_congested()


def test_what_is_late_because_of_a_pause_says_so(ledger: Ledger, clock: FakeClock) -> None:
    ledger.announce(announcement_of())
    _take_in(ledger, clock, "a", "archive")
    _take_in(ledger, clock, "b", "research")
    ledger.note({orthanc_id("c"): clock() + timedelta(hours=3)}, cursor=2)
    clock.move(2 * 3600)
    ledger.announce(announcement_of())
    _pause(ledger, Stage.TARGET, "archive")
    _pause(ledger, Stage.INTAKE)
    late = {one.study.study_id: one.cause for one in ledger.late(clock(), broker_reachable=True)}
    assert late == {
        orthanc_id("a"): Cause.EXPORT_PAUSED,
        orthanc_id("b"): Cause.BEHIND_OTHERS,
        orthanc_id("c"): Cause.INTAKE_PAUSED,
    }


@pytest.mark.parametrize(("stage", "target"), [(Stage.EXPORT, ""), (Stage.TARGET, "research")])
def test_what_is_to_be_taken_back_waits_for_no_pause(
    ledger: Ledger, relay: Relay, broker: FakeBroker, clock: FakeClock, stage: Stage, target: str
) -> None:
    job = _take_in(ledger, clock, "a", "research")
    [message] = _sent(relay, broker)
    ledger.report(report_of(message, State.PROCESSING))
    ledger.report(report_of(message, State.EXPORTED, attempt=1))
    _pause(ledger, stage, target)
    waits = _take_in(ledger, clock, "b", "research")
    assert _sent(relay, broker) == []
    assert ledger.order_withdrawal(job, revision=1, actor=WHO, reason=Reason.WITHDRAWN_CONSENT)
    [errand] = _sent(relay, broker)
    assert (errand.job_id, errand.errand) == (job, Errand.WITHDRAW)
    assert ledger.report(report_of(errand, State.PROCESSING)).proceed
    assert _state(ledger, waits)[0] is State.PENDING
