"""A model is promoted in a running gateway: real Orthancs, plugin, Redis and worker."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pydicom
import pytest

from prichexy_gateway.model_store import ModelStore
from prichexy_gateway.native import Options
from prichexy_model.bundle import read_bundle
from prichexy_testing.bundles import another_bundle
from prichexy_testing.dicoms import radiograph_dataset, write
from prichexy_testing.gateway import TestGateway, gateway_in
from prichexy_testing.servers import wait_until
from prichexy_testing.shared_data import REPO
from prichexy_worker.contract import State

pytestmark = [pytest.mark.orthanc, pytest.mark.redis]


def radiographs(folder: Path, first: int, count: int) -> list[Path]:
    """Write radiographs, each its own study.

    Shown with all their values: by percentiles, these shapes look like text to the real search.
    """
    paths = []
    for number in range(first, first + count):
        uid = f"1.2.3.{number}"
        dataset = radiograph_dataset(
            window=(2048, 4096),
            StudyInstanceUID=uid,
            SeriesInstanceUID=f"{uid}.1",
            SOPInstanceUID=f"{uid}.2",
        )
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        path = folder / f"{number}.dcm"
        path.write_bytes(write(dataset))
        paths.append(path)
    return paths


def prichexy(gateway: TestGateway, *arguments: object) -> str:
    """Run a command on this gateway as people do; give what it said."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "prichexy_gateway", *map(str, arguments)),
            *("--home", str(gateway.home.root)),
        ],
        env=dict(os.environ) | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def announced(gateway: TestGateway) -> set[str]:
    """Give the digests that the dashboard shows of workers' models."""
    with gateway.ingest() as ingest:
        return {str(worker["model"]["digest"]) for worker in ingest.health().workers}


def exported(gateway: TestGateway, count: int) -> list[str]:
    """Give what each exported object of the first ``count`` studies says of its making."""
    uids = [gateway.pseudonyms().uid(f"1.2.3.{number}.2") for number in range(1, count + 1)]
    with gateway.export() as export:
        assert len(export.all_studies()) == count
        contents = [export.instance(*export.find("Instance", uid)) for uid in uids]
    return [str(pydicom.dcmread(io.BytesIO(c)).DerivationDescription) for c in contents]


def test_a_promotion_reaches_a_running_gateway_and_no_study_is_lost(tmp_path: Path) -> None:
    old = read_bundle(REPO / "model" / "bundle").digest
    new = read_bundle(another_bundle(tmp_path / "new", 2, evidence="trained")).digest
    options = Options(stable_age=1, device="cpu")
    with gateway_in(tmp_path, options) as gateway:
        assert announced(gateway) == {old}
        assert gateway.send(radiographs(tmp_path, 1, 3)).stored == 3
        wait_until(lambda: any(r.state is State.EXPORTED for r in gateway.rows().values()), 300)
        # Not by the command, which takes the seconds in which all would be done.
        ModelStore(gateway.home.models).promote(tmp_path / "new", "test")
        wait_until(lambda: announced(gateway) == {new}, 300, "the dashboard shows it")
        assert gateway.send(radiographs(tmp_path, 4, 2)).stored == 2
        wait_until(lambda: len(gateway.study_ids()) == 5, 30, "all have arrived")
        rows = gateway.until_ended()
        assert {row.state for row in rows.values()} == {State.EXPORTED}
        assert {row.attempts for row in rows.values()} == {1}
        texts = exported(gateway, 5)
        assert all((old in text) != (new in text) for text in texts)
        assert sum(old in text for text in texts) >= 1
        assert sum(new in text for text in texts) >= 2

        assert "All is well." in prichexy(gateway, "doctor")
        entries = json.loads(prichexy(gateway, "model", "list", "--json"))["versions"]
        assert [(e["version"]["weights"], e["in_use"]) for e in entries] == [
            (old, False),
            (new, True),
        ]

        assert old in prichexy(gateway, "model", "rollback")
        wait_until(lambda: announced(gateway) == {old}, 120, "the way back is taken, too")
        assert new in prichexy(gateway, "model", "promote", tmp_path / "new")
        wait_until(lambda: announced(gateway) == {new}, 300, "and the way forth again")
        gateway.assert_alive()
