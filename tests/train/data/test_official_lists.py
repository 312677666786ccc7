"""ChestX-ray14's tables by themselves: counted without an image, and on a page nobody typed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from prichexy_testing import miniature_chestxray14
from prichexy_testing.shared_data import REPO, SHARED, need
from prichexy_train.cli import create_app
from prichexy_train.data.official import CONTROLS, survey
from prichexy_train.data.problems import UnusableData
from prichexy_train.data.settings import PrepareSettings
from prichexy_train.errors import Misconfigured
from prichexy_train.report.official_page import official_page
from prichexy_train.settings import read_settings

CONFIGS = REPO / "train" / "configs" / "data"
RESULTS = REPO / "docs" / "results"


@pytest.fixture
def tables(tmp_path: Path) -> tuple[Path, PrepareSettings]:
    """Give a folder of tables with no image in it, and settings for it."""
    made = miniature_chestxray14.make(tmp_path / "source", patients=60)
    for images in made.folder.glob("images_*"):
        shutil.rmtree(images)
    changes = [
        f"split.train_images={made.train_images}",
        'pairs.test_matched.match=["sex", "view"]',
    ]
    return made.folder, read_settings(CONFIGS / "chestxray14.toml", PrepareSettings, changes)


def test_everything_is_counted_with_no_image_at_hand(
    tables: tuple[Path, PrepareSettings],
) -> None:
    source, settings = tables
    found = survey(settings, source)
    assert found["problems"] == {}
    assert found["images"]["patients"] == 60
    assert [one["patients"] for one in found["parts"].values()] == [30, 15, 15]
    assert set(found["patients_in_two_parts"].values()) == {0}
    for name in ("train", "val", "test"):
        pairs = found["pairs"][name]
        assert pairs["lines"] == pairs["pairs"] == 2 * pairs["same"]
    assert found["pairs"]["test_matched"]["lines"] is None
    assert survey(settings, source) == found


def test_controls_learn_from_training_pairs_and_from_no_other(
    tables: tuple[Path, PrepareSettings],
) -> None:
    source, settings = tables
    controls = survey(settings, source)["controls"]
    assert controls.keys() == {*CONTROLS, "the same, with nothing learned"}
    for words, by in CONTROLS.items():
        assert controls[words]["weights"].keys() == set(by)
    assert controls["sex and age"]["lists"]["test"]["auc"] > 0.8
    # Other answers on the test change what is reached there, and nothing that was learned.
    file = source / "image_pairs_testing_5000.txt"
    first = file.read_text().splitlines()
    file.write_text("\n".join([*first[2:], *first[:1]]) + "\n")
    again = survey(settings, source)["controls"]
    for words in CONTROLS:
        assert again[words]["weights"] == controls[words]["weights"]


def test_what_is_wrong_with_the_tables_is_counted(tables: tuple[Path, PrepareSettings]) -> None:
    source, settings = tables
    lines = (source / "train_val_list.txt").read_text().splitlines()
    moved = lines[0]  # the first training image goes to the test, its patient's others do not
    (source / "train_val_list.txt").write_text("\n".join(lines[1:]) + "\n")
    test = (source / "test_list.txt").read_text().splitlines()
    (source / "test_list.txt").write_text("\n".join([*test, moved]) + "\n")
    found = survey(settings, source)
    assert found["patients_in_two_parts"]["train and test"] == 1
    assert found["problems"]["A patient in two parts of the split"] >= 1
    page = official_page(found)
    assert "A patient in two parts of the split" in page
    assert moved not in page
    assert moved not in json.dumps(found)


def test_the_command_writes_page_and_numbers(
    tables: tuple[Path, PrepareSettings], tmp_path: Path
) -> None:
    source, settings = tables
    assert settings.split.by == "official"
    words = ["official-lists", CONFIGS / "chestxray14.toml", "--source", source, "--to", tmp_path]
    for change in (
        f"split.train_images={settings.split.train_images}",
        'pairs.test_matched.match=["sex", "view"]',
    ):
        words += ["--set", change]
    result = CliRunner().invoke(create_app(), [str(word) for word in words])
    assert result.exit_code == 0, result.output
    numbers = json.loads((tmp_path / "official-lists.json").read_text())
    assert (tmp_path / "official-lists.md").read_text() == official_page(numbers)


def test_tables_that_are_absent_and_other_layouts_are_refused(
    tables: tuple[Path, PrepareSettings],
) -> None:
    source, settings = tables
    with pytest.raises(Misconfigured, match="layout chestxray14"):
        survey(read_settings(CONFIGS / "nih512.toml", PrepareSettings), source)
    (source / "test_list.txt").unlink()
    with pytest.raises(UnusableData, match=r"test_list\.txt"):
        survey(settings, source)


def test_the_page_in_the_documentation_is_as_the_command_writes_it() -> None:
    numbers = json.loads((RESULTS / "official-lists.json").read_text())
    assert (RESULTS / "official-lists.md").read_text() == official_page(numbers)


def test_the_numbers_in_the_documentation_are_those_of_the_official_tables() -> None:
    source = need(SHARED / "nih_metadata")
    found = survey(read_settings(CONFIGS / "chestxray14.toml", PrepareSettings), source)
    told = json.loads((RESULTS / "official-lists.json").read_text())
    for name, control in told["controls"].items():
        for pair_list, figures in control["lists"].items():
            ours: dict[str, Any] = found["controls"][name]["lists"][pair_list]
            assert ours["auc"] == pytest.approx(figures["auc"], abs=0.002)
            assert ours["interval"] == pytest.approx(figures["interval"], abs=0.002)
            assert (ours["pairs"], ours["patients"]) == (figures["pairs"], figures["patients"])
    assert found["controls"]["sex and age"]["lists"]["test"]["auc"] == pytest.approx(0.98, abs=0.01)
    assert {**found, "controls": None} == {**told, "controls": None}
