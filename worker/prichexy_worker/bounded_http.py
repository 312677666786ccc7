"""HTTP requests that come to an end, with answers that fit into memory.

The limits of httpx hold for each of its calls of the system: a server that sends or takes a byte
now and then is waited for without end, and an answer may be as long as it likes.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import httpcore
import httpx

from prichexy_worker.layout import MAX_BYTES

__all__ = ["AnswerTooLong", "bounded_transport"]

#: The longest answer that is no DICOM object: a list of instances with their tags, as JSON.
_MOST_TOLD: Final = 64 << 20
#: As httpx has it: seconds for which a connection is kept that nobody uses.
_KEPT: Final = 5.0

Clock = Callable[[], float]


class AnswerTooLong(httpx.TransportError):
    """The answer is longer than any that is of use; it was not read to its end."""


def bounded_transport(
    verify: ssl.SSLContext, seconds: float, clock: Clock = time.monotonic
) -> httpx.BaseTransport:
    """Give the transport of a client for one thread, by which each request ends.

    From its first byte to the last one of its answer it takes ``seconds`` at most; only the search
    for a host's address is the system's own affair. An answer has at most ``layout.MAX_BYTES``
    where a DICOM object was asked for, else 64 MiB; one that comes compressed, though it was asked
    not to, is none. Environment variables for proxies are passed over. The errors are httpx's own,
    and AnswerTooLong.
    """
    return _Transport(verify, _Allowance(seconds, clock))


class _Allowance:
    """The time that is left for the request under way."""

    def __init__(self, seconds: float, clock: Clock) -> None:
        self._seconds = seconds
        self._clock = clock
        self._until = 0.0

    def begin(self) -> None:
        """Begin with a request."""
        self._until = self._clock() + self._seconds

    def left(self) -> float:
        """Give the seconds that are left. Raises httpcore's TimeoutException when none are."""
        left = self._until - self._clock()
        if left <= 0:
            raise httpcore.TimeoutException
        return left


class _Stream(httpcore.NetworkStream):
    """A connection of which no call takes longer than what is left."""

    def __init__(self, stream: httpcore.NetworkStream, allowance: _Allowance) -> None:
        self._stream = stream
        self._allowance = allowance

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        return self._stream.read(max_bytes, self._allowance.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        # Not the stream's own, which would give each piece that goes all of the time.
        connection = self._stream.get_extra_info("socket")
        rest = memoryview(buffer)
        while rest:
            connection.settimeout(self._allowance.left())
            try:
                rest = rest[connection.send(rest) :]
            except TimeoutError:
                raise httpcore.WriteTimeout from None
            except OSError:
                raise httpcore.WriteError from None

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002
    ) -> httpcore.NetworkStream:
        left = self._allowance.left()
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, left), self._allowance)

    def close(self) -> None:
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Backend(httpcore.SyncBackend):
    """Connects within what is left."""

    def __init__(self, allowance: _Allowance) -> None:
        self._allowance = allowance

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        left = self._allowance.left()
        stream = super().connect_tcp(host, port, left, local_address, socket_options)
        return _Stream(stream, self._allowance)


class _Transport(httpx.BaseTransport):
    def __init__(self, verify: ssl.SSLContext, allowance: _Allowance) -> None:
        self._allowance = allowance
        self._pool = httpcore.ConnectionPool(
            ssl_context=verify, keepalive_expiry=_KEPT, network_backend=_Backend(allowance)
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self._allowance.begin()
        if not isinstance(request.stream, httpx.SyncByteStream):
            raise TypeError("a request of an asynchronous client")
        with _errors_of_httpx():
            answer = self._pool.handle_request(
                httpcore.Request(
                    request.method,
                    httpcore.URL(
                        scheme=request.url.raw_scheme,
                        host=request.url.raw_host,
                        port=request.url.port,
                        target=request.url.raw_path,
                    ),
                    headers=request.headers.raw,
                    content=request.stream,
                    extensions=request.extensions,
                )
            )
        response = httpx.Response(
            answer.status,
            headers=answer.headers,
            stream=_Answer(answer, MAX_BYTES if _asks_for_an_object(request) else _MOST_TOLD),
            extensions=answer.extensions,
        )
        # A little of it may become anything.
        if response.headers.get("Content-Encoding", "identity") != "identity":
            response.close()
            raise httpx.RemoteProtocolError("compressed")
        return response

    def close(self) -> None:
        self._pool.close()


class _Answer(httpx.SyncByteStream):
    """The body of an answer, up to ``most`` bytes."""

    def __init__(self, answer: httpcore.Response, most: int) -> None:
        self._answer = answer
        self._most = most

    def __iter__(self) -> Iterator[bytes]:
        size = 0
        with _errors_of_httpx():
            for piece in self._answer.iter_stream():
                size += len(piece)
                if size > self._most:
                    raise AnswerTooLong("")
                yield piece

    def close(self) -> None:
        self._answer.close()


def _asks_for_an_object(request: httpx.Request) -> bool:
    """Tell whether a DICOM object is asked for: an Orthanc's file, or WADO-RS's multipart."""
    multipart = request.headers.get("Accept", "").startswith("multipart/related")
    return multipart or request.url.path.endswith("/file")


@contextmanager
def _errors_of_httpx() -> Iterator[None]:
    """Turn httpcore's errors into those of httpx, which have the same names."""
    try:
        yield
    except (
        httpcore.TimeoutException,
        httpcore.NetworkError,
        httpcore.ProtocolError,
        httpcore.UnsupportedProtocol,
        httpcore.ProxyError,
    ) as error:
        raise getattr(httpx, type(error).__name__, httpx.TransportError)("") from None
