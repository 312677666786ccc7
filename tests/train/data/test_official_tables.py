"""ChestX-ray14's own tables, whole: the paper's protocol, without its images."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Final
from unittest.mock import patch

import numpy as np
import pytest
from numpy.typing import NDArray

from prichexy_testing.shared_data import REPO, SHARED, need
from prichexy_train.data import chestxray14
from prichexy_train.data.catalogue import Catalogue, Reading
from prichexy_train.data.chestxray14 import read_catalogue, read_lists, read_pairs
from prichexy_train.data.drawing import draw_pairs
from prichexy_train.data.pairs import Pairs
from prichexy_train.data.problems import Problems
from prichexy_train.data.settings import ChestXray14Source, DrawnPairs, PrepareSettings
from prichexy_train.data.splits import kin, official_split
from prichexy_train.measures.demographics import demographics_auc
from prichexy_train.settings import read_settings

TABLES: Final = SHARED / "nih_metadata"
CONFIG: Final = REPO / "train" / "configs" / "data" / "chestxray14.toml"
PARTS: Final = {"train": 0, "val": 1, "test": 2}
FILES: Final = {
    "train": "image_pairs_training_10000.txt.gz",
    "val": "image_pairs_validation_2000.txt.gz",
    "test": "image_pairs_testing_5000.txt.gz",
}


@pytest.fixture(scope="module", autouse=True)
def no_problems() -> Iterator[Problems]:
    need(TABLES)
    problems = Problems()
    yield problems
    assert problems.text(3) == ""


@pytest.fixture(scope="module")
def catalogue(no_problems: Problems) -> Catalogue:
    settings = ChestXray14Source(layout="chestxray14")
    lists = read_lists(TABLES, settings, no_problems)
    # The tables are here, the images are not.
    files = {name: f"images/{name}" for name in (*lists.train_val, *lists.test)}
    with patch.object(chestxray14, "_files", lambda *_: files):
        return read_catalogue(TABLES, "chestxray14", settings, no_problems).catalogue


@pytest.fixture(scope="module")
def parts(catalogue: Catalogue, no_problems: Problems) -> NDArray[np.int64]:
    settings = read_settings(CONFIG, PrepareSettings)
    assert settings.split.by == "official"
    lists = read_lists(TABLES, ChestXray14Source(layout="chestxray14"), no_problems)
    reading = Reading(catalogue, frozenset(catalogue.index), {})
    return official_split(reading, lists, settings.split.train_images, no_problems)


@pytest.fixture(scope="module")
def published(
    catalogue: Catalogue, parts: NDArray[np.int64], no_problems: Problems
) -> dict[str, Pairs]:
    lists = {}
    for name, part in PARTS.items():
        pairs, left_out = read_pairs(
            TABLES / FILES[name], catalogue, parts == part, no_problems, complete=True
        )
        assert left_out == {}
        lists[name] = pairs
    return lists


def draw(
    catalogue: Catalogue, parts: NDArray[np.int64], part: str, settings: DrawnPairs
) -> tuple[Pairs, float]:
    """Give pairs of a part, and the seconds it took."""
    began = time.process_time()
    pairs, _ = draw_pairs(
        catalogue,
        np.flatnonzero(parts == PARTS[part]),
        kin(catalogue, []),
        [],
        settings,
        np.random.default_rng(1),
    )
    return pairs, time.process_time() - began


@pytest.fixture(scope="module")
def matched(catalogue: Catalogue, parts: NDArray[np.int64]) -> Pairs:
    settings = read_settings(CONFIG, PrepareSettings).pairs["test_matched"]
    assert isinstance(settings, DrawnPairs)
    pairs, seconds = draw(catalogue, parts, "test", settings)
    assert seconds < 20
    return pairs


def test_all_pairs_of_one_patient_are_drawn_within_seconds(
    catalogue: Catalogue, parts: NDArray[np.int64]
) -> None:
    settings = read_settings(CONFIG, PrepareSettings).pairs["train_all"]
    assert isinstance(settings, DrawnPairs)
    pairs, seconds = draw(catalogue, parts, "train", settings)
    assert seconds < 30
    of_each = np.bincount(catalogue.patients[parts == PARTS["train"]])
    possible = int((of_each * (of_each - 1) // 2).sum())
    assert int(pairs.same.sum()) == possible == 396_147
    assert len(pairs) == 792_294
    assert (parts[pairs.first] == PARTS["train"]).all()
    assert (parts[pairs.second] == PARTS["train"]).all()


def test_the_official_split_has_the_papers_sizes(
    catalogue: Catalogue, parts: NDArray[np.int64]
) -> None:
    assert len(catalogue) == 112_120
    assert Counter(parts.tolist()) == {0: 75_708, 1: 10_816, 2: 25_596}
    patients = [set(catalogue.patients[parts == part].tolist()) for part in range(3)]
    assert [len(those) for those in patients] == [24_154, 3_854, 2_797]
    assert not patients[0] & patients[1]
    assert not patients[0] & patients[2]
    assert not patients[1] & patients[2]


def test_every_finding_has_its_published_number_of_images(catalogue: Catalogue) -> None:
    counts = dict(zip(catalogue.label_names, catalogue.targets().sum(axis=0), strict=True))
    assert counts["Infiltration"] == 19_894
    assert counts["Pneumonia"] == 1_431
    assert counts["Hernia"] == 227
    assert sum(not image.labels for image in catalogue.images) == 60_361


@pytest.mark.parametrize(
    ("name", "pairs", "patients"),
    [("train", 10_000, 5_000), ("val", 2_000, 1_000), ("test", 5_000, 492)],
)
def test_the_published_pairs_are_read_whole(
    catalogue: Catalogue, published: dict[str, Pairs], name: str, pairs: int, patients: int
) -> None:
    found = published[name]
    assert len(found) == pairs
    assert found.same.sum() == pairs / 2
    assert len(set(catalogue.patients[found.first[found.same]].tolist())) == patients


def test_fifty_patients_make_up_half_of_the_published_test_pairs(
    catalogue: Catalogue, published: dict[str, Pairs]
) -> None:
    test = published["test"]
    times = Counter(catalogue.patients[test.first[test.same]].tolist())
    assert sum(n for _, n in times.most_common(50)) / 2_500 == pytest.approx(0.49, abs=0.01)


def test_sex_and_age_alone_solve_the_published_test_and_not_the_matched_one(
    catalogue: Catalogue, published: dict[str, Pairs], matched: Pairs
) -> None:
    assert demographics_auc([catalogue], published["test"]) == pytest.approx(0.98, abs=0.01)
    assert demographics_auc([catalogue], matched) == pytest.approx(0.5, abs=0.01)


def test_the_matched_list_has_one_pair_a_patient_and_twins_of_sex_age_and_view(
    catalogue: Catalogue, parts: NDArray[np.int64], matched: Pairs
) -> None:
    pairs, half = matched, len(matched) // 2
    # Every test patient with two images or more has one, but for one patient.
    times = Counter(catalogue.patients[parts == PARTS["test"]].tolist())
    assert half == sum(n > 1 for n in times.values()) - 1 == 1_423
    assert max(Counter(catalogue.patients[pairs.first[:half]].tolist()).values()) == 1
    np.testing.assert_array_equal(pairs.first[:half], pairs.first[half:])
    for b, c in zip(pairs.second[:half], pairs.second[half:], strict=True):
        one, other = catalogue.images[b], catalogue.images[c]
        assert (one.sex, one.view) == (other.sex, other.view)
        assert abs((one.age or 0) - (other.age or 0)) <= 2


def test_ten_thousand_pairs_of_the_whole_training_part_are_drawn_at_once_and_right(
    catalogue: Catalogue, parts: NDArray[np.int64], published: dict[str, Pairs]
) -> None:
    settings = DrawnPairs(count=10_000, a_patient=1)
    pairs, seconds = draw(catalogue, parts, "train", settings)
    assert seconds < 10  # one or two on a machine of one's own
    assert len(pairs) == 10_000
    assert pairs.same.sum() == 5_000
    patients = catalogue.patients
    np.testing.assert_array_equal(patients[pairs.first] == patients[pairs.second], pairs.same)
    assert (parts[pairs.first] == 0).all()
    assert (parts[pairs.second] == 0).all()
    assert len({frozenset(p) for p in zip(pairs.first, pairs.second, strict=True)}) == 10_000
    assert len(set(patients[pairs.first[pairs.same]].tolist())) == 5_000
    # As the published list: another's demographics give it away, and half are a visit apart.
    ours, theirs = (demographics_auc([catalogue], p) for p in (pairs, published["train"]))
    assert ours == pytest.approx(theirs, abs=0.02)


def test_pairs_drawn_without_a_limit_are_as_unequal_as_the_published_test(
    catalogue: Catalogue, parts: NDArray[np.int64], published: dict[str, Pairs]
) -> None:
    pairs, _ = draw(catalogue, parts, "test", DrawnPairs(count=5_000))
    for statistic in (_patients_behind, _largest_share):
        ours, theirs = statistic(catalogue, pairs), statistic(catalogue, published["test"])
        assert ours == pytest.approx(theirs, rel=0.15)


def _patients_behind(catalogue: Catalogue, pairs: Pairs) -> float:
    return len(set(catalogue.patients[pairs.first[pairs.same]].tolist()))


def _largest_share(catalogue: Catalogue, pairs: Pairs) -> float:
    times = Counter(catalogue.patients[pairs.first[pairs.same]].tolist())
    return sum(n for _, n in times.most_common(50)) / sum(times.values())
