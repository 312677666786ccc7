"""The outbox empties into the broker, and nothing is lost while the broker is away."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from prichexy_plugin.chain import PERSON
from prichexy_plugin.intake import Decision, Rank
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.relay import AT_LEAST, PER_WORKER, RECALL_AFTER, Relay
from prichexy_plugin.studies import Listed
from prichexy_plugin.sweep import PATIENCE, Cause
from prichexy_testing.fake_orthanc import orthanc_id
from prichexy_testing.plugin_fakes import FakeBroker, FakeClock, announcement_of, report_of
from prichexy_worker.contract import Reason, State, StudyMessage


@pytest.fixture
def broker() -> FakeBroker:
    return FakeBroker()


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
        broker.messages.clear()
    assert len(broker.sent) == 120
    assert len({message.study_id for message in broker.sent}) == 120
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


def test_a_broker_that_is_too_crowded_to_tell_what_it_lost_says_so(
    relay: Relay, ledger: Ledger, broker: FakeBroker, clock: FakeClock
) -> None:
    _take_in(ledger, clock, "a", "b")
    relay.run_once()
    lost = broker.messages.pop()
    broker.crowded = True
    clock.move(RECALL_AFTER.total_seconds() + 1)
    assert not relay.run_once()
    relay.run_once()
    assert "too many others in its database to see whether it lost one" in relay.state.detail
    assert broker.messages.count(lost) == 0
    broker.crowded = False
    clock.move(601)
    while relay.run_once():
        pass
    assert relay.state.detail == "2 waiting for a worker"
    assert broker.messages.count(lost) == 1


def test_a_busy_broker_is_asked_at_once_after_the_clock_was_put_back(
    relay: Relay, ledger: Ledger, broker: FakeBroker, clock: FakeClock
) -> None:
    clock.move(86_400)
    _take_in(ledger, clock, "a", "b")
    assert relay.run_once()
    assert not relay.run_once(), "it was asked: now it is not for ten minutes"
    lost = broker.messages.pop()
    clock.move(-86_400)
    while relay.run_once():
        pass
    assert broker.messages.count(lost) == 1


def test_the_broker_holds_no_more_than_it_may_and_gets_the_rest_as_workers_take(
    relay: Relay, ledger: Ledger, broker: FakeBroker, clock: FakeClock
) -> None:
    _take_in(ledger, clock, *(str(number) for number in range(30)))
    while relay.run_once():
        pass
    assert len(broker.messages) == AT_LEAST
    assert ledger.counts()[State.PENDING] == 30 - AT_LEAST
    del broker.messages[:2]
    relay.run_once()
    assert len(broker.messages) == AT_LEAST
    assert ledger.counts()[State.PENDING] == 28 - AT_LEAST
    for number in range(5):
        ledger.announce(announcement_of(f"worker-{number}"))
    relay.run_once()
    assert len(broker.messages) == 5 * PER_WORKER


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


class Hospital:
    """A ledger with studies of several sources, and workers that take one message at a time."""

    def __init__(self, ledger: Ledger, relay: Relay, broker: FakeBroker, clock: FakeClock) -> None:
        self.ledger, self.relay, self.broker, self.clock = ledger, relay, broker, clock
        self.names: dict[str, str] = {}

    def take_in(self, name: str, **decided: Any) -> None:
        self.clock.move(1)
        self.names[orthanc_id(name)] = name
        self.ledger.note({orthanc_id(name): self.clock()}, cursor=1)
        decision = Decision(None, **decided)
        self.ledger.settle(orthanc_id(name), decision, content="c", instances=1)

    def backfill(self, *names: str) -> None:
        walk = self.ledger.start_backfill(per_minute=6000, total=len(names), by="me")
        page = [Listed(orthanc_id(name), self.clock()) for name in names]
        self.ledger.backfill_page(walk, page)
        for name in names:
            self.names[orthanc_id(name)] = name
            self.ledger.settle(orthanc_id(name), Decision(None), content="c", instances=1)

    def work_off(self, number: int, queue: str = "") -> list[str]:
        """Name the next studies that a worker gets."""
        taken = []
        for _ in range(number):
            while self.relay.run_once():
                pass
            mine = [one for one in self.broker.messages if self.broker.queues[one.job_id] == queue]
            self.broker.messages.remove(mine[0])
            taken.append(self.names[mine[0].study_id])
        return taken


@pytest.fixture
def hospital(ledger: Ledger, relay: Relay, broker: FakeBroker, clock: FakeClock) -> Hospital:
    return Hospital(ledger, relay, broker, clock)


def test_urgent_goes_before_new_and_new_before_a_backfill_whenever_they_come(
    hospital: Hospital,
) -> None:
    hospital.backfill(*(f"old {number}" for number in range(100)))
    assert all(name.startswith("old") for name in hospital.work_off(3))
    hospital.take_in("new")
    hospital.take_in("low", priority=Rank.LOW)
    hospital.take_in("urgent", priority=Rank.URGENT)
    got = hospital.work_off(AT_LEAST + 2)
    assert got[AT_LEAST - 1 :][:2] == ["urgent", "new"], (
        "all but the few that lie at the broker wait"
    )


def test_a_busy_source_does_not_hold_up_the_others(hospital: Hospital) -> None:
    for number in range(60):
        hospital.take_in(f"busy {number}", source="BUSY")
    hospital.work_off(5)
    for number in range(3):
        hospital.take_in(f"quiet {number}", source="QUIET")
        hospital.take_in(f"other {number}", source="OTHER")
    got = hospital.work_off(AT_LEAST + 8)[AT_LEAST - 1 :]
    kinds = [name.split()[0] for name in got]
    assert (
        sorted(kinds[:3])
        == sorted(kinds[3:6])
        == sorted(kinds[6:9])
        == [
            "busy",
            "other",
            "quiet",
        ]
    )
    assert [name for name in got if name.startswith("quiet")] == ["quiet 0", "quiet 1", "quiet 2"]


def test_each_queue_has_room_of_its_own_by_the_workers_that_take_from_it(
    hospital: Hospital, ledger: Ledger, broker: FakeBroker, clock: FakeClock
) -> None:
    hospital.relay = Relay(ledger, broker, clock, queues={"gpu"})
    for number in range(3):
        announced = replace(announcement_of(f"gpu-{number}"), queues=("gpu",))
        ledger.announce(announced)
    for number in range(20):
        hospital.take_in(f"large {number}", queue="gpu")
        hospital.take_in(f"small {number}")
    while hospital.relay.run_once():
        pass
    assert broker.waiting("gpu") == 3 * PER_WORKER
    assert broker.waiting() == AT_LEAST
    assert hospital.work_off(2, "gpu") == ["large 0", "large 1"]


def test_a_queue_that_no_rule_names_any_more_is_sent_and_kept_in_sight(
    hospital: Hospital, ledger: Ledger, broker: FakeBroker, clock: FakeClock
) -> None:
    hospital.take_in("a", queue="of before")
    again = Relay(ledger, broker, clock)
    again.run_once()
    assert broker.waiting("of before") == 1
    clock.move(RECALL_AFTER.total_seconds() * 10)
    assert not again.run_once(), "it waits there: it is not lost"


def _failed(ledger: Ledger, message: StudyMessage) -> None:
    claim = ledger.report(report_of(message, State.PROCESSING))
    ended = report_of(message, State.FAILED, Reason.UNEXPECTED, attempt=claim.attempt)
    assert ledger.report(ended).proceed


def test_a_study_that_enters_a_queue_which_the_relay_did_not_know_is_sent(
    hospital: Hospital, ledger: Ledger, broker: FakeBroker, clock: FakeClock
) -> None:
    hospital.take_in("a", queue="of before")
    hospital.relay.run_once()
    [message] = broker.messages
    _failed(ledger, message)
    broker.messages.clear()
    hospital.relay = Relay(ledger, broker, clock, queues={"of now"})
    hospital.relay.run_once()
    assert ledger.again(message.job_id, revision=1, actor=f"{PERSON}somebody")
    hospital.relay.run_once()
    assert broker.waiting("of before") == 1


@pytest.mark.parametrize(("named", "queue"), [("of now", ""), ("of before", "of before")])
def test_a_study_tried_again_whose_queue_no_rule_names_goes_to_the_gateways_own(
    hospital: Hospital,
    engine: Engine,
    broker: FakeBroker,
    clock: FakeClock,
    named: str,
    queue: str,
) -> None:
    hospital.take_in("a", queue="of before")
    hospital.relay.run_once()
    [message] = broker.messages
    ledger = Ledger(engine, clock, named_queues={named})
    _failed(ledger, message)
    assert ledger.again(message.job_id, revision=1, actor=f"{PERSON}somebody")
    [renewed] = ledger.outbox(queue=queue)
    assert renewed.job_id == message.job_id


def test_a_study_whose_queue_neither_a_rule_names_nor_a_worker_takes_is_shown_as_that(
    hospital: Hospital, engine: Engine, clock: FakeClock
) -> None:
    hospital.take_in("a", queue="of before")
    hospital.take_in("b", queue="of now")
    clock.move(PATIENCE[State.PENDING].total_seconds() + 1)
    ledger = Ledger(engine, clock, named_queues={"of now"})
    ledger.announce(announcement_of())
    late = ledger.late(clock(), broker_reachable=True)
    causes = {hospital.names[one.study.study_id]: one.cause for one in late}
    assert causes == {"a": Cause.QUEUE_OF_NO_RULE, "b": Cause.NO_WORKER}


def test_a_study_that_only_workers_of_another_queue_could_take_waits_for_a_worker(
    hospital: Hospital, ledger: Ledger, clock: FakeClock
) -> None:
    hospital.take_in("large", queue="gpu")
    hospital.take_in("small")
    clock.move(PATIENCE[State.PENDING].total_seconds() + 1)
    ledger.announce(announcement_of())
    late = ledger.late(clock(), broker_reachable=True)
    causes = {hospital.names[one.study.study_id]: one.cause for one in late}
    assert causes == {"large": Cause.NO_WORKER, "small": Cause.BEHIND_OTHERS}


def test_a_new_arrival_makes_of_a_backfills_study_one_that_goes_before_it(
    hospital: Hospital,
) -> None:
    hospital.backfill("old 1", "old 2")
    hospital.take_in("old 2", priority=Rank.URGENT)
    assert hospital.work_off(2) == ["old 2", "old 1"]
