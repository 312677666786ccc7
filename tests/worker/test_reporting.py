"""Reports reach the plugin with our header and credentials; any doubt is "try again"."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from prichexy_testing.fake_ingest import FakeIngest, running_fake_ingest
from prichexy_testing.fakes_worker import JOB_ID, FakeLedger
from prichexy_testing.servers import free_port, wait_until
from prichexy_worker.announcer import Announcer
from prichexy_worker.contract import (
    Claim,
    ImagePictures,
    ModelInfo,
    Reason,
    State,
    StudyReport,
    TextPictures,
    WorkerAnnouncement,
)
from prichexy_worker.errors import Retryable
from prichexy_worker.orthanc_client import connect
from prichexy_worker.reporting import PluginReporter

REPORT = StudyReport(
    job_id=JOB_ID,
    revision=2,
    state=State.QUARANTINED,
    worker_id="worker-1",
    reason=Reason.COLOUR,
    instances=3,
    durations={"fetch": 0.25},
    measures={"psnr_db": 31.5},
)
ANNOUNCEMENT = WorkerAnnouncement(
    worker_id="worker-1",
    software="0.1.0",
    device="cpu",
    device_reason="No CUDA device was found.",
    model=ModelInfo("prichexy-net", "0.1.0", "0" * 64, "untrained", "Random weights."),
)


@pytest.fixture
def ingest() -> Iterator[FakeIngest]:
    with running_fake_ingest() as ingest:
        yield ingest


@pytest.fixture
def reporter(ingest: FakeIngest) -> Iterator[PluginReporter]:
    with connect(ingest.url, ingest.user, ingest.password, None, 10) as orthanc:
        yield PluginReporter(orthanc)


def test_a_report_arrives_as_it_was_sent(ingest: FakeIngest, reporter: PluginReporter) -> None:
    assert reporter.report(REPORT).proceed
    assert ingest.reports == [REPORT]


def test_a_refusal_is_told(ingest: FakeIngest, reporter: PluginReporter) -> None:
    ingest.answer = 200, json.dumps(Claim(proceed=False).to_json()).encode()
    assert not reporter.report(REPORT).proceed


def test_pictures_arrive_as_they_were_sent(ingest: FakeIngest, reporter: PluginReporter) -> None:
    shown = TextPictures(JOB_ID, 2, 1, (b"\x89PNG\r\n\x1a\n" + bytes(range(256)),))
    assert reporter.show(shown).proceed
    assert ingest.pictures == [shown]


def test_pictures_of_an_exported_image_arrive_as_they_were_sent(
    ingest: FakeIngest, reporter: PluginReporter
) -> None:
    jpeg = b"\xff\xd8\xff" + bytes(range(256))
    shown = ImagePictures(JOB_ID, 2, 1, 1, 2, {"rows": 20.0}, (jpeg, jpeg, jpeg, jpeg))
    assert reporter.show_image(shown).proceed
    assert ingest.images == [shown]


def test_an_announcement_arrives_as_it_was_sent(
    ingest: FakeIngest, reporter: PluginReporter
) -> None:
    reporter.announce(ANNOUNCEMENT)
    assert ingest.announcements == [ANNOUNCEMENT]


@pytest.mark.parametrize(
    "answer",
    [
        (200, b""),
        (200, b"<html>"),
        (200, b"{}"),
        (200, b'{"version": 2, "proceed": true, "attempt": 1}'),
        (200, b'{"version": 1, "proceed": 1, "attempt": 1}'),
        (200, b'{"version": 1, "proceed": true}'),
        (302, b""),
        (400, b"DOE^JANE"),
        (404, b""),
        (500, b""),
        (503, b""),
    ],
)
def test_any_other_answer_is_no_claim_and_is_tried_again(
    ingest: FakeIngest, reporter: PluginReporter, answer: tuple[int, bytes]
) -> None:
    ingest.answer = answer
    with pytest.raises(Retryable) as caught:
        reporter.report(REPORT)
    assert caught.value.reason is Reason.SOURCE_UNREACHABLE
    assert "DOE" not in str(caught.value)
    assert "127.0.0.1" not in str(caught.value)


def test_a_wrong_password_is_tried_again(ingest: FakeIngest) -> None:
    with (
        connect(ingest.url, ingest.user, "wrong", None, 10) as orthanc,
        pytest.raises(Retryable, match="401"),
    ):
        PluginReporter(orthanc).report(REPORT)


def test_a_plugin_that_does_not_answer_is_tried_again() -> None:
    with (
        connect(f"http://127.0.0.1:{free_port()}", "u", "p", None, 10) as orthanc,
        pytest.raises(Retryable) as caught,
    ):
        PluginReporter(orthanc).report(REPORT)
    assert caught.value.reason is Reason.SOURCE_UNREACHABLE


class UnsteadyLedger(FakeLedger):
    """Does not hear the first announcements."""

    def __init__(self, deaf: int, error: Exception) -> None:
        super().__init__()
        self.deaf = deaf
        self.error = error
        self.heard = threading.Event()

    def announce(self, announcement: WorkerAnnouncement) -> None:
        if self.deaf:
            self.deaf -= 1
            raise self.error
        super().announce(announcement)
        self.heard.set()


def test_a_worker_announces_itself_at_once_and_again_until_it_is_stopped() -> None:
    ledger = FakeLedger()
    announcer = Announcer(ledger, ANNOUNCEMENT, interval=0.01)
    announcer.start()
    wait_until(lambda: len(ledger.announcements) >= 3, what="three announcements")
    announcer.stop()
    count = len(ledger.announcements)
    assert not threading.Event().wait(0.1)
    assert len(ledger.announcements) == count
    assert set(ledger.announcements) == {ANNOUNCEMENT}


@pytest.mark.parametrize("error", [Retryable(Reason.SOURCE_UNREACHABLE), RuntimeError("DOE^JANE")])
def test_a_heartbeat_outlives_a_plugin_that_is_away_and_says_so_once(
    caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    ledger = UnsteadyLedger(5, error)
    announcer = Announcer(ledger, ANNOUNCEMENT, interval=0.01)
    with caplog.at_level("INFO"):
        announcer.start()
        assert ledger.heard.wait(120)
        wait_until(lambda: "hears this worker again" in caplog.text, what="the return is logged")
        announcer.stop()
    assert len([line for line in caplog.records if line.levelname != "INFO"]) == 1
    assert "DOE" not in caplog.text


def test_another_announcement_is_made_at_once_and_from_then_on() -> None:
    ledger = FakeLedger()
    announcer = Announcer(ledger, ANNOUNCEMENT, interval=3600)
    announcer.start()
    wait_until(lambda: ledger.announcements == [ANNOUNCEMENT], 10, "the first announcement")
    other = replace(ANNOUNCEMENT, model=replace(ANNOUNCEMENT.model, digest="1" * 64))
    announcer.update(other)
    wait_until(lambda: ledger.announcements == [ANNOUNCEMENT, other], 10, "the second one")
    announcer.stop()


def test_stopping_does_not_wait_for_the_next_heartbeat() -> None:
    announcer = Announcer(FakeLedger(), ANNOUNCEMENT, interval=3600)
    announcer.start()
    announcer.stop(timeout=120)
    assert "announcer" not in {thread.name for thread in threading.enumerate()}
