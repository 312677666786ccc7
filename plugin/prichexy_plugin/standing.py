"""Compares what the ledger says of its studies with what the audit trail says of them.

The digests protect the trail's lines, not the tables, by which the gateway acts. So what is done
for good rests on the lines as well: see docs/audit.md for what is compared, and what is not. Only
lines of the chain count: a row before the checkpoint or beyond the head is nobody's word.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Connection, column, exists, func, select, table

from prichexy_plugin.chain import Damaged, Deed, Line
from prichexy_plugin.raw_lines import any_text, in_the_chain, moment, read_these
from prichexy_worker.contract import State

__all__ = ["bears_out", "contradicted", "digest_of_named", "tells_of_deletion"]

#: The column of a study's row by what a line's details call it; those that a line lacks, of older
#: software or of another state, are passed over.
_TOLD: Final = ("revision", "proved", "content")
_PLAIN: Final = ("study_id", "job_id", "state", "reason", "instances", "originals", *_TOLD)
_STUDIES: Final = table("studies", *map(column, (*_PLAIN, "updated")))
_EVENTS: Final = table("events", *map(column, ("number", "job_id", "deed", "to_state")))
_DISPOSED: Final = table("disposed_originals", *map(column, ("study_id", "instance_id")))
_COUNTS: Final = in_the_chain(_EVENTS)
_UNSAID: Final = ("content", "")
_DELETING: Final = "deleting"
_OF_A_DELETION: Final = (
    Deed.ORIGINALS_DELETING.value,
    Deed.ORIGINALS_DELETED.value,
    Deed.ORIGINALS_KEPT.value,
)
#: So many studies are compared at a time.
_PAGE: Final = 1000
#: And after so many ``seen`` is called.
_COUNTED: Final = 500


def contradicted(
    connection: Connection,
    job_id: str | None = None,
    *,
    most: int = 10,
    seen: Callable[[], None] = lambda: None,
) -> list[str]:
    """Give jobs, ``most`` at most, of which the tables say another thing than the trail.

    Of all studies, or of one. Where a study's lines were pruned, its row must be older than all
    that is left. Without ``job_id`` jobs are among them that the trail tells of and that have
    neither a row nor a line of their end. ``seen`` is called again and again; what it raises, this
    raises. Raises SQLAlchemyError.
    """
    found: list[str] = []
    with any_text(connection):
        for count, (row, line) in enumerate(_studies_and_lines(connection, job_id)):
            if count % _COUNTED == 0:
                seen()
            if not _agrees(connection, row, line):
                found.append(str(row.job_id))
                if len(found) == most:
                    return sorted(found)
        if job_id is None:
            found += _without_a_row(connection, most - len(found))
    return sorted(found)


def bears_out(
    connection: Connection, job_id: str, state: State, last_update: datetime | None
) -> bool:
    """Say whether the trail bears out that a rule may delete the originals of this study.

    It stands where its last line says. If it was exported, that line says that every target has
    shown to hold it; if it was turned away, no line says that it was ever taken in. Where its lines
    were pruned, its last instance came, as Orthanc says (``last_update``), before all that is left.
    Raises SQLAlchemyError.
    """
    if contradicted(connection, job_id):
        return False
    _, line = next(_studies_and_lines(connection, job_id), (None, None))
    if line is None or isinstance(line, Damaged):
        before = None if line is not None else _pruned_before(connection)
        return before is not None and last_update is not None and last_update < before
    if state is State.EXPORTED:
        return line.details.get("proved") == 1
    if state is State.REJECTED:
        taken_in = select(exists().where(*_is(job_id, Deed.STEP), _EVENTS.c.to_state == "pending"))
        return not connection.scalar(taken_in)
    return True


def tells_of_deletion(connection: Connection, job_id: str, named: Iterable[str]) -> bool:
    """Say whether the trail tells of a deletion under way of these very originals of a study.

    Raises SQLAlchemyError.
    """
    last = select(func.max(_EVENTS.c.number)).where(
        _EVENTS.c.job_id == job_id, _EVENTS.c.deed.in_(_OF_A_DELETION), _COUNTS
    )
    for line in read_these(connection, [number for number in connection.scalars(last) if number]):
        if isinstance(line, Line) and line.deed == Deed.ORIGINALS_DELETING.value:
            return line.details.get("named") in (None, digest_of_named(named))
    return False


def digest_of_named(instances: Iterable[str]) -> str:
    """Give the SHA-256 of Orthanc's ids of originals, sorted, a line each."""
    text = "".join(f"{instance}\n" for instance in sorted(map(str, instances)))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _is(job_id: str, deed: Deed) -> tuple[Any, Any, Any]:
    return _EVENTS.c.job_id == job_id, _EVENTS.c.deed == deed.value, _COUNTS


def _studies_and_lines(
    connection: Connection, job_id: str | None
) -> Iterator[tuple[Any, Line | Damaged | None]]:
    """Give the rows, as they stand, and of each the line of its last step."""
    last = (
        select(func.max(_EVENTS.c.number))
        .where(_EVENTS.c.job_id == _STUDIES.c.job_id, _EVENTS.c.deed == Deed.STEP.value, _COUNTS)
        .correlate(_STUDIES)
        .scalar_subquery()
    )
    updated = moment(connection, _STUDIES.c.updated)
    columns = [_STUDIES.c[name] for name in _PLAIN]
    query = select(*columns, updated.label("updated"), last.label("number"))
    if job_id is not None:
        query = query.where(_STUDIES.c.job_id == job_id)
    rows = connection.execute(query.execution_options(yield_per=_PAGE))
    for page in rows.partitions():
        numbers = [row.number for row in page if row.number is not None]
        lines = {line.number: line for line in read_these(connection, numbers)}
        yield from ((row, lines.get(row.number)) for row in page)


def _agrees(connection: Connection, row: Any, line: Line | Damaged | None) -> bool:
    if row.originals == _DELETING:
        named = select(_DISPOSED.c.instance_id).where(_DISPOSED.c.study_id == row.study_id)
        if not tells_of_deletion(connection, row.job_id, connection.scalars(named)):
            return False
    if line is None:
        before = _pruned_before(connection)
        return before is not None and _moment_of(row.updated) < before
    if isinstance(line, Damaged):
        return False
    if (row.state, row.reason) != (line.to_state, line.reason):
        return False
    if row.state == State.EXPORTED.value and row.instances != line.details.get(
        "instances", row.instances
    ):
        return False
    # A line that older software wrote may have had a moment of its own.
    chained_later = "chained_by_schema" in line.details
    if not chained_later and _moment_of(row.updated) != line.at:
        return False
    # A blank content says that the originals are to be looked at anew: by it nothing is deleted.
    told = [name for name in _TOLD if name in line.details and (name, row.content) != _UNSAID]
    return all(getattr(row, name) == line.details[name] for name in told)


def _moment_of(text: object) -> datetime:
    """Give a row's moment; for what is none the last there is: it agrees with nothing."""
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return datetime.max.replace(tzinfo=UTC)
    return found.replace(tzinfo=UTC)


def _pruned_before(connection: Connection) -> datetime | None:
    """Say before which moment all lines were written that were pruned; None if none was."""
    last = select(func.max(_EVENTS.c.number)).where(_EVENTS.c.deed == Deed.PRUNED.value, _COUNTS)
    for line in read_these(connection, [number for number in connection.scalars(last) if number]):
        if isinstance(line, Line):
            before = line.details.get("before")
            return line.at if before is None else _moment_of(before)
    return None


def _without_a_row(connection: Connection, most: int) -> list[str]:
    """Name jobs with a step in the trail, no line that they were forgotten, and no row."""
    end = _EVENTS.alias()
    forgotten = exists().where(
        end.c.job_id == _EVENTS.c.job_id, end.c.deed == Deed.FORGOTTEN.value, in_the_chain(end)
    )
    query = (
        select(_EVENTS.c.job_id)
        .distinct()
        .where(
            _EVENTS.c.deed == Deed.STEP.value,
            _EVENTS.c.job_id.is_not(None),
            _COUNTS,
            ~exists().where(_STUDIES.c.job_id == _EVENTS.c.job_id),
            ~forgotten,
        )
        .limit(most)
    )
    return [str(job) for job in connection.scalars(query)]
