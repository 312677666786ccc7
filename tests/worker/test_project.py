"""A project's profile: what its file says, and the line where it does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from prichexy_worker.errors import Misconfigured
from prichexy_worker.header.options import Option
from prichexy_worker.header.profile import BASIC
from prichexy_worker.project import Project, read_project

WHOLE = """\
name: chest-archive
options: [modified-dates, patient-characteristics]
pseudonyms:
  project: chest-archive
  patient_prefix: CXR-
attributes:
  AccessionNumber: accession_number
  KVP: remove
"""
MASKS = """\
masks:
  - manufacturer: "Example*"
    rows: 2048
    boxes: [[0, 0, 400, 60], [-400, -60, 0, 0]]
"""


def read(folder: Path, text: str) -> object:
    path = folder / "profile.yaml"
    path.write_text(text, encoding="utf-8")
    return read_project(path)


def test_a_whole_profile_is_read(tmp_path: Path) -> None:
    path = tmp_path / "profile.yaml"
    path.write_text(WHOLE, encoding="utf-8")
    profile = read_project(path).profile
    assert profile.name == "chest-archive"
    assert profile.options == {Option.MODIFIED_DATES, Option.PATIENT_CHARACTERISTICS}
    assert profile.patient_prefix == "CXR-"
    assert profile.digest == read_project(path).profile.digest != BASIC.digest


def test_masks_are_read_and_change_the_digest(tmp_path: Path) -> None:
    with_masks, without = tmp_path / "with.yaml", tmp_path / "without.yaml"
    with_masks.write_text(WHOLE + MASKS, encoding="utf-8")
    without.write_text(WHOLE, encoding="utf-8")
    project = read_project(with_masks)
    (mask,) = project.masks
    assert (mask.manufacturer, mask.rows) == ("Example*", 2048)
    assert mask.boxes == ((0, 0, 400, 60), (-400, -60, 0, 0))
    assert project.profile.digest != read_project(without).profile.digest


def test_without_a_file_it_is_the_basic_profile() -> None:
    assert read_project(None) == Project(BASIC, ())


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("options: []\n", 1, "name"),
        (WHOLE.replace("modified-dates", "full-dates"), 2, "options.0"),
        (WHOLE + "colour: blue\n", 9, "colour"),
        (WHOLE.replace("CXR-", "lower"), 5, "pseudonyms.patient_prefix"),
        (WHOLE.replace("KVP: remove", "KVP: keep"), 8, "KVP"),
        (WHOLE.replace("KVP", "StudyDescription").replace(": remove", ": text"), 8, "Study"),
        (WHOLE + "name: twice\n", 9, "name is there twice"),
        ("name: a\noptions: [modified-dates\nattributes: {}\n", 3, "not YAML"),
        ("- name: a\n", 1, "dictionary"),
        (WHOLE + "? [x, y]\n: 1\n", 9, "a key must be a word"),
        (WHOLE + "12: 1\n", 9, "a key must be a word"),
        (WHOLE.replace("KVP: remove", "KVP: *one"), 8, "write it out"),
        (WHOLE.replace("KVP: remove", "KVP: {fixed: 2024-01-01}"), 8, "may not ask"),
        (WHOLE.replace("patient-characteristics", "modified-dates"), 2, "there twice"),
        (WHOLE.replace("patient-characteristics", "uids"), 2, "keep one"),
        (WHOLE + "# \x01\n", 9, "UTF-8"),
        (WHOLE.replace("chest-archive\noptions", "2026-13-45\noptions"), 1, "in quotes"),
        (WHOLE + "masks:\n  - {rows: 1" + 5000 * "0" + ", boxes: [[0, 0, 9, 9]]}\n", 10, "quotes"),
        (WHOLE.replace("KVP: remove", "Grid: {values: FIXED}"), 8, "Grid is not understood"),
        (WHOLE.replace("KVP: remove", "Grid: {values: []}"), 8, "Grid is not understood"),
        (WHOLE.replace("KVP: remove", "Grid: {values: [fixed]}"), 8, "Grid is not understood"),
        (WHOLE.replace("KVP: remove", "Grid: {emptied: 2026-01-01}"), 8, "Grid is not understood"),
        (WHOLE.replace("KVP: remove", "Grid: {range: [0, 1]}"), 8, "none for its VR CS"),
        (WHOLE.replace("KVP: remove", "Grid: {codes: view}"), 8, "none for its VR CS"),
        (WHOLE.replace("KVP: remove", "ViewCodeSequence: {values: [A]}"), 8, "none for its VR SQ"),
        (WHOLE.replace("KVP: remove", "DetectorBinning: {codes: view}"), 8, "none for its VR DS"),
        (WHOLE.replace("KVP: remove", "DeidentificationMethod: remove"), 8, "leave it out"),
        (WHOLE.replace("KVP: remove", "ConversionType: emptied"), 8, "must have a value"),
        (WHOLE + "masks:\n  - {boxes: [[0, 0, 9, 9]]}\n", 10, "masks.0: has no condition"),
        (WHOLE + "masks:\n  - {station: X, boxes: [[9, 0, 1, 9]]}\n", 10, "masks.0"),
    ],
)
def test_a_profile_that_does_not_fit_is_refused_with_its_line(
    tmp_path: Path, text: str, line: int, why: str
) -> None:
    with pytest.raises(Misconfigured) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(f"profile.yaml:{line}: ")
    assert why in str(caught.value)


def test_a_profile_that_is_not_there_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="cannot be read"):
        read_project(tmp_path / "profile.yaml")
