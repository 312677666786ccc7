"""What has to hold once a gateway has come to rest, whatever went wrong before. Pure.

Every study that went in is at the peer exactly once and whole, or has another end that is allowed
for it, and then nothing of it is there; the audit trail tells one unbroken story; nothing that
tells of a patient lies about.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Final

from prichexy_plugin.transitions import is_legal
from prichexy_worker.contract import ENDED, State

__all__ = ["EXPORTED", "AuditLine", "LedgerRow", "Sent", "Violation", "World", "violations"]

#: The end of a study that has nothing wrong with it.
EXPORTED: Final = frozenset({State.EXPORTED})


@dataclass(frozen=True, slots=True)
class Sent:
    """One study that went in, by what it is called at the ingest Orthanc and at the peer.

    ``images`` are the pseudonymous SOPInstanceUIDs of what the ingest Orthanc holds of it now.
    ``ends`` are those that are allowed for it. ``deleted``: it was taken away there meanwhile.
    """

    study_id: str
    study_uid: str
    images: frozenset[str]
    ends: frozenset[State] = EXPORTED
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One study as the ledger has it.

    ``instances`` is how many images it knows of; ``looked``: it will not look for more by itself.
    """

    study_id: str
    job_id: str
    state: State
    revision: int
    attempts: int
    reason: str | None = None
    instances: int = 0
    looked: bool = True


@dataclass(frozen=True, slots=True)
class AuditLine:
    """One line of the audit trail; ``number`` is its place in it."""

    number: int
    job_id: str
    at: datetime
    before: State | None
    after: State
    actor: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class World:
    """All that there is to see of a gateway at rest.

    ``ingest`` names the studies of the ingest Orthanc; ``peer`` has what the peer lists: the
    SOPInstanceUIDs of each StudyInstanceUID. ``telling`` are the files that lie where nothing of a
    patient may, and tell of one.
    """

    sent: tuple[Sent, ...]
    rows: tuple[LedgerRow, ...]
    lines: tuple[AuditLine, ...]
    ingest: frozenset[str]
    peer: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    telling: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that does not hold; ``where`` is a study's or job's id, or a file."""

    what: str
    where: str
    detail: str = ""


def violations(world: World) -> list[Violation]:
    """Give everything that does not hold, nothing when all is well."""
    return [
        *_ends(world),
        *_peer(world),
        *_trail(world),
        *(Violation("a file tells of a patient", name) for name in world.telling),
    ]


def _ends(world: World) -> Iterator[Violation]:
    rows: dict[str, list[LedgerRow]] = {}
    for row in world.rows:
        rows.setdefault(row.study_id, []).append(row)
    for sent in world.sent:
        found = rows.get(sent.study_id, [])
        if len(found) != 1:
            yield Violation("not once in the ledger", sent.study_id, f"{len(found)} rows")
            continue
        row = found[0]
        if row.state not in ENDED:
            yield Violation("has no end", sent.study_id, row.state)
        elif row.state not in sent.ends:
            yield Violation("has another end", sent.study_id, f"{row.state}: {row.reason}")
        if sent.deleted == (sent.study_id in world.ingest):
            what = "came back" if sent.deleted else "was lost"
            yield Violation(f"the original {what}", sent.study_id)
    for stranger in sorted(rows.keys() - {sent.study_id for sent in world.sent}):
        yield Violation("nobody sent it", stranger)


def _peer(world: World) -> Iterator[Violation]:
    states = {row.study_id: row.state for row in world.rows}
    for sent in world.sent:
        there = Counter(world.peer.get(sent.study_uid, ()))
        twice = sum(count > 1 for count in there.values())
        if twice:
            yield Violation("more than once at the peer", sent.study_id, f"{twice} images")
        if states.get(sent.study_id) is State.EXPORTED:
            missing, more = sent.images - there.keys(), there.keys() - sent.images
            if missing or more:
                detail = f"{len(missing)} missing, {len(more)} more"
                yield Violation("not whole at the peer", sent.study_id, detail)
        elif there:
            yield Violation("left at the peer", sent.study_id, f"{len(there)} images")
    for stranger in sorted(world.peer.keys() - {sent.study_uid for sent in world.sent}):
        yield Violation("at the peer, and nobody sent it", stranger)


def _trail(world: World) -> Iterator[Violation]:
    trails: dict[str, list[AuditLine]] = {row.job_id: [] for row in world.rows}
    for line in sorted(world.lines, key=lambda line: line.number):
        trails.setdefault(line.job_id, []).append(line)
    told = Counter(
        (line.job_id, line.at, line.before, line.after, line.actor, line.reason)
        for line in world.lines
    )
    for (job_id, *_), count in told.items():
        if count > 1:
            yield Violation("an audit line stands more than once", job_id, f"{count} times")
    for row in world.rows:
        yield from _story(row, trails[row.job_id])


def _story(row: LedgerRow, trail: list[AuditLine]) -> Iterator[Violation]:
    """Say where a study's trail does not tell how it came from nothing to where it is."""
    if not trail or trail[0].before is not None or trail[-1].after is not row.state:
        yield Violation("the audit trail is not whole", row.job_id)
        return
    for earlier, later in pairwise(trail):
        if later.before is not earlier.after:
            yield Violation("the audit trail is broken", row.job_id, f"at {later.number}")
    for line in trail:
        by = "plugin" if line.actor == "plugin" else "worker"
        if not is_legal(line.before, line.after, by=by):
            step = f"{line.before} to {line.after} by a {by}"
            yield Violation("a step that there is not", row.job_id, step)
    claims = sum(line.after is State.PROCESSING for line in trail)
    if row.revision == 1 and claims != row.attempts:
        detail = f"{claims} in the trail, {row.attempts} counted"
        yield Violation("claims are not counted", row.job_id, detail)
    ends = sum(line.after in ENDED for line in trail)
    if ends > row.revision:
        yield Violation("more ends than revisions", row.job_id, f"{ends} of {row.revision}")
