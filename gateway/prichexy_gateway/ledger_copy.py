"""Copies a ledger in SQLite out of a gateway, and back in.

``python -m prichexy_gateway.ledger_copy LEDGER < COPY`` puts a copy back where there is no
gateway's folder, as in a container, and where no plugin has LEDGER; docs/operating.md says how.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import quote

from prichexy_gateway.errors import Failed
from prichexy_gateway.placing import Placing

__all__ = ["COMPANIONS", "Told", "copy_ledger", "held", "put_back_ledger", "told_by"]

#: The schema that brought the chain of the audit trail.
_CHAINED_SINCE: Final = 6
#: Facts of the ledger (prichexy_plugin.trail, prichexy_plugin.ledger), held together by a test.
_RESTORED: Final = "restored"
_PLACE_IN_CHANGES: Final = "changes"
#: The deed of the line with which a plugin lets go of a ledger (prichexy_plugin.chain.Deed).
_STOPPED: Final = "stopped"
#: The ends of the names of what SQLite puts beside a ledger and takes for a part of it.
COMPANIONS: Final = ("-wal", "-shm")


def copy_ledger(ledger: Path, to: Path) -> None:
    """Copy the ledger as it is at one moment, while the plugin goes on. Raises Failed."""
    try:
        with (
            closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True, timeout=30)) as source,
            closing(sqlite3.connect(to)) as target,
        ):
            source.backup(target)
            # One file, whatever journal the original has.
            target.execute("PRAGMA journal_mode=DELETE")
            verdict = target.execute("PRAGMA integrity_check").fetchone()[0]
    except sqlite3.Error as error:
        raise Failed(f"{ledger}: cannot be copied ({type(error).__name__}).") from None
    if verdict != "ok":
        raise Failed(f"{ledger}: is damaged. Keep the backups that you have.")


def put_back_ledger(copied: Path, to: Path, now: datetime, *, keep_place: bool) -> None:
    """Copy to the new file ``to`` a ledger that says when it was restored.

    Without ``keep_place`` it has no place in Orthanc's changes. It is never in memory as a whole.
    Raises Failed, OSError.
    """
    to.touch(mode=0o600)
    with copied.open("rb") as stream:
        _put_back(stream, to, now, keep_place=keep_place)


def _put_back(copied: BinaryIO, to: Path, now: datetime, *, keep_place: bool) -> None:
    with to.open("wb") as stream:
        shutil.copyfileobj(copied, stream)
    try:
        with closing(sqlite3.connect(to)) as database:
            mark = (_RESTORED, int(now.timestamp()) // 60)
            database.execute("INSERT OR REPLACE INTO facts (name, number) VALUES (?, ?)", mark)
            if not keep_place:
                database.execute("UPDATE facts SET number = 0 WHERE name = ?", (_PLACE_IN_CHANGES,))
            database.commit()
    except sqlite3.Error as error:
        raise Failed(f"{to}: cannot be written ({type(error).__name__}).") from None
    with to.open("rb") as stream:
        os.fsync(stream.fileno())


@dataclass(frozen=True, slots=True)
class Told:
    """What a ledger says of itself; see ``backup.Manifest``."""

    schema: int = 0
    studies: int = 0
    keyed: bool = False
    head: str = ""


def told_by(ledger: Path) -> Told:
    """Give what the ledger says of itself. Raises Failed for what is none."""
    try:
        with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as database:
            schema = database.execute("SELECT number FROM facts WHERE name='schema'").fetchone()
            studies = database.execute("SELECT count(*) FROM studies").fetchone()
            schema, studies = int(schema[0]), int(studies[0])
            if schema < _CHAINED_SINCE:
                return Told(schema, studies)
            [keyed] = database.execute("SELECT count(*) FROM events WHERE key_id <> ''").fetchone()
            [head] = database.execute(
                "SELECT 'line ' || number || ', digest ' || digest FROM audit_chain "
                "WHERE name='head'"
            ).fetchone()
    except (sqlite3.Error, TypeError, ValueError):
        raise Failed(f"{ledger.name}: is no ledger of this software.") from None
    return Told(schema, studies, keyed=keyed > 0, head=head)


@contextmanager
def held(ledger: Path, *, crashed: bool) -> Iterator[None]:
    """Have a ledger to ourselves and in one file, so that it can be moved away in one moment.

    What a crash left beside it is a part of it afterwards. Nobody can open it meanwhile; there need
    be none. Raises Failed while somebody has it open, and, unless it is said that its plugin has
    ``crashed``, when its last line does not say that the plugin let go of it, or cannot be read.
    """
    if not ledger.exists():
        yield
        return
    place = f"file:{quote(str(ledger.absolute()))}?mode=rw"
    with closing(sqlite3.connect(place, uri=True, timeout=5, isolation_level=None)) as database:
        try:
            last = database.execute("SELECT deed FROM events ORDER BY number DESC LIMIT 1")
            let_go = last.fetchone() in (None, (_STOPPED,))
            if let_go or crashed:
                # The first is refused while anybody else has the file open, though he does nothing.
                for statement in (
                    "PRAGMA journal_mode=DELETE",
                    "PRAGMA locking_mode=EXCLUSIVE",
                    "BEGIN EXCLUSIVE",
                ):
                    database.execute(statement).fetchall()
        except sqlite3.Error as error:
            if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise Failed(f"{ledger}: is in use. Stop its ingest Orthanc first.") from None
            let_go = False  # it is damaged, or none: that may be why another one is to come
        if not let_go and not crashed:
            raise Failed(
                f"{ledger}: is in use, or its plugin ended in a crash, or it is damaged. Stop its "
                "ingest Orthanc first. If that is not running, say --crashed."
            )
        yield


def main(arguments: Sequence[str] | None = None) -> int:
    """Put the ledger that is read from standard input in place of LEDGER, which is kept aside."""
    parser = argparse.ArgumentParser(
        prog="prichexy_gateway.ledger_copy",
        description="Puts a copied ledger back, where no plugin may run. It reads standard input.",
    )
    parser.add_argument("ledger", type=Path, metavar="LEDGER")
    parser.add_argument(
        "--keep-place",
        action="store_true",
        help="the ingest Orthanc's database was not replaced: go on where the copy stood",
    )
    parser.add_argument(
        "--crashed",
        action="store_true",
        help="although the last line of LEDGER does not say that its plugin stopped, or LEDGER is "
        "damaged; nobody may have it open all the same",
    )
    options = parser.parse_args(arguments)
    try:
        with held(options.ledger, crashed=options.crashed), Placing() as placing:
            draft = placing.draft(options.ledger, COMPANIONS)
            draft.touch(mode=0o600)
            _put_back(sys.stdin.buffer, draft, datetime.now(UTC), keep_place=options.keep_place)
            told = told_by(draft)
            aside = placing.put()
    except (Failed, OSError) as error:
        text = str(error) if isinstance(error, Failed) else f"{options.ledger}: {error.strerror}."
        sys.stderr.write(f"prichexy: {text} Nothing was replaced.\n")
        return 1
    for path in aside:
        sys.stdout.write(f"Kept aside: {path}\n")
    sys.stdout.write(f"Restored: {told.studies} studies; {told.head}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
