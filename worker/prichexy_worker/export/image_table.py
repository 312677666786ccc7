"""``images.csv``: one table with a row for each image of every released study of a folder.

Workers on several hosts write it, and any of them may be killed at any moment. A lock lets one
write at a time, from what it reads there to what it makes of it. Which studies the table surely
holds is kept with each study, in a file of its own rows:

* ``<study>/images.csv``: the table has exactly these rows of the study;
* ``<study>/.images.csv.unsure``: a writer was at it, and the table may have some rows, all or none,
  of these or of those that it was to have in their place;
* neither: the table has none.

A new study is appended, which costs no more in a large table than in a small one. What is in the
table, or may be, is changed by writing the whole table anew beside it and renaming it, so that a
reader finds the old one or the new one.

The study's files are swapped by the same writer: those of a new study just before its rows are
appended, those of one that the table has between the writing of the whole new table and its
renaming. So a writer that is killed leaves files that no row names, or new files under the old rows
of a study that is marked as unsure, never new rows over old files; the study's next attempt puts
both right.
"""

from __future__ import annotations

import contextlib
import csv
import fcntl
import io
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from prichexy_worker.contract import Reason
from prichexy_worker.errors import Retryable
from prichexy_worker.export.study_folders import (
    half_written,
    os_errors,
    replacing,
    sync_folder,
    write_whole,
)
from prichexy_worker.export.uids import check_uids

__all__ = ["HeldTable", "ImageTable", "Row"]

_NAME: Final = "images.csv"
_UNSURE: Final = ".images.csv.unsure"
_LOCK: Final = ".images.csv.lock"
#: Longest wait for the lock: a table of a million rows is written anew in 5 seconds.
_WAIT: Final = 60.0
_PAUSE: Final = 0.05
#: How far back the end of a broken table is looked for at a time.
_BLOCK: Final = 1 << 16

#: A value for each column.
Row = Mapping[str, str]


def _nothing() -> None:
    """Swap no files."""


class ImageTable:
    """The table of ``folder``. Its methods raise Retryable and may be repeated.

    ``columns`` begin with the one that names a row's study. Other writers are waited for ``wait``
    seconds.
    """

    def __init__(self, folder: Path, columns: Sequence[str], wait: float = _WAIT) -> None:
        self._folder = folder
        self._held = HeldTable(folder, tuple(columns))
        self._wait = wait

    def check(self) -> None:
        """Return when there is no table yet, or one with these columns."""
        self._held.check()

    @contextlib.contextmanager
    def held(self) -> Iterator[HeldTable]:
        """Give the table to this writer alone, when no other process writes.

        A dead one's lock is gone with it. Raises Retryable where one that lives keeps it: it may
        stand still, as a paused machine's. It cannot be taken twice.
        """
        latest = time.monotonic() + self._wait
        with os_errors(), (self._folder / _LOCK).open("ab") as lock:
            while not _taken(lock):
                if time.monotonic() > latest:
                    raise Retryable(Reason.TARGET_UNREACHABLE, f"another writer keeps {_NAME}")
                time.sleep(_PAUSE)
            yield self._held


class HeldTable:
    """The table, for the one writer that has its lock: ``ImageTable.held`` gives it.

    All raise Retryable and may be repeated. A row is a line: a value that would break it is
    refused.
    """

    def __init__(self, folder: Path, columns: tuple[str, ...]) -> None:
        self._folder = folder
        self._columns = columns
        self._table = folder / _NAME

    def check(self) -> None:
        """Return when there is no table yet, or one with these columns."""
        with os_errors():
            if self._table.exists():
                self._check_columns()

    def rows(self, study_uid: str) -> list[dict[str, str]]:
        """Give the rows that the table has of a study; of an unsure one, those it may have."""
        check_uids(study_uid)
        for name in (_NAME, _UNSURE):
            with os_errors(), contextlib.suppress(FileNotFoundError):
                text = (self._folder / study_uid / name).read_text(encoding="utf-8")
                return list(csv.DictReader(io.StringIO(text)))
        return []

    def put(self, study_uid: str, rows: Sequence[Row], swap: Callable[[], None] = _nothing) -> None:
        """Make the table hold these rows of the study, and no other ones.

        ``swap`` puts the files in their places that the rows name, and may be repeated. It is
        called when all that takes long is done, the instant before the rows are seen; what it
        raises comes out. The study's folder exists, at the latest after it.
        """
        check_uids(study_uid)
        own, unsure = (self._folder / study_uid / name for name in (_NAME, _UNSURE))
        text = self._text(rows, header=True)

        def begin() -> None:
            swap()
            # From here on these are the rows of the files that are there.
            write_whole(unsure, text)

        self.check()
        with os_errors():
            if own.exists() and own.read_bytes() == text:
                swap()
                return
            if own.exists():
                # On the disk before the table is touched: it must not come back after a power cut.
                own.replace(unsure)
                sync_folder(own.parent)
            if unsure.exists():
                self._rewrite(study_uid, rows, begin)
            else:
                begin()
                self._append(rows)
            unsure.replace(own)
            sync_folder(own.parent)

    def remove(self, study_uid: str) -> None:
        """Make the table hold nothing of the study; leaves its folder without the rows."""
        check_uids(study_uid)
        own, unsure = (self._folder / study_uid / name for name in (_NAME, _UNSURE))
        with os_errors():
            for left in (*half_written(own), *half_written(unsure)):  # of a writer that was killed
                left.unlink(missing_ok=True)
            if own.exists():
                own.replace(unsure)
                sync_folder(own.parent)
            if unsure.exists():
                self._rewrite(study_uid, (), _nothing)
                unsure.unlink()

    def _append(self, rows: Sequence[Row]) -> None:
        if not self._table.exists():
            write_whole(self._table, self._text(rows, header=True))
            return
        self._mend()
        with self._table.open("ab") as file:
            file.write(self._text(rows))
            file.flush()
            os.fsync(file.fileno())

    def _rewrite(self, study_uid: str, rows: Sequence[Row], last: Callable[[], None]) -> None:
        """Write the table anew with these rows of the study; ``last`` just before it is seen."""
        # A row is a line, and a UID stands in it as it is: that is far faster than to parse.
        begin = f"{study_uid},".encode()
        with replacing(self._table) as new:
            new.write(self._text((), header=True))
            if self._table.exists():
                self._mend()
                with self._table.open("rb") as old:
                    old.readline()
                    new.writelines(line for line in old if not line.startswith(begin))
            new.write(self._text(rows))
            new.flush()
            os.fsync(new.fileno())
            last()

    def _mend(self) -> None:
        """Cut off a last line that was half written when its writer died, and check the columns.

        Its study is marked as unsure, and so gets its rows or loses them when it is dealt with.
        """
        self._check_columns()
        with self._table.open("rb+") as file:
            end = file.seek(0, os.SEEK_END)
            while end:
                begin = max(0, end - _BLOCK)
                file.seek(begin)
                last = file.read(end - begin).rfind(b"\n")
                if last >= 0:
                    file.truncate(begin + last + 1)
                    return
                end = begin

    def _check_columns(self) -> None:
        with self._table.open("rb") as file:
            if file.readline() != self._text((), header=True):
                raise Retryable(Reason.TARGET_REFUSED, f"{_NAME} has other columns")

    def _text(self, rows: Sequence[Row], *, header: bool = False) -> bytes:
        if any("\n" in value or "\r" in value for row in rows for value in row.values()):
            raise Retryable(Reason.TARGET_REFUSED, "a value of several lines")
        buffer = io.StringIO(newline="")
        writer = csv.DictWriter(buffer, self._columns, lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows(rows)
        return buffer.getvalue().encode()


def _taken(lock: BinaryIO) -> bool:
    """Take the lock, which closing the file gives back; False where another one has it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
