"""What the command line did that undoes pseudonyms or the ledger's past, for the audit trail.

It is noted in the gateway's folder first, in ``deeds.jsonl``, and told to the plugin that runs
there, now (``telling``) or at its next start: the plugin writes a line for each, once. Who can
write to that folder can write any name into it. A line that a kill or a full disk tore is counted,
and keeps no other from being told.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pwd
import re
import socket
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from io import FileIO
from typing import Any, Final, Literal

from prichexy_gateway.errors import Failed
from prichexy_gateway.home import Home

__all__ = ["DoneDeed", "check_read", "note", "noted", "readers_of", "system_user", "unread"]

_NAME: Final = "deeds.jsonl"
_LONGEST_NAME: Final = 128
#: What the plugin takes: it refuses all that are told together when one is of another form.
_TEXTS: Final = {
    "at": re.compile(r"[0-9T:.+Z-]{1,40}"),
    "by": re.compile(rf"[^\x00-\x1f\x7f]{{1,{_LONGEST_NAME}}}"),
    "action": re.compile("adopt|backup|crosswalk|restore"),
    "key_id": re.compile(r"[0-9a-f]{16}"),
    "readers": re.compile(r"(?:[0-9a-f]{64})?"),
}
_NUMBERS: Final = ("studies", "recipients")


@dataclass(frozen=True, slots=True)
class DoneDeed:
    """One deed; prichexy_plugin.outside_deeds reads it, held together by a test."""

    at: str
    by: str
    action: str
    key_id: str
    studies: int
    recipients: int
    readers: str

    @classmethod
    def from_json(cls, data: Any) -> DoneDeed:
        """Parse a line. Raises ValueError."""
        if not isinstance(data, dict) or set(data) != {*_TEXTS, *_NUMBERS}:
            raise ValueError("missing or unknown keys")
        for key, pattern in _TEXTS.items():
            if not isinstance(data[key], str) or not pattern.fullmatch(data[key]):
                raise ValueError(key)
        for key in _NUMBERS:
            if type(data[key]) is not int or not 0 <= data[key] < 2**31:
                raise ValueError(key)
        return cls(**data)


def note(
    home: Home,
    action: Literal["adopt", "backup", "crosswalk", "restore"],
    *,
    key_id: str,
    studies: int,
    recipients: Sequence[str] = (),
) -> None:
    """Note a deed of this moment and of this system's user, on the disk. Raises Failed."""
    deed = DoneDeed(
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        by=system_user()[:_LONGEST_NAME],
        action=action,
        key_id=key_id,
        studies=studies,
        recipients=len(recipients),
        readers=readers_of(recipients),
    )
    path = home.root / _NAME
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "rb+", buffering=0) as stream:
            begins = b"" if _ends_a_line(stream) else b"\n"
            _append(stream, begins + json.dumps(asdict(deed)).encode() + b"\n")
    except OSError as error:
        raise Failed(f"{path}: what is done here cannot be noted ({error.strerror}).") from None


def noted(home: Home) -> list[DoneDeed]:
    """Give what was noted and can be read, the oldest first. Raises Failed."""
    return _read(home)[0]


def unread(home: Home) -> int:
    """Count the lines that are no deed: torn, or of another hand. Raises Failed."""
    return _read(home)[1]


def _read(home: Home) -> tuple[list[DoneDeed], int]:
    path = home.root / _NAME
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return [], 0
    except OSError as error:
        raise Failed(f"{path}: cannot be read ({type(error).__name__}).") from None
    deeds, bad = [], 0
    for line in filter(str.strip, text.split("\n")):
        try:
            deeds.append(DoneDeed.from_json(json.loads(line)))
        except (ValueError, RecursionError):
            bad += 1
    return deeds, bad


def _ends_a_line(stream: FileIO) -> bool:
    """Say whether what is to follow begins a line. Raises OSError."""
    if stream.seek(0, os.SEEK_END) == 0:
        return True
    stream.seek(-1, os.SEEK_END)
    return stream.read(1) == b"\n"


def _append(stream: FileIO, line: bytes) -> None:
    """Write all of it, at once, and have it on the disk. Raises OSError."""
    if stream.write(line) != len(line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.fsync(stream.fileno())


def check_read(home: Home) -> None:
    """Raise Failed when lines that were noted are no deeds, for the trail lacks them."""
    bad = unread(home)
    if bad:
        raise Failed(
            f"{home.root / _NAME}: {bad} {'line' if bad == 1 else 'lines'} cannot be read, and the "
            "audit trail lacks them; take them out once you know what they were."
        )


def readers_of(recipients: Sequence[str]) -> str:
    """Give the SHA-256 of the recipients' public keys, sorted, a line each; "" for none."""
    if not recipients:
        return ""
    lines = "".join(f"{one.strip()}\n" for one in sorted(recipients))
    return hashlib.sha256(lines.encode()).hexdigest()


def system_user() -> str:
    """Give the system's user; behind sudo, the one who asked."""
    asked = os.environ.get("SUDO_USER")
    try:
        user = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # in a container a user may have no name
        user = f"user {os.geteuid()}"
    return f"{f'{asked} as {user}' if asked else user}@{socket.gethostname()}"
