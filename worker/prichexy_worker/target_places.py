"""Whether two names of export targets stand for one place.

A study that goes to one of them is removed at those to which it does not go: at the same place, it
would be exported and gone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from urllib.parse import urlsplit

from prichexy_worker.target_settings import Dicomweb, Folder, OrthancPeer, PngFolder, Target

__all__ = ["check_places"]


def check_places(targets: Mapping[str, Target]) -> None:
    """Return when no two targets are one place, as far as their settings can tell.

    Raises ValueError naming two that are. Two names of one server or share cannot be told, nor can
    an Orthanc as target be from itself as a DICOM node.
    """
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
        (host, path), (other_host, other_path) = _address(one.url), _address(other.url)
        # Its DICOMweb plugin answers below its own address.
        beneath = isinstance(other, Dicomweb) and other_path.startswith(f"{path}/")
        return host == other_host and (beneath or path == other_path)
    return False


def _one_folder(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # not there by now, or not readable
        return os.path.realpath(one) == os.path.realpath(other)


def _address(url: str) -> tuple[tuple[str, int], str]:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return (parts.hostname or "", port), parts.path.rstrip("/")
