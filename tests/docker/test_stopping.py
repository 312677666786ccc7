"""A container is given the time that its worker takes to let go of a study."""

from __future__ import annotations

from pathlib import Path

from prichexy_gateway.services import LETS_GO_WITHIN
from prichexy_testing.rehearsal.compose import read_compose
from prichexy_worker.settings import Limits

COMPOSE = Path(__file__).resolve().parents[2] / "docker" / "compose.yaml"


def test_workers_are_killed_no_earlier_than_a_native_gateway_kills_its_own() -> None:
    compose = read_compose(COMPOSE.read_text(encoding="utf-8"), {})
    workers = [service for name, service in compose.services.items() if "worker" in name]
    assert len(workers) == 2
    for service in workers:
        assert service.stop_grace_period >= Limits().stop_seconds + LETS_GO_WITHIN
