"""What every page of the dashboard keeps: its frame, its headers, who may see it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from urllib.parse import urlencode

import pytest

from prichexy_plugin.dashboard.forms import Forms, Refused
from prichexy_plugin.dashboard.frame import Visit
from prichexy_plugin.dashboard.http import Request, deliver
from prichexy_plugin.dashboard.routes import Site
from prichexy_plugin.database import open_database
from prichexy_plugin.intake import Decision, Rule
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.pauses import Stage
from prichexy_plugin.people import kept_name
from prichexy_plugin.security import Role, Roles
from prichexy_testing.dashboard_reader import FORM, FakeGateway, Page, Reader, login
from prichexy_testing.fake_orthanc import Answer, orthanc_id
from prichexy_testing.plugin_fakes import FakeClock, announcement_of, report_of
from prichexy_worker.contract import API_ROOT, Reason, State

ROLES = Roles({"vera": Role.VIEWER, "omar": Role.OPERATOR, "ada": Role.ADMINISTRATOR})
HOSTILE = "<script>alert('a')</script>\" onload=x \u202e 山田^太郎"


@pytest.fixture
def ledger(clock: FakeClock) -> Iterator[Ledger]:
    engine = open_database("sqlite://")
    ledger = Ledger(engine, clock)
    ledger.announce(announcement_of())
    ledger.note({orthanc_id("a"): clock()}, cursor=1)
    ledger.settle(orthanc_id("a"), Decision(Reason.NO_RULE_MATCHES), content="c", instances=1)
    yield ledger
    engine.dispose()


@pytest.fixture
def job(ledger: Ledger) -> str:
    return ledger.studies().studies[0].job_id


@pytest.fixture
def site(ledger: Ledger, clock: FakeClock) -> Site:
    return Site(FakeGateway(ledger), problems=(), worker_user="worker", clock=clock, roles=ROLES)


def _addresses(job: str) -> tuple[str, ...]:
    of_the_study = (f"/studies/{job}", f"/studies/{job}/retry")
    return ("", "/studies", *of_the_study, "/rules", "/pauses", "/audit", "/settings")


def test_every_page_works_under_a_strict_content_security_policy(site: Site, job: str) -> None:
    for address in _addresses(job):
        page = Reader(site, "ada").page(address)
        assert not {"style", "iframe", "object"} & set(page.tags)
        # A script is a file of ours, and only where a page changes by itself.
        scripts = [link.rpartition("/")[2] for link in page.links if link.endswith(".js")]
        assert page.tags.count("script") == len(scripts)
        assert scripts == (["live.js"] if address in ("", "/studies") else [])
        assert not {name for name in page.attributes if name == "style" or name.startswith("on")}
        assert not [link for link in page.links if link.startswith(("http:", "https:", "//", "/"))]


def test_every_link_of_every_page_leads_to_a_page_behind_any_prefix(site: Site, job: str) -> None:
    ada = Reader(site, "ada")
    followed = 0
    for address in _addresses(job):
        for link in set(ada.page(address).links):
            pages = "prichexy/studies" in link or link.startswith("?") or link.endswith("prichexy")
            if pages and "/text-" not in link:
                ada.follow(address, link)
                followed += 1
    assert followed > 20


def test_every_page_has_one_heading_a_language_and_names_its_regions(site: Site, job: str) -> None:
    for address in _addresses(job):
        page = Reader(site, "ada").page(address)
        assert page.tags.count("h1") == 1
        assert page.tags.count("main") == 1
        assert {"html", "nav", "footer"} <= set(page.tags)
        assert "lang" in page.attributes


def test_every_answer_forbids_caches_frames_and_foreign_content(site: Site, job: str) -> None:
    for address in (*_addresses(job), "/nothing", "/static/dashboard.css"):
        answer = Answer()
        deliver(Reader(site, "ada").ask(address), answer)
        assert answer.headers["Cache-Control"] == "no-store"
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["X-Frame-Options"] == "DENY"


def test_what_others_say_of_themselves_is_escaped(ledger: Ledger, clock: FakeClock) -> None:
    ledger.announce(announcement_of(statement=HOSTILE))
    roles = Roles({HOSTILE: Role.ADMINISTRATOR})
    site = Site(FakeGateway(ledger), problems=(), worker_user=None, clock=clock, roles=roles)
    page = Reader(site, HOSTILE).page()
    assert page.tags.count("script") == 1, "ours"
    assert "onload" not in page.attributes
    shown = HOSTILE.replace("\u202e", r"\u202e")
    assert page.text.count(shown) == 2, "the worker's statement and the user's name"
    searched = Reader(site, HOSTILE).page("/studies", name=HOSTILE[:40])
    assert searched.tags.count("script") == 1
    assert "onload" not in searched.attributes


NAME = "Omar \u05e2\u05d5\u05de\u05e8 \u202e\x07"
#: As the ledger keeps it, which keeps no control characters of a user's name.
KEPT = f"<bdi>{kept_name(NAME)}</bdi>".replace("\u202e", r"\u202e")
ALONE = "<bdi>Omar \u05e2\u05d5\u05de\u05e8 \\u202e\\u0007</bdi>"


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("", f"begun just now by {KEPT}: 0 of 7"),
        ("/studies", ""),
        ("/studies/{}", f">{ALONE}</a>"),
        ("/studies/{}/retry", f"will say that {ALONE} did this, and when"),
        ("/rules", f"1. {ALONE}</th>"),
        ("/pauses", f"paused just now by {ALONE}</p>"),
        ("/models", ""),
        ("/audit", ""),
        ("/settings", ""),
    ],
)
def test_a_name_turns_no_word_of_the_page_round(
    ledger: Ledger, clock: FakeClock, path: str, told: str
) -> None:
    ledger.note({orthanc_id("b"): clock()}, cursor=2)
    decision = Decision(None, ("archive",), rule=NAME)
    ledger.settle(orthanc_id("b"), decision, content="c", instances=1)
    message = ledger.outbox()[0]
    ledger.report(report_of(message, State.PROCESSING))
    ledger.report(report_of(message, State.QUARANTINED, Reason.FOLDS, attempt=1))
    ledger.announce(announcement_of(statement=NAME))
    ledger.start_backfill(per_minute=1, total=7, by=NAME)
    ledger.pause(Stage.INTAKE, "", actor=f"user {NAME}", reason=Reason.PAUSED_DOUBT)
    gateway = FakeGateway(ledger)
    gateway.rules = (Rule(NAME, station=frozenset({NAME}), targets=frozenset({"archive"})),)
    roles = Roles({NAME: Role.ADMINISTRATOR})
    site = Site(gateway, problems=(), worker_user=None, clock=clock, roles=roles)
    body = str(Reader(site, NAME).ask(path.format(message.job_id)).body)
    assert f"Logged in as {ALONE}, administrator" in body
    assert told in body
    shown = re.sub('value="[^"]*"', "", body)  # what a form sends back is as it was
    assert not {"\u202e", "\x07"} & set(shown)


def test_a_rule_with_an_odd_name_is_searched_for_by_its_own_name(
    ledger: Ledger, clock: FakeClock
) -> None:
    gateway = FakeGateway(ledger)
    gateway.rules = (Rule(NAME),)
    site = Site(gateway, problems=(), worker_user=None, clock=clock, roles=ROLES)
    body = str(Reader(site, "omar").ask("/studies").body)
    assert f'<option value="{NAME}">' in body
    assert f'value="{NAME}"' in str(Reader(site, "omar").ask("/audit", actor=NAME).body)


def test_no_link_says_that_something_was_done(site: Site, job: str, clock: FakeClock) -> None:
    ada, omar = Reader(site, "ada"), Reader(site, "omar")
    sent = {
        f"/studies/{job}": {"note": "deleted"},
        "/pauses": {"note": "paused"},
        "/models": {"note": "promoted"},
        "/studies/retry": {"state": "failed", "reason": "unexpected", "done": "200"},
    }
    for path, query in sent.items():
        text = ada.page(path, **query).text
        assert "Done." not in text
        assert "once more" not in text
    path = f"/studies/{job}"
    answer = omar.post(f"{path}/retry", omar.page(f"{path}/retry").fields)
    assert answer.headers["Location"] == f"../{job}?note=retried"
    for _ in range(2):
        assert "Done. The study goes" in omar.page(path, note="retried").text
    assert "Done." not in omar.page(path, note="deleted").text
    assert "Done." not in ada.page(path, note="retried").text, "another one's form"
    clock.move(3600)
    assert "Done." not in omar.page(path, note="retried").text


@pytest.mark.parametrize("plugin", [4, 5])
def test_other_answers_than_ok_reach_both_versions_of_orthancs_plugin(
    site: Site, plugin: int
) -> None:
    answer = Answer(plugin=plugin)
    deliver(Reader(site, "ada").ask("/nothing"), answer)
    assert answer.status == 404
    assert "There is no such page." in answer.body
    assert answer.mime == "text/html; charset=utf-8"


@pytest.mark.parametrize(
    ("user", "method", "path", "query", "status"),
    [
        ("ada", "GET", "/nothing", {}, 404),
        ("ada", "GET", "/studies/" + "0" * 32, {}, 404),
        ("ada", "GET", "/studies", {"reason": "x"}, 400),
        ("vera", "GET", "/audit", {}, 403),
        ("vera", "GET", "/desk", {}, 403),
        ("nobody", "GET", "", {}, 403),
        ("ada", "POST", "/studies", {}, 405),
        ("ada", "PUT", "/studies", {}, 405),
        ("ada", "GET", "/backfill", {}, 405),
        ("ada", "POST", "/pauses", {}, 400),
    ],
)
def test_a_refusal_is_a_page_that_says_why_and_leads_on(
    site: Site, user: str, method: str, path: str, query: dict[str, str], status: int
) -> None:
    answer = site.answer(Request(method, path, query=query, headers=login(user)))
    page = Page(answer, status=status)
    assert page.tags.count("h1") == page.tags.count("main") == page.tags.count("title") == 1
    assert "lang" in page.attributes
    root = Request(method, path).root
    assert f"{root}{'app/explorer.html' if user == 'nobody' else 'prichexy'}" in page.links
    assert "{" not in page.text, "no JSON"
    assert (status == 405) == ("Allow" in answer.headers)


@pytest.mark.parametrize("path", ["/studies/{}/retry", "/pauses", "/studies/{}"])
def test_an_error_that_nobody_foresaw_is_a_page_with_ways_on(
    ledger: Ledger, clock: FakeClock, job: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    gateway = FakeGateway(ledger)
    site = Site(gateway, problems=(), worker_user=None, clock=clock, roles=ROLES, log=said.append)
    ada, path = Reader(site, "ada"), path.format(job)
    about_one, posts = job in path, path != f"/studies/{job}"
    if posts:
        fields = {**ada.page(path).fields, "reason": Reason.PAUSED_DOUBT.value}

    def fails(*_args: object, **_named: object) -> None:
        raise RuntimeError(HOSTILE)

    for name in ("again", "pause", "events", "study"):
        monkeypatch.setattr(ledger, name, fails)
    answer = ada.post(path, fields) if posts else ada.ask(path)
    page = Page(answer, status=500)
    assert "Something went wrong" in page.text
    assert said == ["PriCheXy: RuntimeError while answering a request."]
    assert "script>" not in page.text
    assert ("It is not known whether this was done" in page.text) == posts
    assert ("look at the study's time line" in page.text) == (about_one and posts)
    leads_back = f"{Request('POST', path).root}prichexy/studies/{job}"
    assert (leads_back in page.links) == (about_one and posts)
    told = Reader(site, "ada").ask(f"/api/v1/studies/{job}")
    assert (told.status, json.loads(str(told.body))) == (500, {"error": "internal error"})


def test_a_page_says_that_a_method_is_not_allowed(site: Site) -> None:
    answer = Answer()
    deliver(Reader(site, "ada").ask("/backfill"), answer)
    assert (answer.status, answer.headers["Allow"]) == (400, "POST")
    assert "This address is no page." in answer.body


def test_what_programs_and_pages_load_is_refused_in_a_sentence(site: Site) -> None:
    for path in ("/static/none.css", "/studies/" + "0" * 32 + "/whole-1.png"):
        answer = Reader(site, "ada").ask(path)
        assert (answer.status, answer.mime) == (404, "text/plain; charset=utf-8")
    api = site.answer(Request("GET", "/api/v1/nothing", headers=login("ada")))
    assert (api.status, api.mime) == (404, "application/json")


def test_a_method_that_is_not_allowed_is_refused_in_orthancs_own_way(site: Site) -> None:
    """To programs; people get a page, which Orthanc sends with another status alone."""
    answer = Answer()
    deliver(site.answer(Request("POST", "/api/v1/health", headers=login("ada"))), answer)
    assert (answer.status, answer.headers["Allow"]) == (405, "GET")


@pytest.mark.parametrize(
    ("name", "mime"), [("dashboard.css", "text/css"), ("icon.svg", "image/svg+xml")]
)
def test_the_pages_own_files_are_served(site: Site, name: str, mime: str) -> None:
    answer = site.answer(Request("GET", f"/static/{name}"))
    assert (answer.status, answer.mime) == (200, mime)
    assert answer.body


@pytest.mark.parametrize("name", ["../routes.py", "..%2froutes.py", "absent.css", ""])
def test_no_other_file_is_served(site: Site, name: str) -> None:
    assert Reader(site, "ada").ask(f"/static/{name}").status == 404


def test_a_page_opened_with_a_trailing_slash_finds_its_files_and_pages(site: Site) -> None:
    ada = Reader(site, "ada")
    answer = ada.ask("/prichexy/static/dashboard.css")
    assert (answer.status, answer.headers["Location"]) == (
        302,
        "../../../prichexy/static/dashboard.css",
    )
    assert ada.ask("/app/explorer.html").headers["Location"] == "../../app/explorer.html"
    answer = ada.ask("/prichexy/studies", state="failed")
    assert answer.headers["Location"] == "../../prichexy/studies?state=failed"
    assert ada.ask("/app/a\r\nSet-Cookie: x").status == 404
    assert "failed" in ada.page("/studies/", state="failed").text


def test_without_roles_in_the_settings_each_user_is_an_administrator_and_a_nameless_reads(
    ledger: Ledger, clock: FakeClock, job: str
) -> None:
    site = Site(FakeGateway(ledger), problems=(), worker_user="worker", clock=clock)
    assert "Logged in as admin, administrator" in Reader(site, "admin").page().text
    assert "Logged in" not in Reader(site).page().text
    assert Reader(site).ask(f"/studies/{job}/retry").status == 403
    assert Reader(site, "worker").ask().status == 403


@pytest.mark.parametrize(
    ("user", "statuses"),
    [
        (None, (403,) * 8),
        ("mallory", (403,) * 8),
        ("worker", (403,) * 8),
        ("vera", (200, 200, 200, 403, 200, 200, 403, 403)),
        ("omar", (*(200,) * 7, 403)),
        ("ada", (200,) * 8),
    ],
)
def test_each_role_sees_its_pages(
    site: Site, job: str, user: str | None, statuses: tuple[int, ...]
) -> None:
    reader = Reader(site, user)
    assert tuple(reader.ask(address).status for address in _addresses(job)) == statuses


def test_a_viewer_is_shown_no_button_and_no_picture(site: Site, job: str) -> None:
    vera = Reader(site, "vera")
    assert not [link for link in vera.page(f"/studies/{job}").links if link.endswith("/retry")]
    answer = vera.ask(f"/studies/{job}/text-1.png")
    assert (answer.status, "for operators" in str(answer.body)) == (403, True)


def test_users_without_a_role_read_nothing_by_the_api_but_the_health(site: Site, job: str) -> None:
    api = API_ROOT.removeprefix("/prichexy")
    for path, others in (("/health", 200), ("/studies", 403), (f"/studies/{job}", 403)):
        assert Reader(site, "mallory").ask(f"{api}{path}").status == others
        assert Reader(site, "vera").ask(f"{api}{path}").status == 200


def test_a_parameter_that_cannot_be_read_is_named_in_words(site: Site) -> None:
    answer = Reader(site, "ada").ask("/studies", state="lost")
    assert "State is not valid." in Page(answer, status=400).text


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_pages_are_only_read(site: Site, method: str) -> None:
    for address in ("", "/studies", "/nothing"):
        answer = site.answer(Request(method, address, headers=login("ada")))
        assert answer.status == 405


# --- Forms -----------------------------------------------------------------------------------


def _visit(user: str | None, fields: Mapping[str, str], **headers: str) -> Visit:
    """Let ``user`` post a form."""
    whole = {"content-type": FORM, **headers}
    request = Request("POST", "", headers=whole, body=urlencode(fields).encode())
    return Visit(request, user, Role.OPERATOR, FakeClock()())


def _is_read(forms: Forms, user: str | None, token: str, purpose: str, **headers: str) -> bool:
    try:
        fields = forms.read(_visit(user, {"token": token, "a": "1"}, **headers), purpose)
    except Refused:
        return False
    return fields["a"] == "1"


def test_a_form_is_of_one_user_one_purpose_and_twelve_hours(clock: FakeClock) -> None:
    forms = Forms(clock)
    token = forms.token(_visit("ada", {}), "retry x")
    assert _is_read(forms, "ada", token, "retry x")
    assert not _is_read(forms, "omar", token, "retry x")
    assert not _is_read(forms, None, token, "retry x")
    assert not _is_read(forms, "ada", token, "retry y")
    assert not _is_read(Forms(clock), "ada", token, "retry x"), "another start, another key"
    assert not _is_read(forms, "ada", token, "retry x", origin="https://evil.example", host="g")
    assert not _is_read(forms, "ada", token, "retry x", **{"content-type": "text/plain"})
    clock.move(12 * 3600)
    assert _is_read(forms, "ada", token, "retry x")
    clock.move(1)
    assert not _is_read(forms, "ada", token, "retry x")


def test_a_form_of_nobody_is_not_read_even_with_nobodys_token(clock: FakeClock) -> None:
    forms = Forms(clock)
    assert not _is_read(forms, None, forms.token(_visit(None, {}), "retry x"), "retry x")


@pytest.mark.parametrize(
    "token", ["", ".", "1", "1.", "x.y", "1.ä", "9" * 400 + ".a", "²." + "a" * 64]
)
def test_what_is_no_token_opens_nothing(clock: FakeClock, token: str) -> None:
    assert not _is_read(Forms(clock), "ada", token, "retry x")


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b"a=1&b=x%20y", {"a": "1", "b": "x y"}),
        (b"a=1&a=2&b=3", {"b": "3"}),
        (b"\xff=1", {}),
        (b"", {}),
        (b"&".join(b"%d=1" % n for n in range(40)), {}),
        (b"a=" + b"x" * 5000, {}),
    ],
)
def test_a_form_is_read_strictly(body: bytes, fields: Mapping[str, str]) -> None:
    def read(mime: str) -> Mapping[str, str]:
        return Request("POST", "", headers={"content-type": mime}, body=body).form()

    assert read(FORM) == fields
    assert read(f"{FORM}; charset=utf-8") == fields
    assert read("text/plain") == read("") == {}
