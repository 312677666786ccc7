"""An end for the connections of DICOM associations, whatever the other side does.

pynetdicom waits only so long for an answer. But the thread of an association that reads and writes
its connection waits for ever: for a peer that reads nothing more, or sends a byte now and then. And
who then gives the association up waits for that thread. So a connection is cut from outside.
"""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import suppress
from typing import Any, Final

from pynetdicom import evt

__all__ = ["ConnectionLimit", "LateHandshakes"]

#: Seconds for a word of farewell, before a connection is cut.
_PARTING: Final = 1.0


class ConnectionLimit:
    """Cuts one association's connection when its time is over: no thread waits for it any more.

    Its methods may be called from any thread.
    """

    def __init__(self, seconds: float) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._over = False
        self._timer = self._started(seconds)

    def opened(self, event: Any) -> None:
        """Take the connection of an association that has one now: a handler of EVT_CONN_OPEN."""
        # Whoever aborts tells so before he waits, which so is not for long.
        event.assoc.bind(evt.EVT_ABORTED, lambda _event: self.within(_PARTING))
        event.assoc.bind(evt.EVT_CONN_CLOSE, lambda _event: self.lift())
        with self._lock:
            self._socket = event.assoc.dul.socket.socket
            over = self._over
        if over:
            self._cut()

    def within(self, seconds: float) -> None:
        """Cut it after so many seconds from now, and not as was said before."""
        with self._lock:
            self._timer.cancel()
            self._timer = self._started(seconds)

    def lift(self) -> None:
        """Cut nothing any more."""
        with self._lock:
            self._timer.cancel()

    def _started(self, seconds: float) -> threading.Timer:
        timer = threading.Timer(seconds, self._cut)
        timer.daemon = True
        timer.start()
        return timer

    def _cut(self) -> None:
        with self._lock:
            self._over = True
            if self._socket is not None:
                # Not that of an SSLSocket, which would take TLS away from who is reading.
                with suppress(OSError):  # closed already
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


class LateHandshakes:
    """In place of a server's SSLContext: callers shake hands when they are first read from.

    pynetdicom has them do it in the loop that takes calls, where one that says nothing keeps all
    others out, and the server from ending.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context

    def wrap_socket(self, caller: socket.socket, *, server_side: bool) -> ssl.SSLSocket:
        """Give the caller's connection with TLS; nothing is read from it or sent yet."""
        return self._context.wrap_socket(
            caller, server_side=server_side, do_handshake_on_connect=False
        )
