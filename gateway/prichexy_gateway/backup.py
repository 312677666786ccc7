"""What the gateway must not lose, in one folder, and back from there.

::

    manifest.json    versions, the moment, the key's id, and the SHA-256 of every file below
    ledger.sqlite    the states and the audit trail
    models/          the model store
    secrets.age      passwords and the pseudonyms' key, for the recipients alone

It holds nothing that identifies a patient, except that who can open secrets.age can undo the
pseudonyms. The originals are not in it: the PACS has them. Whatever was exported is where it was
exported to.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from prichexy_gateway.deeds import note
from prichexy_gateway.errors import Failed, Misconfigured, Refused
from prichexy_gateway.home import Home
from prichexy_gateway.ledger_copy import COMPANIONS, Told, copy_ledger, put_back_ledger, told_by
from prichexy_gateway.placing import Placing
from prichexy_gateway.sealed import check_recipients, seal, unseal
from prichexy_store.bundle_files import sync_folder, sync_tree
from prichexy_worker.contract import SOFTWARE_VERSION
from prichexy_worker.pseudonyms import Pseudonyms

__all__ = ["Manifest", "Restored", "back_up", "read_manifest", "restore"]

_VERSION: Final = 1
_MANIFEST: Final = "manifest.json"
_LEDGER: Final = "ledger.sqlite"
_MODELS: Final = "models"
_SECRETS: Final = "secrets.age"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup is; ``files`` has each file's SHA-256, or "-> TARGET" for a link.

    ``keyed``: lines of the audit trail are under a key, which is not in the backup. ``head`` is the
    trail's, as `prichexy audit verify --against` reads it; "" of a ledger without one.
    """

    taken: str
    software: str
    schema: int
    studies: int
    key_id: str
    keyed: bool = False
    head: str = ""
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def has_secrets(self) -> bool:
        """Whether passwords and key are in it."""
        return _SECRETS in self.files

    @property
    def has_ledger(self) -> bool:
        """Whether states and audit trail are in it."""
        return _LEDGER in self.files

    @classmethod
    def from_json(cls, data: Any) -> Manifest:
        """Parse strictly. Raises ValueError."""
        try:
            if data.pop("version") != _VERSION:
                raise ValueError("of another version")
            return cls(**data)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError("missing or unknown keys") from error


def back_up(
    home: Home,
    to: Path,
    *,
    recipients: Sequence[str] | None,
    now: datetime,
    with_ledger: bool = True,
) -> Manifest:
    """Write a backup of the gateway in ``home`` into the new folder ``to``; it may be running.

    Without ``recipients`` (None) passwords and key are left out. ``with_ledger`` False leaves the
    ledger out, which is for one on PostgreSQL. The folder is there when it is whole, and not
    before; that it is made is noted for the audit trail before the key is in it. Raises Failed,
    Misconfigured; Refused when ``to`` is there already.
    """
    if recipients is not None:
        check_recipients(recipients)
    if to.exists():
        raise Refused(f"{to} is there already. Name a new folder.")
    ledger = _ledger_of(home) if with_ledger else None
    with _draft_of(to) as draft:
        if ledger is not None:
            copy_ledger(ledger, draft / _LEDGER)
        if home.models.is_dir():
            shutil.copytree(home.models, draft / _MODELS, symlinks=True)
        told = Told() if ledger is None else told_by(draft / _LEDGER)
        key_id = Pseudonyms.from_key_file(home.key_file).key_id
        # Before the key is there to be opened: what cannot be noted is not made.
        note(home, "backup", key_id=key_id, studies=told.studies, recipients=recipients or ())
        if recipients is not None:
            sealed = seal(_packed(home.folder("secrets")), recipients)
            (draft / _SECRETS).write_bytes(sealed)
        manifest = Manifest(
            taken=now.isoformat(timespec="seconds"),
            software=SOFTWARE_VERSION,
            **asdict(told),
            key_id=key_id,
            files=_digests(draft),
        )
        text = json.dumps({"version": _VERSION, **asdict(manifest)}, indent=2, sort_keys=True)
        (draft / _MANIFEST).write_text(text + "\n", encoding="utf-8")
    return manifest


def read_manifest(source: Path) -> Manifest:
    """Give what the backup says of itself, after comparing every file with it. Raises Failed."""
    try:
        manifest = Manifest.from_json(json.loads((source / _MANIFEST).read_text(encoding="utf-8")))
        found = _digests(source)
    except (OSError, ValueError) as error:
        raise Failed(f"{source} is no backup of a gateway ({type(error).__name__}).") from None
    if found != manifest.files:
        wrong = [
            name
            for name in sorted({*found, *manifest.files})
            if found.get(name) != manifest.files.get(name)
        ]
        raise Failed(f"{source} is damaged: {', '.join(wrong[:5])}. Nothing was restored.")
    return manifest


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did.

    ``key_id`` is of the key that is in place now, ``former_key_id`` of another one that was, or "".
    ``aside`` are the new names of what was in place before.
    """

    manifest: Manifest
    key_id: str
    former_key_id: str = ""
    aside: tuple[Path, ...] = ()


def restore(
    home: Home,
    source: Path,
    *,
    now: datetime,
    identity_file: Path | None = None,
    replace: bool = False,
    keep_place: bool = False,
) -> Restored:
    """Put a backup in place in ``home``, where no gateway may run.

    Secrets that are in ``home`` already stay as they are when the backup has none; the key must be
    the one of the backup. The ledger forgets its place in the ingest Orthanc's changes, unless
    ``keep_place``: in another database of Orthanc's it would pass over what came. The audit trail's
    next line tells of the restore. A ledger, a model store and secrets that are there and differ
    are kept aside with ``replace``, and refused without. All is written beside its place first: it
    takes the ledger's size on the disk once more, and no memory worth naming. Raises Failed,
    Misconfigured, Refused; then everything is as it was.
    """
    manifest = read_manifest(source)
    with home.locked():
        secrets = _opened(source, manifest, identity_file)
        former = _key_id_of(home)
        key_id = _checked_key(home, manifest, secrets, former)
        folder = home.folder("secrets")
        new = {name: text for name, text in secrets.items() if _differs(folder / name, text)}
        ours = (home.ledger_file, home.models) if manifest.has_ledger else (home.models,)
        taken = [path for path in (*(folder / name for name in new), *ours) if path.exists()]
        if taken and not replace:
            raise Refused(_in_the_way(taken, home, former, key_id))
        try:
            with Placing() as placing:
                for name, content in new.items():
                    _write(placing.draft(folder / name), content)
                if manifest.has_ledger:
                    draft = placing.draft(home.ledger_file, COMPANIONS)
                    put_back_ledger(source / _LEDGER, draft, now, keep_place=keep_place)
                if (source / _MODELS).is_dir():
                    shutil.copytree(source / _MODELS, placing.draft(home.models), symlinks=True)
                    leaving = []
                else:
                    leaving = [home.models]
                with home.restoring():
                    aside = placing.put(leaving)
            # What serve would make. A store that is not in the backup is made by serve.
            home.prepare()
            if manifest.has_ledger:
                home.note_ledger("")
        except OSError as error:
            raise Failed(f"{home.root}: cannot be written to ({error.strerror}).") from None
    return Restored(manifest, key_id, "" if former in ("", key_id) else former, aside)


@contextmanager
def _draft_of(to: Path) -> Iterator[Path]:
    """Give a folder that becomes ``to`` at the end of the block, and is gone after an error."""
    draft = to.with_name(f".{to.name}.partial")
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700, parents=True)
        yield draft
        sync_tree(draft)
        draft.rename(to)
        sync_folder(to.parent)
    except OSError as error:
        raise Failed(f"{to}: the backup cannot be written ({error.strerror}).") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _ledger_of(home: Home) -> Path:
    """Give the ledger's file. Raises Failed, and Misconfigured for one that is elsewhere."""
    advice = (
        "One on PostgreSQL is backed up with pg_dump, and the rest with --without-ledger; "
        "see docs/operating.md"
    )
    try:
        ledger = home.ledger()
    except Misconfigured as error:
        raise Misconfigured(f"{error}. {advice}") from None
    if not ledger.is_file():
        raise Failed(f"{ledger}: there is no ledger. {advice}")
    return ledger


def _packed(folder: Path) -> bytes:
    """Give the folder's files as a tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in sorted(folder.iterdir()):
            if path.is_file() and not path.name.startswith("."):
                archive.add(path, arcname=path.name, recursive=False)
    return buffer.getvalue()


def _opened(source: Path, manifest: Manifest, identity_file: Path | None) -> dict[str, bytes]:
    """Give the backup's secrets by their names; none when it has none. Raises Misconfigured."""
    if not manifest.has_secrets:
        return {}
    if identity_file is None:
        raise Misconfigured("the backup holds sealed secrets: name the file of your age key")
    content = unseal((source / _SECRETS).read_bytes(), identity_file)
    secrets: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive.getmembers():
            # What we packed has no folders; a name with one would lead out of secrets/.
            stream = archive.extractfile(member) if member.isfile() else None
            if stream is not None and "/" not in member.name:
                secrets[member.name] = stream.read()
    return secrets


def _key_id_of(home: Home) -> str:
    """Give the id of the key in ``home``, "" when there is none. Raises Misconfigured."""
    return Pseudonyms.from_key_file(home.key_file).key_id if home.key_file.exists() else ""


def _checked_key(home: Home, manifest: Manifest, secrets: Mapping[str, bytes], known: str) -> str:
    """Give the id of the key that will be in place.

    Raises Failed when the sealed key is not the one that the manifest names, and Misconfigured
    when the backup has none and the one in place, ``known``, is not it.
    """
    sealed = secrets.get(home.key_file.name)
    if sealed is not None:
        try:
            key_id = Pseudonyms.from_text(sealed).key_id
        except ValueError:
            key_id = "none"
        if key_id != manifest.key_id:
            raise Failed(
                f"The backup is of key {manifest.key_id}, and the key sealed in it is {key_id}: "
                "somebody altered it. Nothing was restored."
            )
        return key_id
    if known != manifest.key_id:
        raise Misconfigured(
            f"the backup's studies have pseudonyms of key {manifest.key_id}; here is "
            f"{known or 'none'}. Put that key into {home.key_file} first: with another one, the "
            "same patients get others"
        )
    return known


def _in_the_way(taken: Sequence[Path], home: Home, known: str, key_id: str) -> str:
    """Say why nothing is restored; another key comes before all else."""
    if home.key_file in taken:
        return (
            f"The key here is {known}, the backup's is {key_id}. With --replace it is kept aside "
            "and replaced: then name it in pseudonyms.retired_key_files."
        )
    return f"{taken[0]} is there already. With --replace it is kept aside and replaced."


def _differs(path: Path, content: bytes) -> bool:
    """Say whether the file does not hold this."""
    return not path.exists() or path.read_bytes() != content


def _write(path: Path, content: bytes) -> None:
    """Write a new file for this user alone."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)


def _digests(folder: Path) -> dict[str, str]:
    """Give each file's SHA-256 but the manifest's, by its path in the folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_file() and name != _MANIFEST:
            with path.open("rb") as stream:
                found[name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return found
