"""Starts the compose file's services from the built roots, tries them, stops them."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from prichexy_testing.rehearsal.build import Built
from prichexy_testing.rehearsal.compose import ComposeFile, Service
from prichexy_testing.rehearsal.container import Container, ContainerError, Place, start

__all__ = ["make_secrets", "rehearse"]

_REFUSES_WITHIN: Final = 30.0
_SAMPLE_WITHIN: Final = 180.0
_ENDS: Final = frozenset({"quarantined", "failed", "rejected"})


def rehearse(
    compose: ComposeFile, built: Mapping[str, Built], place: Place, sample: Path | None
) -> None:
    """Try all services of a plain ``docker compose up``, then stop them.

    Each must refuse an empty secret, get healthy, and end by itself when asked to. The DICOM file
    ``sample`` must come out at the export Orthanc, when one is given. Raises ContainerError.
    Needs a network namespace with loopback up.
    """
    make_secrets(place)
    services = compose.started()
    for service in services:
        _refuses_empty_secrets(service, built[service.image], place)
    running: list[Container] = []
    try:
        for service in services:
            made = built[service.image]
            container = start(service, made.root, made.image, place)
            running.append(container)
            _say(f"{service.name}: healthy after {container.wait_until_healthy():.1f} s")
        if sample is not None:
            _say(f"the sample was exported after {_send(sample, place):.1f} s")
        for container in reversed(running):
            _say(f"{container.service.name}: stopped in {container.stop():.1f} s")
    except ContainerError:
        for container in running:
            _say(f"--- log of {container.service.name}: {container.log}")
        raise
    finally:
        for container in running:
            container.kill()


def make_secrets(place: Place) -> None:
    """Make the secrets by the script that users run; a second run must change none."""
    script = str(place.compose_folder / "make-secrets")
    command = [script, str(place.secrets)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    before = {file.name: file.read_bytes() for file in place.secrets.iterdir()}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    if before != {file.name: file.read_bytes() for file in place.secrets.iterdir()}:
        raise ContainerError("make-secrets: a second run changed a secret")


def _refuses_empty_secrets(service: Service, made: Built, place: Place) -> None:
    for secret in service.secrets:
        empty = place.secrets.parent / "empty"
        empty.touch()
        container = start(service, made.root, made.image, place, {secret.target: empty})
        try:
            status = container.child.wait(_REFUSES_WITHIN)
        except subprocess.TimeoutExpired:
            raise container.failure(f"it starts with an empty {secret.target}") from None
        finally:
            container.kill()
        if status == 0:
            raise container.failure(f"it ends without an error with an empty {secret.target}")
    _say(f"{service.name}: refuses each of its {len(service.secrets)} secrets when empty")


def _send(sample: Path, place: Place) -> float:
    """Give the seconds from ingest to export. Raises ContainerError."""
    started = time.monotonic()
    ingest = _Rest("http://127.0.0.1:8042", "admin", place.secrets / "ingest_admin_password")
    export = _Rest("http://127.0.0.1:8043", "admin", place.secrets / "export_admin_password")
    ingest.call("/instances", sample.read_bytes())
    while time.monotonic() - started < _SAMPLE_WITHIN:
        rows = ingest.call("/prichexy/api/v1/studies")["studies"]
        states = {row["state"]: row["reason"] for row in rows}
        if states.keys() & _ENDS:
            raise ContainerError(f"the sample was not exported: {states}")
        if "exported" in states and export.call("/statistics")["CountInstances"] == 1:
            return time.monotonic() - started
        threading.Event().wait(0.5)
    raise ContainerError(f"the sample was not exported in time: {states}")


class _Rest:
    """The few calls to an Orthanc that the rehearsal makes."""

    def __init__(self, address: str, user: str, password: Path) -> None:
        secret = f"{user}:{password.read_text(encoding='ascii').strip()}"
        self._address = address
        self._headers = {
            "Authorization": f"Basic {base64.b64encode(secret.encode()).decode()}",
            "X-PriCheXy": "rehearsal",
        }
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def call(self, path: str, body: bytes | None = None) -> Any:
        """GET, or POST ``body``; give the parsed answer. Raises ContainerError."""
        request = urllib.request.Request(self._address + path, body, self._headers)
        try:
            with self._opener.open(request, timeout=60) as answer:
                return json.load(answer)
        except (OSError, ValueError) as error:
            raise ContainerError(f"{path}: {error}") from error


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
