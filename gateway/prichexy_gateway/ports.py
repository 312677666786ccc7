"""TCP ports of the gateway: configured, remembered from the last start, or free."""

from __future__ import annotations

import secrets
import socket
from dataclasses import astuple, dataclass, fields
from typing import Final

from prichexy_gateway.errors import Failed

__all__ = ["Ports", "choose_ports", "is_free"]

# Below the range from which the system takes the ports of outgoing connections: one of those
# could take a chosen port before its service has bound it.
_FIRST: Final = 20000
_LAST: Final = 32000


@dataclass(frozen=True, slots=True)
class Ports:
    """One port a listener. 0 means: the last one if it is free, else any free one."""

    ingest_http: int = 0
    ingest_dicom: int = 0
    export_http: int = 0
    redis: int = 0


def is_free(port: int) -> bool:
    """Say whether a server could listen on this port of every interface, as Orthanc does."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: a connection that is still closing does not keep the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))  # noqa: S104 - nothing listens; it asks
        except OSError:
            return False
        return True


def choose_ports(wanted: Ports, last: Ports | None) -> Ports:
    """Give ports for a start, all different.

    Raises Failed when a configured port is in use or configured twice.
    """
    named = [port for port in astuple(wanted) if port]
    if len(set(named)) < len(named):
        raise Failed("Two of the ports are the same. Each listener needs its own; 0 means any.")
    chosen: dict[str, int] = {}
    for name in (field.name for field in fields(Ports)):
        port = getattr(wanted, name)
        if port and not is_free(port):
            raise Failed(f"Port {port} for {name} is in use. Choose another one, or 0 for any.")
        if not port:
            remembered = getattr(last, name) if last else 0
            taken = {*chosen.values(), *_configured(wanted)}
            port = remembered if _usable(remembered, taken) else _any_free(taken)
        chosen[name] = port
    return Ports(**chosen)


def _configured(wanted: Ports) -> set[int]:
    return {getattr(wanted, field.name) for field in fields(Ports)}


def _usable(port: int, taken: set[int]) -> bool:
    return port > 0 and port not in taken and is_free(port)


def _any_free(taken: set[int]) -> int:
    for _ in range(1000):
        port = _FIRST + secrets.randbelow(_LAST - _FIRST)
        if _usable(port, taken):
            return port
    raise Failed(f"No free TCP port between {_FIRST} and {_LAST}.")
