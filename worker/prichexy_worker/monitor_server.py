"""The worker's own small HTTP server: /metrics, /health and /ready, for GET and HEAD only."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from prichexy_worker.errors import Misconfigured
from prichexy_worker.monitor import Monitor

__all__ = ["serving"]

_TEXT: Final = "text/plain; charset=utf-8"
_METRICS: Final = "text/plain; version=0.0.4; charset=utf-8"
#: Of a client that says nothing.
_SECONDS: Final = 10.0


@contextmanager
def serving(monitor: Monitor, address: str, port: int) -> Iterator[int]:
    """Serve while the block runs; gives the port, which is a free one for 0.

    Raises Misconfigured when the address cannot be listened on.
    """
    try:
        server = _Server((address, port), _handler(monitor))
    except OSError as error:
        text = f"monitoring: port {port} of its address cannot be listened on"
        raise Misconfigured(f"{text} ({type(error).__name__})") from None
    thread = threading.Thread(target=server.serve_forever, name="monitoring", daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a client that went away."""


def _handler(monitor: Monitor) -> type[BaseHTTPRequestHandler]:
    def judged(trouble: str | None) -> tuple[int, str, bytes]:
        return (200, _TEXT, b"ok\n") if trouble is None else (503, _TEXT, f"{trouble}\n".encode())

    answers: dict[str, Callable[[], tuple[int, str, bytes]]] = {
        "/metrics": lambda: (200, _METRICS, monitor.exposition()),
        "/health": lambda: judged(monitor.trouble()),
        "/ready": lambda: judged(monitor.absence()),
    }

    class Handler(BaseHTTPRequestHandler):
        timeout = _SECONDS
        server_version = "prichexy-worker"
        sys_version = ""

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
            """Write no line: a probe comes every few seconds."""

        def _answer(self, *, with_body: bool) -> None:
            answer = answers.get(self.path)
            status, mime, body = answer() if answer else (404, _TEXT, b"no such address\n")
            self.send_response(status)
            self.send_header("Content-Type", mime)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if with_body:
                self.wfile.write(body)

    return Handler
