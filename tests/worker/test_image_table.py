"""The researchers' table: every released image once, whoever writes it and whenever one dies."""

from __future__ import annotations

import csv
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prichexy_worker.contract import Reason
from prichexy_worker.errors import Retryable
from prichexy_worker.export.image_table import ImageTable

UNSURE = ".images.csv.unsure"
COLUMNS = ("study_uid", "file", "note")
Rows = list[dict[str, str]]


def table(folder: Path) -> ImageTable:
    return ImageTable(folder, COLUMNS)


def rows(study: str, *notes: str) -> Rows:
    return [
        {"study_uid": study, "file": f"{study}/{number}.png", "note": note}
        for number, note in enumerate(notes)
    ]


def put(folder: Path, study: str, *notes: str) -> None:
    (folder / study).mkdir(exist_ok=True)
    with table(folder).held() as held_table:
        held_table.put(study, rows(study, *notes))


def remove(folder: Path, study: str) -> None:
    with table(folder).held() as held_table:
        held_table.remove(study)


def kept_rows(folder: Path, study: str) -> Rows:
    with table(folder).held() as held_table:
        return held_table.rows(study)


def held(folder: Path) -> Rows:
    with (folder / "images.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_studies_are_appended_in_the_order_in_which_they_are_released(tmp_path: Path) -> None:
    put(tmp_path, "2.25.1", "a", "b")
    first = (tmp_path / "images.csv").read_bytes()
    put(tmp_path, "2.25.2", "c")
    assert (tmp_path / "images.csv").read_bytes().startswith(first)
    assert held(tmp_path) == rows("2.25.1", "a", "b") + rows("2.25.2", "c")


def test_a_study_has_its_newest_rows_and_no_others(tmp_path: Path) -> None:
    put(tmp_path, "2.25.1", "a", "b")
    put(tmp_path, "2.25.2", "c")
    put(tmp_path, "2.25.1", "d")
    assert held(tmp_path) == rows("2.25.2", "c") + rows("2.25.1", "d")
    assert kept_rows(tmp_path, "2.25.1") == rows("2.25.1", "d")


def test_a_study_that_has_not_changed_leaves_the_table_as_it_is(tmp_path: Path) -> None:
    """A ledger that was lost makes every study come again: each would write the whole table."""
    put(tmp_path, "2.25.1", "a")
    put(tmp_path, "2.25.2", "b")
    before = (tmp_path / "images.csv").stat()
    put(tmp_path, "2.25.1", "a")
    after = (tmp_path / "images.csv").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_study_is_removed_alone_and_as_often_as_one_likes(tmp_path: Path) -> None:
    put(tmp_path, "2.25.1", "a")
    put(tmp_path, "2.25.10", "b")
    for _ in range(2):
        remove(tmp_path, "2.25.1")
        assert held(tmp_path) == rows("2.25.10", "b")
    assert kept_rows(tmp_path, "2.25.1") == []


def test_a_full_disk_leaves_the_table_and_no_half_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "2.25.1", "a")
    real = os.fsync

    def full(descriptor: int) -> None:
        if os.fstat(descriptor).st_ino == folder:
            return real(descriptor)
        raise OSError(28, "No space left on device")

    folder = (tmp_path / "2.25.1").stat().st_ino
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(Retryable):
            remove(tmp_path, "2.25.1")
    assert held(tmp_path) == rows("2.25.1", "a")
    assert not list(tmp_path.glob(".*.part"))
    remove(tmp_path, "2.25.1")
    assert held(tmp_path) == []


def test_to_remove_from_no_table_makes_none(tmp_path: Path) -> None:
    remove(tmp_path, "2.25.1")
    assert not (tmp_path / "images.csv").exists()


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n"), max_size=20))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_of_one_line_survives(tmp_path: Path, text: str) -> None:
    put(tmp_path, "2.25.1", text)
    put(tmp_path, "2.25.2", "other")
    put(tmp_path, "2.25.3", text)
    remove(tmp_path, "2.25.2")
    notes = [row["note"] for row in held(tmp_path)]
    assert notes == [text, text]


def test_a_writer_that_stands_still_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    put(tmp_path, "2.25.1", "a")
    hurried = ImageTable(tmp_path, COLUMNS, wait=0.2)
    with (tmp_path / ".images.csv.lock").open("ab") as still:
        fcntl.flock(still, fcntl.LOCK_EX)
        with pytest.raises(Retryable) as error, hurried.held():
            pytest.fail("two writers at once")
        assert error.value.reason is Reason.TARGET_UNREACHABLE
        assert held(tmp_path) == rows("2.25.1", "a")
    with hurried.held() as held_table:
        held_table.remove("2.25.1")
    assert held(tmp_path) == []


@pytest.mark.parametrize("text", ["a\nb", "a\rb", "\n"])
def test_a_row_is_a_line(tmp_path: Path, text: str) -> None:
    put(tmp_path, "2.25.1", "a")
    with pytest.raises(Retryable, match="several lines"):
        put(tmp_path, "2.25.2", text)
    assert held(tmp_path) == rows("2.25.1", "a")


def test_a_table_with_other_columns_is_left_alone(tmp_path: Path) -> None:
    foreign = b"study_uid,something\n2.25.1,else\n"
    (tmp_path / "images.csv").write_bytes(foreign)
    for act in (table(tmp_path).check, lambda: put(tmp_path, "2.25.1", "a")):
        with pytest.raises(Retryable, match="other columns") as error:
            act()
        assert error.value.reason is Reason.TARGET_REFUSED
    assert (tmp_path / "images.csv").read_bytes() == foreign


@pytest.mark.parametrize("uid", ["..", "", "a", "2.25.1/.."])
def test_nothing_but_a_uid_names_a_study(tmp_path: Path, uid: str) -> None:
    with table(tmp_path).held() as one:
        for act in (one.rows, one.remove, lambda uid: one.put(uid, [])):
            with pytest.raises(Retryable, match="not a UID"):
                act(uid)


def test_files_are_swapped_the_instant_before_their_rows_are_seen(tmp_path: Path) -> None:
    """New ones just before rows are appended; others when the whole new table lies beside."""
    seen: list[tuple[Rows, int]] = []

    def swap() -> None:
        (tmp_path / "2.25.1").mkdir(exist_ok=True)
        there = held(tmp_path) if (tmp_path / "images.csv").exists() else []
        seen.append((there, sum(b"new" in p.read_bytes() for p in tmp_path.glob(".*.part"))))

    for notes in (["old"], ["new"], ["new"]):
        with table(tmp_path).held() as one:
            one.put("2.25.1", rows("2.25.1", *notes), swap)
    assert seen == [([], 0), (rows("2.25.1", "old"), 1), (rows("2.25.1", "new"), 0)]
    assert held(tmp_path) == rows("2.25.1", "new")


def test_files_that_cannot_be_swapped_leave_the_rows_of_those_that_are_there(
    tmp_path: Path,
) -> None:
    put(tmp_path, "2.25.1", "old")

    def fails() -> None:
        raise Retryable(Reason.TARGET_REFUSED, "no swap")

    with pytest.raises(Retryable, match="no swap"), table(tmp_path).held() as one:
        one.put("2.25.1", rows("2.25.1", "new"), fails)
    assert held(tmp_path) == kept_rows(tmp_path, "2.25.1") == rows("2.25.1", "old")
    put(tmp_path, "2.25.1", "new")
    assert held(tmp_path) == kept_rows(tmp_path, "2.25.1") == rows("2.25.1", "new")
    assert not (tmp_path / "2.25.1" / UNSURE).exists()


# --- killed at any moment -------------------------------------------------------------------


class Killed(BaseException):
    """The process ends here: nothing below handles it. ``unsynced``: what it wrote may be lost."""

    def __init__(self, *, unsynced: bool = False) -> None:
        self.unsynced = unsynced


@contextmanager
def killed_at(step: int, *, after: bool) -> Iterator[None]:
    """End the block before or after its ``step``-th step that others can see."""
    left, fsync = step, os.fsync

    def counted(function: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            nonlocal left
            left -= 1
            if left == 0 and not after:
                raise Killed(unsynced=function is fsync)
            result = function(*arguments, **options)
            if left == 0:
                raise Killed
            return result

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", counted(os.fsync))
        patch.setattr(Path, "replace", counted(Path.replace))
        patch.setattr(Path, "unlink", counted(Path.unlink))
        yield


_STUDIES = st.sampled_from(["2.25.1", "2.25.2"])
_NOTES = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map(tuple)
_ACTS = st.tuples(_STUDIES, st.none() | _NOTES, st.integers(1, 12), st.booleans(), st.floats(0, 1))


@given(st.lists(_ACTS, min_size=1, max_size=6))
@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_whatever_dies_when_the_next_attempt_makes_the_table_right(
    tmp_path_factory: pytest.TempPathFactory,
    acts: list[tuple[str, tuple[str, ...] | None, int, bool, float]],
) -> None:
    folder = tmp_path_factory.mktemp("table")
    expected: dict[str, Rows] = {}
    for study, notes, step, after, torn in acts:

        def act(study: str = study, notes: tuple[str, ...] | None = notes) -> None:
            if notes is None:
                remove(folder, study)
            else:
                put(folder, study, *notes)

        before = _size(folder)
        try:
            with killed_at(step, after=after):
                act()
        except Killed as killed:
            # Of what was appended, a power cut keeps as much as it likes.
            now = _size(folder)
            if killed.unsynced and now > before > 0 and (folder / study / UNSURE).exists():
                os.truncate(folder / "images.csv", before + round((now - before) * torn))
            _others_are_whole(folder, expected, study)
            act()
        expected[study] = [] if notes is None else rows(study, *notes)
        if (folder / "images.csv").exists():
            key = lambda row: (row["study_uid"], row["file"])  # noqa: E731
            wanted = [row for one in expected.values() for row in one]
            assert sorted(held(folder), key=key) == sorted(wanted, key=key)
        else:
            assert not any(expected.values())


def _size(folder: Path) -> int:
    path = folder / "images.csv"
    return path.stat().st_size if path.exists() else 0


def _others_are_whole(folder: Path, expected: dict[str, Rows], study: str) -> None:
    """Between death and next attempt, only the study at hand may be wrong."""
    for other, wanted in expected.items():
        if other != study and (folder / "images.csv").exists():
            assert [row for row in held(folder) if row["study_uid"] == other] == wanted


_WRITER = """
import sys
from pathlib import Path
from prichexy_worker.export.image_table import ImageTable
folder, writer = Path(sys.argv[1]), int(sys.argv[2])
for number in range(40):
    study = f"2.25.{writer}{number:02}"
    (folder / study).mkdir()
    row = {"study_uid": study, "file": "f", "note": "n" * 200}
    table = ImageTable(folder, ("study_uid", "file", "note"))
    with table.held() as held:
        held.put(study, [row] * 3)
    if number % 4 == 0:
        with table.held() as held:
            held.remove(study)
"""


def test_many_writers_at_once_lose_no_row_and_mix_none(tmp_path: Path) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(tmp_path), str(number)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for number in range(1, 4)
    ]
    assert [writer.wait(120) for writer in writers] == [0, 0, 0]
    found = held(tmp_path)
    kept = {
        f"2.25.{writer}{number:02}" for writer in range(1, 4) for number in range(40) if number % 4
    }
    assert {row["study_uid"] for row in found} == kept
    assert len(found) == 3 * len(kept)
    assert {row["note"] for row in found} == {"n" * 200}
