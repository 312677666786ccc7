"""Puts files and folders where others may be: those are kept aside, and nothing is written over."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from prichexy_store.bundle_files import sync_folder, sync_tree

__all__ = ["Placing"]


class Placing:
    """New files and folders, each written beside its place before any of them is put there.

    A context manager: drafts that were not put in place are gone at its end. What is put in place
    is so in a moment, by renaming alone, and is on the disk before. Who is killed, or loses its
    power, leaves at each file's place what was there or what was to come.
    """

    def __init__(self) -> None:
        self._drafts: list[tuple[Path, Path, tuple[str, ...]]] = []
        self._undo: list[Callable[[], object]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for draft, _, _ in self._drafts:
            _remove(draft)

    def draft(self, place: Path, parts: Sequence[str] = ()) -> Path:
        """Give the path at which to write what ``put`` brings to ``place``; nothing is there.

        ``parts`` are ends of names: files beside ``place`` that are a part of what is there now go
        with it and keep their ends. Raises OSError.
        """
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = place.with_name(f".{place.name}.placing")
        _remove(draft)  # of one that was killed
        self._drafts.append((draft, place, tuple(parts)))
        return draft

    def put(self, leaving: Sequence[Path] = ()) -> tuple[Path, ...]:
        """Put every draft in place; give the new names of what was kept aside.

        ``leaving`` are files or folders that have to go, too, with nothing in their stead. Whatever
        is in the way gets the name NAME.replaced, NAME.replaced-2 and so on. Raises OSError, and
        then all is where it was.
        """
        aside: list[Path] = []
        places = [place for _, place, _ in self._drafts]
        for draft, _, _ in self._drafts:
            sync_tree(draft)
        try:
            for place in leaving:
                if _is_there(place):
                    aside.append(_free_name(place, ()))
                    self._move(place, aside[-1])
            for draft, place, parts in self._drafts:
                aside += self._put(draft, place, parts)
        except OSError:
            for undo in reversed(self._undo):
                with suppress(OSError):
                    undo()
            raise
        for folder in {place.parent for place in (*leaving, *places)}:
            sync_folder(folder)
        return tuple(aside)

    def _put(self, draft: Path, place: Path, parts: tuple[str, ...]) -> list[Path]:
        name = _free_name(place, parts)
        aside = []
        # Its parts are gone before another file comes: with these it would be neither.
        for end in ("", *parts):
            there, new = Path(f"{place}{end}"), Path(f"{name}{end}")
            if not _is_there(there):
                continue
            aside.append(new)
            if end or not self._link(there, new):
                self._move(there, new)
        draft.replace(place)
        self._undo.append(lambda: place.replace(draft))
        return aside

    def _link(self, place: Path, name: Path) -> bool:
        """Give a file a second name, so that its place is never empty; False where none can be."""
        try:
            os.link(place, name, follow_symlinks=False)
        except OSError:
            return False  # a folder, or a file system that knows no second name

        def undo() -> None:
            name.replace(place)
            name.unlink(missing_ok=True)  # it stays where both name the same file

        self._undo.append(undo)
        return True

    def _move(self, source: Path, target: Path) -> None:
        source.rename(target)
        self._undo.append(lambda: target.rename(source))


def _is_there(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _free_name(path: Path, parts: Sequence[str]) -> Path:
    number = 1
    while True:
        aside = path.with_name(f"{path.name}.replaced{_suffix(number)}")
        if not any(_is_there(Path(f"{aside}{end}")) for end in ("", *parts)):
            return aside
        number += 1


def _suffix(number: int) -> str:
    return "" if number == 1 else f"-{number}"


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
