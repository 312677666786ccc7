"""A running worker, real Redis and real generators: promoted while studies wait in the queue."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

import pydicom
import pytest
from celery import Celery
from pydicom.uid import UID

from prichexy_gateway.bundle_check import store_at
from prichexy_store.store import ModelStore
from prichexy_testing.bundles import another_bundle
from prichexy_testing.dicoms import radiograph_dataset, write
from prichexy_testing.fake_ingest import FakeIngest, OtherStudy, running_fake_ingest
from prichexy_testing.fakes_worker import instance_id
from prichexy_testing.servers import RedisServer, running_redis, wait_until
from prichexy_testing.shared_data import REPO
from prichexy_worker.contract import TASK_NAME, State, StudyMessage, StudyReport
from prichexy_worker.pseudonyms import Pseudonyms

pytestmark = pytest.mark.redis

STUDIES = 8
AREAS = ("worker", "model", "tests")


def job_id(number: int) -> str:
    return f"{number:032x}"


def study_id(number: int) -> str:
    return "-".join([f"{number:08x}"] * 5)


def study(number: int) -> OtherStudy:
    """Give a study of two instances."""
    uid = f"1.2.3.{number}"
    instances = {}
    for k in (1, 2):
        dataset = radiograph_dataset(StudyInstanceUID=uid, SeriesInstanceUID=f"{uid}.0")
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = UID(f"{uid}.{k}")
        instances[instance_id(10 * number + k)] = write(dataset)
    return OtherStudy(uid, instances)


@contextmanager
def running_worker(
    folder: Path, ingest: FakeIngest, redis: RedisServer, bundle: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``python -m prichexy_worker``, which exports to ``folder``/export."""
    (folder / "export").mkdir()
    (folder / "password").write_text(ingest.password)
    Pseudonyms.create_key_file(folder / "key")
    (folder / "worker.toml").write_text(
        f"""
        worker_id = "worker-1"
        ingest = {{url = "{ingest.url}", password_file = "{folder}/password"}}
        broker = {{url = "{redis.url}"}}
        export = {{kind = "folder", folder = "{folder}/export"}}
        pseudonyms = {{key_file = "{folder}/key"}}
        model = {{bundle = "{bundle}", device = "cpu"}}
        """
    )
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(str(REPO / area) for area in AREAS),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "HOME": str(folder),
        "PRICHEXY_WORKER_CONFIG": str(folder / "worker.toml"),
    }
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "prichexy_testing.unreading_worker"],
            env=environment,
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def send_all(redis: RedisServer) -> None:
    app = Celery("plugin", broker=redis.url, set_as_current=False)
    try:
        for number in range(1, STUDIES + 1):
            message = StudyMessage(job_id(number), study_id(number), revision=1)
            app.send_task(TASK_NAME, args=[message.to_json()], queue="prichexy", ignore_result=True)
    finally:
        app.close()


def put_a_broken_one_to_use(store: ModelStore) -> None:
    """Do by hand what the store refuses: the weights are cut short."""
    broken = store.folder("0" * 64)
    shutil.copytree(store.current, broken)
    weights = broken / "models" / "model.pt"
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:1000])
    draft = store.root / "draft"
    draft.symlink_to(Path("versions") / broken.name)
    draft.replace(store.current)


def digests(folder: Path) -> set[str]:
    """Give the digests that the exported files in ``folder`` name."""
    found = set()
    for path in folder.rglob("*.dcm"):
        text = str(pydicom.dcmread(path).DerivationDescription)
        found |= set(re.findall(r"SHA-256 ([0-9a-f]{64})", text)) or {"none"}
    return found


def test_studies_that_wait_while_models_change_are_all_exported_each_with_one_model(
    tmp_path: Path,
) -> None:
    store = store_at(tmp_path / "models")
    one = another_bundle(tmp_path / "one", 1)
    two = another_bundle(tmp_path / "two", 2, evidence="trained")
    first = store.promote(one, "test")
    assert first is not None
    old = first.version.weights
    #: What happens while the study with this number is being worked on.
    changes: dict[int, Callable[[], object]] = {
        2: lambda: store.promote(two, "test"),
        4: lambda: put_a_broken_one_to_use(store),
        5: lambda: store.rollback("test"),
        6: lambda: store.rollback("test"),
    }
    claimed: list[int] = []

    def on_report(report: StudyReport) -> None:
        if report.state is State.PROCESSING and not report.attempt:
            claimed.append(int(report.job_id, 16))
            changes.pop(len(claimed), lambda: None)()

    with running_redis() as redis, running_fake_ingest() as ingest:
        ingest.others = {study_id(number): study(number) for number in range(1, STUDIES + 1)}
        ingest.on_report = on_report
        send_all(redis)
        with running_worker(tmp_path, ingest, redis, store.current) as worker:
            wait_until(lambda: ingest.states.count(State.EXPORTED) == STUDIES, what="all leave")
            # With nothing to do, the worker follows as well, and says so at once.
            wait_until(lambda: ingest.announcements[-1].model.digest == old, what="it says which")
            assert store.promote(two, "test") is not None
            new = store.history()[-1].version.weights
            wait_until(lambda: ingest.announcements[-1].model.digest == new, what="it follows")
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(60) == 0
        assert redis.length("prichexy") == 0
        assert redis.command("HLEN", "unacked") == b":0"

    assert changes == {}
    # None was lost, none was done twice.
    assert sorted(claimed) == list(range(1, STUDIES + 1))
    assert len(ingest.transitions) == 2 * STUDIES
    assert len(list((tmp_path / "export").rglob("*.dcm"))) == 2 * STUDIES
    # Each has one model: the one that was in use when it was begun.
    pseudonyms = Pseudonyms.from_key_file(tmp_path / "key")
    used = []
    for number in claimed:
        (digest,) = digests(tmp_path / "export" / pseudonyms.uid(f"1.2.3.{number}"))
        used.append(digest)
    assert used == [old] * 2 + [new] * 4 + [old] * 2
    # The dashboard knew of each, in this order; the broken one was never announced.
    announced = [digest for digest, _ in groupby(a.model.digest for a in ingest.announcements)]
    assert announced == [old, new, old, new]
    evidence = {a.model.digest: a.model.evidence for a in ingest.announcements}
    assert evidence == {old: "untrained", new: "trained"}
    log = (tmp_path / "log").read_text()
    assert log.count("THE MODEL IN USE STAYS") == 1
    assert log.count("took up model") == 3
