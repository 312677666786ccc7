"""Old and new stand side by side: what was published is read, and each side is understood."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from prichexy_plugin.dashboard.http import Request
from prichexy_plugin.dashboard.routes import Site
from prichexy_plugin.database import open_database
from prichexy_plugin.intake import Decision
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.relay import BrokerState
from prichexy_testing import contract_version_1 as old
from prichexy_testing.fake_orthanc import orthanc_id
from prichexy_testing.http_servers import serving
from prichexy_testing.plugin_fakes import FakeClock, announcement_of
from prichexy_worker import contract
from prichexy_worker.contract import (
    CONTRACT_VERSION,
    OLDEST_VERSION,
    REQUEST_HEADER,
    Errand,
    Looked,
    Reason,
    State,
    StudyMessage,
)
from prichexy_worker.errors import Retryable
from prichexy_worker.orthanc_client import connect
from prichexy_worker.reporting import PluginReporter

PUBLISHED = Path(__file__).parent / "published"
STUDY = orthanc_id("a")


def _recorded(version: int) -> list[dict[str, Any]]:
    recorded: list[dict[str, Any]] = json.loads((PUBLISHED / f"version_{version}.json").read_text())
    return recorded


@pytest.mark.parametrize("version", range(OLDEST_VERSION, CONTRACT_VERSION + 1))
def test_what_was_published_in_any_version_that_is_read_is_read(version: int) -> None:
    recorded = _recorded(version)
    kinds = {"Claim", "ModelInfo", "StudyMessage", "StudyReport", "TextPictures"}
    brought = {"Available", "ImageInDoubt", "Looked", "PatientsAsked", "PatientsTold"}
    since = brought if version >= 3 else set()
    assert {entry["kind"] for entry in recorded} == kinds | {"WorkerAnnouncement"} | since
    for entry in recorded:
        kind = getattr(contract, entry["kind"])
        value = kind.from_json(entry["json"])
        told = entry["json"]["version"]
        varies = kind in (contract.StudyReport, contract.Claim, contract.WorkerAnnouncement)
        assert (value.to_json(told) if varies else value.to_json()) == entry["json"]


def test_software_of_version_1_reads_what_is_recorded_of_it() -> None:
    for entry in _recorded(1):
        assert getattr(old, entry["kind"]).from_json(entry["json"]).to_json() == entry["json"]


def test_reports_of_a_version_that_is_to_come_are_read_as_far_as_they_are_known() -> None:
    for entry in _recorded(CONTRACT_VERSION):
        if entry["json"]["version"] == CONTRACT_VERSION:
            kind = getattr(contract, entry["kind"])
            assert kind.from_json({**entry["json"], "told": ["more"]}) == kind.from_json(
                entry["json"]
            )


class Plugin:
    """The plugin of today: its ledger behind its addresses."""

    def __init__(self, database: str = "sqlite://") -> None:
        self.clock = FakeClock()
        self.engine = open_database(database)
        self.ledger: Ledger | None = Ledger(self.engine, self.clock)
        self.ledger_state = "ok"
        self.broker_state = BrokerState(reachable=True, detail="", checked=None)
        self.troubles: tuple[str, ...] = ()
        self.targets: frozenset[str] = frozenset()
        self.site = Site(self, problems=(), worker_user="worker", clock=self.clock)

    def start_backfill(self, per_minute: int, by: str) -> Any:
        raise NotImplementedError(per_minute, by)

    def take_in(self, targets: tuple[str, ...], study: str = STUDY) -> dict[str, object]:
        """Give the message of a study as it goes over the wire."""
        assert self.ledger is not None
        self.ledger.note({study: self.clock()}, cursor=1)
        self.ledger.settle(study, Decision(None, targets), content="c", instances=1)
        [message] = self.ledger.outbox()
        self.ledger.sent(message)
        return message.to_json()

    def post(self, path: str, body: object, header: str) -> Any:
        pair = base64.b64encode(b"worker:x").decode()
        request = Request(
            method="POST",
            path=contract.API_ROOT.removeprefix("/prichexy") + path,
            query={},
            headers={REQUEST_HEADER.lower(): header, "authorization": f"Basic {pair}"},
            body=json.dumps(body).encode(),
        )
        answer = self.site.answer(request)
        assert answer.status == 200, answer.body
        return json.loads(answer.body)


@pytest.fixture
def plugin() -> Iterator[Plugin]:
    one = Plugin()
    yield one
    one.engine.dispose()


@pytest.mark.parametrize("targets", [(), ("archive", "research")])
def test_a_worker_of_version_1_works_with_the_plugin_of_today(
    plugin: Plugin, targets: tuple[str, ...]
) -> None:
    header = "worker"
    announced = announcement_of().to_json(1)
    assert old.WorkerAnnouncement.from_json(announced).worker_id == "worker-1"
    plugin.post("/workers", announced, header)
    message = old.StudyMessage.from_json(plugin.take_in(targets))
    assert message.targets == targets
    for state, reason in (
        (old.State.QUEUED, old.Reason.TARGET_UNREACHABLE),
        (old.State.EXPORTED, None),
    ):
        asks = old.StudyReport(message.job_id, 1, old.State.PROCESSING, "worker-1")
        claim = old.Claim.from_json(plugin.post("/reports", asks.to_json(), header))
        assert claim.proceed
        ends = old.StudyReport(message.job_id, 1, state, "worker-1", reason, attempt=claim.attempt)
        accepted = plugin.post("/reports", ends.to_json(), header)
        assert old.Claim.from_json(accepted).proceed
    assert plugin.ledger is not None
    study = plugin.ledger.study(message.job_id)
    assert study is not None
    assert (study.state, study.attempts) == (State.EXPORTED, 2)
    assert plugin.ledger.takers(plugin.clock()) == {"": 1}


@pytest.mark.parametrize("version", [1, 2])
def test_what_a_worker_of_before_may_not_ask_of_orthanc_costs_no_study_an_attempt(
    plugin: Plugin, version: int
) -> None:
    """Upgraded before its workers, the plugin has studies wait for a worker of today."""
    asks = StudyMessage.from_json(plugin.take_in(()))
    for _ in range(2 * contract.MAX_CLAIMS):
        claims = contract.StudyReport(asks.job_id, 1, State.PROCESSING, "worker-1")
        claim = plugin.post("/reports", claims.to_json(version), str(version))
        assert (claim["proceed"], claim["left"]) == (True, contract.MAX_ATTEMPTS)
        # Orthanc answered 403 to its search for others with the study's UID.
        back = contract.StudyReport(
            asks.job_id,
            1,
            State.QUEUED,
            "worker-1",
            Reason.SOURCE_UNREACHABLE,
            attempt=claim["attempt"],
        )
        assert plugin.post("/reports", back.to_json(version), str(version))["proceed"]
    assert plugin.ledger is not None
    study = plugin.ledger.study(asks.job_id)
    assert study is not None
    assert (study.state, study.reason) == (State.QUEUED, Reason.OLDER_WORKER)
    assert not [one for one in plugin.ledger.circuits().values() if one.studies]


class OldPlugin:
    """A plugin that reads version 1 by the code that was published with it, and nothing else."""

    def __init__(self) -> None:
        self.reports: list[old.StudyReport] = []
        self.announcements: list[old.WorkerAnnouncement] = []
        self.refused: list[str] = []
        self.url = ""

    def take(self, path: str, body: object) -> tuple[int, object]:
        try:
            if path.endswith("/workers"):
                self.announcements.append(old.WorkerAnnouncement.from_json(body))
                return 200, {}
            self.reports.append(old.StudyReport.from_json(body))
            return 200, old.Claim(proceed=True, attempt=1, left=5).to_json()
        except old.ContractError as error:
            self.refused.append(str(error))
            return 422, {}


class NewPlugin(OldPlugin):
    """The same as the plugin of today; only what it heard is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.versions: list[object] = []

    def take(self, path: str, body: Any) -> tuple[int, object]:
        self.versions.append(body["version"])
        if path.endswith("/workers"):
            contract.WorkerAnnouncement.from_json(body)
            return 200, {"version": CONTRACT_VERSION}
        contract.StudyReport.from_json(body)
        return 200, contract.Claim(proceed=True, attempt=1).to_json()


@contextmanager
def _serving(plugin: OldPlugin) -> Iterator[PluginReporter]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, answer = plugin.take(self.path, body)
            text = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_arguments: object) -> None:
            pass

    with serving(Handler) as url:
        yield PluginReporter(connect(url, "worker", "x", None, 60.0))


def _work(reporter: PluginReporter) -> None:
    """Report one study that fails at a target, is given back by a stop, and is exported."""
    reporter.announce(contract.WorkerAnnouncement(**vars_of(announcement_of()), queues=("gpu",)))
    job = "0" * 32
    for state, reason in (
        (State.QUEUED, Reason.TARGET_REFUSED),
        (State.QUEUED, Reason.WORKER_STOPPED),
        (State.EXPORTED, None),
    ):
        asks = contract.StudyReport(job, 1, State.PROCESSING, "worker-1")
        claim = reporter.report(asks)
        target = "research" if reason is Reason.TARGET_REFUSED else ""
        report = contract.StudyReport(
            job, 1, state, "worker-1", reason, attempt=claim.attempt, target=target
        )
        assert reporter.report(report).proceed


def vars_of(announcement: contract.WorkerAnnouncement) -> dict[str, Any]:
    names = ("worker_id", "software", "device", "device_reason", "model")
    return {name: getattr(announcement, name) for name in names}


def test_the_worker_of_today_works_with_a_plugin_of_version_1() -> None:
    plugin = OldPlugin()
    with _serving(plugin) as reporter:
        _work(reporter)
    assert plugin.refused == []
    assert len(plugin.announcements) == 1
    reasons = [report.reason for report in plugin.reports]
    assert reasons == [
        None,
        old.Reason.TARGET_REFUSED,
        None,
        old.Reason.TOOK_TOO_LONG,
        None,
        None,
    ]


def test_with_a_plugin_of_today_the_worker_of_today_tells_all_that_it_has_to() -> None:
    plugin = NewPlugin()
    with _serving(plugin) as reporter:
        _work(reporter)
    assert plugin.versions == [1, CONTRACT_VERSION] * 4


class PluginOfVersion2(NewPlugin):
    """A plugin that reads no later version than 2, and says so."""

    def take(self, path: str, body: Any) -> tuple[int, object]:
        if body["version"] > 2:
            self.refused.append(path)
            return 422, {}
        status, answer = super().take(path, body)
        assert isinstance(answer, dict)
        return status, answer | {"version": 2}


def test_a_worker_of_today_tells_a_plugin_of_version_2_nothing_that_it_cannot_read() -> None:
    plugin = PluginOfVersion2()
    with _serving(plugin) as reporter:
        _work(reporter)
        image = contract.ImageInDoubt("0" * 32, 1, 1, 1, "a" * 64, 9, 9, (), b"\x89PNG\r\n\x1a\n")
        assert reporter.show_whole(image).proceed
    assert plugin.refused == []
    assert plugin.versions == [1, 2] * 4


@pytest.mark.parametrize(
    "more",
    [
        {"looked": (Looked("a" * 64),)},
        {"errand": Errand.WITHDRAW},
        {"bundle": "b" * 64},
        {"strength": 0.5},
    ],
    ids=str,
)
def test_what_a_worker_of_before_must_not_pass_over_it_gives_back_unopened(more: Any) -> None:
    message = StudyMessage("0" * 32, STUDY, 2, ("archive",), **more)
    assert StudyMessage.from_json(message.to_json()) == message
    assert message.to_json()["version"] == 3
    with pytest.raises(old.ContractError, match="version"):
        old.StudyMessage.from_json(message.to_json())


def test_only_version_3_tells_of_a_withdrawal() -> None:
    report = contract.StudyReport("0" * 32, 2, State.REJECTED, "w", Reason.WITHDRAWN, attempt=1)
    assert contract.StudyReport.from_json(report.to_json()) == report
    with pytest.raises(contract.ContractError, match="state"):
        contract.StudyReport.from_json(report.to_json(2))


class LedgerOfToday(OldPlugin):
    """The plugin of today with its ledger, as a worker of today reaches it."""

    def __init__(self, plugin: Plugin) -> None:
        super().__init__()
        self.plugin = plugin

    def take(self, path: str, body: Any) -> tuple[int, object]:
        address = path.removeprefix(contract.API_ROOT)
        return 200, self.plugin.post(address, body, str(CONTRACT_VERSION))


def _export_under(key: str, reporter: PluginReporter, message: StudyMessage, *retired: str) -> bool:
    """Export a study as a worker with that key does; False where it gets none."""
    asks = contract.StudyReport(
        message.job_id, 1, State.PROCESSING, "worker-1", key_id=key, retired_keys=retired
    )
    claim = reporter.report(asks)
    if not claim.proceed:
        assert claim.another_key
        return False
    end = replace(asks, state=State.EXPORTED, attempt=claim.attempt, retired_keys=())
    return reporter.report(end).proceed


def test_a_worker_whose_key_was_changed_as_documented_gets_its_studies(tmp_path: Path) -> None:
    plugin = Plugin(f"sqlite:///{tmp_path}/ledger.sqlite")
    with _serving(LedgerOfToday(plugin)) as reporter:
        before, mistaken, changed, next_one = (
            StudyMessage.from_json(plugin.take_in((), study=orthanc_id(name))) for name in "abcd"
        )
        assert _export_under("1" * 16, reporter, before)
        assert not _export_under("2" * 16, reporter, mistaken)
        assert not _export_under("2" * 16, reporter, mistaken, "3" * 16)
        assert _export_under("2" * 16, reporter, changed, "1" * 16)
        assert _export_under("2" * 16, reporter, next_one, "1" * 16)
    assert plugin.ledger is not None
    study = plugin.ledger.study(changed.job_id)
    plugin.engine.dispose()
    assert study is not None
    assert (study.state, study.attempts, study.key_id) == (State.EXPORTED, 1, "2" * 16)


def test_a_plugin_that_is_put_back_to_version_1_is_understood_from_the_next_study_on() -> None:
    new, before = NewPlugin(), OldPlugin()
    with _serving(new) as reporter:
        _work(reporter)
    with _serving(before) as again:
        again._version = reporter._version
        with pytest.raises(Retryable):
            again.announce(announcement_of())
        _work(again)
    assert [text for text in before.refused if "report" in text] == []
