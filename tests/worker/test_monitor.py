"""A worker's own metrics, and its two answers: does it live, and can it take a study."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from prichexy_testing.plugin_fakes import announcement_of
from prichexy_worker.contract import Reason, State
from prichexy_worker.errors import Misconfigured
from prichexy_worker.monitor import Monitor
from prichexy_worker.monitor_server import serving
from prichexy_worker.study import Outcome

PAGE = Path(__file__).parents[2] / "docs" / "operating.md"


class World:
    """What a monitor sees: the time, and whether the plugin hears the worker."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.heard = True
        self.monitor = Monitor(
            longest=100, wait_seconds=5, heard=lambda: self.heard, clock=lambda: self.now
        )

    def sample(self, name: str, **labels: str) -> float | None:
        """Give a sample's value, None when there is no such."""
        for family in text_string_to_metric_families(self.monitor.exposition().decode()):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return sample.value
        return None


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def connection(world: World) -> Iterator[HTTPConnection]:
    with serving(world.monitor, "127.0.0.1", 0) as port:
        connection = HTTPConnection("127.0.0.1", port, timeout=10)
        yield connection
        connection.close()


def ask(connection: HTTPConnection, path: str, method: str = "GET") -> tuple[int, str]:
    connection.request(method, path)
    response = connection.getresponse()
    return response.status, response.read().decode()


def test_attempts_are_counted_by_what_the_ledger_was_told(world: World) -> None:
    with world.monitor.attempt() as attempt:
        world.now += 7
        attempt.ended(Outcome(State.EXPORTED))
    with world.monitor.attempt() as attempt:
        attempt.ended(Outcome(None, Reason.SOURCE_UNREACHABLE, again=True))
    with pytest.raises(ZeroDivisionError), world.monitor.attempt():
        raise ZeroDivisionError
    count = "prichexy_worker_attempts_total"
    assert world.sample(count, state="exported", reason="") == 1
    assert world.sample(count, state="untold", reason="source_unreachable") == 1
    assert world.sample(count, state="untold", reason="") == 1
    assert world.sample("prichexy_worker_attempt_seconds_sum") == 7
    assert world.sample("prichexy_worker_attempt_seconds_count") == 3


def test_the_process_and_the_model_are_told(world: World) -> None:
    world.monitor.announced(announcement_of("w-7"))
    assert world.sample("prichexy_worker_info", worker="w-7", model="ab" * 32) == 1
    memory = world.sample("process_resident_memory_bytes")
    assert memory is not None
    assert memory > 0


def test_a_worker_is_ready_while_it_waits_at_the_broker(world: World) -> None:
    assert world.monitor.absence() == "not connected to the broker"
    world.monitor.waits()
    world.now += 14
    assert world.monitor.absence() is None
    world.now += 2
    assert world.monitor.absence() == "not connected to the broker"
    assert world.monitor.trouble() is None


def test_a_worker_is_ready_during_a_study_and_right_after_it(world: World) -> None:
    with world.monitor.attempt() as attempt:
        world.now += 90
        assert world.monitor.absence() is None
        assert world.sample("prichexy_worker_busy_seconds") == 90
        attempt.ended(Outcome(State.EXPORTED))
    assert world.monitor.absence() is None
    assert world.sample("prichexy_worker_busy_seconds") == 0


def test_a_worker_that_the_plugin_does_not_hear_lives_and_is_not_ready(world: World) -> None:
    world.monitor.waits()
    world.heard = False
    assert world.monitor.trouble() is None
    assert world.monitor.absence() == "the plugin does not hear this worker"
    assert world.sample("prichexy_worker_heard") == world.sample("prichexy_worker_ready") == 0


def test_a_worker_that_hangs_in_a_study_does_not_live(world: World) -> None:
    with world.monitor.attempt():
        world.now += 101
        assert world.monitor.trouble() == (
            "a study has been under way for 101 seconds; 100 are allowed"
        )
        assert world.monitor.absence() == world.monitor.trouble()


def test_the_answers_come_over_http(world: World, connection: HTTPConnection) -> None:
    assert ask(connection, "/health") == (200, "ok\n")
    assert ask(connection, "/ready") == (503, "not connected to the broker\n")
    world.monitor.waits()
    assert ask(connection, "/ready") == (200, "ok\n")
    assert ask(connection, "/ready", "HEAD") == (200, "")
    status, text = ask(connection, "/metrics")
    assert status == 200
    assert "prichexy_worker_ready 1.0" in text
    assert ask(connection, "/elsewhere")[0] == 404
    assert ask(connection, "/metrics", "DELETE")[0] == 501


def test_a_taken_port_is_named(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(Misconfigured, match=f"port {port} "):
            serving(world.monitor, "127.0.0.1", port).__enter__()


def test_the_page_names_every_family_and_no_other(world: World) -> None:
    world.monitor.announced(announcement_of())
    with world.monitor.attempt():
        pass
    families = text_string_to_metric_families(world.monitor.exposition().decode())
    endings = {"counter": "_total", "info": "_info"}
    exposed = {
        family.name + endings.get(family.type, "")
        for family in families
        if family.name.startswith("prichexy")
    }
    page = PAGE.read_text(encoding="utf-8")
    section = page.split("## Metrics of a worker")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `(prichexy_\w+)", section, re.MULTILINE)) == exposed
