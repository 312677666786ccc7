"""Follows a Dockerfile's steps in a root folder, one after the other, as Docker would."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from prichexy_testing.rehearsal.base import debian_base, pack, unpack
from prichexy_testing.rehearsal.context import BuildContext
from prichexy_testing.rehearsal.host import Loan, borrow
from prichexy_testing.rehearsal.recipe import Copy, Image, MakeFolder, Recipe, Run, read_recipe
from prichexy_testing.rehearsal.sandbox import Process, launch

__all__ = ["BuildError", "Built", "build", "find_built"]


class BuildError(Exception):
    """A step failed; what it wrote has been shown above."""


@dataclass(frozen=True, slots=True)
class Built:
    """An image as it was built: its root folder, and how a container of it starts."""

    root: Path
    image: Image


def find_built(
    dockerfile: Path, build_arguments: Mapping[str, str], cache: Path, name: str
) -> Built:
    """Give what ``build`` has built. Raises BuildError when it has not."""
    if not (cache / f"{name}.json").exists():
        raise BuildError(f"{name} was not built")
    recipe = read_recipe(dockerfile.read_text(encoding="utf-8"), build_arguments)
    return Built(cache / name, recipe.image)


def build(
    dockerfile: Path,
    context: BuildContext,
    build_arguments: Mapping[str, str],
    cache: Path,
    name: str,
) -> Built:
    """Follow the Dockerfile and give the image.

    The folder ``cache / name`` is used again when nothing that goes into it has changed: the
    Dockerfile, the build arguments, each file copied, the base archive. Raises BuildError, or
    DockerfileError and BaseError of the steps before.
    """
    recipe = read_recipe(dockerfile.read_text(encoding="utf-8"), build_arguments)
    _refuse_absent_sources(recipe, context)
    archive = debian_base(recipe.base, cache)
    root, mark = cache / name, cache / f"{name}.json"
    digests = _digests(recipe, context, archive)
    if mark.exists() and json.loads(mark.read_text(encoding="utf-8")) == digests[-1]:
        _say(f"{name}: nothing has changed since it was built")
        return Built(root, recipe.image)
    mark.unlink(missing_ok=True)
    shutil.rmtree(root, ignore_errors=True)
    snapshot = _Snapshot(cache / f"{name}.snapshot.tar")
    done = snapshot.steps(digests)
    unpack(snapshot.archive if done else archive, root)
    with borrow() as loan:
        for number, step in enumerate(recipe.steps[done:], start=done + 1):
            started = time.monotonic()
            _say(f"{name}: step {number} of {len(recipe.steps)}: {_title(step)}")
            _follow(step, root, context, loan)
            took = time.monotonic() - started
            _say(f"{name}: step {number} took {took:.1f} s")
            snapshot.offer(root, digests[number], took)
    mark.write_text(json.dumps(digests[-1]), encoding="utf-8")
    return Built(root, recipe.image)


class _Snapshot:
    """The image as it was after its longest step, to go on from when only later steps change."""

    _WORTHWHILE = 10.0  # seconds

    def __init__(self, archive: Path) -> None:
        self.archive = archive
        self._mark = archive.with_suffix(".json")
        self._digest, self._took = "", 0.0
        if self._mark.exists():
            self._digest, self._took = json.loads(self._mark.read_text(encoding="utf-8"))

    def steps(self, digests: Sequence[str]) -> int:
        """Give how many steps of an image with these digests the snapshot holds."""
        if self._digest in digests:
            return digests.index(self._digest)
        self._took = 0.0
        return 0

    def offer(self, root: Path, digest: str, took: float) -> None:
        """Keep ``root`` when the step that ended took longer than the one kept."""
        if took <= max(self._took, self._WORTHWHILE):
            return
        self._mark.unlink(missing_ok=True)
        pack(root, self.archive)
        self._took = took
        self._mark.write_text(json.dumps([digest, took]), encoding="utf-8")


def _follow(step: Copy | Run | MakeFolder, root: Path, context: BuildContext, loan: Loan) -> None:
    match step:
        case Copy():
            _copy(step, root, context)
        case MakeFolder():
            _inside(root, step.path).mkdir(parents=True, exist_ok=True)
        case Run():
            _run(step, root, loan)


def _run(step: Run, root: Path, loan: Loan) -> None:
    process = Process(
        argv=step.argv,
        environment={"HOME": "/root", **loan.environment, **step.environment},
        folder=step.folder,
        user=step.user,
        mounts=loan.mounts,
    )
    child = launch(root, process)
    try:
        status = child.wait()
    finally:
        child.kill()
        child.wait()
        loan.clear(root)
    if status:
        raise BuildError(f"{_title(step)}: ended with {status}")


def _copy(step: Copy, root: Path, context: BuildContext) -> None:
    for source in step.sources:
        found = context.below(source)
        single_file = found.keys() == {source}
        for path, name in found.items():
            onto_a_name = single_file and not step.target.endswith("/")
            target = _inside(root, step.target if onto_a_name else f"{step.target}/{name}")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(context.root / path, target)
            mode = (context.root / path).stat().st_mode & 0o777
            target.chmod(mode if step.mode is None else step.mode)


def _inside(root: Path, path: str) -> Path:
    """Give the place of an image's ``path`` below ``root``, its symbolic links obeyed there."""
    place = root
    for part in Path(path).parts[1:]:
        place = place / part
        if place.is_symlink():
            linked = place.readlink()
            above = root if linked.is_absolute() else place.parent
            place = above / str(linked).lstrip("/")
    if not place.resolve().is_relative_to(root.resolve()):
        raise BuildError(f"{path} leaves the image")
    return place


def _refuse_absent_sources(recipe: Recipe, context: BuildContext) -> None:
    for step in recipe.steps:
        for source in step.sources if isinstance(step, Copy) else ():
            if not context.below(source):
                raise BuildError(f"COPY {source}: not in the build context (see .dockerignore)")


def _digests(recipe: Recipe, context: BuildContext, archive: Path) -> list[str]:
    """Give a digest of all that goes into the image before the first step and after each step."""
    digests = [hashlib.sha256(f"{archive} {archive.stat().st_mtime_ns}".encode()).hexdigest()]
    for step in recipe.steps:
        copied = context.digest(step.sources) if isinstance(step, Copy) else ""
        written = json.dumps([digests[-1], asdict(step), copied], sort_keys=True)
        digests.append(hashlib.sha256(written.encode()).hexdigest())
    return digests


def _title(step: Copy | Run | MakeFolder) -> str:
    match step:
        case Copy():
            return f"COPY {' '.join(step.sources)} {step.target}"
        case MakeFolder():
            return f"WORKDIR {step.path}"
        case Run():
            return f"RUN {' '.join(step.argv[-1].split())[:90]}"


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
