"""A folder as export target: ``<study>/<series>/<instance>.dcm``, named by the new UIDs."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import pydicom
from pydicom.errors import InvalidDicomError

from prichexy_worker import header
from prichexy_worker.contract import Reason
from prichexy_worker.errors import Retryable
from prichexy_worker.ports import Anonymized, InstanceName

__all__ = ["FolderExport"]

_UID: Final = re.compile(r"[0-9]+(\.[0-9]+)*")


class FolderExport:
    """An ExportTarget that writes files.

    A file appears whole or not at all, also when the machine stops in between. The folder itself
    is never made: where a share is not mounted, nothing is written beneath its mount point.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def check(self) -> None:
        """Return when the folder exists and may be written to."""
        with _os_errors():
            if not os.access(self._folder, os.W_OK | os.X_OK):
                missing = not self._folder.is_dir()
                reason = Reason.TARGET_UNREACHABLE if missing else Reason.TARGET_REFUSED
                raise Retryable(reason, "no such folder" if missing else "not writable")

    def store(self, instance: Anonymized) -> None:
        """Write the file beside its place, then rename it into it."""
        self.check()
        path = self._path(instance)
        # A fixed name: what a killed worker left is overwritten by the next attempt.
        part = path.with_name(f".{path.name}.part")
        with _os_errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with part.open("wb") as file:
                    file.write(instance.content)
                    file.flush()
                    os.fsync(file.fileno())
                part.replace(path)
            except OSError:
                part.unlink(missing_ok=True)
                raise
            _sync_folder(path.parent)

    def fetch(self, instance: InstanceName) -> bytes | None:
        """Give the file's bytes."""
        self.check()
        with _os_errors():
            try:
                return self._path(instance).read_bytes()
            except FileNotFoundError:
                return None

    def withdraw(self, instance: InstanceName) -> None:
        """Remove the file, and the folders that it leaves empty."""
        self.check()
        path = self._path(instance)
        with _os_errors():
            path.unlink(missing_ok=True)
            path.with_name(f".{path.name}.part").unlink(missing_ok=True)
            for folder in (path.parent, path.parent.parent):
                with contextlib.suppress(OSError):  # not empty, or not there
                    folder.rmdir()

    def withdraw_study(self, study_uid: str) -> None:
        """Remove the study's folder. It is gone in one step, so that nobody reads half of it."""
        self.check()
        _check_uids(study_uid)
        withdrawn = self._folder / f".{study_uid}.withdrawn"
        with _os_errors():
            if withdrawn.exists():  # of a worker that was killed here
                shutil.rmtree(withdrawn)
            with contextlib.suppress(FileNotFoundError):
                (self._folder / study_uid).rename(withdrawn)
                shutil.rmtree(withdrawn)

    def withdraw_others(self, kept: Sequence[Anonymized]) -> None:
        """Remove the study's other images of ours, and what killed workers left half written."""
        self.check()
        paths = {self._path(instance) for instance in kept}
        study, patient = self._folder / kept[0].study_uid, kept[0].patient_id
        with _os_errors():
            for series in sorted(path for path in study.iterdir() if path.is_dir()):
                for path in sorted(series.iterdir()):
                    half = path.name.startswith(".") and path.suffix == ".part"
                    if half or (path not in paths and _is_ours(path, patient)):
                        path.unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # not empty
                    series.rmdir()

    def _path(self, instance: InstanceName) -> Path:
        uids = (instance.study_uid, instance.series_uid, instance.sop_uid)
        _check_uids(*uids)
        return self._folder.joinpath(*uids[:2], f"{uids[2]}.dcm")


def _is_ours(path: Path, patient_id: str) -> bool:
    """Tell whether the file is an image of this patient that this gateway made."""
    wanted = ["SOPClassUID", "PatientID", "DeidentificationMethod"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # their texts hold values
        try:
            found = pydicom.dcmread(path, specific_tags=wanted, stop_before_pixels=True)
            method = found.get("DeidentificationMethod") or ""
            methods = [method] if isinstance(method, str) else [str(text) for text in method]
            same = str(found.get("PatientID", "")) == patient_id
            return same and header.is_ours(str(found.get("SOPClassUID", "")), methods)
        except (InvalidDicomError, ValueError, TypeError, KeyError, EOFError, AttributeError):
            return False


def _check_uids(*uids: str) -> None:
    """Raise Retryable for anything else: a name such as ".." must not lead out of the folder."""
    if not all(_UID.fullmatch(uid) for uid in uids):
        raise Retryable(Reason.TARGET_REFUSED, "not a UID")


def _sync_folder(folder: Path) -> None:
    """Make the rename last; some network file systems cannot, and need not."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _os_errors() -> Iterator[None]:
    """Turn the system's errors into Retryable, named by class: their texts hold paths."""
    try:
        yield
    except OSError as error:
        raise Retryable(Reason.TARGET_REFUSED, type(error).__name__) from None
