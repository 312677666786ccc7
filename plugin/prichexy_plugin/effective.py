"""The settings in force, as people may see them: each with where it comes from, and no secret."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, SecretStr
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from prichexy_plugin.section import SECTION, parse_section

__all__ = ["Setting", "SourceFile", "effective_settings", "read_source_files", "without_comments"]

#: Orthanc's own keys that the plugin goes by, with Orthanc's defaults.
_ORTHANCS: Final[Mapping[str, object]] = {
    "AuthenticationEnabled": "true where RemoteAccessAllowed is",
    "StableAge": 60,
    "StorageDirectory": "OrthancStorage",
}
#: What stands there of keys that have no value.
_WITHOUT: Final[Mapping[str, str]] = {
    f"{SECTION}.Broker.Password": "none",
    f"{SECTION}.Broker.PasswordFile": "none",
    f"{SECTION}.Ledger.Url": "a SQLite file in StorageDirectory",
    f"{SECTION}.Roles": "each user of Orthanc but WorkerUser is an administrator",
}
_HIDDEN: Final = "set, and not shown"
_VARIABLE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)")
#: Strings are matched, too, so that no comment begins within one.
_COMMENT: Final = re.compile(r'"(?:\\.|[^"\\])*"|//[^\n]*|/\*.*?\*/', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting; ``source`` is "default", a file's name, or an environment variable's."""

    key: str
    value: str
    source: str


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of Orthanc's configuration before Orthanc put variables' values in."""

    name: str
    content: Mapping[str, Any]


def read_source_files(path: Path) -> tuple[SourceFile, ...]:
    """Read the file at ``path``, or the JSON files of that folder; what cannot be read is left out.

    Comments are allowed, as Orthanc allows them.
    """
    found = []
    for file in sorted(path.glob("*.json")) if path.is_dir() else [path]:
        try:
            content = json.loads(without_comments(file.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            continue
        if isinstance(content, dict):
            found.append(SourceFile(file.name, content))
    return tuple(found)


def effective_settings(
    configuration: Mapping[str, Any],
    files: Sequence[SourceFile],
    environment: Mapping[str, str] = os.environ,
) -> tuple[Setting, ...]:
    """Give every setting of Orthanc's ``configuration``, which ``read_settings`` has accepted.

    Passwords are never among the values; of an address only what names the server is. ``files``
    tell the sources. Raises SettingsError.
    """
    section = parse_section(configuration)
    lines = [
        *_leaves(section, SECTION),
        *((key, configuration.get(key, default)) for key, default in _ORTHANCS.items()),
    ]
    users = configuration.get("RegisteredUsers", {})
    return (
        *(
            Setting(key, _told(key, value), _source(key, configuration, files, environment))
            for key, value in lines
        ),
        Setting(
            "RegisteredUsers",
            f"{len(users)} {'user' if len(users) == 1 else 'users'}; passwords are not shown",
            _source("RegisteredUsers", configuration, files, environment),
        ),
    )


def _leaves(model: BaseModel, prefix: str) -> Iterator[tuple[str, object]]:
    for name, info in type(model).model_fields.items():
        key, value = f"{prefix}.{info.alias or name}", getattr(model, name)
        if isinstance(value, BaseModel):
            yield from _leaves(value, key)
        elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
            for number, part in enumerate(value):
                yield f"{key}[{number}]", part
        else:
            yield key, value


def _told(key: str, value: object) -> str:
    if isinstance(value, SecretStr):
        return _HIDDEN if value.get_secret_value() else _WITHOUT[key]
    if isinstance(value, BaseModel):
        parts = [
            f"{info.alias or name} {_told(key, getattr(value, name))}"
            for name, info in type(value).model_fields.items()
            if getattr(value, name)
        ]
        return "; ".join(parts)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    if value is None:
        return _WITHOUT.get(key, "none")
    return _server_of(str(value)) if "://" in str(value) else str(value)


def _server_of(address: str) -> str:
    """Give of an address what names the server and what is on it: no user, password or option."""
    if address.count("@") > 1:
        return _HIDDEN  # Where its password ends is a matter of who reads it.
    try:
        url = make_url(address)
    except (ArgumentError, ValueError):
        return _HIDDEN
    plain = URL.create(url.drivername, host=url.host, port=url.port, database=url.database)
    told = plain.render_as_string()
    if url.username is None and url.password is None and not url.query:
        return told
    return f"{told} (user, password and options are not shown)"


def _source(
    key: str,
    configuration: Mapping[str, Any],
    files: Sequence[SourceFile],
    environment: Mapping[str, str],
) -> str:
    path = key.partition("[")[0].split(".")
    if _at(configuration, path) is None:
        return "default"
    for file in files:
        written = _at(file.content, path)
        if written is None:
            continue
        names = dict.fromkeys(_VARIABLE.findall(json.dumps(written)))
        told = [
            f"environment variable {name}" if name in environment else f"{name}, which is not set"
            for name in names
        ]
        return f"{', '.join(told)}, named in {file.name}" if told else file.name
    return "Orthanc's configuration"


def _at(content: Any, path: Sequence[str]) -> object:
    for part in path:
        if not isinstance(content, Mapping):
            return None
        content = content.get(part)
    return content


def without_comments(text: str) -> str:
    """Give JSON without the comments that Orthanc allows in it."""
    return _COMMENT.sub(_without_comment, text)


def _without_comment(match: re.Match[str]) -> str:
    return match[0] if match[0].startswith('"') else " "
