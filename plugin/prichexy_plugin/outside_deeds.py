"""What was done outside of Orthanc's reach to what undoes pseudonyms, for the audit trail. Pure.

The command line tells of it: a crosswalk, a backup, a restore, a
ledger given to another Orthanc. Each becomes one line, once, known
again by its ``digest``. And Orthanc's own addresses are known by which originals may go.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any, Final

from prichexy_plugin.known_again import digest_of
from prichexy_worker.contract import ContractError

__all__ = ["MOST_DEEDS", "OutsideDeed", "read_deeds", "removal"]

#: So many are told at a time.
MOST_DEEDS: Final = 10
_ACTIONS: Final = frozenset({"adopt", "backup", "crosswalk", "restore"})
_TEXTS: Final = {
    "at": re.compile(r"[0-9T:.+Z-]{1,40}"),
    "by": re.compile(r"[^\x00-\x1f\x7f]{1,128}"),
    "key_id": re.compile(r"[0-9a-f]{16}"),
    "readers": re.compile(r"(?:[0-9a-f]{64})?"),
}
_NUMBERS: Final = ("studies", "recipients")
#: Orthanc numbers the methods (``orthanc.HttpMethod``).
_POST: Final = 2
_DELETE: Final = 4
_RESOURCE: Final = re.compile(
    r"/(patients|studies|series|instances)/([0-9a-f]{8}(?:-[0-9a-f]{8}){4})(?:/(.+))?"
)
#: What leaves no original where it was, or need not: by "KeepSource" of its body.
_MOVES: Final = frozenset({"anonymize", "modify", "merge", "split"})
#: The same of many resources, which stand in the body; and what can do anything.
_TOOLS: Final = {
    f"/tools/{name}": name
    for name in ("bulk-anonymize", "bulk-delete", "bulk-modify", "execute-script")
}
_SLASHES: Final = re.compile("/+")


@dataclass(frozen=True, slots=True)
class OutsideDeed:
    """One deed. ``by`` is who the command line says did it, which is not proved by that.

    ``readers`` is the SHA-256 of the public keys of all ``recipients``, in their order by
    alphabet, a line each; "" when nothing was sealed.
    """

    at: str
    by: str
    action: str
    key_id: str
    studies: int
    recipients: int
    readers: str

    @property
    def digest(self) -> str:
        """Give the SHA-256 of all that it says."""
        return digest_of(asdict(self))

    def details(self) -> dict[str, int | str]:
        """Give what the trail's line says besides who told it."""
        details: dict[str, int | str] = {
            "action": self.action,
            "by": self.by,
            "done_at": self.at,
            "pseudonyms": self.key_id,
            "studies": self.studies,
            "recipients": self.recipients,
        }
        return details | ({"readers": self.readers} if self.readers else {})


def read_deeds(data: Any) -> tuple[OutsideDeed, ...]:
    """Parse ``{"deeds": [...]}`` strictly. Raises ContractError with the key, never the value."""
    deeds = data.get("deeds") if isinstance(data, dict) and set(data) == {"deeds"} else None
    if not isinstance(deeds, list) or len(deeds) > MOST_DEEDS:
        raise ContractError("deeds: deeds is not valid")
    return tuple(_deed(one) for one in deeds)


def _deed(data: Any) -> OutsideDeed:
    if not isinstance(data, dict) or set(data) != {*_TEXTS, *_NUMBERS, "action"}:
        raise ContractError("deed: missing or unknown keys")
    for key, pattern in _TEXTS.items():
        if not isinstance(data[key], str) or not pattern.fullmatch(data[key]):
            raise ContractError(f"deed: {key} is not valid")
    for key in _NUMBERS:
        if type(data[key]) is not int or not 0 <= data[key] < 2**31:
            raise ContractError(f"deed: {key} is not valid")
    if not isinstance(data["action"], str) or data["action"] not in _ACTIONS:
        raise ContractError("deed: action is not valid")
    return OutsideDeed(**data)


def removal(uri: str, method: int) -> dict[str, int | str] | None:
    """Give the details of a request to Orthanc after which an original may be gone, else None.

    ``resource`` is Orthanc's level, ``orthanc_id`` its id: no identifier of the source. Which
    resources are named, and whether they are kept, is in a body, which a filter does not see.
    """
    # Orthanc takes any number of slashes for one, and those at the end for none.
    uri = _SLASHES.sub("/", uri).rstrip("/")
    if method == _POST and uri in _TOOLS:
        return {"action": _TOOLS[uri]}
    if method == _DELETE and uri == "/changes":
        return {"action": "delete", "resource": "changes"}
    match = _RESOURCE.fullmatch(uri)
    if match is None:
        return None
    level, orthanc_id, rest = match.groups()
    part = (rest or "").partition("/")[0]
    named: dict[str, int | str] = {"resource": level, "orthanc_id": orthanc_id}
    if method == _DELETE and part in ("", "attachments", "metadata"):
        return {"action": f"delete {part}".rstrip(), **named}
    if method == _POST and rest in _MOVES:
        return {"action": rest, **named}
    return None
