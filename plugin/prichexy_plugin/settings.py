"""What the plugin is set to: the section "PriCheXy" of Orthanc's configuration with its files.

``section`` has the keys and their defaults.
"""

from __future__ import annotations

import hashlib
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr
from sqlalchemy.engine import URL, make_url

from prichexy_plugin.audit_messages import Source
from prichexy_plugin.broker import BrokerTls
from prichexy_plugin.chain import ChainKey, read_key
from prichexy_plugin.intake import Rule
from prichexy_plugin.limits import Limits
from prichexy_plugin.retention import Rules
from prichexy_plugin.section import (
    SECTION,
    BrokerPart,
    PartWithPassword,
    Section,
    SettingsError,
    SyslogPart,
    parse_section,
)
from prichexy_plugin.security import Roles
from prichexy_plugin.syslog import Sender, TlsSender, UdpSender

__all__ = ["Audit", "Settings", "read_settings"]

LEDGER_FILE: Final = "prichexy-ledger.sqlite"


@dataclass(frozen=True, slots=True)
class Audit:
    """How the audit trail is kept and told.

    ``digest`` is the SHA-256 of the plugin's section, without its passwords. ``retired_keys`` are
    those of older lines. ``sender`` is None where no syslog server is told.
    """

    digest: str
    key: ChainKey | None
    retired_keys: tuple[ChainKey, ...]
    sender: Sender | None
    source: Source


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that the plugin is told.

    ``stable_age`` (seconds) and the folder ``storage`` are Orthanc's. ``broker_url`` has no
    password in it. Nor has ``ledger_url`` where ``ledger_password`` is given. With
    ``take_existing`` False a new ledger begins behind what Orthanc holds already.
    """

    broker_url: str
    broker_user: str | None
    broker_password: SecretStr | None
    broker_tls: BrokerTls
    queue: str
    ledger_url: str
    ledger_password: SecretStr | None
    rules: tuple[Rule, ...]
    take_existing: bool
    worker_user: str
    monitor_user: str | None
    stable_age: float
    storage: Path
    roles: Roles
    audit: Audit
    retention: Rules
    limits: Limits
    #: The folder of the model store, if the dashboard is to show it.
    model_store: Path | None
    #: Ids of pseudonyms' keys that workers may have whatever was exported under before.
    accepted_keys: frozenset[str]


def read_settings(configuration: Mapping[str, Any], folder: Path) -> Settings:
    """Read Orthanc's whole configuration; relative paths in it start at ``folder``.

    Raises SettingsError with every problem that was found.
    """
    section = parse_section(configuration)
    problems = (
        *_service_user_problems(section, configuration),
        *_role_problems(section, configuration),
    )
    if problems:
        raise SettingsError(problems)
    return Settings(
        broker_url=section.broker.url,
        broker_user=section.broker.user,
        broker_password=_password(section.broker, folder, "Broker"),
        broker_tls=_broker_tls(section.broker, folder),
        queue=section.broker.queue,
        ledger_url=section.ledger.url or _default_ledger(configuration, folder),
        ledger_password=_password(section.ledger, folder, "Ledger"),
        rules=tuple(rule.to_rule(section.broker.queue) for rule in section.intake.rules),
        take_existing=section.intake.existing,
        worker_user=section.worker_user,
        monitor_user=section.monitor_user,
        stable_age=float(configuration.get("StableAge", 60)),
        storage=_storage(configuration, folder),
        roles=Roles() if section.roles is None else section.roles.to_roles(),
        audit=_audit(section, folder),
        retention=section.retention.to_rules(),
        limits=section.limits.to_limits(),
        # "" as well: ``${VARIABLE:-}`` expands to that when it is not set.
        model_store=folder / section.models.store if section.models.store else None,
        accepted_keys=frozenset(section.pseudonyms.accept_keys),
    )


def _audit(section: Section, folder: Path) -> Audit:
    """Read the files that the section "Audit" names. Raises SettingsError."""
    passwords = {"broker": {"password"}, "ledger": {"password"}}
    values = section.model_dump(mode="json", exclude=passwords)
    for part in passwords:
        values[part]["url"] = _without_passwords(values[part]["url"])
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    key_file = section.audit.key_file
    syslog = section.audit.syslog
    return Audit(
        digest=hashlib.sha256(text.encode()).hexdigest(),
        key=None if key_file is None else _chain_key(folder / key_file, "KeyFile"),
        retired_keys=tuple(
            _chain_key(folder / file, "RetiredKeyFiles") for file in section.audit.retired_key_files
        ),
        sender=None if syslog is None else _sender(syslog, folder),
        source=Source("") if syslog is None else syslog.to_source(),
    )


def _chain_key(file: Path, name: str) -> ChainKey:
    """Read a key of the audit trail's digests. Raises SettingsError."""
    try:
        key = read_key(file)
    except OSError:
        raise SettingsError((f"{SECTION}.Audit.{name}: cannot be read.",)) from None
    except ValueError as error:
        raise SettingsError((f"{SECTION}.Audit.{name}: {error}.",)) from None
    _check_alone(file, f"Audit.{name}")
    return key


def _sender(syslog: SyslogPart, folder: Path) -> Sender:
    address = syslog.address()
    if address.scheme == "udp":
        return UdpSender(address)
    try:
        trusted = None if syslog.ca_file is None else str(folder / syslog.ca_file)
        context = ssl.create_default_context(cafile=trusted)
    except OSError:
        raise SettingsError((f"{SECTION}.Audit.Syslog.CAFile: cannot be read.",)) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if syslog.certificate_file is not None and syslog.key_file is not None:
        try:
            context.load_cert_chain(folder / syslog.certificate_file, folder / syslog.key_file)
        except OSError:
            names = f"{SECTION}.Audit.Syslog.CertificateFile, KeyFile"
            raise SettingsError((f"{names}: cannot be read, or do not fit.",)) from None
        _check_alone(folder / syslog.key_file, "Audit.Syslog.KeyFile")
    return TlsSender(address, context)


def _service_user_problems(section: Section, configuration: Mapping[str, Any]) -> list[str]:
    # Orthanc's own default when the key is absent.
    default = bool(configuration.get("RemoteAccessAllowed", False))
    if not configuration.get("AuthenticationEnabled", default):
        return [f"{SECTION}.WorkerUser: needs AuthenticationEnabled to be true."]
    registered = configuration.get("RegisteredUsers", {})
    if section.worker_user not in registered:
        return [f"{SECTION}.WorkerUser: is not one of RegisteredUsers."]
    if section.monitor_user == section.worker_user:
        return [f"{SECTION}.MonitorUser: is the WorkerUser; give it a user of its own."]
    if section.monitor_user is not None and section.monitor_user not in registered:
        return [f"{SECTION}.MonitorUser: is not one of RegisteredUsers."]
    return []


def _role_problems(section: Section, configuration: Mapping[str, Any]) -> list[str]:
    if section.roles is None:
        return []
    named = section.roles.to_roles().named or {}
    if section.worker_user in named:
        return [f"{SECTION}.Roles: WorkerUser is for workers and takes no role."]
    if section.monitor_user in named:
        return [f"{SECTION}.Roles: MonitorUser is for monitoring and takes no role."]
    if not named.keys() <= set(configuration.get("RegisteredUsers", {})):
        return [f"{SECTION}.Roles: names a user that is not one of RegisteredUsers."]
    return []


def _password(part: PartWithPassword, folder: Path, name: str) -> SecretStr | None:
    if part.password_file is None:
        return part.given_password
    try:
        text = (folder / part.password_file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise SettingsError((f"{SECTION}.{name}.PasswordFile: cannot be read.",)) from None
    if not text:
        raise SettingsError((f"{SECTION}.{name}.PasswordFile: is empty.",))
    return SecretStr(text)


def _broker_tls(broker: BrokerPart, folder: Path) -> BrokerTls:
    """Give the files, which can be read and of which nobody else reads the key."""
    files = {
        "CaFile": broker.ca_file,
        "CertificateFile": broker.certificate_file,
        "KeyFile": broker.key_file,
    }
    found: dict[str, Path | None] = {}
    for key, file in files.items():
        found[key] = None if file is None else folder / file
        if file is None:
            continue
        try:
            (folder / file).read_bytes()
        except OSError:
            raise SettingsError((f"{SECTION}.Broker.{key}: cannot be read.",)) from None
        if key == "KeyFile":
            _check_alone(folder / file, f"Broker.{key}")
    return BrokerTls(found["CaFile"], found["CertificateFile"], found["KeyFile"])


def _check_alone(file: Path, name: str) -> None:
    """Raise SettingsError when others than this user can read or alter a secret's file."""
    if file.stat().st_mode & 0o077:
        text = "others can read or alter the file; chmod 600 it"
        raise SettingsError((f"{SECTION}.{name}: {text}.",))


def _without_passwords(address: str | None) -> str | None:
    """Give an address that was accepted without the passwords in it, also those of its query."""
    if address is None:
        return None
    url = make_url(address)
    query = {key: value for key, value in url.query.items() if "password" not in key.casefold()}
    bare = URL.create(url.drivername, url.username, None, url.host, url.port, url.database, query)
    return bare.render_as_string()


def _default_ledger(configuration: Mapping[str, Any], folder: Path) -> str:
    return f"sqlite:///{_storage(configuration, folder) / LEDGER_FILE}"


def _storage(configuration: Mapping[str, Any], folder: Path) -> Path:
    return (folder / str(configuration.get("StorageDirectory", "OrthancStorage"))).absolute()
