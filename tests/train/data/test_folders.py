from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from prichexy_testing.shared_data import NIH512, REPO, SHARED, need
from prichexy_train.data.folders import read_catalogue, read_near_duplicates
from prichexy_train.data.problems import Problems
from prichexy_train.data.settings import FolderSource, PrepareSettings
from prichexy_train.settings import read_settings

HEADER = "image,patient_id,labels,view,sex,age,followup,licence"
ROWS = (
    "in/a.png,p1,Mass|Hernia,PA,F,40,3,CC0",
    'in/b.jpg,p1,No Finding,,,,,"CC0, as said"',
    "c.JPEG,p2,,AP,M,0,0,",
)


def write(folder: Path, *rows: str, header: str = HEADER) -> Path:
    (folder / "in").mkdir(exist_ok=True)
    for file in ("in/a.png", "in/b.jpg", "c.JPEG"):
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / file)
    (folder / "metadata.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return folder


def read(folder: Path, **settings: Any) -> tuple[Any, str]:
    problems = Problems()
    source = FolderSource(layout="folder", **settings)
    reading = read_catalogue(folder, "mine", source, problems)
    return reading.catalogue, problems.text()


def test_a_folder_is_read_with_all_that_its_table_says(tmp_path: Path) -> None:
    catalogue, problems = read(write(tmp_path, *ROWS), labels=("Mass",))
    assert problems == ""
    a, b, c = catalogue.images
    assert (a.image_id, a.path, a.patient_id) == ("in/a.png", "in/a.png", "p1")
    assert (a.labels, a.view, a.sex, a.age) == (frozenset({"Mass", "Hernia"}), "PA", "F", 40)
    assert (a.followup, a.serial) == (3, None)
    assert (b.labels, b.view, b.sex, b.age, b.followup) == (frozenset(), "", "", None, None)
    assert (c.labels, c.age, c.followup) == (frozenset(), 0, 0)
    assert catalogue.targets().tolist() == [[1], [0], [0]]


def test_image_and_patient_are_columns_enough(tmp_path: Path) -> None:
    rows = ("in/a.png,p1", "in/b.jpg,p1", "c.JPEG,p2")
    catalogue, problems = read(write(tmp_path, *rows, header="image,patient_id"))
    assert problems == ""
    assert catalogue.patients.tolist() == [0, 0, 1]
    assert catalogue.targets().shape == (3, 0)


def test_serial_numbers_are_taken_from_the_patients_ids(tmp_path: Path) -> None:
    rows = ("in/a.png,virus_7", "in/b.jpg,virus_7", "c.JPEG,bacteria_08")
    write(tmp_path, *rows, header="image,patient_id")
    catalogue, problems = read(tmp_path, serial=r"(?P<series>[a-z]+)_(?P<number>\d+)")
    assert problems == ""
    assert [i.serial for i in catalogue.images] == [("virus", 7), ("virus", 7), ("bacteria", 8)]


def test_a_pattern_that_does_not_fit_a_patient_is_told(tmp_path: Path) -> None:
    _, problems = read(write(tmp_path, *ROWS), serial=r"(?P<series>x)(?P<number>\d+)")
    assert "metadata.csv, row 2: the pattern source.serial does not fit the patient" in problems


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("../b.jpg,p1,,,,,,", "A row that cannot be read: mend it (1)"),
        ("/in/b.jpg,p1,,,,,,", "A row that cannot be read: mend it (1)"),
        ("in/b.jpg,,,,,,,", "row 3: no patient"),
        ("in/b.tif,p1,,,,,,", "row 3: image is no PNG or JPEG file"),
        ("in/b.jpg,p1,,,X,,,", "row 3: sex is not M, F or empty"),
        ("in/b.jpg,p1,,,F,4.5,,", "row 3: age or followup is no whole number"),
        ("in/b.jpg,p1,,,F,4,first,", "row 3: age or followup is no whole number"),
        ("in/b.jpg,p1", "A row with too few or too many cells: mend it (1)"),
        ("in/a.png,p1,,,,,,", "Listed twice in the table: remove a row (1)"),
        ("in/d.jpg,p1,,,,,,", "In the table, but no such file: fetch it or remove the row (1)"),
        ("", "A file that the table does not list: remove it or add a row (1)"),
    ],
)
def test_what_is_wrong_with_a_row_is_told(tmp_path: Path, row: str, told: str) -> None:
    _, problems = read(write(tmp_path, ROWS[0], row, ROWS[2]))
    assert told in problems


def test_spaces_and_case_make_no_other_patient(tmp_path: Path) -> None:
    rows = ("in/a.png,P1,Mass", "in/b.jpg,P1 , Mass |", "c.JPEG,p1,")
    catalogue, problems = read(write(tmp_path, *rows, header="image,patient_id,labels"))
    assert [image.patient_id for image in catalogue.images] == ["P1", "P1", "p1"]
    assert catalogue.images[1].labels == frozenset({"Mass"})
    assert "upper and lower case only: one person has one identifier (1)" in problems
    assert "P1 and p1" in problems


def test_a_table_without_rows_says_so(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text("image,patient_id\n")
    assert "A table without a row (1)" in read(tmp_path)[1]


def test_original_sizes_are_read_where_the_table_tells_them(tmp_path: Path) -> None:
    rows = ("in/a.png,p1,2500x2048", "in/b.jpg,p1,", "c.JPEG,p2,2500")
    catalogue, problems = read(write(tmp_path, *rows, header="image,patient_id,original_size"))
    assert [image.original for image in catalogue.images] == [(2500, 2048), None]
    assert "row 4: original_size is not COLUMNSxROWS or empty" in problems


def test_a_label_that_no_image_has_is_told(tmp_path: Path) -> None:
    _, problems = read(write(tmp_path, *ROWS), labels=("Mass", "Masss"))
    assert "A label of the settings that no image has (1)\n    Masss" in problems


def test_near_duplicates_of_other_sets_are_passed_over(tmp_path: Path) -> None:
    catalogue, _ = read(write(tmp_path, *ROWS))
    table = tmp_path / "near.csv"
    table.write_text(
        "set_a,image_a,set_b,image_b\n"
        "mine,in/a.png,mine,c.JPEG\n"
        "mine,in/a.png,other,in/b.jpg\n"
        "other,in/a.png,other,in/b.jpg\n",
        encoding="utf-8",
    )
    problems = Problems()
    assert read_near_duplicates(table, catalogue, problems) == [(0, 2)]
    assert not len(problems)


def test_a_near_duplicate_that_is_no_image_of_the_set_is_told(tmp_path: Path) -> None:
    catalogue, _ = read(write(tmp_path, *ROWS))
    table = tmp_path / "near.csv"
    table.write_text("image_a,image_b\nin/a.png,c.JPEG\nin/a.png,d.png\n", encoding="utf-8")
    problems = Problems()
    assert read_near_duplicates(table, catalogue, problems) == [(0, 2)]
    assert "near.csv, row 3" in problems.text()


@pytest.mark.parametrize(
    ("name", "images", "patients", "several", "of_several"),
    [("nih512", 851, 594, 128, 385), ("kermany224", 5216, 3654, 643, 2205)],
)
def test_the_real_folders_are_read_whole_with_their_own_settings(
    name: str, images: int, patients: int, several: int, of_several: int
) -> None:
    folder = need(SHARED / name)
    settings = read_settings(REPO / f"train/configs/data/{name}.toml", PrepareSettings)
    assert isinstance(settings.source, FolderSource)
    problems = Problems()
    catalogue = read_catalogue(folder, name, settings.source, problems).catalogue
    assert problems.text() == ""
    counted = Counter(Counter(catalogue.patients.tolist()).values())
    assert (len(catalogue), sum(counted.values())) == (images, patients)
    assert sum(n for times, n in counted.items() if times > 1) == several
    assert sum(n * times for times, n in counted.items() if times > 1) == of_several


def test_the_small_part_of_chestxray14_says_what_the_official_table_says() -> None:
    import csv
    import gzip

    need(NIH512)
    settings = read_settings(REPO / "train/configs/data/nih512.toml", PrepareSettings)
    assert isinstance(settings.source, FolderSource)
    catalogue = read_catalogue(NIH512, "nih512", settings.source, Problems()).catalogue
    with gzip.open(SHARED / "nih_metadata/Data_Entry_2017_v2020.csv.gz", "rt") as file:
        official = {row["Image Index"]: row for row in csv.DictReader(file)}
    for image in catalogue.images:
        row = official[f"{Path(image.path).stem}.png"]
        assert image.labels == frozenset(row["Finding Labels"].split("|")) - {"No Finding"}
        assert (image.sex, image.view) == (row["Patient Gender"], row["View Position"])
        assert (image.age, int(image.patient_id)) == (
            int(row["Patient Age"]),
            int(row["Patient ID"]),
        )
