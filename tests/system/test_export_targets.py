"""A study goes to every export target that its intake rules name, or to none of them.

Everything runs for real: the gateway's own parts, and as targets another Orthanc, Orthanc's
DICOMweb plugin, DCMTK's storescp and two folders.
"""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest

from prichexy_gateway.client import StudyRow
from prichexy_gateway.doctor import examine
from prichexy_gateway.home import checkout
from prichexy_gateway.native import Options
from prichexy_gateway.services import worker_configuration
from prichexy_gateway.worker_settings import load_settings_at
from prichexy_testing.dicoms import canary_values, radiograph_dataset, write
from prichexy_testing.gateway import TestGateway, gateway_in
from prichexy_testing.servers import (
    OrthancServer,
    StoreScp,
    running_dicomweb,
    running_orthanc,
    running_storescp,
    wait_until,
)
from prichexy_worker.contract import State

pytestmark = [pytest.mark.orthanc, pytest.mark.redis]

#: Frontal images go to all targets that have no name of their own here, lateral ones to a folder.
RULES = [
    {"Name": "frontal", "View": ["PA"], "Targets": ["peer", "web", "pacs", "files", "research"]},
    {"Name": "lateral", "View": ["LL"], "Targets": ["files"]},
    {"Name": "the rest", "Modality": ["CR"], "BodyPart": ["CHEST"]},
]


@dataclass
class Site:
    """A gateway and its targets."""

    gateway: TestGateway
    peer: OrthancServer
    web: OrthancServer
    pacs: StoreScp
    files: Path
    research: Path
    rest: Path
    originals: Path

    def send(self, study: str, *views: str, unsafe: bool = False) -> str:
        """Send images of these views, and say how the ingest Orthanc calls their study.

        With ``unsafe`` the last one has no pixels.
        """
        paths = []
        for number, view in enumerate(views):
            last = number == len(views) - 1
            path = self.originals / f"{study}.{number}.dcm"
            path.write_bytes(write(_radiograph(study, number, view, blank=unsafe and last)))
            paths.append(path)
        known = set(self.gateway.study_ids())
        self.gateway.send(paths)
        new = set(self.gateway.study_ids()) - known
        return new.pop() if new else ""

    def images(self) -> dict[str, int]:
        """Count the images at each target."""
        return {
            "peer": len(self.peer.get("/instances").json()),
            "web": len(self.web.get("/instances").json()),
            "pacs": len(self.pacs.files()),
            "files": len(list(self.files.rglob("*.dcm"))),
            "research": len(self.table()),
            "rest": len(list(self.rest.rglob("*.dcm"))),
        }

    def table(self) -> list[dict[str, str]]:
        path = self.research / "images.csv"
        if not path.exists():
            return []
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def gain(self, act: Callable[[], object]) -> dict[str, int]:
        """Give what ``act`` adds at each target where it adds or takes anything."""
        before = self.images()
        act()
        after = self.images()
        return {name: after[name] - before[name] for name in after if after[name] != before[name]}


def _radiograph(study: str, number: int, view: str, *, blank: bool) -> pydicom.FileDataset:
    dataset = radiograph_dataset(rows=512, columns=448, window=(2048, 4096), ViewPosition=view)
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, f"{study}.1"
    uid = f"{study}.2.{number}"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
    if blank:
        del dataset.PixelData
    return dataset


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("targets")
    for name in ("files", "research", "rest", "originals"):
        (folder / name).mkdir()
    with ExitStack() as stack:
        peer = stack.enter_context(running_orthanc())
        web = stack.enter_context(running_dicomweb())
        pacs = stack.enter_context(running_storescp("--accept-all"))
        for server in (peer, web):
            secret = folder / f"{server.port}"
            secret.write_text(server.password)
            secret.chmod(0o600)
        settings = {
            "targets.pacs": {
                "kind": "dicom",
                "host": "127.0.0.1",
                "port": pacs.port,
                "called_aet": "PACS",
            },
            "targets.peer": {
                "kind": "orthanc",
                "url": peer.url,
                "user": peer.user,
                "password_file": str(folder / f"{peer.port}"),
            },
            "targets.web": {
                "kind": "dicomweb",
                "url": f"{web.url}/dicom-web",
                "user": web.user,
                "password_file": str(folder / f"{web.port}"),
            },
            "targets.files": {"kind": "folder", "folder": str(folder / "files")},
            "targets.research": {"kind": "png", "folder": str(folder / "research")},
            "targets.rest": {"kind": "folder", "folder": str(folder / "rest"), "default": True},
        }
        options = Options(
            stable_age=1,
            device="cpu",
            orthanc_config=_configuration(folder),
            worker_settings=settings,
        )
        gateway = stack.enter_context(gateway_in(folder, options))
        yield Site(
            gateway=gateway,
            peer=peer,
            web=web,
            pacs=pacs,
            files=folder / "files",
            research=folder / "research",
            rest=folder / "rest",
            originals=folder / "originals",
        )


def _configuration(folder: Path) -> Path:
    """Give the shipped configuration with these rules."""
    copy = folder / "orthanc-config"
    shutil.copytree(checkout() / "orthanc-config", copy)
    path = copy / "ingest.json"
    text, count = re.subn(
        r'("PriCheXy"\s*:\s*\{)',
        rf'\1 "Intake": {{"Rules": {json.dumps(RULES)}}},',
        path.read_text(),
    )
    assert count == 1
    path.write_text(text)
    return copy


FIRST, LATERAL, REST, LATER = (f"1.2.3.{number}" for number in range(4))
EACH_ONE = {"peer": 1, "web": 1, "pacs": 1, "files": 1, "research": 1}


def _ended(site: Site, study_id: str) -> StudyRow:
    return site.gateway.until_ended([study_id])[study_id]


@pytest.fixture(scope="module")
def first(site: Site) -> str:
    """A frontal study that was exported; its id at the ingest Orthanc."""
    study_id = ""

    def sent() -> None:
        nonlocal study_id
        study_id = site.send(FIRST, "PA")
        assert _ended(site, study_id).state is State.EXPORTED

    assert site.gain(sent) == EACH_ONE
    return study_id


def test_every_target_holds_the_same_image(site: Site, first: str) -> None:
    (path,) = site.files.rglob("*.dcm")
    content = path.read_bytes()
    (name,) = site.peer.get("/instances").json()
    assert site.peer.get(f"/instances/{name}/file").content == content
    (name,) = site.web.get("/instances").json()
    assert site.web.get(f"/instances/{name}/file").content == content
    dataset = pydicom.dcmread(io.BytesIO(content))
    assert pydicom.dcmread(site.pacs.files()[0]) == dataset
    (row,) = site.table()
    picture = cv2.imread(str(site.research / row["file"]), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(picture + int(row["value_offset"]), dataset.pixel_array)
    assert row["patient_id"] == dataset.PatientID


def test_no_identity_is_at_any_target_or_in_the_workers_log(site: Site, first: str) -> None:
    folders = site.files, site.research, site.pacs.received, site.peer.folder, site.web.folder
    written = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    everything = b"".join(file.read_bytes() for file in written)
    assert b"PriCheXy gateway" in everything
    log = site.gateway.log("worker").encode()
    for value in canary_values():
        assert value.encode() not in everything
        assert value.encode() not in log
    for secret in (site.peer.password, site.web.password):
        assert secret.encode() not in log


def test_doctor_finds_every_target_well(site: Site, first: str) -> None:
    settings = load_settings_at(worker_configuration(site.gateway.home))
    found = {check.name: check for check in examine(settings) if "xport target" in check.name}
    names = {
        f"Export target {name}" for name in ("pacs", "peer", "web", "files", "research", "rest")
    }
    assert set(found) == names | {"Intake rules and export targets"}
    assert [check.finding for check in found.values() if not check.ok] == []
    assert "not encrypted" in found["Export target pacs"].finding
    assert "not encrypted" not in found["Export target files"].finding


def test_a_study_of_another_rule_goes_where_that_one_says(site: Site, first: str) -> None:
    gained = site.gain(lambda: _ended(site, site.send(LATERAL, "LL")))
    assert gained == {"files": 1}


def test_a_study_whose_rule_names_no_target_goes_to_the_default_one(site: Site, first: str) -> None:
    assert site.gain(lambda: _ended(site, site.send(REST, "AP"))) == {"rest": 1}


def test_while_one_target_is_down_no_other_keeps_the_study(site: Site, first: str) -> None:
    before, pauses = site.images(), site.gateway.log("worker").count("again in ")
    taking_back = ("peer", "files", "research")
    site.pacs.stop()
    study_id = site.send(LATER, "PA", "PA")
    wait_until(
        lambda: site.gateway.log("worker").count("again in ") > pauses, what="an attempt failed"
    )
    # It is served last: all that can take back held the study then, and hold it no longer.
    assert "(pacs: no association)" in site.gateway.log("worker")
    wait_until(
        lambda: [site.images()[name] - before[name] for name in taking_back] == [0, 0, 0],
        what="none keeps the study",
    )
    site.pacs.start()
    assert _ended(site, study_id).state is State.EXPORTED
    after = site.images()
    assert {name: after[name] - before[name] for name in EACH_ONE} == dict.fromkeys(EACH_ONE, 2)


def test_what_becomes_unsafe_is_withdrawn_from_each_target_that_can_take_back(
    site: Site, first: str
) -> None:
    def grown() -> None:
        site.send(FIRST, "PA", "PA", unsafe=True)
        wait_until(
            lambda: site.gateway.rows()[first].state is State.QUARANTINED,
            what="the study is quarantined",
        )

    assert site.gain(grown) == {"peer": -1, "files": -1, "research": -1}
    assert site.gateway.rows()[first].measures["targets_not_withdrawn"] == 2
