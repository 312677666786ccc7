"""Whether two names of export targets stand for one place, or one for where the originals are.

A study that goes to one of them is removed at those to which it does not go: at the same place, it
would be exported and gone. Results among the originals would be mixed with what identifies them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from urllib.parse import urlsplit

from prichexy_worker.target_settings import Dicomweb, Folder, OrthancPeer, PngFolder, Target

__all__ = ["check_places"]


def check_places(targets: Mapping[str, Target], ingest_url: str) -> None:
    """Return when no two targets are one place and none is the ingest Orthanc at ``ingest_url``.

    As far as their settings can tell: two names of one server or share cannot be told, nor can an
    Orthanc be from itself as a DICOM node. Raises ValueError naming what is one.
    """
    for name, target in targets.items():
        if isinstance(target, OrthancPeer | Dicomweb) and _served_by(ingest_url, target):
            raise ValueError(
                f"the export target {name} is the ingest Orthanc, where the originals are; "
                "results go to another one"
            )
    for (name, target), (other_name, other) in combinations(targets.items(), 2):
        if _same(target, other) or _same(other, target):
            raise ValueError(
                f"targets.{name} and targets.{other_name} are one place, where the one would have "
                "removed what the other was sent; keep one of the names, and give it to the rules"
            )


def _same(one: Target, other: Target) -> bool:
    if isinstance(one, Folder | PngFolder) and isinstance(other, Folder | PngFolder):
        return _one_folder(one.folder, other.folder)
    if isinstance(one, Dicomweb) and isinstance(other, Dicomweb):
        return (one.delete or other.delete) and _address(one.url) == _address(other.url)
    if isinstance(one, OrthancPeer) and isinstance(other, OrthancPeer | Dicomweb):
        return _served_by(one.url, other)
    return False


def _served_by(orthanc_url: str, target: OrthancPeer | Dicomweb) -> bool:
    """Say whether it is the Orthanc at this address that is spoken to."""
    (host, path), (other_host, other_path) = _address(orthanc_url), _address(target.url)
    # Its DICOMweb plugin answers below its own address.
    beneath = isinstance(target, Dicomweb) and other_path.startswith(f"{path}/")
    return host == other_host and (beneath or path == other_path)


def _one_folder(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # not there by now, or not readable
        return os.path.realpath(one) == os.path.realpath(other)


def _address(url: str) -> tuple[tuple[str, int], str]:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return (parts.hostname or "", port), parts.path.rstrip("/")
