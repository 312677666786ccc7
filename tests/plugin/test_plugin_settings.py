"""The section "PriCheXy" of Orthanc's configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from prichexy_plugin.intake import Rule
from prichexy_plugin.settings import Settings, SettingsError, read_settings

FOLDER = Path("/etc/orthanc")


LOGIN: dict[str, Any] = {"AuthenticationEnabled": True, "RegisteredUsers": {"worker": "x"}}


def _read(section: dict[str, Any] | None = None, **orthanc: Any) -> Settings:
    whole = {"WorkerUser": "worker", **(section or {})}
    return read_settings({**LOGIN, **orthanc, "PriCheXy": whole}, FOLDER)


def _problems(section: Any, **orthanc: Any) -> tuple[str, ...]:
    if isinstance(section, dict):
        section = {"WorkerUser": "worker", **section}
    with pytest.raises(SettingsError) as caught:
        read_settings({**LOGIN, **orthanc, "PriCheXy": section}, FOLDER)
    return caught.value.problems


def test_without_a_workers_user_nothing_runs_and_the_key_is_named() -> None:
    for section in ({}, {"WorkerUser": None}):
        with pytest.raises(SettingsError) as caught:
            read_settings({**LOGIN, "PriCheXy": section}, FOLDER)
        assert caught.value.problems[0].startswith("PriCheXy.WorkerUser: ")
    with pytest.raises(SettingsError, match=r"PriCheXy.WorkerUser: "):
        read_settings(LOGIN, FOLDER)


def test_without_a_section_the_defaults_take_cr_and_dx_of_the_chest() -> None:
    settings = _read()
    assert settings.rules == (
        Rule(
            "chest radiographs",
            modality=frozenset({"CR", "DX"}),
            body_part=frozenset({"CHEST"}),
        ),
    )
    assert settings.broker_url == "redis://127.0.0.1:6379/0"
    assert settings.broker_password is None
    assert settings.queue == "prichexy"
    assert settings.worker_user == "worker"
    assert settings.take_existing
    assert settings.stable_age == 60


def test_the_ledger_lies_in_orthancs_storage_relative_to_its_configuration() -> None:
    assert _read(StorageDirectory="db").ledger_url == (
        "sqlite:////etc/orthanc/db/prichexy-ledger.sqlite"
    )
    assert _read(StorageDirectory="/var/lib/x").ledger_url == (
        "sqlite:////var/lib/x/prichexy-ledger.sqlite"
    )


def test_everything_can_be_set(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("hush\n")
    settings = read_settings(
        {
            "AuthenticationEnabled": True,
            "RegisteredUsers": {"worker": "x"},
            "StableAge": 5,
            "PriCheXy": {
                "Broker": {
                    "Url": "rediss://redis:6380/1",
                    "PasswordFile": "password",
                    "Queue": "q",
                },
                "Ledger": {"Url": "postgresql+psycopg://ledger@db/prichexy"},
                "Intake": {
                    "Existing": False,
                    "Rules": [
                        {
                            "Name": "portable",
                            "Modality": ["dx"],
                            "SOPClass": ["1.2.840.10008.5.1.4.1.1.1.1"],
                            "BodyPart": ["Chest"],
                            "View": ["AP"],
                            "CallingAET": ["DX1"],
                            "Station": ["room 1 "],
                        }
                    ],
                },
                "WorkerUser": "worker",
            },
        },
        tmp_path,
    )
    assert settings == Settings(
        broker_url="rediss://redis:6380/1",
        broker_password=SecretStr("hush"),
        queue="q",
        ledger_url="postgresql+psycopg://ledger@db/prichexy",
        rules=(
            Rule(
                name="portable",
                modality=frozenset({"DX"}),
                sop_class=frozenset({"1.2.840.10008.5.1.4.1.1.1.1"}),
                body_part=frozenset({"CHEST"}),
                view=frozenset({"AP"}),
                calling_aet=frozenset({"DX1"}),
                station=frozenset({"ROOM 1"}),
            ),
        ),
        take_existing=False,
        worker_user="worker",
        stable_age=5.0,
    )


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("text", "PriCheXy: "),
        ({"Brokr": {}}, "PriCheXy.Brokr: "),
        ({"Broker": {"url": "redis://x"}}, "PriCheXy.Broker.url: "),
        ({"Broker": {"Url": 5}}, "PriCheXy.Broker.Url: "),
        ({"Broker": {"Url": "http://x"}}, "PriCheXy.Broker: Url "),
        ({"Broker": {"Url": "redis://"}}, "PriCheXy.Broker: Url "),
        ({"Broker": {"Url": "redis://:hush@x"}}, "PriCheXy.Broker: Url must not hold a password"),
        ({"Broker": {"Password": "hush", "PasswordFile": "x"}}, "PriCheXy.Broker: set Password "),
        ({"Broker": {"PasswordFile": "absent"}}, "PriCheXy.Broker.PasswordFile: cannot be read"),
        ({"Broker": {"Queue": ""}}, "PriCheXy.Broker.Queue: "),
        ({"Ledger": {"Url": "not a url"}}, "PriCheXy.Ledger: Url "),
        ({"Intake": {"Rules": [{"Modality": ["CR"]}]}}, "PriCheXy.Intake.Rules[0].Name: "),
        ({"Intake": {"Rules": [{"Name": "a", "Modality": "CR"}]}}, "PriCheXy.Intake.Rules[0].Mod"),
        ({"Intake": {"Rules": [{"Name": "a"}, {"Name": "a"}]}}, "PriCheXy.Intake: two Rules "),
        ({"Intake": {"Existing": "yes"}}, "PriCheXy.Intake.Existing: "),
        ({"WorkerUser": ""}, "PriCheXy.WorkerUser: "),
    ],
)
def test_what_is_wrong_is_named_by_its_key(section: Any, key: str) -> None:
    problems = _problems(section)
    assert len(problems) == 1
    assert problems[0].startswith(key)
    assert "hush" not in problems[0]


def test_every_wrong_key_is_named_at_once() -> None:
    problems = _problems({"Broker": {"Url": 5}, "Intake": {"Rules": "all"}})
    assert [text.partition(":")[0] for text in problems] == [
        "PriCheXy.Broker.Url",
        "PriCheXy.Intake.Rules",
    ]


def test_an_empty_password_is_none_since_an_unset_variable_expands_to_it() -> None:
    assert _read({"Broker": {"Password": ""}}).broker_password is None


def test_an_empty_password_file_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(SettingsError, match=r"PriCheXy.Broker.PasswordFile: is empty"):
        section = {"WorkerUser": "worker", "Broker": {"PasswordFile": "empty"}}
        read_settings({**LOGIN, "PriCheXy": section}, tmp_path)


def test_a_key_that_the_plugin_does_not_know_is_named_in_plain_words() -> None:
    assert _problems({"WorkerUser": "worker", "Brokre": {}}, **LOGIN) == (
        "PriCheXy.Brokre: is no key of this plugin; see the documentation for those that are.",
    )


def test_a_workers_user_needs_orthancs_authentication() -> None:
    section = {"WorkerUser": "worker"}
    users = {"worker": "x"}
    for orthanc in (
        {"AuthenticationEnabled": False, "RegisteredUsers": users},
        {"RegisteredUsers": users},
        {"RegisteredUsers": users, "RemoteAccessAllowed": False},
    ):
        with pytest.raises(SettingsError, match="AuthenticationEnabled"):
            read_settings({**orthanc, "PriCheXy": section}, FOLDER)
    assert "RegisteredUsers" in _problems({"WorkerUser": "w"})[0]
    remote = {"RemoteAccessAllowed": True, "RegisteredUsers": users, "PriCheXy": section}
    assert read_settings(remote, FOLDER).worker_user == "worker"


def test_a_secret_does_not_show_in_the_settings_text() -> None:
    assert "hush" not in repr(_read({"Broker": {"Password": "hush"}}))
