"""The compose file as services to start. Pure, and strict: an unknown key is an error."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml

from prichexy_testing.rehearsal.recipe import HealthCheck, seconds

__all__ = ["Build", "ComposeError", "ComposeFile", "Secret", "Service", "read_compose"]

_TOP_KEYS: Final = frozenset({"name", "services", "networks", "volumes", "secrets"})
_SERVICE_KEYS: Final = frozenset(
    {
        "build",
        "cap_drop",
        "command",
        "depends_on",
        "deploy",
        "entrypoint",
        "environment",
        "healthcheck",
        "image",
        "init",
        "mem_limit",
        "memswap_limit",
        "networks",
        "pids_limit",
        "ports",
        "profiles",
        "read_only",
        "restart",
        "secrets",
        "security_opt",
        "stop_grace_period",
        "tmpfs",
        "ulimits",
        "user",
        "volumes",
    }
)
_VARIABLE: Final = re.compile(r"\$(?:\$|\{(?P<name>[A-Z_]+)(?::-(?P<default>[^}]*))?\})")
_HEALTH_KEYS: Final = frozenset({"test", "interval", "timeout", "start_period", "retries"})


class ComposeError(Exception):
    """The compose file asks for what is not rehearsed, or contradicts itself."""


@dataclass(frozen=True, slots=True)
class Build:
    """Which Dockerfile makes a service's image."""

    dockerfile: str
    arguments: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Secret:
    """A file of the machine, shown to a service as ``/run/secrets/<target>``."""

    file: str
    target: str


@dataclass(frozen=True, slots=True)
class Service:
    """One service, with all that decides how its container runs."""

    name: str
    image: str
    build: Build | None
    user: str | None
    entrypoint: tuple[str, ...] | None
    command: tuple[str, ...] | None
    environment: Mapping[str, str]
    secrets: tuple[Secret, ...]
    volumes: Mapping[str, str]
    tmpfs: tuple[tuple[str, str], ...]
    health: HealthCheck | None
    depends_on: tuple[str, ...]
    networks: tuple[str, ...]
    ports: tuple[str, ...]
    profiles: tuple[str, ...]
    read_only: bool
    drops_all_capabilities: bool
    no_new_privileges: bool
    leaves_no_core: bool
    pids_limit: int | None
    memory_limit: str | None
    swaps: bool
    stop_grace_period: float


@dataclass(frozen=True, slots=True)
class ComposeFile:
    """All services by name, in an order in which each comes after those it depends on."""

    services: Mapping[str, Service]
    internal_networks: frozenset[str]

    def started(self) -> tuple[Service, ...]:
        """Give the services that ``docker compose up`` starts when no profile is asked for."""
        return tuple(service for service in self.services.values() if not service.profiles)


def read_compose(text: str, variables: Mapping[str, str]) -> ComposeFile:
    """Read the file's text, ``${NAME:-default}`` filled in. Raises ComposeError."""
    document = _interpolated(yaml.safe_load(text), variables)
    odd = {key for key in document if key not in _TOP_KEYS and not key.startswith("x-")}
    if odd:
        raise ComposeError(f"not rehearsed: {', '.join(sorted(odd))}")
    files = {name: str(secret["file"]) for name, secret in document.get("secrets", {}).items()}
    services = {
        name: _service(name, content, files, document)
        for name, content in document["services"].items()
    }
    networks = document.get("networks", {})
    internal = {name for name, network in networks.items() if (network or {}).get("internal")}
    return ComposeFile(_ordered(services), frozenset(internal))


def _interpolated(node: Any, variables: Mapping[str, str]) -> Any:
    """Fill in the variables; ``$$`` is a dollar sign."""
    if isinstance(node, dict):
        return {key: _interpolated(value, variables) for key, value in node.items()}
    if isinstance(node, list):
        return [_interpolated(value, variables) for value in node]
    if not isinstance(node, str):
        return node

    def value(found: re.Match[str]) -> str:
        if found["name"] is None:
            return "$"
        return variables.get(found["name"]) or found["default"] or ""

    return _VARIABLE.sub(value, node)


def _service(name: str, content: Mapping[str, Any], files: Mapping[str, str], top: Any) -> Service:
    odd = sorted(set(content) - _SERVICE_KEYS)
    if odd:
        raise ComposeError(f"{name}: not rehearsed: {', '.join(odd)}")
    for kind in ("networks", "volumes"):
        used = content.get(kind, [])
        names = used if kind == "networks" else [entry.partition(":")[0] for entry in used]
        unknown = sorted(set(names) - set(top.get(kind, {})))
        if unknown:
            raise ComposeError(f"{name}: {kind} has no {', '.join(unknown)}")
    build = content.get("build")
    depends_on = content.get("depends_on", {})
    if any(wait != {"condition": "service_healthy"} for wait in depends_on.values()):
        raise ComposeError(f"{name}: depends_on must wait for service_healthy")
    return Service(
        name=name,
        image=content["image"],
        build=None if build is None else _build(name, build),
        user=content.get("user"),
        entrypoint=_words(name, content.get("entrypoint")),
        command=_words(name, content.get("command")),
        environment={key: _plain(value) for key, value in content.get("environment", {}).items()},
        secrets=tuple(_secret(name, entry, files) for entry in content.get("secrets", [])),
        volumes={
            target: volume
            for volume, _, target in (entry.partition(":") for entry in content.get("volumes", []))
        },
        tmpfs=tuple(
            (target, options)
            for target, _, options in (entry.partition(":") for entry in content.get("tmpfs", []))
        ),
        health=_health(name, content.get("healthcheck")),
        depends_on=tuple(depends_on),
        networks=tuple(content.get("networks", [])),
        ports=tuple(content.get("ports", [])),
        profiles=tuple(content.get("profiles", [])),
        read_only=content.get("read_only") is True,
        drops_all_capabilities=content.get("cap_drop") == ["ALL"],
        no_new_privileges="no-new-privileges:true" in content.get("security_opt", []),
        leaves_no_core=content.get("ulimits") == {"core": 0},
        pids_limit=content.get("pids_limit"),
        memory_limit=content.get("mem_limit"),
        swaps="mem_limit" not in content or content.get("memswap_limit") != content["mem_limit"],
        stop_grace_period=seconds(content.get("stop_grace_period", "10s")),
    )


def _build(name: str, content: Mapping[str, Any]) -> Build:
    if set(content) - {"context", "dockerfile", "args"} or content.get("context") != "..":
        raise ComposeError(f"{name}: build: context must be '..', then dockerfile and args")
    return Build(content["dockerfile"], {k: _plain(v) for k, v in content.get("args", {}).items()})


def _words(name: str, value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise ComposeError(f"{name}: entrypoint and command must be lists")
    return tuple(_plain(word) for word in value)


def _plain(value: object) -> str:
    """Give a scalar as Docker puts it into the environment: true, not True."""
    return value if isinstance(value, str) else json.dumps(value)


def _secret(name: str, entry: object, files: Mapping[str, str]) -> Secret:
    source, target = (entry, entry) if isinstance(entry, str) else (None, None)
    if isinstance(entry, dict) and set(entry) == {"source", "target"}:
        source, target = entry["source"], entry["target"]
    if source not in files or not re.fullmatch(r"[a-z_]+", str(target)):
        raise ComposeError(f"{name}: the secret {source} is not declared")
    return Secret(files[str(source)], str(target))


def _health(name: str, content: Mapping[str, Any] | None) -> HealthCheck | None:
    if content is None:
        return None
    if set(content) - _HEALTH_KEYS or content["test"][0] != "CMD":
        raise ComposeError(f"{name}: healthcheck: not rehearsed: only CMD and its timing")
    timed = ("interval", "timeout", "start_period")
    timing = {key: seconds(content[key]) for key in timed if key in content}
    return HealthCheck(tuple(content["test"][1:]), retries=content.get("retries", 3), **timing)


def _ordered(services: Mapping[str, Service]) -> dict[str, Service]:
    ordered: dict[str, Service] = {}
    while len(ordered) < len(services):
        waiting = [service for service in services.values() if service.name not in ordered]
        ready = [service for service in waiting if set(service.depends_on) <= set(ordered)]
        if not ready:
            raise ComposeError("depends_on names an unknown service, or goes in a circle")
        ordered |= {service.name: service for service in ready}
    return ordered
