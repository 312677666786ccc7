"""The first page: what needs somebody now, and how the gateway has been doing."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prichexy_plugin.dashboard.needs import needs_of
from prichexy_plugin.dashboard.plots import latency, percentile, percentile_of, throughput
from prichexy_plugin.dashboard.routes import Site
from prichexy_plugin.dashboard.view import Overview
from prichexy_plugin.dashboard.wording import ago, amount, took
from prichexy_plugin.disk import Disk, look_at_disk
from prichexy_plugin.history import DAY, HOUR, edges
from prichexy_plugin.intake import Decision
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.records import Span
from prichexy_plugin.relay import BrokerState
from prichexy_plugin.sweep import Cause
from prichexy_testing.dashboard_reader import FakeGateway, Page, Reader
from prichexy_testing.fake_orthanc import orthanc_id
from prichexy_testing.plugin_fakes import FakeClock, announcement_of, report_of
from prichexy_worker.contract import Reason, State

UNREACHABLE = BrokerState(False, "Redis at 127.0.0.1:6379: ConnectionError", None)
DISK = Disk(free=400_000_000_000, total=1_000_000_000_000)


@pytest.fixture
def gateway(ledger: Ledger) -> FakeGateway:
    return FakeGateway(ledger)


@pytest.fixture
def site(gateway: FakeGateway, clock: FakeClock) -> Site:
    return Site(gateway, problems=(), worker_user=None, clock=clock, disk=lambda: DISK)


def _page(site: Site) -> Page:
    return Reader(site).page()


def _take_in(ledger: Ledger, clock: FakeClock, name: str, decision: Decision) -> None:
    ledger.note({orthanc_id(name): clock()}, cursor=1)
    ledger.settle(orthanc_id(name), decision, content="c", instances=1)


def _end(ledger: Ledger, state: State, reason: Reason | None = None) -> None:
    message = ledger.outbox()[0]
    ledger.report(report_of(message, State.PROCESSING))
    ledger.report(report_of(message, state, reason, attempt=1))


def test_when_nothing_needs_anybody_the_page_says_so(site: Site, ledger: Ledger) -> None:
    assert "No worker is alive" in _page(site).text
    ledger.announce(announcement_of(evidence="measured", statement="Measured.", protects=True))
    text = _page(site).text
    assert "Nothing. Every part works" in text
    assert "400 GB left" in text
    assert "60 % of 1.0 TB used" in text


def test_the_watchers_trouble_is_shown(site: Site, gateway: FakeGateway) -> None:
    gateway.troubles = ("watching: Orthanc does not answer the plugin.",)
    assert "watching: Orthanc does not answer the plugin." in _page(site).text


def test_studies_that_cannot_be_read_are_counted_before_they_are_given_up(
    site: Site, ledger: Ledger, clock: FakeClock
) -> None:
    assert "cannot be read" not in _page(site).text
    ledger.note({orthanc_id("a"): clock()}, cursor=1)
    ledger.look_failed(orthanc_id("a"), [timedelta(seconds=5)])
    assert "1 study cannot be read from Orthanc's storage" in _page(site).text


def test_what_a_human_must_decide_is_counted_and_linked(
    site: Site, ledger: Ledger, clock: FakeClock
) -> None:
    for name in ("a", "b"):
        _take_in(ledger, clock, name, Decision(None))
        _end(ledger, State.QUARANTINED, Reason.BURNED_IN_TEXT)
        if name == "a":
            text = _page(site).text
            assert "1 study is in quarantine It could not be made safe and was not" in text
    _take_in(ledger, clock, "c", Decision(None))
    _end(ledger, State.FAILED, Reason.TARGET_REFUSED)
    page = _page(site)
    assert "2 studies are in quarantine" in page.text
    assert "1 study failed" in page.text
    assert "prichexy/studies?state=quarantined" in page.links
    assert "prichexy/studies?state=failed" in page.links
    assert "prichexy/desk" in Reader(site, "omar").page().links, "for who may decide"


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
    for page in (_page(site), Reader(site).page("/studies")):
        assert f"The handing out is stopped: {Reason.TARGET_REFUSED.sentence}" in page.text
        assert "3 different studies failed" in page.text
        assert "2 min ago" in page.text
        assert "is a disk full" in page.text


def test_studies_that_wait_for_unusually_long_are_shown_with_their_cause(
    site: Site, ledger: Ledger, clock: FakeClock
) -> None:
    for name in "ab":
        _take_in(ledger, clock, name, Decision(None))
    assert "unusually long" not in _page(site).text
    clock.move(7200)
    page = _page(site)
    assert "2 studies have been pending for unusually long, the longest since 2 h ago" in page.text
    assert Cause.NO_WORKER.sentence in page.text
    assert "prichexy/studies?state=pending" in page.links


def test_exports_that_nothing_shows_are_counted_and_linked(site: Site, ledger: Ledger) -> None:
    for name, unproved in (("a", 1.0), ("b", 0.0), ("c", None)):
        _take_in(ledger, FakeClock(), name, Decision(None))
        message = ledger.outbox()[0]
        ledger.report(report_of(message, State.PROCESSING))
        measures = {} if unproved is None else {"targets_unproved": unproved}
        ledger.report(report_of(message, State.EXPORTED, attempt=1, measures=measures))
    page = _page(site)
    assert "2 exports are not verified" in page.text
    [link] = [one for one in page.links if "verified=no" in one]
    path, _, query = link.partition("?")
    found = Reader(site, "ada").page(path.removeprefix("prichexy"), **dict(parse_qsl(query)))
    jobs = {link.rpartition("/")[2] for link in found.links if "/studies/" in link}
    shown = {study.job_id for study in ledger.studies().studies if not study.proved}
    assert jobs == shown
    assert len(jobs) == 2
    assert "2 studies found" in found.text
    assert Reader(site, "ada").ask("/studies", verified="x").status == 400


def test_the_queue_is_told_with_its_longest_wait(
    site: Site, ledger: Ledger, clock: FakeClock
) -> None:
    ledger.announce(announcement_of("w"))
    for name in ("a", "b", "c"):
        _take_in(ledger, clock, name, Decision(None))
    ledger.sent(ledger.outbox()[0])
    message = ledger.outbox()[0]
    ledger.report(report_of(message, State.PROCESSING, worker_id="w"))
    clock.move(3 * 3600)
    ledger.announce(announcement_of("w"))
    text = _page(site).text
    assert "2 waiting" in text
    assert "the longest waits since 3 h ago" in text
    assert "1 study has been queued for unusually long, the longest since 3 h ago" in text
    assert "works on 1 study" in text


def test_untrained_weights_are_said_clearly(site: Site, ledger: Ledger) -> None:
    ledger.announce(announcement_of("a", statement="Random weights; no privacy is claimed."))
    ledger.announce(announcement_of("b", statement="Random weights; no privacy is claimed."))
    text = _page(site).text
    assert "The generator's weights are untrained" in text
    assert text.count("Random weights; no privacy is claimed.") == 1
    assert "2 of 2 alive" in text


@pytest.mark.parametrize(
    ("evidence", "title"),
    [
        ("trained", "It was not fully measured what the model in use hides"),
        ("measured", "The model in use was not shown to protect"),
    ],
)
def test_a_model_that_was_not_shown_to_protect_needs_somebody(
    site: Site, ledger: Ledger, evidence: str, title: str
) -> None:
    told = "With it an AUC of 0.91 was left, with real images 0.92."
    ledger.announce(announcement_of("a", evidence=evidence, statement=told))
    text = _page(site).text
    assert title in text
    assert text.count(told) == 2, "where somebody is needed, and beside the model"
    assert ("measured, no protection shown" in text) == (evidence == "measured")


def test_of_measured_weights_is_said_what_was_measured(site: Site, ledger: Ledger) -> None:
    told = "Under the strongest of 9 attacks, a verification AUC of 0.81 was left."
    for name in ("a", "b"):
        ledger.announce(announcement_of(name, evidence="measured", statement=told, protects=True))
    text = _page(site).text
    assert "weights are untrained" not in text
    assert "not shown to protect" not in text
    assert "no protection shown" not in text
    assert text.count(told) == 1
    assert "on 2 workers" in text


def test_a_silent_worker_is_shown_as_silent(site: Site, ledger: Ledger, clock: FakeClock) -> None:
    assert "none has announced itself" in _page(site).text
    ledger.announce(announcement_of())
    clock.move(600)
    text = _page(site).text
    assert "0 of 1 alive" in text
    assert "No worker is alive" in text
    assert "silent, last seen 10 min ago" in text
    ledger.announce(announcement_of("another"))
    assert "1 worker fell silent worker-1:" in _page(site).text
    clock.move(-86_400)
    assert "0 of 2 alive" in _page(site).text, "the clock was ahead when they were heard of"


def test_a_broker_that_is_away_is_said_with_what_waits(
    site: Site, gateway: FakeGateway, ledger: Ledger, clock: FakeClock
) -> None:
    gateway.broker_state = UNREACHABLE
    _take_in(ledger, clock, "a", Decision(None))
    text = _page(site).text
    assert "The broker does not answer" in text
    assert "1 study waits here" in text


def test_a_wrong_configuration_is_named_by_its_key(clock: FakeClock) -> None:
    site = Site(None, problems=("PriCheXy.Broker.Url: bad.",), worker_user=None, clock=clock)
    for page in (_page(site), Reader(site).page("/studies")):
        assert "PriCheXy.Broker.Url: bad." in page.text
        assert "nothing is handed on" in page.text


def test_a_ledger_that_is_not_open_is_said(clock: FakeClock) -> None:
    gateway = FakeGateway(None)
    gateway.ledger_state = "does not work (OperationalError)"
    site = Site(gateway, problems=(), worker_user=None, clock=clock)
    assert "The ledger does not work (OperationalError)" in _page(site).text
    assert "The ledger does not work" in Reader(site).page("/studies").text


def test_the_gravest_comes_first() -> None:
    overview = Overview(
        problems=(),
        ledger="ok",
        broker=UNREACHABLE,
        counts={State.QUARANTINED: 1},
        workers=(),
        at=datetime(2026, 3, 1, tzinfo=UTC),
        unreadable=2,
    )
    needs = needs_of(overview, disk=Disk(free=1, total=100))
    assert [need.grave for need in needs] == sorted((need.grave for need in needs), reverse=True)
    titles = [need.title for need in needs]
    assert titles[0] == "The broker does not answer"
    assert "Only 1 bytes are left on Orthanc's disk" in titles


def test_what_ended_is_drawn_and_told_in_figures(
    site: Site, ledger: Ledger, clock: FakeClock
) -> None:
    assert "nothing yet" in _page(site).text
    clock.move(7200)
    _take_in(ledger, clock, "a", Decision(None))
    clock.move(90)
    _end(ledger, State.EXPORTED)
    _take_in(ledger, clock, "b", Decision(None))
    _end(ledger, State.QUARANTINED, Reason.BURNED_IN_TEXT)
    page = _page(site)
    assert page.tags.count("svg") == 4
    assert "01 Mar 10:00: 1 exported, 1 quarantined" in page.text
    assert "01 Mar 10:00: half within 90 s, 95 % within 90 s" in page.text
    assert "Sun 01 Mar: 1 exported, 1 quarantined" in page.text
    assert "01 Mar 10:00 1 1 0 90 s 90 s" in page.text, "the same in the table"
    assert "The figures, by hour" in page.text
    assert "The figures, by day" in page.text


# --- Plots -----------------------------------------------------------------------------------

NOW = datetime(2026, 3, 1, 8, 20, tzinfo=UTC)


def _span(hour: int, seconds: tuple[float, ...] = (), **ended: int) -> Span:
    begin = datetime(2026, 3, 1, hour, tzinfo=UTC)
    counts = {State(name): count for name, count in ended.items()}
    return Span(begin, begin + timedelta(hours=1), counts, seconds)


def test_the_last_hours_and_days_end_with_the_one_that_runs() -> None:
    hours = edges(NOW, HOUR, 24)
    assert (len(hours), hours[-1]) == (25, datetime(2026, 3, 1, 9, tzinfo=UTC))
    days = edges(NOW, DAY, 14)
    assert (days[0], days[-1]) == (
        datetime(2026, 2, 16, tzinfo=UTC),
        datetime(2026, 3, 2, tzinfo=UTC),
    )


def test_a_percentile_is_one_of_the_values() -> None:
    assert percentile((), 0.5) is None
    assert percentile((7.0,), 0.95) == 7.0
    assert percentile(tuple(range(1, 101)), 0.95) == 95
    assert percentile((1.0, 2.0, 3.0, 4.0), 0.5) == 2.0


@given(
    st.lists(st.lists(st.floats(0, 9)).map(sorted), max_size=5),
    st.floats(0.01, 1),
)
def test_a_percentile_of_several_runs_is_that_of_their_values(
    runs: list[list[float]], share: float
) -> None:
    joined = sorted(value for run in runs for value in run)
    rank = max(1, math.ceil(share * len(joined)))
    assert percentile_of(runs, share) == (joined[rank - 1] if joined else None)


def test_a_bar_is_as_high_as_its_count_and_stacked_without_gaps() -> None:
    spans = (_span(7, exported=6, quarantined=3, failed=1), _span(8, exported=5))
    plot = throughput(spans, "t")
    assert [tick.text for tick in plot.upwards] == ["0", "10"]
    full = plot.upwards[0].place - plot.upwards[1].place
    first, second = plot.bars
    assert [block.kind for block in first.blocks] == ["exported", "quarantined", "failed"]
    assert sum(block.height for block in first.blocks) == pytest.approx(full)
    assert second.blocks[0].height == pytest.approx(full / 2)
    for lower, upper in zip(first.blocks, first.blocks[1:], strict=False):
        assert upper.y + upper.height == pytest.approx(lower.y)
    assert first.blocks[-1].y == plot.upwards[1].place
    assert second.x >= first.x + first.width
    assert not plot.empty


@pytest.mark.parametrize(
    ("seconds", "top"),
    [((), "1 s"), ((3.0,), "5 s"), ((300.0,), "5 min"), ((9000.0,), "5 h"), ((119.0,), "200 s")],
)
def test_times_have_a_scale_of_a_round_number(seconds: tuple[float, ...], top: str) -> None:
    plot = latency((_span(7), _span(8, seconds)), "t")
    assert plot.upwards[-1].text == top
    assert plot.empty == (not seconds)
    for bar in plot.bars:
        for block in bar.blocks:
            assert plot.upwards[-1].place <= block.y <= plot.base
            assert block.y + block.height <= plot.base + 0.01


def test_times_and_amounts_are_written_as_people_say_them(clock: FakeClock) -> None:
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
    assert [amount(n) for n in (5, 12_300, 999_999, 4e9, 2.5e12)] == [
        "5 bytes",
        "12 kB",
        "1000 kB",
        "4 GB",
        "2.5 TB",
    ]


def test_a_disk_that_is_not_there_is_not_known(tmp_path, site: Site) -> None:
    assert look_at_disk(tmp_path / "absent") is None
    found = look_at_disk(tmp_path)
    assert found is not None
    assert 0 <= found.free <= found.total
