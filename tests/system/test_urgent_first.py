"""With a real Redis and real workers, an urgent study overtakes a backfill that waits."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from prichexy_plugin.broker import RedisBroker
from prichexy_plugin.dashboard.http import Request
from prichexy_plugin.dashboard.routes import Site
from prichexy_plugin.database import open_database
from prichexy_plugin.intake import Decision, Rank
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.relay import AT_LEAST, PER_WORKER, BrokerState, Relay
from prichexy_plugin.studies import Listed
from prichexy_testing.dicoms import radiograph_dataset, write
from prichexy_testing.fake_ingest import FakeIngest, OtherStudy, running_fake_ingest
from prichexy_testing.fake_orthanc import orthanc_id
from prichexy_testing.fakes_worker import instance_id
from prichexy_testing.servers import running_redis, wait_until
from prichexy_testing.shared_data import REPO
from prichexy_worker.contract import API_ROOT, CONTRACT_VERSION, REQUEST_HEADER, State
from prichexy_worker.pseudonyms import Pseudonyms

pytestmark = pytest.mark.redis

WORKERS = 2
BACKFILL = 100


def _study(number: int) -> OtherStudy:
    uid = f"1.2.840.99999.{number}"
    radiograph = radiograph_dataset(StudyInstanceUID=uid, SOPInstanceUID=f"{uid}.1")
    return OtherStudy(uid, {instance_id(number): write(radiograph)})


def _now() -> datetime:
    return datetime.now(UTC)


class Gateway:
    """The plugin's ledger and relay, and an ingest whose reports come to that ledger."""

    def __init__(self, folder: Path, ingest: FakeIngest, redis: str) -> None:
        self.engine = open_database(f"sqlite:///{folder}/ledger.sqlite")
        self.moved = threading.Event()
        self.ledger = Ledger(self.engine, _now, on_claim=self.moved.set)
        state = BrokerState(reachable=True, detail="", checked=None)
        gateway = SimpleNamespace(
            ledger=self.ledger,
            ledger_state="ok",
            broker_state=state,
            troubles=(),
            targets=frozenset(),
        )
        self.site = Site(gateway, problems=(), worker_user=ingest.user, clock=_now)
        self.user = base64.b64encode(f"{ingest.user}:x".encode()).decode()
        self.others = ingest.take
        ingest.take = self.take  # type: ignore[method-assign]
        self.broker = RedisBroker(redis, None, "prichexy")
        self.relay = Relay(self.ledger, self.broker, _now)
        self.over = False

    def take(self, path: str, body: bytes) -> tuple[int, bytes]:
        if not path.startswith(API_ROOT) or path == f"{API_ROOT}/patients":
            # The plugin asks Orthanc for that, and here is none.
            return self.others(path, body)
        headers = {
            REQUEST_HEADER.lower(): str(CONTRACT_VERSION),
            "authorization": f"Basic {self.user}",
        }
        path = path.removeprefix("/prichexy")
        answer = self.site.answer(Request("POST", path, {}, headers, body))
        text = answer.body
        return answer.status, text.encode() if isinstance(text, str) else text

    @contextmanager
    def relaying(self) -> Iterator[None]:
        def relay() -> None:
            while not self.over:
                if not self.relay.run_once():
                    self.moved.wait(1)
                    self.moved.clear()

        thread = threading.Thread(target=relay)
        thread.start()
        try:
            yield
        finally:
            self.over = True
            self.moved.set()
            thread.join()
            self.broker.close()
            self.engine.dispose()

    def exported(self) -> int:
        return self.ledger.counts()[State.EXPORTED]


@contextmanager
def _worker(folder: Path, ingest: FakeIngest, redis: str, name: str) -> Iterator[None]:
    settings = {
        "WORKER_ID": name,
        "INGEST__URL": ingest.url,
        "INGEST__PASSWORD": ingest.password,
        "BROKER__URL": redis,
        "EXPORT__KIND": "folder",
        "EXPORT__FOLDER": str(folder / "export"),
        "PSEUDONYMS__KEY_FILE": str(folder / "key"),
        "MODEL__BUNDLE": str(REPO / "model" / "untrained"),
        "MODEL__DEVICE": "cpu",
    }
    areas = (str(REPO / area) for area in ("worker", "model", "tests"))
    environment = os.environ | {f"PRICHEXY_WORKER_{key}": it for key, it in settings.items()}
    environment |= {"PYTHONPATH": os.pathsep.join(areas), "OMP_NUM_THREADS": "1"}
    with (folder / f"{name}.log").open("ab") as log:
        command = [sys.executable, "-m", "prichexy_testing.unreading_worker"]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def test_an_urgent_study_overtakes_a_hundred_of_a_backfill(tmp_path: Path) -> None:
    Pseudonyms.create_key_file(tmp_path / "key")
    (tmp_path / "export").mkdir()
    ids = [orthanc_id(f"old {number}") for number in range(BACKFILL)]
    urgent = orthanc_id("urgent")
    with ExitStack() as stack:
        redis = stack.enter_context(running_redis())
        ingest = stack.enter_context(running_fake_ingest())
        ingest.others = {one: _study(number) for number, one in enumerate([*ids, urgent])}
        gateway = Gateway(tmp_path, ingest, redis.url)
        ledger = gateway.ledger
        walk = ledger.start_backfill(per_minute=6000, total=BACKFILL, by="me")
        ledger.backfill_page(walk, [Listed(one, _now()) for one in ids])
        for one in ids:
            ledger.settle(one, Decision(None), content="c", instances=1)
        stack.enter_context(gateway.relaying())
        for number in range(WORKERS):
            stack.enter_context(_worker(tmp_path, ingest, redis.url, f"worker-{number}"))
        wait_until(lambda: gateway.exported() >= 2, 400, "the backfill is under way")
        ledger.note({urgent: _now()}, cursor=1)
        came = _now()
        ledger.settle(urgent, Decision(None, priority=Rank.URGENT), content="c", instances=1)

        def is_exported() -> bool:
            [study] = ledger.studies(study_id=urgent).studies
            return study.state is State.EXPORTED

        wait_until(is_exported, 400, "the urgent study is exported")
        [study] = ledger.studies(study_id=urgent).studies
        claimed = next(
            event.at for event in ledger.events(study.job_id) if event.to_state is State.PROCESSING
        )
        before = [
            event
            for other in ledger.studies(limit=BACKFILL + 1).studies
            for event in ledger.events(other.job_id)
            if event.to_state is State.PROCESSING and came <= event.at < claimed
        ]
        waited = ledger.counts()[State.PENDING]
    # What lay at the broker, and what the relay had in its hands at that moment.
    at_broker = max(AT_LEAST, WORKERS * PER_WORKER)
    assert len(before) <= 2 * at_broker
    assert waited > BACKFILL / 2, "the backfill had not come to its end"
