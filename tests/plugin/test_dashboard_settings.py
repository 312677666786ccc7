"""The page of settings: all of them, where they come from, and none that is secret."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from prichexy_plugin.dashboard.routes import Site
from prichexy_plugin.effective import effective_settings, read_source_files
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.security import Role, Roles
from prichexy_testing.dashboard_reader import FakeGateway, Reader, login
from prichexy_testing.fake_orthanc import FakeOrthanc
from prichexy_testing.plugin_fakes import FakeClock, load_script

ROLES = Roles({"ada": Role.ADMINISTRATOR, "omar": Role.OPERATOR})
SECRET = "hunter2-hunter2"


def _configuration(**section: Any) -> dict[str, Any]:
    return {
        "AuthenticationEnabled": True,
        "RegisteredUsers": {"worker": SECRET, "ada": SECRET},
        "PriCheXy": {"WorkerUser": "worker", **section},
    }


def _sources(
    configuration: Mapping[str, Any], folder: Path, environment: Mapping[str, str] | None = None
) -> dict[str, str]:
    files = read_source_files(folder)
    settings = effective_settings(configuration, files, environment or {})
    return {setting.key: setting.source for setting in settings}


def _values(configuration: Mapping[str, Any]) -> dict[str, str]:
    return {setting.key: setting.value for setting in effective_settings(configuration, ())}


def test_a_setting_comes_from_a_file_from_the_environment_or_is_the_default(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.json").write_text('{"StableAge": 30}')
    (tmp_path / "b.json").write_text(
        """{
          "PriCheXy": {  // what the gateway does: "see" the docs
            "WorkerUser": "worker", /* one user */
            "Broker": {"Url": "redis://h//0", "Password": "${BROKER}", "Queue": "${QUEUE:-q}"}
          }
        }"""
    )
    (tmp_path / "c.json").write_text("{no JSON")
    broker = {"Url": "redis://h//0", "Password": SECRET, "Queue": "q"}
    whole = {**_configuration(Broker=broker), "StableAge": 30}
    found = _sources(whole, tmp_path, {"BROKER": SECRET})
    assert found["StableAge"] == "a.json"
    assert found["PriCheXy.WorkerUser"] == found["PriCheXy.Broker.Url"] == "b.json"
    assert found["PriCheXy.Broker.Password"] == "environment variable BROKER, named in b.json"
    assert found["PriCheXy.Broker.Queue"] == "QUEUE, which is not set, named in b.json"
    assert found["PriCheXy.Ledger.Url"] == found["StorageDirectory"] == "default"
    assert found["PriCheXy.Intake.Rules[0]"] == "default"
    assert found["RegisteredUsers"] == "Orthanc's configuration", "of a file that cannot be read"
    assert read_source_files(tmp_path / "absent.json") == ()


def test_values_are_told_in_words() -> None:
    rule = {"Name": "bedside", "Modality": ["DX"], "Station": ["A", "B"], "Targets": ["research"]}
    told = _values(
        _configuration(
            Intake={"Existing": False, "Rules": [rule]},
            Roles={"Administrators": ["ada"]},
            Broker={"PasswordFile": "/run/secrets/broker"},
        )
    )
    assert told["PriCheXy.Intake.Rules[0]"] == (
        "Name bedside; Modality DX; Station A, B; Targets research; Priority normal"
    )
    assert told["PriCheXy.Intake.Existing"] == "false"
    assert told["PriCheXy.Roles.Administrators"] == "ada"
    assert told["PriCheXy.Roles.Viewers"] == "none"
    assert told["PriCheXy.Broker.PasswordFile"] == "/run/secrets/broker"
    assert told["PriCheXy.Broker.Url"] == "redis://127.0.0.1:6379/0"
    assert told["PriCheXy.Ledger.Url"] == "a SQLite file in StorageDirectory"
    assert told["RegisteredUsers"].startswith("2 users")
    assert "administrator" in _values(_configuration())["PriCheXy.Roles"]


@pytest.mark.parametrize(
    "section",
    [
        {"Broker": {"Password": SECRET}},
        {"Broker": {"Url": f"redis://h:6379/0?password={SECRET}"}},
        {"Broker": {"Url": f"redis://{SECRET}@h:6379/0"}},
        {"Ledger": {"Url": f"postgresql+psycopg://u:{SECRET}@db:5432/ledger"}},
        {"Ledger": {"Url": f"postgresql+psycopg://u:12/{SECRET}@db:5432/ledger"}},
        {"Ledger": {"Url": f"postgresql+psycopg://u:a@b#{SECRET}@db:5432/ledger"}},
        {"Ledger": {"Url": f"postgresql+psycopg://db/ledger?sslpassword={SECRET}"}},
    ],
)
def test_no_secret_is_shown(section: dict[str, Any]) -> None:
    settings = effective_settings(_configuration(**section), ())
    assert SECRET not in repr(settings)
    assert "not shown" in "".join(setting.value for setting in settings[:-1])


def test_what_names_the_server_is_shown() -> None:
    url = "postgresql+psycopg://u:p@db:5432/ledger?sslmode=require"
    told = _values(_configuration(Ledger={"Url": url}))["PriCheXy.Ledger.Url"]
    assert told.startswith("postgresql+psycopg://db:5432/ledger (")


def test_only_administrators_see_the_page(ledger: Ledger, clock: FakeClock) -> None:
    settings = effective_settings(_configuration(Broker={"Password": SECRET}), ())
    site = Site(
        FakeGateway(ledger),
        problems=(),
        worker_user="worker",
        clock=clock,
        roles=ROLES,
        settings=settings,
    )
    page = Reader(site, "ada").page("/settings")
    assert all(setting.key in page.text for setting in settings)
    assert SECRET not in page.text
    omar = Reader(site, "omar")
    assert omar.ask("/settings").status == 403
    assert not [link for link in omar.page().links if "settings" in link]


def test_with_a_wrong_configuration_the_page_says_what_is_wrong(clock: FakeClock) -> None:
    site = Site(None, problems=("PriCheXy.Broker.Url: bad.",), worker_user=None, clock=clock)
    page = Reader(site, "ada").page("/settings")
    assert "PriCheXy.Broker.Url: bad." in page.text
    assert "can be shown when" in page.text


def test_the_plugin_shows_the_settings_that_orthanc_gave_it(tmp_path: Path) -> None:
    configuration = {**_configuration(), "StorageDirectory": str(tmp_path)}
    (tmp_path / "orthanc.json").write_text(json.dumps(configuration))
    orthanc = FakeOrthanc(configuration, path=str(tmp_path / "orthanc.json"))
    load_script(orthanc)
    page = orthanc.request("GET", "/prichexy/settings", headers=login("ada")).body
    assert "PriCheXy.WorkerUser" in page
    assert "orthanc.json" in page
    assert SECRET not in page
