"""The section "PriCheXy" of Orthanc's configuration, read strictly and once.

Every key but WorkerUser may be left out; these are the defaults::

    "PriCheXy": {
      "Broker": {
        "Url": "redis://127.0.0.1:6379/0",  // rediss:// for TLS; no password in here
        "Password": "",                     // for instance "${PRICHEXY_BROKER_PASSWORD}"
        "PasswordFile": null,               // or a file that holds it
        "Queue": "prichexy"                 // the same as the workers'
      },
      "Ledger": {"Url": null},              // SQLAlchemy; null: a file in StorageDirectory
      "Intake": {
        "Existing": true,                   // a new ledger takes in what Orthanc holds already
        "Rules": [{"Name": "chest radiographs", "Modality": ["CR", "DX"], "BodyPart": ["CHEST"]}]
      },
      "WorkerUser": "worker"                // the one user of Orthanc that may report; no default
    }

A rule has a Name and any of Modality, SOPClass, BodyPart, View, CallingAET and Station; it takes
in a study with an instance that fits all of them. Relative paths start at the configuration's
folder. A key that is wrong is named; its value never is, since it may be a secret.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from pydantic import (
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

from prichexy_plugin.intake import Rule
from prichexy_worker.contract import DEFAULT_QUEUE

__all__ = ["SECTION", "Settings", "SettingsError", "read_settings"]

SECTION: Final = "PriCheXy"
LEDGER_FILE: Final = "prichexy-ledger.sqlite"

Text = Annotated[str, StringConstraints(min_length=1, max_length=128, strip_whitespace=True)]
Words = tuple[Annotated[Text, StringConstraints(to_upper=True)], ...]


class SettingsError(Exception):
    """The configuration is wrong; ``problems`` are sentences that each begin with the key."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__(" ".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that the plugin is told.

    ``stable_age`` is Orthanc's, in seconds. ``broker_url`` has no password in it. With
    ``take_existing`` False a new ledger begins behind what Orthanc holds already.
    """

    broker_url: str
    broker_password: SecretStr | None
    queue: str
    ledger_url: str
    rules: tuple[Rule, ...]
    take_existing: bool
    worker_user: str
    stable_age: float


class _Part(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        alias_generator=to_pascal,
    )


class _Broker(_Part):
    url: Text = "redis://127.0.0.1:6379/0"
    password: SecretStr | None = None
    password_file: Path | None = None
    queue: Text = DEFAULT_QUEUE

    @model_validator(mode="after")
    def _check(self) -> _Broker:
        parts = urlsplit(self.url)
        if parts.scheme not in ("redis", "rediss") or not parts.hostname:
            raise ValueError("Url must look like redis://host:6379/0 (or rediss:// for TLS)")
        if parts.password is not None:
            raise ValueError("Url must not hold a password; set Password or PasswordFile")
        if self.given_password is not None and self.password_file is not None:
            raise ValueError("set Password or PasswordFile, not both")
        return self

    @property
    def given_password(self) -> SecretStr | None:
        """None for "" as well: ``${VARIABLE:-}`` expands to that when it is not set."""
        return self.password if self.password and self.password.get_secret_value() else None


class _Ledger(_Part):
    url: Text | None = None

    @model_validator(mode="after")
    def _check(self) -> _Ledger:
        if self.url is not None:
            try:
                make_url(self.url)
            except ArgumentError:
                raise ValueError("Url is not an SQLAlchemy database URL") from None
        return self


class _Rule(_Part):
    name: Text
    modality: Words = ()
    sop_class: Words = Field(default=(), alias="SOPClass")
    body_part: Words = ()
    view: Words = ()
    calling_aet: Words = Field(default=(), alias="CallingAET")
    station: Words = ()

    def to_rule(self) -> Rule:
        lists = {key: frozenset(words) for key, words in self if key != "name"}
        return Rule(name=self.name, **lists)


_CHEST: Final = _Rule.model_validate(
    {"Name": "chest radiographs", "Modality": ("CR", "DX"), "BodyPart": ("CHEST",)}
)


class _Intake(_Part):
    rules: tuple[_Rule, ...] = (_CHEST,)
    existing: bool = True

    @model_validator(mode="after")
    def _check(self) -> _Intake:
        names = [rule.name for rule in self.rules]
        if len(names) != len(set(names)):
            raise ValueError("two Rules have the same Name")
        return self


class _Section(_Part):
    broker: _Broker = _Broker()
    ledger: _Ledger = _Ledger()
    intake: _Intake = _Intake()
    worker_user: Text


#: In plain words, by pydantic's name of the mistake.
_PLAINLY: Final = {
    "extra_forbidden": "is no key of this plugin; see the documentation for those that are",
    "missing": "is missing",
}


def read_settings(configuration: Mapping[str, Any], folder: Path) -> Settings:
    """Read Orthanc's whole configuration; relative paths in it start at ``folder``.

    Raises SettingsError with every problem that was found.
    """
    try:
        # From JSON again: only then does pydantic take a list for a tuple in strict mode.
        section = _Section.model_validate_json(
            json.dumps(configuration.get(SECTION, {})), strict=True
        )
    except ValidationError as error:
        found = (
            _sentence(item["loc"], _PLAINLY.get(item["type"], item["msg"]))
            for item in error.errors(include_input=False, include_url=False, include_context=False)
        )
        raise SettingsError(tuple(found)) from None
    problems = tuple(_worker_user_problems(section, configuration))
    if problems:
        raise SettingsError(problems)
    return Settings(
        broker_url=section.broker.url,
        broker_password=_password(section.broker, folder),
        queue=section.broker.queue,
        ledger_url=section.ledger.url or _default_ledger(configuration, folder),
        rules=tuple(rule.to_rule() for rule in section.intake.rules),
        take_existing=section.intake.existing,
        worker_user=section.worker_user,
        stable_age=float(configuration.get("StableAge", 60)),
    )


def _sentence(place: tuple[int | str, ...], message: str) -> str:
    key = SECTION
    for part in place:
        key += f"[{part}]" if isinstance(part, int) else f".{part}"
    return f"{key}: {message.removeprefix('Value error, ').rstrip('.')}."


def _worker_user_problems(section: _Section, configuration: Mapping[str, Any]) -> list[str]:
    user = section.worker_user
    # Orthanc's own default when the key is absent.
    default = bool(configuration.get("RemoteAccessAllowed", False))
    if not configuration.get("AuthenticationEnabled", default):
        return [f"{SECTION}.WorkerUser: needs AuthenticationEnabled to be true."]
    if user not in configuration.get("RegisteredUsers", {}):
        return [f"{SECTION}.WorkerUser: is not one of RegisteredUsers."]
    return []


def _password(broker: _Broker, folder: Path) -> SecretStr | None:
    if broker.password_file is None:
        return broker.given_password
    try:
        text = (folder / broker.password_file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise SettingsError((f"{SECTION}.Broker.PasswordFile: cannot be read.",)) from None
    if not text:
        raise SettingsError((f"{SECTION}.Broker.PasswordFile: is empty.",))
    return SecretStr(text)


def _default_ledger(configuration: Mapping[str, Any], folder: Path) -> str:
    storage = folder / str(configuration.get("StorageDirectory", "OrthancStorage"))
    return f"sqlite:///{(storage / LEDGER_FILE).absolute()}"
