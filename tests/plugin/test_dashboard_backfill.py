"""The button and the address that begin a backfill: who may, and that nobody else can."""

from __future__ import annotations

import json
from urllib.parse import urlencode

import pytest

from prichexy_plugin.backfill import DEFAULT_RATE, MAX_RATE
from prichexy_plugin.dashboard.http import Request, Response
from prichexy_plugin.dashboard.routes import Site
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.security import Role, Roles
from prichexy_testing.dashboard_reader import FORM, FakeGateway, Reader, login
from prichexy_testing.plugin_fakes import FakeClock
from prichexy_worker.contract import API_ROOT, REQUEST_HEADER

API = API_ROOT.removeprefix("/prichexy")
ROLES = Roles({"admin": Role.OPERATOR, "another": Role.OPERATOR, "vera": Role.VIEWER})


@pytest.fixture
def gateway(ledger: Ledger) -> FakeGateway:
    return FakeGateway(ledger)


@pytest.fixture
def site(gateway: FakeGateway, clock: FakeClock) -> Site:
    return Site(gateway, problems=(), worker_user="worker", clock=clock, roles=ROLES)


def _token(site: Site, user: str = "admin") -> str:
    return Reader(site, user).page().fields["token"]


def _submit(
    site: Site, fields: dict[str, str], *, user: str = "admin", mime: str = FORM, **headers: str
) -> Response:
    return Reader(site, user).post("/backfill", fields, {"content-type": mime, **headers})


def _running(gateway: FakeGateway) -> bool:
    assert gateway.ledger is not None
    backfill = gateway.ledger.backfill()
    return backfill is not None and backfill.running


def test_the_button_begins_a_backfill_in_the_users_name_and_shows_the_page_again(
    site: Site, gateway: FakeGateway
) -> None:
    answer = _submit(site, {"token": _token(site), "per_minute": "90"})
    shown = "../prichexy?note=begun#backfill-title"
    assert (answer.status, answer.headers["Location"]) == (303, shown)
    assert "Done. The backfill has begun." in Reader(site, "admin").page(note="begun").text
    assert gateway.ledger is not None
    backfill = gateway.ledger.backfill()
    assert backfill is not None
    assert (backfill.per_minute, backfill.started_by, backfill.running) == (90, "admin", True)


def test_the_page_shows_how_far_it_is_and_stops_it(site: Site, gateway: FakeGateway) -> None:
    page = site.answer(Request("GET", "", headers=login("admin"))).body
    assert f'value="{DEFAULT_RATE}"' in page
    assert "Take in what was here before" in page
    _submit(site, {"token": _token(site), "per_minute": "90"})
    page = site.answer(Request("GET", "", headers=login("admin"))).body
    assert "0 of 7 studies read" in page
    assert "Stop the backfill" in page
    answer = _submit(site, Reader(site, "admin").page().fields)
    assert answer.headers["Location"].endswith("?note=stopped#backfill-title")
    assert not _running(gateway)
    assert "The backfill is stopped" in Reader(site, "admin").page(note="stopped").text
    assert "Stopped by admin" in Reader(site, "admin").page().text


def test_a_page_that_stood_open_stops_no_other_backfill(site: Site, gateway: FakeGateway) -> None:
    admin = Reader(site, "admin")
    _submit(site, {"token": _token(site), "per_minute": "90"})
    fields = admin.page().fields
    assert gateway.ledger is not None
    gateway.ledger.stop_backfill("another")
    token = _token(site, "another")
    _submit(site, {"token": token, "per_minute": "30"}, user="another")
    answer = _submit(site, fields)
    assert answer.headers["Location"].endswith("?note=other#backfill-title")
    assert _running(gateway)
    assert "the backfill that you saw had ended" in admin.page(note="other").text
    assert _submit(site, {**fields, "number": ""}).status == 400
    assert _running(gateway)


def test_who_begins_one_while_another_is_under_way_is_told(
    site: Site, gateway: FakeGateway
) -> None:
    shown = {"token": _token(site), "per_minute": "90"}
    _submit(site, {**shown, "token": _token(site, "another")}, user="another")
    answer = _submit(site, shown)
    assert answer.headers["Location"].endswith("?note=rated#backfill-title")
    assert "One was under way already" in Reader(site, "admin").page(note="rated").text


def test_a_form_that_was_not_shown_to_this_user_changes_nothing(
    site: Site, gateway: FakeGateway
) -> None:
    good = {"token": _token(site), "per_minute": "90"}
    elsewhere = Site(gateway, problems=(), worker_user="worker", clock=FakeClock(), roles=ROLES)
    for answer in (
        _submit(site, {"per_minute": "90"}),
        _submit(site, {**good, "token": "0" * 64}),
        _submit(site, {**good, "token": _token(site, "another")}),
        _submit(site, {**good, "token": "\u00e4"}),
        _submit(elsewhere, good),
        _submit(site, good, user="another"),
        _submit(site, good, mime="text/plain"),
        _submit(site, good, origin="http://evil.example", host="gateway"),
        site.answer(Request("POST", "/backfill", headers=login("admin"))),
        site.answer(Request("POST", "/backfill", body=urlencode(good).encode())),
    ):
        assert answer.status == 403
    assert not _running(gateway)
    assert site.answer(Request("GET", "/backfill", headers=login("admin"))).status == 405


@pytest.mark.parametrize("rate", ["", "-1", "1.5", "many", str(MAX_RATE + 1), "9" * 400])
def test_a_rate_that_is_none_begins_nothing(site: Site, gateway: FakeGateway, rate: str) -> None:
    assert _submit(site, {"token": _token(site), "per_minute": rate}).status == 400
    assert not _running(gateway)


def _post(
    site: Site, body: object, *, user: str = "admin", header: bool = True
) -> tuple[int, dict[str, object]]:
    headers = {**login(user), **({REQUEST_HEADER.lower(): "1"} if header else {})}
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = site.answer(Request("POST", f"{API}/backfill", headers=headers, body=content))
    return answer.status, json.loads(answer.body)


def test_programs_begin_and_stop_it_over_the_api(site: Site, gateway: FakeGateway) -> None:
    status, begun = _post(site, {"per_minute": 30})
    assert status == 200
    assert begun["running"] is True
    assert begun["started_by"] == "admin"
    health = json.loads(Reader(site, "another").ask(f"{API}/health").body)
    assert health["backfill"] == begun
    status, stopped = _post(site, {"per_minute": 0})
    assert (status, stopped["running"], stopped["stopped_by"]) == (200, False, "admin")


def test_the_workers_user_and_other_sites_pages_cannot(site: Site, gateway: FakeGateway) -> None:
    assert _post(site, {"per_minute": 30}, user="worker")[0] == 403
    assert _post(site, {"per_minute": 30}, header=False)[0] == 403
    assert _submit(site, {"token": _token(site), "per_minute": "1"}, user="worker").status == 403
    assert not _running(gateway)


@pytest.mark.parametrize("user", ["vera", "mallory"])
def test_only_operators_begin_and_stop_it_and_viewers_see_how_far_it_is(
    site: Site, gateway: FakeGateway, user: str
) -> None:
    assert _post(site, {"per_minute": 30}, user=user)[0] == 403
    assert _submit(site, {"token": _token(site), "per_minute": "30"}, user=user).status == 403
    assert not _running(gateway)
    assert _post(site, {"per_minute": 30})[0] == 200
    page = Reader(site, "vera").page()
    assert "0 of 7 studies read" in page.text
    assert "progress" in page.tags
    assert "Operators can begin and stop one here." in page.text
    assert "token" not in page.fields


@pytest.mark.parametrize("user", ["vera", "worker", "watch", "mallory", None])
def test_who_began_and_stopped_one_is_for_operators(
    gateway: FakeGateway, clock: FakeClock, user: str | None
) -> None:
    site = Site(
        gateway,
        problems=(),
        worker_user="worker",
        monitor_user="watch",
        clock=clock,
        roles=ROLES,
    )
    assert _post(site, {"per_minute": 30})[0] == 200
    assert "begun just now by admin" in Reader(site, "another").page().text
    assert _post(site, {"per_minute": 0}, user="another")[0] == 200
    told = json.loads(Reader(site, user).ask(f"{API}/health").body)
    assert "admin" not in json.dumps(told)
    assert "another" not in json.dumps(told)
    assert told["backfill"]["running"] is False
    if user == "vera":
        text = Reader(site, user).page().text
        assert "Stopped by a user, begun just now by a user" in text


@pytest.mark.parametrize(
    "body",
    [{}, [], {"per_minute": "30"}, {"per_minute": -1}, {"per_minute": True}, b"{", b"[" * 900],
)
def test_a_body_that_says_no_rate_is_refused(site: Site, body: object) -> None:
    assert _post(site, body)[0] == 422


def test_while_orthanc_does_not_answer_it_is_said(site: Site, gateway: FakeGateway) -> None:
    gateway.available = False
    assert _post(site, {"per_minute": 30})[0] == 503
    assert _submit(site, {"token": _token(site), "per_minute": "30"}).status == 503
