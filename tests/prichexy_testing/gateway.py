"""A whole gateway for system tests: real Redis, two real Orthancs and a real worker.

::

    with gateway_in(tmp_path) as gateway:
        gateway.send([path])
        rows = gateway.until_ended()
        with gateway.export() as export: ...

It is built on what ``prichexy serve`` runs; so what passes here is what people get. By default the
Orthanc of this system runs. ``PRICHEXY_TEST_ORTHANC_ROOT`` names the root folder of an image of
docker/orthanc.Dockerfile, whose Orthanc then runs by chroot; script/compat sets it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pytest

from prichexy_gateway.client import OrthancClient, StudyRow
from prichexy_gateway.dicom_files import find_dicom_files
from prichexy_gateway.following import follow, latest_rows
from prichexy_gateway.home import Addresses, Home
from prichexy_gateway.native import CALLING_AET, Options, running_gateway
from prichexy_gateway.orthanc_runtime import OrthancRuntime, native_runtime
from prichexy_gateway.sending import Sent, send
from prichexy_gateway.services import ingest_client
from prichexy_gateway.supervisor import Supervisor
from prichexy_worker.pseudonyms import Pseudonyms

__all__ = ["TestGateway", "gateway_in", "image_runtime", "needs_native_parts"]

_ROOT_VARIABLE: Final = "PRICHEXY_TEST_ORTHANC_ROOT"


def needs_native_parts() -> None:
    """Skip the test where Redis or the Orthanc with its Python plugin is not installed."""
    if not Path(native_runtime().executable).exists():
        pytest.skip("Orthanc is not installed: script/bootstrap")
    if shutil.which("redis-server") is None:
        pytest.skip("Redis is not installed: script/bootstrap")


@dataclass(frozen=True)
class TestGateway:
    """A running gateway. Passwords: ``home.password("admin" | "worker" | "export" | "broker")``."""

    __test__ = False  # no test class, whatever its name

    home: Home
    addresses: Addresses
    supervisor: Supervisor
    called_off: threading.Event = field(default_factory=threading.Event)

    def ingest(self) -> OrthancClient:
        """Give a client of the ingest Orthanc and its plugin, as the user admin."""
        return ingest_client(self.home, self.addresses)

    def export(self) -> OrthancClient:
        """Give a client of the export Orthanc, as the user admin: the workers' may list nothing."""
        return OrthancClient(
            "The export Orthanc", self.addresses.export_url, "admin", self.home.password("admin")
        )

    def pseudonyms(self) -> Pseudonyms:
        """Give the pseudonyms that the worker makes."""
        return Pseudonyms.from_key_file(self.home.key_file)

    def send(self, paths: Sequence[Path]) -> Sent:
        """Send files or folders by C-STORE."""
        files = [file for path in paths for file in find_dicom_files(path).files]
        addresses = self.addresses
        return send(
            files, addresses.dicom_host, addresses.dicom_port, addresses.dicom_aet, CALLING_AET
        )

    def study_ids(self) -> list[str]:
        """Give Orthanc's ids of all studies of the ingest Orthanc."""
        with self.ingest() as client:
            return client.all_studies()

    def rows(self) -> dict[str, StudyRow]:
        """Give the ledger's rows by Orthanc's ids of the studies."""
        with self.ingest() as client:
            return latest_rows(client, client.all_studies())

    def until_ended(
        self, study_ids: Sequence[str] | None = None, seconds: float = 600.0
    ) -> dict[str, StudyRow]:
        """Give the rows of these studies, or of all, once each has ended.

        Raises Failed when nothing changed for ``seconds``, AssertionError when a service died.
        """
        ids = self.study_ids() if study_ids is None else study_ids
        with self.ingest() as client:
            return follow(
                client,
                ids,
                self.called_off,
                self.assert_alive,
                patience=seconds,
                patience_with_a_worker=seconds,
            )

    def assert_alive(self) -> None:
        """Fail when a service has died."""
        deaths = self.supervisor.deaths()
        assert not deaths, "; ".join(death.sentence() for death in deaths)

    def command(self, *arguments: object) -> str:
        """Run ``prichexy`` on this gateway as people do; give what it said. Fails with it."""
        done = subprocess.run(
            [
                *(sys.executable, "-m", "prichexy_gateway", *map(str, arguments)),
                *("--home", str(self.home.root)),
            ],
            env=dict(os.environ) | {"PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def stop(self, service: str) -> None:
        """Stop "redis", "ingest", "export" or "worker" in good order."""
        self.supervisor.stop(service)

    def kill(self, service: str) -> None:
        """End a service as a crash would."""
        self.supervisor.kill(service)

    def start(self, service: str) -> None:
        """Start a stopped or killed service again, as it was, and wait until it is ready."""
        self.supervisor.restart(service)
        self.supervisor.wait_until_ready(service)

    def log(self, service: str) -> str:
        """Give what a service has logged so far."""
        return self.home.log(service).read_text(encoding="utf-8", errors="replace")


def image_runtime(root: Path) -> OrthancRuntime:
    """Give the Orthanc of the image that docker/orthanc.Dockerfile makes, unpacked in ``root``."""
    packages = sorted((root / "opt/prichexy/venv/lib").glob("python3*/site-packages"))
    return OrthancRuntime(
        script=root / "opt/prichexy/plugin/prichexy_orthanc.py",
        python_path=tuple(packages),
        root=root,
    )


@contextmanager
def gateway_in(folder: Path, options: Options | None = None) -> Iterator[TestGateway]:
    """Run a gateway in ``folder`` for the block; skip the test where parts are missing.

    Without ``options``: studies are complete after 1 s, the worker computes on the CPU. The
    gateway's home is ``folder / "gateway"``, before the block and after it; an Orthanc of another
    root folder sees nothing else, so that for the block the home is in there.
    """
    options = options or Options(stable_age=1, device="cpu")
    home = folder / "gateway"
    named = os.environ.get(_ROOT_VARIABLE)
    if named is None:
        needs_native_parts()
        with running_gateway(Home(home), options) as running:
            yield TestGateway(running.home, running.addresses, running.supervisor)
        return
    root = Path(named).resolve()
    options = replace(options, runtime=image_runtime(root))
    with (
        _moved_into(root / "tmp", home) as inside,
        running_gateway(Home(inside), options) as running,
    ):
        yield TestGateway(running.home, running.addresses, running.supervisor)


@contextmanager
def _moved_into(place: Path, folder: Path) -> Iterator[Path]:
    """Have a folder, there or not yet, under ``place`` for the block; give its path there."""
    with TemporaryDirectory(prefix="gateway-", dir=place) as made:
        inside = Path(made, folder.name)
        if folder.exists():
            shutil.move(folder, inside)
        try:
            yield inside
        finally:
            if inside.exists():
                folder.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(inside, folder)
