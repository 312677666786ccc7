"""The outbox empties into the broker, and nothing is lost while the broker is away."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from prichexy_plugin.database import open_database
from prichexy_plugin.intake import Decision
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.relay import HAND_OUT, RECALL_AFTER, Relay
from prichexy_testing.fake_orthanc import orthanc_id
from prichexy_testing.plugin_fakes import FakeBroker, FakeClock, report_of
from prichexy_worker.contract import State


@pytest.fixture
def broker() -> FakeBroker:
    return FakeBroker()


@pytest.fixture
def ledger(clock: FakeClock) -> Iterator[Ledger]:
    engine = open_database("sqlite://")
    yield Ledger(engine, clock)
    engine.dispose()


@pytest.fixture
def relay(ledger: Ledger, broker: FakeBroker, clock: FakeClock) -> Relay:
    return Relay(ledger, broker, clock)


def _take_in(ledger: Ledger, clock: FakeClock, *names: str) -> None:
    ledger.note({orthanc_id(name): clock() for name in names}, cursor=1)
    for name in names:
        ledger.settle(orthanc_id(name), Decision(None), content="c", instances=1)


def test_every_study_taken_in_is_sent_once(
    relay: Relay, ledger: Ledger, broker: FakeBroker, clock: FakeClock
) -> None:
    _take_in(ledger, clock, *(str(number) for number in range(120)))
    while relay.run_once():
        pass
    assert len(broker.messages) == 120
    assert len({message.study_id for message in broker.messages}) == 120
    assert ledger.counts()[State.QUEUED] == 120


def test_what_came_while_the_broker_was_away_goes_out_when_it_is_back(
    relay: Relay, ledger: Ledger, broker: FakeBroker, clock: FakeClock
) -> None:
    broker.down = True
    _take_in(ledger, clock, "a", "b")
    assert not relay.run_once()
    assert not relay.state.reachable
    assert relay.state.detail == "Redis at here:1: TimeoutError"
    assert ledger.counts()[State.PENDING] == 2
    broker.down = False
    relay.run_once()
    assert relay.state.reachable
    assert len(broker.messages) == 2


def test_a_crash_between_sending_and_noting_sends_again(
    relay: Relay, ledger: Ledger, broker: FakeBroker, clock: FakeClock
) -> None:
    _take_in(ledger, clock, "a")
    broker.send(ledger.outbox()[0])
    relay.run_once()
    assert len(broker.messages) == 2
    assert broker.messages[0] == broker.messages[1]


def test_what_the_broker_lost_is_sent_again(
    relay: Relay, ledger: Ledger, broker: FakeBroker, clock: FakeClock
) -> None:
    _take_in(ledger, clock, "a")
    relay.run_once()
    message = broker.messages.pop()
    clock.move((RECALL_AFTER + timedelta(seconds=1)).total_seconds())
    relay.run_once()
    relay.run_once()
    assert broker.messages == [message]


def test_nothing_is_sent_again_while_messages_wait_for_a_worker(
    relay: Relay, ledger: Ledger, broker: FakeBroker, clock: FakeClock
) -> None:
    _take_in(ledger, clock, "a")
    relay.run_once()
    clock.move(RECALL_AFTER.total_seconds() * 10)
    assert not relay.run_once()
    assert len(broker.messages) == 1


def test_nothing_is_sent_again_while_workers_hold_messages_that_they_cannot_report_on(
    relay: Relay, ledger: Ledger, broker: FakeBroker, clock: FakeClock
) -> None:
    _take_in(ledger, clock, "a")
    relay.run_once()
    broker.messages.clear()
    broker.taken = 1
    clock.move(RECALL_AFTER.total_seconds() * 10)
    assert not relay.run_once()
    assert ledger.counts()[State.QUEUED] == 1
    broker.taken = 0
    assert relay.run_once()


def test_what_a_busy_broker_lost_is_found_missing_and_sent_again(
    relay: Relay, ledger: Ledger, broker: FakeBroker, clock: FakeClock
) -> None:
    _take_in(ledger, clock, "a", "b", "c")
    relay.run_once()
    lost = broker.messages.pop(1)
    clock.move(RECALL_AFTER.total_seconds() + 1)
    while relay.run_once():
        pass
    assert broker.messages.count(lost) == 1
    assert len(broker.messages) == 3, "what it has is not sent again"


def test_the_broker_holds_no_more_than_it_may_and_gets_the_rest_as_workers_take(
    relay: Relay, ledger: Ledger, broker: FakeBroker, clock: FakeClock
) -> None:
    _take_in(ledger, clock, *(str(number) for number in range(HAND_OUT + 30)))
    while relay.run_once():
        pass
    assert len(broker.messages) == HAND_OUT
    assert ledger.counts()[State.PENDING] == 30
    del broker.messages[:10]
    relay.run_once()
    assert len(broker.messages) == HAND_OUT
    assert ledger.counts()[State.PENDING] == 20


def test_a_stop_is_heard_between_two_sendings(
    ledger: Ledger, broker: FakeBroker, clock: FakeClock
) -> None:
    _take_in(ledger, clock, "a", "b", "c")
    relay = Relay(ledger, broker, clock, stopping=lambda: len(broker.messages) == 1)
    assert not relay.run_once()
    assert len(broker.messages) == 1
    assert ledger.counts()[State.PENDING] == 2


def test_a_study_that_ended_is_not_sent_again(
    relay: Relay, ledger: Ledger, broker: FakeBroker, clock: FakeClock
) -> None:
    _take_in(ledger, clock, "a")
    relay.run_once()
    message = broker.messages.pop()
    ledger.report(report_of(message, State.PROCESSING))
    ledger.report(report_of(message, State.EXPORTED, attempt=1))
    clock.move(RECALL_AFTER.total_seconds() * 10)
    assert not relay.run_once()
    assert broker.messages == []


def test_before_the_first_contact_the_state_says_so(relay: Relay) -> None:
    assert not relay.state.reachable
    assert relay.state.checked is None
