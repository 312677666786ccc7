"""The audit trail in the ledger: the one place where its lines are written and taken away.

Every change of the ledger goes through ``Trail._writing``: the lines that belong to it are chained
at its very end, in the same transaction, under a lock on the chain's head. So a change without its
line cannot be, two writers cannot fork the chain, and as nothing is locked after that lock, none
waits for another in a circle.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sqlalchemy import Engine, delete, func, select, update
from sqlalchemy.orm import Session

from prichexy_plugin.chain import (
    GENESIS,
    PLUGIN,
    Broken,
    ChainKey,
    Damaged,
    Deed,
    Head,
    Line,
    Verdict,
    head_of,
    verify,
    walk,
)
from prichexy_plugin.chaining import append, chain_row
from prichexy_plugin.ownership import RESTORED, admit, check_owner, take_over
from prichexy_plugin.raw_lines import in_the_chain, read_heads, read_lines, read_these
from prichexy_plugin.schema import (
    CHECKPOINT,
    HEAD,
    LOSES,
    ChainRow,
    EventRow,
    FactRow,
    StudyRow,
)
from prichexy_plugin.standing import contradicted
from prichexy_plugin.views import Views
from prichexy_worker.contract import DEFAULT_QUEUE, Reason, State

__all__ = ["ChainState", "Clock", "Entry", "Trail"]

#: Gives the present moment with its time zone.
Clock = Callable[[], datetime]
_TOLD: Final = "syslog"
#: After so many lines a verification tells how far it is.
_COUNTED: Final = 500
#: A moment since 1970 that is above this is in seconds; minutes come there in the year 2920.
_IN_SECONDS: Final = 500_000_000
#: Where a session keeps the lines that its transaction ends with.
_ENTRIES: Final = "prichexy_entries"


@dataclass(frozen=True, slots=True)
class Entry:
    """What a line will tell, before it has a place in the chain; see ``chain.Line``."""

    deed: Deed
    at: datetime
    actor: str = PLUGIN
    job_id: str | None = None
    before: State | None = None
    after: State | None = None
    reason: Reason | None = None
    details: Mapping[str, int | str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ChainState:
    """How the trail is, for people; nothing is verified for it.

    ``lines`` stand after ``checkpoint``. ``told`` is the last line that the syslog server has, None
    when there never was one; ``untold_since`` is the moment of the first line that it has yet to
    get, None when there is none. ``ends_at_head``: the last line is the one that the chain says is.
    """

    head: Head
    checkpoint: Head
    lines: int
    keyed: bool
    told: int | None
    ends_at_head: bool
    untold_since: datetime | None = None


class Trail(Views):
    """Writes lines; any thread. Every method raises SQLAlchemyError, and see ``begin``."""

    def __init__(
        self,
        engine: Engine,
        clock: Clock,
        key: ChainKey | None = None,
        *,
        retired_keys: Collection[ChainKey] = (),
        own_queue: str = DEFAULT_QUEUE,
        named_queues: Collection[str] | None = None,
    ) -> None:
        super().__init__(engine, own_queue, named_queues)
        self._clock = clock
        self._key = key
        written_under = (*retired_keys, key) if key is not None else ()
        self._chain_keys = {one.key_id: one for one in written_under}
        #: The number of the Orthanc that has begun with this ledger.
        self._orthanc: int | None = None

    @property
    def place(self) -> str:
        """Say where the ledger is: the path of SQLite's file, or the kind of server alone."""
        url = self._engine.url
        if url.get_backend_name() != "sqlite":
            return url.get_backend_name()
        return str(Path(url.database or "").absolute())

    def record(
        self,
        deed: Deed,
        *,
        by: str = PLUGIN,
        job_id: str | None = None,
        details: Mapping[str, int | str] | None = None,
    ) -> None:
        """Write a line of what changes nothing else in the ledger.

        ``by`` is the Orthanc user who did it, where one did. ``details`` are codes, digests and
        counts: no free text, and nothing that identifies a patient.
        """
        with self._writing() as session:
            self._tell(session, Entry(deed, self._clock(), by, job_id, details=details or {}))

    def begin(
        self, details: Mapping[str, int | str], *, tells: bool, orthanc: int | None = None
    ) -> None:
        """Write that the plugin opened the ledger, under the configuration that is named.

        From then on the ledger is that of the Orthanc with the number ``orthanc``. Raises
        OthersLedger, and has written nothing, when it is another's; so does all that writes, from
        when the ledger was given to another one. Without a number nobody asks whose it is.

        A line before it says that the ledger was restored from a backup, where it was, and one that
        it is now another Orthanc's, where somebody had given it free for that.

        With ``tells`` a syslog server is told of all lines from this one on, or from where the
        last one was told.
        """
        with self._writing() as session:
            taken_over = False
            if orthanc is not None:
                admit(session, orthanc)
                taken_over = take_over(session, orthanc)
            if tells and session.get(FactRow, _TOLD) is None:
                head = chain_row(session, HEAD)
                session.add(FactRow(name=_TOLD, number=head.number))
            restored = session.get(FactRow, RESTORED)
            if restored is not None:
                head = chain_row(session, HEAD)
                # Minutes; software of before wrote seconds.
                seconds = restored.number * (1 if restored.number > _IN_SECONDS else 60)
                at = datetime.fromtimestamp(seconds, UTC).isoformat()
                upto: dict[str, int | str] = {"upto": head.number, "digest": head.digest}
                told = Entry(Deed.RESTORED, self._clock(), details={**upto, "restored_at": at})
                self._tell(session, told)
                session.delete(restored)
            if taken_over:
                freed = Entry(Deed.ACTION, self._clock(), details={"action": "take over"})
                self._tell(session, freed)
            self._tell(session, Entry(Deed.STARTED, self._clock(), details=details))
        self._orthanc = orthanc

    def check_owner(self) -> None:
        """Raise OthersLedger when the ledger was given to another Orthanc since ``begin``."""
        if self._orthanc is not None:
            with self._reading() as session:
                check_owner(session, self._orthanc)

    def last_written(self) -> datetime | None:
        """Say when the last line was written, None before the first."""
        with self._reading() as session:
            return session.scalar(
                select(ChainRow.at).where(ChainRow.name == HEAD, ChainRow.number > 0)
            )

    def chain_state(self) -> ChainState:
        """Say how long the trail is and where it ends."""
        with self._reading() as session:
            checkpoint, head = read_heads(session.connection())
            # No more of the line than this: the rest of it may be altered.
            last = session.execute(
                select(EventRow.number, EventRow.digest, EventRow.key_id)
                .order_by(EventRow.number.desc())
                .limit(1)
            ).first()
            told = _told(session)
            untold = select(EventRow.at).order_by(EventRow.number).limit(1)
            ends = checkpoint if last is None else head_of(last.number, last.digest)
            begins, goes_to = (one or Head(0, GENESIS) for one in (checkpoint, head))
            return ChainState(
                head=goes_to,
                checkpoint=begins,
                lines=goes_to.number - begins.number,
                keyed=last is not None and bool(last.key_id),
                told=told,
                ends_at_head=head is not None and ends == head,
                untold_since=(
                    None if told is None else session.scalar(untold.where(EventRow.number > told))
                ),
            )

    def verdict(self, seen: Callable[[int], None] = lambda _count: None) -> Verdict:
        """Verify all lines, with the keys that this ledger has; takes seconds for 100,000.

        ``seen`` is told again and again how many of them were read; what it raises, this raises.

        Raises UnknownKey when a line is under another one.
        """
        with self._reading() as session:
            connection = session.connection()
            checkpoint, head = read_heads(connection)
            with closing(read_lines(connection)) as rows:
                lines = _counted(rows, seen)
                verdict = verify(lines, checkpoint=checkpoint, head=head, keys=self._chain_keys)
            standing = contradicted(connection, seen=lambda: seen(verdict.lines))
            return replace(verdict, standing=tuple(standing))

    def lines(
        self, *, after: int = 0, limit: int = 100, job_id: str | None = None
    ) -> tuple[Line | Damaged, ...]:
        """Give the next lines after number ``after``, of one study or of all."""
        query = select(EventRow.number).where(EventRow.number > after)
        if job_id is not None:
            query = query.where(EventRow.job_id == job_id)
        with self._reading() as session:
            numbers = session.scalars(query.order_by(EventRow.number).limit(limit)).all()
            return tuple(read_these(session.connection(), numbers))

    def oldest(self) -> Line | Damaged | None:
        """Give the first line of the chain, None when it has none."""
        first = select(func.min(EventRow.number)).where(in_the_chain(EventRow.__table__))
        with self._reading() as session:
            numbers = [number for number in session.scalars(first) if number is not None]
            return next(read_these(session.connection(), numbers), None)

    def told(self) -> int | None:
        """Give the number of the last line that the syslog server has.

        A number beyond the last line is nobody's word: then it is that of the checkpoint.
        """
        with self._reading() as session:
            return _told(session)

    def told_word(self) -> int | None:
        """Give the number that the ledger has for that, whatever it is."""
        with self._reading() as session:
            fact = session.get(FactRow, _TOLD)
            return None if fact is None else fact.number

    def note_told(self, number: int) -> None:
        """Write down that the syslog server has all lines up to this one."""
        with self._writing() as session:
            session.merge(FactRow(name=_TOLD, number=number))

    def tell_again(self, after: int) -> None:
        """Have the syslog server told from the line after this one on, and say so in the trail.

        For a ledger whose word on what the server has was altered.
        """
        with self._writing() as session:
            session.merge(FactRow(name=_TOLD, number=after))
            details: dict[str, int | str] = {"action": "tell syslog again", "after": after}
            self._tell(session, Entry(Deed.ACTION, self._clock(), details=details))

    def prune(self, before: datetime, *, told: int | None, most: int) -> int:
        """Delete the oldest lines, up to the first that is not older than ``before``.

        At most ``most``, and none that a syslog server is yet to be told (``told``, None without
        one), or from which a deletion goes on. The checkpoint takes their place, and a line says
        so. Gives how many were deleted.

        They are verified before, with the keys that this ledger has, and the line after them, which
        holds their digests: what was altered is evidence, and stays. Raises Broken and UnknownKey,
        and has deleted nothing.
        """
        with self._writing() as session:
            chain_row(session, CHECKPOINT, lock=True)
            checkpoint, head = read_heads(session.connection())
            if checkpoint is None or head is None:
                raise Broken(1, "the ledger's word on where the trail begins or ends is altered")
            younger = session.scalar(
                select(func.min(EventRow.number)).where(
                    EventRow.number > checkpoint.number,
                    EventRow.number <= checkpoint.number + most,
                    EventRow.at >= before,
                )
            )
            # Nothing more would be deleted of a study whose line of it is gone.
            deletion = session.scalar(
                select(func.min(EventRow.number)).where(
                    EventRow.job_id.in_(select(StudyRow.job_id).where(LOSES)),
                    EventRow.deed == Deed.ORIGINALS_DELETING.value,
                )
            )
            upto = min(
                head.number if younger is None else younger - 1,
                checkpoint.number + most,
                head.number if told is None else told,
                head.number if deletion is None else deletion - 1,
            )
            if upto <= checkpoint.number:
                return 0
            last = self._verified(session, checkpoint, upto, head)
            now = self._clock()
            values = {"number": upto, "digest": last.digest, "at": now}
            count = upto - checkpoint.number
            # In this order: only what the checkpoint stands for may be deleted.
            session.execute(update(ChainRow).where(ChainRow.name == CHECKPOINT).values(**values))
            session.execute(delete(EventRow).where(EventRow.number <= upto))
            details: dict[str, int | str] = {"upto": upto, "digest": last.digest, "lines": count}
            details["before"] = before.astimezone(UTC).replace(tzinfo=None).isoformat()
            self._tell(session, Entry(Deed.PRUNED, now, details=details))
            return count

    def _verified(self, session: Session, after: Head, upto: int, head: Head) -> Head:
        """Give the head of the line ``upto``; see ``prune``. Raises Broken, UnknownKey."""
        with closing(read_lines(session.connection(), upto + 1)) as rows:
            heads = walk(rows, after=after, keys=self._chain_keys)
        expected = min(upto + 1, head.number)
        last = heads[-1] if heads else after
        if last.number < expected:
            raise Broken(last.number + 1, "the line is missing")
        if expected == head.number and last != head:
            raise Broken(head.number, "the trail does not end where it says")
        return heads[upto - after.number - 1]

    @contextmanager
    def _writing(self) -> Iterator[Session]:
        with Session(self._engine) as session, session.begin():
            entries: list[Entry] = []
            session.info[_ENTRIES] = entries
            if self._orthanc is not None:
                check_owner(session, self._orthanc)
            yield session
            if entries:
                session.flush()
                append(session, [_line(entry) for entry in entries], self._key)

    def _tell(self, session: Session, entry: Entry) -> None:
        """Have the transaction of ``session`` end with this line."""
        session.info[_ENTRIES].append(entry)


def _counted(
    lines: Iterable[Line | Damaged], seen: Callable[[int], None]
) -> Iterator[Line | Damaged]:
    for count, line in enumerate(lines):
        if count % _COUNTED == 0:
            seen(count)
        yield line


def _told(session: Session) -> int | None:
    fact = session.get(FactRow, _TOLD)
    if fact is None:
        return None
    checkpoint, head = read_heads(session.connection())
    last, first = (0 if one is None else one.number for one in (head, checkpoint))
    return fact.number if 0 <= fact.number <= last else first


def _line(entry: Entry) -> Line:
    return Line(
        number=0,
        at=entry.at,
        deed=entry.deed.value,
        actor=entry.actor,
        job_id=entry.job_id,
        from_state=None if entry.before is None else entry.before.value,
        to_state=None if entry.after is None else entry.after.value,
        reason=None if entry.reason is None else entry.reason.value,
        details=entry.details,
    )
