"""Text tables as they come: plain or gzipped, with what is malformed named by its row."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from prichexy_train.data.problems import Problems, UnusableData

__all__ = ["csv_rows", "file_digest", "lines", "number", "table_file"]


def table_file(folder: Path, name: str) -> Path:
    """Give the table ``name`` in ``folder``, or its gzipped form.

    Raises UnusableData where there is neither, or both, of which one may be older.
    """
    plain, packed = folder / name, folder / f"{name}.gz"
    match plain.is_file(), packed.is_file():
        case True, True:
            raise UnusableData(f"{folder}: has both {name} and {name}.gz; remove one")
        case True, False:
            return plain
        case False, True:
            return packed
    raise UnusableData(f"{plain}: is not there, nor is {packed.name}")


def lines(path: Path) -> Iterator[str]:
    """Give each line that is not empty, without its end."""
    return (line for line in _text(path).splitlines() if line.strip())


def csv_rows(
    path: Path, columns: Sequence[str], problems: Problems
) -> Iterator[tuple[int, dict[str, str]]]:
    """Give each row of a table with a header: its line number and its cells by column.

    A row with too few or too many cells goes to ``problems``. Raises UnusableData where the file
    cannot be read or one of ``columns`` is absent.
    """
    rows = csv.reader(io.StringIO(_text(path), newline=""))
    try:
        header = next(rows, [])
        absent = [column for column in columns if column not in header]
        if absent:
            raise UnusableData(f"{path}: has no column {', '.join(absent)}")
        for cells in rows:
            if len(cells) == len(header):
                yield rows.line_num, dict(zip(header, cells, strict=True))
            elif cells:
                problems.add(
                    "A row with too few or too many cells: mend it",
                    f"{path.name}, row {rows.line_num}",
                )
    except csv.Error as error:
        raise UnusableData(f"{path}, row {rows.line_num}: is not CSV ({error})") from error


def number(text: str) -> int | None:
    """Give a whole number of at most 9 digits, or None where ``text`` is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else None


def file_digest(path: Path) -> str:
    """Give the SHA-256 of a table's text, the same whether it lies there compressed or not."""
    return hashlib.sha256(_text(path).encode()).hexdigest()


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except OSError as error:  # a damaged gzip file, too
        raise UnusableData(f"{path}: cannot be read ({error.strerror or error})") from error
    except (EOFError, zlib.error) as error:
        raise UnusableData(f"{path}: is truncated or damaged") from error
    except UnicodeDecodeError as error:
        raise UnusableData(f"{path}: is not UTF-8 text") from error
