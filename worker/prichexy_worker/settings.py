"""The worker's settings: each key, its meaning and its default, in one place.

They come from the TOML file that ``PRICHEXY_WORKER_CONFIG`` names and from environment variables
``PRICHEXY_WORKER_<SECTION>__<KEY>``, which win. A secret is given as a file (``*_file``) or as an
environment variable, never in the TOML file and never inside an address.
"""

from __future__ import annotations

import os
import re
import socket
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from prichexy_worker.contract import DEFAULT_QUEUE
from prichexy_worker.errors import Misconfigured

__all__ = [
    "CONFIG_VARIABLE",
    "Broker",
    "Export",
    "Ingest",
    "Limits",
    "Model",
    "Output",
    "ProjectProfile",
    "PseudonymKey",
    "Settings",
    "Syntax",
    "load_settings",
]

CONFIG_VARIABLE: Final = "PRICHEXY_WORKER_CONFIG"
_PREFIX: Final = "PRICHEXY_WORKER_"

Syntax = Literal["explicit-little-endian", "rle-lossless", "jpeg-ls-lossless"]


class _Section(BaseModel):
    """A section: frozen, no unknown key, and no value of it in an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class _WithPassword(_Section):
    """A section with a secret, given in one of two ways."""

    password: SecretStr | None = None  # by environment variable only
    password_file: Path | None = None  # one line; a line break at its end is not part of it

    @model_validator(mode="after")
    def _one_password(self) -> Self:
        if self.password is not None and self.password_file is not None:
            raise ValueError("password and password_file are both given; keep one")
        if self.password_file is not None:
            self.secret()
        return self

    def secret(self) -> str | None:
        """Give the password, or None. Raises ValueError when its file cannot be used."""
        if self.password is not None:
            return self.password.get_secret_value()
        if self.password_file is None:
            return None
        try:
            text = self.password_file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"password_file cannot be read ({type(error).__name__})") from None
        if not text.rstrip("\r\n"):
            raise ValueError("password_file is empty")
        return text.rstrip("\r\n")


def _address(url: str, schemes: tuple[str, ...]) -> str:
    """Give ``url`` without a slash at its end. Raises ValueError that does not repeat it."""
    try:
        parts = urlsplit(url)
        secret = parts.password is not None or parts.username is not None
        known = parts.scheme in schemes and bool(parts.hostname or parts.path.strip("/"))
        parts.port  # noqa: B018 - raises ValueError for a port that is no number
    except ValueError:
        raise ValueError("not an address") from None
    if not known:
        raise ValueError(f"not an address that starts with {' or '.join(schemes)}")
    if secret:
        raise ValueError("holds a user or a password: use the keys user, password_file")
    return url.rstrip("/")


class Ingest(_WithPassword):
    """The Orthanc that holds the originals, and whose plugin takes the reports."""

    url: str  # http(s)://host:port
    user: str = "worker"
    ca_file: Path | None = None  # of a private authority, for https
    timeout: PositiveFloat = 60.0  # seconds, for each request

    @field_validator("url")
    @classmethod
    def _is_http(cls, value: str) -> str:
        return _address(value, ("http", "https"))


class Broker(_WithPassword):
    """The Redis that hands the studies out."""

    url: str  # redis://host:port/0, rediss://… or redis+socket:///path
    queue: str = DEFAULT_QUEUE
    # A study whose worker was lost goes to another worker after this many seconds. It must be
    # longer than the longest study takes: see ``study_seconds``.
    redelivery_seconds: float = Field(default=1800.0, ge=5.0)

    @field_validator("url")
    @classmethod
    def _is_redis(cls, value: str) -> str:
        return _address(value, ("redis", "rediss", "redis+socket"))

    def study_seconds(self) -> float:
        """Give the seconds after which a worker gives a study back.

        Four fifths of ``redelivery_seconds``: the rest is for the request under way and for those
        that withdraw and report, before the broker takes the worker for lost.
        """
        return 0.8 * self.redelivery_seconds


class Export(_WithPassword):
    """Where the anonymised studies go: another Orthanc, or a folder."""

    kind: Literal["orthanc", "folder"]
    url: str | None = None  # orthanc
    user: str = "gateway"  # orthanc
    ca_file: Path | None = None  # orthanc
    timeout: PositiveFloat = 60.0  # orthanc; seconds, for each request
    folder: Path | None = None  # folder; it must exist

    @field_validator("url")
    @classmethod
    def _is_http(cls, value: str | None) -> str | None:
        return None if value is None else _address(value, ("http", "https"))

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kind == "orthanc" and self.url is None:
            raise ValueError('kind "orthanc" needs url')
        if self.kind == "folder" and self.folder is None:
            raise ValueError('kind "folder" needs folder')
        return self


class PseudonymKey(_Section):
    """The key that every pseudonym and UID is made with."""

    key_file: Path  # mode 0600 or 0400
    # Keys of before a rotation: what a study left at the target under one of them is withdrawn
    # when the study is exported again.
    retired_key_files: tuple[Path, ...] = ()


class ProjectProfile(_Section):
    """What is kept of the headers."""

    file: Path | None = None  # YAML, see docs/project-profile.md; without it the Basic Profile


class Model(_Section):
    """Which generator deforms, and where it computes."""

    # A MONAI bundle's folder; or a link to one, which a running worker follows when it is moved.
    bundle: Path
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$")
    threads: PositiveInt = 1  # of one worker; more workers scale better than more threads


class Output(_Section):
    """How the anonymised objects are encoded."""

    syntax: Syntax = "explicit-little-endian"


class Limits(_Section):
    """What is too much for one study."""

    instances: PositiveInt = 64


def _host_name() -> str:
    """Give this machine's name with what a worker's name may hold."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:100] or "worker"


class Settings(BaseSettings):
    """All settings of one worker. Frozen; made by ``load_settings``."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
    )

    ingest: Ingest
    broker: Broker
    export: Export
    pseudonyms: PseudonymKey
    profile: ProjectProfile = ProjectProfile()
    model: Model
    output: Output = Output()
    limits: Limits = Limits()
    # A name that is given here is used as it stands; see ``of_process`` for the default.
    worker_id: str = Field(default_factory=_host_name, pattern=r"^[A-Za-z0-9._@:-]{1,128}$")

    @model_validator(mode="after")
    def _key_apart_from_results(self) -> Self:
        if self.export.kind == "folder" and self.export.folder is not None:
            folder = self.export.folder.resolve()
            for file in (self.pseudonyms.key_file, *self.pseudonyms.retired_key_files):
                if file.resolve().is_relative_to(folder):
                    raise ValueError(
                        "pseudonyms: a key file lies in export.folder, and who has both can undo "
                        "the pseudonyms; move it"
                    )
        return self

    def of_process(self, pid: int) -> Self:
        """Give the settings of the worker that is process ``pid`` of this machine.

        Each worker needs a name of its own. Where none was given, the process's number goes with
        the host's name. Not for process 1: it is a container's only worker, and the host's name
        is the container's own, which its health check knows.
        """
        if "worker_id" in self.model_fields_set or pid == 1:
            return self
        return self.model_copy(update={"worker_id": f"{self.worker_id}-{pid}"})

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment before file; no .env file, no secrets folder."""
        del dotenv_settings, file_secret_settings
        path = os.environ.get(CONFIG_VARIABLE)
        from_file = InitSettingsSource(settings_cls, _read_toml(Path(path)) if path else {})
        return init_settings, env_settings, from_file


def load_settings() -> Settings:
    """Read the file and the environment, and check every value.

    Raises Misconfigured, naming each key that does not fit and never its value.
    """
    _refuse_unknown_variables(os.environ)
    try:
        return Settings()  # type: ignore[call-arg]  # the sources give what is required
    except ValidationError as error:
        complaints = [
            f"{'.'.join(str(part) for part in item['loc']) or 'settings'}: {item['msg']}"
            for item in error.errors(include_url=False, include_input=False, include_context=False)
        ]
        raise Misconfigured("; ".join(sorted(complaints))) from None


def _read_toml(path: Path) -> dict[str, Any]:
    """Parse the settings file. Raises Misconfigured when it is unusable or holds a secret."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        text = f"{CONFIG_VARIABLE} names a file that cannot be read ({type(error).__name__})"
        raise Misconfigured(text) from None
    except ValueError as error:  # of the decoder too; its text may show a piece of the file
        place = re.search(r"at line \d+, column \d+", str(error))
        text = f"the file that {CONFIG_VARIABLE} names is not TOML"
        raise Misconfigured(f"{text} ({place[0]})" if place else text) from None
    for name, section in data.items():
        if isinstance(section, Mapping) and "password" in section:
            raise Misconfigured(
                f"{name}.password: not in the file; put the secret into a file of its own and "
                f"name it as {name}.password_file, or set {_PREFIX}{name.upper()}__PASSWORD"
            )
    return data


def _refuse_unknown_variables(environment: Mapping[str, str]) -> None:
    """Raise Misconfigured for a variable of our form that names no section of ours.

    Variables without a section are left alone: others may have them, such as the password of the
    ingest Orthanc's user for workers.
    """
    for variable in sorted(environment):
        section, separator, _key = variable.removeprefix(_PREFIX).lower().partition("__")
        if not variable.startswith(_PREFIX) or not separator:
            continue
        if section not in Settings.model_fields:
            raise Misconfigured(f"{variable}: there is no such setting")
