"""The settings of export targets: one section a kind, and what they have in common."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, PositiveFloat, field_validator, model_validator

from prichexy_worker.contract import MOST_TARGETS, TARGET_NAME, TargetInfo
from prichexy_worker.sections import Section, WithPassword, address

__all__ = [
    "KINDS",
    "SINGLE",
    "DicomNode",
    "Dicomweb",
    "Folder",
    "OrthancPeer",
    "PngFolder",
    "Target",
    "checked",
    "default_names",
    "told_targets",
]

#: What the target of the section ``export`` is called.
SINGLE: Final = "export"
#: An application entity's title (PS3.5 6.2, VR AE), without spaces at its ends.
Aet = Annotated[str, Field(pattern=r"^[!-\[\]-~]([ -\[\]-~]{0,14}[!-\[\]-~])?$")]


class _Routed(Section):
    """What every target has."""

    # Whether studies go here whose intake rule names no target. A worker's only target needs none.
    default: bool = False

    @property
    def place(self) -> str:
        """Where the target is, as people are told."""
        raise NotImplementedError

    @property
    def encrypted(self) -> bool:
        """Whether nobody on the way can read what is sent; true of what is sent nowhere."""
        return True

    @property
    def written(self) -> Path | None:
        """The folder that results are written into, None where there is none of ours."""
        return None


class _OverTls(Section):
    """Whom we trust, and who we are, where a target speaks TLS."""

    ca_file: Path | None = None  # of a private authority
    certificate_file: Path | None = None  # our own, for a target that asks for one
    key_file: Path | None = None  # of that certificate; mode 0600 or 0400, without a pass phrase
    timeout: PositiveFloat = 60.0  # seconds, for each request

    @model_validator(mode="after")
    def _whole_pair(self) -> Self:
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file are only given together")
        return self


class _OverHttp(_Routed, _OverTls, WithPassword):
    """A target with an address."""

    url: str  # http(s)://…

    @field_validator("url")
    @classmethod
    def _is_http(cls, value: str) -> str:
        return address(value, ("http", "https"))

    @property
    def place(self) -> str:
        """Its address."""
        return self.url

    @property
    def encrypted(self) -> bool:
        """Whether the address is one of TLS."""
        return self.url.startswith("https:")


class OrthancPeer(_OverHttp):
    """Another Orthanc, over its REST interface."""

    kind: Literal["orthanc"]
    user: str = "gateway"


class Dicomweb(_OverHttp):
    """A DICOMweb server: STOW-RS, WADO-RS, and QIDO-RS; ``url`` is what comes before /studies."""

    kind: Literal["dicomweb"]
    user: str | None = None  # with its password; or
    token_file: Path | None = None  # a bearer token, which is read anew for each request
    delete: bool = False  # whether the server takes DELETE on studies and instances

    @model_validator(mode="after")
    def _one_login(self) -> Self:
        if (self.user is None) != (self.password is None and self.password_file is None):
            raise ValueError("user and password_file are only given together")
        if self.user is not None and self.token_file is not None:
            raise ValueError("user and token_file are both given; keep one")
        return self


class DicomNode(_Routed, _OverTls):
    """A DICOM node, such as a PACS: C-STORE, and storage commitment where it is offered."""

    kind: Literal["dicom"]
    host: str = Field(pattern=r"^[A-Za-z0-9.:_-]{1,253}$")
    port: int = Field(default=104, ge=1, le=65535)
    called_aet: Aet
    calling_aet: Aet = "PRICHEXY"
    tls: bool = False
    commitment: bool = False  # whether the node must commit itself to what it was sent
    commitment_seconds: PositiveFloat = 60.0  # how long its word is waited for
    commitment_port: int | None = Field(default=None, ge=1, le=65535)  # where it may call us back

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if not self.tls and (self.ca_file is not None or self.certificate_file is not None):
            raise ValueError("ca_file and certificate_file are for tls = true")
        if not self.commitment and self.commitment_port is not None:
            raise ValueError("commitment_port is for commitment = true")
        if self.tls and self.commitment_port is not None and self.certificate_file is None:
            raise ValueError("with tls, a commitment_port needs a certificate_file of ours")
        return self

    @property
    def place(self) -> str:
        """Its name and where it listens."""
        return f"{self.called_aet} at {self.host}:{self.port}"

    @property
    def encrypted(self) -> bool:
        """Whether it is spoken to by TLS."""
        return self.tls


class _InFolder(_Routed):
    """A target that is a folder."""

    folder: Path  # it must exist
    # What must lie in it, or nothing is written: where a share is not mounted, it does not.
    marker: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_.-]{0,63}[A-Za-z_-]$")

    @property
    def place(self) -> str:
        """Its path."""
        return str(self.folder)

    @property
    def written(self) -> Path:
        """The same."""
        return self.folder


class Folder(_InFolder):
    """A folder of DICOM files."""

    kind: Literal["folder"]


class PngFolder(_InFolder):
    """A folder for researchers: PNG files and a table."""

    kind: Literal["png"]


Target = Annotated[
    OrthancPeer | Dicomweb | DicomNode | Folder | PngFolder, Field(discriminator="kind")
]
#: Of an address or a path, as people are told.
_PLACE_LENGTH: Final = 400
KINDS: Final = ("orthanc", "dicomweb", "dicom", "folder", "png")


def checked(export: Target | None, targets: Mapping[str, Target]) -> Mapping[str, Target]:
    """Give all targets by name: those of ``targets``, or the single one of ``export``.

    Raises ValueError when there is none, when both are given, and when nobody could tell where a
    study goes whose rule names no target. What only named targets need: their secrets lie in files
    that nobody else can read. ``export`` takes those that containers are given, too.
    """
    if export is not None and targets:
        raise ValueError(
            "export and targets are both given; rename the section export to "
            f"targets.{SINGLE}, or leave it out"
        )
    if export is not None:
        return {SINGLE: export}
    if not targets:
        raise ValueError("targets: none is given; add a section targets.NAME, or one export")
    for name, target in targets.items():
        if not TARGET_NAME.fullmatch(name):
            raise ValueError(
                "targets: a name has at most 32 lower-case letters and digits, and single - or _ "
                "between them"
            )
        for key in ("password_file", "token_file"):
            secret = getattr(target, key, None)
            if secret is not None:
                _refuse_open(secret, f"targets.{name}.{key}")
    if len(targets) > 1 and not any(target.default for target in targets.values()):
        raise ValueError(
            "targets: none of several has default = true; say where a study goes whose intake "
            "rule names no target"
        )
    return dict(targets)


def default_names(targets: Mapping[str, Target]) -> frozenset[str]:
    """Name the targets of a study whose rule names none: the only one, or those marked so."""
    if len(targets) == 1:
        return frozenset(targets)
    return frozenset(name for name, target in targets.items() if target.default)


def _refuse_open(path: Path, key: str) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise ValueError(f"{key} cannot be read ({type(error).__name__})") from None
    if mode & 0o077:
        raise ValueError(f"{key}: others can read or alter the file; chmod 600 it")


def told_targets(targets: Mapping[str, Target]) -> tuple[TargetInfo, ...]:
    """Give what people may know of the targets, without any secret, by their names in order."""
    default = default_names(targets)
    names = sorted(targets)[:MOST_TARGETS]
    return tuple(_told(name, targets[name], default=name in default) for name in names)


def _told(name: str, target: Target, *, default: bool) -> TargetInfo:
    check = "read_back"
    if isinstance(target, DicomNode):
        check = "commitment" if target.commitment else "none"
    # A query may hold a key.
    place = target.place.partition("?")[0].partition("#")[0]
    place = place[:_PLACE_LENGTH]
    return TargetInfo(name, target.kind, place, target.encrypted, check, default)
