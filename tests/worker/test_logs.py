"""Log lines hold opaque ids, places and classes, and nothing of a message or an object."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
import threading
import warnings
from collections.abc import Iterator

import pytest

from prichexy_worker import logs
from prichexy_worker.retry import RetryPolicy

VALUE = "DOE^JANE"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """What the process logs, with the process's logging put back afterwards."""
    root = logging.getLogger()
    ours = [logging.getLogger(name) for name in ("prichexy_worker", "prichexy_model")]
    before = root.handlers[:], root.level, [logger.level for logger in ours]
    hooks = sys.excepthook, threading.excepthook, warnings.showwarning
    stream = io.StringIO()
    logs.configure_logging(stream)
    yield stream
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    for logger, level in zip(ours, before[2], strict=True):
        logger.setLevel(level)
    logging.captureWarnings(capture=False)
    sys.excepthook, threading.excepthook, warnings.showwarning = hooks


def test_each_line_names_the_job_it_belongs_to(stream: io.StringIO) -> None:
    log = logging.getLogger("prichexy_worker.study")
    with logs.bound_to("cafe" * 8):
        log.info("claimed, revision %d", 3)
    log.info("stopped")
    first, second = stream.getvalue().splitlines()
    assert first.endswith(f"INFO prichexy_worker.study job={'cafe' * 8} claimed, revision 3")
    assert "job=- stopped" in second


def test_another_threads_lines_are_not_taken_for_the_job(stream: io.StringIO) -> None:
    with logs.bound_to("cafe" * 8):
        thread = threading.Thread(
            target=lambda: logging.getLogger("prichexy_worker.announcer").info("hello")
        )
        thread.start()
        thread.join()
    assert "job=- hello" in stream.getvalue()


def test_a_libraries_texts_are_withheld_and_their_place_is_given(stream: io.StringIO) -> None:
    logging.getLogger("pydicom").warning(f"Invalid value for VR PN: {VALUE}")
    line = stream.getvalue()
    assert VALUE not in line
    assert "a message of pydicom, withheld (test_logs:" in line


def test_a_warning_with_a_value_is_withheld(stream: io.StringIO) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn(f"Invalid value for VR DA: {VALUE}", UserWarning, stacklevel=1)
    assert VALUE not in stream.getvalue()
    assert "a UserWarning, withheld (test_logs:" in stream.getvalue()


def test_celerys_arguments_are_withheld_and_its_sentence_stays(stream: io.StringIO) -> None:
    logging.getLogger("celery.worker.consumer").error(
        "consumer: Cannot connect to %s: %s. Try %d.", VALUE, ConnectionError(VALUE), 3
    )
    assert "consumer: Cannot connect to …: ConnectionError. Try 3." in stream.getvalue()
    assert VALUE not in stream.getvalue()


def test_celerys_named_arguments_are_withheld_as_well(stream: io.StringIO) -> None:
    text = "Task %(name)s[%(id)s] raised: %(exc)s\n%(traceback)s"
    context = {"name": VALUE, "id": VALUE, "exc": VALUE, "traceback": VALUE}
    logging.getLogger("celery.app.trace").error(text, context)
    assert VALUE not in stream.getvalue()
    assert stream.getvalue().count("\n") == 1


@pytest.mark.parametrize("text", [f"ready {VALUE}", "%s %s", "100 %"])
def test_a_text_that_is_no_constant_is_withheld(text: str) -> None:
    args = () if VALUE in text else (VALUE,)
    record = logging.LogRecord("kombu", logging.ERROR, __file__, 1, text, args, None)
    line = logs.SafeFormatter().format(record)
    assert VALUE not in line
    assert "a message, withheld (test_logs:1)" in line


def test_libraries_are_silent_below_a_warning(stream: io.StringIO) -> None:
    logging.getLogger("httpx").info("HTTP Request: GET http://127.0.0.1/instances/…")
    assert stream.getvalue() == ""


def test_an_exceptions_text_is_replaced_by_its_class_and_our_own_lines(
    stream: io.StringIO,
) -> None:
    try:
        try:
            {}[VALUE]
        except KeyError as error:
            raise ValueError(f"bad {VALUE}") from error
    except ValueError:
        logging.getLogger("prichexy_worker.study").exception("failed")
    assert "failed [ValueError; after KeyError]" in stream.getvalue()
    assert VALUE not in stream.getvalue()
    assert "Traceback" not in stream.getvalue()


def test_the_place_of_an_error_is_that_of_our_own_code() -> None:
    policy = RetryPolicy(first=VALUE)  # type: ignore[arg-type]
    try:
        policy.delay(2, 0.5)
    except TypeError as error:
        place = logs.where(error)
    assert place.startswith("TypeError at prichexy_worker.retry:")
    assert VALUE not in place


def test_an_error_that_nobody_caught_is_logged_without_its_text(stream: io.StringIO) -> None:
    def fail() -> None:
        raise RuntimeError(VALUE)

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    try:
        fail()
    except RuntimeError as error:
        sys.excepthook(RuntimeError, error, error.__traceback__)
    assert stream.getvalue().count("unhandled: RuntimeError") == 2
    assert VALUE not in stream.getvalue()


def test_a_line_in_json_has_the_same_care(stream: io.StringIO) -> None:
    logs.configure_logging(stream, formatter=logs.JsonFormatter("worker-7"))
    with logs.bound_to("cafe" * 8):
        error = ValueError(VALUE)
        logging.getLogger("prichexy_worker.study").error('said "%s"', "no", exc_info=error)
    logging.getLogger("pydicom").warning(f"Invalid value for VR PN: {VALUE}")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first["job"] == "cafe" * 8
    assert first["worker"] == "worker-7"
    assert first["message"] == 'said "no"'
    assert first["error"] == "ValueError"
    assert (first["level"], first["logger"]) == ("ERROR", "prichexy_worker.study")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first["time"])
    assert "job" not in second
    assert VALUE not in stream.getvalue()
