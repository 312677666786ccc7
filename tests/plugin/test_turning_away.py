"""Whatever waits can be turned away, and then no worker exports it and no rule takes it in."""

from __future__ import annotations

from typing import Any

import pytest

from prichexy_plugin.dashboard.routes import Site
from prichexy_plugin.decisions import AS_TURNED_AWAY
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.records import StudyRecord
from prichexy_plugin.security import Role, Roles
from prichexy_testing.dashboard_reader import FakeGateway, Reader
from prichexy_testing.one_study import STUDY, Gateway
from prichexy_testing.plugin_fakes import report_of
from prichexy_worker.contract import Errand, Reason, State

ROLES = Roles({"omar": Role.OPERATOR, "vera": Role.VIEWER})
NO_CONSENT, NOT_NEEDED = Reason.NO_CONSENT, Reason.NOT_NEEDED


@pytest.fixture
def gateway() -> Any:
    one = Gateway()
    yield one
    one.engine.dispose()


def study_of(gateway: Gateway) -> StudyRecord:
    (study,) = gateway.ledger.studies().studies
    return study


def reader_of(gateway: Gateway, user: str = "omar") -> Reader:
    front = FakeGateway(gateway.ledger)
    return Reader(
        Site(front, problems=(), worker_user=None, clock=gateway.clock, roles=ROLES), user
    )


def turn_away(gateway: Gateway, reason: Reason = NO_CONSENT) -> str:
    """Press the button on the study's page; gives the name of what the page says afterwards."""
    omar, path = reader_of(gateway), f"/studies/{study_of(gateway).job_id}/reject"
    answer = omar.post(path, {**omar.page(path).fields, "reason": reason.value})
    return answer.headers["Location"].partition("note=")[2]


def arrive(gateway: Gateway) -> None:
    gateway.ledger.note({STUDY: gateway.clock()}, cursor=1)


def wait(gateway: Gateway, state: State) -> None:
    """Let the study come to where it waits in this state, and no worker had it."""
    if state is State.WATCHED:
        arrive(gateway)
        return
    gateway.look("1")
    if state is State.QUEUED:
        (message,) = gateway.ledger.outbox()
        gateway.ledger.sent(message)
    assert study_of(gateway).state is state


@pytest.mark.parametrize("state", [State.WATCHED, State.PENDING, State.QUEUED])
@pytest.mark.parametrize("reason", [NO_CONSENT, NOT_NEEDED])
def test_what_waits_and_no_worker_had_is_turned_away_at_once(
    gateway: Gateway, state: State, reason: Reason
) -> None:
    wait(gateway, state)
    messages = gateway.ledger.outbox()
    assert turn_away(gateway, reason) == "rejected"
    assert gateway.state() == (State.REJECTED, reason)
    assert gateway.ledger.outbox() == ()
    for message in messages:
        gateway.ledger.sent(message)
        assert not gateway.ledger.report(report_of(message, State.PROCESSING)).proceed
    assert gateway.look("1") == (State.REJECTED, reason), "what was arriving, or a backfill"
    assert gateway.look("1") == (State.REJECTED, reason)
    later = State.REJECTED if reason is NO_CONSENT else State.PENDING
    assert gateway.look("1", "2")[0] is later, "new images, unless nobody consents"
    assert gateway.ledger.verdict().standing == ()


def test_a_message_that_the_broker_has_is_void_then(gateway: Gateway) -> None:
    gateway.look("1")
    (message,) = gateway.ledger.outbox()
    gateway.ledger.sent(message)
    turn_away(gateway)
    assert not gateway.ledger.report(report_of(message, State.PROCESSING)).proceed
    assert gateway.state() == (State.REJECTED, NO_CONSENT)


@pytest.mark.parametrize("queued", [False, True])
def test_what_a_worker_may_have_sent_something_of_is_taken_back_first(
    gateway: Gateway, queued: bool
) -> None:
    gateway.look("1", targets=("archive",))
    message, attempt = gateway.take()
    assert gateway.may_export(message, attempt, "1")
    back = report_of(message, State.QUEUED, Reason.TARGET_UNREACHABLE, attempt=attempt)
    if queued:
        assert gateway.ledger.report(back).proceed
    else:
        gateway.clock.move(3 * 3600)
        assert gateway.ledger.recall(gateway.clock() - gateway.clock()) == 1
    assert turn_away(gateway) == "taken_back"
    assert gateway.state() == (State.PENDING, NO_CONSENT)
    assert "A worker takes back" in reader_of(gateway).page(f"/studies/{message.job_id}").text
    assert not gateway.may_export(message, attempt, "1"), "the one of before lives after all"
    assert gateway.look("1", "2") == (State.PENDING, NO_CONSENT)
    errand, claim = gateway.take()
    assert (errand.errand, errand.targets) == (Errand.WITHDRAW, ("archive",))
    done = report_of(errand, State.REJECTED, Reason.WITHDRAWN, attempt=claim)
    assert gateway.ledger.report(done).proceed
    assert gateway.state() == (State.REJECTED, NO_CONSENT)
    assert not study_of(gateway).stands
    assert gateway.look("1", "2", "3") == (State.REJECTED, NO_CONSENT)
    assert gateway.ledger.verdict().standing == ()


@pytest.mark.parametrize("reason", sorted(AS_TURNED_AWAY))
def test_what_comes_in_while_it_is_taken_back_is_judged_afterwards(
    gateway: Gateway, reason: Reason
) -> None:
    gateway.look("1", targets=("archive",))
    message, attempt = gateway.take()
    assert gateway.may_export(message, attempt, "1")
    back = report_of(message, State.QUEUED, Reason.TARGET_UNREACHABLE, attempt=attempt)
    assert gateway.ledger.report(back).proceed
    page = reader_of(gateway).page(f"/studies/{message.job_id}/reject").text
    assert "another one takes that back first" in page
    assert "Nothing is changed at any export target" not in page
    assert turn_away(gateway, reason) == "taken_back"
    assert gateway.look("1", "2") == (State.PENDING, reason)
    errand, claim = gateway.take()
    done = report_of(errand, State.REJECTED, Reason.WITHDRAWN, attempt=claim)
    assert gateway.ledger.report(done).proceed
    lasts = reason is NO_CONSENT
    new = gateway.look("1", "2", "3")
    assert new == ((State.REJECTED, reason) if lasts else (State.PENDING, None))


def test_where_that_fails_an_administrator_can_have_it_withdrawn(gateway: Gateway) -> None:
    gateway.look("1", targets=("archive",))
    message, attempt = gateway.take()
    gateway.ledger.report(
        report_of(message, State.QUEUED, Reason.TARGET_UNREACHABLE, attempt=attempt)
    )
    turn_away(gateway)
    errand, claim = gateway.take()
    stuck = {"targets_not_withdrawn": 1.0}
    failed = report_of(
        errand, State.FAILED, Reason.TARGET_UNREACHABLE, attempt=claim, measures=stuck
    )
    assert gateway.ledger.report(failed).proceed
    study = study_of(gateway)
    assert study.can_be_withdrawn
    assert not study.can_be_turned_away
    assert study.unconsented


def test_an_export_of_before_stays_where_its_new_images_are_turned_away(gateway: Gateway) -> None:
    gateway.look("1")
    gateway.export("1")
    gateway.look("1", "2")
    path = f"/studies/{study_of(gateway).job_id}/reject"
    assert "an administrator can have that withdrawn" in reader_of(gateway).page(path).text
    assert turn_away(gateway) == "rejected"
    study = study_of(gateway)
    assert (study.state, study.stands, study.can_be_withdrawn) == (State.REJECTED, True, True)


def test_what_a_worker_has_is_not_turned_away_and_its_page_says_when_it_can_be(
    gateway: Gateway,
) -> None:
    gateway.look("1")
    gateway.take()
    study = study_of(gateway)
    told = "A worker has it: it can be turned away when it waits again or is held."
    page = reader_of(gateway).page(f"/studies/{study.job_id}")
    assert told in page.text
    assert not [link for link in page.links if link.endswith("/reject")]
    assert told not in reader_of(gateway, "vera").page(f"/studies/{study.job_id}").text
    ledger: Ledger = gateway.ledger
    assert not ledger.turn_away(study.job_id, revision=1, actor="user omar", reason=NO_CONSENT)
    assert study_of(gateway) == study


def test_a_form_for_what_waited_does_nothing_once_a_worker_has_it(gateway: Gateway) -> None:
    gateway.look("1")
    omar, path = reader_of(gateway), f"/studies/{study_of(gateway).job_id}/reject"
    fields = {**omar.page(path).fields, "reason": NO_CONSENT.value}
    gateway.take()
    assert omar.post(path, fields).headers["Location"].endswith("note=moved")
    assert study_of(gateway).state is State.PROCESSING


@pytest.mark.parametrize("refused", [Reason.NO_RULE_MATCHES, None])
def test_a_rejected_study_can_be_turned_away_for_another_reason(
    gateway: Gateway, refused: Reason | None
) -> None:
    if refused is None:
        arrive(gateway)
        turn_away(gateway, NOT_NEEDED)
    else:
        gateway.look("1", refused=refused)
    assert turn_away(gateway, NO_CONSENT) == "rejected"
    assert gateway.state() == (State.REJECTED, NO_CONSENT)
    assert gateway.look("1", "2") == (State.REJECTED, NO_CONSENT)


def test_another_reason_makes_nobody_consent(gateway: Gateway) -> None:
    wait(gateway, State.PENDING)
    turn_away(gateway, NO_CONSENT)
    path = f"/studies/{study_of(gateway).job_id}/reject"
    assert "is not consented to goes on to hold" in reader_of(gateway).page(path).text
    turn_away(gateway, NOT_NEEDED)
    assert gateway.state() == (State.REJECTED, NOT_NEEDED)
    assert gateway.look("1", "2") == (State.REJECTED, NOT_NEEDED)
    study = study_of(gateway)
    assert gateway.ledger.again(study.job_id, revision=study.revision, actor="user omar")
    assert gateway.look("1", "2")[0] is State.PENDING


def test_what_no_rule_took_in_and_somebody_turned_away_is_not_taken_in_by_other_rules(
    gateway: Gateway,
) -> None:
    gateway.look("1", refused=Reason.NO_RULE_MATCHES)
    turn_away(gateway, NOT_NEEDED)
    assert gateway.ledger.due() == (STUDY,), "so that it is noted what was turned away"
    assert gateway.look("1") == (State.REJECTED, NOT_NEEDED)
    assert gateway.look("1", "2")[0] is State.PENDING
