"""Brings a ledger that older software wrote up to date, within one transaction."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    MetaData,
    Row,
    Table,
    Text,
    and_,
    case,
    cast,
    delete,
    inspect,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session, aliased
from sqlalchemy.schema import CreateColumn

from prichexy_plugin.chain import PERSON, PLUGIN, Deed, Line
from prichexy_plugin.chaining import append, begin_chain
from prichexy_plugin.intake import Rank, stream_of
from prichexy_plugin.key_watch import place_of
from prichexy_plugin.lasting import being_withdrawn
from prichexy_plugin.schema import (
    NEW_COLUMNS,
    REMADE,
    SCHEMA_VERSION,
    Base,
    DoubtRow,
    EventRow,
    KeyOfPlaceRow,
    StudyRow,
)
from prichexy_worker.contract import ENDED, Reason, State

__all__ = ["migrate"]

#: The schema that brought digests to the audit trail, and how many lines are chained at a time.
_CHAINED: Final = 6
#: The schema that brought queues, ranks and turns.
_LINES_UP: Final = 7
#: The schema that brought what was exported of which originals.
_REMEMBERS: Final = 11
#: The schema that brought under which keys of pseudonyms.
_KEYS: Final = 12
#: The schema that brought all that is not consented to, though nobody turned it away.
_UNCONSENTED: Final = 13
#: The schema that brought what killed workers may have left.
_LEFT: Final = 13
#: The schema since which pictures of images in doubt are as large as the search sees them.
_LARGER: Final = 13
_PAGE: Final = 1000


def migrate(session: Session, version: int) -> None:
    """Add what schemas after ``version`` brought. Nothing that the ledger says is lost."""
    connection = session.connection()
    there = set(inspect(connection).get_table_names())
    later = range(version + 1, SCHEMA_VERSION + 1)
    for schema in later:
        for table, names in NEW_COLUMNS.get(schema, {}).items():
            for name in names if table in there else ():
                found = Base.metadata.tables[table].c[name]
                column = CreateColumn(found).compile(dialect=connection.dialect)
                connection.exec_driver_sql(f"ALTER TABLE {table} ADD COLUMN {column}")
        for table, indices in REMADE.get(schema, {}).items():
            connection.exec_driver_sql(f"ALTER TABLE {table} RENAME TO {table}_before_{schema}")
            for index in indices:
                connection.exec_driver_sql(f"DROP INDEX {index}")
    Base.metadata.create_all(connection)
    if _CHAINED in later:
        _chain_what_was_there(session)
    if _LINES_UP in later:
        _line_up(session)
    if _REMEMBERS in later:
        _tell_what_was_never_exported(session)
    if _KEYS in later:
        _keep_keys(session)
    if _UNCONSENTED in later:
        _tell_what_is_not_consented_to(session)
    if _LEFT in later:
        _tell_what_may_be_left(session)
    if _LARGER in later:
        # Their pictures are smaller than what nobody may release over.
        session.execute(delete(DoubtRow))


def _chain_what_was_there(session: Session) -> None:
    """Carry the lines of before the chain over into it, each marked as such, under no key."""
    now = datetime.now(UTC)
    begin_chain(session, now)
    name = f"{EventRow.__tablename__}_before_{_CHAINED}"
    before = Table(name, MetaData(), autoload_with=session.connection())
    last = count = 0
    while True:
        page = select(before).where(before.c.number > last).order_by(before.c.number).limit(_PAGE)
        rows = session.execute(page).all()
        if not rows:
            break
        append(session, [_line_of_before(row) for row in rows], None)
        session.expunge_all()
        last, count = rows[-1].number, count + len(rows)
    before.drop(session.connection())
    if count:
        details = {"lines": count, "schema": _CHAINED}
        told = Line(0, now, Deed.MIGRATED.value, actor=PLUGIN, details=details)
        append(session, [told], None)


def _line_up(session: Session) -> None:
    """Tell of the studies under way what the outbox goes by; one that is tried again is told then.

    Statements over all rows: a ledger may have millions.
    """
    if session.connection().dialect.name == "postgresql":
        session.connection().exec_driver_sql("ALTER TABLE circuits ALTER COLUMN blame TYPE TEXT")
    under_way = StudyRow.state.not_in([state.value for state in ENDED])
    # PostgreSQL compares no JSON; of different texts there are as many as sets of targets.
    written = cast(StudyRow.targets, Text)
    for targets in session.scalars(select(written).where(under_way).distinct()).all():
        session.execute(
            update(StudyRow)
            .where(under_way, written == targets)
            .values(
                stream=stream_of(json.loads(targets), source=""),
                rank=case((StudyRow.backfilled, Rank.LOW.value), else_=Rank.NORMAL.value),
            )
            .execution_options(synchronize_session=False)
        )


def _tell_what_was_never_exported(session: Session) -> None:
    """Mark the studies of which no export can stand anywhere; of all others one may.

    Of these nobody knows which originals they had: what was not written down is not made up.
    """
    nothing_left = StudyRow.state.in_([State.QUARANTINED.value, State.FAILED.value])
    withdrawn = and_(
        nothing_left, cast(StudyRow.measures, Text).not_like("%targets_not_withdrawn%")
    )
    by_worker = StudyRow.reason != Reason.TOO_MANY_ATTEMPTS.value
    first = and_(StudyRow.revision == 1, StudyRow.state != State.EXPORTED.value)
    session.execute(
        update(StudyRow)
        .where(or_(first, and_(withdrawn, by_worker, StudyRow.reason != Reason.GONE.value)))
        .values(exported=False)
        .execution_options(synchronize_session=False)
    )


def _keep_keys(session: Session) -> None:
    """Write down under which key each study was exported that is so now, and each place last."""
    exported = StudyRow.state == State.EXPORTED.value
    session.execute(
        update(StudyRow)
        .where(exported)
        .values(exported_key=StudyRow.key_id)
        .execution_options(synchronize_session=False)
    )
    written = cast(StudyRow.targets, Text)
    known = exported & (StudyRow.key_id != "")
    last: dict[str, tuple[datetime, str]] = {}
    for targets in session.scalars(select(written).where(known).distinct()).all():
        moment, key = session.execute(
            select(StudyRow.updated, StudyRow.key_id)
            .where(known, written == targets)
            .order_by(StudyRow.updated.desc())
            .limit(1)
        ).one()
        place = place_of(json.loads(targets))
        # The same names in another order are the same place.
        last[place] = max(last.get(place, (moment, key)), (moment, key))
    session.add_all(KeyOfPlaceRow(place=place, key_id=key) for place, (_, key) in last.items())


def _tell_what_is_not_consented_to(session: Session) -> None:
    """Mark the studies whose originals were deleted for that, unless somebody tried them again.

    And those whose export is to be withdrawn for that, and has not been yet.
    """
    tried = aliased(EventRow)
    since = select(tried.number).where(
        tried.job_id == EventRow.job_id,
        tried.number > EventRow.number,
        tried.deed == Deed.STEP.value,
        tried.actor.startswith(PERSON),
    )
    deleted = select(EventRow.job_id).where(
        EventRow.deed == Deed.ORIGINALS_DELETING.value,
        EventRow.reason == Reason.DELETED_CONSENT.value,
        ~since.exists(),
    )
    why = StudyRow.orders["reason"].as_string() == Reason.WITHDRAWN_CONSENT.value
    session.execute(
        update(StudyRow)
        .where(or_(StudyRow.job_id.in_(deleted), and_(being_withdrawn(), why)))
        .values(unconsented=True)
        .execution_options(synchronize_session=False)
    )


def _tell_what_may_be_left(session: Session) -> None:
    """Mark the studies of which a worker that died may have left a part at their targets."""
    given_up = and_(
        StudyRow.state == State.FAILED.value, StudyRow.reason == Reason.TOO_MANY_ATTEMPTS.value
    )
    under_way = StudyRow.state.not_in([state.value for state in ENDED])
    begun = and_(StudyRow.sent.is_not(None), StudyRow.exported.is_(False))
    session.execute(
        update(StudyRow)
        .where(begun, or_(given_up, under_way))
        .values(exported=True, exported_of=b"", exported_key="")
        .execution_options(synchronize_session=False)
    )


def _line_of_before(row: Row[Any]) -> Line:
    return Line(
        number=0,
        at=row.at.replace(tzinfo=UTC),
        deed=Deed.STEP.value,
        actor=row.actor,
        job_id=row.job_id,
        from_state=row.from_state,
        to_state=row.to_state,
        reason=row.reason,
        details={"chained_by_schema": _CHAINED, "number_before": row.number},
    )
