"""Hosts of their own on one machine: network namespaces, each with one cable for each server.

A worker in one of them reaches the servers by addresses of a real network, over a pair of virtual
network cards. Unplugging a cable loses every packet, and nobody is told: connections stay open on
both sides, as when a switch dies.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest

from prichexy_testing.faults.front import Pipe

__all__ = ["Host", "another_host"]


@dataclass(frozen=True, slots=True)
class Host:
    """A network namespace; ``addresses`` says where each server is reached from in there."""

    name: str
    addresses: Mapping[str, str]

    @property
    def prefix(self) -> tuple[str, ...]:
        """Words before a command that has to run on this host."""
        return ("ip", "netns", "exec", self.name)

    def unplug(self, server: str) -> None:
        """Lose every packet between this host and a server."""
        _ip("link", "set", self._cable(server), "down")

    def plug(self, server: str) -> None:
        """Let packets through again."""
        _ip("link", "set", self._cable(server), "up")

    def forget(self, server: str) -> None:
        """Have a server lose its connections to this host without a word, as at a power failure.

        For an unplugged cable: what this machine says of it must not get through.
        """
        port = self.addresses[server].rpartition(":")[2]
        subprocess.run(
            ["ss", "--kill", "state", "established", "sport", "=", f":{port}"],
            check=True,
            capture_output=True,
        )

    def _cable(self, server: str) -> str:
        number = list(self.addresses).index(server)
        return _cable(self.name, number)


@contextmanager
def another_host(number: int, servers: Mapping[str, int]) -> Iterator[Host]:
    """Make host ``number`` for the block; skip the test where that is refused.

    ``servers`` are loopback ports of this machine by name, each reached by a cable of its own.
    """
    name = f"px{os.getpid() % 100_000}-{number}"
    try:
        _ip("netns", "add", name)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a network namespace cannot be made here: that takes root and iproute2")
    with ExitStack() as stack:
        stack.callback(_ip, "netns", "delete", name)
        _ip("-netns", name, "link", "set", "lo", "up")
        addresses = {}
        for cable, (server, port) in enumerate(servers.items()):
            ours, theirs = f"10.213.{number}.{4 * cable + 1}", f"10.213.{number}.{4 * cable + 2}"
            card = _cable(name, cable)
            _ip("link", "add", card, "type", "veth", "peer", "name", "far", "netns", name)
            _ip("-netns", name, "link", "set", "far", "name", f"to{cable}")
            _ip("addr", "add", f"{ours}/30", "dev", card)
            _ip("link", "set", card, "up")
            _ip("-netns", name, "addr", "add", f"{theirs}/30", "dev", f"to{cable}")
            _ip("-netns", name, "link", "set", f"to{cable}", "up")
            pipe = stack.enter_context(Pipe(port).running(ours))
            addresses[server] = f"{ours}:{pipe.port}"
        yield Host(name, addresses)


def _cable(host: str, number: int) -> str:
    return f"{host}.{number}"


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
