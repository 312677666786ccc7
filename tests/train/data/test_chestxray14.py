from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from prichexy_testing import miniature_chestxray14 as miniature
from prichexy_testing.miniature_chestxray14 import Miniature
from prichexy_train.data.chestxray14 import read_catalogue
from prichexy_train.data.preparing import PROBLEMS, prepare_set
from prichexy_train.data.problems import SHOWN, Problems, UnusableData
from prichexy_train.data.settings import CHESTXRAY14_LABELS, ChestXray14Source

SOURCE = ChestXray14Source(layout="chestxray14")
TABLE = "Data_Entry_2017_v2020.csv"


def refusal(spoilt: Miniature, tmp_path: Path) -> str:
    with pytest.raises(UnusableData) as raised:
        prepare_set(miniature.settings(spoilt, size=16), spoilt.folder, tmp_path / "to")
    return str(raised.value)


def rewrite(path: Path, change: Callable[[list[str]], object]) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    change(lines)
    path.write_text("\n".join(lines), encoding="utf-8")


def images(spoilt: Miniature) -> list[Path]:
    return sorted(spoilt.folder.glob("images*/**/*.png"))


def test_the_official_layout_is_read_with_all_that_its_table_says(official: Miniature) -> None:
    problems = Problems()
    catalogue = read_catalogue(official.folder, "mini", SOURCE, problems).catalogue
    assert not len(problems)
    assert len(catalogue) == official.images
    assert len(set(catalogue.patients.tolist())) == official.patients
    assert catalogue.label_names == CHESTXRAY14_LABELS
    rows = (official.folder / TABLE).read_text(encoding="utf-8").splitlines()[1:]
    assert [image.image_id for image in catalogue.images] == [row.split(",")[0] for row in rows]
    for image, row in zip(catalogue.images, rows, strict=True):
        name, labels, followup, patient, age, sex, view, width, height, *_ = row.split(",")
        assert image.original == (int(width), int(height))
        assert (official.folder / image.path).name == name
        assert (official.folder / image.path).is_file()
        assert image.labels == frozenset(labels.split("|")) - {"No Finding"}
        assert (image.patient_id, image.sex, image.view) == (patient, sex, view)
        assert (image.age, image.followup) == (int(age), int(followup))


def test_any_arrangement_of_image_folders_gives_the_same_set(
    spoilt: Miniature, official: Miniature
) -> None:
    before = read_catalogue(official.folder, "mini", SOURCE, Problems()).catalogue
    flat = spoilt.folder / "images"
    flat.mkdir()
    for path in images(spoilt):
        path.rename(flat / path.name)
    for empty in spoilt.folder.glob("images_*"):
        shutil.rmtree(empty)
    problems = Problems()
    after = read_catalogue(spoilt.folder, "mini", SOURCE, problems).catalogue
    assert not len(problems)
    assert [i.image_id for i in after.images] == [i.image_id for i in before.images]
    assert {i.path for i in after.images} == {f"images/{i.image_id}" for i in before.images}


def test_tables_may_be_gzipped_and_lie_elsewhere(spoilt: Miniature, tmp_path: Path) -> None:
    tables = tmp_path / "tables"
    tables.mkdir()
    for path in [*spoilt.folder.glob("*.txt"), *spoilt.folder.glob("*.csv")]:
        (tables / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    settings = miniature.settings(
        spoilt, size=16, source={"layout": "chestxray14", "tables": str(tables)}
    )
    summary = prepare_set(settings, spoilt.folder, tmp_path / "to")
    assert summary["all"]["images"] == spoilt.images


def test_a_table_that_is_there_plain_and_gzipped_is_refused(spoilt: Miniature) -> None:
    (spoilt.folder / f"{TABLE}.gz").write_bytes(b"")
    with pytest.raises(UnusableData, match=r"has both .*remove one"):
        read_catalogue(spoilt.folder, "mini", SOURCE, Problems())


@pytest.mark.parametrize(
    "content", [b"", gzip.compress(b"a,b\n" * 900)[:-20]], ids=["empty", "cut off"]
)
def test_a_damaged_gzip_file_is_told(spoilt: Miniature, content: bytes) -> None:
    (spoilt.folder / TABLE).unlink()
    (spoilt.folder / f"{TABLE}.gz").write_bytes(content)
    with pytest.raises(UnusableData, match=r"csv\.gz: (is truncated|has no column)"):
        read_catalogue(spoilt.folder, "mini", SOURCE, Problems())


def test_an_absent_table_is_told(spoilt: Miniature) -> None:
    (spoilt.folder / TABLE).unlink()
    with pytest.raises(UnusableData, match=rf"{TABLE}: is not there, nor is"):
        read_catalogue(spoilt.folder, "mini", SOURCE, Problems())


def test_a_table_without_a_needed_column_is_told(spoilt: Miniature) -> None:
    rewrite(
        spoilt.folder / TABLE,
        lambda lines: lines.__setitem__(0, lines[0].replace("Patient Gender", "Gender")),
    )
    with pytest.raises(UnusableData, match="has no column Patient Gender"):
        read_catalogue(spoilt.folder, "mini", SOURCE, Problems())


def test_missing_doubled_and_unlisted_images_are_told_in_one_go(
    spoilt: Miniature, tmp_path: Path
) -> None:
    first, second, third, *_ = images(spoilt)
    first.unlink()
    other = spoilt.folder / "images_009" / second.name
    other.parent.mkdir()
    shutil.copy(second, other)
    shutil.copy(third, third.with_name("00099999_000.png"))
    told = refusal(spoilt, tmp_path)
    assert "3 problems" in told
    assert f"no such file: fetch it, or set source.complete = false (1)\n    {first.name}" in told
    assert "There twice: remove one of the files (1)" in told
    assert f"{second.name} and images_009/{second.name}" in told
    assert "A file that the table does not list: remove it (1)" in told
    assert "00099999_000.png" in told
    assert not (tmp_path / "to" / "images.npy").exists(), "nothing is decoded before"


def test_many_problems_are_all_written_down_and_a_few_shown(
    spoilt: Miniature, tmp_path: Path
) -> None:
    gone = images(spoilt)[: SHOWN + 3]
    for path in gone:
        path.unlink()
    told = refusal(spoilt, tmp_path)
    assert "and 3 more" in told
    assert sum(path.name in told for path in gone) == SHOWN
    listing = (tmp_path / "to" / PROBLEMS).read_text(encoding="utf-8")
    assert all(path.name in listing for path in gone)
    assert PROBLEMS in told


def test_images_that_cannot_be_decoded_are_all_told_and_the_next_run_goes_on(
    spoilt: Miniature, tmp_path: Path
) -> None:
    first, second, third, *_ = images(spoilt)
    whole = first.read_bytes()
    first.write_bytes(whole[:-300])
    second.write_bytes(b"")
    third.write_bytes(b"<html>not found</html>")
    told = refusal(spoilt, tmp_path)
    assert "3 problems" in told
    assert "Truncated or damaged: fetch it again (1)" in told
    assert "No PNG or JPEG file, or its beginning is damaged: fetch it (2)" in told
    assert all(path.name in told for path in (first, second, third))
    for path in (first, second, third):
        path.write_bytes(whole)
    summary = prepare_set(miniature.settings(spoilt, size=16), spoilt.folder, tmp_path / "to")
    assert summary["all"]["images"] == spoilt.images
    assert not (tmp_path / "to" / PROBLEMS).exists()


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        (1, "Mass|Broken heart", "unknown finding 'Broken heart'"),
        (2, "second", "follow-up or age is no number"),
        (3, "", "no patient"),
        (4, "old", "follow-up or age is no number"),
        (5, "X", "sex is not M or F"),
        (6, "LL", "view not PA or AP"),
        (0, "../../etc/passwd.png", "no image's name"),
    ],
)
def test_a_malformed_row_is_told_by_its_number(
    spoilt: Miniature, tmp_path: Path, column: int, value: str, told: str
) -> None:
    def spoil(lines: list[str]) -> None:
        cells = lines[4].split(",")
        cells[column] = value
        lines[4] = ",".join(cells)

    rewrite(spoilt.folder / TABLE, spoil)
    assert f"{TABLE}, row 5: " in (text := refusal(spoilt, tmp_path))
    assert told in text


def test_rows_of_another_length_or_listed_twice_are_told(spoilt: Miniature, tmp_path: Path) -> None:
    def spoil(lines: list[str]) -> None:
        lines.append(lines[1])
        lines[2] += ",more"

    rewrite(spoilt.folder / TABLE, spoil)
    told = refusal(spoilt, tmp_path)
    assert "A row with too few or too many cells: mend it (1)\n" in told
    assert f"{TABLE}, row 3" in told
    assert "Listed twice in the table: remove a row (1)" in told


def test_ages_of_the_first_edition_are_read_and_impossible_ones_unknown(spoilt: Miniature) -> None:
    def spoil(lines: list[str]) -> None:
        for row, age in ((1, "058Y"), (2, "414")):
            cells = lines[row].split(",")
            cells[4] = age
            lines[row] = ",".join(cells)

    rewrite(spoilt.folder / TABLE, spoil)
    problems = Problems()
    reading = read_catalogue(spoilt.folder, "mini", SOURCE, problems)
    assert not len(problems)
    assert [image.age for image in reading.catalogue.images[:2]] == [58, None]
    assert reading.left_out == {"ages above 120, taken as unknown": 1}


def test_a_patient_in_two_parts_is_told(spoilt: Miniature, tmp_path: Path) -> None:
    def move(lines: list[str]) -> None:
        moved.append(lines.pop(0))

    moved: list[str] = []
    rewrite(spoilt.folder / "train_val_list.txt", move)
    rewrite(spoilt.folder / "test_list.txt", lambda lines: lines.extend(moved))
    told = refusal(spoilt, tmp_path)
    assert "A patient in two parts of the split" in told
    assert "1 in train and test" in told


def test_a_cut_inside_a_patient_is_told(spoilt: Miniature, tmp_path: Path) -> None:
    settings = miniature.settings(
        spoilt, size=16, split={"by": "official", "train_images": spoilt.train_images - 1}
    )
    with pytest.raises(UnusableData, match="8 in train and val"):
        prepare_set(settings, spoilt.folder, tmp_path / "to")


def test_lists_that_do_not_fit_the_table_are_told(spoilt: Miniature, tmp_path: Path) -> None:
    def spoil(lines: list[str]) -> None:
        taken.append(lines.pop())
        lines.append(lines[0])
        lines.append("00088888_000.png")

    taken: list[str] = []
    rewrite(spoilt.folder / "test_list.txt", spoil)
    both_name = (spoilt.folder / "test_list.txt").read_text(encoding="utf-8").splitlines()[1]
    rewrite(spoilt.folder / "train_val_list.txt", lambda lines: lines.append(both_name))
    told = refusal(spoilt, tmp_path)
    assert f"In no official list: add a line (1)\n    {taken[0]}" in told
    assert "Twice in an official list: remove a line (1)" in told
    assert "In an official list, but not in the table: add a row (1)\n    00088888_000.png" in told
    assert f"In both official lists: remove a line (1)\n    {both_name}" in told


def test_a_part_of_the_set_is_taken_when_the_settings_say_so(
    spoilt: Miniature, tmp_path: Path
) -> None:
    gone = images(spoilt)[0]
    gone.unlink()
    settings = miniature.settings(
        spoilt, size=16, source={"layout": "chestxray14", "complete": False}
    )
    summary = prepare_set(settings, spoilt.folder, tmp_path / "to")
    assert summary["all"]["images"] == spoilt.images - 1
    assert summary["left_out"]["images in the table that are not here"] == 1
    lists = list(spoilt.folder.glob("image_pairs_*.txt"))
    lost = sum(gone.name in line for path in lists for line in path.read_text("utf-8").splitlines())
    told = [n for reason, n in summary["left_out"].items() if "published pairs" in reason]
    assert sum(told) == lost > 0


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("00000001_000.png 00000001_001.png 1.0", "Not two images and 1.0 or 0.0"),
        ("00000001_000.png\t00000001_001.png\t0.5", "Not two images and 1.0 or 0.0"),
        ("00000001_000.png\t00000001_001.png\t0.0", "contradicts the table about the patient"),
        ("00000001_000.png\t00000001_000.png\t1.0", "of an image with itself"),
        ("00000001_000.png\t00000016_000.png\t0.0", "from another part of the split"),
        ("00000001_000.png\t00077777_000.png\t0.0", "an image that the table does not list"),
    ],
)
def test_a_wrong_published_pair_is_told_by_its_line(
    spoilt: Miniature, tmp_path: Path, line: str, told: str
) -> None:
    file = "image_pairs_training_10000.txt"
    rewrite(spoilt.folder / file, lambda lines: lines.insert(2, line))
    text = refusal(spoilt, tmp_path)
    assert told in text
    assert f"{file}, line 3" in text
