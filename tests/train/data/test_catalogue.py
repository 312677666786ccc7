from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from prichexy_train.data.catalogue import Catalogue, ImageRecord
from prichexy_train.data.problems import UnusableData

KNOWN = ImageRecord(
    image_id="a, b.png",
    patient_id="7",
    path="in/a, b.png",
    labels=frozenset({"Mass", "Hernia"}),
    view="PA",
    sex="F",
    age=40,
    followup=2,
    serial=("s", 12),
    original=(2500, 2048),
)
UNKNOWN = ImageRecord("c.png", "ä\n", "c.png")


@pytest.fixture
def catalogue() -> Catalogue:
    return Catalogue("two", ("Mass", "Edema"), (KNOWN, UNKNOWN, replace(KNOWN, image_id="d.png")))


def test_a_catalogue_comes_back_from_its_text_as_it_was(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    (tmp_path / "c.csv").write_text(catalogue.text(), encoding="utf-8", newline="")
    back = Catalogue.read(tmp_path / "c.csv", "two", ["Mass", "Edema"])
    assert back == catalogue
    assert back.digest() == catalogue.digest()


@pytest.mark.parametrize(
    "change",
    [
        {"image_id": "e"},
        {"patient_id": "8"},
        {"path": "e"},
        {"labels": frozenset({"Mass"})},
        {"view": "AP"},
        {"sex": "M"},
        {"age": 41},
        {"followup": None},
        {"serial": ("s", 13)},
        {"original": (2500, 2049)},
        {"original": None},
    ],
)
def test_the_digest_changes_with_every_field(catalogue: Catalogue, change: dict[str, str]) -> None:
    other = replace(catalogue, images=(replace(KNOWN, **change), *catalogue.images[1:]))
    assert other.digest() != catalogue.digest()


def test_the_digest_changes_with_the_label_names(catalogue: Catalogue) -> None:
    assert replace(catalogue, label_names=("Mass",)).digest() != catalogue.digest()


def test_patients_serials_and_targets_have_a_row_for_each_image(catalogue: Catalogue) -> None:
    assert catalogue.patients.tolist() == [0, 1, 0]
    assert catalogue.serials.tolist() == [[0, 12], [-1, 0], [0, 12]]
    np.testing.assert_array_equal(catalogue.targets(), [[1, 0], [0, 0], [1, 0]])
    assert catalogue.targets().dtype == np.float32
    assert catalogue.counts() == {"Hernia": 2, "Mass": 2}
    assert catalogue.index == {"a, b.png": 0, "c.png": 1, "d.png": 2}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "has not the columns"),
        ("image_id,patient_id\nx,y\n", "has not the columns"),
        (Catalogue("", (), ()).text() + "a,b,c,,,,old,,,,,\n", "no image's record"),
        (Catalogue("", (), ()).text() + "a,b\n", "no image's record"),
    ],
)
def test_what_is_no_catalogue_is_told_with_its_file(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "c.csv").write_text(text, encoding="utf-8")
    with pytest.raises(UnusableData, match=told) as raised:
        Catalogue.read(tmp_path / "c.csv", "x", ())
    assert str(tmp_path / "c.csv") in str(raised.value)


def test_an_absent_catalogue_is_told_with_its_file(tmp_path: Path) -> None:
    with pytest.raises(UnusableData, match=r"c\.csv: cannot be read"):
        Catalogue.read(tmp_path / "c.csv", "x", ())
