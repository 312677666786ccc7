"""What a project asks for, read from its profile: one small file, refused with its line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from prichexy_worker.errors import Misconfigured
from prichexy_worker.header.options import Option
from prichexy_worker.header.profile import BASIC, Profile, project_rule
from prichexy_worker.pseudonyms import Pseudonyms
from prichexy_worker.text.masks import Mask, masks_of

__all__ = ["Project", "read_project"]

_LONGEST: Final = 1 << 20
_TEXT: Final = "tag:yaml.org,2002:str"

_Place = tuple[str | int, ...]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class _Pseudonyms(_Section):
    project: str = Field(default="", pattern=r"^[A-Za-z0-9._-]{0,64}$")
    patient_prefix: str = Field(default="PX-", pattern=r"^[A-Z][A-Z0-9-]{0,15}$")


class _File(_Section):
    name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")
    options: list[Option] = []
    pseudonyms: _Pseudonyms = _Pseudonyms()
    attributes: dict[str, Any] = {}
    masks: list[Any] = []


@dataclass(frozen=True, slots=True)
class Project:
    """What is kept of the headers, and which areas of the pixels are filled whatever they show."""

    profile: Profile = BASIC
    masks: tuple[Mask, ...] = ()

    def pseudonyms(self, key: Pseudonyms) -> Pseudonyms:
        """Give the project's pseudonyms under ``key``."""
        return self.profile.pseudonyms(key)


def read_project(path: Path | None) -> Project:
    """Read a project profile; without a file it is the Basic Profile alone.

    The keys are explained in docs/project-profile.md. Raises Misconfigured that begins with the
    file's name and the line where it does not fit: "profile.yaml:7: options.1: …".
    """
    if path is None:
        return Project()
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Misconfigured(f"profile {path}: cannot be read ({error.strerror})") from None
    if len(content) > _LONGEST:
        raise Misconfigured(f"profile {path}: larger than a profile can be")
    lines, data = _parsed(path, content)
    try:
        file = _File.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise _refused(path, lines, first["loc"], first["msg"]) from None
    if len(set(file.options)) != len(file.options):
        raise _refused(path, lines, ("options",), "one is there twice")
    for keyword, value in file.attributes.items():
        try:
            project_rule(keyword, value, frozenset(file.options))
        except Misconfigured as error:
            raise _refused(path, lines, ("attributes", keyword), str(error)) from None
    masks: list[Mask] = []
    for number, mask in enumerate(file.masks):
        try:
            masks += masks_of([mask])
        except Misconfigured as error:
            why = str(error).removeprefix("mask 1").removeprefix(": ").strip()
            raise _refused(path, lines, ("masks", number), why) from None
    try:
        profile = Profile.made_of(
            file.name,
            file.options,
            file.attributes,
            project=file.pseudonyms.project,
            patient_prefix=file.pseudonyms.patient_prefix,
            besides=repr(masks) if masks else "",
        )
    except Misconfigured as error:
        raise _refused(path, lines, ("options",), str(error)) from None
    return Project(profile, tuple(masks))


def _parsed(path: Path, content: bytes) -> tuple[Mapping[_Place, int], Any]:
    """Give the line of every key and item, from 1, and the data."""
    try:
        for event in yaml.parse(content, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise Misconfigured(f"{path.name}:{line}: write it out instead of *{event.anchor}")
        node = yaml.compose(content, Loader=yaml.SafeLoader)
        lines = dict(_lines(path, node, ()))
        return lines, yaml.safe_load(content)
    except yaml.reader.ReaderError as error:
        line = content[: error.position].count(b"\n") + 1
        raise Misconfigured(f"{path.name}:{line}: not text in UTF-8") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise Misconfigured(f"{path.name}:{line}: not YAML: {error.problem}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError):
        raise Misconfigured(f"{path.name}:1: not YAML") from None


def _lines(path: Path, node: yaml.Node | None, place: _Place) -> Iterator[tuple[_Place, int]]:
    if node is None:
        return
    yield place, node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode) or key.tag != _TEXT:
                raise Misconfigured(f"{path.name}:{line}: a key must be a word")
            if key.value in seen:
                raise Misconfigured(f"{path.name}:{line}: {key.value} is there twice")
            seen.add(key.value)
            yield from _lines(path, value, (*place, key.value))
            yield (*place, key.value), line
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield from _lines(path, value, (*place, number))
    elif isinstance(node, yaml.ScalarNode):
        try:
            yaml.constructor.SafeConstructor().construct_object(node)
        except (ValueError, OverflowError):  # what looks like a date or a number, and is none
            line = node.start_mark.line + 1
            raise Misconfigured(
                f"{path.name}:{line}: write it in quotes: YAML takes it for a number or date"
            ) from None


def _refused(path: Path, lines: Mapping[_Place, int], place: _Place, why: str) -> Misconfigured:
    known = place
    while known not in lines and known:
        known = known[:-1]
    where = ".".join(str(part) for part in place)
    text = why if not where or why.startswith(str(place[-1])) else f"{where}: {why}"
    return Misconfigured(f"{path.name}:{lines.get(known, 1)}: {text}")
