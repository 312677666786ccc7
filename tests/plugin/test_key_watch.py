"""What goes to one place goes there under one key of the pseudonyms, whoever works."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import Engine, delete
from sqlalchemy.orm import Session

from prichexy_plugin.dashboard.routes import Site
from prichexy_plugin.intake import Decision
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.records import StudyRecord
from prichexy_plugin.schema import StudyRow
from prichexy_testing.dashboard_reader import FakeGateway, Reader
from prichexy_testing.fake_orthanc import orthanc_id
from prichexy_testing.plugin_fakes import FakeClock, report_of
from prichexy_worker.contract import Claim, Errand, Reason, State, StudyMessage

ONE, OTHER = "1" * 16, "2" * 16


def _message(ledger: Ledger, clock: FakeClock, name: str, *targets: str) -> StudyMessage:
    ledger.note({orthanc_id(name): clock()}, cursor=1)
    ledger.settle(orthanc_id(name), Decision(None, targets), content=name, instances=1)
    [message] = [one for one in ledger.outbox() if one.study_id == orthanc_id(name)]
    ledger.sent(message)
    return message


def _claim(ledger: Ledger, message: StudyMessage, key: str, *retired: str) -> Claim:
    asked = report_of(message, State.PROCESSING, worker_id=f"worker-{key[:1]}")
    return ledger.report(replace(asked, key_id=key, retired_keys=retired))


def _export(ledger: Ledger, message: StudyMessage, key: str, *retired: str) -> None:
    claim = _claim(ledger, message, key, *retired)
    assert claim.proceed
    end = report_of(message, State.EXPORTED, attempt=claim.attempt, instances=1)
    assert ledger.report(replace(end, key_id=key, retired_keys=retired)).proceed


def test_a_worker_with_another_key_gets_no_study_and_costs_none_an_attempt(
    ledger: Ledger, clock: FakeClock
) -> None:
    _export(ledger, _message(ledger, clock, "a"), ONE)
    message = _message(ledger, clock, "b")
    assert _claim(ledger, message, OTHER) == Claim(proceed=False, another_key=True)
    study = ledger.study(message.job_id)
    assert study is not None
    assert (study.state, study.attempts, study.key_id) == (State.QUEUED, 0, "")
    [refusal] = ledger.other_keys()
    assert (refusal.worker_id, refusal.key_id, refusal.known) == ("worker-2", OTHER, ONE)
    _export(ledger, message, ONE)


def test_the_key_is_known_after_a_restart(ledger: Ledger, engine: Engine, clock: FakeClock) -> None:
    _export(ledger, _message(ledger, clock, "a"), ONE)
    again = Ledger(engine, clock)
    assert not _claim(again, _message(again, clock, "b"), OTHER).proceed
    accepting = Ledger(engine, clock, accepted_keys=[OTHER])
    _export(accepting, _message(accepting, clock, "c"), OTHER)
    assert not _claim(accepting, _message(accepting, clock, "d"), ONE).proceed


def test_a_key_is_changed_by_naming_the_former_one_and_the_former_one_is_over(
    ledger: Ledger, clock: FakeClock
) -> None:
    _export(ledger, _message(ledger, clock, "a"), ONE)
    _export(ledger, _message(ledger, clock, "b"), OTHER, "3" * 16, ONE)
    assert not _claim(ledger, _message(ledger, clock, "c"), ONE).proceed
    _export(ledger, _message(ledger, clock, "d"), OTHER)


def test_two_projects_export_to_two_places_under_two_keys(
    ledger: Ledger, engine: Engine, clock: FakeClock
) -> None:
    _export(ledger, _message(ledger, clock, "a", "one"), ONE)
    accepting = Ledger(engine, clock, accepted_keys=[OTHER])
    _export(accepting, _message(accepting, clock, "b", "two"), OTHER)
    assert not _claim(ledger, _message(ledger, clock, "c", "one"), OTHER).proceed
    _export(ledger, _message(ledger, clock, "d", "one"), ONE)
    _export(ledger, _message(ledger, clock, "e", "two"), OTHER)


def test_a_place_that_nothing_went_to_takes_no_key_that_is_nobodys(
    ledger: Ledger, clock: FakeClock
) -> None:
    _export(ledger, _message(ledger, clock, "a"), ONE)
    message = _message(ledger, clock, "b", "new")
    assert _claim(ledger, message, OTHER) == Claim(proceed=False, another_key=True)
    [refusal] = ledger.other_keys()
    assert (refusal.known, refusal.targets) == (ONE, ("new",))
    _export(ledger, message, ONE)
    assert ledger.other_keys() == (refusal,), "of the other worker"
    _export(ledger, _message(ledger, clock, "c", "newer"), OTHER, ONE)


def test_the_key_of_a_place_is_known_when_much_else_came_since_and_its_study_is_forgotten(
    ledger: Ledger, engine: Engine, clock: FakeClock
) -> None:
    _export(ledger, _message(ledger, clock, "a", "one", "two"), ONE)
    with Session(engine) as session, session.begin():
        session.execute(delete(StudyRow))
    again = Ledger(engine, clock)
    message = _message(again, clock, "b", "two", "one")
    assert not _claim(again, message, OTHER).proceed
    _export(again, message, ONE)


def test_a_worker_that_tells_no_key_is_one_of_before(ledger: Ledger, clock: FakeClock) -> None:
    _export(ledger, _message(ledger, clock, "a"), ONE)
    assert _claim(ledger, _message(ledger, clock, "b"), "").proceed


def _withdraw(ledger: Ledger, job_id: str) -> StudyMessage:
    study = ledger.study(job_id)
    assert study is not None
    assert ledger.order_withdrawal(
        job_id, revision=study.revision, actor="user anna", reason=Reason.WITHDRAWN_CONSENT
    )
    [message] = [one for one in ledger.outbox() if one.job_id == job_id]
    ledger.sent(message)
    return message


def _again(ledger: Ledger, job_id: str) -> StudyMessage:
    study = ledger.study(job_id)
    assert study is not None
    assert ledger.again(job_id, revision=study.revision, actor="user anna")
    [message] = ledger.outbox()
    ledger.sent(message)
    return message


def _withdrawn(ledger: Ledger, message: StudyMessage, key: str, *retired: str) -> StudyRecord:
    """Let a worker with these keys withdraw the study, and give the study as it is then."""
    claim = _claim(ledger, message, key, *retired)
    assert claim.proceed
    end = report_of(message, State.REJECTED, Reason.WITHDRAWN, attempt=claim.attempt)
    assert ledger.report(replace(end, key_id=key, retired_keys=retired)).proceed
    study = ledger.study(message.job_id)
    assert study is not None
    return study


def test_only_a_worker_that_has_the_key_of_an_export_withdraws_it(
    ledger: Ledger, clock: FakeClock
) -> None:
    first = _message(ledger, clock, "a")
    _export(ledger, first, ONE)
    _export(ledger, _message(ledger, clock, "b"), OTHER, ONE)
    message = _withdraw(ledger, first.job_id)
    assert _claim(ledger, message, OTHER) == Claim(proceed=False, another_key=True)
    [refusal] = ledger.other_keys()
    assert (refusal.key_id, refusal.known) == (OTHER, ONE)
    study = _withdrawn(ledger, message, OTHER, ONE)
    assert (study.state, study.reason) == (State.REJECTED, Reason.WITHDRAWN_CONSENT)
    assert not study.stands


def test_a_worker_whose_key_is_accepted_says_of_no_export_under_another_that_it_is_gone(
    ledger: Ledger, engine: Engine, clock: FakeClock
) -> None:
    first = _message(ledger, clock, "a", "archive")
    _export(ledger, first, ONE)
    accepting = Ledger(engine, clock, accepted_keys=[OTHER])
    study = _withdrawn(accepting, _withdraw(accepting, first.job_id), OTHER)
    assert (study.state, study.reason) == (State.FAILED, Reason.ANOTHER_KEY)
    assert (study.stands, study.left_at) == (True, ("archive",))
    assert study.exported_keys == (ONE,)
    message = _again(accepting, study.job_id)
    assert message.errand is Errand.WITHDRAW
    study = _withdrawn(accepting, message, OTHER, ONE)
    assert (study.state, study.stands, study.left_at) == (State.REJECTED, False, ())


def test_what_stands_under_two_keys_is_withdrawn_with_both(
    ledger: Ledger, engine: Engine, clock: FakeClock
) -> None:
    first = _message(ledger, clock, "a")
    _export(ledger, first, ONE)
    accepting = Ledger(engine, clock, accepted_keys=[OTHER])
    message = _again(accepting, first.job_id)
    _export(accepting, message, OTHER)
    study = _withdrawn(accepting, _withdraw(accepting, first.job_id), OTHER)
    assert (study.state, study.reason, study.stands) == (State.FAILED, Reason.ANOTHER_KEY, True)


def test_the_former_key_stays_known_where_a_target_did_not_let_go(
    ledger: Ledger, clock: FakeClock
) -> None:
    first = _message(ledger, clock, "a", "archive")
    _export(ledger, first, ONE)
    for left, keys in ((("old",), (ONE, OTHER)), ((), (OTHER,))):
        study = ledger.study(first.job_id)
        assert study is not None
        assert ledger.again(study.job_id, revision=study.revision, actor="user anna")
        [message] = ledger.outbox()
        ledger.sent(message)
        claim = _claim(ledger, message, OTHER, ONE)
        end = report_of(message, State.EXPORTED, attempt=claim.attempt, left_at=left)
        assert ledger.report(replace(end, key_id=OTHER, retired_keys=(ONE,))).proceed
        study = ledger.study(first.job_id)
        assert study is not None
        assert (study.exported_keys, study.left_at) == (keys, left)


def test_an_export_under_another_key_stands_whatever_becomes_of_its_study(
    ledger: Ledger, engine: Engine, clock: FakeClock
) -> None:
    first = _message(ledger, clock, "a")
    _export(ledger, first, ONE)
    accepting = Ledger(engine, clock, accepted_keys=[OTHER])
    message = _again(accepting, first.job_id)
    claim = _claim(accepting, message, OTHER)
    end = report_of(message, State.QUARANTINED, Reason.COLOUR, attempt=claim.attempt)
    assert accepting.report(replace(end, key_id=OTHER)).proceed
    study = accepting.study(first.job_id)
    assert study is not None
    assert study.stands
    assert "An export of before still stands" in (study.reason_sentence or "")


@pytest.mark.parametrize("mended", [True, False])
def test_the_overview_names_the_worker_until_it_is_mended(
    ledger: Ledger, clock: FakeClock, mended: bool
) -> None:
    site = Site(FakeGateway(ledger), problems=(), worker_user=None, clock=clock)
    _export(ledger, _message(ledger, clock, "a"), ONE)
    message = _message(ledger, clock, "b")
    _claim(ledger, message, OTHER)
    said = "Worker worker-2 has another pseudonyms' key"
    assert said in Reader(site, "anna").page().text
    if mended:
        asked = report_of(message, State.PROCESSING, worker_id="worker-2")
        assert ledger.report(replace(asked, key_id=ONE)).proceed
    else:
        clock.now += timedelta(minutes=31)
    assert said not in Reader(site, "anna").page().text
