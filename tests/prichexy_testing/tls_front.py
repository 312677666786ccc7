"""TLS in front of a server that speaks none, as a reverse proxy does it.

Debian 12's Orthanc dies of the first request by HTTPS: its HTTP server does not get on with that
Debian's OpenSSL. So hospitals put something in front, and so do these tests.
"""

from __future__ import annotations

import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from prichexy_testing.certificates import Pair

__all__ = ["tls_front"]


@contextmanager
def tls_front(port: int, pair: Pair, client_authority: Path | None = None) -> Iterator[int]:
    """Give a loopback port that speaks TLS and hands all on to ``port``.

    With ``client_authority``, only clients with a certificate of it are let in.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=client_authority)
    context.load_cert_chain(pair.certificate, pair.key)
    if client_authority is not None:
        context.verify_mode = ssl.CERT_REQUIRED

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with (
                suppress(OSError),
                context.wrap_socket(self.request, server_side=True) as outside,
                socket.create_connection(("127.0.0.1", port)) as inside,
            ):
                back = threading.Thread(target=_hand_on, args=(inside, outside))
                back.start()
                _hand_on(outside, inside)
                back.join()

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def _hand_on(source: socket.socket, sink: socket.socket) -> None:
    """Copy until ``source`` ends, then let ``sink`` know."""
    with suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)
