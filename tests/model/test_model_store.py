"""The model store: one version in use, all changes on record, the former one kept."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from prichexy_store.bundle_files import bundle_digest, copy_bundle
from prichexy_store.bundles import EVIDENCE
from prichexy_store.errors import Failed, Moved, Refused, WrongUse
from prichexy_store.history import Version
from prichexy_store.store import ModelStore

Make = Callable[..., Path]


def check(folder: Path, digest: str) -> Version:
    """Read what ``make`` wrote; a bundle without weights is broken."""
    if not (folder / "models" / "model.pt").is_file():
        raise Refused("The bundle cannot be used: no weights.")
    said = json.loads((folder / "configs" / "metadata.json").read_text())
    return Version(digest=digest, statement="A statement.", **said)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Give what makes a small bundle in a folder of its own."""

    def make(name: str, evidence: str = "trained", **said: Any) -> Path:
        folder = tmp_path / "bundles" / name
        (folder / "configs").mkdir(parents=True)
        (folder / "models").mkdir()
        metadata = {
            "name": "generator",
            "version": name,
            "weights": name * 4,
            "deformation": "mu 0.01",
            "evidence": evidence,
            **said,
        }
        (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
        (folder / "models" / "model.pt").write_text(f"weights of {name}")
        (folder / "LICENSE").write_text("Apache License")
        return folder

    return make


class Clock:
    """A minute passes between two looks."""

    def __init__(self) -> None:
        self.moment = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.moment += timedelta(minutes=1)
        return self.moment


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "store", check, Clock(), describe=check)


def in_use(store: ModelStore) -> str:
    """Give the version in use, by what a worker finds behind the link."""
    said = json.loads((store.current / "configs" / "metadata.json").read_text())
    return str(said["version"])


def test_a_promoted_bundle_is_what_the_link_leads_to(store: ModelStore, make: Make) -> None:
    bundle = make("a")
    change = store.promote(bundle, "alice@host", reason="the first")
    assert change is not None
    assert in_use(store) == "a"
    assert store.in_use() == change.version.digest == bundle_digest(bundle)
    assert (store.current / "models" / "model.pt").read_text() == "weights of a"
    # What becomes of the source later changes nothing.
    shutil.rmtree(bundle)
    assert in_use(store) == "a"


def test_the_history_says_who_when_what_and_why(store: ModelStore, make: Make) -> None:
    first = store.promote(make("a"), "alice@host", reason="the first")
    second = store.promote(make("b"), "bob@host")
    assert first is not None
    assert second is not None
    store.rollback("carol@host", reason="b blurs ribs")
    told = [(c.at, c.by, c.action, c.version.version, c.reason) for c in store.history()]
    assert told == [
        ("2026-01-01T00:01:00+00:00", "alice@host", "promoted", "a", "the first"),
        ("2026-01-01T00:02:00+00:00", "bob@host", "promoted", "b", ""),
        ("2026-01-01T00:03:00+00:00", "carol@host", "rolled back", "a", "b blurs ribs"),
    ]
    assert [c.former for c in store.history()] == [
        None,
        first.version.digest,
        second.version.digest,
    ]


def test_what_is_in_use_already_changes_nothing(store: ModelStore, make: Make) -> None:
    bundle = make("a")
    store.promote(bundle, "alice")
    assert store.promote(bundle, "alice") is None
    assert len(store.history()) == 1


def test_workers_of_another_user_can_read_a_version_and_nobody_writes_it(
    store: ModelStore, make: Make
) -> None:
    bundle = make("a")
    (bundle / "models" / "model.pt").chmod(0o600)
    before = os.umask(0o077)
    try:
        store.promote(bundle, "alice")
    finally:
        os.umask(before)
    folder = store.current.resolve()
    for path in (store.root, folder.parent, folder, folder / "models"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o755
    for path in folder.rglob("*"):
        assert path.is_dir() or stat.S_IMODE(path.stat().st_mode) == 0o444


def test_the_link_stays_right_wherever_the_store_is_mounted(
    store: ModelStore, make: Make, tmp_path: Path
) -> None:
    store.promote(make("a"), "alice")
    moved = ModelStore(tmp_path / "elsewhere", check)
    store.root.rename(moved.root)
    assert in_use(moved) == "a"


def test_a_broken_bundle_is_refused_even_by_force_and_leaves_nothing(
    store: ModelStore, make: Make
) -> None:
    store.promote(make("a"), "alice")
    broken = make("b")
    (broken / "models" / "model.pt").unlink()
    before = sorted(store.root.rglob("*"))
    for force in (False, True):
        with pytest.raises(Refused, match="no weights"):
            store.promote(broken, "alice", force=force, reason="I must")
    assert in_use(store) == "a"
    assert sorted(store.root.rglob("*")) == before


@pytest.mark.parametrize(
    ("before", "after", "weaker"),
    [
        ("untrained", "untrained", False),
        ("untrained", "trained", False),
        ("trained", "measured", False),
        ("trained", "untrained", True),
        ("measured", "trained", True),
        ("measured", "untrained", True),
        ("measured", "protects", False),
        ("protects", "measured", True),
        ("protects", "trained", True),
    ],
)
def test_weaker_evidence_is_refused(
    store: ModelStore, make: Make, before: str, after: str, weaker: bool
) -> None:
    known = {"protects": {"evidence": "measured", "protects": True}}
    first, second = (known.get(word, {"evidence": word}) for word in (before, after))
    store.promote(make("a", **first), "alice")
    if not weaker:
        assert store.promote(make("b", **second), "alice") is not None
        return
    with pytest.raises(Refused, match=f"is .*{after}.*, but .* is .*{before}"):
        store.promote(make("b", **second), "alice")
    assert in_use(store) == "a"


def test_weaker_evidence_can_be_forced_with_a_reason_that_is_kept(
    store: ModelStore, make: Make
) -> None:
    store.promote(make("a", "measured"), "alice")
    weaker = make("b")
    with pytest.raises(WrongUse, match="--reason"):
        store.promote(weaker, "alice", force=True)
    change = store.promote(weaker, "alice", force=True, reason="a trial on phantoms")
    assert change is not None
    assert change.forced
    assert store.history()[-1] == change
    assert in_use(store) == "b"


def test_force_that_was_not_needed_is_not_on_record(store: ModelStore, make: Make) -> None:
    change = store.promote(make("a"), "alice", force=True, reason="to be sure")
    assert change is not None
    assert not change.forced


def test_one_name_and_version_never_stands_for_two_ways_to_deform(
    store: ModelStore, make: Make
) -> None:
    store.promote(make("a"), "alice")
    other = make("b", version="a", weights="a" * 4, deformation="mu 0.02")
    with pytest.raises(Refused, match="another version"):
        store.promote(other, "alice")


def test_the_same_model_with_stronger_evidence_is_another_version(
    store: ModelStore, make: Make
) -> None:
    store.promote(make("a"), "alice")
    measured = make("b", "measured", version="a", weights="a" * 4)
    assert store.promote(measured, "alice") is not None


def test_two_rollbacks_go_further_back_and_never_to_what_was_left(
    store: ModelStore, make: Make
) -> None:
    for name in ("a", "b", "c"):
        store.promote(make(name), "alice")
    assert store.rollback("alice").version.version == "b"
    assert store.rollback("alice").version.version == "a"
    with pytest.raises(Refused, match="no former version"):
        store.rollback("alice")
    assert in_use(store) == "a"


def test_a_rollback_goes_to_what_was_in_use_whatever_its_evidence(
    store: ModelStore, make: Make
) -> None:
    store.promote(make("a", "untrained"), "alice")
    store.promote(make("b", "measured"), "alice")
    store.rollback("alice")
    assert in_use(store) == "a"


def test_after_a_rollback_and_a_promotion_the_former_one_is_the_one_between(
    store: ModelStore, make: Make
) -> None:
    for name in ("a", "b"):
        store.promote(make(name), "alice")
    store.rollback("alice")
    store.promote(make("c"), "alice")
    assert store.rollback("alice").version.version == "a"


def test_a_version_of_the_store_is_promoted_again_by_the_beginning_of_a_digest(
    store: ModelStore, make: Make
) -> None:
    store.promote(make("a"), "alice")
    store.promote(make("b"), "alice")
    first = store.history()[0].version
    for beginning in (first.digest[:8], first.weights[:3]):
        assert store.find(beginning) == store.folder(first.digest)
    store.promote(store.find(first.digest[:8]), "alice")
    assert in_use(store) == "a"
    with pytest.raises(WrongUse, match="no version begins"):
        store.find("zzz")
    with pytest.raises(WrongUse, match="2 versions begin"):
        store.find("")


def test_a_version_that_was_altered_is_shown_as_damaged_and_not_used(
    store: ModelStore, make: Make
) -> None:
    store.promote(make("a"), "alice")
    store.promote(make("b"), "alice")
    folder = store.folder(store.history()[0].version.digest)
    (folder / "models" / "model.pt").chmod(0o644)
    (folder / "models" / "model.pt").write_text("other weights")
    assert [(e.version.version, e.in_use, e.former, e.whole) for e in store.entries()] == [
        ("a", False, True, False),
        ("b", True, False, True),
    ]
    with pytest.raises(Refused, match="gone or damaged"):
        store.rollback("alice")
    with pytest.raises(Refused, match="is damaged"):
        store.promote(folder, "alice")
    assert in_use(store) == "b"


def test_a_change_that_was_cut_off_before_the_link_moved_is_found_and_recorded(
    store: ModelStore, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.promote(make("a"), "alice")

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "symlink_to", die)
        with pytest.raises(KeyboardInterrupt):
            store.promote(make("b"), "alice")
    assert in_use(store) == "a"
    assert [(e.version.version, e.in_use) for e in store.entries()] == [("a", True), ("b", False)]
    store.promote(make("c"), "alice")
    assert [(c.action, c.version.version) for c in store.history()] == [
        ("promoted", "a"),
        ("promoted", "b"),
        ("found", "a"),
        ("promoted", "c"),
    ]


def test_a_link_that_was_moved_by_hand_to_what_cannot_be_loaded_can_be_rolled_back(
    store: ModelStore, make: Make
) -> None:
    store.promote(make("a"), "alice")
    store.folder("0" * 64).mkdir()
    store.current.unlink()
    store.current.symlink_to(Path("versions") / ("0" * 64))
    assert store.rollback("alice").version.version == "a"
    assert [(c.action, c.version.name) for c in store.history()] == [
        ("promoted", "generator"),
        ("found", "unknown"),
        ("rolled back", "generator"),
    ]


@pytest.mark.parametrize("target", ["/etc", "versions/../..", "versions/short"])
def test_a_link_that_leads_out_of_the_store_is_an_error_that_says_what_to_do(
    store: ModelStore, make: Make, target: str
) -> None:
    store.promote(make("a"), "alice")
    store.current.unlink()
    store.current.symlink_to(target)
    with pytest.raises(Failed, match="ln -sfn"):
        store.in_use()


def test_what_a_killed_change_left_is_cleared_away(store: ModelStore, make: Make) -> None:
    store.promote(make("a"), "alice")
    left = store.root / "versions" / ".incoming-1"
    left.mkdir()
    (left / "half").write_text("of a bundle")
    store.promote(make("b"), "alice")
    assert not left.exists()


def test_two_changes_at_a_time_are_refused(store: ModelStore, make: Make) -> None:
    bundle = make("a")

    def check_while_another_comes(folder: Path, digest: str) -> Version:
        with pytest.raises(Failed, match="Somebody else changes"):
            ModelStore(store.root, check).promote(make("b"), "bob")
        return check(folder, digest)

    ModelStore(store.root, check_while_another_comes).promote(bundle, "alice")
    assert in_use(store) == "a"


@pytest.mark.parametrize("line", ["{", "[]", '{"line": 2}', '{"line": 1, "at": "now"}'])
def test_a_damaged_history_is_an_error_that_names_the_line(
    store: ModelStore, make: Make, line: str
) -> None:
    store.promote(make("a"), "alice")
    with (store.root / "history.jsonl").open("a") as history:
        history.write(line + "\n")
    with pytest.raises(Failed, match="line 2"):
        store.promote(make("b"), "alice")
    assert in_use(store) == "a"


def test_an_empty_store_has_nothing_to_show_and_is_not_made_by_looking(store: ModelStore) -> None:
    assert store.in_use() is None
    assert store.entries() == []
    assert not store.root.exists()


def test_a_store_that_cannot_be_written_is_named(make: Make, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Failed, match="cannot be written"):
        ModelStore(tmp_path / "file" / "store", check).promote(make("a"), "alice")
    with pytest.raises(WrongUse, match="no such folder"):
        ModelStore(tmp_path / "store", check).promote(tmp_path / "nowhere", "alice")


def test_the_digest_can_be_made_with_common_tools(store: ModelStore, make: Make) -> None:
    store.promote(make("a"), "alice")
    command = "find . -type f -printf '%P\\n' | LC_ALL=C sort | xargs sha256sum | sha256sum"
    made = subprocess.run(
        ["sh", "-c", command], cwd=store.current.resolve(), capture_output=True, check=True
    )
    assert made.stdout.decode().split()[0] == store.in_use()


def test_only_what_belongs_to_a_bundle_is_taken_along(make: Make, tmp_path: Path) -> None:
    bundle = make("a")
    digest = bundle_digest(bundle)
    for name in ("images/patient.png", "output/patient.npy", "configs/.draft", "docs/.x/y"):
        (bundle / name).parent.mkdir(parents=True, exist_ok=True)
        (bundle / name).write_text("not of the bundle")
    assert bundle_digest(bundle) == digest
    copy_bundle(bundle, tmp_path / "copy")
    assert bundle_digest(tmp_path / "copy") == digest
    names = {p.relative_to(tmp_path / "copy").as_posix() for p in (tmp_path / "copy").rglob("*.*")}
    assert names == {"configs/metadata.json", "models/model.pt"}


@pytest.mark.parametrize("name", ["docs/README.md", "models", "NOTICE"])
def test_a_link_within_a_bundle_is_refused(make: Make, tmp_path: Path, name: str) -> None:
    bundle = make("a")
    (tmp_path / "outside").mkdir()
    place = bundle / name
    if place.exists():
        shutil.rmtree(place)
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(tmp_path / "outside")
    if name == "NOTICE":  # a folder of another name is none of the bundle's
        assert bundle_digest(bundle)
        place.unlink()
        (tmp_path / "file").write_text("")
        place.symlink_to(tmp_path / "file")
    with pytest.raises(Failed, match="plain files"):
        bundle_digest(bundle)


def test_the_evidence_is_that_of_the_contract() -> None:
    from typing import get_args

    from prichexy_model.bundle import Evidence

    assert get_args(Evidence) == EVIDENCE


def test_an_offered_bundle_is_checked_kept_and_not_in_use(store: ModelStore, make: Make) -> None:
    store.promote(make("a"), "alice")
    version = store.offer(make("b", evidence="measured"))
    assert in_use(store) == "a"
    assert len(store.history()) == 1, "nothing was put to use"
    offered = store.entries()[-1]
    assert (offered.version, offered.last_used, offered.in_use, offered.whole) == (
        version,
        "",
        False,
        True,
    )
    assert store.find(version.digest[:8]) == store.folder(version.digest)
    broken = make("c")
    (broken / "models" / "model.pt").unlink()
    with pytest.raises(Refused, match="no weights"):
        store.offer(broken)
    with pytest.raises(WrongUse, match="no such folder"):
        store.offer(broken / "nowhere")
    assert len(list((store.root / "versions").iterdir())) == 2


def test_an_offered_bundle_is_put_to_use_without_a_copy(store: ModelStore, make: Make) -> None:
    first = store.promote(make("a"), "alice")
    assert first is not None
    version = store.offer(make("b"))
    (store.root / "versions").chmod(0o555)
    change = store.use(version.digest, "ada", seen=first.version.digest, reason="better")
    (store.root / "versions").chmod(0o755)
    assert in_use(store) == "b"
    assert (change.action, change.former, change.reason) == (
        "promoted",
        first.version.digest,
        "better",
    )


def test_what_a_promotion_would_refuse_is_refused_and_told_before(
    store: ModelStore, make: Make
) -> None:
    store.promote(make("a", evidence="measured"), "alice")
    now = store.in_use()
    weaker = store.offer(make("b", evidence="trained"))
    assert "is trained, but" in str(store.refusal(weaker.digest))
    with pytest.raises(Refused, match="is trained, but"):
        store.use(weaker.digest, "ada", seen=now)
    assert store.refusal("0" * 64) is not None
    with pytest.raises(Refused, match="not in the store"):
        store.use("0" * 64, "ada", seen=now)
    with pytest.raises(Refused, match="another version"):
        store.offer(make("c", version="b", weights="b" * 4, deformation="mu 0.02"))
    assert in_use(store) == "a"
    as_good = store.offer(make("d", evidence="measured"))
    assert store.refusal(as_good.digest) is None


def test_a_store_that_moved_since_it_was_seen_is_left_alone(store: ModelStore, make: Make) -> None:
    store.promote(make("a"), "alice")
    seen = store.in_use()
    assert seen is not None
    store.promote(make("b"), "bob")
    offered = store.offer(make("c"))
    with pytest.raises(Moved):
        store.use(offered.digest, "ada", seen=seen)
    with pytest.raises(Moved):
        store.rollback("ada", seen=seen)
    assert in_use(store) == "b"
    assert len(store.history()) == 2


def test_two_users_change_one_store(
    store: ModelStore, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.promote(make("a"), "alice")
    really = Path.open

    def as_another_user(path: Path, mode: str = "r", **options: Any) -> Any:
        if path.name == "lock" and mode != "r":
            raise PermissionError(13, "Permission denied")
        return really(path, mode, **options)

    monkeypatch.setattr(Path, "open", as_another_user)
    store.promote(make("b"), "10001")
    assert in_use(store) == "b"
    with pytest.raises(Failed, match="Somebody else changes"), store._held():
        store.rollback("alice")
