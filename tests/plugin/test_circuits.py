"""An outage stops the handing out and costs no study its attempts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from prichexy_plugin.chain import Deed
from prichexy_plugin.database import open_database
from prichexy_plugin.intake import Decision
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.relay import Relay
from prichexy_testing.fake_orthanc import orthanc_id
from prichexy_testing.plugin_fakes import FakeBroker, FakeClock, announcement_of, report_of
from prichexy_worker.contract import MAX_ATTEMPTS, Claim, Reason, State, StudyMessage
from prichexy_worker.retry import (
    BROKEN_KINDS,
    LIMITS,
    PROBE_PATIENCE,
    STUDY_BUDGET,
    Blame,
    probe_pause,
)

AWAY = Reason.TARGET_UNREACHABLE
REFUSED = Reason.TARGET_REFUSED


class Gateway:
    """A ledger, a relay and a broker; workers are played by the tests."""

    def __init__(self, engine: Engine) -> None:
        self.clock = FakeClock()
        self.engine = engine
        self.ledger = Ledger(self.engine, self.clock)
        self.broker = FakeBroker()
        self.relay = Relay(self.ledger, self.broker, self.clock, at_least=256)

    def take_in(self, *names: str, targets: tuple[str, ...] = (), queue: str = "") -> None:
        self.ledger.note({orthanc_id(name): self.clock() for name in names}, cursor=1)
        for name in names:
            decision = Decision(None, targets, queue=queue)
            self.ledger.settle(orthanc_id(name), decision, content="c", instances=1)

    def hand_out(self) -> list[StudyMessage]:
        """Let the relay run, and take all that it sent."""
        while self.relay.run_once():
            pass
        sent, self.broker.messages = self.broker.messages, []
        return sent

    def attempt(
        self, message: StudyMessage, state: State, reason: Reason | None = None, target: str = ""
    ) -> Claim:
        """Claim the study, take ten seconds and report; gives the claim."""
        claim = self.ledger.report(report_of(message, State.PROCESSING))
        if claim.proceed:
            self.clock.move(10)
            report = report_of(message, state, reason, attempt=claim.attempt, target=target)
            assert self.ledger.report(report).proceed
        return claim

    def outage(self, reason: Reason = REFUSED, blame: Blame = Blame.TARGET) -> list[StudyMessage]:
        """Let as many studies fail as open the circuit; gives what else was handed out."""
        sent = self.hand_out()
        for message in sent[: LIMITS[blame]]:
            self.attempt(message, State.QUEUED, reason)
        assert any(one.blame is blame and one.is_open for one in self.ledger.circuits().values())
        return sent[LIMITS[blame] :]

    def opened(self) -> set[str]:
        return {key for key, one in self.ledger.circuits().items() if one.is_open}

    def lines(self) -> int:
        return self.ledger.chain_state().head.number

    def state(self, message: StudyMessage) -> State:
        study = self.ledger.study(message.job_id)
        assert study is not None
        return study.state


@pytest.fixture
def gateway(engine: Engine) -> Gateway:
    return Gateway(engine)


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


def test_a_probe_goes_to_the_targets_of_its_study(gateway: Gateway) -> None:
    gateway.take_in(*"abcd", targets=("archive", "research"))
    for message in gateway.outage():
        gateway.attempt(message, State.EXPORTED)
    gateway.clock.move(30)
    [probe] = gateway.hand_out()
    assert probe.targets == ("archive", "research")


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


@pytest.mark.parametrize(
    ("other", "left"), [("b", MAX_ATTEMPTS), ("", MAX_ATTEMPTS), ("a", 0), ("ab", 0)]
)
def test_what_comes_to_another_target_costs_no_attempts_of_those_whose_target_is_away(
    gateway: Gateway, other: str, left: int
) -> None:
    gateway.take_in("waits", targets=("a",))
    [waits] = gateway.hand_out()
    gateway.take_in(*(str(number) for number in range(MAX_ATTEMPTS)), targets=tuple(other))
    others = gateway.hand_out()
    for message in others:
        claim = gateway.ledger.report(report_of(waits, State.PROCESSING))
        gateway.attempt(message, State.EXPORTED)
        back = report_of(waits, State.QUEUED, AWAY, attempt=claim.attempt)
        assert gateway.ledger.report(back).proceed
    assert gateway.ledger.report(report_of(waits, State.PROCESSING)).left == left


@pytest.mark.parametrize("targets", [("a",), ()])
def test_a_target_that_a_study_does_not_go_to_stops_nothing_and_is_not_waited_for_for_ever(
    gateway: Gateway, targets: tuple[str, ...]
) -> None:
    gateway.take_in(*(str(number) for number in range(LIMITS[Blame.TARGET] + 1)), targets=targets)
    for message in gateway.hand_out():
        for left in range(MAX_ATTEMPTS, 0, -1):
            claim = gateway.ledger.report(report_of(message, State.PROCESSING))
            assert claim.left == left
            back = report_of(
                message,
                State.QUEUED if left > 1 else State.QUARANTINED,
                AWAY if left > 1 else Reason.BURNED_IN_TEXT,
                attempt=claim.attempt,
                target="b" if left > 1 else "",
                # Of a study that names its targets, the ledger can tell by itself.
                elsewhere=left > 1 and not targets,
            )
            assert gateway.ledger.report(back).proceed
    assert not any(circuit.is_open for circuit in gateway.ledger.circuits().values())
    gateway.take_in("next", targets=("b",))
    assert len(gateway.hand_out()) == 1


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


def test_a_target_that_no_worker_knows_stops_the_handing_out_before_all_have_failed(
    gateway: Gateway,
) -> None:
    gateway.take_in(*(str(number) for number in range(30)), targets=("renamed",))
    rest = gateway.outage(Reason.UNKNOWN_TARGET, Blame.WORKER)
    assert len(rest) == 30 - LIMITS[Blame.WORKER]
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


@pytest.mark.parametrize("reason", sorted(BROKEN_KINDS))
def test_study_after_study_of_one_kind_of_quarantine_stops_the_handing_out(
    gateway: Gateway, reason: Reason
) -> None:
    limit = LIMITS[Blame.RESULT]
    gateway.take_in(*(str(number) for number in range(limit + 10)))
    sent = gateway.hand_out()
    for message in sent:
        gateway.attempt(message, State.QUARANTINED, reason)
    assert gateway.opened() == {f"result:{reason.value}"}
    assert gateway.ledger.counts()[State.QUARANTINED] == limit
    assert gateway.ledger.counts()[State.PENDING] == 10
    # A person says that it is mended: all others go, and the trail says who.
    first = gateway.ledger.study(sent[0].job_id)
    assert first is not None
    assert gateway.ledger.again(first.job_id, revision=first.revision, actor="user ada")
    assert gateway.opened() == set()
    lines = gateway.ledger.lines(limit=10_000)
    assert [line.actor for line in lines if line.deed == Deed.HANDING_OUT_RESUMED] == ["user ada"]
    assert len(gateway.hand_out()) == 11


@pytest.mark.parametrize("reason", [Reason.RECOGNISABLE, Reason.FINDINGS_CHANGED])
def test_a_limit_that_no_result_of_a_model_keeps_does_not_quarantine_an_archive(
    gateway: Gateway, reason: Reason
) -> None:
    limit = LIMITS[Blame.RESULT]
    gateway.take_in(*(str(number) for number in range(limit + 10)))
    for message in gateway.hand_out():
        gateway.attempt(message, State.QUARANTINED, reason)
    assert gateway.ledger.counts()[State.QUARANTINED] == limit


def test_an_export_between_begins_the_count_of_each_kind_anew(gateway: Gateway) -> None:
    gateway.take_in(*(str(number) for number in range(60)))
    for number, message in enumerate(gateway.hand_out()):
        if number == 30:
            gateway.attempt(message, State.EXPORTED)
        else:
            gateway.attempt(message, State.QUARANTINED, Reason.BURNED_IN_TEXT)
    assert gateway.opened() == set()


def test_a_kind_that_tells_of_the_study_alone_stops_nothing(gateway: Gateway) -> None:
    gateway.take_in(*(str(number) for number in range(60)))
    for message in gateway.hand_out():
        gateway.attempt(message, State.QUARANTINED, Reason.NOT_A_CHEST_RADIOGRAPH)
    assert gateway.opened() == set()


def test_a_probe_that_is_exported_lets_the_kind_go_on(gateway: Gateway) -> None:
    gateway.take_in(*(str(number) for number in range(55)))
    for message in gateway.hand_out():
        gateway.attempt(message, State.QUARANTINED, Reason.PIXELS_NOT_SANE)
    gateway.clock.move(31)
    (probe,) = gateway.hand_out()
    gateway.attempt(probe, State.EXPORTED)
    assert gateway.opened() == set()
    assert len(gateway.hand_out()) == 4


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


def test_a_target_that_is_away_stops_the_studies_that_go_there_and_no_others(
    gateway: Gateway,
) -> None:
    gateway.take_in(*"abc", targets=("away",))
    for message in gateway.hand_out():
        gateway.attempt(message, State.QUEUED, AWAY, target="away")
    gateway.take_in(*"de", targets=("away", "well"))
    gateway.take_in(*"fg", targets=("well",))
    gateway.take_in("h")
    sent = gateway.hand_out()
    assert sorted(message.targets for message in sent) == [(), ("well",), ("well",)]
    for message in sent:
        gateway.attempt(message, State.EXPORTED)
    [circuit] = [one for one in gateway.ledger.circuits().values() if one.is_open]
    assert circuit.targets == ("away",)
    assert gateway.ledger.counts()[State.PENDING] == 2


def test_each_of_two_targets_that_are_away_gets_its_own_probe(gateway: Gateway) -> None:
    for target in ("one", "two"):
        names = [f"{target} {number}" for number in range(5)]
        gateway.take_in(*names, targets=(target,))
        for message in gateway.outage(AWAY):
            gateway.attempt(message, State.EXPORTED)
    gateway.clock.move(60)
    probes = gateway.hand_out()
    assert sorted(message.targets for message in probes) == [("one",), ("two",)]
    gateway.attempt(probes[0], State.EXPORTED)
    gateway.attempt(probes[1], State.QUEUED, AWAY, target=probes[1].targets[0])
    [circuit] = [one for one in gateway.ledger.circuits().values() if one.is_open]
    assert circuit.targets == probes[1].targets
    [other] = gateway.hand_out()
    assert other.targets == probes[0].targets


def test_a_study_for_two_targets_that_are_away_is_a_probe_when_both_want_one(
    gateway: Gateway,
) -> None:
    for number, target in enumerate(("one", "two")):
        gateway.take_in(*(f"{target} {it}" for it in range(3)), targets=(target,))
        gateway.clock.move(number)
        gateway.outage(AWAY)
    gateway.take_in("both", targets=("one", "two"))
    gateway.clock.move(60)
    [probe] = gateway.hand_out()
    assert probe.targets == ("one", "two")
    gateway.attempt(probe, State.EXPORTED)
    assert not any(one.is_open for one in gateway.ledger.circuits().values())


@pytest.mark.parametrize("named", ["b", ""])
def test_of_several_targets_the_one_that_the_worker_names_is_at_fault(
    gateway: Gateway, named: str
) -> None:
    gateway.take_in("x", "y", "z", targets=("a", "b"))
    for message in gateway.hand_out():
        gateway.attempt(message, State.QUEUED, REFUSED, target=named)
    gateway.take_in("only a", targets=("a",))
    gateway.take_in("only b", targets=("b",))
    gateway.take_in("both again", targets=("a", "b"))
    sent = sorted(message.targets for message in gateway.hand_out())
    # Workers of contract version 1 name none: then those wait that go to all of them.
    assert sent == ([("a",)] if named else [("a",), ("b",)])


def test_what_is_exported_beside_it_does_not_close_another_targets_circuit(
    gateway: Gateway,
) -> None:
    gateway.take_in(*"abc", targets=("away",))
    gateway.take_in("other", targets=("well",))
    *away, other = sorted(gateway.hand_out(), key=lambda message: message.targets)
    for message in away[:2]:
        gateway.attempt(message, State.QUEUED, AWAY, target="away")
    gateway.attempt(other, State.EXPORTED)
    gateway.attempt(away[2], State.QUEUED, AWAY, target="away")
    assert gateway.ledger.circuits()["target:away"].is_open


def test_a_worker_that_stops_costs_the_study_no_attempt_and_blames_nothing(
    gateway: Gateway,
) -> None:
    gateway.take_in("a")
    [message] = gateway.hand_out()
    for _ in range(3 * MAX_ATTEMPTS):
        claim = gateway.attempt(message, State.QUEUED, Reason.WORKER_STOPPED)
        assert claim.left == MAX_ATTEMPTS
    assert not any(circuit.studies for circuit in gateway.ledger.circuits().values())


def test_a_probe_that_another_circuit_has_come_to_hold_makes_room_for_one_that_may_go(
    gateway: Gateway,
) -> None:
    gateway.take_in(*"abcdef", targets=("one", "two"))
    sent = gateway.hand_out()
    claims = [gateway.ledger.report(report_of(message, State.PROCESSING)) for message in sent]
    for number, message in enumerate(sent):
        if number == 3:
            gateway.take_in("g", targets=("one", "two"))
            gateway.take_in("only one", targets=("one",))
            gateway.clock.move(30)
            [probe] = gateway.hand_out()
            assert probe.targets == ("one", "two")
        attempt = claims[number].attempt
        target = "one" if number < 3 else "two"
        back = report_of(message, State.QUEUED, AWAY, attempt=attempt, target=target)
        assert gateway.ledger.report(back).proceed
    assert gateway.opened() == {"target:one", "target:two"}
    assert not gateway.attempt(probe, State.EXPORTED).proceed, "it needs the other one, too"
    [instead] = gateway.hand_out()
    assert instead.targets == ("one",)
    assert gateway.attempt(instead, State.EXPORTED).proceed
    gateway.clock.move(30)
    # It serves the one that is left as well as any other does.
    [last] = gateway.hand_out()
    assert gateway.attempt(last, State.EXPORTED).proceed
    assert gateway.opened() == set()


def test_a_probe_that_waits_to_be_sent_is_not_sent_once_another_circuit_holds_it(
    gateway: Gateway,
) -> None:
    gateway.take_in(*"abc", targets=("one", "two"))
    both = gateway.hand_out()
    gateway.take_in(*"def", targets=("two",))
    two = gateway.hand_out()
    for message in both:
        gateway.attempt(message, State.QUEUED, AWAY, target="one")
    gateway.take_in("g", targets=("one", "two"))
    gateway.clock.move(30)
    chosen = gateway.ledger.probe()
    assert chosen is not None
    for message in two:
        gateway.attempt(message, State.QUEUED, AWAY, target="two")
    assert gateway.opened() == {"target:one", "target:two"}
    assert gateway.hand_out() == []
    gateway.clock.move(30)
    assert gateway.hand_out() == [chosen], "it serves both"
    assert gateway.attempt(chosen, State.EXPORTED).proceed
    assert gateway.opened() == set()


def test_a_study_that_a_living_worker_would_take_is_the_probe_rather_than_an_older_one(
    gateway: Gateway,
) -> None:
    gateway.take_in(*"abc")
    gateway.outage(AWAY)
    gateway.take_in("nobody takes it", queue="gpu")
    gateway.clock.move(1)
    gateway.take_in("d")
    gateway.clock.move(30)
    gateway.ledger.announce(announcement_of())
    [probe] = gateway.hand_out()
    assert gateway.broker.queues[probe.job_id] == ""


@dataclass(frozen=True)
class _Outage:
    """Three studies for ``targets`` fail at one of them; meanwhile one for ``arrives`` comes in."""

    at_fault: str
    targets: tuple[str, ...]
    arrives: tuple[str, ...]
    pause: int
    claimed: bool


def _to(at_fault: str) -> st.SearchStrategy[_Outage]:
    some = st.sampled_from([set("ab"), set("bc"), set("abc"), set()])
    return st.builds(
        _Outage,
        at_fault=st.just(at_fault),
        targets=some.map(lambda others: tuple(sorted({at_fault, *others}))),
        arrives=some.map(lambda others: tuple(sorted({at_fault, *others}))),
        pause=st.sampled_from([0, 5, 40, 700]),
        claimed=st.booleans(),
    )


@settings(max_examples=15, deadline=None)
@example(
    [
        _Outage("a", ("a", "b"), ("a", "b"), 40, claimed=False),
        _Outage("b", ("a", "b"), ("a", "b"), 0, claimed=False),
    ]
)
@given(st.lists(st.sampled_from("abc").flatmap(_to), min_size=2, max_size=6))
def test_whatever_failed_before_all_is_exported_soon_after_everything_is_well(
    outages: list[_Outage],
) -> None:
    gateway = Gateway(open_database("sqlite://"))
    for number, outage in enumerate(outages):
        gateway.take_in(*(f"{number} {it}" for it in "xyz"), targets=outage.targets)
    # Workers have all of them in hand, also those for a target whose circuit is open by then.
    in_hand: dict[tuple[str, ...], list[tuple[StudyMessage, Claim]]] = {}
    for message in gateway.hand_out():
        claim = gateway.ledger.report(report_of(message, State.PROCESSING))
        in_hand.setdefault(message.targets, []).append((message, claim))
    waiting: list[StudyMessage] = []
    for number, outage in enumerate(outages):
        for _ in range(LIMITS[Blame.TARGET]):
            message, claim = in_hand[outage.targets].pop()
            back = report_of(
                message, State.QUEUED, AWAY, attempt=claim.attempt, target=outage.at_fault
            )
            assert gateway.ledger.report(back).proceed
            waiting.append(message)  # as a worker's retry brings it again
        gateway.take_in(str(number), targets=outage.arrives)
        gateway.clock.move(outage.pause)
        waiting += gateway.hand_out()
        if outage.claimed:
            probes = [one for one in waiting if outage.at_fault in one.targets]
            for message in probes:
                gateway.attempt(message, State.QUEUED, AWAY, target=outage.at_fault)
    began, before = gateway.clock(), gateway.lines()
    while gateway.clock() - began < probe_pause(10) + timedelta(minutes=2):
        waiting += gateway.hand_out()
        for message in waiting:
            gateway.attempt(message, State.EXPORTED)
        waiting = []
        gateway.clock.move(60)
    assert gateway.ledger.counts()[State.EXPORTED] == 4 * len(outages)
    assert gateway.opened() == set()
    # Each study: put back, sent, put back and sent again, claimed, exported; each circuit: closed.
    assert gateway.lines() - before <= 6 * 4 * len(outages) + 3
