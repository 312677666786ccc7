"""The first page of the dashboard."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from html.parser import HTMLParser

import pytest

from prichexy_plugin.backfill import Backfill
from prichexy_plugin.dashboard.http import Request, Response, deliver
from prichexy_plugin.dashboard.pages import ago, took
from prichexy_plugin.dashboard.routes import Site
from prichexy_plugin.database import open_database
from prichexy_plugin.intake import Decision
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.relay import BrokerState
from prichexy_plugin.studies import StudiesUnavailable
from prichexy_testing.fake_orthanc import Answer, orthanc_id
from prichexy_testing.plugin_fakes import FakeClock, announcement_of, report_of
from prichexy_worker.contract import Reason, State

UNREACHABLE = BrokerState(False, "Redis at 127.0.0.1:6379: ConnectionError", None)


class Page(HTMLParser):
    """Collects what a reader of a page sees and where its links go."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        assert response.status == 200
        assert response.mime == "text/html; charset=utf-8"
        self.links: list[str] = []
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self._texts: list[str] = []
        self.feed(response.body)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.update(name for name, _ in attrs)
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "action")]

    def handle_data(self, data: str) -> None:
        self._texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self._texts))


class Gateway:
    """A gateway whose parts a test sets."""

    def __init__(self, ledger: Ledger | None) -> None:
        self.ledger = ledger
        self.ledger_state = "ok"
        self.broker_state = BrokerState(True, "0 waiting for a worker", None)
        self.troubles: tuple[str, ...] = ()
        self.available = True

    def start_backfill(self, per_minute: int, by: str) -> Backfill:
        if self.ledger is None or not self.available:
            raise StudiesUnavailable
        return self.ledger.start_backfill(per_minute=per_minute, total=7, by=by)


@pytest.fixture
def ledger(clock: FakeClock) -> Iterator[Ledger]:
    engine = open_database("sqlite://")
    yield Ledger(engine, clock)
    engine.dispose()


@pytest.fixture
def gateway(ledger: Ledger) -> Gateway:
    return Gateway(ledger)


@pytest.fixture
def site(gateway: Gateway, clock: FakeClock) -> Site:
    return Site(gateway, problems=(), worker_user=None, clock=clock)


def _page(site: Site, **query: str) -> Page:
    return Page(site.answer(Request("GET", "", query=query)))


def _take_in(ledger: Ledger, clock: FakeClock, name: str, decision: Decision) -> None:
    ledger.note({orthanc_id(name): clock()}, cursor=1)
    ledger.settle(orthanc_id(name), decision, content="c", instances=1)


def test_a_study_is_listed_with_its_state_time_and_reason(
    site: Site, ledger: Ledger, clock: FakeClock
) -> None:
    _take_in(ledger, clock, "a", Decision(Reason.NO_RULE_MATCHES))
    clock.move(180)
    page = _page(site)
    assert "rejected" in page.text
    assert Reason.NO_RULE_MATCHES.sentence in page.text
    assert "3 min ago" in page.text
    assert f"app/explorer.html#study?uuid={orthanc_id('a')}" in page.links
    job = ledger.studies().studies[0].job_id
    assert f"prichexy/api/v1/studies/{job}" in page.links


def test_an_outage_that_stops_the_handing_out_is_shown_with_its_reason(
    site: Site, ledger: Ledger, clock: FakeClock
) -> None:
    for name in "abcd":
        _take_in(ledger, clock, name, Decision(None))
    assert "handing out is stopped" not in _page(site).text
    for message in ledger.outbox()[:3]:
        claim = ledger.report(report_of(message, State.PROCESSING))
        back = report_of(message, State.QUEUED, Reason.TARGET_REFUSED, attempt=claim.attempt)
        assert ledger.report(back).proceed
    clock.move(120)
    text = _page(site).text
    assert f"The handing out is stopped: {Reason.TARGET_REFUSED.sentence}" in text
    assert "3 different studies failed" in text
    assert "2 min ago" in text
    assert "is its disk full" in text


def test_studies_that_wait_for_unusually_long_are_shown_with_their_cause(
    site: Site, ledger: Ledger, clock: FakeClock
) -> None:
    for name in "ab":
        _take_in(ledger, clock, name, Decision(None))
    assert "unusually long" not in _page(site).text
    clock.move(7200)
    page = _page(site)
    assert "2 pending , the longest since 2 h ago" in page.text
    assert "No worker is alive. It goes on when one is started." in page.text
    assert "?state=pending" in page.links


def test_the_watchers_trouble_is_shown(site: Site, gateway: Gateway) -> None:
    gateway.troubles = ("watching: Orthanc does not answer the plugin.",)
    assert "watching: Orthanc does not answer the plugin." in _page(site).text


def test_studies_that_cannot_be_read_are_counted_before_they_are_given_up(
    site: Site, ledger: Ledger, clock: FakeClock
) -> None:
    assert "cannot be read" not in _page(site).text
    ledger.note({orthanc_id("a"): clock()}, cursor=1)
    ledger.look_failed(orthanc_id("a"), [timedelta(seconds=5)])
    assert "1 study cannot be read from Orthanc's storage" in _page(site).text


def test_an_exported_study_tells_how_long_it_took(
    site: Site, ledger: Ledger, clock: FakeClock
) -> None:
    _take_in(ledger, clock, "a", Decision(None))
    message = ledger.outbox()[0]
    ledger.report(report_of(message, State.PROCESSING))
    clock.move(30)
    assert "for 30 s" in _page(site).text
    ledger.report(
        report_of(message, State.EXPORTED, attempt=1, durations={"deform": 2.0, "export": 1.5})
    )
    assert "took 3.5 s" in _page(site).text


def test_an_empty_gateway_says_what_to_do_next(site: Site) -> None:
    text = _page(site).text
    assert "No study has arrived yet" in text
    assert "prichexy submit" in text
    assert "prichexy doctor" in text


def test_a_state_without_studies_leads_back_to_all(site: Site) -> None:
    page = _page(site, state="failed")
    assert "No study is failed now" in page.text
    assert "?" in page.links


def test_the_list_can_be_narrowed_to_a_state(site: Site, ledger: Ledger, clock: FakeClock) -> None:
    _take_in(ledger, clock, "a", Decision(None))
    _take_in(ledger, clock, "b", Decision(Reason.NO_RULE_MATCHES))
    page = _page(site, state="pending")
    assert f"app/explorer.html#study?uuid={orthanc_id('a')}" in page.links
    assert f"app/explorer.html#study?uuid={orthanc_id('b')}" not in page.links
    assert "?state=rejected" in page.links


def test_a_long_list_has_pages(site: Site, ledger: Ledger, clock: FakeClock) -> None:
    for number in range(120):
        clock.move(1)
        _take_in(ledger, clock, str(number), Decision(Reason.NO_RULE_MATCHES))
    first = _page(site, state="rejected")
    assert "1–50 of 120" in first.text
    assert "?state=rejected&offset=50" in first.links
    last = _page(site, state="rejected", offset="100")
    assert "101–120 of 120" in last.text
    assert "?state=rejected&offset=50" in last.links
    assert "past the end" in _page(site, offset="500").text


def test_untrained_weights_are_said_clearly(site: Site, ledger: Ledger) -> None:
    ledger.announce(announcement_of("a", statement="Random weights; no privacy is claimed."))
    ledger.announce(announcement_of("b", statement="Random weights; no privacy is claimed."))
    text = _page(site).text
    assert "The generator's weights are untrained" in text
    assert text.count("Random weights; no privacy is claimed.") == 1
    assert "2 of 2 alive" in text


def test_of_measured_weights_is_said_what_was_measured(site: Site, ledger: Ledger) -> None:
    told = "Under the strongest of 9 attacks, a verification AUC of 0.91 was left."
    ledger.announce(announcement_of("a", evidence="measured", statement=told))
    ledger.announce(announcement_of("b", evidence="measured", statement=told))
    text = _page(site).text
    assert "weights are untrained" not in text
    assert text.count(told) == 1


def test_a_silent_worker_is_shown_as_silent(site: Site, ledger: Ledger, clock: FakeClock) -> None:
    assert "none has announced itself" in _page(site).text
    ledger.announce(announcement_of())
    clock.move(600)
    text = _page(site).text
    assert "0 of 1 alive" in text
    assert "silent, last seen 10 min ago" in text


def test_a_broker_that_is_away_is_said_with_what_waits(
    site: Site, gateway: Gateway, ledger: Ledger, clock: FakeClock
) -> None:
    gateway.broker_state = UNREACHABLE
    _take_in(ledger, clock, "a", Decision(None))
    text = _page(site).text
    assert "The broker does not answer" in text
    assert "1 study waits here" in text


def test_a_wrong_configuration_is_named_by_its_key(clock: FakeClock) -> None:
    site = Site(None, problems=("PriCheXy.Broker.Url: bad.",), worker_user=None, clock=clock)
    text = _page(site).text
    assert "PriCheXy.Broker.Url: bad." in text
    assert "nothing is handed on" in text


def test_a_ledger_that_is_not_open_is_said(clock: FakeClock) -> None:
    gateway = Gateway(None)
    gateway.ledger_state = "does not work (OperationalError)"
    site = Site(gateway, problems=(), worker_user=None, clock=clock)
    assert "The ledger does not work (OperationalError)" in _page(site).text


def test_what_a_worker_says_of_itself_is_escaped(site: Site, ledger: Ledger) -> None:
    ledger.announce(announcement_of(statement="<script>alert(1)</script>"))
    page = _page(site)
    assert "script" not in page.tags
    assert "<script>alert(1)</script>" in page.text


def test_the_page_works_under_a_strict_content_security_policy(
    site: Site, ledger: Ledger, clock: FakeClock
) -> None:
    ledger.announce(announcement_of())
    _take_in(ledger, clock, "a", Decision(None))
    page = _page(site)
    assert not {"script", "style", "iframe"} & set(page.tags)
    assert not {name for name in page.attributes if name == "style" or name.startswith("on")}
    assert not [link for link in page.links if link.startswith(("http:", "https:", "//", "/"))]


def test_every_answer_forbids_caches_frames_and_foreign_content(site: Site) -> None:
    answer = Answer()
    deliver(site.answer(Request("GET", "")), answer)
    assert answer.headers["Cache-Control"] == "no-store"
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["X-Frame-Options"] == "DENY"


@pytest.mark.parametrize("plugin", [4, 5])
def test_other_answers_than_ok_reach_both_versions_of_orthancs_plugin(
    site: Site, plugin: int
) -> None:
    answer = Answer(plugin=plugin)
    deliver(site.answer(Request("GET", "/nothing")), answer)
    assert (answer.status, answer.body) == (404, "There is no such page.\n")
    assert answer.mime == "text/plain; charset=utf-8"


@pytest.mark.parametrize(
    ("name", "mime"), [("dashboard.css", "text/css"), ("icon.svg", "image/svg+xml")]
)
def test_the_pages_own_files_are_served(site: Site, name: str, mime: str) -> None:
    answer = site.answer(Request("GET", f"/static/{name}"))
    assert (answer.status, answer.mime) == (200, mime)
    assert answer.body


@pytest.mark.parametrize("name", ["../pages.py", "..%2fpages.py", "absent.css", ""])
def test_no_other_file_is_served(site: Site, name: str) -> None:
    assert site.answer(Request("GET", f"/static/{name}")).status == 404


def test_the_page_opened_with_a_trailing_slash_finds_its_files(site: Site) -> None:
    answer = site.answer(Request("GET", "/prichexy/static/dashboard.css"))
    assert (answer.status, answer.headers["Location"]) == (
        302,
        "../../../prichexy/static/dashboard.css",
    )
    answer = site.answer(Request("GET", "/app/explorer.html"))
    assert answer.headers["Location"] == "../../app/explorer.html"
    assert site.answer(Request("GET", "/app/a\r\nSet-Cookie: x")).status == 404


def test_only_reading_is_possible(site: Site) -> None:
    assert site.answer(Request("POST", "")).status == 405


def test_times_are_written_as_people_say_them(clock: FakeClock) -> None:
    now = clock()
    written = [ago(now - timedelta(seconds=s), now) for s in (-5, 2, 40, 59, 60, 7200, 200_000)]
    assert written == [
        "just now",
        "just now",
        "40 s ago",
        "59 s ago",
        "1 min ago",
        "2 h ago",
        "2 d ago",
    ]
    assert [took(s) for s in (0.04, 9.94, 12.4, 119, 600, 9000)] == [
        "0.0 s",
        "9.9 s",
        "12 s",
        "119 s",
        "10 min",
        "2 h 30 min",
    ]
