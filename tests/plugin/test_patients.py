"""A worker hears how many patients the UID of the study that it has claimed has, and no more."""

from __future__ import annotations

import json
from typing import Any

import pytest

from prichexy_plugin.dashboard.http import Request, Response
from prichexy_plugin.dashboard.routes import Site
from prichexy_plugin.intake import Decision
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.studies import OrthancStudies
from prichexy_testing.dashboard_reader import FakeGateway, login
from prichexy_testing.fake_orthanc import FakeOrthanc
from prichexy_testing.plugin_fakes import CHEST, FakeClock, report_of
from prichexy_worker.contract import API_ROOT, REQUEST_HEADER, State, StudyMessage

UID = "1.2.3"


@pytest.fixture
def orthanc(clock: FakeClock) -> FakeOrthanc:
    return FakeOrthanc(clock=clock)


@pytest.fixture
def site(ledger: Ledger, clock: FakeClock, orthanc: FakeOrthanc) -> Site:
    return Site(
        FakeGateway(ledger),
        problems=(),
        worker_user="worker",
        clock=clock,
        studies=OrthancStudies(orthanc),
    )


@pytest.fixture
def message(ledger: Ledger, clock: FakeClock, orthanc: FakeOrthanc) -> StudyMessage:
    """Give the message of a study that was handed out; another one has the same UID."""
    study = orthanc.store({**CHEST, "StudyInstanceUID": UID}, study="mine")
    orthanc.store({**CHEST, "StudyInstanceUID": "1.2.4"}, study="another")
    ledger.note({study: clock()}, cursor=1)
    ledger.settle(study, Decision(None), content="c", instances=1)
    [message] = ledger.outbox()
    ledger.sent(message)
    return message


def ask(site: Site, message: StudyMessage, user: str = "worker", **other: object) -> Response:
    asked = {"job_id": message.job_id, "revision": message.revision, "attempt": 1, **other}
    return site.answer(
        Request(
            method="POST",
            path=API_ROOT.removeprefix("/prichexy") + "/patients",
            query={},
            headers={REQUEST_HEADER.lower(): "3", **login(user)},
            body=json.dumps({"version": 3, **asked}).encode(),
        )
    )


def told(answer: Response) -> Any:
    assert answer.status == 200, answer.body
    return json.loads(answer.body)


NOTHING = {"version": 3, "proceed": False, "patients": 0}


def test_of_a_claimed_study_it_is_told(
    site: Site, message: StudyMessage, ledger: Ledger, orthanc: FakeOrthanc
) -> None:
    assert ledger.report(report_of(message, State.PROCESSING)).attempt == 1
    assert told(ask(site, message)) == {"version": 3, "proceed": True, "patients": 1}
    orthanc.store({**CHEST, "StudyInstanceUID": UID}, study="of another patient")
    assert told(ask(site, message))["patients"] == 2
    orthanc.delete(message.study_id)
    assert told(ask(site, message))["patients"] == 0


def test_without_the_claim_that_holds_nothing_is_told(
    site: Site, message: StudyMessage, ledger: Ledger, orthanc: FakeOrthanc
) -> None:
    assert told(ask(site, message)) == NOTHING
    ledger.report(report_of(message, State.PROCESSING))
    assert told(ask(site, message, job_id="0" * 32)) == NOTHING
    assert told(ask(site, message, attempt=2)) == NOTHING
    assert told(ask(site, message, revision=2)) == NOTHING
    ledger.report(report_of(message, State.EXPORTED, attempt=1))
    assert told(ask(site, message)) == NOTHING
    assert not [path for path in orthanc.asked if "lookup" in path]


def test_nobody_but_workers_is_answered(site: Site, message: StudyMessage) -> None:
    assert ask(site, message, user="admin").status == 403


@pytest.mark.parametrize("other", [{"attempt": 0}, {"job_id": "1.2.3"}, {"revision": None}])
def test_what_is_no_such_question_is_refused(
    site: Site, message: StudyMessage, other: dict[str, object]
) -> None:
    assert ask(site, message, **other).status == 422


@pytest.mark.parametrize("fault", [b"{}", 2038])
def test_where_orthanc_does_not_tell_the_worker_tries_again(
    site: Site, message: StudyMessage, ledger: Ledger, orthanc: FakeOrthanc, fault: int | bytes
) -> None:
    ledger.report(report_of(message, State.PROCESSING))
    orthanc.faults[f"/studies/{message.study_id}"] = fault
    assert ask(site, message).status == 503
    orthanc.faults.clear()
    orthanc.broken = True
    assert ask(site, message).status == 503
