"""The section "PriCheXy" of Orthanc's configuration."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from prichexy_plugin.audit_messages import Source
from prichexy_plugin.broker import BrokerTls
from prichexy_plugin.chain import read_key
from prichexy_plugin.intake import Rank, Rule
from prichexy_plugin.limits import DEFAULTS, Limits
from prichexy_plugin.retention import Rules
from prichexy_plugin.section import SettingsError
from prichexy_plugin.security import Role, Roles
from prichexy_plugin.settings import Audit, Settings, read_settings
from prichexy_plugin.syslog import TlsSender, UdpSender
from prichexy_testing.certificates import Authority
from prichexy_worker.contract import State

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
    assert settings.limits == DEFAULTS
    assert settings.roles == Roles(), "each user is an administrator, as Orthanc itself has it"


def test_the_ledger_lies_in_orthancs_storage_relative_to_its_configuration() -> None:
    assert _read(StorageDirectory="db").ledger_url == (
        "sqlite:////etc/orthanc/db/prichexy-ledger.sqlite"
    )
    assert _read(StorageDirectory="/var/lib/x").ledger_url == (
        "sqlite:////var/lib/x/prichexy-ledger.sqlite"
    )


def test_everything_can_be_set(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("hush\n")
    for name in ("ca.pem", "own.pem", "own.key"):
        (tmp_path / name).write_text(name)
    (tmp_path / "own.key").chmod(0o600)
    settings = read_settings(
        {
            "AuthenticationEnabled": True,
            "RegisteredUsers": dict.fromkeys(("worker", "watch", "ada", "omar", "vera"), "x"),
            "StableAge": 5,
            "PriCheXy": {
                "Broker": {
                    "Url": "rediss://redis:6380/1",
                    "User": "gateway",
                    "PasswordFile": "password",
                    "CaFile": "ca.pem",
                    "CertificateFile": "own.pem",
                    "KeyFile": "own.key",
                    "Queue": "q",
                },
                "Ledger": {
                    "Url": "postgresql+psycopg://ledger@db/prichexy",
                    "PasswordFile": "password",
                },
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
                            "Targets": ["research", "long-term"],
                            "Priority": "urgent",
                            "Queue": "gpu",
                        }
                    ],
                },
                "Retention": {
                    "ExportedDays": 30,
                    "RejectedDays": 2,
                    "PicturesDays": 7,
                    "LedgerDays": 365,
                },
                "Limits": {"ChangesPerMinute": 30, "PicturesPerMinute": None},
                "Models": {"Store": "models"},
                "Pseudonyms": {"AcceptKeys": ["0123456789abcdef"]},
                "WorkerUser": "worker",
                "MonitorUser": "watch",
                "Roles": {"Administrators": ["ada"], "Operators": ["omar"], "Viewers": ["vera"]},
            },
        },
        tmp_path,
    )
    assert settings == Settings(
        broker_url="rediss://redis:6380/1",
        broker_user="gateway",
        broker_password=SecretStr("hush"),
        broker_tls=BrokerTls(tmp_path / "ca.pem", tmp_path / "own.pem", tmp_path / "own.key"),
        queue="q",
        ledger_url="postgresql+psycopg://ledger@db/prichexy",
        ledger_password=SecretStr("hush"),
        rules=(
            Rule(
                name="portable",
                modality=frozenset({"DX"}),
                sop_class=frozenset({"1.2.840.10008.5.1.4.1.1.1.1"}),
                body_part=frozenset({"CHEST"}),
                view=frozenset({"AP"}),
                calling_aet=frozenset({"DX1"}),
                station=frozenset({"ROOM 1"}),
                targets=frozenset({"research", "long-term"}),
                priority=Rank.URGENT,
                queue="gpu",
            ),
        ),
        take_existing=False,
        worker_user="worker",
        monitor_user="watch",
        stable_age=5.0,
        storage=tmp_path / "OrthancStorage",
        roles=Roles({"ada": Role.ADMINISTRATOR, "omar": Role.OPERATOR, "vera": Role.VIEWER}),
        audit=Audit(
            digest=settings.audit.digest,
            key=None,
            retired_keys=(),
            sender=None,
            source=Source(""),
        ),
        retention=Rules(
            originals={State.EXPORTED: timedelta(days=30), State.REJECTED: timedelta(days=2)},
            pictures=timedelta(days=7),
            ledger=timedelta(days=365),
        ),
        limits=Limits(changes=30, pictures=None),
        model_store=tmp_path / "models",
        accepted_keys=frozenset({"0123456789abcdef"}),
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
        ({"MonitorUser": "nobody"}, "PriCheXy.MonitorUser: is not one of RegisteredUsers"),
        ({"MonitorUser": "worker"}, "PriCheXy.MonitorUser: is the WorkerUser"),
        ({"Broker": {"Queue": "a b"}}, "PriCheXy.Broker.Queue: "),
        ({"Broker": {"User": "me"}}, "PriCheXy.Broker: User is only given"),
        ({"Broker": {"User": "a:b", "Password": "hush"}}, "PriCheXy.Broker.User: "),
        ({"Broker": {"CaFile": "x"}}, "PriCheXy.Broker: CaFile and CertificateFile are for"),
        (
            {"Broker": {"Url": "rediss://x", "KeyFile": "x"}},
            "PriCheXy.Broker: CertificateFile and KeyFile are only given",
        ),
        ({"Broker": {"Url": "rediss://x", "CaFile": "x"}}, "PriCheXy.Broker.CaFile: cannot be"),
        ({"Ledger": {"Url": "not a url"}}, "PriCheXy.Ledger: Url "),
        ({"Ledger": {"Url": "mysql://x/y"}}, "PriCheXy.Ledger: Url must be one of"),
        ({"Ledger": {"Password": "hush"}}, "PriCheXy.Ledger: Password and PasswordFile are for"),
        (
            {"Ledger": {"Url": "postgresql://a:hush@x/y", "Password": "hush"}},
            "PriCheXy.Ledger: Url holds a password",
        ),
        (
            {"Intake": {"Rules": [{"Name": "a", "Priority": "hush"}]}},
            "PriCheXy.Intake.Rules[0].Priority: ",
        ),
        (
            {"Intake": {"Rules": [{"Name": "a", "Queue": "hush!"}]}},
            "PriCheXy.Intake.Rules[0].Queue: ",
        ),
        ({"Intake": {"Rules": [{"Modality": ["CR"]}]}}, "PriCheXy.Intake.Rules[0].Name: "),
        ({"Intake": {"Rules": [{"Name": "a", "Modality": "CR"}]}}, "PriCheXy.Intake.Rules[0].Mod"),
        ({"Intake": {"Rules": [{"Name": "a"}, {"Name": "a"}]}}, "PriCheXy.Intake: two Rules "),
        (
            {"Intake": {"Rules": [{"Name": "a", "Targets": ["a", "hush!"]}]}},
            "PriCheXy.Intake.Rules[0].Targets[1]: has no form",
        ),
        ({"Intake": {"Existing": "yes"}}, "PriCheXy.Intake.Existing: "),
        ({"WorkerUser": ""}, "PriCheXy.WorkerUser: "),
        ({"Roles": {"Admins": []}}, "PriCheXy.Roles.Admins: "),
        ({"Roles": {"Viewers": "worker"}}, "PriCheXy.Roles.Viewers: "),
        (
            {"Roles": {"Viewers": ["a"], "Operators": ["a"]}},
            "PriCheXy.Roles: a user is named twice",
        ),
        ({"Roles": {"Viewers": ["worker"]}}, "PriCheXy.Roles: WorkerUser "),
        ({"Roles": {"Viewers": ["nobody"]}}, "PriCheXy.Roles: names a user that is not one of "),
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


def test_without_rules_everything_is_kept_and_nobody_is_told() -> None:
    settings = _read()
    assert settings.retention == Rules()
    assert settings.audit.key is None
    assert settings.audit.sender is None


def test_the_trail_may_have_a_key_and_a_syslog_server(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    own = authority.pair("gateway", host="")
    key = tmp_path / "audit.key"
    key.write_text("k" * 64 + "\n")
    key.chmod(0o600)
    syslog = {
        "Url": "tls://logs.example:6515",
        "CAFile": authority.certificate.name,
        "CertificateFile": own.certificate.name,
        "KeyFile": own.key.name,
        "SourceID": "ward 3",
        "SiteID": "clinic",
    }
    former = tmp_path / "former.key"
    former.write_text("f" * 64 + "\n")
    former.chmod(0o600)
    keys = {"KeyFile": "audit.key", "RetiredKeyFiles": ["former.key"]}
    section = {"WorkerUser": "worker", "Audit": {**keys, "Syslog": syslog}}
    audit = read_settings({**LOGIN, "PriCheXy": section}, tmp_path).audit
    assert audit.key is not None
    assert audit.retired_keys == (read_key(former),)
    assert isinstance(audit.sender, TlsSender)
    assert audit.source == Source("ward 3", "clinic")
    assert "k" * 64 not in repr(audit)
    plain = _read({"Audit": {"Syslog": {"Url": "udp://logs.example"}}}).audit
    assert isinstance(plain.sender, UdpSender)
    assert plain.source == Source("prichexy")
    for file, name in (
        (key, "Audit.KeyFile"),
        (former, "Audit.RetiredKeyFiles"),
        (own.key, "Audit.Syslog.KeyFile"),
    ):
        file.chmod(0o640)
        with pytest.raises(SettingsError) as caught:
            read_settings({**LOGIN, "PriCheXy": section}, tmp_path)
        [found] = caught.value.problems
        assert found == f"PriCheXy.{name}: others can read or alter the file; chmod 600 it."
        file.chmod(0o400)


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ({"Audit": {"KeyFile": "absent"}}, "Audit.KeyFile: cannot be read."),
        ({"Audit": {"KeyFile": "short"}}, "Audit.KeyFile: holds less than 32 characters."),
        (
            {"Audit": {"RetiredKeyFiles": ["short"]}},
            "Audit: RetiredKeyFiles are only given together with KeyFile.",
        ),
        ({"Audit": {"Syslog": {"Url": "tcp://hush:1"}}}, "Audit.Syslog: Url must look like"),
        ({"Audit": {"Syslog": {"Url": "tls://x", "CAFile": "absent"}}}, "CAFile: cannot be read."),
        (
            {"Audit": {"Syslog": {"Url": "tls://x", "KeyFile": "short"}}},
            "Audit.Syslog: set both CertificateFile and KeyFile, or neither.",
        ),
        (
            {"Audit": {"Syslog": {"Url": "udp://x", "CAFile": "short"}}},
            "Audit.Syslog: CAFile and CertificateFile go with a tls:// Url.",
        ),
        (
            {
                "Audit": {
                    "Syslog": {"Url": "tls://x", "KeyFile": "short", "CertificateFile": "short"}
                }
            },
            "Audit.Syslog.CertificateFile, KeyFile: cannot be read, or do not fit.",
        ),
        ({"Retention": {"ExportedDays": 0}}, "Retention.ExportedDays: "),
        ({"Retention": {"PicturesDays": "7"}}, "Retention.PicturesDays: "),
    ],
)
def test_what_is_wrong_with_audit_and_retention_is_named(
    tmp_path: Path, section: dict[str, Any], problem: str
) -> None:
    (tmp_path / "short").write_text("hush")
    with pytest.raises(SettingsError) as caught:
        read_settings({**LOGIN, "PriCheXy": {"WorkerUser": "worker", **section}}, tmp_path)
    [found] = caught.value.problems
    assert problem in found
    assert "hush" not in found


def test_the_digest_of_the_settings_tells_changes_and_not_the_password() -> None:
    first = _read({"Broker": {"Password": "one"}}).audit.digest
    assert _read({"Broker": {"Password": "two"}}).audit.digest == first
    assert _read({"Broker": {"Queue": "other"}}).audit.digest != first
    for url in (
        "postgresql://anna:{}@db/prichexy",
        "postgresql://anna:{}/?#@db/prichexy",
        "postgresql://anna@db/prichexy?password={}",
        "postgresql://anna@db/prichexy?sslmode=require&sslpassword={}",
    ):
        one, two = (_read({"Ledger": {"Url": url.format(word)}}).audit.digest for word in "ab")
        assert one == two, url
        assert _read({"Ledger": {"Url": url.replace("@db", "@other")}}).audit.digest != one
    one, two = (
        _read({"Broker": {"Url": f"redis://h:6379/0?password={word}"}}).audit.digest
        for word in "ab"
    )
    assert one == two
