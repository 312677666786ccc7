"""A plugin that cannot do its work yet is said, and ends no gateway but one that runs once."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from prichexy_gateway import plugin_start
from prichexy_gateway.client import OrthancClient
from prichexy_gateway.deeds import note
from prichexy_gateway.errors import Failed
from prichexy_gateway.home import Addresses, Home, Record, RunningProcess
from prichexy_gateway.plugin_start import PluginStart
from prichexy_worker.contract import SOFTWARE_VERSION

OTHERS = "belongs to another Orthanc"
MISCONFIGURED = ("not opened: the configuration is wrong", ["PriCheXy.Broker.Url: no."])


@dataclass
class Play:
    """A plugin that says this of its ledger and its problems, and then the last of it."""

    home: Home
    healths: list[tuple[str, list[str]] | None]
    deeds: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    now: float = 0.0
    asked: int = 0

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/deeds"):
            self.deeds += [deed["action"] for deed in json.loads(request.content)["deeds"]]
        if not request.url.path.endswith("/health"):
            return httpx.Response(200, json={})
        self.asked += 1
        said = self.healths.pop(0) if len(self.healths) > 1 else self.healths[0]
        if said is None:
            raise httpx.ConnectError("gone")
        ledger, problems = said
        health = {"software": SOFTWARE_VERSION, "ledger": ledger, "problems": problems}
        more = {"broker": {"reachable": True}, "counts": {}, "workers": []}
        return httpx.Response(200, json={**health, **more, "ledger_place": "postgresql"})

    def start(self, monkeypatch: pytest.MonkeyPatch, patience: float = 0.0) -> PluginStart:
        transport = httpx.MockTransport(self.answer)
        monkeypatch.setattr(
            plugin_start,
            "ingest_client",
            lambda *_: OrthancClient("Orthanc", "http://h", "u", "p", transport=transport),
        )
        monkeypatch.setattr(plugin_start, "_TROUBLE_PASSES_WITHIN", patience)
        addresses = Addresses("http://h", "h", 104, "A", "http://e", "redis://r")
        return PluginStart(self.home, addresses, self.said.append, clock=lambda: self.now)

    def noted_place(self) -> str:
        record = self.home.read_record()
        assert record is not None
        return record.ledger


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.prepare()
    addresses = Addresses("http://h", "h", 104, "A", "http://e", "redis://r")
    home.write_record(Record(addresses, "model", RunningProcess("prichexy", 1, 1)))
    note(home, "adopt", key_id="0" * 16, studies=0)
    return home


def test_a_ledger_that_opens_a_moment_later_and_a_trouble_that_passes_are_waited_for(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    play = Play(
        home, [("not opened yet", []), ("ok", ["watching: Orthanc is busy."]), None, ("ok", [])]
    )
    start = play.start(monkeypatch, patience=120.0)
    start.wait(must_work=True)
    assert start.works
    assert play.noted_place() == "postgresql", "where the ledger is, for backups"
    assert play.deeds == ["adopt"]
    assert play.said == []


@pytest.mark.parametrize(
    ("health", "said"),
    [
        (MISCONFIGURED, r"in ingest\.json is wrong\. PriCheXy\.Broker\.Url: no\."),
        (("is of schema 2, which …", ["watching: the ledger …"]), "ledger is of schema 2, which …"),
        (("ok", ["watching: Orthanc does not answer."]), "cannot work. watching: Orthanc does not"),
    ],
)
def test_what_keeps_the_plugin_from_its_work_ends_a_start_that_has_to_succeed(
    home: Home, monkeypatch: pytest.MonkeyPatch, health: tuple[str, list[str]], said: str
) -> None:
    start = Play(home, [health]).start(monkeypatch)
    with pytest.raises(Failed, match=said):
        start.wait(must_work=True)


def test_a_wrong_configuration_ends_every_start(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = Play(home, [MISCONFIGURED]).start(monkeypatch)
    with pytest.raises(Failed, match=r"in ingest\.json is wrong"):
        start.wait(must_work=False)


def test_a_ledger_that_is_away_ends_no_gateway_and_is_used_once_it_is_there(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    play = Play(home, [(OTHERS, ["watching: the ledger …"])])
    start = play.start(monkeypatch)
    start.wait(must_work=False)
    assert play.said == [
        f"The plugin cannot work. The ledger {OTHERS}. The gateway goes on; what it receives waits."
    ]
    asked = play.asked
    start.look()
    assert play.asked == asked, "it is asked now and then"
    for trouble in (None, MISCONFIGURED, (OTHERS, [])):
        play.now += 5
        play.healths = [trouble]
        start.look()
    assert (play.noted_place(), play.deeds, len(play.said)) == ("", [], 1)
    play.healths = [("ok", ["handing on: …"]), ("ok", [])]
    play.now += 5
    start.look()
    assert (play.noted_place(), play.deeds) == ("postgresql", ["adopt"])
    play.now += 5
    start.look()
    assert play.said[1:] == ["the plugin can do its work now"]
    assert play.deeds == ["adopt"], "once"
    asked = play.asked
    play.now += 5
    start.look()
    assert play.asked == asked


def test_a_full_disk_ends_no_gateway_and_is_tried_again(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    play = Play(home, [("ok", [])])
    start = play.start(monkeypatch)
    with monkeypatch.context() as full_disk:
        full_disk.setattr(Home, "write_record", full)
        start.wait(must_work=False)
    assert "cannot be noted (No space left on device)" in play.said[0]
    play.now += 5
    start.look()
    assert play.noted_place() == "postgresql"
    assert start.works
