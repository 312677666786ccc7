"""DICOM files on disk: which files of a folder are DICOM objects, and of which study."""

from __future__ import annotations

import os
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Final

import pydicom
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
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
_LAST_TAG: Final = Tag("StudyInstanceUID")
#: So much of a deflated object is read and inflated: a few bytes may stand for gigabytes. What we
#: look for stands near the beginning.
_DEFLATED_BYTES: Final = 1 << 20


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
    """What a search came to.

    ``directories`` counts DICOMDIR files, which hold no image; ``unreadable`` the files and folders
    that the system did not let us read.
    """

    files: tuple[DicomFile, ...]
    not_dicom: int = 0
    directories: int = 0
    unreadable: int = 0

    def unread_sentence(self) -> str:
        """Tell people how many could not be read."""
        return f"{self.unreadable} files or folders cannot be read: look at their permissions."


def find_dicom_files(source: Path) -> Found:
    """Search a file or a folder, to any depth, in the order of the names.

    Links to folders are not followed. What cannot be read is counted, without its name, which may
    identify. Raises Failed when the source is not there.
    """
    files: list[DicomFile] = []
    errors: list[OSError] = []
    not_dicom = directories = 0
    for path in _files_below(source, errors.append):
        try:
            if not path.is_file():
                continue  # a socket, a device, a link that leads nowhere
            found = _recognize(path)
        except OSError as error:
            errors.append(error)
            continue
        if found is None:
            not_dicom += 1
        elif found.sop_class == MediaStorageDirectoryStorage:
            directories += 1
        else:
            files.append(found)
    return Found(tuple(files), not_dicom, directories, len(errors))


def _files_below(source: Path, complain: Callable[[OSError], None]) -> Iterator[Path]:
    if not source.exists():
        raise Failed("The source does not exist.")
    if source.is_dir():
        for folder, subfolders, names in os.walk(source, onerror=complain):
            subfolders.sort()
            yield from (Path(folder, name) for name in sorted(names))
    else:
        yield source


def _recognize(path: Path) -> DicomFile | None:
    """Give what ``path`` is, or None when it is no DICOM. Raises OSError."""
    with path.open("rb") as stream:
        head = stream.read(_PREFIX_AT + 4)
        has_prefix = head[_PREFIX_AT:] == b"DICM"
        if not has_prefix and head[:2] not in _HEADERLESS:
            return None
        stream.seek(_PREFIX_AT + 4 if has_prefix else 0)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # their texts hold values of the object
                found = _described(path, stream)
        except OSError:
            raise
        except Exception:  # noqa: BLE001 - pydicom raises anything for what only looks like DICOM
            # With the prefix it is DICOM, damaged: the pipeline will say so. Without, nobody knows.
            return DicomFile(path) if has_prefix else None
    return found if has_prefix or found.sop_class else None


def _described(path: Path, stream: BinaryIO) -> DicomFile:
    """Read the identifiers; ``stream`` stands at the file meta, or where it would be."""
    meta = _file_meta(stream)
    syntax = str(meta.get("TransferSyntaxUID") or "")
    if syntax == DeflatedExplicitVRLittleEndian:
        dataset = _inflated_beginning(stream)
    else:
        read = pydicom.dcmread(path, force=True, stop_before_pixels=True, specific_tags=list(_TAGS))
        dataset, syntax = read, syntax or _transfer_syntax(read)
    return DicomFile(
        path=path,
        study_uid=str(dataset.get("StudyInstanceUID") or ""),
        sop_class=str(dataset.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID") or ""),
        transfer_syntax=syntax,
    )


def _file_meta(stream: BinaryIO) -> Dataset:
    """Read group 0002, which is empty where there is none, and leave the stream behind it.

    Read apart: reading the whole, pydicom would inflate a deflated object first.
    """
    start = stream.tell()
    length_element = stream.read(12)
    known = length_element[:8] == b"\x02\x00\x00\x00UL\x04\x00"
    stream.seek(start)
    if length_element[:2] != b"\x02\x00":
        return Dataset()
    meta = read_dataset(
        stream, is_implicit_VR=False, is_little_endian=True, stop_when=_is_beyond_file_meta
    )
    if known:
        stream.seek(start + 12 + int.from_bytes(length_element[8:], "little"))
    return meta


def _is_beyond_file_meta(tag: BaseTag, vr: str | None, length: int) -> bool:
    del vr, length
    return tag.group != 2


def _is_beyond_identifiers(tag: BaseTag, vr: str | None, length: int) -> bool:
    del vr, length
    return int(tag) > int(_LAST_TAG)


def _inflated_beginning(stream: BinaryIO) -> Dataset:
    """Inflate and parse no more than what holds the identifiers."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    beginning = inflater.decompress(stream.read(_DEFLATED_BYTES), _DEFLATED_BYTES)
    return read_dataset(
        BytesIO(beginning),
        is_implicit_VR=False,
        is_little_endian=True,
        stop_when=_is_beyond_identifiers,
        specific_tags=[Tag(name) for name in _TAGS],
    )


def _transfer_syntax(dataset: pydicom.FileDataset) -> str:
    """Give the transfer syntax as which a file that does not name it was read."""
    implicit, little = dataset.original_encoding
    if implicit:
        return str(ImplicitVRLittleEndian)
    return str(ExplicitVRLittleEndian if little else ExplicitVRBigEndian)
