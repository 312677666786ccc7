"""The native gateway: Redis, two Orthancs and a worker as processes of this machine.

No Docker, no system service: all runs as this user, in one folder (see ``home``), on ports of its
own, and ends with whoever started it.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from prichexy_gateway.bundle_check import store_at
from prichexy_gateway.errors import Failed, Refused
from prichexy_gateway.home import Addresses, Home, Record, RunningProcess, checkout, default_bundle
from prichexy_gateway.orthanc_runtime import OrthancRuntime, native_runtime
from prichexy_gateway.plugin_start import PluginStart
from prichexy_gateway.ports import Ports, choose_ports
from prichexy_gateway.services import (
    INGEST,
    LOOPBACK,
    Plan,
    export_service,
    ingest_service,
    redis_service,
    worker_configuration,
    worker_service,
)
from prichexy_gateway.supervisor import Supervisor, start_time, stop_leftovers
from prichexy_gateway.worker_settings import Sections, export_elsewhere, load_settings_at
from prichexy_store.bundles import describe_bundle
from prichexy_store.store import ModelStore
from prichexy_worker.settings import Settings

__all__ = ["CALLED_AET", "CALLING_AET", "NativeGateway", "Options", "running_gateway"]

#: As in orthanc-config/ingest.json: the ingest Orthanc, and who may send to it from here.
CALLED_AET: Final = "PRICHEXY"
CALLING_AET: Final = "PRICHEXY-CLI"


@dataclass(frozen=True, slots=True)
class Options:
    """How a native gateway is to run. ``None`` means the checkout's own.

    ``model_bundle`` is promoted before the start; without one, the model in use stays in use, and
    the checkout's is the first. ``worker_settings`` are merged over the worker's generated ones;
    where they name export targets, the worker exports there and no export Orthanc is started.
    ``all_must_start``: unless it is so, the ingest Orthanc alone has to be ready at the start; the
    others are for a ``Keeper`` to look after, and so is a plugin whose ledger is away
    (``PluginStart``).
    """

    ports: Ports = field(default_factory=Ports)
    stable_age: int = 5  # seconds without a new instance until a study counts as complete
    device: str = "auto"
    runtime: OrthancRuntime | None = None
    orthanc_config: Path | None = None
    model_bundle: Path | None = None
    worker_settings: Sections = field(default_factory=dict)
    all_must_start: bool = True


@dataclass(frozen=True, slots=True)
class NativeGateway:
    """A running gateway. Its processes belong to ``supervisor``; ``settings`` are its worker's.

    ``exports_here``: the export Orthanc is one of the processes.
    """

    home: Home
    addresses: Addresses
    supervisor: Supervisor
    settings: Settings
    exports_here: bool
    plugin: PluginStart


@contextmanager
def running_gateway(
    home: Home,
    options: Options,
    called_off: threading.Event | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Iterator[NativeGateway]:
    """Run a gateway in ``home`` for the length of the block; it is ready when the block starts.

    ``tell`` is given one sentence a step. Raises Failed when something does not start, another
    gateway runs there, or the plugin's configuration is wrong; Interrupted when called off.
    """
    runtime = options.runtime or native_runtime()
    runtime.check()
    if shutil.which("redis-server") is None:
        raise Failed("redis-server is missing. Run: script/install system redis")
    with home.locked():
        last = home.read_record()
        for name in stop_leftovers(last.processes) if last else ():
            tell(f"stopped {name}, left over from a gateway that was killed")
        home.prepare()
        plan = Plan(
            home=home,
            addresses=_addresses(
                choose_ports(options.ports, _ports(last.addresses) if last else None)
            ),
            runtime=runtime,
            orthanc_config=options.orthanc_config or checkout() / "orthanc-config",
            model_bundle=_model_in_use(home, options.model_bundle, tell),
            stable_age=options.stable_age,
            device=options.device,
            worker_settings=options.worker_settings,
        )
        exports_here = not export_elsewhere(plan.worker_settings)
        worker = worker_service(plan)
        # Before anything starts: a wrong setting is said here, not in a log.
        settings = load_settings_at(worker_configuration(home))
        # Reception first: it waits for nobody.
        servers = [ingest_service(plan), redis_service(plan)]
        if exports_here:
            servers.append(export_service(plan))
        plugin = PluginStart(home, plan.addresses, tell)
        with Supervisor(_recorder(plan, tell)) as supervisor:
            for together in (servers, [worker]):
                for service in together:
                    supervisor.start(service)
                for service in together:
                    if service is worker and not plugin.works:
                        # The plugin has to have heard of it: nobody knows when it can.
                        tell("worker is started")
                        continue
                    try:
                        supervisor.wait_until_ready(service.name, called_off)
                    except Failed as error:
                        if options.all_must_start or service.name == INGEST:
                            raise
                        tell(f"{str(error).removesuffix('.')}. All else goes on.")
                        continue
                    tell(f"{service.name} is ready")
                    if service.name == INGEST:
                        plugin.wait(called_off, must_work=options.all_must_start)
            yield NativeGateway(home, plan.addresses, supervisor, settings, exports_here, plugin)


def _model_in_use(home: Home, bundle: Path | None, tell: Callable[[str], None]) -> Path:
    """Give the link to the model in use, once there is one. Raises Failed, Refused.

    Until somebody promotes another one, it is the one that this version was shipped with.
    """
    if bundle is not None:
        store = store_at(home.models)
        store.promote(bundle, "prichexy serve --model")
        return store.current
    # The worker loads it in a moment: it need not be loaded here first.
    store = ModelStore(home.models, check=describe_bundle)
    history = store.history()
    if all(change.action == "installed" for change in history):
        try:
            store.promote(default_bundle(), "prichexy serve", action="installed")
        except Refused as error:
            if not history:
                raise
            tell(f"the model in use stays: {error}")
    return store.current


def _recorder(
    plan: Plan, tell: Callable[[str], None]
) -> Callable[[tuple[RunningProcess, ...]], None]:
    """Give what keeps gateway.json true: who runs, and where they are reached.

    On a full disk the file stays as it was: no service has to end for it.
    """
    us = RunningProcess("prichexy", os.getpid(), start_time(os.getpid()) or 0)
    record = Record(plan.addresses, str(plan.model_bundle), us)

    def remember(processes: tuple[RunningProcess, ...]) -> None:
        known = plan.home.read_record()
        ledger = "" if known is None else known.ledger
        try:
            plan.home.write_record(replace(record, processes=processes, ledger=ledger))
        except OSError as error:
            tell(f"{plan.home.record_file} cannot be written ({error.strerror})")

    return remember


def _addresses(ports: Ports) -> Addresses:
    return Addresses(
        ingest_url=f"http://{LOOPBACK}:{ports.ingest_http}",
        dicom_host=LOOPBACK,
        dicom_port=ports.ingest_dicom,
        dicom_aet=CALLED_AET,
        export_url=f"http://{LOOPBACK}:{ports.export_http}",
        broker_url=f"redis://{LOOPBACK}:{ports.redis}/0",
    )


def _ports(addresses: Addresses) -> Ports:
    return Ports(
        ingest_http=urlsplit(addresses.ingest_url).port or 0,
        ingest_dicom=addresses.dicom_port,
        export_http=urlsplit(addresses.export_url).port or 0,
        redis=urlsplit(addresses.broker_url).port or 0,
    )
