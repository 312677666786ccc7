"""Packs an experiment into a few files: code, configurations, radiographs, weights and runs.

What lies in the archive, and how ``lent.sh`` uses it there::

    code/               the packages, and a dist-info that names version and commit
    configs/            the experiment's file, and those that it names
    sources/NAME/       the radiographs of a set
    files/N-FILE        what a --set names, such as ImageNet's weights
    runs/               finished runs that are there already, and records of others
    wheels/             what the machine lacks
    table.args          the arguments of ``prichexy-train table``, a line each
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata, resources
from pathlib import Path
from typing import IO, Any, Final

import prichexy_model
import prichexy_train
from prichexy_train.data.settings import FolderSource, PrepareSettings
from prichexy_train.errors import Failed, Misconfigured
from prichexy_train.experiment import Experiment
from prichexy_train.records import FOLDER
from prichexy_train.runs import origin
from prichexy_train.settings import RANDOM_WEIGHTS, read_change, read_settings

__all__ = ["MANIFEST", "SCRIPT", "Packed", "pack"]

SCRIPT: Final = "lent.sh"
#: Names each part with its SHA-256, in the order in which they are joined.
MANIFEST: Final = "parts.sha256"
#: What of a run is needed by nobody but the run itself, while it is going on.
_NOT_OF_RUNS: Final = frozenset(
    {"checkpoint.pt", "tensorboard", ".lock", ".turn", "attempts", "anonymised"}
)
_MIB: Final = 1 << 20


@dataclass(frozen=True)
class Packed:
    """What was written: the parts in their order, and the bytes of all together."""

    parts: tuple[Path, ...]
    size: int


@dataclass(frozen=True)
class _Contents:
    """What goes into the archive: files by their place in it, and texts that are written anew."""

    files: dict[str, Path] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)

    def add_tree(self, folder: Path, place: str, leave: frozenset[str] = frozenset()) -> None:
        """Take in a folder, whole but for names in ``leave``; links are followed, once."""
        seen: set[str] = set()
        for here, folders, files in os.walk(folder, followlinks=True):
            if (real := os.path.realpath(here)) in seen:
                folders.clear()
                continue
            seen.add(real)
            folders[:] = sorted(set(folders) - leave)
            base = Path(here).relative_to(folder)
            for name in sorted(set(files) - leave):
                self.files[os.path.normpath(f"{place}/{base}/{name}")] = Path(here) / name


def pack(
    experiment: Path,
    to: Path,
    *,
    sources: Mapping[str, Path],
    changes: Sequence[str] = (),
    wheels: Path | None = None,
    runs: Path | None = None,
    limit_mib: int = 45,
) -> Packed:
    """Write the parts, each of ``limit_mib`` at most, the manifest and the script into ``to``.

    ``to`` must be new or empty. Raises Misconfigured for an experiment that does not fit
    together, a set without a source, or one that is to be read from a file that is not there.
    """
    if to.exists() and any(to.iterdir()):
        raise Misconfigured(f"{to}: is not empty")
    settings = read_settings(experiment, Experiment, changes)
    contents = _Contents()
    _add_code(contents)
    arguments = [_add_configs(contents, experiment, settings)]
    arguments += ["--data", "../data", "--runs", "../runs"]
    for name, entry in settings.sets.items():
        if name not in sources:
            raise Misconfigured(f"--source {name}=FOLDER is needed")
        _add_source(contents, name, sources[name], experiment.parent / entry.config)
        arguments += ["--source", f"{name}=sources/{name}"]
    for number, change in enumerate(changes):
        arguments += ["--set", _carried(contents, number, change)]
    if wheels is not None:
        contents.add_tree(wheels, "wheels")
    if runs is not None:
        for run in sorted(runs.iterdir()):
            # The weights of a training that is not finished belong to its checkpoint.
            if (run / "result.json").is_file() or (run / FOLDER).is_dir():
                contents.add_tree(run, f"runs/{run.name}", leave=_NOT_OF_RUNS)
    contents.texts["table.args"] = "".join(f"{one}\n" for one in arguments)
    return _write(contents, to, limit_mib * _MIB)


def _add_code(contents: _Contents) -> None:
    for package in (prichexy_model, prichexy_train):
        (folder,) = package.__path__
        contents.add_tree(
            Path(folder), f"code/{package.__name__}", leave=frozenset({"__pycache__"})
        )
    version = metadata.version("prichexy")
    place = f"code/prichexy-{version}.dist-info"
    contents.texts[f"{place}/METADATA"] = (
        f"Metadata-Version: 2.1\nName: prichexy\nVersion: {version}\n"
    )
    contents.texts[f"{place}/commit"] = str(origin()["commit"] or "")


def _add_configs(contents: _Contents, experiment: Path, settings: Experiment) -> str:
    """Take in the experiment's file and those that it names; give its own place."""
    named = [
        *(entry.config for entry in settings.sets.values()),
        *(entry.config for entry in settings.train.values()),
        settings.attack.config,
        settings.utility.config,
    ]
    experiment = experiment.resolve()
    files = {experiment, *((experiment.parent / config).resolve() for config in named)}
    base = Path(os.path.commonpath([file.parent for file in files]))
    contents.files.update({f"configs/{file.relative_to(base)}": file for file in files})
    return f"configs/{experiment.relative_to(base)}"


def _add_source(contents: _Contents, name: str, folder: Path, config: Path) -> None:
    if not folder.is_dir():
        raise Misconfigured(f"--source {name}={folder}: is no folder")
    contents.add_tree(folder, f"sources/{name}")
    source = read_settings(config, PrepareSettings).source
    if isinstance(source, FolderSource) and source.near_duplicates:
        # May lie beside the folder, for several sets.
        place = os.path.normpath(f"sources/{name}/{source.near_duplicates}")
        contents.files[place] = folder / source.near_duplicates


def _carried(contents: _Contents, number: int, change: str) -> str:
    """Give a change whose value is a file here as it is to be said there; take the file in.

    Raises Misconfigured for weights that are not there.
    """
    key, value = read_change(change)
    if not isinstance(value, str) or value == RANDOM_WEIGHTS:
        return change
    path = Path(value).expanduser()
    if not path.is_file():
        if key.endswith("pretrained"):
            raise Misconfigured(f"--set {change}: there is no such file")
        return change
    known = next((place for place, file in contents.files.items() if file == path), None)
    place = known or f"files/{number}-{path.name}"
    contents.files[place] = path
    return f"{key}={place}"


def _write(contents: _Contents, to: Path, limit: int) -> Packed:
    to.mkdir(parents=True, exist_ok=True)
    try:
        with (
            _Parts(to, limit) as parts,
            tarfile.open(fileobj=parts, mode="w|xz", format=tarfile.PAX_FORMAT) as archive,
        ):
            for place, text in sorted(contents.texts.items()):
                data = text.encode()
                archive.addfile(_entry(place, len(data)), io.BytesIO(data))
            for place, path in sorted(contents.files.items()):
                with path.open("rb") as file:
                    archive.addfile(_entry(place, path.stat().st_size), file)
    except OSError as error:
        raise Failed(f"{error.filename or to}: {error.strerror}") from error
    lines = (f"{digest}  {path.name}\n" for path, digest in parts.written)
    (to / MANIFEST).write_text("".join(lines), encoding="utf-8")
    script = resources.files("prichexy_train.lent") / SCRIPT
    (to / SCRIPT).write_text(script.read_text(encoding="utf-8"), encoding="utf-8")
    return Packed(tuple(path for path, _ in parts.written), parts.size)


def _entry(place: str, size: int) -> tarfile.TarInfo:
    """Give an entry that is the same whoever packs it, and when."""
    entry = tarfile.TarInfo(place)
    entry.size, entry.mode = size, 0o644
    return entry


class _Parts(io.RawIOBase):
    """A stream that is cut into files of ``limit`` bytes; ``written`` names them."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit
        self._file: IO[bytes] | None = None
        self._left = 0
        self.size = 0
        self._paths: list[Path] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view):
            file = self._with_room()
            part = view[done : done + self._left]
            file.write(part)
            self._left -= len(part)
            done += len(part)
        self.size += done
        return done

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        super().close()

    @property
    def written(self) -> Iterator[tuple[Path, str]]:
        """Give each part and its SHA-256."""
        for path in self._paths:
            with path.open("rb") as file:
                yield path, hashlib.file_digest(file, "sha256").hexdigest()

    def _with_room(self) -> IO[bytes]:
        if self._file is None or self._left == 0:
            if self._file is not None:
                self._file.close()
            path = self._folder / f"part-{len(self._paths) + 1:02}"
            self._paths.append(path)
            self._file = path.open("wb")
            self._left = self._limit
        return self._file
