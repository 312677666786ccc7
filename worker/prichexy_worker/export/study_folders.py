"""Files of studies below one folder: ``<study>/<series>/<instance><suffix>``, by the new UIDs.

What is not to be read yet lies beside, hidden: ``.<study>.partial/<series>/<instance><suffix>``.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from prichexy_worker.contract import Reason
from prichexy_worker.errors import Retryable
from prichexy_worker.export.uids import check_uids
from prichexy_worker.ports import Check, InstanceName

__all__ = [
    "Ours",
    "StudyFolders",
    "half_written",
    "os_errors",
    "replacing",
    "sync_folder",
    "write_whole",
]


class Ours(NamedTuple):
    """Which of a study's files may be removed: by their paths, and half written ones by their UIDs.

    Whatever a folder holds beside these is others'.
    """

    whole: Callable[[Path], bool]
    begun: Callable[[str], bool]


#: A folder is not renamed to one that holds something (rename(2)).
_NOT_EMPTY: Final = frozenset({errno.ENOTEMPTY, errno.EEXIST})


class StudyFolders:
    """Writes, reads and removes such files. All raise Retryable.

    The folder itself is never made: where it lies in a share that is not mounted, nothing is
    written in its place. A folder that is a share's mount point is there without the share, too:
    then ``marker`` names what must lie in it, or it is known by having been a mount point before,
    as far as this process has seen.
    """

    def __init__(self, folder: Path, suffix: str, marker: str | None = None) -> None:
        self.folder = folder
        self._suffix = suffix
        self._share = _Share(folder, marker)
        self._named = "{}"

    def hidden(self) -> StudyFolders:
        """Give those that lie beside, hidden; one knowledge of the share serves both."""
        beside = copy.copy(self)
        beside._named = ".{}.partial"
        return beside

    def check(self) -> None:
        """Return when the folder exists, is the one that is meant, and may be written to."""
        self._share.check()

    def path(self, instance: InstanceName) -> Path:
        """Give the place of an instance's file. Raises Retryable for what is no UID."""
        check_uids(instance.series_uid, instance.sop_uid)
        series = self._study(instance.study_uid) / instance.series_uid
        return series / f"{instance.sop_uid}{self._suffix}"

    def _study(self, study_uid: str) -> Path:
        """Give the place of a study's folder. Raises Retryable for what is no UID."""
        check_uids(study_uid)
        return self.folder / self._named.format(study_uid)

    def write(self, instance: InstanceName, content: bytes) -> None:
        """Make the file hold ``content``; it appears whole or not at all."""
        self.check()
        path = self.path(instance)
        with os_errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, content)

    def read(self, instance: InstanceName) -> bytes | None:
        """Give the file's bytes, or None when there is none."""
        self.check()
        path = self.path(instance)
        with os_errors():
            try:
                return path.read_bytes()
            except FileNotFoundError:
                return None

    def holds(self, instance: InstanceName) -> bool:
        """Tell whether there is such a file."""
        self.check()
        path = self.path(instance)
        with os_errors():
            return path.is_file()

    def remove(self, instance: InstanceName) -> None:
        """Remove the file, and the folders that it leaves empty."""
        self.check()
        path = self.path(instance)
        with os_errors():
            path.unlink(missing_ok=True)
            for left in half_written(path):
                left.unlink(missing_ok=True)
            for folder in (path.parent, path.parent.parent):
                with contextlib.suppress(OSError):  # not empty, or not there
                    folder.rmdir()

    def remove_study(self, study_uid: str, ours: Ours, may_go_on: Check) -> None:
        """Remove the study's files that are ``ours``, with the folders that this leaves empty.

        Where nothing else lies there, all is gone in one step, so that nobody reads half of it.
        """
        self.check()
        study = self._study(study_uid)
        withdrawn = self.folder / f".{study_uid}.withdrawn"
        with os_errors():
            if withdrawn.exists():  # of a worker that was killed here: all of it was ours
                shutil.rmtree(withdrawn)
            if not study.is_dir():
                return
            files = [path for path in study.rglob("*") if path.is_symlink() or not path.is_dir()]
            if files and all(map(self._unwanted(ours), files)):
                may_go_on()
                study.rename(withdrawn)
                shutil.rmtree(withdrawn)
                return
        self.remove_from(study_uid, ours, may_go_on)
        with contextlib.suppress(OSError):  # not empty
            study.rmdir()

    def files(self, study_uid: str) -> Iterator[Path]:
        """Give the whole files of a study's series, those of others there included."""
        self.check()
        study = self._study(study_uid)
        with os_errors():
            for path in sorted(study.glob(f"*/*{self._suffix}")):
                if not path.name.startswith("."):
                    yield path

    def remove_from(self, study_uid: str, ours: Ours, may_go_on: Check) -> None:
        """Remove the files of a study's series that are ``ours``.

        Folders that this leaves empty go, too.
        """
        self.check()
        study, unwanted = self._study(study_uid), self._unwanted(ours)
        with os_errors():
            if not study.is_dir():
                return
            for series in sorted(path for path in study.iterdir() if path.is_dir()):
                for path in filter(unwanted, sorted(series.iterdir())):
                    may_go_on()
                    path.unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # not empty
                    series.rmdir()
            with contextlib.suppress(OSError):  # not empty
                study.rmdir()

    def release(self, instances: Sequence[InstanceName], to: StudyFolders) -> None:
        """Move the files of these instances, at least one and of one study, to their places there.

        In one step where nothing of the study is there and nothing else of it here: a reader sees
        all of them or none. Else each file in one step, in place of the one that is there. Files
        that are there already and not here stay.
        """
        self.check()
        here, there = self._study(instances[0].study_uid), to._study(instances[0].study_uid)
        with os_errors():
            for instance in instances:
                if not (self.path(instance).is_file() or to.path(instance).is_file()):
                    raise Retryable(Reason.READ_BACK_DIFFERS, "missing")
            alone = set(here.glob("*/*")) == {self.path(instance) for instance in instances}
            if not (alone and _renamed(here, there)):
                for instance in instances:
                    self._move(self.path(instance), to.path(instance))
                with contextlib.suppress(OSError):  # not empty, or not there
                    here.rmdir()
                sync_folder(there)
            sync_folder(self.folder)

    def _unwanted(self, ours: Ours) -> Callable[[Path], bool]:
        def unwanted(path: Path) -> bool:
            sop_uid = self._begun(path)
            return ours.whole(path) if sop_uid is None else ours.begun(sop_uid)

        return unwanted

    def _begun(self, path: Path) -> str | None:
        """Give the SOPInstanceUID of a file that a killed worker half wrote; None of any other."""
        if not (path.name.startswith(".") and path.suffix == ".part"):
            return None
        sop_uid, found, _rest = path.name[1:].partition(f"{self._suffix}.")
        return sop_uid if found else None

    @staticmethod
    def _move(path: Path, place: Path) -> None:
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.replace(place)
        except FileNotFoundError:
            if not place.is_file():
                raise
        sync_folder(place.parent)
        with contextlib.suppress(OSError):  # not empty, or not there
            path.parent.rmdir()


class _Share:
    """The folder, and what is known of where it lies."""

    def __init__(self, folder: Path, marker: str | None) -> None:
        self._folder = folder
        self._marker = None if marker is None else folder / marker
        self._was_mounted = False

    def check(self) -> None:
        """Return when it can be used; see ``StudyFolders``. Raises Retryable."""
        with os_errors():
            if not self._folder.is_dir():
                raise Retryable(Reason.TARGET_UNREACHABLE, "no such folder")
            mounted = self._folder.is_mount()
            if self._was_mounted and not mounted:
                raise Retryable(Reason.TARGET_UNREACHABLE, "not mounted any more")
            self._was_mounted = mounted
            if self._marker is not None and not self._marker.exists():
                raise Retryable(Reason.TARGET_UNREACHABLE, "its marker does not lie in it")
            if not os.access(self._folder, os.W_OK | os.X_OK):
                raise Retryable(Reason.TARGET_REFUSED, "not writable")


def _renamed(folder: Path, place: Path) -> bool:
    """Rename a folder, whose files are on the disk; False where the place is taken."""
    sync_folder(folder)
    try:
        folder.rename(place)
    except OSError as error:
        if error.errno not in _NOT_EMPTY:
            raise
        return False
    return True


def write_whole(path: Path, content: bytes) -> None:
    """Make the file hold ``content``, also when the machine stops in between. Raises OSError."""
    with replacing(path) as file:
        file.write(content)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Give a file that is in the place of ``path`` after the block, whole. Raises OSError.

    It is written beside its place under a name of its own, so that a worker that was frozen and
    goes on writes into no other one's file, and renamed. What killed ones left there is removed.
    """
    for left in half_written(path):
        left.unlink(missing_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename last; some network file systems cannot, and need not."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def os_errors() -> Iterator[None]:
    """Turn the system's errors into Retryable, by class and symbol: their texts hold paths."""
    try:
        yield
    except OSError as error:
        symbol = errno.errorcode.get(error.errno or 0, "")
        detail = f"{type(error).__name__} {symbol}".rstrip()
        raise Retryable(Reason.TARGET_REFUSED, detail) from None


def half_written(path: Path) -> list[Path]:
    """Give the files that writers of ``path`` left half written, with ``replacing``, or write."""
    return list(path.parent.glob(f".{path.name}*.part"))
