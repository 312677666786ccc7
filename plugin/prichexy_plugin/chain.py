"""The audit trail's lines, and the chain of digests over them. Pure.

The digest of a line is SHA-256, or HMAC-SHA-256 under a key, over the digest of the line before (64
hexadecimal digits), a line feed, and ``canonical`` of the line. So no line can be altered, taken
out, put in or moved without that all digests after it change, up to the last one, the *head*.
Whoever can write to the database can compute all of them anew, unless there is a key; and can cut
lines off at the end. That shows where a head was noted elsewhere: see docs/audit.md.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from prichexy_worker.contract import Sentenced

__all__ = [
    "GENESIS",
    "PERSON",
    "PLUGIN",
    "Broken",
    "ChainKey",
    "Damaged",
    "Deed",
    "Head",
    "Line",
    "UnknownKey",
    "Verdict",
    "canonical",
    "digest_of",
    "head_of",
    "heads_in",
    "read_key",
    "verify",
    "walk",
]

#: The plugin's name as an actor.
PLUGIN: Final = "plugin"
#: With this an actor begins who is a user of Orthanc; no worker's id holds a space.
PERSON: Final = "user "
#: Stands for the digest of the line before the first.
GENESIS: Final = "0" * 64
_KEY_BYTES: Final = 32
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
#: A head as this software writes it anywhere: in logs, in syslog messages, for people.
_HEAD: Final = re.compile(r"\bline ([0-9]{1,18}), digest ([0-9a-f]{64})\b")


class Deed(Sentenced):
    """What a line tells of."""

    STEP = "step", "A study went from one state to the next."
    STARTED = "started", "The plugin opened the ledger."
    STOPPED = "stopped", "The plugin let go of the ledger."
    MIGRATED = "migrated", "The lines of before, which had no digests, were chained."
    MODEL_TAKEN_UP = "model_taken_up", "A worker announced the model that it works with."
    MODEL_CHANGED = "model_changed", "Another model was put to use in the model store."
    HANDING_OUT_STOPPED = (
        "handing_out_stopped",
        "Study after study failed: none that needs what fails is handed out.",
    )
    HANDING_OUT_RESUMED = "handing_out_resumed", "A study came through: the handing out goes on."
    BACKFILL_STARTED = "backfill_started", "A backfill was begun, or given another rate."
    BACKFILL_STOPPED = "backfill_stopped", "A backfill was stopped."
    BACKFILL_ENDED = "backfill_ended", "A backfill came to its end."
    PICTURES_KEPT = "pictures_kept", "Pictures of the images were put beside the originals."
    PICTURES_SHOWN = "pictures_shown", "Somebody looked at a picture of an original."
    PICTURES_DELETING = "pictures_deleting", "The pictures of a study are due and will be deleted."
    PICTURES_DELETED = "pictures_deleted", "The pictures of a study are deleted."
    ORIGINALS_DELETING = "originals_deleting", "The originals of a study are due, to be deleted."
    ORIGINALS_DELETED = "originals_deleted", "The originals of a study are deleted."
    ORIGINALS_KEPT = "originals_kept", "A deletion of originals was called off: something came in."
    FORGOTTEN = "forgotten", "A study that ended, and of which no original is left, was forgotten."
    PRUNED = "pruned", "The oldest lines of the trail were deleted, up to the one that is named."
    RESTORED = "restored", "The ledger was restored from a backup that ends where the details say."
    IMAGE_DECIDED = "image_decided", "Somebody decided over what was found in an image."
    CLOCK_JUMPED = "clock_jumped", "The clock was set, or the gateway was off for long."
    ACTION = "action", "Somebody did what the details name."


@dataclass(frozen=True, slots=True)
class Head:
    """A line's number and digest; number 0 stands for "before the first line"."""

    number: int
    digest: str

    def __str__(self) -> str:
        """Give what ``heads_in`` reads."""
        return f"line {self.number}, digest {self.digest}"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the audit trail.

    ``deed`` is a Deed's code, or one that newer software wrote. ``actor`` is "plugin", a worker's
    id, "user NAME" for a user of Orthanc, or in older lines who ran the command line. ``details``
    are codes, digests and counts by name: never free text. ``key_id`` names the key of the digest,
    "" where there is none. Nothing in a line identifies a patient.
    """

    number: int
    at: datetime
    deed: str
    actor: str
    job_id: str | None = None
    from_state: str | None = None
    to_state: str | None = None
    reason: str | None = None
    details: Mapping[str, int | str] = field(default_factory=dict)
    key_id: str = ""
    digest: str = ""

    @property
    def head(self) -> Head:
        """Give what says that the trail goes as far as this line."""
        return Head(self.number, self.digest)


@dataclass(frozen=True, slots=True)
class Damaged:
    """What stands at a line's place and is none: its column ``where`` holds what no line has."""

    number: int
    where: str


class UnknownKey(Exception):
    """The line ``number`` cannot be verified: it names a key that was not given.

    The text is the key's id. Whether there ever was such a key is not known.
    """

    def __init__(self, key_id: str, number: int) -> None:
        super().__init__(key_id)
        self.number = number


class Broken(Exception):
    """The chain is broken at the line ``number``; the text says what is wrong."""

    def __init__(self, number: int, trouble: str) -> None:
        super().__init__(trouble)
        self.number = number


@dataclass(frozen=True, slots=True)
class ChainKey:
    """A key of the chain; ``key_id`` tells it from others and nothing about it."""

    key_id: str
    secret: bytes = field(repr=False)


def read_key(path: Path) -> ChainKey:
    """Read a key: any text of at least 32 characters, such as ``openssl rand -hex 32`` gives.

    Raises ValueError, and OSError when the file cannot be read.
    """
    secret = path.read_bytes().strip()
    if len(secret) < _KEY_BYTES:
        raise ValueError(f"holds less than {_KEY_BYTES} characters")
    named = hmac.new(secret, b"prichexy audit key id", hashlib.sha256).hexdigest()
    return ChainKey(named[:16], secret)


def canonical(line: Line) -> bytes:
    """Give the bytes that stand for a line: JSON, ASCII, keys sorted, without spaces.

    All of the line but its digest; the moment in UTC to the microsecond.
    """
    at = line.at.astimezone(UTC).isoformat(timespec="microseconds")
    value = {
        "number": line.number,
        "at": at,
        "deed": line.deed,
        "job": line.job_id,
        "from": line.from_state,
        "to": line.to_state,
        "actor": line.actor,
        "reason": line.reason,
        "details": dict(line.details),
        "key": line.key_id,
    }
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def digest_of(line: Line, previous: str, key: ChainKey | None = None) -> str:
    """Give the digest of a line that follows the one with the digest ``previous``.

    ``key`` must be the one that the line names.
    """
    content = previous.encode("ascii") + b"\n" + canonical(line)
    if key is None:
        return hashlib.sha256(content).hexdigest()
    return hmac.new(key.secret, content, hashlib.sha256).hexdigest()


def head_of(number: object, digest: object) -> Head | None:
    """Give the head of a line's number and digest, None for what is none."""
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        return None
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        return None
    return Head(number, digest)


def heads_in(text: str) -> tuple[Head, ...]:
    """Give the heads that were noted in a text, such as a log, in the order of the text."""
    return tuple(Head(int(number), digest) for number, digest in _HEAD.findall(text))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a verification found.

    ``broken`` is the number of the first line that is not as it was written, is missing, or is
    contradicted by a head that was noted elsewhere; None when there is none; ``trouble`` then says
    what is wrong. ``lines`` were read; the trail begins after ``checkpoint`` and ends at ``head``.
    ``unkeyed`` of the lines are under no key. ``compared`` noted heads stood for comparison,
    ``pruned`` others are older than the checkpoint. ``restored`` is the first line that tells of a
    restore, and ``lost`` are the numbers of noted heads from there on that are not in the trail:
    the restore lost their lines, or somebody forged it. ``standing`` are jobs of which the ledger's
    tables say another thing than the trail (``contradicted``), as far as that was looked at.
    """

    lines: int
    checkpoint: Head
    head: Head
    unkeyed: int = 0
    compared: int = 0
    pruned: int = 0
    broken: int | None = None
    trouble: str = ""
    restored: int | None = None
    lost: tuple[int, ...] = ()
    standing: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Say whether nothing is broken, and every noted head is in the trail or was pruned."""
        return self.broken is None and not self.lost and not self.standing


def verify(
    lines: Iterable[Line | Damaged],
    *,
    checkpoint: Head | None,
    head: Head | None,
    keys: Mapping[str, ChainKey] | None = None,
    noted: Iterable[Head] = (),
) -> Verdict:
    """Read all ``lines`` of a ledger, in the order of their numbers, and judge them.

    The first one has to follow ``checkpoint``: none may stand before it.
    ``checkpoint`` and ``head`` are what the ledger says of itself, ``noted`` heads that were kept
    elsewhere; None stands for what the ledger has and is no head. With ``keys``, by their ids, no
    line after the first one under a key may be without one, and the last may not. Raises
    UnknownKey.
    """
    beginning = checkpoint or Head(0, GENESIS)
    walk = _Walk(beginning, keys or {}, _by_number(noted))
    broken: Broken | None = None
    if checkpoint is None:
        broken = Broken(1, "the ledger's word on where the trail begins is altered")
    count = 0
    for line in lines:
        count += 1
        if broken is None:
            try:
                walk.read(line)
            except Broken as found:
                broken = found
    if broken is None:
        try:
            walk.end(head)
        except Broken as found:
            broken = found
    return Verdict(
        lines=count,
        checkpoint=beginning,
        head=walk.last,
        unkeyed=walk.unkeyed,
        compared=walk.compared,
        pruned=sum(
            len(digests) for number, digests in walk.noted.items() if walk.is_pruned(number)
        ),
        broken=None if broken is None else broken.number,
        trouble="" if broken is None else str(broken),
        restored=walk.restored,
        lost=tuple(sorted(walk.lost)),
    )


def walk(
    lines: Iterable[Line | Damaged], *, after: Head, keys: Mapping[str, ChainKey]
) -> tuple[Head, ...]:
    """Give the heads of ``lines``, which are a part of a trail and follow ``after``.

    Each is as it was written, as far as the one after it can tell. Raises Broken, UnknownKey.
    """
    walked = _Walk(after, keys, {})
    heads = []
    for line in lines:
        walked.read(line)
        heads.append(walked.last)
    return tuple(heads)


def _by_number(noted: Iterable[Head]) -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for head in noted:
        found.setdefault(head.number, set()).add(head.digest)
    return found


class _Walk:
    """Goes along the lines; ``last`` is the head of those that are as they were written."""

    def __init__(
        self, checkpoint: Head, keys: Mapping[str, ChainKey], noted: Mapping[int, set[str]]
    ) -> None:
        self.last = checkpoint
        self.noted = noted
        self.unkeyed = 0
        self.compared = 0
        self.restored: int | None = None
        self.lost: list[int] = []
        self._checkpoint = checkpoint
        self._keys = keys
        self._keyed = False
        self._pruned_to: Head | None = None
        self._compare(checkpoint)

    def is_pruned(self, number: int) -> bool:
        return number < self._checkpoint.number

    def read(self, line: Line | Damaged) -> None:
        """Go one line further. Raises Broken, UnknownKey."""
        expected = self.last.number + 1
        if line.number < expected:
            raise Broken(line.number, "a line stands there that is not of the chain")
        if line.number > expected:
            raise Broken(expected, "the line is missing")
        if isinstance(line, Damaged):
            raise Broken(line.number, f"the line is not as it was written: {line.where}")
        key = None
        if line.key_id:
            key = self._keys.get(line.key_id)
            if key is None:
                self._refuse_another_key(line)
                raise UnknownKey(line.key_id, line.number)
            self._keyed = True
        elif self._keyed:
            raise Broken(line.number, "the line is under no key, and one before it is")
        else:
            self.unkeyed += 1
        if not hmac.compare_digest(digest_of(line, self.last.digest, key), line.digest):
            raise Broken(line.number, "the line, or the one before it, is not as it was written")
        if line.deed == Deed.PRUNED:
            self._pruned_to = head_of(line.details.get("upto"), line.details.get("digest"))
        if line.deed == Deed.RESTORED and self.restored is None:
            self.restored = line.number
        self._compare(line.head)
        self.last = line.head

    def _refuse_another_key(self, line: Line) -> None:
        """Raise Broken when the line was written under none or a known key, and names another."""
        for key in (None, *self._keys.values()):
            written = replace(line, key_id="" if key is None else key.key_id)
            if hmac.compare_digest(digest_of(written, self.last.digest, key), line.digest):
                raise Broken(line.number, "the line is not as it was written: key_id")

    def end(self, head: Head | None) -> None:
        """Judge the end: nothing may be cut off, at neither side. Raises Broken."""
        if head is None:
            text = "the ledger's word on where the trail ends is altered"
            raise Broken(max(self.last.number, 1), text)
        if head.number > self.last.number:
            raise Broken(self.last.number + 1, "lines are cut off at the end")
        if self.last != head:
            raise Broken(
                min(self.last.number, head.number + 1), "the trail does not end where it says"
            )
        if self._checkpoint.number and self._pruned_to != self._checkpoint:
            raise Broken(self._checkpoint.number, "no line tells of the deletion up to this line")
        if self._keys and self.last.number and not self._keyed:
            raise Broken(self.last.number, "a key was given, and the last line is under none")
        beyond = [number for number in self.noted if number > self.last.number]
        if beyond and self.restored is not None:
            self.lost += (number for number in beyond for _ in self.noted[number])
        elif beyond:
            text = "lines are cut off at the end: a later head was noted"
            raise Broken(self.last.number + 1, text)

    def _compare(self, head: Head) -> None:
        digests = self.noted.get(head.number)
        if digests is None:
            return
        others = digests - {head.digest}
        self.compared += len(digests) - len(others)
        if others and self.restored is None:
            raise Broken(head.number, "another digest of the line was noted elsewhere")
        self.lost += (head.number for _ in others)
