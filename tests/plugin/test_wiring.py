"""The plugin in a stand-in for Orthanc: wiring, threads, and what happens when it cannot run."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import DatabaseError
from sqlalchemy.orm import Session

from prichexy_plugin import fallback
from prichexy_plugin.chain import PERSON
from prichexy_plugin.dashboard.http import Request, plain
from prichexy_plugin.dashboard.routes import Site
from prichexy_plugin.database import open_database
from prichexy_plugin.history import History
from prichexy_plugin.ownership import number_of
from prichexy_plugin.pictures import OrthancPictures
from prichexy_plugin.runtime import Runtime
from prichexy_plugin.schema import SCHEMA_VERSION, FactRow, StudyRow
from prichexy_plugin.settings import read_settings
from prichexy_plugin.studies import OrthancStudies
from prichexy_testing.fake_orthanc import FakeOrthanc
from prichexy_testing.plugin_fakes import CHEST, FakeBroker, FakeClock, load_script, report_of
from prichexy_testing.servers import free_port, wait_until
from prichexy_worker.contract import API_ROOT, Reason, State


def _configuration(folder: Path, **section: Any) -> dict[str, Any]:
    return {
        "StorageDirectory": str(folder),
        "StableAge": 1,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {"worker": "x"},
        "PriCheXy": {
            "WorkerUser": "worker",
            "Broker": {"Url": f"redis://127.0.0.1:{free_port()}/0"},
            **section,
        },
    }


class Running:
    """A runtime with a broker in memory."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self.orthanc = FakeOrthanc(clock=self.clock)
        self.broker = FakeBroker()
        self.log: list[str] = []
        self.settings = read_settings(_configuration(folder), folder)
        studies = OrthancStudies(self.orthanc)
        self.runtime = Runtime(
            self.settings,
            studies,
            self.broker,
            pictures=OrthancPictures(self.orthanc),
            number=partial(number_of, self.orthanc),
            clock=self.clock,
            log=self.log.append,
        )

    def receive(self, name: str) -> None:
        study = self.orthanc.store(CHEST, study=name)
        self.clock.move(2)
        self.orthanc.settle(study)
        self.runtime.wake()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    one = Running(tmp_path)
    one.runtime.start()
    yield one
    one.runtime.stop()


def test_a_stable_study_goes_to_the_broker(running: Running) -> None:
    running.receive("a")
    wait_until(lambda: len(running.broker.messages) == 1, what="the message is sent")


def test_a_study_tried_again_is_sent_to_a_queue_that_the_rules_of_now_name(
    running: Running,
) -> None:
    running.receive("a")
    wait_until(lambda: len(running.broker.messages) == 1, what="the message is sent")
    [message] = running.broker.messages
    ledger = running.runtime.ledger
    assert ledger is not None
    claim = ledger.report(report_of(message, State.PROCESSING))
    failed = report_of(message, State.FAILED, Reason.UNEXPECTED, attempt=claim.attempt)
    assert ledger.report(failed).proceed
    engine = open_database(running.settings.ledger_url)
    with Session(engine) as session, session.begin():
        session.get_one(StudyRow, message.study_id).queue = "of before"
    engine.dispose()
    assert ledger.again(message.job_id, revision=1, actor=f"{PERSON}somebody")
    running.runtime.wake()
    wait_until(lambda: len(running.broker.messages) == 2, what="the message is sent again")
    assert running.broker.queues[message.job_id] == ""


def test_the_trails_head_is_logged_once_a_day_also_after_the_clock_was_ahead(
    running: Running,
) -> None:
    def logs(more: int) -> None:
        running.runtime.tidy()
        wait_until(
            lambda: sum("audit trail: " in line for line in running.log) == more,
            what="the head is in the log",
        )

    logs(1)
    running.clock.move(400 * 86_400)
    logs(2)
    running.clock.move(-400 * 86_400)
    logs(3)


def test_a_callback_never_waits_for_a_hung_broker(running: Running) -> None:
    entered, release = threading.Event(), threading.Event()

    def hang(_queue: str = "") -> int:
        entered.set()
        release.wait(300)
        return 0

    running.broker.waiting = hang  # type: ignore[method-assign]
    assert entered.wait(120)
    # All that Orthanc's own threads do returns although the relay hangs.
    running.receive("a")
    ledger = running.runtime.ledger
    assert ledger is not None
    wait_until(lambda: len(ledger.outbox()) == 1, what="the study is committed to the ledger")
    assert running.runtime.broker_state.detail
    release.set()
    wait_until(lambda: len(running.broker.messages) == 1, what="the message is sent")


def test_troubles_are_logged_when_they_begin_and_when_they_end(running: Running) -> None:
    running.orthanc.broken = True
    running.runtime.wake()
    begun = "PriCheXy, watching: Orthanc does not answer the plugin."
    wait_until(lambda: begun in running.log, what="the trouble is logged")
    running.runtime.wake()
    running.orthanc.broken = False
    running.runtime.wake()
    wait_until(lambda: "PriCheXy, watching: works again." in running.log, what="its end is logged")
    assert running.log.count(begun) == 1


def test_an_unexpected_error_is_logged_by_kind_and_place_and_the_thread_goes_on(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(OrthancStudies, "changes", lambda *_a, **_k: {}["DOE^JANE"])
        running.runtime.wake()
        wait_until(lambda: any("KeyError" in line for line in running.log), what="it is logged")
    assert not any("DOE" in line for line in running.log)
    running.receive("a")
    wait_until(lambda: len(running.broker.messages) == 1, what="the message is sent")


def test_a_ledger_that_cannot_be_opened_is_said_and_tried_again(tmp_path: Path) -> None:
    place = tmp_path / "storage"
    place.write_text("a file stands where the folder should be")
    running = Running(tmp_path)
    running.runtime._settings = read_settings({**_configuration(place), "StableAge": 1}, tmp_path)
    running.runtime.start()
    wait_until(lambda: "unexpected" in " ".join(running.log), what="the trouble is logged")
    assert running.runtime.ledger is None
    assert running.runtime.ledger_state != "ok"
    place.unlink()
    wait_until(lambda: running.runtime.ledger_state == "ok", what="the ledger is open")
    running.runtime.stop()


def test_a_ledger_of_newer_software_is_said_on_the_page_and_in_the_log(tmp_path: Path) -> None:
    running = Running(tmp_path)
    engine = open_database(read_settings(_configuration(tmp_path), tmp_path).ledger_url)
    with Session(engine) as session, session.begin():
        session.merge(FactRow(name="schema", number=SCHEMA_VERSION + 1))
    engine.dispose()
    running.runtime.start()
    refused = f"is of schema {SCHEMA_VERSION + 1}, which newer software wrote"
    wait_until(lambda: refused in running.runtime.ledger_state, what="the ledger is refused")
    site = Site(running.runtime, problems=(), worker_user=None, clock=running.clock)
    assert f"<h2>The ledger {refused}; this software" in site.answer(Request("GET", "")).body
    assert f"PriCheXy, watching: the ledger {refused}; this software" in running.log[0]
    running.runtime.stop()


def test_a_ledger_that_cannot_be_opened_leaves_no_engine_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disposed: list[Engine] = []
    dispose = Engine.dispose

    def note(engine: Engine, close: bool = True) -> None:
        disposed.append(engine)
        dispose(engine, close)

    monkeypatch.setattr(Engine, "dispose", note)
    (tmp_path / "ledger.sqlite").write_text("this is no database, but long enough to be looked at")
    with pytest.raises(DatabaseError):
        open_database(f"sqlite:///{tmp_path}/ledger.sqlite")
    assert len(disposed) == 1


def test_health_tells_that_the_watcher_cannot_work(running: Running) -> None:
    assert running.runtime.troubles == ()
    running.orthanc.broken = True
    expected = ("watching: Orthanc does not answer the plugin.",)
    wait_until(lambda: running.runtime.troubles == expected, what="the trouble is told")
    running.orthanc.broken = False
    wait_until(lambda: running.runtime.troubles == (), what="its end is told")


def test_stopping_lets_go_of_everything(running: Running) -> None:
    # Not while it makes the ledger: a busy disk may take longer over that than a stop waits.
    wait_until(lambda: running.runtime.ledger_state == "ok", what="the ledger is open")
    running.runtime.stop()
    assert running.broker.closed
    assert not [one for one in threading.enumerate() if one.name.startswith("prichexy-")]


def test_orthancs_own_life_starts_and_stops_the_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled = threading.Event()
    monkeypatch.setattr(History, "fill", lambda *_of: iter([filled.set()]))
    orthanc = FakeOrthanc(_configuration(tmp_path))
    load_script(orthanc)
    assert not [one for one in threading.enumerate() if one.name.startswith("prichexy-")]
    orthanc.change(orthanc.ChangeType.ORTHANC_STARTED)

    def health() -> Any:
        return orthanc.request("GET", f"{API_ROOT}/health").json()

    wait_until(lambda: health()["ledger"] == "ok", what="the ledger is open")
    assert filled.wait(300), "what the overview plots is counted beforehand"
    wait_until(
        lambda: "ConnectionError" in health()["broker"]["detail"], what="the broker was tried"
    )
    orthanc.change(orthanc.ChangeType.ORTHANC_STOPPED)
    assert not [one for one in threading.enumerate() if one.name.startswith("prichexy-")]
    assert "prichexy" in orthanc.explorer
    assert orthanc.filter is not None
    assert not orthanc.filter("/studies", method=2, headers={"sec-fetch-site": "cross-site"})


def test_what_an_address_asks_for_is_read_as_the_browser_meant_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orthanc = FakeOrthanc(_configuration(tmp_path))
    load_script(orthanc)
    asked: list[Request] = []
    monkeypatch.setattr(
        Site, "answer", lambda _site, request: asked.append(request) or plain(200, "")
    )
    orthanc.request("GET", "/prichexy/audit?actor=user+J%C3%BCrgen%2BEva&x%40y=%ff&empty=")
    assert asked[0].query == {
        "actor": "user Jürgen+Eva",
        "x@y": "\N{REPLACEMENT CHARACTER}",
        "empty": "",
    }


def test_with_a_wrong_configuration_orthanc_serves_and_the_key_is_named(tmp_path: Path) -> None:
    orthanc = FakeOrthanc(_configuration(tmp_path, Intake={"Rules": [{}]}))
    load_script(orthanc)
    for kind in (10, 9, 11):
        orthanc.change(kind)
    assert not list(tmp_path.iterdir()), "no ledger is opened, nothing is taken in"
    health = orthanc.request("GET", f"{API_ROOT}/health").json()
    assert health["problems"] == ["PriCheXy.Intake.Rules[0].Name: is missing."]
    assert "PriCheXy.Intake.Rules[0].Name" in orthanc.request("GET", "/prichexy").body
    assert any("PriCheXy.Intake.Rules[0].Name" in line for line in orthanc.log)


@pytest.mark.parametrize("kept", [True, False])
def test_an_orthanc_that_keeps_no_md5_is_told_of(tmp_path: Path, *, kept: bool) -> None:
    orthanc = FakeOrthanc({**_configuration(tmp_path), "StoreMD5ForAttachments": kept})
    load_script(orthanc)
    assert any("keeps no MD5" in line for line in orthanc.log) is not kept


def test_an_error_while_answering_is_logged_by_its_kind_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orthanc = FakeOrthanc(_configuration(tmp_path))
    load_script(orthanc)
    monkeypatch.setattr(
        "prichexy_plugin.dashboard.routes.overview_page", lambda *_a, **_k: {}["DOE^JANE"]
    )
    assert orthanc.request("GET", "/prichexy").status == 500
    assert orthanc.log == ["E PriCheXy: KeyError while answering a request."]


def test_a_package_that_is_missing_is_said_and_orthanc_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    orthanc = FakeOrthanc()
    monkeypatch.delattr("prichexy_plugin.wiring")
    monkeypatch.setitem(sys.modules, "prichexy_plugin.wiring", None)
    load_script(orthanc)
    health = orthanc.request("GET", f"{API_ROOT}/health")
    assert health.status == 503
    assert "import of prichexy_plugin.wiring halted" in health.json()["problems"][0]
    page = orthanc.request("GET", "/prichexy")
    assert page.status == 200
    assert "PriCheXy is not running" in page.body
    assert "script/bootstrap" in page.body
    assert "halted" in orthanc.log[0]
    orthanc.change(orthanc.ChangeType.ORTHANC_STARTED)
    assert orthanc.filter is not None
    assert not orthanc.filter("/x", method=4, headers={"sec-fetch-site": "cross-site"})


def test_only_an_import_errors_text_is_told() -> None:
    assert fallback.explain(KeyError("DOE^JANE")) == "KeyError"


def test_orthanc_is_given_plain_functions_only(tmp_path: Path) -> None:
    # Orthanc 1.12.7 with plugin 5.0 crashed at each stop when one was a closure or a method.
    orthanc = FakeOrthanc(_configuration(tmp_path))
    load_script(orthanc)
    for callback in (orthanc.on_request, orthanc.on_change, orthanc.filter):
        assert isinstance(callback, FunctionType)
        assert callback.__closure__ is None
