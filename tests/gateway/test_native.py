"""Starting a native gateway: a plugin that cannot do its work is said before anything is sent."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from prichexy_gateway import native
from prichexy_gateway.client import OrthancClient
from prichexy_gateway.errors import Failed
from prichexy_worker.contract import SOFTWARE_VERSION

NOTED: list[str] = []
PLAN: Any = SimpleNamespace(home=SimpleNamespace(note_ledger=NOTED.append), addresses=None)


def plugin_saying(monkeypatch: pytest.MonkeyPatch, *healths: tuple[str, list[str]]) -> None:
    """Play a plugin that says this of its ledger and its problems, and then the last of it."""
    left = [*healths]

    def answer(_request: httpx.Request) -> httpx.Response:
        ledger, problems = left.pop(0) if len(left) > 1 else left[0]
        health = {"software": SOFTWARE_VERSION, "ledger": ledger, "problems": problems}
        return httpx.Response(
            200,
            json=health
            | {
                "ledger_place": "postgresql",
                "broker": {"reachable": True},
                "counts": {},
                "workers": [],
            },
        )

    transport = httpx.MockTransport(answer)
    client = OrthancClient("The ingest Orthanc", "http://h", "u", "p", transport=transport)
    monkeypatch.setattr(native, "ingest_client", lambda *_: client)
    monkeypatch.setattr(native, "_TROUBLE_PASSES_WITHIN", 0.3)


def test_a_ledger_that_opens_a_moment_later_and_a_trouble_that_passes_are_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plugin_saying(
        monkeypatch, ("not opened yet", []), ("ok", ["watching: Orthanc is busy."]), ("ok", [])
    )
    monkeypatch.setattr(native, "_TROUBLE_PASSES_WITHIN", 120.0)
    native._check_plugin(PLAN, None)
    assert NOTED == ["postgresql"], "where the ledger is, for backups"


@pytest.mark.parametrize(
    ("ledger", "problems", "said"),
    [
        (
            "not opened: the configuration is wrong",
            ["PriCheXy.Broker.Url: no."],
            r"in ingest\.json is wrong\. PriCheXy\.Broker\.Url: no\.",
        ),
        ("is of schema 2, which …", ["watching: the ledger …"], "ledger is of schema 2, which …"),
        ("ok", ["watching: Orthanc does not answer."], "cannot work. watching: Orthanc does not"),
    ],
)
def test_what_keeps_the_plugin_from_its_work_ends_the_start(
    monkeypatch: pytest.MonkeyPatch, ledger: str, problems: list[str], said: str
) -> None:
    plugin_saying(monkeypatch, (ledger, problems))
    with pytest.raises(Failed, match=said):
        native._check_plugin(PLAN, None)
