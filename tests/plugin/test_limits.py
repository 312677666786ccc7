"""One user, however many requests come in that name, costs the gateway no more than is allowed."""

from __future__ import annotations

import json
import re
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prichexy_plugin.dashboard.http import Request, deliver
from prichexy_plugin.dashboard.routes import Site
from prichexy_plugin.intake import Decision
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.limits import DEFAULTS, Kind, Limiter, Limits
from prichexy_plugin.security import Role, Roles
from prichexy_plugin.studies import OrthancStudies
from prichexy_testing.dashboard_reader import FakeGateway, Reader, login
from prichexy_testing.fake_orthanc import Answer, FakeOrthanc, orthanc_id
from prichexy_testing.plugin_fakes import FakeClock, announcement_of
from prichexy_worker.contract import API_ROOT, REQUEST_HEADER

ROLES = Roles({"omar": Role.OPERATOR, "otto": Role.OPERATOR, "vera": Role.VIEWER})
API = API_ROOT.removeprefix("/prichexy")
LIMITS = Limits(changes=5, pictures=4, searches=3, refusals=2)


@pytest.fixture
def site(ledger: Ledger, clock: FakeClock) -> Site:
    ledger.note({orthanc_id("a"): clock()}, cursor=1)
    ledger.settle(orthanc_id("a"), Decision(None), content="c", instances=1)
    return Site(
        FakeGateway(ledger),
        problems=(),
        worker_user="worker",
        clock=clock,
        studies=OrthancStudies(FakeOrthanc(clock=clock)),
        roles=ROLES,
        limits=LIMITS,
    )


def _token(reader: Reader) -> dict[str, str]:
    found = re.search(
        r'action="../prichexy/rules">\s*<input[^>]*value="([^"]+)"', str(reader.ask("/rules").body)
    )
    assert found is not None
    return {"token": found[1], "rules": "[]"}


def test_a_user_has_so_many_at_once_and_then_as_many_as_time_brings(clock: FakeClock) -> None:
    limiter = Limiter(Limits(changes=6), clock)
    assert [limiter.take("omar", Kind.CHANGE) for _ in range(6)] == [0] * 6
    assert limiter.take("omar", Kind.CHANGE) == 10
    assert limiter.take("otto", Kind.CHANGE) == 0
    assert limiter.take("omar", Kind.SEARCH) == 0
    clock.move(9)
    assert limiter.take("omar", Kind.CHANGE) == 1
    clock.move(1)
    assert limiter.take("omar", Kind.CHANGE) == 0
    assert limiter.take("omar", Kind.CHANGE) == 10
    clock.move(3600)
    assert [limiter.take("omar", Kind.CHANGE) for _ in range(7)] == [0] * 6 + [10]


@given(st.lists(st.floats(0, 30, allow_nan=False), min_size=1, max_size=200), st.integers(1, 20))
def test_in_no_minute_are_there_more_than_twice_the_limit(pauses: list[float], limit: int) -> None:
    clock = FakeClock()
    limiter = Limiter(Limits(changes=limit), clock)
    begun, taken = clock(), []
    for pause in pauses:
        clock.move(pause)
        if limiter.take("omar", Kind.CHANGE) == 0:
            taken.append((clock() - begun).total_seconds())
    for place, first in enumerate(taken):
        within = [one for one in taken[place:] if one - first < 60]
        assert len(within) <= 2 * limit


def test_a_clock_that_is_put_back_gives_nothing(clock: FakeClock) -> None:
    limiter = Limiter(Limits(changes=1), clock)
    assert limiter.take("omar", Kind.CHANGE) == 0
    clock.move(-3600)
    assert limiter.take("omar", Kind.CHANGE) == 60
    clock.move(60)
    assert limiter.take("omar", Kind.CHANGE) == 0, "and takes nothing"


def test_without_a_limit_nothing_is_counted(clock: FakeClock) -> None:
    limiter = Limiter(Limits(None, None, None, None), clock)
    assert not any(limiter.take("omar", kind) for kind in Kind for _ in range(10_000))
    assert len(limiter) == 0


def test_however_many_names_come_the_memory_is_bounded_and_nobody_is_let_go(
    clock: FakeClock,
) -> None:
    limiter = Limiter(Limits(changes=2), clock, most=10)
    assert [limiter.take("omar", Kind.CHANGE) for _ in range(3)] == [0, 0, 30]
    answers = [limiter.take(f"name {number}", Kind.CHANGE) for number in range(1000)]
    assert len(limiter) <= 11
    assert answers.count(0) == 9 + 2, "those beyond share one allowance"
    assert limiter.take("omar", Kind.CHANGE) == 30, "other names do not push his out"
    clock.move(3600)
    assert limiter.take("somebody new", Kind.CHANGE) == 0
    assert len(limiter) <= 2, "whose allowance is whole again is forgotten"


def test_many_threads_get_no_more_than_one_would(clock: FakeClock) -> None:
    limiter = Limiter(Limits(changes=50), clock)
    given_out: list[int] = []

    def ask() -> None:
        given_out.extend(limiter.take("omar", Kind.CHANGE) for _ in range(100))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert given_out.count(0) == 50


def test_too_many_forms_change_nothing_and_the_page_says_when_there_is_room(
    site: Site, clock: FakeClock
) -> None:
    omar = Reader(site, "omar")
    form = _token(omar)
    assert {omar.post("/rules", form).status for _ in range(5)} == {200}
    answer = omar.post("/rules", form)
    assert (answer.status, answer.headers["Retry-After"]) == (429, "12")
    assert answer.mime == "text/html; charset=utf-8"
    assert "In 12 seconds there is room again" in str(answer.body)
    assert "Nothing was changed." in str(answer.body)
    assert omar.page("/studies"), "reading goes on"
    otto = Reader(site, "otto")
    assert otto.post("/rules", _token(otto)).status == 200
    clock.move(12)
    assert omar.post("/rules", form).status == 200


@pytest.mark.parametrize("plugin", [4, 5])
def test_both_versions_of_orthancs_plugin_pass_the_page_and_when_to_come_again(
    site: Site, plugin: int
) -> None:
    omar = Reader(site, "omar")
    for _ in range(3):
        omar.ask("/audit")
    answer = Answer(plugin=plugin)
    deliver(omar.ask("/audit"), answer)
    assert (answer.status, answer.headers["Retry-After"]) == (503, "20"), "Orthanc sends no 429"
    assert "A moment, please" in str(answer.body)


@pytest.mark.parametrize(
    ("paths", "limit"),
    [
        (("/audit", "/audit.csv", "/audit/chain", "/audit/"), 3),
        (("/studies?reason=gone", "/studies?name=ab"), 3),
        ((f"/orthanc/{orthanc_id('a')}",), 3),
        ((f"/studies/{'a' * 32}/text-1.png",), 4),
    ],
)
def test_searches_and_pictures_are_limited_whatever_their_address(
    site: Site, paths: tuple[str, ...], limit: int
) -> None:
    omar = Reader(site, "omar")
    statuses = []
    for number in range(limit + 2):
        path, _, query = paths[number % len(paths)].partition("?")
        words = dict(one.split("=") for one in query.split("&") if one)
        statuses.append(omar.ask(path, **words).status)
    assert 429 not in statuses[:limit]
    assert statuses[limit:] == [429, 429]


def test_who_guesses_at_forms_is_refused_all_changes_for_a_while(
    site: Site, clock: FakeClock
) -> None:
    omar = Reader(site, "omar")
    good = _token(omar)
    bad = {**good, "token": "1.0"}
    assert [omar.post("/rules", bad).status for _ in range(4)] == [403, 403, 429, 429]
    assert omar.post("/rules", good).status == 429
    assert omar.page("/rules"), "reading goes on"
    clock.move(30)
    assert omar.post("/rules", good).status == 200


def test_who_asks_for_what_the_role_does_not_allow_is_slowed_down(site: Site) -> None:
    vera = Reader(site, "vera")
    assert [vera.ask("/settings").status for _ in range(4)] == [403, 403, 429, 429]
    assert vera.page("/studies")
    stranger = Reader(site, "stranger")
    assert [stranger.ask("").status for _ in range(3)] == [403, 403, 429]


def test_programs_are_told_in_json_and_what_they_read_is_not_limited(site: Site) -> None:
    headers = {**login("omar"), REQUEST_HEADER.lower(): "1"}
    posts = [
        site.answer(Request("POST", f"{API}/backfill", headers=headers, body=b"{}"))
        for _ in range(6)
    ]
    assert [answer.status for answer in posts] == [422] * 5 + [429]
    assert "try again in" in json.loads(posts[-1].body)["error"]
    for path in (f"{API}/studies", f"{API}/health", f"{API}/ready", "/metrics"):
        assert {Reader(site, "omar").ask(path).status for _ in range(50)} <= {200, 503}


def test_workers_are_not_limited(site: Site) -> None:
    headers = {**login("worker"), REQUEST_HEADER.lower(): "1"}
    body = json.dumps(announcement_of().to_json()).encode()
    statuses = {
        site.answer(Request("POST", f"{API}/workers", headers=headers, body=body)).status
        for _ in range(100)
    }
    assert statuses == {200}


def test_the_defaults_bear_a_person_who_works_fast() -> None:
    assert DEFAULTS.by_kind() == {
        Kind.CHANGE: 60,
        Kind.PICTURE: 600,
        Kind.SEARCH: 120,
        Kind.REFUSAL: 20,
    }
