"""What people and the command line do leaves its line in the audit trail."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from prichexy_gateway.client import _CHANGES_AT_A_TIME, OrthancClient
from prichexy_gateway.deeds import note, noted, system_user
from prichexy_gateway.home import Home
from prichexy_plugin.dashboard.http import Request, Response
from prichexy_plugin.dashboard.routes import Site
from prichexy_plugin.intake import Decision, Rule
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.model_changes import MOST_CHANGES
from prichexy_plugin.outside_deeds import MOST_DEEDS
from prichexy_plugin.pictures import OrthancPictures
from prichexy_plugin.relay import BrokerState
from prichexy_store.history import Change, Version
from prichexy_testing.fake_orthanc import FakeOrthanc
from prichexy_testing.plugin_fakes import FakeClock, report_of
from prichexy_worker.contract import API_ROOT, REQUEST_HEADER, Reason, State, TextPictures

API = API_ROOT.removeprefix("/prichexy")
PNG = b"\x89PNG\r\n\x1a\n"
CHANGE = Change(
    at="2026-03-01T08:00:00+00:00",
    by="anna as root@host",
    action="rolled back",
    version=Version("a" * 64, "unet", "1", "b" * 64, "as shipped", "trained", "Trained."),
    former="c" * 64,
    reason="free text that stays in the store",
    forced=True,
)


class Gateway:
    """A gateway of nothing but its ledger."""

    ledger_state = "ok"
    broker_state = BrokerState(True, "0 waiting for a worker", None)
    troubles: tuple[str, ...] = ()
    targets: frozenset[str] = frozenset()
    rules: tuple[Rule, ...] = ()
    queues: frozenset[str] = frozenset()

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def start_backfill(self, per_minute: int, by: str) -> Any:
        return self.ledger.start_backfill(per_minute=per_minute, total=1, by=by)


@pytest.fixture
def orthanc() -> FakeOrthanc:
    return FakeOrthanc()


@pytest.fixture
def site(ledger: Ledger, clock: FakeClock, orthanc: FakeOrthanc) -> Site:
    return Site(
        Gateway(ledger),
        problems=(),
        worker_user="worker",
        clock=clock,
        pictures=OrthancPictures(orthanc),
    )


@pytest.fixture
def client(site: Site) -> Iterator[OrthancClient]:
    """Give a client of the site, as the command line has it."""

    def answer(request: httpx.Request) -> httpx.Response:
        asked = Request(
            request.method,
            request.url.path.removeprefix("/prichexy"),
            headers={key.lower(): value for key, value in request.headers.items()},
            body=request.content,
        )
        response = site.answer(asked)
        return httpx.Response(response.status, content=response.body)

    transport = httpx.MockTransport(answer)
    with OrthancClient("The ingest Orthanc", "http://h", "admin", "x", transport=transport) as one:
        yield one


def _ask(
    site: Site, method: str, path: str, *, user: str, body: bytes = b"", marked: bool = True
) -> Response:
    headers = {"authorization": "Basic " + base64.b64encode(f"{user}:x".encode()).decode()}
    if marked:
        headers[REQUEST_HEADER.lower()] = "1"
    return site.answer(Request(method, path, headers=headers, body=body))


def test_health_says_where_the_trail_ends_and_what_the_syslog_server_has_not_got(
    site: Site, ledger: Ledger
) -> None:
    def audit() -> Any:
        answer = _ask(site, "GET", f"{API}/health", user="anna")
        return json.loads(answer.body)["audit"]

    assert audit()["untold"] is None, "there is no server"
    ledger.begin({}, tells=True)
    head = ledger.chain_state().head
    assert audit() == {
        "head": {"number": 1, "digest": head.digest},
        "checkpoint": {"number": 0, "digest": "0" * 64},
        "lines": 1,
        "keyed": False,
        "ends_at_head": True,
        "untold": 1,
    }
    ledger.note_told(1)
    assert audit()["untold"] == 0


def test_each_change_of_the_model_store_becomes_one_line(
    client: OrthancClient, ledger: Ledger
) -> None:
    first = replace(CHANGE, action="installed", by="prichexy serve", former=None, forced=False)
    client.tell_model_changes([first])
    client.tell_model_changes([first, CHANGE])
    client.tell_model_changes([first, CHANGE])
    lines = ledger.lines()
    assert [(line.deed, line.actor) for line in lines] == [
        ("model_changed", "user admin"),
        ("model_changed", "user admin"),
    ], "who told it is known, and who did it is what the history says"
    assert lines[0].details["by"] == "prichexy serve"
    assert lines[1].details == {
        "action": "rolled back",
        "by": "anna as root@host",
        "bundle": "a" * 64,
        "model": "b" * 64,
        "former": "c" * 64,
        "changed_at": "2026-03-01T08:00:00+00:00",
        "place": 2,
        "forced": 1,
    }


def test_nobody_silences_a_history_or_takes_anothers_name(
    site: Site, client: OrthancClient, ledger: Ledger
) -> None:
    far = {"place": 2**31 - 1, "by": "user omar", "at": CHANGE.at, "action": "promoted"}
    digests = {"bundle": "1" * 64, "model": "2" * 64, "former": "", "forced": False}
    body = json.dumps({"changes": [far | digests]}).encode()
    assert _ask(site, "POST", f"{API}/models", user="anna", body=body).status == 200
    client.tell_model_changes([CHANGE])
    assert [(line.actor, line.details["by"]) for line in ledger.lines()] == [
        ("user anna", "user omar"),
        ("user admin", CHANGE.by),
    ]
    client.tell_model_changes([replace(CHANGE, at="2026-04-01T08:00:00+00:00")])
    assert len(ledger.lines()) == 3, "another store's history is known apart"


def test_a_long_history_is_told_in_parts(client: OrthancClient, ledger: Ledger) -> None:
    assert _CHANGES_AT_A_TIME == MOST_CHANGES
    client.tell_model_changes([CHANGE] * (2 * MOST_CHANGES + 3))
    places = [line.details["place"] for line in ledger.lines()]
    assert places == [*range(1, 2 * MOST_CHANGES + 4)]


def test_each_deed_of_the_command_line_becomes_one_line(
    client: OrthancClient, ledger: Ledger, tmp_path: Path
) -> None:
    home = Home(tmp_path)
    for number in range(2 * MOST_DEEDS):
        note(home, "backup", key_id="a" * 16, studies=number, recipients=["age1y", "age1x"])
        client.tell_deeds(noted(home))
    lines = ledger.lines()
    assert [line.details["studies"] for line in lines] == [*range(2 * MOST_DEEDS)]
    assert {(line.deed, line.actor) for line in lines} == {("action", "user admin")}
    readers = hashlib.sha256(b"age1x\nage1y\n").hexdigest()
    assert lines[0].details == {
        "action": "backup",
        "by": system_user(),
        "done_at": noted(home)[0].at,
        "pseudonyms": "a" * 16,
        "studies": 0,
        "recipients": 2,
        "readers": readers,
    }


@pytest.mark.parametrize(
    ("path", "body"), [("models", b'{"changes": []}'), ("deeds", b'{"deeds": []}')]
)
def test_the_workers_user_and_other_sites_pages_tell_of_nothing(
    site: Site, path: str, body: bytes
) -> None:
    assert _ask(site, "POST", f"{API}/{path}", user="worker", body=body).status == 403
    unmarked = _ask(site, "POST", f"{API}/{path}", user="anna", body=body, marked=False)
    assert unmarked.status == 403
    assert _ask(site, "GET", f"{API}/{path}", user="anna").status == 405
    assert _ask(site, "POST", f"{API}/{path}", user="anna", body=body).status == 200


@pytest.mark.parametrize(
    "change",
    [
        {"place": 0},
        {"place": True},
        {"by": ""},
        {"by": "a\nb"},
        {"bundle": "x"},
        {"former": 7},
        {"forced": 1},
        {"at": "yesterday, DOE^JANE"},
        {"more": 1},
    ],
)
def test_a_change_of_an_odd_form_is_refused_and_not_repeated(
    site: Site, ledger: Ledger, change: dict[str, Any]
) -> None:
    whole = {
        "place": 1,
        "at": "2026-03-01T08:00:00+00:00",
        "by": "anna",
        "action": "promoted",
        "bundle": "a" * 64,
        "model": "b" * 64,
        "former": "",
        "forced": False,
    }
    good = json.dumps({"changes": [whole]}).encode()
    bad = json.dumps({"changes": [{**whole, **change}]}).encode()
    answer = _ask(site, "POST", f"{API}/models", user="anna", body=bad)
    assert answer.status == 422
    assert "DOE" not in str(answer.body)
    for odd, status in ((b"no json", 422), (b"{" * 20, 413), (b"[]", 422)):
        assert _ask(site, "POST", f"{API}/models", user="anna", body=odd).status == status
    assert ledger.lines() == ()
    assert _ask(site, "POST", f"{API}/models", user="anna", body=good).status == 200


def test_who_looks_at_a_picture_is_written_down_once_an_hour(
    site: Site, ledger: Ledger, clock: FakeClock, orthanc: FakeOrthanc
) -> None:
    study = orthanc.store({}, study="a")
    ledger.note({study: clock()}, cursor=1)
    ledger.settle(study, Decision(None), content="c", instances=1)
    [message] = ledger.outbox()
    attempt = ledger.report(report_of(message, State.PROCESSING)).attempt
    shown = TextPictures(message.job_id, 1, attempt, (PNG, PNG))
    body = json.dumps(shown.to_json()).encode()
    assert _ask(site, "POST", f"{API}/pictures", user="worker", body=body).status == 200
    measures = {"text_pictures": 2.0}
    reason = Reason.BURNED_IN_TEXT
    ledger.report(report_of(message, State.QUARANTINED, reason, attempt=attempt, measures=measures))

    def look(user: str, number: int = 1) -> int:
        path = f"/studies/{message.job_id}/text-{number}.png"
        return _ask(site, "GET", path, user=user).status

    def seen() -> list[str]:
        lines = ledger.lines(job_id=message.job_id)
        return [line.actor for line in lines if line.deed == "pictures_shown"]

    assert (look("anna"), look("anna", 2), look("ben")) == (200, 200, 200)
    assert seen() == ["user anna", "user ben"]
    assert look("anna", 3) == 404
    clock.move(3601)
    assert look("anna") == 200
    assert seen() == ["user anna", "user ben", "user anna"]
    kept = [line for line in ledger.lines() if line.deed == "pictures_kept"]
    assert [(line.actor, line.details["pictures"]) for line in kept] == [("worker-1", 2)]
