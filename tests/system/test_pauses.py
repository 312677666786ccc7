"""An export that is paused in a running gateway: real Orthancs, plugin, Redis and worker."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from prichexy_testing.dashboard_reader import filled_in
from prichexy_testing.gateway import TestGateway, gateway_in
from prichexy_testing.servers import wait_until
from prichexy_testing.system_data import radiographs
from prichexy_worker.contract import Reason, State

pytestmark = [pytest.mark.orthanc, pytest.mark.redis]


def submit(gateway: TestGateway, **chosen: str) -> None:
    """Send a form of the page of pauses, as a person does."""
    with gateway.ingest() as ingest:
        url = ingest.url
    login = ("admin", gateway.home.password("admin"))
    with httpx.Client(base_url=url, auth=login, trust_env=False, timeout=60) as browser:
        page = browser.get("/prichexy/pauses")
        data = filled_in(page.text, chosen)
        answer = browser.post("/prichexy/pauses", data=data, headers={"Origin": url})
    assert answer.status_code == 303


def at_the_target(gateway: TestGateway) -> int:
    with gateway.export() as export:
        return len(export.all_studies())


def test_nothing_leaves_while_the_export_is_paused_and_all_of_it_afterwards(tmp_path: Path) -> None:
    with gateway_in(tmp_path) as gateway:
        submit(gateway, stage="export", reason=Reason.PAUSED_DOUBT.value)
        assert gateway.send(radiographs(tmp_path, 1, 3)).stored == 3
        wait_until(
            lambda: [row.state for row in gateway.rows().values()] == [State.PENDING] * 3,
            120,
            "all are taken in",
        )
        # Over a restart of Orthanc, too.
        gateway.kill("ingest")
        gateway.start("ingest")
        assert "The export is paused since" in gateway.command("status")
        assert {row.state for row in gateway.rows().values()} == {State.PENDING}
        assert at_the_target(gateway) == 0
        submit(gateway, stage="export")
        rows = gateway.until_ended()
        assert {row.state for row in rows.values()} == {State.EXPORTED}
        assert {row.attempts for row in rows.values()} == {1}
        assert at_the_target(gateway) == 3
        assert "paused" not in gateway.command("status")
