"""The REST API that workers and the command line speak."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from prichexy_plugin.dashboard.http import Request, Response
from prichexy_plugin.dashboard.routes import Site
from prichexy_plugin.database import open_database
from prichexy_plugin.intake import Decision
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.pictures import OrthancPictures
from prichexy_testing.dashboard_reader import FakeGateway, Reader, login
from prichexy_testing.fake_orthanc import FakeOrthanc, orthanc_id
from prichexy_testing.plugin_fakes import FakeClock, announcement_of, report_of
from prichexy_worker.contract import (
    API_ROOT,
    CONTRACT_VERSION,
    MOST_TARGETS,
    REQUEST_HEADER,
    SOFTWARE_VERSION,
    Claim,
    Reason,
    State,
    StudyMessage,
    TargetInfo,
    TextPictures,
)

API = API_ROOT.removeprefix("/prichexy")
STUDY = orthanc_id("a")


@pytest.fixture
def gateway(clock: FakeClock) -> Iterator[FakeGateway]:
    engine = open_database("sqlite://")
    yield FakeGateway(Ledger(engine, clock))
    engine.dispose()


@pytest.fixture
def site(gateway: FakeGateway, clock: FakeClock, orthanc: FakeOrthanc) -> Site:
    return Site(
        gateway,
        problems=(),
        worker_user="worker",
        clock=clock,
        pictures=OrthancPictures(orthanc),
    )


@pytest.fixture
def orthanc() -> FakeOrthanc:
    """An Orthanc that holds the one study."""
    orthanc = FakeOrthanc()
    assert orthanc.store({}, study="a") == STUDY
    return orthanc


def _get(site: Site, path: str, **query: str) -> Response:
    return site.answer(Request("GET", f"{API}{path}", query=query))


def _post(
    site: Site, path: str, data: object, *, user: str = "worker", header: bool = True
) -> Response:
    headers = login(user)
    if header:
        headers[REQUEST_HEADER.lower()] = "1"
    body = data if isinstance(data, bytes) else json.dumps(data).encode()
    return site.answer(Request("POST", f"{API}{path}", headers=headers, body=body))


def _json(response: Response) -> Any:
    assert response.mime == "application/json"
    return json.loads(response.body)


def _take_in(gateway: FakeGateway, clock: FakeClock) -> StudyMessage:
    assert gateway.ledger is not None
    gateway.ledger.note({STUDY: clock()}, cursor=1)
    gateway.ledger.settle(STUDY, Decision(None), content="c", instances=2)
    message = gateway.ledger.outbox()[0]
    gateway.ledger.sent(message)
    return message


def test_health_tells_how_every_part_is(site: Site, gateway: FakeGateway, clock: FakeClock) -> None:
    _take_in(gateway, clock)
    gateway.targets = frozenset({"research", "archive"})
    gateway.queues = frozenset({"gpu", "celery"})
    assert _post(site, "/workers", announcement_of().to_json()).status == 200
    clock.move(12)
    health = _json(_get(site, "/health"))
    worker = health.pop("workers")[0]
    counts = health.pop("counts")
    assert health.pop("audit")["lines"] == 4
    assert gateway.ledger is not None
    assert health.pop("ledger_place") == gateway.ledger.place
    assert health == {
        "software": SOFTWARE_VERSION,
        "contract": CONTRACT_VERSION,
        "problems": [],
        "unreadable": 0,
        "circuits": [],
        "late": [],
        "pauses": [],
        "backfill": None,
        "targets": ["archive", "research"],
        "queues": ["celery", "gpu"],
        "other_keys": [],
        "ledger": "ok",
        "broker": {"reachable": True, "detail": "0 waiting for a worker"},
    }
    assert counts == {state.value: int(state is State.QUEUED) for state in State}
    assert worker["seen_seconds_ago"] == 12.0
    assert worker["device"] == "cpu"
    assert worker["model"]["evidence"] == "untrained"


def test_a_worker_may_tell_of_as_many_targets_as_the_contract_allows(
    site: Site, gateway: FakeGateway
) -> None:
    targets = tuple(
        TargetInfo(f"t{number}", "orthanc", f"https://h{number}", encrypted=True, check="read_back")
        for number in range(MOST_TARGETS)
    )
    told = replace(announcement_of(), queues=("prichexy",), targets=targets)
    assert _post(site, "/workers", told.to_json()).status == 200
    assert gateway.ledger is not None
    [worker] = gateway.ledger.workers()
    assert worker.announcement.targets == targets
    one_more = {**told.to_json(), "targets": [*told.to_json()["targets"], targets[0].to_json()]}
    assert _post(site, "/workers", one_more).status == 422


def test_a_study_is_listed_with_state_time_and_reason(
    site: Site, gateway: FakeGateway, clock: FakeClock
) -> None:
    message = _take_in(gateway, clock)
    _post(site, "/reports", report_of(message, State.PROCESSING).to_json())
    clock.move(3)
    quarantined = report_of(
        message,
        State.QUARANTINED,
        Reason.BURNED_IN_TEXT,
        attempt=1,
        durations={"text": 1.25},
        key_id="0123456789abcdef",
        profile="a" * 64,
    )
    _post(site, "/reports", quarantined.to_json())
    listed = _json(_get(site, "/studies"))
    assert listed == {
        "total": 1,
        "studies": [
            {
                "job_id": message.job_id,
                "study_id": STUDY,
                "state": "quarantined",
                "reason": "burned_in_text",
                "reason_sentence": Reason.BURNED_IN_TEXT.sentence,
                "revision": 1,
                "attempts": 1,
                "excused": 0,
                "instances": 2,
                "targets": [],
                "first_seen": "2026-03-01T08:00:00+00:00",
                "updated": "2026-03-01T08:00:03+00:00",
                "worker_id": "worker-1",
                "durations": {"text": 1.25},
                "measures": {},
                "key_id": "0123456789abcdef",
                "profile": "a" * 64,
            }
        ],
    }
    one = _json(_get(site, f"/studies/{message.job_id}"))
    events = one.pop("events")
    assert one == listed["studies"][0]
    assert events[-1] == {
        "at": "2026-03-01T08:00:03+00:00",
        "from": "processing",
        "to": "quarantined",
        "actor": "worker-1",
        "reason": "burned_in_text",
    }
    assert events[0]["from"] is None


def test_a_claim_is_answered(site: Site, gateway: FakeGateway, clock: FakeClock) -> None:
    message = _take_in(gateway, clock)
    first = _post(site, "/reports", report_of(message, State.PROCESSING).to_json())
    assert Claim.from_json(_json(first)) == Claim(proceed=True, attempt=1)
    _post(site, "/reports", report_of(message, State.EXPORTED, attempt=1).to_json())
    late = _post(site, "/reports", report_of(message, State.PROCESSING).to_json())
    assert Claim.from_json(_json(late)) == Claim(proceed=False)


@pytest.mark.parametrize("path", ["/reports", "/workers"])
def test_only_the_workers_user_may_report(site: Site, path: str) -> None:
    answer = _post(site, path, announcement_of().to_json(), user="admin")
    assert answer.status == 403
    anonymous = Request("POST", f"{API}{path}", headers={REQUEST_HEADER.lower(): "1"})
    assert site.answer(anonymous).status == 403


@pytest.mark.parametrize("path", ["/reports", "/workers"])
def test_nobody_may_report_when_no_workers_user_is_named(
    gateway: FakeGateway, clock: FakeClock, path: str
) -> None:
    site = Site(gateway, problems=(), worker_user=None, clock=clock)
    for user in ("admin", "worker", ""):
        assert _post(site, path, announcement_of().to_json(), user=user).status == 403
    assert gateway.ledger is not None
    assert gateway.ledger.workers() == ()


def test_health_names_what_keeps_the_watcher_from_its_work_and_counts_the_unreadable(
    site: Site, gateway: FakeGateway, clock: FakeClock
) -> None:
    gateway.troubles = ("watching: Orthanc does not answer the plugin.",)
    assert gateway.ledger is not None
    gateway.ledger.note({STUDY: clock()}, cursor=1)
    gateway.ledger.look_failed(STUDY, [timedelta(seconds=5)])
    health = _json(_get(site, "/health"))
    assert health["problems"] == ["watching: Orthanc does not answer the plugin."]
    assert health["unreadable"] == 1


@pytest.mark.parametrize("path", ["/reports", "/workers"])
def test_a_post_without_the_header_is_refused(site: Site, gateway: FakeGateway, path: str) -> None:
    assert _post(site, path, announcement_of().to_json(), header=False).status == 403
    assert gateway.ledger is not None
    assert gateway.ledger.workers() == ()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"not json", 422),
        (b"\xff", 422),
        ([], 422),
        ({}, 422),
        ({**announcement_of().to_json(), "version": CONTRACT_VERSION + 1}, 422),
        ({**announcement_of().to_json(1), "patient": "DOE^JANE"}, 422),
        (b"[" * 17, 422),
        (b"[" * 70_000, 413),
    ],
)
def test_a_body_that_does_not_fit_is_refused_by_its_kind(
    site: Site, body: object, status: int
) -> None:
    answer = _post(site, "/workers", body)
    assert answer.status == status
    assert "DOE" not in answer.body


@pytest.mark.parametrize(
    "query",
    [
        {"state": "lost"},
        {"limit": "0"},
        {"limit": "501"},
        {"limit": "-1"},
        {"limit": "ten"},
        {"limit": "²"},
        {"offset": "9" * 40},
    ],
)
def test_a_parameter_that_cannot_be_read_is_named(site: Site, query: Mapping[str, str]) -> None:
    answer = _get(site, "/studies", **query)
    assert answer.status == 400
    assert next(iter(query)) in _json(answer)["error"]


def test_studies_can_be_found_by_state_and_id(
    site: Site, gateway: FakeGateway, clock: FakeClock
) -> None:
    message = _take_in(gateway, clock)
    assert _json(_get(site, "/studies", state="queued"))["total"] == 1
    assert _json(_get(site, "/studies", state="failed"))["total"] == 0
    assert _json(_get(site, "/studies", study_id=STUDY))["total"] == 1
    assert _json(_get(site, "/studies", study_id=message.job_id))["total"] == 1
    assert _json(_get(site, "/studies", limit="1", offset="1")) == {"total": 1, "studies": []}


def test_what_is_not_there_is_404(site: Site) -> None:
    assert _get(site, f"/studies/{'0' * 32}").status == 404
    assert _get(site, "/nothing").status == 404
    assert _get(site, "").status == 404


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/health", "GET"),
        ("DELETE", "/studies", "GET"),
        ("GET", "/reports", "POST"),
        ("PUT", "/workers", "POST"),
    ],
)
def test_other_methods_are_refused(site: Site, method: str, path: str, allowed: str) -> None:
    answer = site.answer(Request(method, f"{API}{path}"))
    assert answer.status == 405
    assert answer.headers == {"Allow": allowed}


def test_with_a_wrong_configuration_health_names_the_key(clock: FakeClock) -> None:
    site = Site(None, problems=("PriCheXy.Broker.Url: is wrong.",), worker_user=None, clock=clock)
    health = _json(_get(site, "/health"))
    assert health["problems"] == ["PriCheXy.Broker.Url: is wrong."]
    assert health["ledger"] != "ok"
    assert not health["broker"]["reachable"]
    assert _get(site, "/studies").status == 503
    assert _post(site, "/reports", {}).status == 503


def test_a_ledger_that_fails_is_said_and_does_not_break_health(
    site: Site, gateway: FakeGateway
) -> None:
    engine = open_database("sqlite://")
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE studies")
    gateway.ledger = Ledger(engine, FakeClock())
    assert _json(_get(site, "/health"))["ledger"] == "does not work (OperationalError)"
    assert _get(site, "/studies").status == 503
    engine.dispose()


PICTURES = (b"\x89PNG\r\n\x1a\nfirst", b"\x89PNG\r\n\x1a\nsecond")


def _show(site: Site, message: StudyMessage, attempt: int = 1, **asked: Any) -> Response:
    shown = TextPictures(message.job_id, message.revision, attempt, PICTURES)
    return _post(site, "/pictures", shown.to_json(), **asked)


def _look(site: Site, message: StudyMessage, number: int) -> Response:
    return Reader(site, "admin").ask(f"/studies/{message.job_id}/text-{number}.png")


def test_pictures_are_kept_beside_the_study_and_shown_while_a_human_must_decide(
    site: Site, gateway: FakeGateway, clock: FakeClock, orthanc: FakeOrthanc
) -> None:
    message = _take_in(gateway, clock)
    _post(site, "/reports", report_of(message, State.PROCESSING).to_json())
    assert Claim.from_json(_json(_show(site, message))).proceed
    assert {study for study, _number in orthanc.attachments} == {STUDY}
    assert _look(site, message, 1).status == 404, "nobody has said yet that a human must look"
    quarantined = report_of(
        message, State.QUARANTINED, Reason.BURNED_IN_TEXT, attempt=1, measures={"text_pictures": 2}
    )
    _post(site, "/reports", quarantined.to_json())
    answers = [_look(site, message, number) for number in (1, 2)]
    assert [answer.body for answer in answers] == list(PICTURES)
    assert {(answer.status, answer.mime) for answer in answers} == {(200, "image/png")}
    assert _look(site, message, 3).status == 404
    links = Reader(site, "admin").page(f"/studies/{message.job_id}").links
    assert f"../../prichexy/studies/{message.job_id}/text-2.png" in links
    assert not [link for link in links if "text-3.png" in link]
    assert Reader(site, "admin").page("/studies").text.count("2 regions in doubt") == 1
    orthanc.delete(STUDY)
    orthanc.attachments.clear()
    assert _look(site, message, 1).status == 404


def test_pictures_without_the_claim_that_holds_are_not_kept(
    site: Site, gateway: FakeGateway, clock: FakeClock, orthanc: FakeOrthanc
) -> None:
    message = _take_in(gateway, clock)
    assert not Claim.from_json(_json(_show(site, message))).proceed
    _post(site, "/reports", report_of(message, State.PROCESSING).to_json())
    assert not Claim.from_json(_json(_show(site, message, attempt=2))).proceed
    assert orthanc.attachments == {}


def test_pictures_come_from_the_workers_user_alone(
    site: Site, gateway: FakeGateway, clock: FakeClock
) -> None:
    message = _take_in(gateway, clock)
    assert _show(site, message, user="admin").status == 403
    assert _show(site, message, header=False).status == 403


def test_pictures_that_orthanc_does_not_take_are_not_said_to_be_kept(
    site: Site, gateway: FakeGateway, clock: FakeClock, orthanc: FakeOrthanc
) -> None:
    message = _take_in(gateway, clock)
    _post(site, "/reports", report_of(message, State.PROCESSING).to_json())
    orthanc.broken = True
    assert _show(site, message).status == 503, "the claim holds; only the picture is not kept"
