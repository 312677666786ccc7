"""Which ports a gateway takes."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple

import pytest

from prichexy_gateway.errors import Failed
from prichexy_gateway.ports import Ports, choose_ports, is_free
from prichexy_testing.servers import free_port


@contextmanager
def listening() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", free_port()))
        server.listen()
        yield server.getsockname()[1]


def test_a_port_that_somebody_listens_on_is_not_free() -> None:
    with listening() as port:
        assert not is_free(port)
    assert is_free(port)


def test_without_configuration_all_ports_are_free_and_different() -> None:
    ports = astuple(choose_ports(Ports(), None))
    assert len(set(ports)) == len(ports)
    assert all(is_free(port) for port in ports)


def test_a_configured_port_is_taken_as_it_is() -> None:
    with listening() as port:
        pass
    assert choose_ports(Ports(ingest_http=port), None).ingest_http == port


def test_a_configured_port_in_use_is_refused_by_name() -> None:
    with listening() as port, pytest.raises(Failed, match=f"Port {port} for redis is in use"):
        choose_ports(Ports(redis=port), None)


def test_a_port_for_two_listeners_is_refused() -> None:
    with pytest.raises(Failed, match="the same"):
        choose_ports(Ports(ingest_http=29999, redis=29999), None)


def test_the_ports_of_the_last_start_are_taken_again_when_they_are_free() -> None:
    first = choose_ports(Ports(), None)
    assert choose_ports(Ports(), first) == first


def test_a_port_of_the_last_start_that_is_in_use_now_is_replaced() -> None:
    with listening() as port:
        ports = choose_ports(Ports(), Ports(ingest_http=port))
    assert ports.ingest_http not in (0, port)


def test_a_remembered_port_never_takes_a_configured_one() -> None:
    first = choose_ports(Ports(), None)
    ports = choose_ports(Ports(redis=first.ingest_http), first)
    assert ports.redis == first.ingest_http
    assert len(set(astuple(ports))) == 4
