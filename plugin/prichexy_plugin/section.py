"""The section "PriCheXy" of Orthanc's configuration, read strictly and once.

Every key but WorkerUser may be left out; these are the defaults::

    "PriCheXy": {
      "Broker": {
        "Url": "redis://127.0.0.1:6379/0",  // rediss:// for TLS; no password in here
        "Password": "",                     // for instance "${PRICHEXY_BROKER_PASSWORD}"
        "PasswordFile": null,               // or a file that holds it
        "User": null,                       // of Redis's ACL, with its password
        "CaFile": null,                     // for rediss://, of a private authority
        "CertificateFile": null,            // our own, for a Redis that asks for one
        "KeyFile": null,                    // of that certificate; mode 0600 or 0400
        "Queue": "prichexy"                 // the workers'; a rule may name another
      },
      "Ledger": {
        "Url": null,                        // SQLAlchemy; null: a file in StorageDirectory
        "Password": "",                     // of postgresql://user@host/database
        "PasswordFile": null
      },
      "Intake": {
        "Existing": true,                   // a new ledger takes in what Orthanc holds already
        "Rules": [{"Name": "chest radiographs", "Modality": ["CR", "DX"], "BodyPart": ["CHEST"]}]
      },
      "Audit": {
        "KeyFile": null,                    // a key of the trail's digests
        "RetiredKeyFiles": [],              // those of its older lines
        "Syslog": null                      // or {"Url": "tls://host:6514", …}: PS3.15 A.5 messages
      },
      "Retention": {"ExportedDays": null},  // and others; null: kept for ever
      "Limits": {"ChangesPerMinute": 60},   // and others, of each user on the dashboard; null: none
      "Models": {"Store": null},            // the model store's folder, for the page of models
      "Pseudonyms": {"AcceptKeys": []},     // ids of keys that are right whatever was before
      "WorkerUser": "worker",               // the one user of Orthanc that may report; no default
      "MonitorUser": null,                  // a user that may read how the gateway is doing only
      "Roles": null                         // null: each other user of Orthanc may do everything;
    }                                       // or {"Administrators": [], "Operators": [],
                                            // "Viewers": []} and nobody else

A rule has a Name and any of Modality, SOPClass, BodyPart, View, CallingAET and Station; it takes
in a study with an instance that fits all of them. Its Targets name where the study is exported to,
as the workers' settings call it; its Priority is "urgent", "normal" or "low"; its Queue names the
workers that get it. Relative paths start at the configuration's folder. A key that is wrong is
named; its value never is, since it may be a secret.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_pascal
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from prichexy_plugin.audit_messages import Source
from prichexy_plugin.intake import Rank, Rule
from prichexy_plugin.limits import DEFAULTS, Limits
from prichexy_plugin.retention import Rules
from prichexy_plugin.security import Role, Roles
from prichexy_plugin.syslog import Address
from prichexy_worker.contract import DEFAULT_QUEUE, QUEUE_NAME, TARGET_NAME, State

__all__ = [
    "SECTION",
    "BrokerPart",
    "IntakePart",
    "PartWithPassword",
    "RulePart",
    "Section",
    "SettingsError",
    "SyslogPart",
    "parse_section",
    "settings_error",
]

SECTION: Final = "PriCheXy"
#: RFC 5425 4.1 and RFC 5426 3.3.
_SYSLOG_PORTS: Final = {"tls": 6514, "udp": 514}

Text = Annotated[str, StringConstraints(min_length=1, max_length=128, strip_whitespace=True)]
Words = tuple[Annotated[Text, StringConstraints(to_upper=True)], ...]


def _target_name(name: str) -> str:
    if not TARGET_NAME.fullmatch(name):
        raise ValueError("has no form of an export target's name, such as research")
    return name


TargetName = Annotated[str, AfterValidator(_target_name)]


def _queue_name(name: str) -> str:
    if not QUEUE_NAME.fullmatch(name):
        raise ValueError("has no form of a queue's name, such as gpu")
    return name


QueueName = Annotated[str, AfterValidator(_queue_name)]


class SettingsError(Exception):
    """The configuration is wrong; ``problems`` are sentences that each begin with the key."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__(" ".join(problems))
        self.problems = problems


class Part(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        alias_generator=to_pascal,
    )


class PartWithPassword(Part):
    """A server that may ask for a password: given, in a file, or none."""

    password: SecretStr | None = None
    password_file: Path | None = None

    @model_validator(mode="after")
    def _one_password(self) -> Self:
        if self.given_password is not None and self.password_file is not None:
            raise ValueError("set Password or PasswordFile, not both")
        return self

    @property
    def given_password(self) -> SecretStr | None:
        """None for "" as well: ``${VARIABLE:-}`` expands to that when it is not set."""
        return self.password if self.password and self.password.get_secret_value() else None

    @property
    def has_password(self) -> bool:
        """Say whether one is given, here or in a file."""
        return self.given_password is not None or self.password_file is not None


class BrokerPart(PartWithPassword):
    """Where the workers' messages go."""

    url: Text = "redis://127.0.0.1:6379/0"
    user: Annotated[str, StringConstraints(pattern=r"^[^\s:@/]{1,128}$")] | None = None
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    queue: QueueName = DEFAULT_QUEUE

    @model_validator(mode="after")
    def _check(self) -> BrokerPart:
        parts = urlsplit(self.url)
        if parts.scheme not in ("redis", "rediss") or not parts.hostname:
            raise ValueError("Url must look like redis://host:6379/0 (or rediss:// for TLS)")
        if parts.password is not None:
            raise ValueError("Url must not hold a password; set Password or PasswordFile")
        if self.user is not None and not self.has_password:
            raise ValueError("User is only given together with its password")
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("CertificateFile and KeyFile are only given together")
        tls = self.ca_file is not None or self.certificate_file is not None
        if tls and parts.scheme != "rediss":
            raise ValueError("CaFile and CertificateFile are for a Url of rediss://")
        return self


class LedgerPart(PartWithPassword):
    url: Annotated[str, StringConstraints(min_length=1, max_length=1024)] | None = None

    @model_validator(mode="after")
    def _check(self) -> LedgerPart:
        if self.url is not None:
            try:
                url = make_url(self.url)
            except ArgumentError:
                raise ValueError("Url is not an SQLAlchemy database URL") from None
            if url.get_backend_name() not in ("sqlite", "postgresql"):
                raise ValueError("Url must be one of sqlite:/// or postgresql://")
            if url.password is not None and self.has_password:
                raise ValueError("Url holds a password, and another one is given")
        elif self.has_password:
            raise ValueError("Password and PasswordFile are for a Url of postgresql://")
        return self


class RulePart(Part):
    """An intake rule as it stands there."""

    name: Text
    modality: Words = ()
    sop_class: Words = Field(default=(), alias="SOPClass")
    body_part: Words = ()
    view: Words = ()
    calling_aet: Words = Field(default=(), alias="CallingAET")
    station: Words = ()
    targets: tuple[TargetName, ...] = ()
    priority: Literal["urgent", "normal", "low"] = "normal"
    queue: QueueName | None = None

    def to_rule(self, own_queue: str) -> Rule:
        """Give the rule; ``own_queue`` is the gateway's, which it names as ""."""
        plain = {"name", "priority", "queue"}
        lists = {key: frozenset(words) for key, words in self if key not in plain}
        queue = "" if self.queue in (None, own_queue) else str(self.queue)
        return Rule(name=self.name, priority=Rank[self.priority.upper()], queue=queue, **lists)


_CHEST: Final = RulePart.model_validate(
    {"Name": "chest radiographs", "Modality": ("CR", "DX"), "BodyPart": ("CHEST",)}
)


class IntakePart(Part):
    """What is taken in."""

    rules: tuple[RulePart, ...] = (_CHEST,)
    existing: bool = True

    @model_validator(mode="after")
    def _check(self) -> IntakePart:
        names = [rule.name for rule in self.rules]
        if len(names) != len(set(names)):
            raise ValueError("two Rules have the same Name")
        return self


class RolesPart(Part):
    administrators: tuple[Text, ...] = ()
    operators: tuple[Text, ...] = ()
    viewers: tuple[Text, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> RolesPart:
        users = [*self.administrators, *self.operators, *self.viewers]
        if len(users) != len(set(users)):
            raise ValueError("a user is named twice")
        return self

    def to_roles(self) -> Roles:
        lists = {
            Role.ADMINISTRATOR: self.administrators,
            Role.OPERATOR: self.operators,
            Role.VIEWER: self.viewers,
        }
        return Roles({user: role for role, users in lists.items() for user in users})


class SyslogPart(Part):
    """Where the audit messages go, over TLS (RFC 5425) or UDP (RFC 5426)."""

    url: Text
    ca_file: Path | None = Field(default=None, alias="CAFile")
    certificate_file: Path | None = None
    key_file: Path | None = None
    source_id: Text = Field(default="prichexy", alias="SourceID")
    site_id: Text | None = Field(default=None, alias="SiteID")

    @model_validator(mode="after")
    def _check(self) -> SyslogPart:
        self.address()
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("set both CertificateFile and KeyFile, or neither")
        if (self.ca_file or self.certificate_file) and self.address().scheme == "udp":
            raise ValueError("CAFile and CertificateFile go with a tls:// Url")
        return self

    def to_source(self) -> Source:
        """Give what the messages say that they come from."""
        return Source(self.source_id, self.site_id or "")

    def address(self) -> Address:
        """Give the server's address, with the usual port where none is named."""
        parts = urlsplit(self.url)
        try:
            port = parts.port
        except ValueError:
            port = None
        whole = parts.path or parts.query or parts.fragment or parts.username
        if parts.scheme not in ("tls", "udp") or not parts.hostname or whole:
            raise ValueError("Url must look like tls://host:6514 or udp://host:514")
        return Address(parts.scheme, parts.hostname, port or _SYSLOG_PORTS[parts.scheme])


class AuditPart(Part):
    key_file: Path | None = None
    retired_key_files: tuple[Path, ...] = ()
    syslog: SyslogPart | None = None

    @model_validator(mode="after")
    def _no_key_is_retired_for_none(self) -> Self:
        if self.retired_key_files and self.key_file is None:
            raise ValueError("RetiredKeyFiles are only given together with KeyFile")
        return self


Days = Annotated[int, Field(ge=1, le=36500)]


class RetentionPart(Part):
    exported_days: Days | None = None
    quarantined_days: Days | None = None
    failed_days: Days | None = None
    rejected_days: Days | None = None
    pictures_days: Days | None = None
    ledger_days: Days | None = None

    def to_rules(self) -> Rules:
        by_state = {
            State.EXPORTED: self.exported_days,
            State.QUARANTINED: self.quarantined_days,
            State.FAILED: self.failed_days,
            State.REJECTED: self.rejected_days,
        }
        return Rules(
            originals={
                state: timedelta(days=days) for state, days in by_state.items() if days is not None
            },
            pictures=_days(self.pictures_days),
            ledger=_days(self.ledger_days),
        )


KeyId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
PerMinute = Annotated[int, Field(ge=1, le=100_000)]


class LimitsPart(Part):
    changes_per_minute: PerMinute | None = DEFAULTS.changes
    pictures_per_minute: PerMinute | None = DEFAULTS.pictures
    searches_per_minute: PerMinute | None = DEFAULTS.searches
    refusals_per_minute: PerMinute | None = DEFAULTS.refusals

    def to_limits(self) -> Limits:
        return Limits(
            changes=self.changes_per_minute,
            pictures=self.pictures_per_minute,
            searches=self.searches_per_minute,
            refusals=self.refusals_per_minute,
        )


def _days(number: int | None) -> timedelta | None:
    return None if number is None else timedelta(days=number)


class ModelsPart(Part):
    store: str | None = None


class PseudonymsPart(Part):
    accept_keys: tuple[KeyId, ...] = ()


class Section(Part):
    """The whole section; every text is as it stands there, unread files by their names."""

    broker: BrokerPart = BrokerPart()
    ledger: LedgerPart = LedgerPart()
    intake: IntakePart = IntakePart()
    audit: AuditPart = AuditPart()
    retention: RetentionPart = RetentionPart()
    limits: LimitsPart = LimitsPart()
    models: ModelsPart = ModelsPart()
    pseudonyms: PseudonymsPart = PseudonymsPart()
    worker_user: Text
    monitor_user: Text | None = None
    roles: RolesPart | None = None


#: In plain words, by pydantic's name of the mistake.
_PLAINLY: Final = {
    "extra_forbidden": "is no key of this plugin; see the documentation for those that are",
    "missing": "is missing",
}


def parse_section(configuration: Mapping[str, Any]) -> Section:
    """Give the section as it stands, each key checked by itself. Raises SettingsError."""
    try:
        # From JSON again: only then does pydantic take a list for a tuple in strict mode.
        return Section.model_validate_json(json.dumps(configuration.get(SECTION, {})), strict=True)
    except ValidationError as error:
        raise settings_error(error) from None


def settings_error(error: ValidationError, place: tuple[int | str, ...] = ()) -> SettingsError:
    """Say in sentences what pydantic found; ``place`` is where what it was given stands."""
    return SettingsError(
        tuple(
            _sentence((*place, *item["loc"]), _PLAINLY.get(item["type"], item["msg"]))
            for item in error.errors(include_input=False, include_url=False, include_context=False)
        )
    )


def _sentence(place: tuple[int | str, ...], message: str) -> str:
    key = SECTION
    for part in place:
        key += f"[{part}]" if isinstance(part, int) else f".{part}"
    return f"{key}: {message.removeprefix('Value error, ').rstrip('.')}."
