"""Real servers for tests: a Redis and a plain Orthanc, on free loopback ports, in a folder.

Each is ready when its context manager hands it over, can be stopped and started again to play an
outage, and is gone, with its folder, when the block ends.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Self, TypeVar

import httpx
import pytest

from prichexy_testing.certificates import Pair

__all__ = [
    "ACL",
    "DICOMWEB_PLUGIN",
    "OrthancServer",
    "PostgresServer",
    "RedisServer",
    "StoreScp",
    "free_port",
    "running_dicomweb",
    "running_orthanc",
    "running_postgres",
    "running_redis",
    "running_storescp",
    "wait_until",
]

#: Seconds until a server has to be up or down, an answer be there, or a condition hold. Long, for
#: the machine may be busy: a test that passes never waits for it, and one that fails may take its
#: time.
_PATIENCE = 120.0
#: Where Debian's package orthanc-dicomweb puts it.
DICOMWEB_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
#: What the plugin and the workers need of Redis, in the words of its ACL.
ACL = "~* &* +@all -@admin -@dangerous +info"
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


_S = TypeVar("_S", bound=_Server)


class RedisServer(_Server):
    """A Redis with an append-only file, so that a restart keeps its queues."""

    def __init__(
        self, folder: Path, password: str | None, user: str | None, tls: tuple[Path, Pair] | None
    ) -> None:
        super().__init__(folder)
        self.port = free_port()
        self.password = password
        self.user = user
        self._tls = tls
        self.url = f"{'rediss' if tls else 'redis'}://127.0.0.1:{self.port}/0"

    def _command(self) -> list[str]:
        where = f"port {self.port}\n"
        if self._tls is not None:
            authority, pair = self._tls
            where = f"port 0\ntls-port {self.port}\ntls-ca-cert-file {authority}\n"
            where += f"tls-cert-file {pair.certificate}\ntls-key-file {pair.key}\n"
        secret = f"requirepass {self.password}\n" if self.password else ""
        if self.user is not None:
            # What docs/scale-out.md gives the gateway's user, and nobody else anything.
            secret = f"user default off\nuser {self.user} on >{self.password} {ACL}\n"
        (self.folder / "redis.conf").write_text(
            f"bind 127.0.0.1\n{where}unixsocket {self.folder}/redis.sock\n"
            f"dir {self.folder}\nappendonly yes\nsave ''\n{secret}"
        )
        return ["redis-server", str(self.folder / "redis.conf")]

    def _answers(self) -> bool:
        with suppress(OSError, AssertionError):
            return bool(self.command("LLEN", "any").startswith(b":"))
        return False

    def command(self, *words: str) -> bytes:
        """Give the first line of the answer to one command, in Redis's own protocol."""

        def encoded(parts: tuple[str, ...]) -> bytes:
            lines = [f"*{len(parts)}"]
            for part in parts:
                lines += [f"${len(part.encode())}", part]
            return ("\r\n".join(lines) + "\r\n").encode()

        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_PATIENCE)
            connection.connect(str(self.folder / "redis.sock"))
            reader = connection.makefile("rb")
            if self.password:
                who = () if self.user is None else (self.user,)
                connection.sendall(encoded(("AUTH", *who, self.password)))
                assert reader.readline().startswith(b"+OK")
            connection.sendall(encoded(words))
            return reader.readline().rstrip(b"\r\n")

    def length(self, queue: str) -> int:
        """Give the number of messages that wait in ``queue``."""
        return int(self.command("LLEN", queue).removeprefix(b":"))


class OrthancServer(_Server):
    """An Orthanc with no plugins but those named, that listens on loopback only.

    It has the test's user, and ``users`` with their passwords.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, object],
        users: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(folder)
        self.port = free_port()
        self.user = "tester"
        self.password = secrets.token_urlsafe(16)
        self.url = f"http://127.0.0.1:{self.port}"
        self._settings = dict(settings)
        self._users = dict(users or {})

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
            "RegisteredUsers": {self.user: self.password, **self._users},
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


class StoreScp(_Server):
    """DCMTK's storescp on loopback; it writes what it gets, bit for bit, into ``received``."""

    def __init__(self, folder: Path, options: Sequence[str]) -> None:
        super().__init__(folder)
        self.port = free_port()
        self.received = folder / "received"
        self._options = options

    def _command(self) -> list[str]:
        self.received.mkdir(exist_ok=True)
        keep = ["--bit-preserving", "--output-directory", str(self.received)]
        return ["storescp", *keep, *self._options, str(self.port)]

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5):
            return True
        return False

    def files(self) -> list[Path]:
        """Give what was received, by name."""
        return sorted(self.received.iterdir())


class PostgresServer(_Server):
    """A PostgreSQL with a database of its own, on loopback, that asks for a password.

    It refuses to run as root; then it is run as the user ``postgres`` of Debian's package.
    """

    def __init__(self, folder: Path, programs: Path) -> None:
        super().__init__(folder)
        self.port = free_port()
        self.password = secrets.token_urlsafe(16)
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        self._programs = programs
        self._data = folder / "data"

    def make(self) -> None:
        """Make an empty database."""
        folder = self.folder
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
        password = folder / "password"
        password.write_text(self.password)
        if os.geteuid() == 0:
            shutil.chown(password, "postgres")
        made = [str(self._programs / "initdb"), "--pgdata", str(self._data), "--username=postgres"]
        made += ["--auth=scram-sha-256", f"--pwfile={password}", "--encoding=UTF8", "--locale=C"]
        done = subprocess.run(
            [*self._as_user(), *made, "--no-sync"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def _as_user(self) -> list[str]:
        return ["runuser", "--user", "postgres", "--"] if os.geteuid() == 0 else []

    def _command(self) -> list[str]:
        settings = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.folder),
            "max_connections": "40",
        }
        options = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        server = [str(self._programs / "postgres"), "-D", str(self._data), *options]
        # Not through runuser, which would stand between us and the server's end.
        who = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]
        return [*(who if os.geteuid() == 0 else []), *server]

    def _answers(self) -> bool:
        asked = [str(self._programs / "pg_isready"), "--quiet", "--host=127.0.0.1"]
        done = subprocess.run([*asked, f"--port={self.port}"], cwd=self.folder, check=False)
        return done.returncode == 0

    def stop(self) -> None:
        """End it at once, and what is connected with it: it would wait for that to go."""
        process = self._process
        if process is not None:
            process.send_signal(signal.SIGINT)
        super().stop()

    def query(self, statement: str, database: str = "postgres") -> str:
        """Run a statement; gives what it answers, a line a row."""
        asked = [str(self._programs / "psql"), "--no-psqlrc", "--tuples-only", "--no-align"]
        where = ["--host=127.0.0.1", f"--port={self.port}", "--username=postgres", database]
        done = subprocess.run(
            [*asked, *where, "--command", statement],
            cwd=self.folder,
            env={**os.environ, "PGPASSWORD": self.password},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def new_database(self) -> str:
        """Make a database; gives its address, without the password."""
        name = f"test_{secrets.token_hex(6)}"
        self.query(f"CREATE DATABASE {name}")
        return f"{self.url.rpartition('/')[0]}/{name}"


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """Run a PostgreSQL for the block; skips where it or its driver is not installed."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not programs:
        pytest.skip("postgresql is not installed")
    if find_spec("psycopg") is None:
        pytest.skip("psycopg is not installed")
    with _folder() as folder:
        server = PostgresServer(folder, programs[-1].parent)
        server.make()
        try:
            yield server.start()
        finally:
            server.stop()


@contextmanager
def running_storescp(*options: str) -> Iterator[StoreScp]:
    """Run a storescp for the block, with further options; skips where there is none."""
    if shutil.which("storescp") is None:
        pytest.skip("dcmtk is not installed")
    with _running(lambda folder: StoreScp(folder, options)) as server:
        yield server


@contextmanager
def running_redis(
    *,
    password: str | None = None,
    user: str | None = None,
    tls: tuple[Path, Pair] | None = None,
) -> Iterator[RedisServer]:
    """Run a Redis for the block; skips the test where none is installed.

    ``password`` is of ``user``, or of everybody. With ``tls``, the authority that clients must
    bring a certificate of and the server's own certificate, it speaks nothing else.
    """
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    with _running(lambda folder: RedisServer(folder, password, user, tls)) as server:
        yield server


@contextmanager
def running_orthanc(
    users: Mapping[str, str] | None = None, **settings: object
) -> Iterator[OrthancServer]:
    """Run an Orthanc for the block, with further users and settings of its configuration."""
    if shutil.which("Orthanc") is None and not Path("/usr/sbin/Orthanc").exists():
        pytest.skip("Orthanc is not installed")
    with _running(lambda folder: OrthancServer(folder, settings, users)) as server:
        yield server


@contextmanager
def running_dicomweb() -> Iterator[OrthancServer]:
    """Run an Orthanc with its DICOMweb plugin, at ``/dicom-web``, for the block."""
    if not DICOMWEB_PLUGIN.exists():
        pytest.skip("orthanc-dicomweb is not installed")
    settings = {"Plugins": [str(DICOMWEB_PLUGIN)], "DicomWeb": {"Enable": True}}
    with running_orthanc(**settings) as server:
        yield server


@contextmanager
def _running(make: Callable[[Path], _S]) -> Iterator[_S]:
    with _folder() as folder:
        server = make(folder)
        try:
            yield server.start()
        finally:
            server.stop()


@contextmanager
def _folder() -> Iterator[Path]:
    # Short: a Unix socket's path is limited to 107 bytes, and pytest's own folders are long.
    with tempfile.TemporaryDirectory(prefix="prichexy-") as folder:
        yield Path(folder)
