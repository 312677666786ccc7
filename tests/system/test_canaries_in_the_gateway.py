"""Files full of planted values through a whole gateway: nothing of them is at the export peer.

Neither in what it gives away, nor in what it keeps on its disk, nor in logs, ledger and queue.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from redis import Redis

from prichexy_gateway import native
from prichexy_gateway.native import Options
from prichexy_gateway.services import Plan
from prichexy_gateway.supervisor import Service
from prichexy_testing.canaries import Specimen, is_told_by_clocks, specimens, survivors
from prichexy_testing.gateway import TestGateway, gateway_in
from prichexy_worker.contract import REQUEST_HEADER, Reason, State

pytestmark = [pytest.mark.orthanc, pytest.mark.redis]

#: One of each transfer syntax.
COUNT = 11
#: From when on logs tell of this run.
BEGAN = datetime.now(UTC)


@pytest.fixture(scope="module")
def planted() -> list[Specimen]:
    """Those that an Orthanc takes: bytes behind the data set are no DICOM to it."""
    found = specimens(COUNT + 1, seed="gateway", hands=32, long=False)
    places = ((one, {canary.place for canary in one.canaries}) for one in found)
    return [one for one, of_it in places if "after the data set" not in of_it]


@pytest.fixture(scope="module")
def unreading() -> Iterator[None]:
    """The gateway's worker has a search that finds no text: of noise, the real one finds some."""
    real = native.worker_service

    def worker_service(plan: Plan) -> Service:
        return replace(
            service := real(plan),
            command=(sys.executable, "-m", "prichexy_testing.unreading_worker"),
            environment={**service.environment, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "worker_service", worker_service)
        yield


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, planted, unreading) -> Iterator[TestGateway]:
    """A gateway that has worked off all of them."""
    options = Options(stable_age=1, device="cpu")
    with gateway_in(tmp_path_factory.mktemp("canaries"), options) as running:
        # As bytes: what sends by C-STORE would write the odd ones anew.
        with httpx.Client(
            base_url=running.addresses.ingest_url,
            auth=("admin", running.home.password("admin")),
            headers={REQUEST_HEADER: "1"},
            trust_env=False,
            timeout=120,
        ) as http:
            for specimen in planted:
                answer = http.post("/instances", content=specimen.content)
                assert answer.is_success, specimen.name
        running.until_ended()
        yield running


def test_nearly_every_specimen_is_exported(gateway, planted):
    rows = gateway.rows().values()
    assert len(rows) == COUNT
    held_back = [row.reason for row in rows if row.state is not State.EXPORTED]
    # In some the planted text stands where a code must, and cannot be kept.
    assert set(held_back) <= {Reason.CONFORMANCE_BROKEN}
    assert len(held_back) <= 2


def test_nothing_planted_is_in_what_the_export_peer_gives(gateway, planted):
    canaries = [canary for specimen in planted for canary in specimen.canaries]
    with httpx.Client(
        base_url=gateway.addresses.export_url,
        auth=("admin", gateway.home.password("admin")),
        trust_env=False,
        timeout=120,
    ) as http:
        instances = http.get("/instances").json()
        assert len(instances) >= COUNT - 2
        for instance in instances:
            content = http.get(f"/instances/{instance}/file").content
            # Of short values, such as ages, one may be another specimen's by chance.
            found = [c for c in survivors(content, canaries) if len(c.raw) > 6]
            assert [(canary.place, canary.path) for canary in found] == []
            for name in http.get(f"/instances/{instance}/attachments").json():
                data = http.get(f"/instances/{instance}/attachments/{name}/data").content
                assert telling(planted, data) == []


def test_nothing_planted_is_on_the_disks_behind_ingest(gateway, planted):
    home = gateway.home.root
    folders = [home / "export", home / "redis", home / "worker"]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    files += [*(home / "logs").iterdir(), *home.rglob("*ledger*")]
    searched = [path for path in files if path.is_file()]
    assert {"worker.log", "ingest.log", "prichexy-ledger.sqlite"} <= {one.name for one in searched}
    assert len(searched) >= COUNT
    for path in searched:
        assert telling(planted, path.read_bytes()) == [], path.name


def test_nothing_planted_is_in_the_name_of_a_file(gateway, planted):
    names = [str(path) for path in gateway.home.root.rglob("*")]
    assert telling(planted, "\n".join(names).encode()) == []


def test_nothing_planted_is_in_what_the_plugin_tells(gateway, planted):
    with httpx.Client(
        base_url=gateway.addresses.ingest_url,
        auth=("admin", gateway.home.password("admin")),
        trust_env=False,
        timeout=120,
    ) as http:
        jobs = [row.job_id for row in gateway.rows().values()]
        pages = ["/prichexy", "/prichexy/metrics", "/prichexy/api/v1/health"]
        pages += [f"/prichexy/api/v1/studies/{job}" for job in jobs]
        for page in pages:
            answer = http.get(page)
            assert answer.is_success, page
            assert telling(planted, answer.content) == [], page


def test_nothing_planted_waits_in_redis(gateway, planted):
    redis = Redis.from_url(
        gateway.addresses.broker_url, password=gateway.home.password("broker"), socket_timeout=30
    )
    with closing(redis):
        for key in redis.scan_iter():
            assert telling(planted, key + b"\n" + (redis.dump(key) or b"")) == []


def test_no_process_may_leave_its_memory_in_a_core_file(gateway):
    record = gateway.home.read_record()
    assert record is not None
    names = {process.name for process in record.processes}
    assert {"ingest", "worker", "redis"} <= names
    for process in record.processes:
        limits = Path(f"/proc/{process.pid}/limits").read_text(encoding="ascii")
        assert re.search(r"^Max core file size +0 +0 ", limits, re.MULTILINE), process.name


def telling(planted: list[Specimen], content: bytes) -> list[tuple[str, str]]:
    """Give the canaries that bytes of any kind show, but those that others show by chance."""
    lowered, now = content.lower(), datetime.now(UTC)
    return [
        (canary.place, canary.path)
        for specimen in planted
        for canary in specimen.canaries
        if any(
            len(form) >= 8 and form in lowered and not is_told_by_clocks(form, BEGAN, now)
            for form in canary.forms
        )
    ]
