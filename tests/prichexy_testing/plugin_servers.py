"""A real Orthanc that runs the plugin of this checkout, with the plugin's own environment."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from prichexy_testing.dashboard_reader import FORM, filled_in
from prichexy_testing.servers import OrthancServer, _folder, free_port, wait_until
from prichexy_worker.contract import API_ROOT, REQUEST_HEADER

__all__ = ["PluginOrthanc", "plugin_paths", "running_plugin_orthanc"]

REPO = Path(__file__).resolve().parents[2]
ENVIRONMENT = REPO / ".venv-plugin"
LIBRARY = Path("/usr/share/orthanc/plugins/libOrthancPython.so")


def plugin_paths(environment: Path = ENVIRONMENT) -> str:
    """Give the PYTHONPATH of the plugin; skips the test where the environment is not made."""
    python = environment / "bin" / "python"
    if not python.exists():
        pytest.skip(f"{environment.name} is not there: run script/bootstrap")
    script = "import sysconfig; print(sysconfig.get_path('purelib'))"
    asked = subprocess.run([python, "-c", script], capture_output=True, check=True, text=True)
    ours = [str(REPO / area) for area in ("worker", "model")]
    return os.pathsep.join([*ours, asked.stdout.strip()])


class PluginOrthanc(OrthancServer):
    """An ingest Orthanc with the plugin, a user for people and one for workers."""

    def __init__(
        self, folder: Path, section: Mapping[str, Any], *, paths: str, **settings: Any
    ) -> None:
        self.worker_password = secrets.token_urlsafe(16)
        self.dicom_port = free_port()
        self._paths = paths
        defaults = {
            "Plugins": [str(LIBRARY)],
            "PythonScript": str(REPO / "plugin" / "prichexy_orthanc.py"),
            "DicomServerEnabled": True,
            "DicomPort": self.dicom_port,
            "DicomAlwaysAllowStore": True,
            "OverwriteInstances": False,
            "StableAge": 1,
            "PriCheXy": {"WorkerUser": "worker", **section},
        }
        super().__init__(folder, {**defaults, **settings})
        self._settings["RegisteredUsers"] = {
            self.user: self.password,
            "worker": self.worker_password,
        }

    def _command(self) -> list[str]:
        return ["env", f"PYTHONPATH={self._paths}", *super()._command()]

    def configure(self, section: Mapping[str, Any]) -> None:
        """Change the plugin's section; the next start reads it."""
        self._settings["PriCheXy"] = {"WorkerUser": "worker", **section}

    @property
    def pid(self) -> int:
        """Give the process's id."""
        assert self._process is not None
        return self._process.pid

    def health(self) -> dict[str, Any]:
        """Ask the plugin how it is."""
        answer = self.get(f"{API_ROOT}/health")
        value: dict[str, Any] = answer.json()
        return value

    def counts(self) -> dict[str, int]:
        """Give the number of studies by state, without the states that have none."""
        return {state: count for state, count in self.health()["counts"].items() if count}

    def studies(self) -> list[dict[str, Any]]:
        """List the studies of the ledger; none before it is open."""
        answer = self.get(f"{API_ROOT}/studies?limit=500")
        value: list[dict[str, Any]] = answer.json()["studies"] if answer.is_success else []
        return value

    def trail(self, job_id: str) -> list[str]:
        """Give the states that a study has gone through, in order."""
        events = self.get(f"{API_ROOT}/studies/{job_id}").json()["events"]
        return [event["to"] for event in events]

    def post_as_worker(self, path: str, value: object) -> httpx.Response:
        """Post what a worker posts."""
        content = json.dumps(value).encode()
        return self.ask_as_worker("POST", f"{API_ROOT}{path}", content)

    def ask_as_worker(self, method: str, path: str, content: bytes | None = None) -> httpx.Response:
        """Send a request as a worker does."""
        return self.ask(
            method,
            path,
            auth=("worker", self.worker_password),
            content=content,
            headers={REQUEST_HEADER: "1"},
        )

    def submit(self, path: str, chosen: Mapping[str, str]) -> httpx.Response:
        """Send the first form of a page whose hidden fields go with ``chosen``, filled in so."""
        wait_until(lambda: bool(self.health()["ledger"] == "ok"), what="the ledger is open")
        content = urlencode(filled_in(self.get(path).text, chosen)).encode()
        headers = {"content-type": FORM, "origin": self.url}
        return self.ask("POST", path, content=content, headers=headers)

    def wait_for(self, counts: Mapping[str, int]) -> None:
        """Wait until the ledger counts exactly this."""
        wait_until(lambda: self.counts() == counts, what=f"the ledger counts {dict(counts)}")


@contextmanager
def running_plugin_orthanc(
    section: Mapping[str, Any], *, paths: str | None = None, **settings: Any
) -> Iterator[PluginOrthanc]:
    """Run an Orthanc with the plugin for the block; skips the test where either is missing."""
    if shutil.which("Orthanc") is None and not Path("/usr/sbin/Orthanc").exists():
        pytest.skip("Orthanc is not installed")
    if not LIBRARY.exists():
        pytest.skip("Orthanc's Python plugin is not installed (orthanc-python)")
    with _folder() as folder:
        server = PluginOrthanc(
            folder, section, paths=plugin_paths() if paths is None else paths, **settings
        )
        try:
            yield server.start()
        finally:
            server.stop()
