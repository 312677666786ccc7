"""``prichexy backfill``: what it asks the gateway, and what it says."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from prichexy_gateway.client import OrthancClient
from prichexy_gateway.commands import backfill
from prichexy_plugin.backfill import DEFAULT_RATE, MAX_RATE
from prichexy_worker.contract import API_ROOT, REQUEST_HEADER


def _state(**changes: Any) -> dict[str, Any]:
    return {
        "running": True,
        "started_by": "admin",
        "per_minute": 60,
        "total": 45,
        "seen": 20,
        "found": 12,
        "again": 3,
        "ended": None,
        "stopped_by": None,
    } | changes


def test_the_commands_rates_are_the_plugins() -> None:
    assert (backfill._DEFAULT_RATE, backfill._MAX_RATE) == (DEFAULT_RATE, MAX_RATE)


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (None, "There was no backfill yet."),
        (_state(), "Backfill under way, at most 60 studies a minute: 20 of 45 studies read, 12"),
        (_state(running=False), "Backfill finished: 20 of 45"),
        (_state(running=False, stopped_by="admin"), "Backfill stopped by admin: 20 of 45"),
        (
            {key: value for key, value in _state(running=False).items() if "_by" not in key},
            "Backfill ended: 20 of 45",
        ),
    ],
)
def test_how_it_is_is_said_in_a_sentence(state: dict[str, Any] | None, said: str) -> None:
    assert backfill.sentence(state).startswith(said)


@pytest.mark.parametrize("rate", [0, 90])
def test_the_rate_is_posted_as_a_program_posts(rate: int) -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json=_state(per_minute=rate))

    transport = httpx.MockTransport(answer)
    with OrthancClient("It", "http://here", "admin", "secret", transport=transport) as client:
        assert client.backfill(rate)["per_minute"] == rate
    [request] = asked
    assert (request.method, request.url.path) == ("POST", f"{API_ROOT}/backfill")
    assert json.loads(request.content) == {"per_minute": rate}
    assert request.headers[REQUEST_HEADER] == "1"
