"""A backup is whole or not there, keeps its secrets, and comes back where it fits."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pyrage
import pytest
from typer.testing import CliRunner

from prichexy_gateway.backup import Manifest, back_up, read_manifest, restore
from prichexy_gateway.cli import create_app
from prichexy_gateway.deeds import noted
from prichexy_gateway.errors import Failed, Misconfigured, Refused
from prichexy_gateway.home import Addresses, Home, Record, RunningProcess
from prichexy_plugin.chain import ChainKey, Deed
from prichexy_plugin.changes import Watcher
from prichexy_plugin.database import open_database
from prichexy_plugin.intake import Decision
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.schema import SCHEMA_VERSION
from prichexy_plugin.studies import OrthancStudies
from prichexy_testing.fake_orthanc import FakeOrthanc, orthanc_id
from prichexy_testing.plugin_fakes import CHEST, HIP, FakeClock
from prichexy_worker.pseudonyms import Pseudonyms

NOW = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
OWNER = pyrage.x25519.Identity.generate()
RECIPIENTS = [str(OWNER.to_public())]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A gateway's folder with one study in its ledger, which somebody has open, and a model."""
    home = Home(tmp_path / "home")
    home.prepare()
    version = home.models / "versions" / ("a" * 64)
    version.mkdir(parents=True)
    (version / "model.pt").write_bytes(b"weights")
    (home.models / "current").symlink_to(f"versions/{'a' * 64}")
    engine = open_database(f"sqlite:///{home.root}/ingest/prichexy-ledger.sqlite")
    take_in(Ledger(engine, FakeClock()), "a")
    engine.dispose()
    return home


@pytest.fixture
def identity(tmp_path: Path) -> Path:
    file = tmp_path / "owner.key"
    file.write_text(f"# created: now\n{OWNER}\n")
    return file


def take_in(ledger: Ledger, name: str) -> None:
    clock = FakeClock()
    ledger.note({orthanc_id(name): clock()}, cursor=1)
    ledger.settle(orthanc_id(name), Decision(None), content="c", instances=1)


def studies(file: Path) -> int:
    with closing(sqlite3.connect(file)) as database:
        return int(database.execute("SELECT count(*) FROM studies").fetchone()[0])


def ledger_of(home: Home) -> Path:
    return home.root / "ingest" / "prichexy-ledger.sqlite"


def test_a_backup_comes_back_elsewhere_with_everything(
    home: Home, identity: Path, tmp_path: Path
) -> None:
    to = tmp_path / "backup"
    written = back_up(home, to, recipients=RECIPIENTS, now=NOW)
    assert (written.studies, written.schema) == (1, SCHEMA_VERSION)
    assert read_manifest(to) == written
    other = Home(tmp_path / "other")
    assert restore(other, to, identity_file=identity, now=NOW).manifest == written
    assert studies(ledger_of(other)) == 1
    assert (other.models / "current" / "model.pt").read_bytes() == b"weights"
    assert (other.models / "current").readlink() == Path("versions", "a" * 64)
    for name in ("admin", "worker", "export", "broker"):
        assert other.password(name) == home.password(name)
    assert other.key_file.read_bytes() == home.key_file.read_bytes()
    modes = {stat.S_IMODE(path.stat().st_mode) for path in other.folder("secrets").iterdir()}
    assert modes == {0o600}


def test_the_audit_trail_comes_back_whole_and_append_only(home: Home, tmp_path: Path) -> None:
    back_up(home, tmp_path / "backup", recipients=None, now=NOW)
    restore(home, tmp_path / "backup", replace=True, now=NOW)
    engine = open_database(f"sqlite:///{ledger_of(home)}")
    verdict = Ledger(engine, FakeClock()).verdict()
    engine.dispose()
    assert verdict.whole
    assert verdict.lines == 2
    with (
        closing(sqlite3.connect(ledger_of(home))) as database,
        pytest.raises(sqlite3.IntegrityError, match="append-only"),
    ):
        database.execute("DELETE FROM events WHERE number = 1")


def test_a_ledger_that_is_written_to_meanwhile_is_copied_as_of_one_moment(
    home: Home, tmp_path: Path
) -> None:
    engine = open_database(f"sqlite:///{ledger_of(home)}")
    try:
        take_in(Ledger(engine, FakeClock()), "b")  # still in the write-ahead log alone
        back_up(home, tmp_path / "backup", recipients=None, now=NOW)
        take_in(Ledger(engine, FakeClock()), "c")
    finally:
        engine.dispose()
    assert studies(tmp_path / "backup" / "ledger.sqlite") == 2
    assert not list((tmp_path / "backup").glob("ledger.sqlite-*"))


def test_secrets_are_sealed_and_only_their_recipient_opens_them(home: Home, tmp_path: Path) -> None:
    to = tmp_path / "backup"
    back_up(home, to, recipients=RECIPIENTS, now=NOW)
    for path in to.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert home.password("admin").encode() not in content
            assert home.key_file.read_bytes().strip() not in content
    stranger = tmp_path / "stranger.key"
    stranger.write_text(f"{pyrage.x25519.Identity.generate()}\n")
    for file, words in ((stranger, "do not open"), (None, "name the file of your age key")):
        with pytest.raises(Misconfigured, match=words):
            restore(Home(tmp_path / "other"), to, identity_file=file, now=NOW)
    assert not ledger_of(Home(tmp_path / "other")).exists()


def test_the_folder_is_for_its_owner_alone(home: Home, tmp_path: Path) -> None:
    back_up(home, tmp_path / "backup", recipients=None, now=NOW)
    assert stat.S_IMODE((tmp_path / "backup").stat().st_mode) == 0o700


@pytest.mark.parametrize("recipients", [RECIPIENTS, None])
def test_no_backup_is_made_that_cannot_be_noted_for_the_audit_trail(
    home: Home, tmp_path: Path, recipients: list[str] | None
) -> None:
    (home.root / "deeds.jsonl").mkdir()
    with pytest.raises(Failed, match="cannot be noted"):
        back_up(home, tmp_path / "backup", recipients=recipients, now=NOW)
    left = [
        path.name for path in tmp_path.rglob("*") if "backup" in str(path.relative_to(tmp_path))
    ]
    assert left == []


def test_without_secrets_the_same_key_must_be_there(home: Home, tmp_path: Path) -> None:
    to = tmp_path / "backup"
    back_up(home, to, recipients=None, now=NOW)
    assert not (to / "secrets.age").exists()
    other = Home(tmp_path / "other")
    with pytest.raises(Misconfigured, match="here is none"):
        restore(other, to, now=NOW)
    other.folder("secrets").mkdir(parents=True)
    Pseudonyms.create_key_file(other.key_file)
    with pytest.raises(Misconfigured, match="with another one, the same patients get others"):
        restore(other, to, now=NOW)
    assert not ledger_of(other).exists()
    other.key_file.write_bytes(home.key_file.read_bytes())
    restore(other, to, now=NOW)
    assert studies(ledger_of(other)) == 1


def test_what_is_there_is_refused_and_kept_aside_when_asked(
    home: Home, identity: Path, tmp_path: Path
) -> None:
    to = tmp_path / "backup"
    back_up(home, to, recipients=RECIPIENTS, now=NOW)
    engine = open_database(f"sqlite:///{ledger_of(home)}")
    take_in(Ledger(engine, FakeClock()), "later")
    engine.dispose()
    with pytest.raises(Refused, match="--replace"):
        restore(home, to, identity_file=identity, now=NOW)
    assert studies(ledger_of(home)) == 2
    for count in (1, 2):
        restore(home, to, identity_file=identity, replace=True, now=NOW)
        assert studies(ledger_of(home)) == 1
        assert len(list(home.root.glob("ingest/*.sqlite.replaced*"))) == count
        assert len(list(home.root.glob("models.replaced*"))) == count
    assert studies(ledger_of(home).with_name("prichexy-ledger.sqlite.replaced")) == 2


def changed_key(home: Home) -> str:
    """Change the key as docs/pseudonyms.md says; give the new one's id."""
    home.key_file.rename(home.key_file.with_name("retired.key"))
    home.prepare()
    return Pseudonyms.from_key_file(home.key_file).key_id


def test_a_newer_key_is_never_lost(home: Home, identity: Path, tmp_path: Path) -> None:
    to = tmp_path / "backup"
    back_up(home, to, recipients=RECIPIENTS, now=NOW)
    new = changed_key(home)
    bare = Home(tmp_path / "bare")  # neither ledger nor model store: nothing else is in the way
    bare.prepare()
    for one in (home, bare):
        content = one.key_file.read_bytes()
        with pytest.raises(Refused, match="The key here is"):
            restore(one, to, identity_file=identity, now=NOW)
        assert one.key_file.read_bytes() == content
    old = read_manifest(to).key_id
    password = home.password("admin")
    home.password_file("admin").write_text("another\n")
    for count in (1, 2):
        done = restore(home, to, identity_file=identity, replace=True, now=NOW)
        assert done.key_id == old == Pseudonyms.from_key_file(home.key_file).key_id
        assert done.former_key_id == (new if count == 1 else ""), "the same key stays where it is"
        aside = home.key_file.with_name("pseudonyms.key.replaced")
        assert (aside in done.aside) == (count == 1)
        assert Pseudonyms.from_key_file(aside).key_id == new
    assert home.password("admin") == password
    assert home.password_file("admin").with_name("admin.password.replaced").exists()
    assert not home.key_file.with_name("pseudonyms.key.replaced-2").exists()


def test_a_key_that_is_not_the_backups_is_refused(
    home: Home, identity: Path, tmp_path: Path
) -> None:
    """Who can write to the backup's folder knows its recipient, and needs no more to seal one."""
    to = tmp_path / "backup"
    written = back_up(home, to, recipients=RECIPIENTS, now=NOW)
    for other in (b"ab" * 32 + b"\n", b"no key"):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            member = tarfile.TarInfo("pseudonyms.key")
            member.size = len(other)
            archive.addfile(member, io.BytesIO(other))
        sealed = pyrage.encrypt(buffer.getvalue(), [OWNER.to_public()])
        (to / "secrets.age").write_bytes(sealed)
        manifest = json.loads((to / "manifest.json").read_text())
        manifest["files"]["secrets.age"] = hashlib.sha256(sealed).hexdigest()
        (to / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(Failed, match=f"of key {written.key_id}, and the key sealed in it is"):
            restore(Home(tmp_path / "other"), to, identity_file=identity, now=NOW)
        assert not Home(tmp_path / "other").key_file.exists()


@pytest.mark.parametrize("at", ["ledger", "models", "placing"])
def test_a_restore_that_fails_leaves_everything_as_it_was(
    home: Home, identity: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    to = tmp_path / "backup"
    back_up(home, to, recipients=RECIPIENTS, now=NOW)
    changed_key(home)
    engine = open_database(f"sqlite:///{ledger_of(home)}")
    take_in(Ledger(engine, FakeClock()), "later")
    engine.dispose()
    # All but the lock.
    before = {path for path in home.root.rglob("*") if path.name != "lock"}
    content = {path: path.read_bytes() for path in before if path.is_file()}

    def full(*_arguments: object, **_options: object) -> None:
        raise OSError(28, "No space left on device")

    replace = Path.replace

    def replaced(source: Path, target: Path) -> Path:
        if target == home.models and source.name.startswith("."):
            full()
        return replace(source, target)

    if at == "ledger":
        monkeypatch.setattr("prichexy_gateway.ledger_copy.shutil.copyfileobj", full)
    elif at == "models":
        monkeypatch.setattr("prichexy_gateway.backup.shutil.copytree", full)
    else:
        monkeypatch.setattr(Path, "replace", replaced)
    with pytest.raises(Failed, match="No space left"):
        restore(home, to, identity_file=identity, replace=True, now=NOW)
    assert {path for path in home.root.rglob("*") if path.name != "lock"} == before
    assert {path: path.read_bytes() for path in before if path.is_file()} == content


def crashed(home: Home, tmp_path: Path) -> None:
    """Leave the ledger as a gateway does that is killed: with a study in its WAL alone."""
    ledger = ledger_of(home)
    engine = open_database(f"sqlite:///{ledger}")
    take_in(Ledger(engine, FakeClock()), "later")
    names = [f"{ledger.name}{end}" for end in ("", "-wal", "-shm")]
    for name in names:
        shutil.copy(ledger.with_name(name), tmp_path / name)
    engine.dispose()
    for name in names:
        shutil.copy(tmp_path / name, ledger.with_name(name))
    alone = tmp_path / "alone.sqlite"
    shutil.copy(ledger, alone)
    assert studies(alone) == 1


def test_what_a_crash_left_in_the_wal_is_kept_aside_with_its_ledger(
    home: Home, tmp_path: Path
) -> None:
    back_up(home, tmp_path / "backup", recipients=None, now=NOW)
    for count, name in enumerate(("sqlite.replaced", "sqlite.replaced-2"), start=1):
        crashed(home, tmp_path)
        restore(home, tmp_path / "backup", replace=True, now=NOW)
        assert studies(ledger_of(home)) == 1
        aside = ledger_of(home).with_name(f"prichexy-ledger.{name}")
        assert studies(aside) == 2, f"kept aside the {count}. time"


def _killed_at(number: int, home: Home, backup: Path, identity: Path) -> bool:
    """Restore in a process that is killed before its ``number``-th renaming; False: it has none."""
    child = os.fork()
    if child == 0:
        left = [number]

        def watch(event: str, _arguments: object) -> None:
            if event in ("os.rename", "os.link"):
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        try:
            restore(home, backup, identity_file=identity, replace=True, now=NOW)
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_a_restore_that_is_killed_leaves_a_key_and_a_ledger_and_no_gateway_starts(
    home: Home, identity: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    to = tmp_path / "backup"
    back_up(home, to, recipients=RECIPIENTS, now=NOW)
    old = Pseudonyms.from_key_file(home.key_file).key_id
    new = changed_key(home)
    crashed(home, tmp_path)
    whole = tmp_path / "whole"
    shutil.copytree(home.root, whole, symlinks=True)
    number = 1
    while True:
        shutil.rmtree(home.root)
        shutil.copytree(whole, home.root, symlinks=True)
        if not _killed_at(number, home, to, identity):
            break
        assert Pseudonyms.from_key_file(home.key_file).key_id in (old, new)
        assert ledger_of(home).exists()
        with pytest.raises(Failed, match="was cut off"):
            home.prepare()
        with monkeypatch.context() as full_disk, pytest.raises(Failed, match="No space left"):
            full_disk.setattr("prichexy_gateway.placing.Path.replace", full)
            restore(home, to, identity_file=identity, replace=True, now=NOW)
        with pytest.raises(Failed, match="was cut off"):
            home.prepare()
        restore(home, to, identity_file=identity, replace=True, now=NOW)
        home.prepare()
        assert Pseudonyms.from_key_file(home.key_file).key_id == old
        assert studies(ledger_of(home)) == 1
        kept = home.root.glob("ingest/*.sqlite.replaced*")
        assert 2 in [studies(path) for path in kept if not path.name.endswith(("-wal", "-shm"))]
        number += 1
    assert number > 6


def test_a_backup_and_what_a_restore_puts_in_place_are_on_the_disk_before(
    home: Home, identity: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut after the renaming would leave empty files of a store or ledger otherwise."""
    synced: set[int] = set()
    moved: list[Path] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        fsync(descriptor)
        synced.add(os.fstat(descriptor).st_ino)

    def checked(move: Callable[[Path, Path], Path]) -> Callable[[Path, Path], Path]:
        def checking(source: Path, target: Path) -> Path:
            ours = [source, *source.rglob("*")]
            if source.name.endswith((".placing", ".partial")):
                plain = [path for path in ours if not path.is_symlink()]
                assert [path for path in plain if path.stat().st_ino not in synced] == []
                moved.append(Path(target))
            return move(source, target)

        return checking

    monkeypatch.setattr(os, "fsync", note)
    for name in ("rename", "replace"):
        monkeypatch.setattr(Path, name, checked(getattr(Path, name)))
    to, other = tmp_path / "backup", Home(tmp_path / "other")
    back_up(home, to, recipients=RECIPIENTS, now=NOW)
    restore(other, to, identity_file=identity, now=NOW)
    assert {to, other.models, other.key_file, ledger_of(other)} <= set(moved)
    assert other.root.stat().st_ino in synced, "the new names as well"


_RESTORES = """
import resource, sys
from datetime import UTC, datetime
from pathlib import Path
from prichexy_gateway.backup import restore
from prichexy_gateway.home import Home
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
allowed = used + 32 * 1024 * 1024
resource.setrlimit(resource.RLIMIT_AS, (allowed, allowed))
restore(Home(Path(sys.argv[1])), Path(sys.argv[2]), now=datetime.now(UTC), replace=True)
"""


def test_a_ledger_larger_than_the_memory_comes_back(home: Home, tmp_path: Path) -> None:
    with closing(sqlite3.connect(ledger_of(home))) as database:
        database.execute("CREATE TABLE filling (content BLOB)")
        database.execute("INSERT INTO filling VALUES (zeroblob(80000000))")
        database.commit()
    back_up(home, tmp_path / "backup", recipients=None, now=NOW)
    words = [sys.executable, "-c", _RESTORES, str(home.root), str(tmp_path / "backup")]
    environment = dict(os.environ) | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert studies(ledger_of(home)) == 1
    assert ledger_of(home).stat().st_size > 80_000_000
    assert stat.S_IMODE(ledger_of(home).stat().st_mode) == 0o600


def put_back(ledger: Path, copied: bytes, *more: str) -> subprocess.CompletedProcess[bytes]:
    """Do what docs/operating.md says of containers."""
    return subprocess.run(
        [sys.executable, "-m", "prichexy_gateway.ledger_copy", str(ledger), *more],
        env=dict(os.environ) | {"PYTHONPATH": os.pathsep.join(sys.path)},
        input=copied,
        capture_output=True,
        check=False,
    )


def test_a_ledger_in_a_container_is_put_back_from_a_copy(home: Home, tmp_path: Path) -> None:
    back_up(home, tmp_path / "backup", recipients=None, now=NOW)
    copied = (tmp_path / "backup" / "ledger.sqlite").read_bytes()
    engine = open_database(f"sqlite:///{ledger_of(home)}")
    take_in(Ledger(engine, FakeClock()), "later")
    Ledger(engine, FakeClock()).record(Deed.STOPPED)
    engine.dispose()
    for wrong in (b"", b"no ledger", copied[: len(copied) // 2]):
        refused = put_back(ledger_of(home), wrong)
        assert refused.returncode == 1
        assert b"Nothing was replaced" in refused.stderr
        assert studies(ledger_of(home)) == 2
        assert [path.name for path in ledger_of(home).parent.iterdir()] == [ledger_of(home).name]
    done = put_back(ledger_of(home), copied)
    assert (done.returncode, done.stderr) == (0, b"")
    assert studies(ledger_of(home)) == 1
    assert studies(ledger_of(home).with_name("prichexy-ledger.sqlite.replaced")) == 2
    assert stat.S_IMODE(ledger_of(home).stat().st_mode) == 0o600
    engine = open_database(f"sqlite:///{ledger_of(home)}")
    ledger = Ledger(engine, FakeClock())
    assert ledger.cursor() == 0
    ledger.begin({}, tells=False)
    assert Deed.RESTORED in [line.deed for line in ledger.lines()]
    assert ledger.verdict().whole
    engine.dispose()


def test_a_ledger_in_use_is_not_replaced(home: Home, tmp_path: Path) -> None:
    back_up(home, tmp_path / "backup", recipients=None, now=NOW)
    copied = (tmp_path / "backup" / "ledger.sqlite").read_bytes()
    engine = open_database(f"sqlite:///{ledger_of(home)}")
    ledger = Ledger(engine, FakeClock())
    ledger.record(Deed.STOPPED)
    inode = ledger_of(home).stat().st_ino
    for words in ((), ("--crashed",)):
        refused = put_back(ledger_of(home), copied, *words)
        assert refused.returncode == 1
        assert b"is in use" in refused.stderr
    take_in(ledger, "later")
    engine.dispose()
    assert ledger_of(home).stat().st_ino == inode
    assert studies(ledger_of(home)) == 2
    refused = put_back(ledger_of(home), copied)
    assert refused.returncode == 1
    assert b"say --crashed" in refused.stderr, "its last line is of a study"
    assert studies(ledger_of(home)) == 2


def test_a_ledger_in_a_container_is_kept_aside_with_what_a_crash_left_in_its_wal(
    home: Home, tmp_path: Path
) -> None:
    back_up(home, tmp_path / "backup", recipients=None, now=NOW)
    copied = (tmp_path / "backup" / "ledger.sqlite").read_bytes()
    crashed(home, tmp_path)
    done = put_back(ledger_of(home), copied, "--crashed")
    assert (done.returncode, done.stderr) == (0, b"")
    aside = ledger_of(home).with_name("prichexy-ledger.sqlite.replaced")
    there = {path.name for path in ledger_of(home).parent.iterdir()}
    assert there == {ledger_of(home).name, aside.name}, "both are one file, moved in one moment"
    assert studies(aside) == 2
    assert studies(ledger_of(home)) == 1


def test_a_damaged_ledger_in_a_container_is_replaced_when_it_is_said_to_have_crashed(
    home: Home, tmp_path: Path
) -> None:
    back_up(home, tmp_path / "backup", recipients=None, now=NOW)
    copied = (tmp_path / "backup" / "ledger.sqlite").read_bytes()
    ledger_of(home).write_bytes(b"no ledger any more")
    refused = put_back(ledger_of(home), copied)
    assert refused.returncode == 1
    assert b"it is damaged" in refused.stderr
    assert ledger_of(home).read_bytes() == b"no ledger any more"
    assert put_back(ledger_of(home), copied, "--crashed").returncode == 0
    assert studies(ledger_of(home)) == 1


@pytest.mark.parametrize("damage", ["changed", "missing", "added", "link"])
def test_a_damaged_backup_is_refused_before_anything_is_touched(
    home: Home, tmp_path: Path, damage: str
) -> None:
    to = tmp_path / "backup"
    back_up(home, to, recipients=None, now=NOW)
    weights = to / "models" / "versions" / ("a" * 64) / "model.pt"
    if damage == "changed":
        weights.write_bytes(b"others")
    elif damage == "missing":
        weights.unlink()
    elif damage == "added":
        (to / "extra").write_bytes(b"")
    else:
        (to / "models" / "current").unlink()
        (to / "models" / "current").symlink_to("/etc")
    with pytest.raises(Failed, match="is damaged"):
        restore(home, to, replace=True, now=NOW)
    assert ledger_of(home).exists()


def test_what_is_no_backup_is_named(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="no backup of a gateway"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text('{"version": 1, "odd": 2}')
    with pytest.raises(Failed, match="no backup of a gateway"):
        read_manifest(tmp_path)


def test_no_half_backup_is_left(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object, **_options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("prichexy_gateway.backup.shutil.copytree", full)
    with pytest.raises(Failed, match="No space left"):
        back_up(home, tmp_path / "backup", recipients=None, now=NOW)
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
    (tmp_path / "backup").mkdir()
    with pytest.raises(Refused, match="is there already"):
        back_up(home, tmp_path / "backup", recipients=None, now=NOW)


def test_a_damaged_ledger_and_one_elsewhere_are_told(home: Home, tmp_path: Path) -> None:
    ledger_of(home).write_bytes(b"SQLite format 3\0" + bytes(5000))
    with pytest.raises(Failed, match=r"cannot be copied|is damaged|no ledger"):
        back_up(home, tmp_path / "backup", recipients=None, now=NOW)
    ledger_of(home).unlink()
    with pytest.raises(Failed, match="pg_dump"):
        back_up(home, tmp_path / "backup", recipients=None, now=NOW)
    assert not (tmp_path / "backup").exists()


def test_a_file_that_stayed_behind_when_the_ledger_moved_is_not_taken_for_it(
    home: Home, tmp_path: Path
) -> None:
    us = RunningProcess("prichexy", 1, 1)
    home.write_record(Record(Addresses("", "", 1, "", "", ""), "", us, ledger="postgresql"))
    app, runner = create_app(), CliRunner()
    place = ["--home", str(home.root)]
    for words in (
        ["backup", str(tmp_path / "b"), "--without-secrets", *place],
        ["audit", "verify", *place],
        ["audit", "export", *place],
    ):
        answer = runner.invoke(app, words)
        assert isinstance(answer.exception, Misconfigured), words
        assert "keeps its ledger in a database (postgresql)" in str(answer.exception)
    assert not (tmp_path / "b").exists()
    home.note_ledger(str(ledger_of(home)))
    assert runner.invoke(app, ["audit", "verify", *place]).exit_code == 0
    # As an Orthanc tells it that has a root folder of its own.
    home.note_ledger("/home/ingest/prichexy-ledger.sqlite")
    assert home.ledger() == ledger_of(home)
    home.note_ledger(str(tmp_path / "other.sqlite"))
    with pytest.raises(Misconfigured, match=r"other\.sqlite"):
        home.ledger()


def test_models_and_secrets_are_backed_up_where_the_ledger_is_elsewhere(
    home: Home, identity: Path, tmp_path: Path
) -> None:
    ledger_of(home).unlink()
    to = tmp_path / "backup"
    written = back_up(home, to, recipients=RECIPIENTS, now=NOW, with_ledger=False)
    assert (written.has_ledger, written.has_secrets) == (False, True)
    assert read_manifest(to) == written
    other = Home(tmp_path / "other")
    restore(other, to, identity_file=identity, now=NOW)
    assert (other.models / "current" / "model.pt").read_bytes() == b"weights"
    assert other.password("admin") == home.password("admin")
    assert not ledger_of(other).exists()
    other_place = ["--home", str(home.root), "--without-secrets", "--without-ledger"]
    done = CliRunner().invoke(create_app(), ["backup", str(tmp_path / "b"), *other_place])
    assert "no ledger" in done.output
    take = open_database(f"sqlite:///{ledger_of(home)}")
    take.dispose()
    restore(home, to, identity_file=identity, replace=True, now=NOW)
    assert ledger_of(home).exists(), "a ledger that is there stays"


def test_a_trail_under_a_key_is_said_to_need_it(home: Home, tmp_path: Path) -> None:
    assert not back_up(home, tmp_path / "first", recipients=None, now=NOW).keyed
    engine = open_database(f"sqlite:///{ledger_of(home)}")
    Ledger(engine, FakeClock(), ChainKey("a" * 16, b"k" * 32)).record(Deed.ACTION)
    engine.dispose()
    app, runner, to = create_app(), CliRunner(), str(tmp_path / "backup")
    place = ["--home", str(home.root)]
    for words in (
        ["backup", to, "--without-secrets", *place],
        ["restore", to, "--check"],
        ["restore", to, "--replace", *place],
    ):
        assert "Audit.KeyFile" in runner.invoke(app, words).output, words
    assert read_manifest(Path(to)).keyed


def test_the_trail_tells_of_a_restore_and_the_heads_that_it_lost_are_told_apart(
    home: Home, tmp_path: Path
) -> None:
    def run(name: str, log: list[str]) -> None:
        """Let a plugin run on the ledger once."""
        engine = open_database(f"sqlite:///{ledger_of(home)}")
        ledger = Ledger(engine, FakeClock())
        ledger.begin({"software": name}, tells=False)
        log.append(f"PriCheXy, audit trail: {ledger.chain_state().head}.")
        engine.dispose()

    def verified(log: list[str]) -> tuple[int, str]:
        file = tmp_path / "log"
        file.write_text("\n".join(log))
        words = ["audit", "verify", "--home", str(home.root), "--against", str(file)]
        answer = CliRunner().invoke(create_app(), words)
        return answer.exit_code, answer.output

    before: list[str] = []
    run("1", before)
    manifest = back_up(home, tmp_path / "backup", recipients=None, now=NOW)
    assert before == [f"PriCheXy, audit trail: {manifest.head}."]
    lost: list[str] = []
    for name in "234":
        run(name, lost)
    restore(home, tmp_path / "backup", replace=True, now=NOW)
    after: list[str] = []
    run("5", after)
    run("6", after)
    engine = open_database(f"sqlite:///{ledger_of(home)}")
    [told] = [line for line in Ledger(engine, FakeClock()).lines() if line.deed == Deed.RESTORED]
    engine.dispose()
    assert f"line {told.details['upto']}, digest {told.details['digest']}" == manifest.head
    assert told.details["restored_at"] == NOW.isoformat()
    assert verified(before + after)[0] == 0
    code, words = verified(before + lost + after)
    assert code == 4
    assert f"Line {told.number} tells of a restore" in words
    assert "3 noted heads are not in it, of lines 4 to 6" in words
    other = before[0].replace("digest ", "digest 0")[:-2]
    assert verified([other + "."])[0] == 3, "before the restore nothing may differ"


def test_the_moment_of_a_restore_fits_into_the_numbers_of_postgresql_for_long(
    home: Home, tmp_path: Path
) -> None:
    back_up(home, tmp_path / "backup", recipients=None, now=NOW)
    later = datetime(2100, 1, 1, tzinfo=UTC)
    restore(home, tmp_path / "backup", replace=True, now=later)
    with closing(sqlite3.connect(ledger_of(home))) as database:
        [[number]] = database.execute("SELECT number FROM facts WHERE name = 'restored'")
    assert 0 < number < 2**31
    engine = open_database(f"sqlite:///{ledger_of(home)}")
    ledger = Ledger(engine, FakeClock())
    ledger.begin({}, tells=False)
    [told] = [line for line in ledger.lines() if line.deed == Deed.RESTORED]
    engine.dispose()
    assert told.details["restored_at"] == later.isoformat()


def test_a_restore_by_software_of_before_is_told_with_its_moment(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    ledger = Ledger(engine, FakeClock())
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as database, database:
        seconds = int(NOW.timestamp())
        database.execute("INSERT INTO facts (name, number) VALUES ('restored', ?)", (seconds,))
    ledger.begin({}, tells=False)
    [told] = [line for line in ledger.lines() if line.deed == Deed.RESTORED]
    engine.dispose()
    assert told.details["restored_at"] == NOW.isoformat()


@pytest.mark.parametrize(("options", "found"), [({}, 2), ({"keep_place": True}, 1)])
def test_a_restored_ledger_reads_all_of_the_ingest_orthancs_changes(
    home: Home, tmp_path: Path, options: dict[str, bool], found: int
) -> None:
    """The Orthanc that it comes back to may be another one, whose changes count from one again."""
    orthanc = FakeOrthanc(clock=FakeClock())
    orthanc.store(CHEST, study="known")
    engine = open_database(f"sqlite:///{ledger_of(home)}")
    stood = OrthancStudies(orthanc).last_change()
    Ledger(engine, FakeClock()).note({}, cursor=stood)
    engine.dispose()
    back_up(home, tmp_path / "backup", recipients=None, now=NOW)
    restore(home, tmp_path / "backup", replace=True, now=NOW, **options)
    orthanc.store(HIP, study="new")
    engine = open_database(f"sqlite:///{ledger_of(home)}")
    ledger = Ledger(engine, FakeClock())
    known = ledger.studies().total
    watcher = Watcher(
        OrthancStudies(orthanc),
        ledger,
        rules=(),
        stable_age=60,
        take_existing=False,
        clock=FakeClock(),
    )
    while watcher.run_once().more:
        pass
    assert ledger.studies().total - known == found
    engine.dispose()


def test_nothing_is_restored_under_a_running_gateway(home: Home, tmp_path: Path) -> None:
    to = tmp_path / "backup"
    back_up(home, to, recipients=None, now=NOW)
    with home.locked(), pytest.raises(Failed, match="Another gateway"):
        restore(home, to, replace=True, now=NOW)


def test_the_commands_say_what_they_did(home: Home, tmp_path: Path) -> None:
    app, runner, to = create_app(), CliRunner(), str(tmp_path / "backup")
    place = ["--home", str(home.root)]
    asked = runner.invoke(app, ["backup", to, *place])
    assert isinstance(asked.exception, Misconfigured)
    done = runner.invoke(app, ["backup", to, "--without-secrets", *place])
    assert "Backup written: 1 studies as of " in done.output
    assert done.exit_code == 0
    checked = runner.invoke(app, ["restore", to, "--check"])
    assert checked.output.startswith("The backup is whole: 1 studies")
    done = runner.invoke(app, ["restore", to, "--replace", *place])
    assert done.output.startswith("Restored: 1 studies")
    assert "What people decided since " in done.output
    key_id = Pseudonyms.from_key_file(home.key_file).key_id
    deeds = [(one.action, one.key_id, one.studies, one.recipients) for one in noted(home)]
    assert deeds == [("backup", key_id, 1, 0), ("restore", key_id, 1, 0)], "for the audit trail"
    assert f"key in place is {Pseudonyms.from_key_file(home.key_file).key_id}." in done.output
    assert "prichexy-ledger.sqlite.replaced" in done.output
    text = (tmp_path / "backup" / "manifest.json").read_text(encoding="utf-8")
    data = json.loads(text)
    assert Manifest.from_json(data).key_id == Pseudonyms.from_key_file(home.key_file).key_id
