"""Real servers for tests: a Redis and a plain Orthanc, on free loopback ports, in a folder.

Each is ready when its context manager hands it over, can be stopped and started again to play an
outage, and is gone, with its folder, when the block ends.
"""

from __future__ import annotations

import json
import secrets
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import httpx
import pytest

__all__ = [
    "OrthancServer",
    "RedisServer",
    "free_port",
    "running_orthanc",
    "running_redis",
    "wait_until",
]

#: Seconds until a server has to be up or down, an answer be there, or a condition hold. Long, for
#: the machine may be busy: a test that passes never waits for it, and one that fails may take its
#: time.
_PATIENCE = 120.0
#: Below the range from which the system takes the ports of outgoing connections: one of those
#: could take a port before its server has bound it, or while its server is stopped.
_PORTS = range(20000, 32000)


def wait_until(condition: Callable[[], bool], seconds: float = _PATIENCE, what: str = "it") -> None:
    """Return when ``condition`` holds; fails the test when it does not within ``seconds``.

    A state that passes by may be missed: wait for one that stays.
    """
    pause = threading.Event()
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds} s in vain until {what}")
        pause.wait(0.05)


def free_port() -> int:
    """Give a loopback port that was free a moment ago."""
    while True:
        port = secrets.choice(_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class _Server(ABC):
    """One process that can be started and stopped again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def _command(self) -> list[str]:
        """Write what the process needs, and give the words that start it."""

    @abstractmethod
    def _answers(self) -> bool:
        """Tell whether the process can be used."""

    def start(self) -> Self:
        """Start the process and wait until it answers."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.folder
            )
        process = self._process
        try:
            wait_until(
                lambda: process.poll() is not None or self._answers(), what="the server answers"
            )
            if process.poll() is not None:
                pytest.fail(f"the server ended at once:\n{self.log()}")
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End the process and wait for it: its ports stay bound until it is gone."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill(self) -> None:
        """End the process with SIGKILL."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def log(self) -> str:
        """Give what the server wrote so far."""
        return (self.folder / "log").read_text(errors="replace")


class RedisServer(_Server):
    """A Redis with an append-only file, so that a restart keeps its queues."""

    def __init__(self, folder: Path, password: str | None) -> None:
        super().__init__(folder)
        self.port = free_port()
        self.password = password
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def _command(self) -> list[str]:
        (self.folder / "redis.conf").write_text(
            f"bind 127.0.0.1\nport {self.port}\nunixsocket {self.folder}/redis.sock\n"
            f"dir {self.folder}\nappendonly yes\nsave ''\n"
            + (f"requirepass {self.password}\n" if self.password else "")
        )
        return ["redis-server", str(self.folder / "redis.conf")]

    def _answers(self) -> bool:
        with suppress(OSError, AssertionError):
            return bool(self.command("PING") == b"+PONG")
        return False

    def command(self, *words: str) -> bytes:
        """Give the first line of the answer to one command, in Redis's own protocol."""

        def encoded(parts: tuple[str, ...]) -> bytes:
            lines = [f"*{len(parts)}"]
            for part in parts:
                lines += [f"${len(part.encode())}", part]
            return ("\r\n".join(lines) + "\r\n").encode()

        with socket.create_connection(("127.0.0.1", self.port), timeout=_PATIENCE) as connection:
            reader = connection.makefile("rb")
            if self.password:
                connection.sendall(encoded(("AUTH", self.password)))
                assert reader.readline().startswith(b"+OK")
            connection.sendall(encoded(words))
            return reader.readline().rstrip(b"\r\n")

    def length(self, queue: str) -> int:
        """Give the number of messages that wait in ``queue``."""
        return int(self.command("LLEN", queue).removeprefix(b":"))


class OrthancServer(_Server):
    """An Orthanc without plugins, with one user, that listens on loopback only."""

    def __init__(self, folder: Path, settings: Mapping[str, object]) -> None:
        super().__init__(folder)
        self.port = free_port()
        self.user = "tester"
        self.password = secrets.token_urlsafe(16)
        self.url = f"http://127.0.0.1:{self.port}"
        self._settings = dict(settings)

    def _command(self) -> list[str]:
        configuration = {
            "Name": "PRICHEXY-TEST",
            "StorageDirectory": str(self.folder / "storage"),
            "IndexDirectory": str(self.folder / "storage"),
            "Plugins": [],
            "HttpPort": self.port,
            "HttpCompressionEnabled": False,
            "DicomServerEnabled": False,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": True,
            "RegisteredUsers": {self.user: self.password},
            "OverwriteInstances": True,
            **self._settings,
        }
        (self.folder / "orthanc.json").write_text(json.dumps(configuration))
        program = shutil.which("Orthanc") or "/usr/sbin/Orthanc"
        return [program, str(self.folder / "orthanc.json")]

    def _answers(self) -> bool:
        with suppress(httpx.HTTPError):
            return self.get("/system").is_success
        return False

    def get(self, path: str) -> httpx.Response:
        """Ask with the test's user."""
        return self.ask("GET", path)

    def post(self, path: str, content: bytes) -> httpx.Response:
        """Send bytes with the test's user."""
        return self.ask("POST", path, content=content)

    def delete(self, path: str) -> httpx.Response:
        """Delete with the test's user."""
        return self.ask("DELETE", path)

    def ask(
        self,
        method: str,
        path: str,
        *,
        auth: tuple[str, str] | None = None,
        anonymous: bool = False,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """Send a request as ``auth``, by default the test's user, or as nobody."""
        return httpx.request(
            method,
            f"{self.url}{path}",
            auth=None if anonymous else auth or (self.user, self.password),
            content=content,
            headers=headers,
            trust_env=False,
            timeout=_PATIENCE,
        )


@contextmanager
def running_redis(*, password: str | None = None) -> Iterator[RedisServer]:
    """Run a Redis for the block; skips the test where none is installed."""
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    with _folder() as folder:
        server = RedisServer(folder, password)
        try:
            yield server.start()
        finally:
            server.stop()


@contextmanager
def running_orthanc(**settings: object) -> Iterator[OrthancServer]:
    """Run an Orthanc for the block, with further settings of its configuration."""
    if shutil.which("Orthanc") is None and not Path("/usr/sbin/Orthanc").exists():
        pytest.skip("Orthanc is not installed")
    with _folder() as folder:
        server = OrthancServer(folder, settings)
        try:
            yield server.start()
        finally:
            server.stop()


@contextmanager
def _folder() -> Iterator[Path]:
    # Short: a Unix socket's path is limited to 107 bytes, and pytest's own folders are long.
    with tempfile.TemporaryDirectory(prefix="prichexy-") as folder:
        yield Path(folder)
