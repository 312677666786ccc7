"""A bundle as files: which of them are the bundle, their one digest, and a copy of them."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from prichexy_store.errors import Failed

__all__ = ["FOLDERS", "bundle_digest", "copy_bundle", "sync_folder", "sync_tree"]

#: MONAI's layout. Other folders stay behind: pictures may lie there (images/, output/).
FOLDERS: Final = ("configs", "docs", "models", "scripts")


def bundle_digest(folder: Path) -> str:
    r"""Give the SHA-256 that names this bundle: of the names and contents of all its files.

    In the folder of a store's version, which holds nothing else, this gives the same::

        find . -type f -printf '%P\n' | LC_ALL=C sort | xargs sha256sum | sha256sum

    Raises Failed when a file cannot be read or is none of its own, such as a link.
    """
    lines = hashlib.sha256()
    for path in _files(folder):
        name = path.relative_to(folder).as_posix()
        lines.update(f"{_digest_of(path)}  {name}\n".encode())
    return lines.hexdigest()


def copy_bundle(source: Path, target: Path) -> None:
    """Copy the bundle's files to the new folder ``target``: readable by all, to be written by none.

    All of it is on the disk when this returns. Raises Failed.
    """
    try:
        folders = {target}
        target.mkdir()
        for path in _files(source):
            copy = target / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            folders.update(folder for folder in copy.parents if folder.is_relative_to(target))
            with path.open("rb") as reader, copy.open("xb") as writer:
                shutil.copyfileobj(reader, writer)
                writer.flush()
                os.fchmod(writer.fileno(), 0o444)
                os.fsync(writer.fileno())
        for folder in folders:
            folder.chmod(0o755)
            sync_folder(folder)
    except OSError as error:
        raise Failed(f"The bundle cannot be copied to {target} ({error.strerror}).") from None


def sync_folder(folder: Path) -> None:
    """Have the disk know what is in ``folder``. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(path: Path) -> None:
    """Have the disk know a file, or a folder with all that is in it. Raises OSError.

    A link is known with its folder; what it leads to is not looked at.
    """
    if path.is_symlink():
        return
    if not path.is_dir():
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
        return
    for inner in path.iterdir():
        sync_tree(inner)
    sync_folder(path)


def _files(folder: Path) -> list[Path]:
    """Give the bundle's files, sorted by name. Raises Failed."""
    try:
        found = list(_within(folder, FOLDERS))
    except OSError as error:
        raise Failed(f"{folder}: cannot be read ({error.strerror})") from None
    return sorted(found, key=lambda path: os.fsencode(path.relative_to(folder).as_posix()))


def _within(folder: Path, wanted: tuple[str, ...] | None = None) -> Iterator[Path]:
    """Give the files in ``folder`` and in the folders of it that are wanted; None means all."""
    for path in folder.iterdir():
        is_folder = path.is_dir()
        ours = wanted is None or path.name in wanted
        if path.name.startswith(".") or path.name == "__pycache__" or (is_folder and not ours):
            continue
        # A link leads to what somebody may change later.
        if path.is_symlink() or not (is_folder or path.is_file()):
            raise Failed(f"{path}: a bundle holds plain files and folders only")
        if is_folder:
            yield from _within(path)
        else:
            yield path


def _digest_of(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise Failed(f"{path}: cannot be read ({error.strerror})") from None
