"""DICOM files on disk: which files of a folder are DICOM objects, and of which study."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pydicom
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
)

from prichexy_gateway.errors import Failed

__all__ = ["DicomFile", "Found", "find_dicom_files"]

_PREFIX_AT: Final = 128
# How a file without preamble begins: group 0002 or 0008, in either byte order.
_HEADERLESS: Final = (b"\x02\x00", b"\x08\x00", b"\x00\x02", b"\x00\x08")
_TAGS: Final = ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID"]


@dataclass(frozen=True, slots=True)
class DicomFile:
    """One DICOM object on disk. Nothing of it is shown in a repr: names may identify, too.

    The UIDs are "" where the object lacks them or cannot be read so far.
    """

    path: Path = field(repr=False)
    study_uid: str = field(default="", repr=False)
    sop_class: str = field(default="", repr=False)
    transfer_syntax: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Found:
    """What a search came to. ``directories`` counts DICOMDIR files, which hold no image."""

    files: tuple[DicomFile, ...]
    not_dicom: int = 0
    directories: int = 0


def find_dicom_files(source: Path) -> Found:
    """Search a file or a folder, to any depth, in the order of the names.

    Links to folders are not followed. Raises Failed when the source is not there or unreadable.
    """
    files: list[DicomFile] = []
    not_dicom = directories = 0
    for path in _files_below(source):
        try:
            found = _recognize(path)
        except OSError as error:
            # Without the name, which may identify: the count is enough to go and look.
            raise Failed(f"A file of the source cannot be read ({error.strerror}).") from None
        if found is None:
            not_dicom += 1
        elif found.sop_class == MediaStorageDirectoryStorage:
            directories += 1
        else:
            files.append(found)
    return Found(tuple(files), not_dicom, directories)


def _files_below(source: Path) -> Iterator[Path]:
    if not source.exists():
        raise Failed("The source does not exist.")
    if source.is_dir():
        for folder, subfolders, names in os.walk(source):
            subfolders.sort()
            paths = (Path(folder, name) for name in sorted(names))
            yield from (path for path in paths if path.is_file())
    else:
        yield source


def _recognize(path: Path) -> DicomFile | None:
    """Give what ``path`` is, or None when it is no DICOM. Raises OSError."""
    with path.open("rb") as stream:
        head = stream.read(_PREFIX_AT + 4)
    has_prefix = head[_PREFIX_AT:] == b"DICM"
    if not has_prefix and head[:2] not in _HEADERLESS:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # their texts hold values of the object
            dataset = pydicom.dcmread(
                path, force=True, stop_before_pixels=True, specific_tags=list(_TAGS)
            )
            found = DicomFile(
                path=path,
                study_uid=str(dataset.get("StudyInstanceUID") or ""),
                sop_class=str(
                    dataset.get("SOPClassUID")
                    or dataset.file_meta.get("MediaStorageSOPClassUID")
                    or ""
                ),
                transfer_syntax=_transfer_syntax(dataset),
            )
    except OSError:
        raise
    except Exception:  # noqa: BLE001 - pydicom raises anything for what only looks like DICOM
        # With the prefix it is DICOM, damaged: the pipeline will say so. Without, nobody knows.
        return DicomFile(path) if has_prefix else None
    return found if has_prefix or found.sop_class else None


def _transfer_syntax(dataset: pydicom.FileDataset) -> str:
    """Give the transfer syntax; of a file that does not name it, the one it was read as."""
    named = dataset.file_meta.get("TransferSyntaxUID")
    if named:
        return str(named)
    implicit, little = dataset.original_encoding
    if implicit:
        return str(ImplicitVRLittleEndian)
    return str(ExplicitVRLittleEndian if little else ExplicitVRBigEndian)
