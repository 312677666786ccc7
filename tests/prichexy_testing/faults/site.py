"""A gateway of real processes that a test may do anything to: Redis, two Orthancs, N workers.

Built of what ``prichexy serve`` is built of. Between the workers and each server stands a front;
between the plugin and Redis, too. The plugin and the workers are those of ``plugin_program`` and
``worker_program``. Everything is started from one thread, which has to live as long as the site.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx
import pytest
import redis

from prichexy_gateway.home import Addresses, Home, checkout, default_bundle
from prichexy_gateway.native import CALLED_AET
from prichexy_gateway.orthanc_runtime import native_runtime
from prichexy_gateway.ports import Ports, choose_ports
from prichexy_gateway.services import (
    LOOPBACK,
    Plan,
    export_service,
    ingest_service,
    redis_service,
    worker_service,
)
from prichexy_gateway.supervisor import Service, Supervisor
from prichexy_testing.faults.disks import Clock, SmallDisk, clock_in, small_disk
from prichexy_testing.faults.front import Front, Pipe
from prichexy_testing.faults.gathered import audit_lines, ledger_rows, peer_images, telling_files
from prichexy_testing.faults.invariants import (
    EXPORTED,
    LedgerRow,
    Sent,
    Violation,
    World,
    violations,
)
from prichexy_testing.faults.marks import READY, STOPS
from prichexy_testing.faults.studies import Study, patient_of
from prichexy_testing.gateway import needs_native_parts
from prichexy_testing.servers import wait_until
from prichexy_worker.contract import ENDED, State
from prichexy_worker.pseudonyms import Pseudonyms

__all__ = ["REDELIVERY_SECONDS", "Site", "running_site"]

#: A study whose worker was lost goes to another one after so many seconds; pauses are half of it.
REDELIVERY_SECONDS: Final = 20.0
_MEGABYTES: Final = {"ledger": 64, "scratch": 4, "export": 512}
_LEDGER: Final = "prichexy-ledger.sqlite"
_PLUGIN: Final = Path(__file__).with_name("plugin_program.py")


@dataclass
class Site:
    """A running gateway, what went into it, and how it can be harmed."""

    home: Home
    plan: Plan
    supervisor: Supervisor
    ingest_front: Front
    export_front: Front
    worker_broker: Pipe
    plugin_broker: Pipe
    ledger: Path
    sent: dict[int, Sent] = field(default_factory=dict)
    workers: dict[str, Service] = field(default_factory=dict)
    stopped: set[str] = field(default_factory=set)  # processes that are held by SIGSTOP
    plain: dict[int, Study] = field(default_factory=dict)  # those sent with nothing wrong with them
    disks: dict[str, SmallDisk] = field(default_factory=dict)  # "ledger", "scratch", "export"
    clock: Clock | None = None  # of the ingest Orthanc and the workers

    # --- What goes in -----------------------------------------------------------------------

    def send(self, study: Study, ends: frozenset[State] = EXPORTED) -> Sent:
        """Put a study, or what of it is not there yet, into the ingest Orthanc."""
        with self.client("ingest") as client:
            for content in study.files():
                answer = client.post("/instances", content=content).raise_for_status().json()
        key = Pseudonyms.from_key_file(self.home.key_file)
        images = frozenset(key.uid(uid) for uid in study.sop_uids())
        sent = Sent(answer["ParentStudy"], key.uid(study.uid), images, ends)
        self.sent[study.number] = sent
        if ends == EXPORTED:
            self.plain[study.number] = study
        return sent

    def delete(self, study: Study) -> None:
        """Delete a study from the ingest Orthanc."""
        sent = self.sent[study.number]
        with self.client("ingest") as client:
            client.delete(f"/studies/{sent.study_id}").raise_for_status()
        ends = frozenset({State.EXPORTED, State.FAILED, State.REJECTED})
        self.sent[study.number] = replace(sent, deleted=True, ends=ends)

    # --- What is seen -----------------------------------------------------------------------

    def client(self, name: str) -> httpx.Client:
        """Give a client of the "ingest" or "export" Orthanc itself, as its administrator."""
        addresses = self.plan.addresses
        return httpx.Client(
            base_url=addresses.ingest_url if name == "ingest" else addresses.export_url,
            auth=("admin", self.home.password("admin")),
            timeout=60,
            trust_env=False,
        )

    def rows(self) -> dict[str, LedgerRow]:
        """Give the ledger's rows by the studies' ids."""
        return {row.study_id: row for row in ledger_rows(self.ledger)}

    def open_studies(self) -> set[str]:
        """Name the studies that went in and have not ended, with all of their images."""
        rows = self.rows()

        def is_over(sent: Sent) -> bool:
            row = rows.get(sent.study_id)
            known = row is not None and (sent.deleted or row.instances == len(sent.images))
            return known and row is not None and row.state in ENDED and row.looked

        return {sent.study_id for sent in self.sent.values() if not is_over(sent)}

    def until_at_rest(self, seconds: float = 120.0) -> None:
        """Wait until everything that went in has ended, at its newest revision."""
        try:
            wait_until(lambda: not self.open_studies(), seconds, "all has ended")
        except pytest.fail.Exception:
            still = self.open_studies()
            rows = [row for study_id, row in self.rows().items() if study_id in still]
            pytest.fail(f"not ended after {seconds} s: {rows or still}")

    def world(self) -> World:
        """Give all that there is to see."""
        with self.client("ingest") as ingest, self.client("export") as export:
            held = frozenset(ingest.get("/studies").raise_for_status().json())
            peer = peer_images(export)
        return World(
            sent=tuple(self.sent.values()),
            rows=ledger_rows(self.ledger),
            lines=audit_lines(self.ledger),
            ingest=held,
            peer=peer,
            telling=telling_files(
                [*self.worker_folders(), self.home.folder("logs")],
                [*map(patient_of, self.sent), "CANARYFAMILY"],
            ),
        )

    def violations(self) -> list[Violation]:
        """Give what does not hold now."""
        return violations(self.world())

    def worker_folders(self) -> list[Path]:
        """Give the folders that workers may write into: temporary files, and where they are."""
        return [self.home.folder("scratch"), *(self._folder(name) for name in self.workers)]

    def log(self, name: str) -> str:
        """Give what a process has logged so far."""
        return self.home.log(name).read_text(encoding="utf-8", errors="replace")

    def log_says(self, text: str) -> bool:
        """Say whether a worker has logged this."""
        return any(text in self.log(name) for name in self.workers)

    # --- What is done to processes ------------------------------------------------------------

    def pid(self, name: str) -> int:
        """Give the number of a process that runs."""
        return next(one.pid for one in self.supervisor.running() if one.name == name)

    def runs(self, name: str) -> bool:
        """Say whether a process runs, held ones included."""
        return any(one.name == name for one in self.supervisor.running())

    def kill(self, name: str) -> None:
        """Kill a process, as ``kill -9`` does."""
        pid = self.pid(name)
        self.supervisor.kill(name)
        self.stopped.discard(name)
        for mark in self._stops.glob(f"*.{pid}"):
            mark.unlink()

    def hold(self, name: str) -> None:
        """Have a process stand still."""
        os.kill(self.pid(name), signal.SIGSTOP)
        self.stopped.add(name)

    def release(self, name: str) -> None:
        """Have a process that stands still go on."""
        self.stopped.discard(name)
        os.kill(self.pid(name), signal.SIGCONT)

    def start(self, name: str) -> None:
        """Start a process anew that is gone."""
        if name in self.workers:
            self._forget_ready(name)
        self.supervisor.restart(name)
        self.supervisor.wait_until_ready(name)

    def start_dead_workers(self) -> list[str]:
        """Start every worker that is gone, as who supervises them would; give their names."""
        dead = [name for name in self.workers if not self.runs(name)]
        for name in dead:
            self._forget_ready(name)
            self.supervisor.restart(name)
        for name in dead:
            self.supervisor.wait_until_ready(name)
        return dead

    def stop_at(self, step: str) -> None:
        """Have the first worker that comes to this step stay there."""
        (self._stops / step).touch()

    def worker_at(self, step: str) -> str:
        """Wait until a worker stays at the step, and name it."""
        wait_until(lambda: bool(list(self._stops.glob(f"{step}.*"))), what=f"{step} is reached")
        (mark,) = self._stops.glob(f"{step}.*")
        return next(
            one.name for one in self.supervisor.running() if one.pid == int(mark.suffix[1:])
        )

    def go_on(self, step: str) -> None:
        """Have a worker that stays at the step go on."""
        for mark in self._stops.glob(f"{step}.*"):
            mark.unlink()

    def worker_of(self, study: Study) -> str:
        """Name the worker that has claimed a study."""
        job_id = self.rows()[self.sent[study.number].study_id].job_id
        line = next(
            line
            for line in reversed(audit_lines(self.ledger))
            if line.job_id == job_id and line.after is State.PROCESSING
        )
        pid = int(line.actor.rpartition("-")[2])
        return next(one.name for one in self.supervisor.running() if one.pid == pid)

    def broker(self) -> redis.Redis:
        """Give a client of the broker."""
        port = urlsplit(self.plan.addresses.broker_url).port or 0
        password = self.home.password("broker")
        return redis.Redis(host=LOOPBACK, port=port, password=password, socket_timeout=5)

    def heal(self) -> None:
        """Undo everything that was done to the ways, and have every process run."""
        for front in (self.ingest_front, self.export_front):
            front.clear()
        for pipe in (self.worker_broker, self.plugin_broker):
            pipe.mend()
        for disk in self.disks.values():
            disk.clear()
        if self.clock is not None:
            self.clock.set(0)
        for mark in self._stops.iterdir():
            mark.unlink()
        for name in list(self.stopped):
            self.release(name)
        for name in ("redis", "ingest", "export"):
            if not self.runs(name):
                self.start(name)
        self.start_dead_workers()

    # --- Inside -------------------------------------------------------------------------------

    @property
    def _stops(self) -> Path:
        return self.home.root / STOPS

    def _folder(self, name: str) -> Path:
        return self.home.folder("workers") / name

    def _forget_ready(self, name: str) -> None:
        (self._folder(name) / READY).unlink(missing_ok=True)

    def add_worker(self, name: str, prefix: tuple[str, ...] = (), **variables: str) -> None:
        """Start one more worker; ``prefix`` are words before its command."""
        folder = self._folder(name)
        folder.mkdir(parents=True, exist_ok=True)
        shipped = worker_service(self.plan)
        environment = {
            **shipped.environment,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "TMPDIR": str(self.home.folder("scratch")),
        }
        program = (sys.executable, "-m", "prichexy_testing.faults.quick_start")
        service = replace(
            shipped,
            name=name,
            command=(*prefix, *program, str(self.home.root)),
            log=self.home.log(name),
            environment={**environment, **variables},
            folder=folder,
            ready=lambda _age: (folder / READY).exists(),
        )
        self.workers[name] = service
        self._forget_ready(name)
        self.supervisor.start(service)

    def remove_worker(self, name: str) -> None:
        """Stop a worker for good."""
        if self.runs(name):
            self.supervisor.stop(name)
        del self.workers[name]


@contextmanager
def running_site(
    folder: Path,
    *,
    workers: int = 2,
    disks: Collection[str] = (),
    clock: bool = False,
    patience: float = 1.0,
) -> Iterator[Site]:
    """Run a gateway in ``folder`` for the block; skip the test where parts are missing.

    ``disks``: which of "ledger", "scratch" (the workers' temporary files) and "export" lie on a
    small disk of their own. ``clock``: the ingest Orthanc and the workers have one that can be set,
    where libfaketime is installed. ``patience`` makes the time limits longer, for a busy machine.
    """
    needs_native_parts()
    home = Home(folder / "gateway")
    home.prepare()
    for name in ("scratch", "workers", "ledger", STOPS):
        home.folder(name).mkdir()
    ports = choose_ports(Ports(), None)
    ledger = home.folder("ledger") / _LEDGER
    with ExitStack() as stack:
        mounted = {
            name: stack.enter_context(small_disk(home.folder(name), _MEGABYTES[name]))
            for name in disks
        }
        upstreams = (ports.ingest_http, ports.export_http)
        fronts = [stack.enter_context(Front(port).running()) for port in upstreams]
        pipes = [stack.enter_context(Pipe(ports.redis).running()) for _ in range(2)]
        plan = _plan(home, ports, _configuration(folder, ledger), fronts, pipes[0], patience)
        supervisor = stack.enter_context(Supervisor(lambda _processes: None))
        site = Site(home, plan, supervisor, *fronts, *pipes, ledger, disks=mounted)
        site.clock = clock_in(folder) if clock else None
        variables = {"PRICHEXY_FAULTS_PATIENCE": str(patience)}
        if site.clock is not None:
            variables |= site.clock.variables
        ingest = ingest_service(plan)
        through = f"redis://{LOOPBACK}:{pipes[1].port}/0"
        changed = {**ingest.environment, "PRICHEXY_BROKER_URL": through, **variables}
        services = (
            redis_service(plan),
            replace(ingest, environment=changed),
            export_service(plan),
        )
        for service in services:
            supervisor.start(service)
        for number in range(1, workers + 1):
            site.add_worker(f"worker-{number}", **variables)
        for name in [*(service.name for service in services), *site.workers]:
            supervisor.wait_until_ready(name)
        wait_until(ledger.exists, what="the ledger is open")
        try:
            yield site
        finally:
            for name in list(site.stopped):
                site.release(name)


def _plan(
    home: Home,
    ports: Ports,
    configuration: Path,
    fronts: Sequence[Front],
    broker: Pipe,
    patience: float,
) -> Plan:
    """Give how the processes run; the workers go through the fronts."""
    ingest, export = fronts
    return Plan(
        home=home,
        addresses=Addresses(
            ingest_url=f"http://{LOOPBACK}:{ports.ingest_http}",
            dicom_host=LOOPBACK,
            dicom_port=ports.ingest_dicom,
            dicom_aet=CALLED_AET,
            export_url=f"http://{LOOPBACK}:{ports.export_http}",
            broker_url=f"redis://{LOOPBACK}:{ports.redis}/0",
        ),
        runtime=replace(native_runtime(), script=_PLUGIN),
        orthanc_config=configuration,
        model_bundle=default_bundle(),
        stable_age=1,
        device="cpu",
        worker_settings={
            "ingest": {"url": f"http://{LOOPBACK}:{ingest.port}", "timeout": 10.0 * patience},
            "broker": {
                "url": f"redis://{LOOPBACK}:{broker.port}/0",
                "redelivery_seconds": REDELIVERY_SECONDS * patience,
            },
            "limits": {"image_seconds": 20.0 * patience},
            "export": {
                "kind": "orthanc",
                "url": f"http://{LOOPBACK}:{export.port}",
                "user": "gateway",
                "password_file": str(home.password_file("export")),
                "timeout": 3.0 * patience,
            },
        },
    )


def _configuration(folder: Path, ledger: Path) -> Path:
    """Give the shipped configuration with the ledger in this place."""
    copy = folder / "orthanc-config"
    shutil.copytree(checkout() / "orthanc-config", copy)
    path = copy / "ingest.json"
    own = f'"Ledger": {{"Url": "sqlite:///{ledger}"}},'
    text, count = re.subn(r'("PriCheXy"\s*:\s*\{)', rf"\1 {own}", path.read_text())
    assert count == 1
    path.write_text(text)
    return copy
