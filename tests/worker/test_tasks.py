"""The Celery task reads strictly, and turns an outcome into an acknowledgement or a retry."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from celery import Celery
from celery.exceptions import Reject, Retry

from prichexy_testing.fakes_worker import JOB_ID, study_message
from prichexy_worker.contract import (
    CONTRACT_VERSION,
    SOFTWARE_VERSION,
    TASK_NAME,
    ContractError,
    Reason,
    State,
    StudyMessage,
)
from prichexy_worker.retry import RetryPolicy
from prichexy_worker.study import Outcome
from prichexy_worker.tasks import Process, parse, register

MESSAGE = study_message().to_json()


def test_a_message_is_read() -> None:
    assert parse([MESSAGE], {}) == study_message()


@pytest.mark.parametrize(
    "args",
    [
        [],
        [None],
        ["a"],
        [[]],
        [{}],
        [MESSAGE, 0],
        [{**MESSAGE, "version": CONTRACT_VERSION + 1}],
        [{**MESSAGE, "PatientName": "DOE^JANE"}],
        [{**MESSAGE, "job_id": "../../etc"}],
        [{**MESSAGE, "study_id": "1.2.3"}],
        [{**MESSAGE, "revision": 0}],
    ],
)
def test_anything_else_is_refused(args: list[object]) -> None:
    with pytest.raises(ContractError) as caught:
        parse(args, {})
    assert "DOE" not in str(caught.value)


def test_keywords_are_refused() -> None:
    with pytest.raises(ContractError):
        parse([], {"message": MESSAGE})


class Sent:
    """Runs the task as a worker would, and records what it publishes for later."""

    def __init__(self, process: Process, *, broker_down: bool = False) -> None:
        app = Celery("test", broker="memory://", set_as_current=False)
        app.conf.task_default_queue = "test"
        register(app, process, RetryPolicy())
        self.task = app.tasks[TASK_NAME]
        self.published: list[tuple[object, float]] = []
        self.broker_down = broker_down

    def run(self, *args: object, retries: int = 0, **kwargs: object) -> None:
        task = self.task

        def publish(signature: object, **_options: object) -> None:
            if self.broker_down:
                raise ConnectionError("redis://secret@host")
            options = signature.options  # type: ignore[attr-defined]
            self.published.append((signature.args, options["countdown"]))  # type: ignore[attr-defined]

        task.push_request(args=args, kwargs=kwargs, retries=retries, called_directly=False)
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("celery.canvas.Signature.apply_async", publish)
                task.run(*args, **kwargs)
        finally:
            task.pop_request()


def process_with(outcome: Outcome) -> Process:
    return lambda _message: outcome


def test_a_study_that_is_done_is_not_sent_again() -> None:
    sent = Sent(process_with(Outcome(State.EXPORTED)))
    sent.run(MESSAGE)
    assert sent.published == []


@pytest.mark.parametrize(("retries", "pause"), [(0, 10), (1, 20), (40, 600)])
def test_a_study_that_needs_another_attempt_is_sent_again_after_a_pause(
    retries: int, pause: float
) -> None:
    again = Outcome(State.QUEUED, Reason.TARGET_UNREACHABLE, again=True)
    sent = Sent(process_with(again))
    with pytest.raises(Retry):
        sent.run(MESSAGE, retries=retries)
    [(args, countdown)] = sent.published
    assert args == (MESSAGE,)
    assert pause / 2 < countdown <= pause


def test_an_error_in_the_worker_itself_is_no_end_and_its_text_is_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def process(_message: StudyMessage) -> Outcome:
        raise RuntimeError("DOE^JANE")

    sent = Sent(process)
    with caplog.at_level(logging.DEBUG), pytest.raises(Retry):
        sent.run(MESSAGE)
    assert [args for args, _countdown in sent.published] == [(MESSAGE,)]
    assert "RuntimeError at prichexy_worker.tasks:" in caplog.text
    assert "DOE" not in caplog.text


def test_a_broker_that_does_not_take_the_retry_keeps_the_message() -> None:
    sent = Sent(process_with(Outcome(None, again=True)), broker_down=True)
    with pytest.raises(Reject) as caught:
        sent.run(MESSAGE)
    assert caught.value.requeue


def test_a_bad_message_is_dropped_and_logged_without_its_content(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def process(_message: StudyMessage) -> Outcome:
        pytest.fail("a bad message was processed")

    sent = Sent(process)
    with caplog.at_level(logging.DEBUG):
        sent.run({**MESSAGE, "DOE^JANE": "1933"})
        sent.run(MESSAGE, PatientName="DOE^JANE")
        sent.run({**MESSAGE, "version": 0})
    assert sent.published == []
    said = [record for record in caplog.records if "refused a message" in record.message]
    assert [record.levelno for record in said] == [logging.ERROR] * 3
    assert f"version {SOFTWARE_VERSION} with contract {CONTRACT_VERSION}" in said[-1].message
    assert "DOE" not in caplog.text
    assert JOB_ID not in caplog.text


def test_a_message_of_a_later_version_is_given_back_whole_for_a_newer_worker(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def process(_message: StudyMessage) -> Outcome:
        pytest.fail("a message of another version was processed")

    later = {**MESSAGE, "version": CONTRACT_VERSION + 1, "new": {"DOE^JANE": 1}}
    sent = Sent(process)
    with caplog.at_level(logging.DEBUG), pytest.raises(Retry):
        sent.run(later)
    [(args, pause)] = sent.published
    assert list(args) == [later]  # type: ignore[call-overload]
    assert pause > 0
    assert "DOE" not in caplog.text
    down = Sent(process, broker_down=True)
    with pytest.raises(Reject) as rejected:
        down.run(later)
    assert rejected.value.requeue


def test_what_a_worker_that_stops_gives_back_waits_for_no_pause() -> None:
    sent = Sent(process_with(Outcome(State.QUEUED, Reason.WORKER_STOPPED, again=True)))
    with pytest.raises(Retry):
        sent.run(MESSAGE, retries=5)
    assert sent.published == [((MESSAGE,), 0.0)]


@pytest.mark.parametrize(("pause", "waits"), [(30, 30), (86_400, 600)])
def test_a_message_that_was_given_a_pause_by_a_clock_that_was_ahead_waits_no_longer_than_others(
    pause: int, waits: int
) -> None:
    now = datetime.now(UTC)
    headers = {
        "id": "1",
        "task": TASK_NAME,
        "eta": (now + timedelta(seconds=pause)).isoformat(),
    }
    message = SimpleNamespace(
        headers=headers,
        body=b"",
        properties={},
        delivery_info={},
        content_type="application/json",
        content_encoding="utf-8",
        acknowledged=False,
    )
    app = Celery("test", set_as_current=False)
    register(app, lambda _message: Outcome(None), RetryPolicy())
    request = app.tasks[TASK_NAME].Request(
        message,
        app=app,
        task=app.tasks[TASK_NAME],
        decoded=True,
        body=([], {}, {}),
        headers=headers,
        hostname="worker",
    )
    assert abs((request.eta - now).total_seconds() - waits) < 60
