"""Which installed distributions the training needs, and which of them a machine lacks."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from importlib import metadata

from packaging.requirements import Requirement

__all__ = ["canonical", "lacking"]

_PROJECT = "prichexy"


def canonical(name: str) -> str:
    """Give a distribution's name as all its spellings are compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def lacking(has: Collection[str], extra: str = "train") -> dict[str, str]:
    """Give name and version of what the project's ``extra`` needs and a machine does not have.

    ``has`` are names of distributions that are there, whatever their versions; what these need
    is taken to be there, too. Versions are those installed here. Raises
    importlib.metadata.PackageNotFoundError where something needed is not installed here.
    """
    there = {canonical(name) for name in has}
    found: dict[str, str] = {}
    waiting = list(_needs(_PROJECT, {extra}))
    while waiting:
        name, extras = waiting.pop()
        if name in there or name in found:
            continue
        found[name] = metadata.version(name)
        waiting += _needs(name, extras)
    return dict(sorted(found.items()))


def _needs(name: str, extras: set[str]) -> Iterator[tuple[str, set[str]]]:
    for text in metadata.requires(name) or ():
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": one}) for one in ("", *extras)):
            yield canonical(requirement.name), set(requirement.extras)
