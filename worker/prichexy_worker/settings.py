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
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from prichexy_worker.contract import DEFAULT_QUEUE, QUEUE_NAME
from prichexy_worker.errors import Misconfigured
from prichexy_worker.sections import Section, WithPassword, address
from prichexy_worker.target_places import check_places
from prichexy_worker.target_settings import KINDS, SINGLE, Target, checked

__all__ = [
    "CONFIG_VARIABLE",
    "Broker",
    "Ingest",
    "Limits",
    "Log",
    "Model",
    "Monitoring",
    "Output",
    "Pictures",
    "ProjectProfile",
    "PseudonymKey",
    "Risk",
    "Settings",
    "Syntax",
    "load_settings",
]

CONFIG_VARIABLE: Final = "PRICHEXY_WORKER_CONFIG"
_PREFIX: Final = "PRICHEXY_WORKER_"
_QUEUE: Final = f"^{QUEUE_NAME.pattern}$"

Syntax = Literal["explicit-little-endian", "rle-lossless", "jpeg-ls-lossless"]


class Ingest(WithPassword):
    """The Orthanc that holds the originals, and whose plugin takes the reports."""

    url: str  # http(s)://host:port
    user: str = "worker"
    ca_file: Path | None = None  # of a private authority, for https
    timeout: PositiveFloat = 60.0  # seconds, for each request

    @field_validator("url")
    @classmethod
    def _is_http(cls, value: str) -> str:
        return address(value, ("http", "https"))


class Broker(WithPassword):
    """The Redis that hands the studies out."""

    url: str  # redis://host:port/0, rediss://… or redis+socket:///path
    user: str | None = Field(default=None, pattern=r"^[^\s:@/]{1,128}$")  # of its ACL
    ca_file: Path | None = None  # of a private authority, for rediss
    certificate_file: Path | None = None  # our own, for a Redis that asks for one
    key_file: Path | None = None  # of that certificate; mode 0600 or 0400
    queue: str = Field(default=DEFAULT_QUEUE, pattern=_QUEUE)
    # Those that this worker takes studies from; without them it is ``queue`` alone.
    queues: tuple[Annotated[str, Field(pattern=_QUEUE)], ...] = ()
    # A study whose worker was lost goes to another worker after this many seconds. It must be
    # longer than the longest study takes: see ``study_seconds``.
    redelivery_seconds: float = Field(default=1800.0, ge=5.0)

    @field_validator("url")
    @classmethod
    def _is_redis(cls, value: str) -> str:
        return address(value, ("redis", "rediss", "redis+socket"))

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.user is not None and self.password is None and self.password_file is None:
            raise ValueError("user is only given together with a password")
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file are only given together")
        tls = self.ca_file is not None or self.certificate_file is not None
        if tls and not self.encrypted:
            raise ValueError("ca_file and certificate_file are for an address of rediss://")
        return self

    @property
    def encrypted(self) -> bool:
        """Whether Redis is spoken to by TLS."""
        return self.url.startswith("rediss:")

    def taken_queues(self) -> tuple[str, ...]:
        """Name the queues that this worker takes studies from, each once."""
        return tuple(dict.fromkeys(self.queues or (self.queue,)))

    def study_seconds(self) -> float:
        """Give the seconds after which a worker gives a study back.

        Four fifths of ``redelivery_seconds``: the rest is for the request under way and for those
        that withdraw and report, before the broker takes the worker for lost.
        """
        return 0.8 * self.redelivery_seconds

    def withdrawal_seconds(self) -> float:
        """Give the seconds after which a worker removes nothing of a study any more.

        Nine tenths of ``redelivery_seconds``: the rest is for the removal under way.
        """
        return 0.9 * self.redelivery_seconds

    def attempt_seconds(self) -> float:
        """Give the seconds after which a worker that is still at a study ends itself.

        All else has a limit of its own, and is over by then. Who hangs all the same is gone before
        the broker takes it for lost, and does nothing beside the worker that is next.
        """
        return 0.95 * self.redelivery_seconds


class PseudonymKey(Section):
    """The key that every pseudonym and UID is made with."""

    key_file: Path  # mode 0600 or 0400
    # Keys of before a rotation: what a study left at the target under one of them is withdrawn
    # when the study is exported again.
    retired_key_files: tuple[Path, ...] = ()


class ProjectProfile(Section):
    """What is kept of the headers."""

    file: Path | None = None  # YAML, see docs/project-profile.md; without it the Basic Profile


class Model(Section):
    """Which generator deforms, and where it computes."""

    # A MONAI bundle's folder; or a link to one, which a running worker follows when it is moved.
    bundle: Path
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$")
    threads: PositiveInt = 1  # of one worker; more workers scale better than more threads


class Risk(Section):
    """The largest figures of risk.py with which an image may leave; at 1 all may.

    Below 1, the model's bundle must hold the network that measures it.
    """

    # The verifier's probability that an image and its original show one patient.
    recognised: float = Field(default=1.0, ge=0, le=1)
    # The most that the classifier's probability of any finding may change by.
    finding_change: float = Field(default=1.0, ge=0, le=1)


class Output(Section):
    """How the anonymised objects are encoded."""

    syntax: Syntax = "explicit-little-endian"


class Pictures(Section):
    """What is kept beside the originals of an exported study, for whoever compares."""

    # The longest side in pixels of each picture of an image, before and after; 0 keeps none.
    side: int = Field(default=1024, ge=0, le=2048)


class Limits(Section):
    """What is too much for one study, or one image."""

    instances: PositiveInt = 64
    # Of a study's files together, as they came and again as they leave: the latter stay in memory
    # until all of them are safe. A large chest study has a tenth of it.
    study_bytes: PositiveInt = 1024 * 1024 * 1024
    # A worker that is told to stop ends its study, or gives it back after so many seconds.
    stop_seconds: PositiveFloat = 60.0
    # An image that takes longer ends its worker, which has to be started anew: it may never end.
    image_seconds: PositiveFloat = 300.0


class Monitoring(Section):
    """Where this worker tells how it is doing: /metrics, /health and /ready over HTTP."""

    # No password and no TLS, and nothing of a study: for this machine or an inner network only.
    address: str = Field(default="127.0.0.1", pattern=r"^[A-Za-z0-9.:-]{1,253}$")
    port: int | None = Field(default=None, ge=0, le=65535)  # none is opened without it; 0: any


class Log(Section):
    """How the lines of the log are written."""

    format: Literal["text", "json"] = "text"


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
    export: Target | None = None  # one target, called "export"; or several of them by name:
    targets: dict[str, Target] = Field(default_factory=dict)
    pseudonyms: PseudonymKey
    profile: ProjectProfile = ProjectProfile()
    model: Model
    risk: Risk = Risk()
    output: Output = Output()
    pictures: Pictures = Pictures()
    limits: Limits = Limits()
    monitoring: Monitoring = Monitoring()
    log: Log = Log()
    # A name that is given here is used as it stands; see ``of_process`` for the default.
    worker_id: str = Field(default_factory=_host_name, pattern=r"^[A-Za-z0-9._@:-]{1,128}$")

    @field_validator("worker_id")
    @classmethod
    def _is_no_plugin(cls, value: str) -> str:
        if value == "plugin":
            raise ValueError("the audit trail calls the plugin so; give the worker another name")
        return value

    @model_validator(mode="after")
    def _targets_apart(self) -> Self:
        check_places(self.export_targets(), self.ingest.url)
        return self

    @model_validator(mode="after")
    def _key_apart_from_results(self) -> Self:
        section = f"{SINGLE}." if self.export is not None else "targets.{}."
        for name, target in self.export_targets().items():
            if target.written is None:
                continue
            folder = target.written.resolve()
            for file in (self.pseudonyms.key_file, *self.pseudonyms.retired_key_files):
                if file.resolve().is_relative_to(folder):
                    raise ValueError(
                        f"pseudonyms: a key file lies in {section.format(name)}folder, and who has "
                        "both can undo the pseudonyms; move it"
                    )
        return self

    def export_targets(self) -> Mapping[str, Target]:
        """Give every export target by its name; at least one."""
        return checked(self.export, self.targets)

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
        problems = error.errors(include_url=False, include_input=False, include_context=False)
        raise Misconfigured("; ".join(sorted(map(_complaint, problems)))) from None


def _complaint(problem: ErrorDetails) -> str:
    """Say which key is wrong and why, without any value.

    Pydantic puts the kind of a target into the key's place, and an unknown kind into its sentence.
    """
    place, kind_at = problem["loc"], {"export": 1, "targets": 2}
    depth = kind_at.get(str(place[0])) if place else None
    key = ".".join(str(part) for level, part in enumerate(place) if level != depth)
    if problem["type"].startswith("union_tag"):
        return f"{key}.kind: not one of {', '.join(KINDS)}"
    return f"{key or 'settings'}: {problem['msg']}"


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
    targets = data.get("targets")
    named = targets if isinstance(targets, Mapping) else {}
    sections = data | {f"targets.{name}": section for name, section in named.items()}
    for name, section in sections.items():
        if isinstance(section, Mapping) and "password" in section:
            variable = f"{_PREFIX}{name.upper().replace('.', '__')}__PASSWORD"
            raise Misconfigured(
                f"{name}.password: not in the file; put the secret into a file of its own and "
                f"name it as {name}.password_file, or set {variable}"
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
