"""What doctor says of export targets and queues, and of the rules that name them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest

from prichexy_gateway import doctor
from prichexy_gateway.client import OrthancClient
from prichexy_gateway.doctor import Check, examine
from prichexy_gateway.worker_settings import load_settings_at
from prichexy_testing.servers import free_port
from prichexy_worker.contract import SOFTWARE_VERSION


def checks(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *named: str,
    queues: Sequence[str] = (),
    workers: Sequence[Sequence[str]] = (),
    other_keys: Sequence[dict[str, str]] = (),
) -> dict[str, Check]:
    """Give the checks of a worker with three targets under a plugin whose rules name ``named``.

    They send to ``queues``; there are ``workers``, each with the queues that it told, and
    ``other_keys`` of workers that get no study.
    """
    health = {
        "software": SOFTWARE_VERSION,
        "ledger": "ok",
        "broker": {"reachable": True, "detail": ""},
        "counts": {},
        "workers": [
            {
                "worker_id": f"worker-{number}",
                "software": SOFTWARE_VERSION,
                "device": "cpu",
                "model": {"digest": "d" * 64},
                "queues": list(taken),
                "seen_seconds_ago": 1.0,
            }
            for number, taken in enumerate(workers)
        ],
        "targets": list(named),
        "queues": list(queues),
        "other_keys": list(other_keys),
    }

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/system":
            return httpx.Response(200, json={"Version": "1"})
        found = request.url.path.endswith("/health")
        return httpx.Response(200, json=health) if found else httpx.Response(401)

    def ingest_of(_settings: object) -> OrthancClient:
        transport = httpx.MockTransport(answer)
        return OrthancClient("The ingest Orthanc", "http://ingest", "u", "p", transport=transport)

    monkeypatch.setattr(doctor, "ingest_of", ingest_of)
    (folder / "files").mkdir()
    path = folder / "worker.toml"
    path.write_text(
        f"""
        [ingest]
        url = "http://ingest"
        [broker]
        url = "redis://127.0.0.1:{free_port()}/0"
        [pseudonyms]
        key_file = "{folder}/key"
        [model]
        bundle = "{folder}"
        [targets.files]
        kind = "folder"
        folder = "{folder}/files"
        default = true
        [targets.gone]
        kind = "png"
        folder = "{folder}/gone"
        [targets.web]
        kind = "dicomweb"
        url = "http://127.0.0.1:{free_port()}/dicom-web"
        """
    )
    return {check.name: check for check in examine(load_settings_at(path))}


def test_each_target_is_looked_at_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = checks(tmp_path, monkeypatch)
    assert found["Export target files"].ok
    assert found["Export target files"].finding == f"{tmp_path}/files takes what we send"
    assert not found["Export target gone"].ok
    assert "no such folder" in found["Export target gone"].finding
    assert not found["Export target web"].ok
    assert "web" in found["Export target web"].remedy


def test_a_mount_point_without_a_marker_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "is_mount", lambda path: path.name == "files")
    found = checks(tmp_path, monkeypatch)["Export target files"]
    assert found.ok
    assert found.finding.endswith("give it a marker")


@pytest.mark.parametrize(
    ("named", "ok", "finding"),
    [
        ((), True, "rules name none; studies of other rules go to files"),
        (("files", "web"), True, "rules name files, web; studies of other rules go to files"),
        (("files", "archive"), False, "rules name unknown targets: archive"),
    ],
)
def test_a_target_that_a_rule_names_and_no_worker_has_is_found(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    named: tuple[str, ...],
    ok: bool,
    finding: str,
) -> None:
    found = checks(tmp_path, monkeypatch, *named)["Intake rules and export targets"]
    assert (found.ok, found.finding) == (ok, finding)


@pytest.mark.parametrize(
    ("workers", "ok", "finding"),
    [
        ([["plain"], ["gpu", "plain"]], True, "workers take studies from gpu, plain"),
        ([["plain"], []], True, "workers take studies from gpu, plain"),
        ([["plain"]], False, "no worker takes studies from gpu"),
        ([], False, "no worker takes studies from gpu, plain"),
    ],
)
def test_a_queue_that_a_rule_names_and_no_worker_takes_from_is_found(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    workers: list[list[str]],
    ok: bool,
    finding: str,
) -> None:
    found = checks(tmp_path, monkeypatch, queues=("gpu", "plain"), workers=workers)
    check = found["Intake rules and queues"]
    assert (check.ok, check.finding) == (ok, finding)


def test_a_worker_that_gets_no_study_for_its_key_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = {"worker_id": "host-9", "key_id": "b" * 16, "known": "a" * 16}
    check = checks(tmp_path, monkeypatch, other_keys=[refused])["Pseudonym key of worker host-9"]
    assert not check.ok
    assert "b" * 16 in check.finding
    assert "a" * 16 in check.finding
