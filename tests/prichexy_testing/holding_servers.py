"""A server that keeps its caller waiting, by real sockets."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

__all__ = ["Answer", "holding"]

#: Answers a caller; goes on until the event is set.
Answer = Callable[[socket.socket, threading.Event], None]


@contextmanager
def holding(answer: Answer) -> Iterator[int]:
    """Have ``answer`` speak to the first caller, for the length of the block; gives the port."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        # Small, so that what is not read is soon not sent either.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)

        def serve() -> None:
            with suppress(OSError), listening.accept()[0] as caller:  # who gives up hangs up
                answer(caller, over)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            over.set()
            thread.join()
