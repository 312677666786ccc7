"""The configurations of both Orthancs are safe as they stand."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from prichexy_gateway.home import checkout
from prichexy_gateway.native import CALLED_AET, CALLING_AET
from prichexy_testing.gateway import needs_native_parts

FOLDER = checkout() / "orthanc-config"
SECRETS = {
    "ingest": ("PRICHEXY_ADMIN_PASSWORD", "PRICHEXY_WORKER_PASSWORD", "PRICHEXY_BROKER_PASSWORD"),
    "export": ("PRICHEXY_ADMIN_PASSWORD", "PRICHEXY_EXPORT_PASSWORD"),
}
BOTH = pytest.mark.parametrize("name", ["ingest", "export"])


def expanded(name: str, **variables: str) -> dict[str, Any]:
    """Read a configuration as Orthanc does: comments away, variables replaced."""
    text = (FOLDER / f"{name}.json").read_text(encoding="utf-8")
    text = "\n".join(line for line in text.splitlines() if not line.strip().startswith("//"))
    variables = dict.fromkeys(SECRETS[name], "secret") | variables

    def value(match: re.Match[str]) -> str:
        return variables.get(match[1], match[2] or "")

    data: dict[str, Any] = json.loads(re.sub(r"\$\{([A-Z_]+)(?::-([^}]*))?\}", value, text))
    return data


@BOTH
def test_a_login_is_required_and_only_this_machine_is_answered(name: str) -> None:
    found = expanded(name)
    assert found["AuthenticationEnabled"] is True
    assert found["RemoteAccessAllowed"] is False
    assert set(found["RegisteredUsers"].values()) == {"secret"}
    assert found["ExecuteLuaEnabled"] is False
    assert found["RestApiWriteToFileSystemEnabled"] is False


@BOTH
def test_nobody_may_query_or_retrieve_by_dicom_unless_listed(name: str) -> None:
    found = expanded(name)
    for right in ("Store", "Find", "Get"):
        assert found[f"DicomAlwaysAllow{right}"] is False
    assert found["DicomCheckCalledAet"] is True
    assert found["DicomCheckModalityHost"] is True


def test_only_this_machine_may_send_and_only_send() -> None:
    found = expanded("ingest")
    (modality,) = found["DicomModalities"].values()
    assert (modality["AET"], modality["Host"]) == (CALLING_AET, "127.0.0.1")
    assert found["DicomAet"] == CALLED_AET
    rights = {key for key, value in modality.items() if key.startswith("Allow") and value}
    assert rights == {"AllowEcho", "AllowStore"}


def test_the_export_orthanc_listens_to_no_dicom_and_runs_no_plugin() -> None:
    found = expanded("export")
    assert found["DicomServerEnabled"] is False
    assert found["DicomModalities"] == {}
    assert found["Plugins"] == []


def test_the_plugin_reads_its_secrets_from_the_environment() -> None:
    section = expanded("ingest", PRICHEXY_BROKER_URL="redis://broker:1/0")["PriCheXy"]
    assert section["Broker"] == {"Url": "redis://broker:1/0", "Password": "secret"}
    assert section["WorkerUser"] in expanded("ingest")["RegisteredUsers"]


@BOTH
def test_no_file_holds_a_password(name: str) -> None:
    text = (FOLDER / f"{name}.json").read_text(encoding="utf-8")
    for line in text.splitlines():
        if "PASSWORD" in line and not line.strip().startswith("//"):
            assert re.search(r'"\$\{PRICHEXY_[A-Z]+_PASSWORD:-\\PRICHEXY_', line), line


@pytest.mark.orthanc
@pytest.mark.parametrize(
    ("name", "missing"), [(name, secret) for name in SECRETS for secret in SECRETS[name]]
)
def test_orthanc_does_not_start_without_each_of_its_passwords(
    name: str, missing: str, tmp_path: Path
) -> None:
    needs_native_parts()
    environment = {"PATH": os.environ["PATH"], "PRICHEXY_STORAGE": str(tmp_path)}
    environment |= {secret: "secret" for secret in SECRETS[name] if secret != missing}
    ended = subprocess.run(
        ["/usr/sbin/Orthanc", str(FOLDER / f"{name}.json")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode != 0
    assert "does not follow the JSON syntax" in ended.stderr
