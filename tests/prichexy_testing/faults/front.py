"""What stands between a worker and a server, so that a test can do to the way what it wants.

``Front`` understands HTTP: it holds one request until it is told to go on, answers in the server's
place, or drops it. ``Pipe`` does not: it copies bytes, and stops copying without closing anything,
as a network does that is cut.
"""

from __future__ import annotations

import http.client
import re
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prichexy_testing.servers import wait_until

__all__ = ["Front", "Pipe", "Rule"]

_NOT_PASSED_ON = frozenset({"connection", "transfer-encoding", "content-length", "host", "date"})


@dataclass(eq=False)
class Rule:
    """What is done to requests with this method whose path and body match.

    ``status`` is answered in the server's place; without one, the request is held until ``go``,
    or, after ``lose``, dropped. ``after``: the server has done what it was asked by then, and only
    its answer is held or lost. ``skip`` requests pass first, and then ``times`` are treated so.
    ``seconds``: they are held for so long.
    """

    method: str
    path: str
    body: str = ""
    status: int | None = None
    after: bool = False
    skip: int = 0
    times: float = 1
    seconds: float | None = None
    reached: threading.Event = field(default_factory=threading.Event)
    _over: threading.Event = field(default_factory=threading.Event)
    _lost: bool = False

    def wait(self) -> None:
        """Return when a request has come that this treats."""
        wait_until(self.reached.is_set, what=f"{self.method} {self.path} is asked")

    def go(self) -> None:
        """Let what is held go on, and all that comes."""
        self.times = 0
        self._over.set()

    def lose(self, times: float = 0) -> None:
        """Drop what is held, and so many of those that come later; the others go on."""
        self._lost = True
        self.times = times
        self._over.set()

    def takes(self, method: str, path: str, body: bytes) -> bool:
        """Say whether this treats a request, and count it."""
        if method != self.method or not re.search(self.path, path):
            return False
        if self.body and not re.search(self.body.encode(), body):
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.times <= 0:
            return False
        self.times -= 1
        return True

    def held(self) -> bool:
        """Wait as long as a request is held, and say whether it may go on."""
        self.reached.set()
        self._over.wait(self.seconds)
        return not self._lost


class Front:
    """An HTTP server in front of another one; all its ``rules`` can be changed while it runs."""

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.port = 0
        self._rules: list[Rule] = []
        self._lock = threading.Lock()

    def rule(
        self,
        method: str,
        path: str,
        *,
        body: str = "",
        status: int | None = None,
        after: bool = False,
        skip: int = 0,
        times: float = 1,
        seconds: float | None = None,
    ) -> Rule:
        """Add a rule; see ``Rule``. The first that takes a request treats it."""
        made = Rule(method, path, body, status, after, skip, times, seconds)
        with self._lock:
            self._rules.append(made)
        return made

    def clear(self) -> None:
        """Let all that is held go on, and forget the rules."""
        with self._lock:
            rules, self._rules = self._rules, []
        for rule in rules:
            rule.go()

    def rule_for(self, method: str, path: str, body: bytes) -> Rule | None:
        """Give the rule that treats this request."""
        with self._lock:
            return next((rule for rule in self._rules if rule.takes(method, path, body)), None)

    @contextmanager
    def running(self, address: str = "127.0.0.1") -> Iterator[Front]:
        """Listen for the block, on a free port."""
        with _Server((address, 0), _Handler) as server:
            server.front = self
            self.port = server.server_port
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
            thread.start()
            try:
                yield self
            finally:
                self.clear()
                server.shutdown()
                thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    front: Front

    def handle_error(self, request: object, client_address: object) -> None:
        """A worker that was killed leaves a broken connection."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def finish(self) -> None:
        with suppress(OSError):
            super().finish()

    def _treat(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        rule = self.server.front.rule_for(self.command, self.path, body)
        if rule is not None and rule.status is not None:
            rule.reached.set()
            self._answer(rule.status, [], b"")
            return
        if rule is not None and not rule.after and not rule.held():
            self.close_connection = True
            return
        try:
            status, headers, content = self._asked(body)
        except (OSError, http.client.HTTPException):
            # As the server itself: the connection ends.
            self.close_connection = True
            return
        if rule is not None and rule.after and not rule.held():
            self.close_connection = True
            return
        self._answer(status, headers, content)

    do_GET = do_POST = do_DELETE = do_PUT = _treat  # noqa: N815

    def _asked(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        # A connection for each request: Orthanc closes one that was idle for a second.
        address = "127.0.0.1", self.server.front.upstream
        headers = {
            name: value
            for name, value in self.headers.items()
            if name.lower() not in _NOT_PASSED_ON
        }
        with closing(http.client.HTTPConnection(*address, timeout=60)) as upstream:
            upstream.request(self.command, self.path, body or None, headers)
            answer = upstream.getresponse()
            return answer.status, answer.getheaders(), answer.read()

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in _NOT_PASSED_ON:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        """Keep the test's output readable."""


class Pipe:
    """A TCP connection through here for each that is made to ``port``."""

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.port = 0
        self._open = threading.Event()
        self._open.set()
        self._forgotten = 0  # connections up to this number are dead, and nobody is told
        self._made = 0
        self._sockets: set[socket.socket] = set()

    def cut(self) -> None:
        """Let no byte through any more; nobody is told."""
        self._open.clear()

    def mend(self) -> None:
        """Let all bytes through again, those too that wait."""
        self._open.set()

    def forget(self) -> None:
        """Let no byte through any connection that there is, ever; new ones are well.

        So does a firewall that has lost its table of connections.
        """
        self._forgotten = self._made

    def break_all(self) -> None:
        """Close every connection."""
        for one in list(self._sockets):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def running(self, address: str = "127.0.0.1") -> Iterator[Pipe]:
        """Listen for the block, on a free port."""
        pipe = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                pipe._made += 1
                number = pipe._made
                pipe._sockets.add(self.request)
                with (
                    suppress(OSError),
                    socket.create_connection(("127.0.0.1", pipe.upstream)) as inside,
                ):
                    back = threading.Thread(
                        target=pipe._copy, args=(number, inside, self.request), daemon=True
                    )
                    back.start()
                    pipe._copy(number, self.request, inside)
                    back.join()
                pipe._sockets.discard(self.request)

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True

        with Server((address, 0), Handler) as server:
            self.port = server.server_address[1]
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
            thread.start()
            try:
                yield self
            finally:
                self.mend()
                self.break_all()
                server.shutdown()
                thread.join()

    def _copy(self, number: int, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                self._open.wait()
                if number <= self._forgotten:
                    continue
                sink.sendall(data)
        with suppress(OSError):
            if number > self._forgotten:
                sink.shutdown(socket.SHUT_RDWR)
