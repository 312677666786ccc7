"""The actions by attribute: Table E.1-1 of DICOM PS3.15, the Basic Profile and its options.

The table is data, ``basic_profile.yaml`` and ``options.yaml``, in one pinned edition each. What
stands in it decides over what an allow-list names, never the other way round (``allowlist``).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any, Final

import yaml

from prichexy_worker.errors import Misconfigured
from prichexy_worker.header.options import Option

__all__ = [
    "ACTIONS",
    "OPTIONS_SHA256",
    "TABLE_EDITION",
    "TABLE_SHA256",
    "action",
    "option_columns",
    "table",
    "under_options",
]

TABLE_EDITION: Final = "2026c"
#: Of basic_profile.yaml, byte by byte.
TABLE_SHA256: Final = "0558073a435d72afb2fe87855aa241f0b5ac0a69f34e0d0259fe0fa2ad14f7e9"
#: Of options.yaml, byte by byte.
OPTIONS_SHA256: Final = "3708f7daefd4a4cdc0a7d8f1b253e962f3f6547c3fa39a2a4559af839ff51e9b"
#: Every action that the table knows: X remove, Z empty, D dummy, U new UID, or one of several.
ACTIONS: Final = frozenset({"X", "Z", "D", "U", "Z/D", "X/Z", "X/D", "X/Z/D", "X/Z/U*"})

_KEY: Final = re.compile(r"\(([0-9A-F]{4}|50xx|60xx),([0-9A-F]{4}|xxxx)\)")


@cache
def table() -> Mapping[str, str]:
    """Give the actions by tag, as the table writes it: "(0010,0020)", "(60xx,3000)".

    Raises Misconfigured when the installed file is not the one that this version was made with.
    """
    data = _read("basic_profile.yaml", TABLE_SHA256)
    actions: dict[str, str] = data["actions"]
    odd = [key for key, value in actions.items() if not _KEY.fullmatch(key) or value not in ACTIONS]
    if data["edition"] != TABLE_EDITION or odd:
        raise Misconfigured("header/basic_profile.yaml does not read as Table E.1-1")
    return MappingProxyType(actions)


@cache
def option_columns() -> Mapping[Option, Mapping[str, str]]:
    """Give each option's column: by tag, K keep or C clean.

    Raises Misconfigured when the installed file is not the one that this version was made with.
    """
    columns: dict[str, dict[str, str]] = _read("options.yaml", OPTIONS_SHA256)["options"]
    known = table()
    for column in columns.values():
        if not set(column) <= set(known) or not set(column.values()) <= {"K", "C"}:
            raise Misconfigured("header/options.yaml does not read as columns of Table E.1-1")
    return MappingProxyType({option: MappingProxyType(columns[option.value]) for option in Option})


def action(tag: int) -> str | None:
    """Give the Basic Profile's action on ``tag`` (0xGGGGEEEE), or None where it names none.

    Private attributes are X, and so is the whole of the retired curve and overlay groups: the
    table names some of their elements only.
    """
    if _is_private_or_graphic(tag):
        return "X"
    return table().get(_key(tag))


def under_options(tag: int, options: Collection[Option]) -> str | None:
    """Give what the options do to ``tag``: "K" where one keeps it, else "C" where one cleans it.

    None where none of them names it: then the Basic Profile's action holds.
    """
    if _is_private_or_graphic(tag):
        return None
    found = {option_columns()[option].get(_key(tag)) for option in options}
    return "K" if "K" in found else "C" if "C" in found else None


def _is_private_or_graphic(tag: int) -> bool:
    group = tag >> 16
    return bool(group % 2) or group >> 8 in (0x50, 0x60)


def _key(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def _read(name: str, sha256: str) -> Any:
    content = resources.files(__package__).joinpath(name).read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise Misconfigured(f"header/{name} is not the one of this version: reinstall")
    return yaml.load(content, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
