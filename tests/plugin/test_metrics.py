"""The gateway in numbers: each step counted once, and a page that lists every family."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine

from prichexy_plugin.backfill import Backfill
from prichexy_plugin.chain import Deed, Head
from prichexy_plugin.dashboard.http import Request, Response
from prichexy_plugin.dashboard.metrics import Metrics, gauges
from prichexy_plugin.dashboard.routes import Site
from prichexy_plugin.dashboard.view import Overview
from prichexy_plugin.database import open_database
from prichexy_plugin.disk import Disk
from prichexy_plugin.event_feed import EventFeed
from prichexy_plugin.intake import Decision
from prichexy_plugin.key_watch import Refusal
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.records import WorkerRecord
from prichexy_plugin.relay import BrokerState
from prichexy_plugin.security import Role, Roles
from prichexy_plugin.sweep import Cause, Group, Waiting
from prichexy_plugin.trail import ChainState
from prichexy_testing.dashboard_reader import FakeGateway
from prichexy_testing.fake_orthanc import orthanc_id
from prichexy_testing.plugin_fakes import FakeClock, announcement_of, report_of
from prichexy_worker.contract import API_ROOT, Reason, State, StudyMessage
from prichexy_worker.retry import Blame, Circuit

PAGE = Path(__file__).parents[2] / "docs" / "operating.md"
STUDY = orthanc_id("a")
API = API_ROOT.removeprefix("/prichexy")
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_database(f"sqlite:///{tmp_path}/ledger.sqlite")
    yield engine
    engine.dispose()


@pytest.fixture
def ledger(engine: Engine, clock: FakeClock) -> Ledger:
    return Ledger(engine, clock)


def take_in(ledger: Ledger, clock: FakeClock, content: str = "c1") -> StudyMessage:
    ledger.note({STUDY: clock()}, cursor=1)
    ledger.settle(STUDY, Decision(None), content=content, instances=2)
    message = ledger.outbox()[0]
    ledger.sent(message)
    return message


def finish(ledger: Ledger, message: StudyMessage) -> None:
    ledger.report(report_of(message, State.PROCESSING))
    ledger.report(
        report_of(
            message, State.EXPORTED, attempt=1, instances=2, durations={"deform": 1.5, "text": 4.0}
        )
    )


def samples(text: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float:
    return found[f"prichexy_{name}", frozenset(labels.items())]


def overview(clock: FakeClock, **others: object) -> Overview:
    values: dict[str, object] = {
        "problems": (),
        "ledger": "ok",
        "broker": BrokerState(reachable=True, detail="", checked=None),
        "counts": {State.EXPORTED: 3},
        "workers": (),
        "at": clock(),
    }
    return Overview(**{**values, **others})  # type: ignore[arg-type]


def test_each_step_is_told_once_and_none_of_before(
    engine: Engine, ledger: Ledger, clock: FakeClock
) -> None:
    message = take_in(ledger, clock)
    feed = EventFeed(engine)
    assert feed.new() == ()
    clock.move(30)
    finish(ledger, message)
    claimed, ended = feed.new()
    assert (claimed.before, claimed.after) == (State.QUEUED, State.PROCESSING)
    assert (claimed.seconds, claimed.durations) == (None, {})
    assert (ended.before, ended.after) == (State.PROCESSING, State.EXPORTED)
    assert ended.seconds == 30
    assert ended.durations == {"deform": 1.5, "text": 4.0}
    assert feed.new() == ()


def test_a_study_that_came_back_is_timed_from_its_return(
    engine: Engine, ledger: Ledger, clock: FakeClock
) -> None:
    finish(ledger, take_in(ledger, clock))
    feed = EventFeed(engine)
    clock.move(timedelta(days=9).total_seconds())
    again = take_in(ledger, clock, content="c2")
    clock.move(12)
    finish(ledger, again)
    assert [one.seconds for one in feed.new() if one.after is State.EXPORTED] == [12]


def test_many_steps_are_read_in_several_queries(
    engine: Engine, ledger: Ledger, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prichexy_plugin.event_feed._BATCH", 2)
    feed = EventFeed(engine)
    finish(ledger, take_in(ledger, clock))
    trail = ledger.events(ledger.studies().studies[0].job_id)
    assert [one.after for one in feed.new()] == [event.to_state for event in trail]


def test_steps_times_and_work_are_counted(engine: Engine, ledger: Ledger, clock: FakeClock) -> None:
    metrics = Metrics(EventFeed(engine))
    message = take_in(ledger, clock)
    clock.move(30)
    finish(ledger, message)
    metrics.count()
    metrics.count()
    found = samples(metrics.exposition())
    assert value(found, "study_steps_total", before="", after="watched", reason="") == 1
    assert value(found, "study_steps_total", before="processing", after="exported", reason="") == 1
    assert value(found, "study_seconds_count", end="exported") == 1
    assert value(found, "study_seconds_sum", end="exported") == 30
    assert value(found, "study_seconds_bucket", end="exported", le="10.0") == 0
    assert value(found, "study_seconds_bucket", end="exported", le="30.0") == 1
    assert value(found, "study_seconds_count", end="failed") == 0
    assert value(found, "work_seconds_sum", step="deform") == 1.5


def test_gauges_tell_how_the_gateway_is(clock: FakeClock) -> None:
    seen = WorkerRecord(announcement_of(), seen=clock() - timedelta(seconds=7))
    gone = WorkerRecord(announcement_of("worker-2"), seen=clock() - timedelta(days=1))
    ahead = WorkerRecord(announcement_of("worker-3"), seen=clock() + timedelta(days=1))
    waiting = Waiting("1" * 32, STUDY, State.QUEUED, None, clock(), None, 0, None)
    found = samples(
        gauges(
            overview(
                clock,
                problems=("one",),
                troubles=("two", "three"),
                unreadable=4,
                workers=(seen, gone, ahead),
                late=(
                    Group(State.QUEUED, Cause.NO_WORKER, 5, waiting),
                    Group(State.PENDING, Cause.NO_WORKER, 2, waiting),
                ),
                circuits=(Circuit(Blame.TARGET, opened=clock(), reason=Reason.TARGET_REFUSED),),
                backfill=Backfill(1, clock(), "admin", per_minute=60, total=100, seen=40),
            ),
            Disk(free=10, total=100),
        )
    )
    assert value(found, "problems") == 3
    assert value(found, "ledger_up") == value(found, "broker_up") == 1
    assert value(found, "disk_free_bytes") == 10
    assert value(found, "disk_size_bytes") == 100
    assert value(found, "studies", state="exported") == 3
    assert value(found, "studies", state="failed") == 0
    assert value(found, "studies_unreadable") == 4
    assert value(found, "studies_late", cause="no_worker") == 7
    assert value(found, "studies_late", cause="held") == 0
    assert value(found, "circuit_open", blame="target") == 1
    assert value(found, "circuit_open", blame="source") == 0
    assert value(found, "backfill_running") == 1
    assert value(found, "backfill_studies_seen") == 40
    assert value(found, "backfill_studies") == 100
    assert value(found, "workers_alive") == 1
    assert value(found, "announced_worker_seen_seconds", worker="worker-1") == 7


def test_a_worker_that_is_refused_for_its_key_is_counted(clock: FakeClock) -> None:
    refused = Refusal("worker-2", "2" * 16, "1" * 16, (), clock())
    for workers in ((), (refused,)):
        found = samples(gauges(overview(clock, other_keys=workers), None))
        assert value(found, "workers_with_another_key") == len(workers)


def test_of_a_ledger_that_does_not_work_no_numbers_are_made_up(clock: FakeClock) -> None:
    found = samples(gauges(overview(clock, ledger="does not work (OperationalError)"), None))
    assert value(found, "ledger_up") == 0
    assert not [
        name for name, _ in found if name.startswith(("prichexy_studies", "prichexy_announced"))
    ]


def test_the_page_names_every_family_and_no_other(engine: Engine, clock: FakeClock) -> None:
    backfill = Backfill(1, clock(), "admin", per_minute=60, total=100)
    audit = ChainState(Head(3, "3"), Head(0, "0"), 3, keyed=True, told=3, ends_at_head=True)
    text = gauges(overview(clock, backfill=backfill, audit=audit), Disk(1, 1))
    text += Metrics(EventFeed(engine)).exposition()
    # A counter's and an information's names get an ending when they are written.
    exposed = {
        {"counter": f"{family.name}_total", "info": f"{family.name}_info"}.get(
            family.type, family.name
        )
        for family in text_string_to_metric_families(text)
    }
    section = (
        PAGE.read_text(encoding="utf-8").split("## Metrics of the plugin")[1].split("\n## ")[0]
    )
    assert set(re.findall(r"^\| `(prichexy_\w+)", section, re.MULTILINE)) == exposed


def test_lines_that_the_syslog_server_has_not_got_are_counted_and_timed(
    ledger: Ledger, clock: FakeClock
) -> None:
    def found() -> Samples:
        return samples(gauges(overview(clock, audit=ledger.chain_state()), None))

    take_in(ledger, clock)
    lines = ledger.chain_state().lines
    assert value(found(), "audit_lines") == lines > 0
    assert not [name for name, _ in found() if "untold" in name], "there is no server"
    ledger.begin({}, tells=True)
    clock.now += timedelta(minutes=90)
    ledger.record(Deed.STOPPED)
    assert value(found(), "audit_untold_lines") == 2
    assert value(found(), "audit_untold_seconds") == 90 * 60
    ledger.note_told(lines + 1)
    assert value(found(), "audit_untold_seconds") == 0
    ledger.note_told(lines + 2)
    assert value(found(), "audit_untold_lines") == 0
    assert value(found(), "audit_untold_seconds") == 0


def site(gateway: FakeGateway | None, clock: FakeClock, problems: tuple[str, ...] = ()) -> Site:
    roles = Roles({"vera": Role.VIEWER})
    return Site(
        gateway,
        problems=problems,
        worker_user="worker",
        monitor_user="watch",
        clock=clock,
        roles=roles,
        disk=lambda: Disk(1, 2),
    )


def ask(site: Site, path: str, user: str = "watch", method: str = "GET") -> Response:
    token = base64.b64encode(f"{user}:x".encode()).decode()
    return site.answer(Request(method, path, headers={"authorization": f"Basic {token}"}))


def text_of(response: Response) -> str:
    assert response.status == 200
    assert isinstance(response.body, str)
    return response.body


def test_prometheus_is_answered_with_gauges_and_counters(
    engine: Engine, ledger: Ledger, clock: FakeClock
) -> None:
    gateway = FakeGateway(ledger)
    gateway.feed = EventFeed(engine)
    pages = site(gateway, clock)
    finish(ledger, take_in(ledger, clock))
    for _ in range(2):
        found = samples(text_of(ask(pages, "/metrics")))
        assert value(found, "studies", state="exported") == 1
        assert value(found, "study_seconds_count", end="exported") == 1
    assert ask(pages, "/metrics", user="vera").status == 200
    assert ask(pages, "/metrics", user="worker").status == 403
    assert ask(pages, "/metrics", user="somebody").status == 403
    assert ask(pages, "/metrics", method="POST").status == 405
    # Whatever the filter lets through, no page is for who watches.
    assert ask(pages, "/studies").status == 403
    assert ask(pages, "/metrics/x").status == 403


def test_prometheus_is_answered_while_the_gateway_does_not_work(
    engine: Engine, ledger: Ledger, clock: FakeClock, tmp_path: Path
) -> None:
    found = samples(text_of(ask(site(None, clock, ("PriCheXy.Broker: bad.",)), "/metrics")))
    assert value(found, "problems") == 1
    gateway = FakeGateway(ledger)
    gateway.feed = EventFeed(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE events RENAME TO gone")
        connection.exec_driver_sql("ALTER TABLE studies RENAME TO lost")
    found = samples(text_of(ask(site(gateway, clock), "/metrics")))
    assert value(found, "ledger_up") == 0
    assert value(found, "study_seconds_count", end="exported") == 0


def test_who_watches_hears_that_a_study_is_late_and_not_which(
    ledger: Ledger, clock: FakeClock
) -> None:
    pages = site(FakeGateway(ledger), clock)
    job = take_in(ledger, clock).job_id
    clock.now += timedelta(days=1)
    named = text_of(ask(pages, f"{API}/health", user="vera"))
    assert job in named
    watched = text_of(ask(pages, f"{API}/health"))
    assert '"oldest": {"since"' in watched
    assert job not in watched


def test_a_probe_hears_why_no_study_is_taken_in(ledger: Ledger, clock: FakeClock) -> None:
    gateway = FakeGateway(ledger)
    pages = site(gateway, clock)
    ready = ask(pages, f"{API}/ready")
    assert (ready.status, ready.body) == (200, '{"ready": true, "problems": []}')
    gateway.broker_state = BrokerState(reachable=False, detail="away", checked=None)
    assert ask(pages, f"{API}/ready").status == 200
    gateway.troubles = ("watching: Orthanc does not answer the plugin.",)
    gateway.ledger_state = "does not work (OperationalError)"
    answer = ask(pages, f"{API}/ready")
    assert answer.status == 503
    assert "Orthanc does not answer the plugin." in str(answer.body)
    assert "the ledger does not work (OperationalError)" in str(answer.body)
    assert ask(pages, f"{API}/ready", method="POST").status == 405
