"""The actions of the Basic Profile by attribute: Table E.1-1 of DICOM PS3.15.

The table is data, ``basic_profile.yaml``, in one pinned edition. What stands in it decides over
what an allow-list names, never the other way round (``allowlist``).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Final

import yaml

from prichexy_worker.errors import Misconfigured

__all__ = ["ACTIONS", "TABLE_EDITION", "TABLE_SHA256", "action", "table"]

TABLE_EDITION: Final = "2026c"
#: Of basic_profile.yaml, byte by byte.
TABLE_SHA256: Final = "0558073a435d72afb2fe87855aa241f0b5ac0a69f34e0d0259fe0fa2ad14f7e9"
#: Every action that the table knows: X remove, Z empty, D dummy, U new UID, or one of several.
ACTIONS: Final = frozenset({"X", "Z", "D", "U", "Z/D", "X/Z", "X/D", "X/Z/D", "X/Z/U*"})

_KEY: Final = re.compile(r"\(([0-9A-F]{4}|50xx|60xx),([0-9A-F]{4}|xxxx)\)")


@cache
def table() -> Mapping[str, str]:
    """Give the actions by tag, as the table writes it: "(0010,0020)", "(60xx,3000)".

    Raises Misconfigured when the installed file is not the one that this version was made with.
    """
    content = resources.files(__package__).joinpath("basic_profile.yaml").read_bytes()
    if hashlib.sha256(content).hexdigest() != TABLE_SHA256:
        raise Misconfigured("header/basic_profile.yaml is not the one of this version: reinstall")
    data = yaml.load(content, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    actions: dict[str, str] = data["actions"]
    odd = [key for key, value in actions.items() if not _KEY.fullmatch(key) or value not in ACTIONS]
    if data["edition"] != TABLE_EDITION or odd:
        raise Misconfigured("header/basic_profile.yaml does not read as Table E.1-1")
    return MappingProxyType(actions)


def action(tag: int) -> str | None:
    """Give the Basic Profile's action on ``tag`` (0xGGGGEEEE), or None where it names none.

    Private attributes are X, and so is the whole of the retired curve and overlay groups: the
    table names some of their elements only.
    """
    group, element = tag >> 16, tag & 0xFFFF
    if group % 2 or group >> 8 in (0x50, 0x60):
        return "X"
    return table().get(f"({group:04X},{element:04X})")
