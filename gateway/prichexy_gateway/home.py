"""The gateway's own folder: its data, secrets, logs, and who is running in it.

::

    gateway.json        addresses and process ids of the running (or last) gateway
    lock                held while a gateway runs here
    restoring           there while a restore puts things in place, or when that was cut off
    secrets/            one file a password, and pseudonyms.key; mode 0600
    redis/ ingest/ export/ worker/    one folder a service
    models/             the bundles that were in use, and which is now; see model_store
    logs/               one file a service
    pictures/           before / after / displacement of the sample
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any, Final

from prichexy_gateway.errors import Failed, Misconfigured
from prichexy_store.bundle_files import sync_folder
from prichexy_worker.pseudonyms import Pseudonyms

__all__ = [
    "LEDGER_FILE",
    "PASSWORDS",
    "Addresses",
    "Home",
    "Record",
    "RunningProcess",
    "checkout",
    "default_bundle",
    "default_home",
    "read_secret",
    "write_privately",
]

#: The passwords that ``Home.prepare`` makes; each is a file in secrets/.
PASSWORDS: Final = ("admin", "worker", "export", "broker")
#: As the plugin calls it in Orthanc's storage (prichexy_plugin.settings), held together by a test.
LEDGER_FILE: Final = "prichexy-ledger.sqlite"
_HOME_VARIABLE: Final = "PRICHEXY_HOME"
_RECORD_VERSION: Final = 1


def checkout() -> Path:
    """Give the project's checkout that this code runs from.

    Raises Failed when it runs from somewhere else, such as an installed wheel.
    """
    folder = Path(__file__).resolve().parents[2]
    if not (folder / "orthanc-config").is_dir():
        raise Failed(
            "This needs the project's checkout (orthanc-config/, plugin/, model/). "
            "Run .venv/bin/prichexy of a checkout."
        )
    return folder


def default_bundle() -> Path:
    """Give the checkout's generator. Raises Failed."""
    return checkout() / "model" / "bundle"


def default_home() -> Path:
    """Give the folder that ``PRICHEXY_HOME`` names, or ``.gateway`` in the checkout."""
    named = os.environ.get(_HOME_VARIABLE)
    return Path(named).expanduser().resolve() if named else checkout() / ".gateway"


def write_privately(path: Path, text: str) -> None:
    """Put ``text`` into ``path`` in one step; only this user may read the file."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        os.fchmod(stream.fileno(), 0o600)  # in case an older draft had another mode
        stream.write(text)
    draft.replace(path)


def read_secret(path: Path) -> str:
    """Give the secret in ``path``. Raises Misconfigured naming the file, never the secret."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise Misconfigured(f"{path}: the secret cannot be read ({error.strerror})") from None


def _is_seen_as(file: Path, place: Path) -> bool:
    """Say whether ``place`` is this file's path, or that path below some folder above it."""
    if not place.is_absolute():
        return False
    if place.resolve() == file.resolve():
        return True
    words = place.parts[1:]
    return len(words) > 1 and file.resolve().parts[-len(words) :] == words


def _lock_soon(stream: IO[str]) -> None:
    """Lock a file for this process, at once or in half a second. Raises BlockingIOError.

    Who only asks whether a gateway runs holds it for a moment, too.
    """
    deadline = time.monotonic() + 0.5
    while True:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.05)
        else:
            return


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a gateway is reached. ``dicom_*`` are the ingest Orthanc's for C-STORE."""

    ingest_url: str
    dicom_host: str
    dicom_port: int
    dicom_aet: str
    export_url: str
    broker_url: str


@dataclass(frozen=True, slots=True)
class RunningProcess:
    """A process as the system knows it: ``started`` tells a reused ``pid`` from the first."""

    name: str
    pid: int
    started: int


@dataclass(frozen=True, slots=True)
class Record:
    """What gateway.json says: the addresses of the last start, and what it started.

    ``ledger`` is where the plugin kept its ledger, "postgresql" or a path; "" when it is not known.
    """

    addresses: Addresses
    model_bundle: str
    supervisor: RunningProcess
    processes: tuple[RunningProcess, ...] = ()
    ledger: str = ""

    def to_json(self) -> dict[str, Any]:
        """Give the JSON object that ``from_json`` reads."""
        return {"version": _RECORD_VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, data: Any) -> Record:
        """Parse strictly. Raises ValueError."""
        try:
            if data["version"] != _RECORD_VERSION:
                raise ValueError("gateway.json: of another version")
            return cls(
                addresses=Addresses(**data["addresses"]),
                model_bundle=str(data["model_bundle"]),
                supervisor=RunningProcess(**data["supervisor"]),
                processes=tuple(RunningProcess(**item) for item in data["processes"]),
                ledger=str(data.get("ledger", "")),
            )
        except (KeyError, TypeError) as error:
            raise ValueError("gateway.json: missing or unknown keys") from error


@dataclass(frozen=True, slots=True)
class Home:
    """The folder of one gateway. Making this value touches nothing."""

    root: Path

    def folder(self, name: str) -> Path:
        """Give the path of one of the folders listed at the top of this module."""
        return self.root / name

    def log(self, service: str) -> Path:
        """Give the path of a service's log."""
        return self.root / "logs" / f"{service}.log"

    def password_file(self, name: str) -> Path:
        """Give the path of one of ``PASSWORDS``."""
        return self.root / "secrets" / f"{name}.password"

    def password(self, name: str) -> str:
        """Give one of ``PASSWORDS``. Raises Misconfigured."""
        return read_secret(self.password_file(name))

    @property
    def key_file(self) -> Path:
        """The key of all pseudonyms; see ``prichexy_worker.pseudonyms``."""
        return self.root / "secrets" / "pseudonyms.key"

    @property
    def models(self) -> Path:
        """The folder of the model store; see ``model_store``."""
        return self.root / "models"

    @property
    def record_file(self) -> Path:
        """The path of gateway.json."""
        return self.root / "gateway.json"

    def prepare(self) -> None:
        """Make what is missing: folders for this user alone, passwords, the pseudonym key.

        Raises Failed where a restore was cut off: what is there may not belong together, and a new
        key in the place of one that is missing would make another patient of every patient.
        """
        if self._restoring.exists():
            raise Failed(
                f"A restore in {self.root} was cut off before it was done. Do it again: "
                "prichexy restore … --replace. What was there before is kept as *.replaced."
            )
        self._make_folder(self.root)
        for name in ("secrets", "redis", "ingest", "export", "worker", "logs", "pictures"):
            self._make_folder(self.root / name)
        for name in PASSWORDS:
            if not self.password_file(name).exists():
                write_privately(self.password_file(name), secrets.token_urlsafe(24) + "\n")
        if not self.key_file.exists():
            Pseudonyms.create_key_file(self.key_file)

    @property
    def _restoring(self) -> Path:
        return self.root / "restoring"

    @contextmanager
    def restoring(self) -> Iterator[None]:
        """Mark what is here as being replaced: ``prepare`` refuses it until that is done.

        The mark stays when this process is killed, and goes with an OSError only if no earlier
        restore had left it. Raises OSError.
        """
        earlier = self._restoring.exists()
        self._restoring.touch(mode=0o600)
        sync_folder(self.root)
        try:
            yield
        except OSError:
            if not earlier:
                self._restoring.unlink()
            raise
        self._restoring.unlink()

    @staticmethod
    def _make_folder(folder: Path) -> None:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)
        except OSError as error:
            raise Failed(f"{folder}: cannot be made ({error.strerror})") from None

    def read_record(self) -> Record | None:
        """Give what gateway.json says, or None when it says nothing that this version reads."""
        try:
            return Record.from_json(json.loads(self.record_file.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return None

    def addresses(self) -> Addresses:
        """Give where the gateway that runs here is reached. Raises Failed when none does."""
        record = self.read_record()
        if record is None:
            raise Failed(f"No gateway has run in {self.root}. Start one: prichexy serve")
        if not self._is_locked():
            raise Failed(
                f"The gateway of {self.root} does not run now; what it holds is kept. "
                "Start it again: prichexy serve"
            )
        return record.addresses

    def write_record(self, record: Record) -> None:
        """Replace gateway.json."""
        write_privately(self.record_file, json.dumps(record.to_json(), indent=2) + "\n")

    def note_ledger(self, place: str) -> None:
        """Keep where the gateway that runs here has its ledger; see ``Record``."""
        record = self.read_record()
        if record is not None:
            self.write_record(replace(record, ledger=place))

    @property
    def ledger_file(self) -> Path:
        """The file of the ledger, unless ingest.json names another place for it."""
        return self.root / "ingest" / LEDGER_FILE

    def ledger(self) -> Path:
        """Give the file of the ledger.

        Raises Misconfigured when the last gateway here had its ledger elsewhere: what may still
        stand in the file is of before.
        """
        record = self.read_record()
        place = "" if record is None else record.ledger
        # An Orthanc in a root folder of its own tells the path as it is from there.
        if not place or _is_seen_as(self.ledger_file, Path(place)):
            return self.ledger_file
        where = place if "/" in place else f"a database ({place})"
        raise Misconfigured(
            f"the gateway that ran here last keeps its ledger in {where}, not in {self.ledger_file}"
        )

    def _is_locked(self) -> bool:
        """Whether a gateway holds this folder."""
        try:
            with (self.root / "lock").open(encoding="utf-8") as stream:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            pass  # no lock file: it was never held
        return False

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold this folder for one gateway; a killed holder's lock is free at once.

        Raises Failed when another gateway runs here.
        """
        self._make_folder(self.root)
        # Not inherited by the services (PEP 446): the lock ends with this process alone.
        with (self.root / "lock").open("a", encoding="utf-8") as stream:
            try:
                _lock_soon(stream)
            except BlockingIOError:
                record = self.read_record()
                whose = f" (process {record.supervisor.pid})" if record else ""
                raise Failed(
                    f"Another gateway{whose} runs in {self.root}. "
                    "Stop it with Ctrl-C, or give --home another folder."
                ) from None
            yield
