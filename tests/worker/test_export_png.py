"""A folder for researchers: PNG files that are the stored values, and a table that never lies."""

from __future__ import annotations

import csv
import fcntl
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prichexy_testing.dicoms import canary_values, phantom, radiograph_dataset, write
from prichexy_testing.fakes_worker import (
    EVERYTHING,
    FakeLedger,
    FakeSource,
    FakeTarget,
    IdleDeformer,
    instance_id,
    study_message,
)
from prichexy_testing.finders import Finds
from prichexy_testing.generators import Unjudged
from prichexy_worker.contract import ModelInfo, Reason, State
from prichexy_worker.destinations import Destinations
from prichexy_worker.errors import Rejected, Retryable
from prichexy_worker.export import PngFolderExport
from prichexy_worker.export.research_image import COLUMNS, is_picture_of, picture_of, row_of
from prichexy_worker.header import Profile
from prichexy_worker.header.options import Option
from prichexy_worker.pipeline import Tools, anonymize
from prichexy_worker.ports import Anonymized, Check, ExportTarget, unhindered
from prichexy_worker.pseudonyms import Pseudonyms
from prichexy_worker.sent import Sent
from prichexy_worker.study import Anonymizer, process_study


def instance(
    sop: str = "2.25.3",
    *,
    study: str = "2.25.1",
    series: str = "2.25.2",
    patient: str = "PX-A",
    **options: object,
) -> Anonymized:
    dataset = radiograph_dataset(identity={}, **{"rows": 8, "columns": 6, **options})  # type: ignore[arg-type]
    dataset.PatientID = patient
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = sop
    return Anonymized(patient, study, series, sop, write(dataset))


def released(target: ExportTarget, *kept: Anonymized) -> None:
    """Do what an export does."""
    for one in kept:
        target.store(one)
    assert list(target.differences(kept)) == [()] * len(kept)
    target.withdraw_others(kept, EVERYTHING)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png"))


def readers_see(folder: Path) -> list[str]:
    """Give the files that are in no hidden folder, as readers of the folder look for them."""
    return [file for file in files(folder) if not file.startswith(".")]


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "images.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def shown(folder: Path, row: dict[str, str]) -> np.ndarray:
    """Give the stored values as a researcher gets them: from the table and its files."""
    picture = cv2.imread(str(folder / row["file"]), cv2.IMREAD_UNCHANGED)
    assert picture.dtype == np.uint16
    return picture.astype(np.int32) + int(row["value_offset"])


# --- image and row --------------------------------------------------------------------------


@given(st.integers(8, 16), st.booleans(), st.sampled_from(["MONOCHROME1", "MONOCHROME2"]))
def test_a_png_is_the_stored_values_whatever_their_depth_and_sign(
    bits: int, signed: bool, photometric: str
) -> None:
    values = phantom(9, 7, bits_stored=bits, signed=signed)
    content = instance(
        values=values, bits_stored=bits, signed=signed, photometric=photometric
    ).content
    png = picture_of(content)
    picture = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    row = row_of(content, "f.png")
    assert picture.dtype == np.uint16
    np.testing.assert_array_equal(picture.astype(int) + int(row["value_offset"]), values)
    assert row["bits_stored"] == str(bits)
    assert row["photometric"] == photometric
    assert is_picture_of(png, content)


def test_another_picture_is_told_from_the_right_one() -> None:
    content = instance().content
    png = picture_of(content)
    picture = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    picture[3, 3] += 1
    altered = bytes(cv2.imencode(".png", picture)[1])
    eight = bytes(cv2.imencode(".png", (picture // 256).astype(np.uint8))[1])
    for wrong in (altered, eight, b"", b"no PNG", png[:100]):
        assert not is_picture_of(wrong, content)


def test_a_row_tells_what_the_object_tells() -> None:
    content = instance(
        window=(2048, 4096),
        rescale=(1, -1024),
        spacing=None,
        PixelSpacing=[0.143, 0.15],
        ViewPosition="PA",
        PatientSex="F",
        PatientAge="045Y",
        ImageLaterality="U",
        StudyDate="20010203",
    ).content
    row = row_of(content, "a/b.png")
    assert tuple(row) == COLUMNS
    assert {name: value for name, value in row.items() if value} == {
        "study_uid": "2.25.1",
        "series_uid": "2.25.2",
        "sop_uid": "2.25.3",
        "patient_id": "PX-A",
        "file": "a/b.png",
        "modality": "CR",
        "view": "PA",
        "laterality": "U",
        "sex": "F",
        "age": "045Y",
        "study_date": "20010203",
        "rows": "8",
        "columns": "6",
        "bits_stored": "12",
        "photometric": "MONOCHROME2",
        "value_offset": "0",
        "row_spacing_mm": "0.143",
        "column_spacing_mm": "0.15",
        "spacing_from": "PixelSpacing",
        "window_center": "2048",
        "window_width": "4096",
        "rescale_slope": "1",
        "rescale_intercept": "-1024",
    }


def test_what_the_object_does_not_tell_is_empty() -> None:
    content = instance(
        spacing=None, ViewPosition=None, Modality=None, PatientSex=None, PatientAge=None
    ).content
    row = row_of(content, "f")
    for name in (
        "row_spacing_mm",
        "spacing_from",
        "view",
        "sex",
        "age",
        "modality",
        "model_digest",
    ):
        assert row[name] == ""


@pytest.mark.parametrize(
    ("attributes", "wanted"),
    [
        ({"NominalScannedPixelSpacing": [0.3, 0.4]}, ("NominalScannedPixelSpacing", "0.3", "0.4")),
        (
            {"NominalScannedPixelSpacing": [0.3, 0.3], "ImagerPixelSpacing": [0.1, 0.2]},
            ("ImagerPixelSpacing", "0.1", "0.2"),
        ),
        (
            {"ImagerPixelSpacing": [0.1, 0.2], "PixelSpacing": [0.09, 0.08]},
            ("PixelSpacing", "0.09", "0.08"),
        ),
    ],
)
def test_the_best_spacing_that_there_is_is_told_with_its_kind(
    attributes: dict[str, object], wanted: tuple[str, str, str]
) -> None:
    row = row_of(instance(spacing=None, **attributes).content, "f")
    assert (row["spacing_from"], row["row_spacing_mm"], row["column_spacing_mm"]) == wanted


def test_of_several_windows_the_first_is_told() -> None:
    row = row_of(instance(WindowCenter=[100, 200], WindowWidth=[300, 400]).content, "f")
    assert (row["window_center"], row["window_width"]) == ("100", "300")


# --- the folder -----------------------------------------------------------------------------


def test_a_study_gets_into_the_table_when_it_is_released_and_not_before(tmp_path: Path) -> None:
    target = PngFolderExport(tmp_path)
    kept = [instance(), instance("2.25.4", series="2.25.20")]
    for one in kept:
        target.store(one)
    assert not (tmp_path / "images.csv").exists()
    assert readers_see(tmp_path) == []
    target.withdraw_others(kept, EVERYTHING)
    assert [row["file"] for row in table(tmp_path)] == files(tmp_path) == [
        "2.25.1/2.25.2/2.25.3.png",
        "2.25.1/2.25.20/2.25.4.png",
    ]  # fmt: skip
    for row, one in zip(table(tmp_path), kept, strict=True):
        values = pydicom.dcmread(io.BytesIO(one.content)).pixel_array
        np.testing.assert_array_equal(shown(tmp_path, row), values)


def shows(folder: Path, one: Anonymized) -> bool:
    """Say whether the one row of its name, and the PNG that it names, are of this image."""
    (row,) = (row for row in table(folder) if row["sop_uid"] == one.sop_uid)
    png = (folder / row["file"]).read_bytes()
    return row == row_of(one.content, row["file"]) and is_picture_of(png, one.content)


def two_makings() -> tuple[Anonymized, Anonymized]:
    """Give one image as two models made it: other pixels, and another row."""
    values = phantom(8, 6)
    return instance(values=values), instance(values=values[::-1].copy(), ViewPosition="LL")


def test_a_new_making_is_seen_when_every_target_holds_it_and_not_before(tmp_path: Path) -> None:
    target, (old, new) = PngFolderExport(tmp_path), two_makings()
    released(target, old)
    target.store(new)
    assert list(target.differences([new])) == [()]
    assert shows(tmp_path, old)  # another target fails now, or the worker is killed
    target.withdraw_others([new], EVERYTHING)
    assert shows(tmp_path, new)
    assert files(tmp_path) == ["2.25.1/2.25.2/2.25.3.png"]


def test_what_is_killed_between_file_and_row_is_mended_by_the_next_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def killed(self: Path, to: Path) -> Path:
        if to.name == "images.csv":
            raise Killed
        return replaced(self, to)

    replaced = Path.replace
    target, (old, new) = PngFolderExport(tmp_path), two_makings()
    released(target, old)
    target.store(new)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Path, "replace", killed)
        target.withdraw_others([new], EVERYTHING)
    assert (tmp_path / "2.25.1" / ".images.csv.unsure").exists()
    released(target, new)
    assert shows(tmp_path, new)
    assert not (tmp_path / "2.25.1" / ".images.csv.unsure").exists()


def test_a_png_that_another_worker_replaced_meanwhile_gets_no_row(tmp_path: Path) -> None:
    target, (ours, theirs) = PngFolderExport(tmp_path), two_makings()
    target.store(ours)
    released(target, theirs)
    for brought, word in ((True, "pixels"), (False, "missing")):
        if not brought:
            target.withdraw_study("2.25.1", EVERYTHING)
        with pytest.raises(Retryable, match=word) as caught:
            target.withdraw_others([ours], EVERYTHING)
        assert caught.value.reason is Reason.READ_BACK_DIFFERS
        assert shows(tmp_path, theirs) if brought else table(tmp_path) == []


def test_what_a_killed_attempt_left_hidden_is_gone_with_the_next_and_never_seen(
    tmp_path: Path,
) -> None:
    target, kept, lost = PngFolderExport(tmp_path), instance(), instance("2.25.4")
    target.store(lost)
    released(target, kept)
    assert files(tmp_path) == ["2.25.1/2.25.2/2.25.3.png"]
    target.store(lost)
    target.withdraw_study("2.25.1", EVERYTHING)
    assert files(tmp_path) == []
    target.store(lost)
    target.withdraw(lost)
    assert files(tmp_path) == []


def locked(folder: Path) -> bool:
    """Say whether a writer has the table."""
    with (folder / ".images.csv.lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


Act = Callable[[PngFolderExport, Check], object]
ACTS: dict[str, Act] = {
    "release": lambda target, check: target.withdraw_others(
        [instance()], Sent().with_these([instance(), instance("2.25.4")]), check
    ),
    "withdrawal": lambda target, check: target.withdraw_study(
        "2.25.1", Sent().with_these([instance(), instance("2.25.4")]), check
    ),
}


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
def test_a_writer_asks_whether_it_may_when_it_has_the_table_and_before_it_alters_anything(
    tmp_path: Path, act: Act
) -> None:
    class Lost(Exception):
        pass

    def claim_is_lost() -> None:
        asked.append(locked(tmp_path))
        raise Lost

    asked: list[bool] = []
    target = PngFolderExport(tmp_path)
    released(target, instance(), instance("2.25.4"))
    target.store(instance())
    before = table(tmp_path), files(tmp_path)
    with pytest.raises(Lost):
        act(target, claim_is_lost)
    assert asked == [True]
    assert (table(tmp_path), files(tmp_path)) == before
    assert not locked(tmp_path)


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
def test_what_another_writer_put_in_while_the_table_was_waited_for_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: Act
) -> None:
    target, theirs = PngFolderExport(tmp_path), instance("2.25.5", patient="PX-B")
    released(target, instance())
    target.store(instance())
    flock = fcntl.flock

    def waits(*arguments: object) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        released(PngFolderExport(tmp_path), theirs)
        flock(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(fcntl, "flock", waits)
    act(target, unhindered)
    assert shows(tmp_path, theirs)


def test_a_png_that_changed_on_the_disk_is_noticed(tmp_path: Path) -> None:
    target, one = PngFolderExport(tmp_path), instance()
    assert list(target.differences([one])) == [("missing",)]
    target.store(one)
    (path,) = tmp_path.rglob("*.png")
    path.write_bytes(path.read_bytes()[:-20])
    assert list(target.differences([one])) == [("pixels",)]


def test_withdrawing_a_study_takes_its_rows_and_files_and_no_other(tmp_path: Path) -> None:
    target = PngFolderExport(tmp_path)
    other = instance(study="2.25.10")
    released(target, instance(), instance("2.25.4"))
    released(target, other)
    for _ in range(2):
        target.withdraw_study("2.25.1", EVERYTHING)
        assert files(tmp_path) == ["2.25.10/2.25.2/2.25.3.png"]
        assert [row["study_uid"] for row in table(tmp_path)] == ["2.25.10"]
    assert not (tmp_path / "2.25.1").exists()


def test_what_a_killed_writer_of_the_rows_left_goes_with_the_study(tmp_path: Path) -> None:
    target = PngFolderExport(tmp_path)
    released(target, instance())
    for begun in ("..images.csv.unsure.0a.part", ".images.csv.0a.part"):
        (tmp_path / "2.25.1" / begun).write_text("study_uid")
    assert target.withdraw_study("2.25.1", EVERYTHING)
    assert not (tmp_path / "2.25.1").exists()


def test_an_image_under_a_corrected_patient_id_takes_the_row_and_keeps_it(tmp_path: Path) -> None:
    target, wrong, right = PngFolderExport(tmp_path), instance(), instance(patient="PX-B")
    another = instance("2.25.4")
    released(target, wrong, another)
    target.store(right)
    assert [row["patient_id"] for row in table(tmp_path)] == ["PX-A", "PX-A"]
    assert shows(tmp_path, wrong)
    target.withdraw_others([right], Sent().with_these([right]))
    assert [row["patient_id"] for row in table(tmp_path)] == ["PX-B", "PX-A"]
    for _ in range(2):
        assert target.withdraw_study("2.25.1", Sent().with_these([wrong, another]))
        assert [row["patient_id"] for row in table(tmp_path)] == ["PX-B"]
        assert files(tmp_path) == ["2.25.1/2.25.2/2.25.3.png"]
    assert target.withdraw_study("2.25.1", Sent().with_these([right]))
    assert (table(tmp_path), files(tmp_path)) == ([], [])


def test_a_row_leaves_before_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = PngFolderExport(tmp_path)
    released(target, instance())

    def fails(self: Path, _target: Path) -> Path:
        if self.name == "2.25.1":
            raise PermissionError
        return replaced(self, _target)

    replaced = Path.rename
    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(Retryable):
        target.withdraw_study("2.25.1", EVERYTHING)
    assert table(tmp_path) == []
    assert len(files(tmp_path)) == 1


def test_an_image_that_the_study_lost_leaves_the_table_and_the_folder(tmp_path: Path) -> None:
    target = PngFolderExport(tmp_path)
    released(target, instance(), instance("2.25.4"), instance("2.25.5", series="2.25.20"))
    (tmp_path / "2.25.1" / "2.25.2" / "notes.png").write_bytes(b"a researcher's")
    released(target, instance("2.25.4"))
    assert [row["sop_uid"] for row in table(tmp_path)] == ["2.25.4"]
    assert files(tmp_path) == ["2.25.1/2.25.2/2.25.4.png", "2.25.1/2.25.2/notes.png"]


def test_two_patients_with_studies_of_one_uid_keep_theirs(tmp_path: Path) -> None:
    target = PngFolderExport(tmp_path)
    released(target, instance())
    released(target, instance("2.25.4", patient="PX-B"))
    released(target, instance("2.25.5"))
    assert {row["sop_uid"]: row["patient_id"] for row in table(tmp_path)} == {
        "2.25.4": "PX-B",
        "2.25.5": "PX-A",
    }


def test_withdrawing_one_instance_leaves_the_earlier_ones_in_the_table(tmp_path: Path) -> None:
    target = PngFolderExport(tmp_path)
    released(target, instance())
    target.store(instance("2.25.4"))
    target.withdraw(instance("2.25.4"))
    assert not target.holds(instance("2.25.4"))
    assert target.holds(instance())
    assert [row["sop_uid"] for row in table(tmp_path)] == ["2.25.3"]


def test_an_image_that_is_taken_back_after_its_release_leaves_no_row(tmp_path: Path) -> None:
    """Another target failed when this one had let the study be seen."""
    target, added = PngFolderExport(tmp_path), instance("2.25.4")
    released(target, instance())
    released(target, instance(), added)
    target.withdraw(replace(added, patient_id="PX-B"))  # another's of that name is not named
    assert shows(tmp_path, added)
    for _ in range(2):
        target.withdraw(added)
        assert [row["file"] for row in table(tmp_path)] == files(tmp_path)
        assert files(tmp_path) == ["2.25.1/2.25.2/2.25.3.png"]


def test_a_share_that_is_not_mounted_is_not_written_beneath(tmp_path: Path) -> None:
    missing = tmp_path / "mount"
    target = PngFolderExport(missing)
    acts = (
        target.check,
        lambda: target.store(instance()),
        lambda: target.withdraw_study("2.25.1", EVERYTHING),
        lambda: target.withdraw_others([instance()], EVERYTHING),
    )
    for act in acts:
        with pytest.raises(Retryable) as caught:
            act()
        assert caught.value.reason is Reason.TARGET_UNREACHABLE
    assert not missing.exists()


def test_the_check_leaves_no_trace_and_refuses_a_table_of_others(tmp_path: Path) -> None:
    PngFolderExport(tmp_path).check()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "images.csv").write_text("file,label\n")
    with pytest.raises(Retryable, match="other columns"):
        PngFolderExport(tmp_path).check()


def test_nothing_but_a_uid_becomes_a_name(tmp_path: Path) -> None:
    target = PngFolderExport(tmp_path)
    for where in ("study_uid", "series_uid", "sop_uid"):
        with pytest.raises(Retryable):
            target.store(replace(instance(), **{where: "../x"}))
    assert list(tmp_path.iterdir()) == []


# --- with the worker ------------------------------------------------------------------------


def test_a_study_that_another_target_refuses_never_gets_into_the_table(tmp_path: Path) -> None:
    def run(other: FakeTarget, revision: int = 1, how: Anonymizer | None = None) -> State | None:
        return process_study(
            study_message(revision),
            FakeSource({instance_id(1): b"1", instance_id(2): b"2"}),
            Destinations({"png": target, "other": other}, frozenset({"png", "other"})),
            FakeLedger(),
            Tools(engine=IdleDeformer(), pseudonyms=Pseudonyms(bytes(32)), text_finder=Finds()),
            anonymize=how or (lambda content, _: instance(f"2.25.{content.decode()}")),
        ).state

    def unsafe(content: bytes, tools: Tools) -> Anonymized:
        if content == b"2":
            raise Rejected(Reason.BURNED_IN_TEXT)
        return instance("2.25.1")

    target = PngFolderExport(tmp_path)
    assert run(FakeTarget(refuse_after=1)) is State.QUEUED
    assert not (tmp_path / "images.csv").exists()
    assert files(tmp_path) == []
    assert run(FakeTarget()) is State.EXPORTED
    assert len(table(tmp_path)) == 2
    assert run(FakeTarget(), revision=2, how=unsafe) is State.QUARANTINED
    assert table(tmp_path) == []
    assert files(tmp_path) == []


class Shift(Unjudged):
    """A generator that moves everything a little, rightwards and down."""

    model = ModelInfo("shift", "1", "ab" * 32, "untrained", "Moves everything.")
    input_size = 64

    def displacement(self, view: np.ndarray) -> np.ndarray:
        return np.full((2, *view.shape), 0.05, np.float32)


@pytest.mark.parametrize("kept", [True, False])
def test_the_table_of_a_worker_tells_what_the_profile_keeps_and_no_identity(
    tmp_path: Path, kept: bool
) -> None:
    options = [Option.PATIENT_CHARACTERISTICS] if kept else []
    tools = Tools(
        Shift(),
        Pseudonyms(bytes(range(32))),
        Finds(),
        profile=Profile.made_of("of this test", options),
    )
    original = radiograph_dataset(
        nested=True, private=True, PatientSex="F", PatientAge="045Y", ViewPosition="PA"
    )
    released(PngFolderExport(tmp_path), anonymize(write(original), tools))
    (row,) = table(tmp_path)
    assert (row["sex"], row["age"]) == (("F", "045Y") if kept else ("", ""))
    assert row["view"] == "PA"
    assert row["model_digest"] == "ab" * 32
    assert row["patient_id"].startswith("PX-")
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    for value in canary_values():
        assert value.encode() not in written
