"""The model store: the bundles that were in use, and which one is now.

::

    versions/DIGEST/    a bundle, named by the digest of all its files; never altered
    current             a link to one of them: what workers follow
    history.jsonl       a line a change: who, when, what, why
    lock                held while something is changed

The link is moved in one step, after the history says so. Workers follow it between two studies.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TextIO

from prichexy_store.bundle_files import bundle_digest, copy_bundle, sync_folder
from prichexy_store.bundles import EVIDENCE, describe_bundle
from prichexy_store.errors import Failed, Moved, Refused, WrongUse
from prichexy_store.history import (
    Action,
    Change,
    Version,
    former_of,
    read_history,
    versions_of,
    write_history,
)

__all__ = ["Entry", "ModelStore"]

_VERSIONS: Final = "versions"
_INCOMING: Final = ".incoming"
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Entry:
    """One version of a list. ``whole``: its files are there, as they were when they came.

    ``last_used`` is blank for one that was never in use.
    """

    version: Version
    last_used: str
    in_use: bool
    former: bool
    whole: bool


class ModelStore:
    """A store in a folder; making this value touches nothing.

    ``check`` gives what a bundle says, under a digest, or raises Refused when it cannot be used;
    ``describe`` does so of a version that was checked when it came, and is quick.
    """

    def __init__(
        self,
        root: Path,
        check: Callable[[Path, str], Version] = describe_bundle,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        describe: Callable[[Path, str], Version] = describe_bundle,
    ) -> None:
        self.root = root
        self._check = check
        self._now = now
        self._describe = describe

    @property
    def current(self) -> Path:
        """The link that a worker's ``model.bundle`` names."""
        return self.root / "current"

    def folder(self, digest: str) -> Path:
        """Give the place of a version."""
        return self.root / _VERSIONS / digest

    def in_use(self) -> str | None:
        """Give the digest of the version in use, or None in a store that has none yet.

        Raises Failed when the link leads out of the store.
        """
        try:
            target = self.current.readlink()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Failed(f"{self.current} is not the store's link ({error.strerror}).") from None
        if target.parent != Path(_VERSIONS) or not _DIGEST.fullmatch(target.name):
            raise Failed(
                f"{self.current} leads to none of the store's versions. Put it right: "
                f"ln -sfn {_VERSIONS}/DIGEST {self.current}"
            )
        return target.name

    def history(self) -> list[Change]:
        """Give all changes, the oldest first. Raises Failed."""
        return read_history(self.root / "history.jsonl")

    def entries(self, *, thorough: bool = True) -> list[Entry]:
        """Give all versions: those that were in use, in the order of their first use, then others.

        Every file of theirs is read, unless ``thorough`` is False: then a version counts as whole
        when its folder is there. Raises Failed.
        """
        changes = self._settled(self.history())
        in_use, former = self.in_use(), former_of(changes)
        last = {change.version.digest: change.at for change in changes}
        return [
            Entry(
                version,
                last_used=last.get(digest, ""),
                in_use=digest == in_use,
                former=digest == former,
                whole=self._is_whole(digest) if thorough else self.folder(digest).is_dir(),
            )
            for digest, version in self._versions(changes).items()
        ]

    def _versions(self, changes: Sequence[Change]) -> dict[str, Version]:
        """Give those of the history, and those that are offered and were never in use."""
        found = versions_of(changes)
        try:
            folders = sorted((self.root / _VERSIONS).iterdir())
        except OSError:
            return found
        for folder in folders:
            if folder.name not in found and _DIGEST.fullmatch(folder.name):
                with suppress(Refused):
                    found[folder.name] = self._describe(folder, folder.name)
        return found

    def find(self, beginning: str) -> Path:
        """Give the folder of the one version whose digest begins so; of all files or of weights.

        Raises WrongUse when there is none or more than one.
        """
        found = {
            digest
            for digest, version in self._versions(self.history()).items()
            if digest.startswith(beginning) or version.weights.startswith(beginning)
        }
        if len(found) != 1:
            what = f"{len(found)} versions begin" if found else "no version begins"
            raise WrongUse(f"{beginning}: no such folder, and {what} so. See: prichexy model list")
        return self.folder(found.pop())

    def promote(
        self,
        bundle: Path,
        by: str,
        *,
        reason: str = "",
        force: bool = False,
        action: Action = "promoted",
    ) -> Change | None:
        """Put the bundle in the folder ``bundle`` to use; None when it is in use already.

        It is copied, and the copy is checked. ``force`` overrides that its evidence is weaker than
        that of the version in use, and needs a reason. Raises Refused when the bundle is broken,
        weaker, or could not be told from another one by its results; WrongUse, Failed.
        """
        if force and not reason:
            raise WrongUse("--force needs a --reason, which the history keeps")
        if not bundle.is_dir():
            raise WrongUse(f"{bundle}: there is no such folder")
        bundle = bundle.resolve()
        with self._held() as changes:
            self._refuse_damaged(bundle)
            in_use = self.in_use()
            if in_use and self._is_whole(in_use) and bundle_digest(bundle) == in_use:
                return None
            with self._copied(bundle) as (copy, digest):
                version = self._checked_copy(copy, digest, bundle)
                self._refuse_confusing(version, self._versions(changes).values())
                weaker = self._refuse_weaker(version, changes, force=force)
                self._keep(copy, digest)
            return self._switch(changes, version, by, action, reason, forced=weaker)

    def offer(self, bundle: Path) -> Version:
        """Take the bundle in the folder ``bundle`` in as ``promote`` does, but leave it unused.

        Raises Refused when it is broken or could not be told from another one; WrongUse, Failed.
        """
        if not bundle.is_dir():
            raise WrongUse(f"{bundle}: there is no such folder")
        bundle = bundle.resolve()
        with self._held() as changes:
            self._refuse_damaged(bundle)
            with self._copied(bundle) as (copy, digest):
                version = self._checked_copy(copy, digest, bundle)
                self._refuse_confusing(version, self._versions(changes).values())
                self._keep(copy, digest)
            return version

    def refusal(self, digest: str) -> str | None:
        """Say why ``use`` would not put a version to use; None when it would. Raises Failed."""
        changes = self._settled(self.history())
        try:
            self._usable(digest, changes)
        except Refused as error:
            return str(error)
        return None

    def use(self, digest: str, by: str, *, seen: str | None, reason: str = "") -> Change:
        """Put a version that is in the store to use, where ``seen`` is the one in use until now.

        Nothing is copied. Raises Moved when another one is in use by now; Refused when the version
        is not whole, weaker than that in use, or could not be told from another one; Failed.
        """
        with self._held() as changes:
            self._refuse_moved(seen)
            version = self._usable(digest, changes)
            return self._switch(changes, version, by, "promoted", reason)

    def _usable(self, digest: str, changes: Sequence[Change]) -> Version:
        if not _DIGEST.fullmatch(digest) or not self._is_whole(digest):
            raise Refused(f"The version {digest[:12]} is not in the store, or is damaged.")
        version = self._check(self.folder(digest), digest)
        self._refuse_confusing(version, self._versions(changes).values())
        self._refuse_weaker(version, changes, force=False)
        return version

    def _refuse_moved(self, seen: str | None) -> None:
        if self.in_use() != seen:
            raise Moved("Another version was put to use meanwhile. Nothing was changed.")

    def rollback(self, by: str, reason: str = "", *, seen: str | None = None) -> Change:
        """Put the former version to use again, whatever its evidence.

        With ``seen`` only where that one is in use. Raises Refused when there is none or it is not
        whole any more; Moved, Failed.
        """
        with self._held() as changes:
            if seen is not None:
                self._refuse_moved(seen)
            digest = former_of(changes)
            if digest is None:
                raise Refused("There is no former version to go back to.")
            if not self._is_whole(digest):
                raise Refused(
                    f"The former version {digest[:12]} is gone or damaged. "
                    "Promote another one: prichexy model promote"
                )
            version = self._check(self.folder(digest), digest)
            return self._switch(changes, version, by, "rolled back", reason)

    @contextmanager
    def _held(self) -> Iterator[list[Change]]:
        """Hold the store for one change; give the history, in which the link's place stands."""
        versions = self.root / _VERSIONS
        try:
            for folder in (self.root, versions):
                if not folder.exists():
                    folder.mkdir(parents=True)
                    folder.chmod(0o755)  # workers may run as another user
            with _opened(self.root / "lock") as stream:
                try:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    text = f"Somebody else changes {self.root} just now. Try again."
                    raise Failed(text) from None
                for left in versions.glob(f"{_INCOMING}*"):
                    shutil.rmtree(left)  # of one that was killed
                yield self._settled(self.history())
        except OSError as error:
            raise Failed(f"{self.root}: cannot be written to ({error.strerror}).") from None

    def _settled(self, changes: list[Change]) -> list[Change]:
        """Add to the history that the link was moved past it, if it was."""
        in_use = self.in_use()
        last = changes[-1].version.digest if changes else None
        if in_use is None or in_use == last:
            return changes
        version = versions_of(changes).get(in_use) or self._stranger(in_use)
        reason = "the link was not where the history says: moved by hand, or a change was cut off"
        found = Change(self._moment(), "prichexy", "found", version, last, reason)
        return [*changes, found]

    def _stranger(self, digest: str) -> Version:
        """Tell what can be told of a version that came past this store; it may be broken."""
        try:
            return self._check(self.folder(digest), digest)
        except Refused:
            text = "Nothing is known about it: it cannot be loaded."
            return Version(digest, "unknown", "unknown", "", "unknown", EVIDENCE[0], text)

    @contextmanager
    def _copied(self, bundle: Path) -> Iterator[tuple[Path, str]]:
        """Give a copy of the bundle within the store, for the block, and its digest."""
        copy = self.root / _VERSIONS / f"{_INCOMING}-{os.getpid()}"
        try:
            copy_bundle(bundle, copy)
            yield copy, bundle_digest(copy)
        finally:
            shutil.rmtree(copy, ignore_errors=True)

    def _checked_copy(self, copy: Path, digest: str, bundle: Path) -> Version:
        """Check a copy. Raises Refused, naming the files of the bundle that it was made of."""
        try:
            return self._check(copy, digest)
        except Refused as error:
            raise Refused(str(error).replace(str(copy), str(bundle))) from None

    def _keep(self, copy: Path, digest: str) -> None:
        """Let the copy be the version ``digest``, unless that is there."""
        place = self.folder(digest)
        if place.exists():
            if not self._is_whole(digest):
                raise Failed(f"{place} is damaged. Remove that folder, then promote again.")
            return
        copy.rename(place)
        sync_folder(place.parent)

    def _is_whole(self, digest: str) -> bool:
        folder = self.folder(digest)
        try:
            return folder.is_dir() and bundle_digest(folder) == digest
        except Failed:
            return False

    def _refuse_damaged(self, bundle: Path) -> None:
        """Raise Refused for one of our own versions that is not what it was."""
        ours = bundle.parent == (self.root / _VERSIONS).resolve()
        if ours and not self._is_whole(bundle.name):
            raise Refused(f"{bundle} is damaged: its files are not those that came there.")

    def _refuse_confusing(self, version: Version, others: Iterable[Version]) -> None:
        for other in others:
            same = (other.name, other.version, other.weights)
            if same == (version.name, version.version, version.weights) and (
                other.deformation != version.deformation
            ):
                raise Refused(
                    f"{version.name} {version.version} is in the store with the same weights and "
                    f"another deformation ({other.deformation}; now {version.deformation}): "
                    "nobody could tell their results apart. Give it another version."
                )

    def _refuse_weaker(self, version: Version, changes: Sequence[Change], *, force: bool) -> bool:
        """Say whether the evidence is weaker than that in use. Raises Refused unless forced."""
        if not changes:
            return False
        before = changes[-1].version
        weaker = _strength(version) < _strength(before)
        if weaker and not force:
            raise Refused(
                f"{version.name} {version.version} is {version.known}, but what is in use "
                f"({before.name} {before.version}) is {before.known}. To use it all the same: "
                "--force --reason TEXT"
            )
        return weaker

    def _switch(
        self,
        changes: Sequence[Change],
        version: Version,
        by: str,
        action: Action,
        reason: str,
        *,
        forced: bool = False,
    ) -> Change:
        change = Change(self._moment(), by, action, version, self.in_use(), reason, forced)
        # First the history: a link that moved unseen would be worse than a line too many.
        write_history(self.root / "history.jsonl", [*changes, change])
        draft = self.root / f".current.{os.getpid()}"
        draft.unlink(missing_ok=True)
        draft.symlink_to(Path(_VERSIONS) / version.digest)
        draft.replace(self.current)
        sync_folder(self.root)
        return change

    def _moment(self) -> str:
        return self._now().astimezone(UTC).isoformat(timespec="seconds")


def _strength(version: Version) -> tuple[int, bool]:
    """Give what orders versions by their evidence: what is larger is stronger."""
    return EVIDENCE.index(version.evidence), version.protects


def _opened(lock: Path) -> TextIO:
    """Open the file that is locked; another user's, who changes the same store, need only be read.

    Raises OSError.
    """
    try:
        return lock.open("a", encoding="utf-8")
    except PermissionError:
        return lock.open(encoding="utf-8")
