"""What a Dockerfile asks for: the steps that build an image, and how the image starts. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Final

from prichexy_testing.rehearsal.dockerfile import (
    DockerfileError,
    Instruction,
    exec_form,
    pairs,
    parse,
    substitute,
    words,
)

__all__ = [
    "BASE_ENVIRONMENT",
    "Copy",
    "HealthCheck",
    "Image",
    "MakeFolder",
    "Recipe",
    "Run",
    "read_recipe",
    "seconds",
]

#: What every image starts from, as Docker sets it.
BASE_ENVIRONMENT: Final = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
_DURATION: Final = re.compile(r"(\d+)(ms|s|m)")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0}


@dataclass(frozen=True, slots=True)
class Copy:
    """Copy from the build context; a folder's content goes into ``target``."""

    sources: tuple[str, ...]
    target: str
    mode: int | None


@dataclass(frozen=True, slots=True)
class Run:
    """Run ``argv`` in the image as it is so far."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    folder: str
    user: str


@dataclass(frozen=True, slots=True)
class MakeFolder:
    """Make a folder, and its parents, when absent (WORKDIR)."""

    path: str


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """The command that says whether a container is well, and its timing in seconds."""

    argv: tuple[str, ...]
    interval: float = 30.0
    timeout: float = 30.0
    start_period: float = 0.0
    retries: int = 3


@dataclass(frozen=True, slots=True)
class Image:
    """How a container of the image starts."""

    environment: Mapping[str, str] = field(default_factory=lambda: dict(BASE_ENVIRONMENT))
    folder: str = "/"
    user: str = "0:0"
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    health: HealthCheck | None = None
    ports: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Recipe:
    """A whole Dockerfile, ready to be followed."""

    base: str
    steps: tuple[Copy | Run | MakeFolder, ...]
    image: Image


def read_recipe(text: str, build_arguments: Mapping[str, str]) -> Recipe:
    """Follow the instructions with these build arguments, doing nothing yet.

    Raises DockerfileError for an instruction, flag or form that is not rehearsed, and for a build
    argument that the Dockerfile does not declare.
    """
    reader = _Reader(build_arguments)
    for instruction in parse(text):
        reader.follow(instruction)
    unknown = sorted(set(build_arguments) - reader.declared)
    if unknown:
        raise DockerfileError(f"no such build argument: {', '.join(unknown)}")
    return Recipe(reader.base, tuple(reader.steps), reader.image)


def seconds(text: str) -> float:
    """Read a duration as Docker writes it: ``1m30s``, ``500ms``."""
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise DockerfileError(f"not a duration: {text}")
    return sum(int(number) * _UNITS[unit] for number, unit in parts)


class _Reader:
    """The state of an image while its instructions are followed."""

    def __init__(self, build_arguments: Mapping[str, str]) -> None:
        self._given = build_arguments
        self._arguments: dict[str, str] = {}
        self.declared: set[str] = set()
        self.base = ""
        self.steps: list[Copy | Run | MakeFolder] = []
        self.image = Image()

    def follow(self, instruction: Instruction) -> None:
        """Take in one instruction."""
        if not self.base and instruction.keyword not in {"FROM", "ARG"}:
            raise instruction.refuse("stands before FROM")
        allowed = {"COPY": {"chmod"}, "HEALTHCHECK": _HEALTH_FLAGS}.get(instruction.keyword, set())
        odd = sorted(set(instruction.flags) - allowed)
        if odd:
            raise instruction.refuse(f"the flag --{odd[0]} is not rehearsed")
        getattr(self, f"_{instruction.keyword.lower()}")(instruction)

    @property
    def _variables(self) -> dict[str, str]:
        return {**self._arguments, **self.image.environment}

    def _substituted(self, instruction: Instruction) -> str:
        return substitute(instruction.text, self._variables)

    def _command(self, instruction: Instruction) -> tuple[str, ...]:
        """Give the exec form; a shell form would put a shell in front of the process."""
        listed = exec_form(instruction)
        if listed is None:
            raise instruction.refuse("only the JSON form is rehearsed")
        return listed

    def _from(self, instruction: Instruction) -> None:
        if self.base:
            raise instruction.refuse("a second stage is not rehearsed")
        self.base = self._substituted(instruction)
        # Arguments declared before FROM are for FROM only.
        self._arguments = {}

    def _arg(self, instruction: Instruction) -> None:
        name, _, default = words(instruction)[0].partition("=")
        if len(words(instruction)) != 1:
            raise instruction.refuse("one argument a line")
        self.declared.add(name)
        self._arguments[name] = self._given.get(name, substitute(default, self._variables))

    def _env(self, instruction: Instruction) -> None:
        added = pairs(instruction, self._variables)
        self.image = replace(self.image, environment={**self.image.environment, **added})

    def _label(self, instruction: Instruction) -> None:
        added = pairs(instruction, self._variables)
        self.image = replace(self.image, labels={**self.image.labels, **added})

    def _copy(self, instruction: Instruction) -> None:
        *sources, target = substitute(" ".join(words(instruction)), self._variables).split()
        if not sources:
            raise instruction.refuse("needs a source and a target")
        if any(set(source) & set("*?[") for source in sources):
            raise instruction.refuse("wildcards are not rehearsed")
        if len(sources) > 1 and not target.endswith("/"):
            raise instruction.refuse("the target of several sources must end in /")
        mode = instruction.flags.get("chmod")
        self.steps.append(
            Copy(tuple(sources), self._absolute(target), int(mode, 8) if mode else None)
        )

    def _absolute(self, path: str) -> str:
        joined = str(PurePosixPath(self.image.folder) / path)
        return f"{joined.rstrip('/')}/" if path.endswith(("/", ".")) else joined

    def _run(self, instruction: Instruction) -> None:
        argv = exec_form(instruction) or ("/bin/sh", "-c", instruction.text)
        environment = {**self._arguments, **self.image.environment}
        self.steps.append(Run(argv, environment, self.image.folder, self.image.user))

    def _workdir(self, instruction: Instruction) -> None:
        folder = str(PurePosixPath(self.image.folder) / self._substituted(instruction))
        self.image = replace(self.image, folder=folder)
        self.steps.append(MakeFolder(folder))

    def _user(self, instruction: Instruction) -> None:
        user = self._substituted(instruction)
        if not re.fullmatch(r"\d+:\d+", user):
            raise instruction.refuse("only UID:GID in digits is rehearsed")
        self.image = replace(self.image, user=user)

    def _expose(self, instruction: Instruction) -> None:
        ports = tuple(self._substituted(instruction).split())
        self.image = replace(self.image, ports=(*self.image.ports, *ports))

    def _entrypoint(self, instruction: Instruction) -> None:
        self.image = replace(self.image, entrypoint=self._command(instruction), command=())

    def _cmd(self, instruction: Instruction) -> None:
        self.image = replace(self.image, command=self._command(instruction))

    def _healthcheck(self, instruction: Instruction) -> None:
        keyword, _, command = instruction.text.partition(" ")
        if keyword != "CMD":
            raise instruction.refuse("only HEALTHCHECK CMD is rehearsed")
        timing = {
            flag.replace("-", "_"): seconds(value)
            for flag, value in instruction.flags.items()
            if flag != "retries"
        }
        argv = self._command(replace(instruction, text=command.strip()))
        retries = int(instruction.flags.get("retries", "3"))
        self.image = replace(self.image, health=HealthCheck(argv, retries=retries, **timing))


_HEALTH_FLAGS: Final = frozenset({"interval", "timeout", "start-period", "retries"})
