"""A folder as export target: whole files, under the new names, and nothing left behind."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prichexy_testing.dicoms import radiograph_dataset, write
from prichexy_testing.fakes_worker import EVERYTHING, anonymized
from prichexy_worker.contract import Reason
from prichexy_worker.errors import Retryable
from prichexy_worker.export import FolderExport, create_target
from prichexy_worker.export.study_folders import replacing, write_whole
from prichexy_worker.ports import Anonymized, ExportTarget
from prichexy_worker.sent import Sent, older_mark_of
from prichexy_worker.target_settings import Folder


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def export(target: ExportTarget, *instances: Anonymized) -> None:
    """Bring the instances, each as if it were its study's only one."""
    for instance in instances:
        target.store(instance)
        target.withdraw_others([instance], Sent().with_these([instance]))


def test_an_instance_is_a_file_under_its_new_uids(tmp_path: Path) -> None:
    target: ExportTarget = FolderExport(tmp_path)
    export(target, anonymized(b"content"))
    assert files(tmp_path) == ["2.25.1/2.25.2/2.25.3.dcm"]
    assert target.fetch(anonymized()) == b"content"


def test_storing_again_replaces_the_content(tmp_path: Path) -> None:
    target = FolderExport(tmp_path)
    export(target, anonymized(b"first, longer"))
    export(target, anonymized(b"second"))
    assert target.fetch(anonymized()) == b"second"
    assert len(files(tmp_path)) == 1


def readers_see(folder: Path) -> list[str]:
    """Give the files that are in no hidden folder, as readers of the folder look for them."""
    return [file for file in files(folder) if not file.startswith(".")]


def test_a_study_is_seen_whole_and_in_one_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, study = FolderExport(tmp_path), [_written(f"2.25.{n}") for n in (3, 4)]
    study.append(replace(_written("2.25.5"), series_uid="2.25.20"))
    for instance in study:
        target.store(instance)
        assert readers_see(tmp_path) == []
    assert list(target.differences(study)) == [(), (), ()]
    steps: list[tuple[Path, Path]] = []
    for name in ("rename", "replace"):
        step = getattr(Path, name)

        def noted(path: Path, to: Path, step: Callable[..., Path] = step) -> Path:
            steps.append((path, to))
            return step(path, to)

        monkeypatch.setattr(Path, name, noted)
    target.withdraw_others(study, Sent().with_these(study))
    assert [to for _path, to in steps] == [tmp_path / "2.25.1"]
    assert len(readers_see(tmp_path)) == len(files(tmp_path)) == len(study)
    assert list(target.differences(study)) == [(), (), ()]


def test_an_attempt_that_ends_early_alters_nothing_of_the_earlier_export(tmp_path: Path) -> None:
    target, earlier, added = FolderExport(tmp_path), _written("2.25.3"), _written("2.25.4")
    export(target, earlier)
    changed = _written("2.25.3", PatientSex="O")
    for instance in (changed, added):
        target.store(instance)
    assert not target.holds(added)
    assert target.fetch(earlier) == earlier.content
    assert len(readers_see(tmp_path)) == 1
    sent = Sent().with_these([earlier, added])
    target.withdraw_others([changed, added], sent)
    assert target.fetch(earlier) == changed.content
    assert files(tmp_path) == ["2.25.1/2.25.2/2.25.3.dcm", "2.25.1/2.25.2/2.25.4.dcm"]


def test_what_a_killed_attempt_left_hidden_is_never_seen(tmp_path: Path) -> None:
    target, kept, lost = FolderExport(tmp_path), _written("2.25.3"), _written("2.25.4")
    target.store(lost)  # by a worker that was killed; the study loses this image
    target.store(kept)
    target.withdraw_others([kept], Sent().with_these([kept, lost]))
    assert files(tmp_path) == ["2.25.1/2.25.2/2.25.3.dcm"]
    target.store(lost)
    assert target.withdraw_study("2.25.1", Sent().with_these([kept, lost]))
    assert list(tmp_path.iterdir()) == []
    target.store(lost)
    target.withdraw(lost)
    assert list(tmp_path.iterdir()) == []


def test_what_another_gateway_is_about_to_bring_of_the_study_stays_hidden(tmp_path: Path) -> None:
    target, ours, theirs = FolderExport(tmp_path), _written("2.25.3"), _written("2.25.4")
    target.store(theirs)
    target.store(ours)
    target.withdraw_others([ours], Sent().with_these([ours]))
    assert readers_see(tmp_path) == ["2.25.1/2.25.2/2.25.3.dcm"]
    assert not target.withdraw_study("2.25.1", Sent().with_these([ours]))
    target.withdraw_others([theirs], Sent().with_these([theirs]))
    assert files(tmp_path) == ["2.25.1/2.25.2/2.25.4.dcm"]


def test_what_vanished_before_it_was_to_be_seen_is_no_export(tmp_path: Path) -> None:
    target, kept = FolderExport(tmp_path), [_written(f"2.25.{n}") for n in (3, 4)]
    target.store(kept[0])
    with pytest.raises(Retryable) as caught:
        target.withdraw_others(kept, Sent().with_these(kept))
    assert caught.value.reason is Reason.READ_BACK_DIFFERS
    assert readers_see(tmp_path) == []


def test_what_is_not_there_reads_as_nothing(tmp_path: Path) -> None:
    assert FolderExport(tmp_path).fetch(anonymized()) is None


def test_withdrawing_leaves_no_trace_and_may_be_repeated(tmp_path: Path) -> None:
    target = FolderExport(tmp_path)
    export(target, anonymized())
    for _ in range(2):
        target.withdraw(anonymized())
        assert list(tmp_path.iterdir()) == []


def test_withdrawing_leaves_the_other_instances_of_the_study(tmp_path: Path) -> None:
    target = FolderExport(tmp_path)
    export(target, anonymized(b"kept", "2.25.4"))
    export(target, anonymized())
    target.withdraw(anonymized())
    assert files(tmp_path) == ["2.25.1/2.25.2/2.25.4.dcm"]


def test_withdrawing_a_study_takes_all_of_it_and_no_other(tmp_path: Path) -> None:
    target = FolderExport(tmp_path)
    export(target, anonymized(b"kept", study_uid="2.25.10"))
    for sop in ("2.25.3", "2.25.4"):
        export(target, anonymized(sop_uid=sop))
    (tmp_path / "2.25.1" / "2.25.2" / ".2.25.5.dcm.part").write_bytes(b"of a killed worker")
    for _ in range(2):
        target.withdraw_study("2.25.1", EVERYTHING)
        assert files(tmp_path) == ["2.25.10/2.25.2/2.25.3.dcm"]


def _written(sop_uid: str, **attributes: object) -> Anonymized:
    """Give an image as the pipeline gives it, to be read by its header."""
    dataset = radiograph_dataset(
        identity={}, rows=8, columns=8, DeidentificationMethod=["Basic", "PriCheXy gateway 0.0.9"]
    )
    dataset.PatientID = "PSEUDONYM"
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return anonymized(write(dataset), sop_uid)


def test_the_studys_other_images_of_ours_are_withdrawn_and_nothing_else(tmp_path: Path) -> None:
    target, kept = FolderExport(tmp_path), [anonymized(sop_uid=f"2.25.{n}") for n in (3, 4)]
    segmentation = "1.2.840.10008.5.1.4.1.1.66.4"
    stay = [
        _written("2.25.5", SOPClassUID=segmentation),
        _written("2.25.6", DeidentificationMethod="by another program"),
        _written("2.25.7", PatientID="ANOTHER"),
        anonymized(b"no DICOM", "2.25.8"),
        replace(_written("2.25.9"), study_uid="2.25.10"),
    ]
    lost = [_written("2.25.11"), replace(_written("2.25.12"), series_uid="2.25.20")]
    for instance in (*kept, *stay, *lost):
        export(target, instance)
    (tmp_path / "2.25.1" / "2.25.2" / ".2.25.13.dcm.part").write_bytes(b"of a killed worker")
    for _ in range(2):
        target.withdraw_others(kept, EVERYTHING)
        assert [one for one in (*kept, *stay) if target.fetch(one) is None] == []
        assert len(files(tmp_path)) == len(kept) + len(stay)
    assert not (tmp_path / "2.25.1" / "2.25.20").exists()


def test_what_another_gateway_sent_of_the_study_stays(tmp_path: Path) -> None:
    target = FolderExport(tmp_path)
    kept, lost, theirs = (_written(f"2.25.{n}") for n in (3, 4, 5))
    for instance in (kept, lost, theirs):
        export(target, instance)
    sent = Sent().with_these([kept, lost])
    target.withdraw_others([kept], sent)
    assert files(tmp_path) == ["2.25.1/2.25.2/2.25.3.dcm", "2.25.1/2.25.2/2.25.5.dcm"]
    for _ in range(2):
        assert not target.withdraw_study("2.25.1", sent)
        assert files(tmp_path) == ["2.25.1/2.25.2/2.25.5.dcm"]
    assert target.withdraw_study("2.25.1", Sent().with_these([theirs]))
    assert files(tmp_path) == []


def test_an_image_under_a_corrected_patient_id_survives_the_wrong_ones_withdrawal(
    tmp_path: Path,
) -> None:
    target = FolderExport(tmp_path)
    wrong, right = _written("2.25.3"), _written("2.25.3", PatientID="CORRECTED")
    right = replace(right, patient_id="CORRECTED")
    export(target, wrong)
    export(target, right)  # in the other one's place
    for _ in range(2):
        assert target.withdraw_study("2.25.1", Sent().with_these([wrong]))
        assert target.fetch(right) == right.content
    other = _written("2.25.4")
    target.store(other)
    target.withdraw_others([other], Sent().with_these([wrong, other]))
    assert target.fetch(right) == right.content
    assert target.withdraw_study("2.25.1", Sent().with_these([right, other]))
    assert files(tmp_path) == []


def test_what_older_software_had_sent_is_removed(tmp_path: Path) -> None:
    target = FolderExport(tmp_path)
    for number in (3, 4):
        export(target, _written(f"2.25.{number}"))
    sent = Sent(frozenset({older_mark_of("2.25.3")}))
    assert not target.withdraw_study("2.25.1", sent)
    assert files(tmp_path) == ["2.25.1/2.25.2/2.25.4.dcm"]
    assert target.withdraw_study("2.25.1", Sent(frozenset({older_mark_of("2.25.4")})))
    assert files(tmp_path) == []


def test_a_withdrawal_that_was_killed_is_finished_by_the_next(tmp_path: Path) -> None:
    left = tmp_path / ".2.25.1.withdrawn" / "2.25.2"
    left.mkdir(parents=True)
    (left / "2.25.3.dcm").write_bytes(b"withdrawn")
    FolderExport(tmp_path).withdraw_study("2.25.1", EVERYTHING)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("uid", ["..", "", ".", "/", "2.25.1/..", "*"])
def test_nothing_but_a_study_is_withdrawn(tmp_path: Path, uid: str) -> None:
    target = FolderExport(tmp_path)
    export(target, anonymized())
    with pytest.raises(Retryable):
        target.withdraw_study(uid, EVERYTHING)
    assert files(tmp_path) == ["2.25.1/2.25.2/2.25.3.dcm"]


def test_what_a_killed_worker_left_is_cleared_by_the_next_attempt(tmp_path: Path) -> None:
    target = FolderExport(tmp_path)
    series = tmp_path / "2.25.1" / "2.25.2"
    series.mkdir(parents=True)
    (series / ".2.25.3.dcm.part").write_bytes(b"half a fi")
    export(target, anonymized(b"whole"))
    assert files(tmp_path) == ["2.25.1/2.25.2/2.25.3.dcm"]


def test_a_file_is_never_seen_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = FolderExport(tmp_path)
    export(target, anonymized(b"old"))

    def power_cut(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", power_cut)
    with pytest.raises(Retryable) as caught:
        export(target, anonymized(b"new"))
    assert (caught.value.reason, caught.value.detail) == (Reason.TARGET_REFUSED, "OSError ENOSPC")
    assert target.fetch(anonymized()) == b"old"
    assert files(tmp_path) == ["2.25.1/2.25.2/2.25.3.dcm"]


def test_a_worker_that_was_frozen_and_goes_on_writes_into_no_others_file(tmp_path: Path) -> None:
    path = tmp_path / "2.25.3.dcm"
    with pytest.raises(FileNotFoundError), replacing(path) as frozen:
        frozen.write(b"of anot")
        frozen.flush()
        write_whole(path, b"released")
        frozen.write(b"her model")
    assert path.read_bytes() == b"released"
    assert files(tmp_path) == ["2.25.3.dcm"]


def test_a_share_that_is_not_mounted_is_not_written_beneath(tmp_path: Path) -> None:
    missing = tmp_path / "mount"
    target = FolderExport(missing)
    for act in (
        target.check,
        lambda: target.store(anonymized()),
        lambda: target.fetch(anonymized()),
        lambda: target.withdraw_study("2.25.1", EVERYTHING),
        lambda: target.withdraw_others([anonymized()], EVERYTHING),
    ):
        with pytest.raises(Retryable) as caught:
            act()
        assert caught.value.reason is Reason.TARGET_UNREACHABLE
    assert not missing.exists()


def _refuses_all(target: FolderExport) -> None:
    for act in (
        target.check,
        lambda: target.store(anonymized()),
        lambda: target.holds(anonymized()),
        lambda: target.withdraw_study("2.25.1", EVERYTHING),
        lambda: target.withdraw_others([anonymized()], EVERYTHING),
    ):
        with pytest.raises(Retryable) as caught:
            act()
        assert caught.value.reason is Reason.TARGET_UNREACHABLE


def test_a_mount_point_whose_share_is_gone_is_not_written_beneath(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, mounted = FolderExport(tmp_path), [tmp_path]
    monkeypatch.setattr(Path, "is_mount", lambda path: path in mounted)
    target.store(anonymized())
    mounted.clear()
    for _ in range(2):
        _refuses_all(target)
    mounted.append(tmp_path)
    target.store(anonymized(sop_uid="2.25.4"))
    assert len(files(tmp_path)) == 2


def test_where_the_marker_does_not_lie_nothing_is_written(tmp_path: Path) -> None:
    section = {"kind": "folder", "folder": tmp_path, "marker": ".archive"}
    target = create_target(Folder.model_validate(section))
    assert isinstance(target, FolderExport)
    _refuses_all(target)
    assert files(tmp_path) == []
    (tmp_path / ".archive").touch()
    target.store(anonymized())
    assert target.withdraw_study("2.25.1", EVERYTHING)
    assert files(tmp_path) == [".archive"]


@pytest.mark.parametrize("marker", ["", "..", ".", "a/b", "/srv", "2.25.1"])
def test_a_marker_is_a_name_and_no_studys(tmp_path: Path, marker: str) -> None:
    with pytest.raises(ValueError, match="marker"):
        Folder.model_validate({"kind": "folder", "folder": tmp_path, "marker": marker})


def test_a_folder_that_can_be_written_to_passes_the_check(tmp_path: Path) -> None:
    FolderExport(tmp_path).check()
    assert list(tmp_path.iterdir()) == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.sampled_from(["study_uid", "series_uid", "sop_uid"]), st.text(max_size=8))
@pytest.mark.parametrize("uid", ["..", "../2.25.1", "/etc", "", "1..2", "2.25.1/..", "2.25.1\n"])
def test_nothing_but_a_uid_becomes_a_name(tmp_path: Path, uid: str, where: str, text: str) -> None:
    for odd in (uid, f"{text}/"):
        with pytest.raises(Retryable):
            FolderExport(tmp_path).store(replace(anonymized(), **{where: odd}))
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_system_is_named_by_class_and_symbol_only(tmp_path: Path) -> None:
    (tmp_path / "2.25.1").write_text("a file where a folder has to be")
    with pytest.raises(Retryable) as caught:
        export(FolderExport(tmp_path), anonymized())
    assert caught.value.detail in ("FileExistsError EEXIST", "NotADirectoryError ENOTDIR")


def test_a_file_that_cannot_be_read_keeps_its_study_and_one_that_went_does_not(
    tmp_path: Path,
) -> None:
    target, sent = FolderExport(tmp_path), _written("2.25.3")
    export(target, sent)
    series = tmp_path / sent.study_uid / sent.series_uid
    (series / "2.25.8.dcm").symlink_to("nowhere")
    unreadable = series / "2.25.9.dcm"
    unreadable.symlink_to(unreadable.name)  # a loop: ELOOP, whoever reads
    for act in (
        lambda: target.withdraw_study(sent.study_uid, EVERYTHING),
        lambda: target.withdraw_others([sent], EVERYTHING),
    ):
        with pytest.raises(Retryable) as caught:
            act()
        assert caught.value.detail == "OSError ELOOP"
        assert target.fetch(sent) == sent.content
    unreadable.unlink()
    target.withdraw_others([sent], EVERYTHING)
    assert target.fetch(sent) == sent.content
