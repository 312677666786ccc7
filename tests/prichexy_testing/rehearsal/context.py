"""The build context: which files of the checkout a COPY can see, by .dockerignore."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

__all__ = ["BuildContext", "IgnoreRules", "read_context"]

_ALWAYS_OUTSIDE: Final = ".git"


@dataclass(frozen=True, slots=True)
class IgnoreRules:
    """The lines of a .dockerignore; the last one that fits a path, or a parent of it, decides."""

    lines: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> IgnoreRules:
        """Read the file's text; comments and empty lines are dropped."""
        stripped = (line.strip() for line in text.splitlines())
        return cls(tuple(line for line in stripped if line and not line.startswith("#")))

    def ignored(self, path: str) -> bool:
        """Say whether the file at ``path`` (relative, with slashes) stays outside."""
        parts = PurePosixPath(path).parts
        prefixes = ["/".join(parts[: count + 1]) for count in range(len(parts))]
        outside = False
        for line in self.lines:
            kept = line.startswith("!")
            pattern = _pattern(line.removeprefix("!").strip("/"))
            if any(pattern.fullmatch(prefix) for prefix in prefixes):
                outside = not kept
        return outside

    def may_hold_context(self, folder: str) -> bool:
        """Say whether anything below ``folder`` can be inside; False lets a walk skip it."""
        exceptions = [line.removeprefix("!") for line in self.lines if line.startswith("!")]
        return not self.ignored(folder) or any(
            line.strip("/").startswith(f"{folder}/") or "*" in line for line in exceptions
        )


def _pattern(line: str) -> re.Pattern[str]:
    """Translate one pattern: ``*`` and ``?`` stop at a slash, ``**`` does not."""
    translated = ""
    for token in re.findall(r"\*\*/|\*\*|\*|\?|[^*?]+", line):
        if token == "**/":
            translated += "(?:.*/)?"
        elif token == "**":
            translated += ".*"
        elif token == "*":
            translated += "[^/]*"
        elif token == "?":
            translated += "[^/]"
        else:
            translated += re.escape(token)
    return re.compile(translated)


@dataclass(frozen=True, slots=True)
class BuildContext:
    """The folder ``root`` and the files in it that a Dockerfile can copy, sorted."""

    root: Path
    files: tuple[str, ...]

    def below(self, source: str) -> dict[str, str]:
        """Give the files that COPY takes from ``source``: path in the context → path in the target.

        A file maps to its own name, a folder's files to their paths inside it. Empty when the
        context has neither: Docker stops there, and so must the caller.
        """
        wanted = str(PurePosixPath(source))
        if wanted in self.files:
            return {wanted: PurePosixPath(wanted).name}
        if wanted == ".":
            return {path: path for path in self.files}
        prefix = f"{wanted}/"
        return {path: path.removeprefix(prefix) for path in self.files if path.startswith(prefix)}

    def digest(self, sources: Iterable[str]) -> str:
        """Give a SHA-256 over names, modes and contents of what these sources copy."""
        digest = hashlib.sha256()
        for source in sources:
            for path in sorted(self.below(source)):
                file = self.root / path
                digest.update(f"{path}\0{file.stat().st_mode:o}\0".encode())
                digest.update(hashlib.sha256(file.read_bytes()).digest())
        return digest.hexdigest()


def read_context(root: Path) -> BuildContext:
    """List the context of the checkout at ``root``, its .dockerignore honoured."""
    rules = IgnoreRules.parse((root / ".dockerignore").read_text(encoding="utf-8"))
    found: list[str] = []
    for folder, folders, names in os.walk(root):
        inside = Path(folder).relative_to(root)
        folders[:] = [
            name
            for name in folders
            if name != _ALWAYS_OUTSIDE and rules.may_hold_context(str(inside / name))
        ]
        found += [path for name in names if not rules.ignored(path := str(inside / name))]
    return BuildContext(root, tuple(sorted(found)))
