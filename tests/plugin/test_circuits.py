"""An outage stops the handing out and costs no study its attempts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from prichexy_plugin.database import open_database
from prichexy_plugin.intake import Decision
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.relay import Relay
from prichexy_testing.fake_orthanc import orthanc_id
from prichexy_testing.plugin_fakes import FakeBroker, FakeClock, report_of
from prichexy_worker.contract import MAX_ATTEMPTS, Claim, Reason, State, StudyMessage
from prichexy_worker.retry import LIMITS, PROBE_PATIENCE, STUDY_BUDGET, Blame

AWAY = Reason.TARGET_UNREACHABLE
REFUSED = Reason.TARGET_REFUSED


class Gateway:
    """A ledger, a relay and a broker; workers are played by the tests."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.engine = open_database("sqlite://")
        self.ledger = Ledger(self.engine, self.clock)
        self.broker = FakeBroker()
        self.relay = Relay(self.ledger, self.broker, self.clock)

    def take_in(self, *names: str) -> None:
        self.ledger.note({orthanc_id(name): self.clock() for name in names}, cursor=1)
        for name in names:
            self.ledger.settle(orthanc_id(name), Decision(None), content="c", instances=1)

    def hand_out(self) -> list[StudyMessage]:
        """Let the relay run, and take all that it sent."""
        while self.relay.run_once():
            pass
        sent, self.broker.messages = self.broker.messages, []
        return sent

    def attempt(self, message: StudyMessage, state: State, reason: Reason | None = None) -> Claim:
        """Claim the study, take ten seconds and report; gives the claim."""
        claim = self.ledger.report(report_of(message, State.PROCESSING))
        if claim.proceed:
            self.clock.move(10)
            report = report_of(message, state, reason, attempt=claim.attempt)
            assert self.ledger.report(report).proceed
        return claim

    def outage(self, reason: Reason = REFUSED, blame: Blame = Blame.TARGET) -> list[StudyMessage]:
        """Let as many studies fail as open the circuit; gives what else was handed out."""
        sent = self.hand_out()
        for message in sent[: LIMITS[blame]]:
            self.attempt(message, State.QUEUED, reason)
        assert self.ledger.circuits()[blame].is_open
        return sent[LIMITS[blame] :]

    def state(self, message: StudyMessage) -> State:
        study = self.ledger.study(message.job_id)
        assert study is not None
        return study.state


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    one = Gateway()
    yield one
    one.engine.dispose()


def test_while_the_target_is_away_for_all_nothing_is_handed_out_and_claims_are_put_back(
    gateway: Gateway,
) -> None:
    gateway.take_in(*"abcdefgh")
    [*rest] = gateway.outage()
    for message in rest:
        assert not gateway.attempt(message, State.EXPORTED).proceed
        study = gateway.ledger.study(message.job_id)
        assert study is not None
        assert (study.state, study.reason, study.attempts) == (State.PENDING, REFUSED, 0)
    gateway.take_in("new")
    assert gateway.hand_out() == []
    assert gateway.ledger.counts()[State.PENDING] == len(rest) + 1


def test_a_long_outage_fails_no_study_and_all_are_exported_when_it_is_over(
    gateway: Gateway,
) -> None:
    gateway.take_in(*(str(number) for number in range(30)))
    waiting = gateway.hand_out()
    for _ in range(24 * 6):
        for message in waiting:
            gateway.attempt(message, State.QUEUED, AWAY)
        gateway.clock.move(600)
        waiting += gateway.hand_out()
        waiting = [one for one in waiting if gateway.state(one) is State.QUEUED]
    counts = gateway.ledger.counts()
    assert counts[State.PENDING] + counts[State.QUEUED] == 30
    for _ in range(3):
        for message in waiting:
            gateway.attempt(message, State.EXPORTED)
        gateway.clock.move(900)
        waiting = gateway.hand_out()
    assert gateway.ledger.counts()[State.EXPORTED] == 30


def test_one_probe_at_a_time_and_its_success_lets_all_others_go(gateway: Gateway) -> None:
    gateway.take_in(*"abcdef")
    for message in gateway.outage():
        gateway.attempt(message, State.EXPORTED)
    assert gateway.hand_out() == []
    gateway.clock.move(30)
    [probe] = gateway.hand_out()
    gateway.clock.move(60)
    assert gateway.hand_out() == []
    assert gateway.attempt(probe, State.EXPORTED).proceed
    assert not gateway.ledger.circuits()[Blame.TARGET].is_open
    assert len(gateway.hand_out()) == 2


def test_a_failed_probe_goes_to_the_end_and_the_next_one_waits_longer(gateway: Gateway) -> None:
    gateway.take_in(*"abcdef")
    for message in gateway.outage():
        gateway.clock.move(1)
        gateway.attempt(message, State.EXPORTED)
    gateway.clock.move(30)
    [first] = gateway.hand_out()
    gateway.attempt(first, State.QUEUED, REFUSED)
    # The worker tries it again after its pause, and is told to let go of it.
    assert not gateway.attempt(first, State.EXPORTED).proceed
    gateway.clock.move(40)
    assert gateway.hand_out() == []
    gateway.clock.move(20)
    [second] = gateway.hand_out()
    assert second != first


def test_a_probe_that_was_lost_or_ended_by_itself_makes_room_for_another(gateway: Gateway) -> None:
    gateway.take_in(*"abcdef")
    for message in gateway.outage():
        gateway.attempt(message, State.EXPORTED)
    gateway.clock.move(30)
    [lost] = gateway.hand_out()
    gateway.clock.move(PROBE_PATIENCE.total_seconds())
    [deleted] = gateway.hand_out()
    assert deleted != lost
    gateway.ledger.gone(deleted.study_id)
    [third] = gateway.hand_out()
    assert third not in (lost, deleted)


def test_a_probe_that_the_broker_did_not_take_is_sent_when_it_is_back(gateway: Gateway) -> None:
    gateway.take_in(*"abcd")
    for message in gateway.outage():
        gateway.attempt(message, State.EXPORTED)
    gateway.clock.move(30)
    gateway.broker.down = True
    assert gateway.hand_out() == []
    gateway.broker.down = False
    assert len(gateway.hand_out()) == 1


def test_a_study_that_the_target_refuses_while_others_are_exported_is_given_up(
    gateway: Gateway,
) -> None:
    gateway.take_in("bad", *(str(number) for number in range(MAX_ATTEMPTS + 1)))
    bad, *others = gateway.hand_out()
    for number, other in enumerate(others[:MAX_ATTEMPTS]):
        assert gateway.attempt(bad, State.QUEUED, REFUSED).left == MAX_ATTEMPTS - number
        gateway.attempt(other, State.EXPORTED)
    assert gateway.attempt(bad, State.FAILED, Reason.TOO_MANY_ATTEMPTS).left == 0
    assert not gateway.ledger.circuits()[Blame.TARGET].is_open


def test_a_study_whose_target_never_answers_although_it_does_to_others_is_given_up(
    gateway: Gateway,
) -> None:
    gateway.take_in("huge", *(str(number) for number in range(MAX_ATTEMPTS)))
    huge, *others = gateway.hand_out()
    for other in others:
        claim = gateway.ledger.report(report_of(huge, State.PROCESSING))
        gateway.attempt(other, State.EXPORTED)
        back = report_of(huge, State.QUEUED, AWAY, attempt=claim.attempt)
        assert gateway.ledger.report(back).proceed
    assert gateway.ledger.report(report_of(huge, State.PROCESSING)).left == 0


def test_a_single_study_waits_for_a_target_that_is_away_however_long(gateway: Gateway) -> None:
    gateway.take_in("only")
    [only] = gateway.hand_out()
    for _ in range(5 * MAX_ATTEMPTS):
        assert gateway.attempt(only, State.QUEUED, AWAY).left == MAX_ATTEMPTS
    assert gateway.attempt(only, State.EXPORTED).proceed


def test_workers_that_meet_the_unexpected_with_every_study_get_no_more(gateway: Gateway) -> None:
    gateway.take_in(*(str(number) for number in range(30)))
    rest = gateway.outage(Reason.UNEXPECTED, Blame.WORKER)
    for message in rest:
        assert not gateway.attempt(message, State.EXPORTED).proceed
    assert gateway.hand_out() == []
    assert gateway.ledger.counts()[State.FAILED] == 0


def test_checks_that_cannot_be_made_stop_the_handing_out_before_all_are_quarantined(
    gateway: Gateway,
) -> None:
    gateway.take_in(*(str(number) for number in range(30)))
    for message in gateway.hand_out():
        gateway.attempt(message, State.QUARANTINED, Reason.CHECK_IMPOSSIBLE)
    assert gateway.ledger.counts()[State.QUARANTINED] == LIMITS[Blame.WORKER]
    assert gateway.ledger.counts()[State.PENDING] == 30 - LIMITS[Blame.WORKER]


def test_a_study_that_takes_all_of_its_time_is_given_up_before_its_attempts_are_over(
    gateway: Gateway,
) -> None:
    gateway.take_in("slow")
    [slow] = gateway.hand_out()
    claim = gateway.ledger.report(report_of(slow, State.PROCESSING))
    assert claim.left == MAX_ATTEMPTS
    gateway.clock.move(STUDY_BUDGET.total_seconds() + 1)
    back = report_of(slow, State.QUEUED, AWAY, attempt=claim.attempt)
    assert gateway.ledger.report(back).proceed
    assert gateway.ledger.report(report_of(slow, State.PROCESSING)).left == 0


def test_a_new_revision_has_all_its_attempts_and_time_again(gateway: Gateway) -> None:
    gateway.take_in("a")
    [message] = gateway.hand_out()
    for _ in range(MAX_ATTEMPTS):
        gateway.attempt(message, State.QUEUED, Reason.UNEXPECTED)
    gateway.ledger.note({message.study_id: gateway.clock()}, cursor=2)
    gateway.ledger.settle(message.study_id, Decision(None), content="c2", instances=2)
    [renewed] = gateway.hand_out()
    assert gateway.attempt(renewed, State.EXPORTED).left == MAX_ATTEMPTS


def test_a_message_that_came_back_before_it_was_noted_as_sent_is_not_noted(
    gateway: Gateway,
) -> None:
    gateway.take_in(*"abcde")
    overtaken = gateway.hand_out()[3]
    gateway.ledger.recall(-gateway.clock.now.resolution)  # all are pending again
    sent = gateway.ledger.outbox()
    assert overtaken in sent
    for message in sent[:3]:
        gateway.attempt(message, State.QUEUED, REFUSED)
    assert not gateway.attempt(overtaken, State.EXPORTED).proceed
    gateway.ledger.sent(overtaken)
    assert gateway.state(overtaken) is State.PENDING, "its message is used up"


def test_what_stopped_the_handing_out_is_known_after_a_restart(gateway: Gateway) -> None:
    gateway.take_in(*"abcd")
    gateway.outage()
    again = Ledger(gateway.engine, gateway.clock)
    assert again.circuits() == gateway.ledger.circuits()
    assert again.circuits()[Blame.TARGET].reason is REFUSED
