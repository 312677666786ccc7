"""The four processes of a native gateway: commands, settings, and how each shows it is ready.

Secrets reach Redis and the worker in files, the Orthancs in their environment; none stands on a
command line.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import redis

from prichexy_gateway.client import OrthancClient, Unreachable
from prichexy_gateway.errors import Failed
from prichexy_gateway.home import Addresses, Home, write_privately
from prichexy_gateway.orthanc_runtime import OrthancRuntime
from prichexy_gateway.supervisor import Service
from prichexy_gateway.worker_settings import Sections, merged, toml
from prichexy_worker.settings import Limits

__all__ = [
    "INGEST",
    "LETS_GO_WITHIN",
    "LOOPBACK",
    "Plan",
    "export_client",
    "export_service",
    "ingest_client",
    "ingest_service",
    "redis_service",
    "worker_configuration",
    "worker_service",
]

#: The one service without which nothing is received.
INGEST: Final = "ingest"
LOOPBACK: Final = "127.0.0.1"
LETS_GO_WITHIN: Final = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class Plan:
    """All that decides how the processes run; every choice has been made.

    ``orthanc_config`` holds ingest.json and export.json; ``stable_age`` is in seconds;
    ``worker_settings`` are merged over the settings that are made here; see ``worker_settings``.
    """

    home: Home
    addresses: Addresses
    runtime: OrthancRuntime
    orthanc_config: Path
    model_bundle: Path
    stable_age: int
    device: str
    worker_settings: Sections = field(default_factory=dict)


def ingest_client(home: Home, addresses: Addresses) -> OrthancClient:
    """Give a client of the ingest Orthanc as its administrator."""
    return OrthancClient(
        "The ingest Orthanc", addresses.ingest_url, "admin", home.password("admin")
    )


def export_client(home: Home, addresses: Addresses) -> OrthancClient:
    """Give a client of the export Orthanc as the user the worker writes with.

    It is refused all but the worker's own requests (orthanc-config/export-filter.lua).
    """
    return OrthancClient(
        "The export Orthanc", addresses.export_url, "gateway", home.password("export")
    )


def redis_service(plan: Plan) -> Service:
    """Give the broker. What it holds outlives a restart (append-only file)."""
    folder = plan.home.folder("redis")
    port = urlsplit(plan.addresses.broker_url).port or 0
    password = plan.home.password("broker")
    configuration = folder / "redis.conf"
    write_privately(
        configuration,
        f"bind {LOOPBACK}\n"
        f"port {port}\n"
        "protected-mode yes\n"
        f"requirepass {password}\n"
        f'dir "{folder}"\n'
        "daemonize no\n"
        "appendonly yes\n"
        'save ""\n'
        # Better to refuse a message, which the plugin keeps, than to drop one.
        "maxmemory-policy noeviction\n",
    )

    def ready(_: float) -> bool:
        try:
            with redis.Redis(
                host=LOOPBACK, port=port, password=password, socket_timeout=5
            ) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    return Service(
        name="redis",
        command=("redis-server", str(configuration)),
        log=plan.home.log("redis"),
        ready=ready,
        tier=0,
        environment=_environment(),
    )


def ingest_service(plan: Plan) -> Service:
    """Give the ingest Orthanc. It is ready when the plugin answers."""

    def ready(_: float) -> bool:
        with ingest_client(plan.home, plan.addresses) as client:
            return _answers(client.health)

    return _orthanc(
        plan,
        INGEST,
        ready,
        {
            "PRICHEXY_INGEST_HTTP_PORT": str(urlsplit(plan.addresses.ingest_url).port),
            "PRICHEXY_INGEST_DICOM_PORT": str(plan.addresses.dicom_port),
            "PRICHEXY_ORTHANC_PLUGINS": plan.runtime.plugins,
            "PRICHEXY_PLUGIN_SCRIPT": plan.runtime.inside(plan.runtime.script),
            "PRICHEXY_WORKER_PASSWORD": plan.home.password("worker"),
            "PRICHEXY_BROKER_URL": plan.addresses.broker_url,
            "PRICHEXY_BROKER_PASSWORD": plan.home.password("broker"),
            "PRICHEXY_STABLE_AGE": str(plan.stable_age),
            "PRICHEXY_MODEL_STORE": plan.runtime.inside(plan.home.models),
            "PYTHONPATH": ":".join(plan.runtime.inside(path) for path in plan.runtime.python_path),
        },
    )


def export_service(plan: Plan) -> Service:
    """Give the export Orthanc."""

    def ready(_: float) -> bool:
        with export_client(plan.home, plan.addresses) as client:
            return _answers(client.system)

    return _orthanc(
        plan,
        "export",
        ready,
        {
            "PRICHEXY_EXPORT_HTTP_PORT": str(urlsplit(plan.addresses.export_url).port),
            "PRICHEXY_EXPORT_PASSWORD": plan.home.password("export"),
        },
    )


def worker_configuration(home: Home) -> Path:
    """Give the path of the worker's settings, which is written at each start."""
    return home.folder("worker") / "worker.toml"


def worker_service(plan: Plan) -> Service:
    """Give one worker. It is ready when the plugin has heard of it."""
    home, addresses = plan.home, plan.addresses
    configuration = worker_configuration(home)
    sections: Sections = {
        "ingest": {
            "url": addresses.ingest_url,
            "user": "worker",
            "password_file": str(home.password_file("worker")),
        },
        "broker": {
            "url": addresses.broker_url,
            "password_file": str(home.password_file("broker")),
        },
        "export": {
            "kind": "orthanc",
            "url": addresses.export_url,
            "user": "gateway",
            "password_file": str(home.password_file("export")),
        },
        "pseudonyms": {"key_file": str(home.key_file)},
        "model": {"bundle": str(plan.model_bundle), "device": plan.device},
    }
    whole = merged(sections, plan.worker_settings)
    write_privately(configuration, toml(whole))
    stop_seconds = whole.get("limits", {}).get("stop_seconds", Limits().stop_seconds)

    def ready(age: float) -> bool:
        with ingest_client(home, addresses) as client:
            try:
                workers = client.health().workers
            except Unreachable:
                return False
            # One that was last seen before this process started is an earlier one.
            return any(float(worker["seen_seconds_ago"]) < age for worker in workers)

    return Service(
        name="worker",
        command=(sys.executable, "-m", "prichexy_worker"),
        log=home.log("worker"),
        ready=ready,
        tier=2,
        environment=dict(os.environ) | {"PRICHEXY_WORKER_CONFIG": str(configuration)},
        ready_within=300.0,  # it loads torch and the search for text
        # It gives its study back after the first part; the rest is for the step under way, and to
        # withdraw what was exported of the study.
        stop_within=float(str(stop_seconds)) + LETS_GO_WITHIN,
    )


def _orthanc(
    plan: Plan, name: str, ready: Callable[[float], bool], variables: Mapping[str, str]
) -> Service:
    """Give an Orthanc with its configuration of ``plan.orthanc_config``."""
    configuration = plan.orthanc_config / f"{name}.json"
    if not configuration.is_file():
        raise Failed(f"{configuration} is missing.")
    if not configuration.resolve().is_relative_to(plan.runtime.root.resolve()):
        copy = plan.home.folder(name) / "configuration.json"
        shutil.copyfile(configuration, copy)
        # Orthanc looks beside its configuration for the scripts that this names.
        for script in plan.orthanc_config.glob("*.lua"):
            shutil.copyfile(script, copy.with_name(script.name))
        configuration = copy
    own = {
        "PRICHEXY_STORAGE": plan.runtime.inside(plan.home.folder(name)),
        "PRICHEXY_ADMIN_PASSWORD": plan.home.password("admin"),
    }
    return Service(
        name=name,
        command=plan.runtime.command(configuration),
        log=plan.home.log(name),
        ready=ready,
        tier=1,
        environment=_environment() | own | dict(variables),
    )


def _answers(question: Callable[[], object]) -> bool:
    try:
        question()
    except Unreachable:
        return False
    return True


def _environment() -> dict[str, str]:
    """Give the caller's environment without what would steer an Orthanc's own Python."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
