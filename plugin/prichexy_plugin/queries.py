"""Searches the ledger for the dashboard: pages by key, the audit trail, the last hours and days."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Float,
    String,
    and_,
    false,
    func,
    literal_column,
    not_,
    or_,
    select,
    union,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import InstrumentedAttribute, Session
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from prichexy_plugin.chain import PERSON, Damaged, Deed, Line
from prichexy_plugin.raw_lines import any_text, read_these
from prichexy_plugin.records import Span, StudyRecord
from prichexy_plugin.retention import Originals
from prichexy_plugin.schema import RULE_LENGTH, EventRow, StudyRow
from prichexy_plugin.views import Views
from prichexy_worker.contract import ENDED, PSEUDONYMOUS_UID, Reason, State

__all__ = ["Found", "Mark", "Queries", "StudySearch", "TrailSearch", "is_pseudonym"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_MARK: Final = re.compile(r"([0-9]{1,17})\.([0-9a-f-]{1,44})")


_OF_AN_ID: Final = re.compile(r"[0-9a-f-]+")
#: An id's beginning of so many letters is that of many studies.
_OFTEN: Final = 1


@dataclass(frozen=True, slots=True)
class Mark:
    """The place of a study in the list: the list goes on behind or before it."""

    updated: datetime
    study_id: str

    def __str__(self) -> str:
        """Write it as ``read`` reads it: microseconds since 1970 and Orthanc's id."""
        return f"{(self.updated - _EPOCH) // _MICROSECOND}.{self.study_id}"

    @classmethod
    def read(cls, text: str) -> Mark:
        """Read it from an address. Raises ValueError."""
        match = _MARK.fullmatch(text)
        if match is None:
            raise ValueError("no mark")
        return cls(_EPOCH + int(match[1]) * _MICROSECOND, match[2])


@dataclass(frozen=True, slots=True)
class StudySearch:
    """Which studies are wanted.

    The last step of each lies in ``since`` ≤ t < ``until``; the intake rules send it to
    ``target`` among others, and ``rule`` took it in; ``name`` begins its job id or Orthanc's id of
    it, or is the StudyInstanceUID that it was to be exported with (``is_pseudonym``); with
    ``unproved`` it is an export of which nothing shows that a target holds it.
    ``originals`` says whether all of them are here, ``withdrawing`` whether workers are asked to
    withdraw its export, ``consented`` whether that is so or nobody said that it is not consented
    to. None, "" and False of ``unproved`` narrow nothing.
    """

    state: State | None = None
    reason: Reason | None = None
    since: datetime | None = None
    until: datetime | None = None
    target: str = ""
    name: str = ""
    unproved: bool = False
    rule: str = ""
    originals: bool | None = None
    consented: bool | None = None
    withdrawing: bool | None = None


@dataclass(frozen=True, slots=True)
class TrailSearch:
    """Which lines of the audit trail are wanted.

    ``actor`` and ``job_id`` are whole names, an actor's in small or capital letters, and a user's
    with or without the trail's prefix.
    """

    state: State | None = None
    deed: Deed | None = None
    reason: Reason | None = None
    actor: str = ""
    job_id: str = ""
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A page of studies, the last changed first, and where the list goes on; None: it does not."""

    studies: tuple[StudyRecord, ...]
    newer: Mark | None
    older: Mark | None


class _SecondsBetween(FunctionElement[float]):
    """Seconds from the second moment to the first."""

    inherit_cache = True
    type = Float()


@compiles(_SecondsBetween)
def _in_standard_sql(element: Any, compiler: SQLCompiler, **options: Any) -> str:
    later, earlier = (compiler.process(part, **options) for part in element.clauses)
    return f"EXTRACT(EPOCH FROM ({later} - {earlier}))"


@compiles(_SecondsBetween, "sqlite")
def _in_sqlite(element: Any, compiler: SQLCompiler, **options: Any) -> str:
    later, earlier = (compiler.process(part, **options) for part in element.clauses)
    return f"(julianday({later}) - julianday({earlier})) * 86400.0"


class _Written(FunctionElement[str]):
    """JSON as it is written, just as the index has it."""

    inherit_cache = True
    type = String()


@compiles(_Written)
def _written_in_standard_sql(element: Any, compiler: SQLCompiler, **options: Any) -> str:
    (part,) = (compiler.process(part, **options) for part in element.clauses)
    return f"CAST({part} AS VARCHAR)"


@compiles(_Written, "sqlite")
def _written_in_sqlite(element: Any, compiler: SQLCompiler, **options: Any) -> str:
    (part,) = (compiler.process(part, **options) for part in element.clauses)
    return str(part)


class Queries(Views):
    """Searches; any thread, no writing. Every method raises SQLAlchemyError."""

    def search(
        self,
        search: StudySearch,
        *,
        limit: int,
        older_than: Mark | None = None,
        newer_than: Mark | None = None,
    ) -> Found:
        """Give the ``limit`` studies next to a mark, or the newest. Name at most one mark.

        By key, not by number: the last page of a long list costs what the first one does, and
        studies that move meanwhile push no other one over the edge of a page.
        """
        query = select(StudyRow)
        backwards = newer_than is not None
        key = (StudyRow.updated, StudyRow.study_id)
        if newer_than is not None:
            query = query.where(_beyond(newer_than, newer=True))
            query = query.order_by(*(column.asc() for column in key))
        else:
            if older_than is not None:
                query = query.where(_beyond(older_than, newer=False))
            query = query.order_by(*(column.desc() for column in key))
        with self._reading() as session:
            rows = [
                row
                for wanted in _ways(session, search)
                for row in session.scalars(query.where(*wanted).limit(limit + 1))
            ]
            rows.sort(key=lambda row: (row.updated, row.study_id), reverse=not backwards)
            studies = [row.to_record() for row in rows[:limit]]
        more = len(rows) > limit
        if backwards:
            studies.reverse()
        newer, older = (more, True) if backwards else (older_than is not None, more)
        return Found(
            tuple(studies),
            newer=_mark(studies[0]) if studies and newer else None,
            older=_mark(studies[-1]) if studies and older else None,
        )

    def count(self, search: StudySearch, limit: int) -> int:
        """Count the wanted studies, up to ``limit``."""
        found = 0
        with self._reading() as session:
            for wanted in _ways(session, search):
                some = select(StudyRow.study_id).where(*wanted).limit(limit - found).subquery()
                found += session.scalar(select(func.count()).select_from(some)) or 0
                if found >= limit:
                    break
        return found

    def working(self) -> dict[str, int]:
        """Count the studies that each worker has now, by its id."""
        query = (
            select(StudyRow.worker_id, func.count())
            .where(StudyRow.state == State.PROCESSING.value)
            .group_by(StudyRow.worker_id)
        )
        with self._reading() as session:
            return {worker: count for worker, count in session.execute(query).all() if worker}

    def oldest_waiting(self) -> datetime | None:
        """Say since when the study that waits longest for a worker does so."""
        waiting = (State.PENDING.value, State.QUEUED.value)
        with self._reading() as session:
            return session.scalar(
                select(func.min(StudyRow.updated)).where(StudyRow.state.in_(waiting))
            )

    def span(self, begin: datetime, end: datetime) -> Span:
        """Tell what ended from ``begin`` until before ``end``."""
        took = _SecondsBetween(StudyRow.updated, StudyRow.first_seen)
        with self._reading() as session:
            ended = session.execute(
                select(EventRow.to_state, func.count())
                .where(
                    EventRow.to_state.in_([state.value for state in ENDED]),
                    EventRow.deed == Deed.STEP.value,
                    EventRow.at >= begin,
                    EventRow.at < end,
                    # The deletion of an original ends nothing.
                    EventRow.from_state != EventRow.to_state,
                )
                .group_by(EventRow.to_state)
            ).all()
            # Of the connection, since the session would look at each number for an object to load.
            seconds = session.connection().scalars(
                select(took).where(
                    StudyRow.state == State.EXPORTED.value,
                    StudyRow.updated >= begin,
                    StudyRow.updated < end,
                    StudyRow.revision == 1,
                )
            )
            ascending = tuple(sorted(seconds.all()))
        counts = {State(state): count for state, count in ended if state is not None}
        return Span(begin, end, counts, ascending)

    def trail(
        self,
        search: TrailSearch,
        *,
        limit: int,
        before: int | None = None,
        after: int | None = None,
    ) -> tuple[Line | Damaged, ...]:
        """Give lines of the audit trail, the newest first: those next to a number, or the newest.

        ``before`` and ``after`` are numbers of lines; name at most one.
        """
        query = select(EventRow.number).limit(limit)
        if after is not None:
            query = query.where(EventRow.number > after).order_by(EventRow.number)
        else:
            if before is not None:
                query = query.where(EventRow.number < before)
            query = query.order_by(EventRow.number.desc())
        with self._reading() as session:
            numbers = [
                number
                for wanted in _ways_of_lines(session, search)
                for number in session.scalars(query.where(*wanted))
            ]
            numbers = sorted(numbers, reverse=after is None)[:limit]
            lines = tuple(read_these(session.connection(), numbers))
        return lines[::-1] if after is not None else lines


def is_pseudonym(name: str) -> bool:
    """Say whether a name that a study is sought by is the pseudonym of its StudyInstanceUID.

    It has dots, and no id of ours has one.
    """
    return PSEUDONYMOUS_UID.fullmatch(name) is not None


def _ways(session: Session, search: StudySearch) -> Iterator[list[ColumnElement[bool]]]:
    """Give conditions that each study which is wanted fits one of, and one alone.

    No index knows the targets one by one, but one knows the sets of them, which are few. It is in
    the order of the list for one set and one state only, so each is a question of its own: for a
    target of none there is none, and for one of most studies each ends as soon as a page is full.
    """
    wanted = list(_wanted(search))
    if not search.target:
        yield wanted
        return
    if _is_sought_by_name(search):
        yield [
            *wanted,
            _Written(StudyRow.targets).contains(_quoted(search.target), autoescape=True),
        ]
        return
    states = list(State) if search.state is None else [search.state]
    if search.reason is not None:
        # Not through all exports of a target, say, for a reason that no export has.
        reasoned = StudyRow.reason == search.reason.value
        found = select(StudyRow.state).where(reasoned)
        states = [
            state
            for state in states
            if session.scalar(found.where(StudyRow.state == state.value).limit(1)) is not None
        ]
    for targets in _sets_with(session, search.target):
        for state in states:
            yield [*wanted, _Written(StudyRow.targets) == targets, StudyRow.state == state.value]


def _sets_with(session: Session, target: str) -> Sequence[str]:
    """Give the sets of targets with this one that studies have, as they are written."""
    sets = _each(_Written(StudyRow.targets))
    return session.scalars(
        select(sets).where(sets.contains(_quoted(target), autoescape=True))
    ).all()


def _each(column: ColumnElement[str] | InstrumentedAttribute[str]) -> ColumnElement[str]:
    """Give each of a column's values once: from one to the next, as its index has them.

    So it costs what the values are, not what the rows are.
    """
    smallest = select(func.min(column).label("value")).cte("values_of_it", recursive=True)
    following = select(func.min(column)).where(column > smallest.c.value).scalar_subquery()
    values = smallest.union_all(select(following).where(smallest.c.value.is_not(None)))
    return values.c.value


def _actors_named(session: Session, name: str) -> list[str]:
    """Give the actors of this name as the trail has them."""
    connection = session.connection()
    with any_text(connection):
        found = connection.scalars(select(_each(EventRow.actor))).all()
    names = (name.casefold(), f"{PERSON}{name}".casefold())
    # Who altered a line may have written there what is no text.
    return [one for one in found if isinstance(one, str) and one.casefold() in names]


def _ways_of_lines(session: Session, search: TrailSearch) -> Iterator[list[ColumnElement[bool]]]:
    """Give conditions that each line which is wanted fits one of, and one alone.

    Each way is in the order of the list by one index; several names at once are in none's.
    """
    wanted = list(_wanted_lines(search))
    if not search.actor:
        yield wanted
        return
    actor: ColumnElement[str] | InstrumentedAttribute[str] = EventRow.actor
    if _is_sought_by_reason(search):
        actor = func.coalesce(actor, "")
    for name in _actors_named(session, search.actor):
        yield [*wanted, actor == name]


def _is_sought_by_reason(search: TrailSearch) -> bool:
    """Say whether the index of reasons, which holds all else, is to be taken and no other."""
    return search.reason is not None and not search.job_id


def _quoted(name: str) -> str:
    # No name of a target holds a quotation mark, nor does a UID.
    return f'"{name}"'


def _is_sought_by_name(search: StudySearch) -> bool:
    """Say whether the name alone leaves few studies, which are then looked at for all else."""
    return len(search.name) > _OFTEN


def _wanted(search: StudySearch) -> Iterator[ColumnElement[bool]]:
    # Of few studies that the name leaves, no other index may be taken first.
    few = _is_sought_by_name(search)
    state, reason = (
        func.coalesce(column, "") if few else column for column in (StudyRow.state, StudyRow.reason)
    )
    # An export is meant anyway.
    if search.state is not None and not (search.unproved and search.state is State.EXPORTED):
        yield state == search.state.value
    if search.reason is not None:
        yield reason == search.reason.value
    if search.rule:
        rule = func.coalesce(StudyRow.rule, "") if few else StudyRow.rule
        yield rule == search.rule[:RULE_LENGTH]
    if search.since is not None:
        yield StudyRow.updated >= search.since
    if search.until is not None:
        yield StudyRow.updated < search.until
    if search.unproved:
        # As it stands in the index of these, not as parameters.
        yield StudyRow.state == literal_column(f"'{State.EXPORTED.value}'")
        yield StudyRow.proved == false()
    if search.originals is not None:
        kept = StudyRow.originals == Originals.KEPT.value
        yield kept if search.originals else ~kept
    # No other errand is written down.
    withdraws = _Written(StudyRow.orders).contains('"errand"', autoescape=True)
    if search.consented is not None:
        may = or_(StudyRow.unconsented.is_(False), withdraws)
        yield may if search.consented else not_(may)
    if search.withdrawing is not None:
        yield withdraws if search.withdrawing else ~withdraws
    if not search.name:
        return
    if is_pseudonym(search.name):
        # No index has them: a look at every row, which is short, and at no more of it than this.
        known = _Written(StudyRow.study_uids).contains(_quoted(search.name), autoescape=True)
        yield StudyRow.study_id.in_(select(StudyRow.study_id).where(known))
    elif not _OF_AN_ID.fullmatch(search.name):
        yield false()
    elif few:
        named = (
            select(StudyRow.study_id).where(*_begins(column, search.name))
            for column in (StudyRow.job_id, StudyRow.study_id)
        )
        yield StudyRow.study_id.in_(union(*named))
    else:
        # Every eighth study: the list itself is gone through, and soon there is a page of them.
        yield or_(
            *(
                column.startswith(search.name, autoescape=True)
                for column in (StudyRow.job_id, StudyRow.study_id)
            )
        )


def _wanted_lines(search: TrailSearch) -> Iterable[ColumnElement[bool]]:
    if search.state is not None:
        state = EventRow.to_state
        yield (func.coalesce(state, "") if _is_sought_by_reason(search) else state) == search.state
    if search.deed is not None:
        yield EventRow.deed == search.deed.value
    if search.reason is not None:
        reason = EventRow.reason
        yield (reason if _is_sought_by_reason(search) else func.coalesce(reason, "")) == (
            search.reason.value
        )
    if search.job_id:
        yield EventRow.job_id == search.job_id
    if search.since is not None:
        yield EventRow.at >= search.since
    if search.until is not None:
        yield EventRow.at < search.until


def _begins(column: InstrumentedAttribute[str], name: str) -> Iterable[ColumnElement[bool]]:
    """Compare an id's beginning. The range, "g" being behind all its digits, uses the index."""
    yield column >= name
    yield column < f"{name}g"
    yield column.startswith(name, autoescape=True)


def _beyond(mark: Mark, *, newer: bool) -> ColumnElement[bool]:
    # The first term alone lets the database begin at the right place of its index.
    updated, study_id = StudyRow.updated, StudyRow.study_id
    if newer:
        tie = or_(updated > mark.updated, study_id > mark.study_id)
        return and_(updated >= mark.updated, tie)
    tie = or_(updated < mark.updated, study_id < mark.study_id)
    return and_(updated <= mark.updated, tie)


def _mark(study: StudyRecord) -> Mark:
    return Mark(study.updated, study.study_id)
