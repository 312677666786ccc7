"""Requests come to an end and answers fit into memory, whatever the server does."""

from __future__ import annotations

import gzip
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx
import pytest

from prichexy_testing.coming_back import error_of
from prichexy_testing.fakes_worker import anonymized, instance_id, study_message
from prichexy_testing.holding_servers import Answer, holding
from prichexy_worker import bounded_http
from prichexy_worker.contract import Reason, State, StudyReport
from prichexy_worker.errors import Rejected, Retryable
from prichexy_worker.export import DicomwebExport, OrthancExport, create_target
from prichexy_worker.orthanc_client import connect
from prichexy_worker.orthanc_source import OrthancSource
from prichexy_worker.ports import Released
from prichexy_worker.reporting import PluginReporter
from prichexy_worker.target_settings import Dicomweb

#: In seconds; far less than ``error_of`` waits.
TIMEOUT = 1.0
#: In bytes; more than a system keeps of what is not read.
LARGE = 32 << 20
HEAD = b"HTTP/1.1 200 OK\r\n"

Act = Callable[[str], object]


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    """Close the connections that a test opened."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def acts(opened: ExitStack) -> dict[str, Act]:
    """What a worker asks servers over HTTP, by who is asked."""

    def orthanc(url: str) -> httpx.Client:
        client = connect(url, "user", "password", None, TIMEOUT)
        opened.callback(client.close)
        return client

    def dicomweb(url: str) -> DicomwebExport:
        section = {"kind": "dicomweb", "url": url, "timeout": TIMEOUT}
        target = create_target(Dicomweb.model_validate(section))
        assert isinstance(target, DicomwebExport)
        opened.callback(target.close)
        return target

    message = study_message()
    report = StudyReport(message.job_id, message.revision, State.PROCESSING, "worker")
    large = anonymized(Released(bytes(LARGE)))
    return {
        "source": lambda url: OrthancSource(orthanc(url)).fetch(instance_id(0)),
        "plugin": lambda url: PluginReporter(orthanc(url)).report(report),
        "orthanc": lambda url: OrthancExport(orthanc(url)).fetch(anonymized()),
        "dicomweb": lambda url: dicomweb(url).fetch(anonymized()),
        "upload": lambda url: OrthancExport(orthanc(url)).store(large),
    }


def _asked(caller: socket.socket) -> None:
    """Read a request, as far as its head."""
    asked = b""
    while b"\r\n\r\n" not in asked:
        asked += caller.recv(1 << 16)


def _trickle(caller: socket.socket, over: threading.Event, begin: bytes) -> None:
    _asked(caller)
    caller.sendall(begin)
    while not over.wait(0.02):
        caller.sendall(b" ")


def _body(caller: socket.socket, over: threading.Event) -> None:
    _trickle(caller, over, HEAD + b"Content-Length: 1000000\r\n\r\n")


def _head(caller: socket.socket, over: threading.Event) -> None:
    _trickle(caller, over, HEAD + b"X: ")


def _nothing(_caller: socket.socket, over: threading.Event) -> None:
    over.wait()


@pytest.mark.parametrize("answer", [_body, _head, _nothing])
@pytest.mark.parametrize("asked", ["source", "plugin", "orthanc", "dicomweb", "upload"])
def test_a_server_that_is_slow_without_end_is_left(
    acts: dict[str, Act], asked: str, answer: Answer
) -> None:
    with holding(answer) as port:
        error = error_of(lambda: acts[asked](f"http://127.0.0.1:{port}"))
    assert error is not None
    targets = ("orthanc", "dicomweb", "upload")
    expected = Reason.TARGET_UNREACHABLE if asked in targets else Reason.SOURCE_UNREACHABLE
    assert error.reason is expected
    assert "127.0.0.1" not in str(error)


def test_a_server_that_reads_slowly_is_not_sent_all(acts: dict[str, Act]) -> None:
    read = 0

    def answer(caller: socket.socket, over: threading.Event) -> None:
        nonlocal read
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        while not over.wait(0.02) and (piece := caller.recv(1 << 17)):
            read += len(piece)

    with holding(answer) as port:
        error = error_of(lambda: acts["upload"](f"http://127.0.0.1:{port}"))
    assert error is not None
    assert error.reason is Reason.TARGET_UNREACHABLE
    assert 0 < read < LARGE


def _long(size: int) -> Answer:
    def answer(caller: socket.socket, _over: threading.Event) -> None:
        _asked(caller)
        caller.sendall(HEAD + b"Connection: close\r\n\r\n" + bytes(size))

    return answer


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be longer than a few bytes."""
    monkeypatch.setattr(bounded_http, "MAX_BYTES", 1000)
    monkeypatch.setattr(bounded_http, "_MOST_TOLD", 100)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("asked", "size"), [("plugin", 101), ("upload", 101), ("orthanc", 1001), ("dicomweb", 1001)]
)
def test_an_answer_that_is_too_long_is_refused(acts: dict[str, Act], asked: str, size: int) -> None:
    with holding(_long(size)) as port:
        error = error_of(lambda: acts[asked](f"http://127.0.0.1:{port}"))
    assert error is not None
    assert error.detail == "AnswerTooLong"
    plugins = asked == "plugin"
    assert error.reason is (Reason.SOURCE_UNREACHABLE if plugins else Reason.TARGET_REFUSED)


@pytest.mark.usefixtures("small")
def test_an_original_that_is_too_long_is_none_that_can_be_read(acts: dict[str, Act]) -> None:
    with holding(_long(1000)) as port:
        assert acts["source"](f"http://127.0.0.1:{port}") == bytes(1000)
    with holding(_long(1001)) as port, pytest.raises(Rejected) as error:
        acts["source"](f"http://127.0.0.1:{port}")
    assert error.value.reason is Reason.UNREADABLE


def test_a_study_whose_list_of_images_is_too_long_has_too_many_of_them() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/instances"):
            raise bounded_http.AnswerTooLong("too long")
        return httpx.Response(200, json={"LastUpdate": "now"})

    with connect("http://127.0.0.1:1", "worker", "secret", None, TIMEOUT) as orthanc:
        orthanc._transport = httpx.MockTransport(answer)
        with pytest.raises(Rejected) as error:
            OrthancSource(orthanc).snapshot("a")
    assert error.value.reason is Reason.TOO_MANY_INSTANCES


def test_an_answer_that_was_compressed_unasked_is_none(acts: dict[str, Act]) -> None:
    def answer(caller: socket.socket, _over: threading.Event) -> None:
        _asked(caller)
        body = gzip.compress(bytes(1000))
        begin = f"Content-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n"
        caller.sendall(HEAD + begin.encode() + body)

    with holding(answer) as port, pytest.raises(Retryable) as error:
        acts["source"](f"http://127.0.0.1:{port}")
    assert error.value.detail == "RemoteProtocolError"
