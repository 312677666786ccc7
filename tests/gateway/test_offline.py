"""Anonymising files with no server: whole or not at all, and nothing that identifies is told."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from prichexy_gateway.dicom_files import find_dicom_files
from prichexy_gateway.errors import Failed
from prichexy_gateway.offline import (
    FileStudy,
    Places,
    StudyResult,
    anonymize_study,
    exit_code,
    group_studies,
)
from prichexy_testing.dicoms import canary_values, radiograph_dataset, write
from prichexy_testing.finders import Finds
from prichexy_testing.generators import Unjudged
from prichexy_worker.contract import ModelInfo, Reason, State
from prichexy_worker.header import Profile
from prichexy_worker.header.options import Option
from prichexy_worker.pipeline import Tools
from prichexy_worker.pseudonyms import Pseudonyms
from prichexy_worker.text import TextRegion

PSEUDONYMS = Pseudonyms(bytes(range(32)))


class FakeEngine(Unjudged):
    """Moves everything a little to the right."""

    model = ModelInfo("fake", "0", "a" * 64, "untrained", "a fake")
    input_size = 256

    def displacement(self, view: NDArray[np.float32]) -> NDArray[np.float32]:
        field = np.zeros((2, *view.shape), np.float32)
        field[0] = 0.01
        return field


class BrokenEngine(FakeEngine):
    def displacement(self, view: NDArray[np.float32]) -> NDArray[np.float32]:
        raise RuntimeError("CANARYFAMILY")


TOOLS = Tools(engine=FakeEngine(), pseudonyms=PSEUDONYMS, text_finder=Finds())


@pytest.fixture
def places(tmp_path: Path) -> Places:
    found = Places(tmp_path / "out", tmp_path / "out-quarantine")
    found.prepare()
    return found


def put(folder: Path, name: str, uid: str = "", **attributes: object) -> Path:
    """Write a radiograph; ``uid`` tells its instance from others of the study."""
    folder.mkdir(exist_ok=True)
    if uid:
        attributes["SOPInstanceUID"] = uid
    dataset = radiograph_dataset(**attributes)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    path = folder / name
    path.write_bytes(write(dataset))
    return path


def studies_in(folder: Path) -> list[FileStudy]:
    return group_studies(find_dicom_files(folder).files, PSEUDONYMS)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_study_of_two_instances_is_exported_whole(tmp_path: Path, places: Places) -> None:
    put(tmp_path / "in", "a", "1.2.3.4")
    put(tmp_path / "in", "b", "1.2.3.5")
    (study,) = studies_in(tmp_path / "in")

    result = anonymize_study(study, places, TOOLS)

    assert (result.state, result.reason, result.files) == (State.EXPORTED, None, 2)
    (folder,) = result.exported_as
    assert len(contents(places.destination / folder)) == 2
    assert not places.quarantine.exists()
    assert result.durations["deform"] >= 0
    assert result.measures["max_displacement_px"] > 0


def test_one_unsafe_instance_keeps_the_whole_study_back(tmp_path: Path, places: Places) -> None:
    put(tmp_path / "in", "a", "1.2.3.4")
    put(tmp_path / "in", "b", "1.2.3.5", BurnedInAnnotation="YES")
    (study,) = studies_in(tmp_path / "in")

    result = anonymize_study(study, places, TOOLS)

    assert (result.state, result.reason) == (State.QUARANTINED, Reason.BURNED_IN_TEXT)
    places.clean_up()
    assert contents(places.destination) == {}
    kept = contents(places.quarantine / study.name)
    assert kept["0001.dcm"] == (tmp_path / "in" / "a").read_bytes()
    assert kept["0002.dcm"] == (tmp_path / "in" / "b").read_bytes()
    assert json.loads(kept["reason.json"])["reason"] == "burned_in_text"


def test_the_quarantine_is_for_its_owner_alone(tmp_path: Path, places: Places) -> None:
    put(tmp_path / "in", "a", BurnedInAnnotation="YES")
    anonymize_study(studies_in(tmp_path / "in")[0], places, TOOLS)
    for path in (places.quarantine, *places.quarantine.rglob("*")):
        expected = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == expected


class AlwaysFinds:
    """Finds the same text however often it was erased."""

    def find(self, view: NDArray[np.float32]) -> tuple[TextRegion, ...]:
        return (TextRegion(10, 10, 40, 16, 0.9, marker=False),)


def test_text_that_is_doubted_is_shown_beside_the_originals_and_nowhere_else(
    tmp_path: Path, places: Places, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path / "in", "a", window=(2048, 4096))  # one view shows all of it
    (study,) = studies_in(tmp_path / "in")
    tools = replace(TOOLS, text_finder=AlwaysFinds())

    result = anonymize_study(study, places, tools)

    assert (result.state, result.reason) == (State.QUARANTINED, Reason.BURNED_IN_TEXT)
    places.clean_up()
    assert contents(places.destination) == {}
    kept = contents(places.quarantine / study.name)
    assert set(kept) == {"0001.dcm", "text-1.png", "reason.json"}
    assert kept["text-1.png"].startswith(b"\x89PNG")
    picture = places.quarantine / study.name / "text-1.png"
    assert stat.S_IMODE(picture.stat().st_mode) == 0o600
    assert "PNG" not in json.dumps(result.to_json()) + repr(result) + caplog.text


def test_a_picture_of_an_earlier_run_does_not_stay(tmp_path: Path, places: Places) -> None:
    put(tmp_path / "in", "a", BurnedInAnnotation="YES")
    (study,) = studies_in(tmp_path / "in")
    anonymize_study(study, places, replace(TOOLS, text_finder=AlwaysFinds()))
    anonymize_study(study, places, TOOLS)
    assert set(contents(places.quarantine / study.name)) == {"0001.dcm", "reason.json"}


def test_a_second_run_gives_identical_bytes(tmp_path: Path, places: Places) -> None:
    put(tmp_path / "in", "a")
    (study,) = studies_in(tmp_path / "in")
    first_result = anonymize_study(study, places, TOOLS)
    first = contents(places.destination)
    second_result = anonymize_study(study, places, TOOLS)
    assert contents(places.destination) == first
    assert len(first) == 1
    assert second_result.exported_as == first_result.exported_as


def test_a_study_that_is_no_longer_safe_leaves_no_earlier_export(
    tmp_path: Path, places: Places
) -> None:
    put(tmp_path / "in", "a")
    put(tmp_path / "in", "other", "1.2.3.7", StudyInstanceUID="1.2.9")
    for study in studies_in(tmp_path / "in"):
        assert anonymize_study(study, places, TOOLS).state is State.EXPORTED
    put(tmp_path / "in", "a", BurnedInAnnotation="YES")

    for study in studies_in(tmp_path / "in"):
        anonymize_study(study, places, TOOLS)

    places.clean_up()
    assert [folder.name for folder in places.destination.iterdir()] == [PSEUDONYMS.uid("1.2.9")]
    assert len(list(places.quarantine.iterdir())) == 1


def test_a_withdrawal_leaves_the_files_of_others_in_a_folder_of_a_uid_that_is_kept(
    tmp_path: Path, places: Places
) -> None:
    put(tmp_path / "in", "a")
    tools = replace(TOOLS, profile=Profile.made_of("keeps UIDs", [Option.UIDS]))
    (study,) = studies_in(tmp_path / "in")
    result = anonymize_study(study, places, tools)
    assert result.exported_as == (study.files[0].study_uid,)
    own = places.destination / study.files[0].study_uid
    (series,) = own.iterdir()
    put(series, "theirs.dcm", "1.2.3.9")
    (series / "link.dcm").symlink_to("nowhere")
    (own / "notes.txt").write_text("mine")
    put(tmp_path / "in", "a", BurnedInAnnotation="YES")

    result = anonymize_study(studies_in(tmp_path / "in")[0], places, tools)

    assert result.state is State.QUARANTINED
    left = {path.name for path in own.rglob("*") if path.is_symlink() or path.is_file()}
    assert left == {"theirs.dcm", "link.dcm", "notes.txt"}


def test_an_earlier_export_that_cannot_be_read_ends_the_run_and_stays(
    tmp_path: Path, places: Places
) -> None:
    put(tmp_path / "in", "a")
    (name,) = anonymize_study(studies_in(tmp_path / "in")[0], places, TOOLS).exported_as
    (series,) = (places.destination / name).iterdir()
    (series / "2.25.9.dcm").symlink_to("2.25.9.dcm")  # a loop: ELOOP, whoever reads
    put(tmp_path / "in", "a", BurnedInAnnotation="YES")
    with pytest.raises(Failed, match="cannot be read"):
        anonymize_study(studies_in(tmp_path / "in")[0], places, TOOLS)
    assert len(list(series.iterdir())) == 2


def test_a_study_that_is_safe_now_leaves_no_original_in_quarantine(
    tmp_path: Path, places: Places
) -> None:
    put(tmp_path / "in", "a", BurnedInAnnotation="YES")
    put(tmp_path / "in", "other", "1.2.3.7", StudyInstanceUID="1.2.9", BurnedInAnnotation="YES")
    for study in studies_in(tmp_path / "in"):
        assert anonymize_study(study, places, TOOLS).state is State.QUARANTINED
    put(tmp_path / "in", "a", BurnedInAnnotation="NO")

    exported, kept = (
        anonymize_study(study, places, TOOLS) for study in studies_in(tmp_path / "in")
    )

    assert (exported.state, kept.state) == (State.EXPORTED, State.QUARANTINED)
    assert [folder.name for folder in places.quarantine.iterdir()] == [kept.study]


def test_a_second_run_to_the_same_destination_is_refused_and_harms_nothing(
    tmp_path: Path,
) -> None:
    places = Places(tmp_path / "out", tmp_path / "out-quarantine")
    with places.held():
        half = places.staging / "half"
        half.touch()
        with pytest.raises(Failed, match="Another run writes to DEST"), places.held():
            pytest.fail("two runs at once")
        assert half.exists()
    assert list(places.destination.iterdir()) == []
    with places.held():  # the next one may
        assert places.staging.is_dir()


def test_a_file_that_became_unreadable_fails_its_study_alone(
    tmp_path: Path, places: Places
) -> None:
    put(tmp_path / "in", "a", "1.2.3.4")
    put(tmp_path / "in", "b", "1.2.3.5")
    (study,) = studies_in(tmp_path / "in")
    (tmp_path / "in" / "b").unlink()
    result = anonymize_study(study, places, TOOLS)
    assert result.state is State.FAILED
    kept = contents(places.quarantine / study.name)
    assert json.loads(kept["reason.json"])["not_copied_because_unreadable"] == 1
    assert set(kept) == {"0001.dcm", "reason.json"}


def test_two_parts_of_one_study_end_in_one_folder(tmp_path: Path, places: Places) -> None:
    put(tmp_path / "one", "a", "1.2.3.4")
    put(tmp_path / "two", "b", "1.2.3.5")
    one = anonymize_study(studies_in(tmp_path / "one")[0], places, TOOLS)
    two = anonymize_study(studies_in(tmp_path / "two")[0], places, TOOLS)
    assert one.exported_as == two.exported_as
    assert len(contents(places.destination)) == 2


def test_an_unexpected_error_keeps_the_study_back_and_tells_no_value(
    tmp_path: Path, places: Places, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path / "in", "a")
    (study,) = studies_in(tmp_path / "in")
    result = anonymize_study(study, places, replace(TOOLS, engine=BrokenEngine()))
    assert (result.state, result.reason) == (State.FAILED, Reason.UNEXPECTED)
    places.clean_up()
    assert contents(places.destination) == {}
    assert (places.quarantine / study.name / "0001.dcm").exists()
    assert "CANARYFAMILY" not in caplog.text


def test_nothing_that_identifies_is_in_names_results_or_reasons(
    tmp_path: Path, places: Places
) -> None:
    put(tmp_path / "in", "CANARYFAMILY^CANARYGIVEN.dcm")
    put(tmp_path / "in", "CANARY-PATIENT-4711", StudyInstanceUID="1.2.9", BurnedInAnnotation="YES")
    results = [anonymize_study(study, places, TOOLS) for study in studies_in(tmp_path / "in")]
    places.clean_up()
    told = json.dumps([result.to_json() for result in results]) + repr(results)
    told += " ".join(contents(places.destination)) + " ".join(contents(places.quarantine))
    told += "".join(path.read_text() for path in places.quarantine.rglob("reason.json"))
    assert {result.state for result in results} == {State.EXPORTED, State.QUARANTINED}
    assert [value for value in canary_values() if value in told] == []


def test_files_without_a_study_stand_alone(tmp_path: Path, places: Places) -> None:
    put(tmp_path / "in", "a", "1.2.3.4", StudyInstanceUID=None)
    put(tmp_path / "in", "b", "1.2.3.5", StudyInstanceUID=None)
    studies = studies_in(tmp_path / "in")
    assert len({study.name for study in studies}) == 2
    results = [anonymize_study(study, places, TOOLS) for study in studies]
    assert {result.reason for result in results} == {Reason.INCOMPLETE_HEADER}


def test_a_damaged_file_is_quarantined_as_unreadable(tmp_path: Path, places: Places) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "damaged").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 64)
    result = anonymize_study(studies_in(tmp_path / "in")[0], places, TOOLS)
    assert result.state is State.QUARANTINED


def test_what_a_killed_run_left_half_done_is_cleared_and_never_seen(
    tmp_path: Path, places: Places
) -> None:
    half = places.staging / "study" / "2.25.1"
    half.mkdir(parents=True)
    (half / "1.dcm").touch()
    places.prepare()
    assert list(places.staging.iterdir()) == []
    places.clean_up()
    assert list(places.destination.iterdir()) == []


@pytest.mark.parametrize(
    ("states", "code"),
    [
        ([State.EXPORTED, State.EXPORTED], 0),
        ([State.EXPORTED, State.QUARANTINED], 3),
        ([State.QUARANTINED, State.FAILED], 1),
    ],
)
def test_the_exit_code_tells_the_worst(states: list[State], code: int) -> None:
    assert exit_code([StudyResult("a" * 32, state, 1) for state in states]) == code


def test_files_that_could_not_be_read_are_an_error() -> None:
    assert exit_code([StudyResult("a" * 32, State.EXPORTED, 1)], unreadable=1) == 1


def test_a_figure_in_the_report_has_no_digits_to_take_for_a_date() -> None:
    share = 1537 / 1540
    assert "19480519" in str(share)
    result = StudyResult("study", State.EXPORTED, 1, measures={"changed_share": share})
    assert "19480519" not in json.dumps(result.to_json())
    assert result.to_json()["measures"] == {"changed_share": 0.998052}
