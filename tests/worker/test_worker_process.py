"""``python -m prichexy_worker`` as a whole: real Redis, real generator, a pretended ingest."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pydicom
import pytest
from celery import Celery
from pydicom.uid import UID

from prichexy_testing.dicoms import canary_values, radiograph_dataset, write
from prichexy_testing.fake_ingest import FakeIngest, running_fake_ingest
from prichexy_testing.fakes_worker import STUDY_ID, instance_id, study_message
from prichexy_testing.servers import running_redis, wait_until
from prichexy_testing.shared_data import REPO
from prichexy_worker.contract import SOFTWARE_VERSION, TASK_NAME, Reason, State
from prichexy_worker.pseudonyms import Pseudonyms

pytestmark = pytest.mark.redis


class Place:
    """Folders, settings and secrets of one worker."""

    def __init__(self, folder: Path, ingest: FakeIngest, broker: str) -> None:
        self.folder = folder
        self.broker = broker
        for name in ("export", "tmp", "home", "cwd"):
            (folder / name).mkdir()
        Pseudonyms.create_key_file(folder / "key")
        (folder / "password").write_text(ingest.password)
        (folder / "worker.toml").write_text(
            f"""
            worker_id = "worker-1"
            [ingest]
            url = "{ingest.url}"
            user = "{ingest.user}"
            password_file = "{folder}/password"
            [broker]
            url = "{broker}"
            [export]
            kind = "folder"
            folder = "{folder}/export"
            [pseudonyms]
            key_file = "{folder}/key"
            [model]
            bundle = "{REPO}/model/untrained"
            device = "cpu"
            """
        )
        areas = (str(REPO / area) for area in ("worker", "model", "tests"))
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder / "home"),
            "TMPDIR": str(folder / "tmp"),
            "PYTHONPATH": os.pathsep.join(areas),
            "PYTHONDONTWRITEBYTECODE": "1",
            # Where training is installed, too, MONAI imports matplotlib, which keeps its list of
            # fonts. A worker's own environment has none.
            "MPLCONFIGDIR": str(folder / "matplotlib"),
            "OMP_NUM_THREADS": "1",
            "PRICHEXY_WORKER_CONFIG": str(folder / "worker.toml"),
        }

    @contextmanager
    def worker(self) -> Iterator[subprocess.Popen[bytes]]:
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "prichexy_testing.unreading_worker"],
                env=self.environment,
                stdout=log,
                stderr=log,
                cwd=self.folder / "cwd",
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def send(self) -> None:
        app = Celery("plugin", broker=self.broker, set_as_current=False)
        try:
            message = study_message().to_json()
            app.send_task(TASK_NAME, args=[message], queue="prichexy", ignore_result=True)
        finally:
            app.close()

    def check(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "prichexy_worker", "--check", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            cwd=self.folder / "cwd",
            check=False,
        )

    def log(self) -> str:
        return (self.folder / "log").read_text()


def original(number: int, **attributes: object) -> bytes:
    dataset = radiograph_dataset(nested=True, private=True, **attributes)  # type: ignore[arg-type]
    uid = UID(f"{dataset.SOPInstanceUID}.{number}")
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
    return write(dataset)


def test_a_study_is_exported_reported_and_never_touches_the_disk_before(tmp_path: Path) -> None:
    with (
        running_redis() as redis,
        running_fake_ingest({instance_id(n): original(n) for n in range(2)}) as ingest,
    ):
        place = Place(tmp_path, ingest, redis.url)
        with place.worker() as process:
            wait_until(lambda: bool(ingest.announcements), what="the worker announces itself")
            place.send()
            wait_until(lambda: State.EXPORTED in ingest.states, what="the study is exported")
            process.send_signal(signal.SIGTERM)
            assert process.wait(120) == 0
        assert redis.length("prichexy") == 0

    assert ingest.states == [State.PROCESSING, State.EXPORTED]
    report = ingest.reports[-1]
    assert report.instances == 2
    assert {"fetch", "decode", "deform", "check", "store", "verify"} <= set(report.durations)
    assert report.measures["max_displacement_px"] > 0
    announced = ingest.announcements[0]
    assert (announced.worker_id, announced.software) == ("worker-1", SOFTWARE_VERSION)
    assert announced.device == "cpu"

    exported = sorted(place.folder.glob("export/*/*/*.dcm"))
    assert len(exported) == 2
    assert all(pydicom.dcmread(path).PatientIdentityRemoved == "YES" for path in exported)
    # Nothing but the results, our own files and the log; none of it with a value of the source.
    for name in ("tmp", "home", "cwd"):
        assert list((place.folder / name).rglob("*")) == []
    for path in place.folder.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        for value in canary_values():
            assert value.encode() not in content, path.name
    log = place.log()
    assert f"job={study_message().job_id} exported 2 instances" in log
    assert "device cpu" in log
    assert STUDY_ID not in log
    assert ingest.password not in log


def test_an_unsafe_study_is_quarantined_and_a_broken_one_tried_again(tmp_path: Path) -> None:
    unsafe = {
        instance_id(0): original(0),
        instance_id(1): original(1, BurnedInAnnotation="YES"),
    }
    with running_redis() as redis, running_fake_ingest(unsafe) as ingest:
        place = Place(tmp_path, ingest, redis.url)
        with place.worker():
            place.send()
            wait_until(lambda: State.QUARANTINED in ingest.states, what="the study is quarantined")
            (place.folder / "export").rmdir()
            ingest.instances = {instance_id(0): original(0)}
            place.send()
            wait_until(lambda: State.QUEUED in ingest.states, what="the study is given back")
            wait_until(lambda: "again in" in place.log(), what="the worker says so")
    reasons = [report.reason for report in ingest.transitions]
    assert reasons == [None, Reason.BURNED_IN_TEXT, None, Reason.TARGET_UNREACHABLE]
    assert not (place.folder / "export").exists()
    assert re.search(r"again in ([5-9]|10) seconds", place.log())


def test_a_worker_that_hangs_with_a_study_ends_itself_before_another_gets_the_study(
    tmp_path: Path,
) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        running_redis() as redis,
        running_fake_ingest() as ingest,
    ):
        place = Place(tmp_path, ingest, redis.url)
        # Its claim is not answered, and the limit of a request is far off.
        place.environment |= {
            "PRICHEXY_WORKER_INGEST__URL": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "PRICHEXY_WORKER_INGEST__TIMEOUT": "3600",
            "PRICHEXY_WORKER_BROKER__REDELIVERY_SECONDS": "5",
        }
        with place.worker() as process:
            place.send()
            assert process.wait(120) == 1
        # Not acknowledged: the broker hands it out anew, as after a kill.
        assert redis.command("HLEN", "unacked") == b":1"
    assert "most recent call first" in place.log()
    assert STUDY_ID not in place.log()


def test_the_check_says_who_the_worker_would_be(tmp_path: Path) -> None:
    with running_fake_ingest() as ingest:
        place = Place(tmp_path, ingest, "redis://127.0.0.1:1")
        done = place.check()
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["worker_id"] == "worker-1"
    assert said["device"] == "cpu"
    assert said["device_reason"]
    assert len(said["model"]["digest"]) == 64
    assert said["model"]["evidence"] in ("untrained", "trained", "measured")
    assert said["targets"] == {"export": "folder"}
    assert said["profile"]["name"] == "basic"
    assert len(said["key_id"]) == 16
    assert ingest.announcements == []


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        ("PRICHEXY_WORKER_MODEL__BUNDLE", "/nowhere", "model.bundle"),
        ("PRICHEXY_WORKER_MODEL__DEVICE", "gpu", "model.device"),
        ("PRICHEXY_WORKER_PSEUDONYMS__KEY_FILE", "/nowhere", "key"),
        ("PRICHEXY_WORKER_INGEST__PASSWORD_FILE", "/nowhere", "ingest"),
        ("PRICHEXY_WORKER_INGEST__CA_FILE", "/nowhere", "ca_file"),
        ("PRICHEXY_WORKER_CONFIG", "/nowhere", "PRICHEXY_WORKER_CONFIG"),
    ],
)
def test_a_worker_that_cannot_start_says_why_in_one_line(
    tmp_path: Path, variable: str, value: str, named: str
) -> None:
    with running_fake_ingest() as ingest:
        place = Place(tmp_path, ingest, "redis://127.0.0.1:1")
        place.environment[variable] = value
        done = place.check()
    assert done.returncode == 2
    assert done.stdout == ""
    assert named in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
