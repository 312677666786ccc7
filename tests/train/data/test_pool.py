from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from prichexy_testing import miniature_chestxray14 as miniature
from prichexy_train.data.pool import Pool
from prichexy_train.data.prepared import PreparedSet
from prichexy_train.data.preparing import prepare_set
from prichexy_train.data.problems import UnusableData
from prichexy_train.data.settings import PrepareSettings


def folder_set(folder: Path, name: str, size: int = 16) -> PreparedSet:
    """Prepare 30 patients of two images each, numbered one after the other."""
    source = folder / f"{name} source"
    source.mkdir(parents=True)
    random = np.random.default_rng(len(name))
    rows = ["image,patient_id,labels"]
    for patient in range(30):
        for number in range(2):
            pixels = random.integers(0, 256, (size, size), dtype=np.uint8)
            Image.fromarray(pixels).save(source / f"{patient}_{number}.png")
            labels = "Mass|Own" if patient % 3 else "No Finding"
            rows.append(f"{patient}_{number}.png,s{patient},{labels}")
    shutil.copyfile(source / "3_0.png", source / "3_1.png")
    (source / "metadata.csv").write_text("\n".join(rows), encoding="utf-8")
    drawn: dict[str, Any] = {"count": 100}
    settings = PrepareSettings.model_validate(
        {
            "name": name,
            "size": size,
            "source": {
                "layout": "folder",
                "labels": ["Own", "Mass"],
                "serial": r"(?P<series>s)(?P<number>\d+)",
            },
            "split": {"by": "drawn", "val": 0.3, "test": 0.3, "block": 4},
            "pairs": {"train": drawn, "val": drawn, "test": drawn},
        }
    )
    prepare_set(settings, source, folder / name)
    return PreparedSet.open(folder / name)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[PreparedSet, PreparedSet, PreparedSet]:
    folder = tmp_path_factory.mktemp("pool")
    official = miniature.prepared(folder / "official", patients=16, size=16)
    return official, folder_set(folder, "one"), folder_set(folder, "other")


def test_one_set_is_a_pool_of_one(sets: tuple[PreparedSet, ...]) -> None:
    official = sets[0]
    pool = Pool.join([official])
    assert (pool.name, pool.digest, len(pool)) == ("miniature", official.digest, len(pool.images))
    assert pool.label_names == official.catalogue.label_names
    assert pool.pair_names == official.pair_names
    assert pool.catalogues == (official.catalogue,)
    np.testing.assert_array_equal(pool.patients, official.catalogue.patients)
    np.testing.assert_array_equal(pool.targets, official.catalogue.targets())
    np.testing.assert_array_equal(pool.split("val"), official.split("val"))
    np.testing.assert_array_equal(pool.pairs("test").first, official.pairs("test").first)


def test_several_sets_count_through(sets: tuple[PreparedSet, ...]) -> None:
    pool = Pool.join(sets)
    starts = [0, len(sets[0].images), len(sets[0].images) + 60]
    assert len(pool) == len(pool.images) == starts[2] + 60
    assert pool.name == "miniature+one+other"
    for prepared, start in zip(sets, starts, strict=True):
        torch.testing.assert_close(
            pool.images.gather(np.array([start + 5])), prepared.images.gather(np.array([5]))
        )
        split = pool.split("test")
        inside = split[(split >= start) & (split < start + len(prepared.images))]
        np.testing.assert_array_equal(inside - start, prepared.split("test"))
    pairs = pool.pairs("train")
    np.testing.assert_array_equal(
        pool.patients[pairs.first] == pool.patients[pairs.second], pairs.same
    )
    assert len(pairs) == sum(len(prepared.pairs("train")) for prepared in sets)


def test_patients_and_series_of_different_sets_are_different(
    sets: tuple[PreparedSet, ...],
) -> None:
    pool = Pool.join(sets)
    assert len(set(pool.patients.tolist())) == 16 + 30 + 30
    start = len(sets[0].images)
    assert (pool.serials[:start] == [-1, 0]).all()
    one, other = pool.serials[start : start + 60], pool.serials[start + 60 :]
    assert set(one[:, 0]).isdisjoint(other[:, 0])
    assert -1 not in {*one[:, 0], *other[:, 0]}
    np.testing.assert_array_equal(one[:, 1], other[:, 1])


def test_targets_are_for_the_labels_of_any_set_and_unknown_elsewhere(
    sets: tuple[PreparedSet, ...],
) -> None:
    pool = Pool.join(sets)
    own = sets[0].catalogue
    assert pool.label_names == (*own.label_names, "Own")
    assert pool.targets.shape == (len(pool), len(own.label_names) + 1)
    start = len(own)
    np.testing.assert_array_equal(pool.targets[:start, :-1], own.targets())
    assert np.isnan(pool.targets[:start, -1]).all()
    mass, rest = pool.label_names.index("Mass"), pool.targets[start:]
    expected = np.concatenate([one.catalogue.targets() for one in sets[1:]])
    np.testing.assert_array_equal(rest[:, [-1, mass]], expected)
    others = [k for k in range(len(own.label_names)) if k != mass]
    assert np.isnan(rest[:, others]).all()
    assert Pool.join(sets[1:]).label_names == ("Own", "Mass")
    assert not np.isnan(Pool.join(sets[1:]).targets).any()


def test_each_image_knows_its_set(sets: tuple[PreparedSet, ...]) -> None:
    codes = Pool.join(sets).set_codes
    assert [int((codes == k).sum()) for k in range(3)] == [len(one.images) for one in sets]
    assert (np.diff(codes) >= 0).all()


def test_lists_that_one_set_lacks_are_no_lists_of_the_pool(sets: tuple[PreparedSet, ...]) -> None:
    pool = Pool.join(sets)
    assert pool.pair_names == ("train", "val", "test")
    with pytest.raises(UnusableData, match="has no pairs test_matched; there are train, val, test"):
        pool.pairs("test_matched")


def test_the_digest_is_of_all_sets_in_their_order(sets: tuple[PreparedSet, ...]) -> None:
    pools = [Pool.join(chosen) for chosen in (sets, sets[:2], sets[1:], sets[::-1])]
    assert len({pool.digest for pool in pools}) == 4
    assert Pool.join(sets).digest == pools[0].digest


def test_a_set_is_not_joined_with_itself_or_with_nothing(sets: tuple[PreparedSet, ...]) -> None:
    with pytest.raises(UnusableData, match="each set once"):
        Pool.join([sets[1], sets[1]])
    with pytest.raises(UnusableData, match="no sets"):
        Pool.join([])


def test_sets_of_different_sizes_are_not_joined(
    sets: tuple[PreparedSet, ...], tmp_path: Path
) -> None:
    with pytest.raises(UnusableData, match="prepare all sets with one size"):
        Pool.join([sets[1], folder_set(tmp_path, "large", size=32)])


def test_what_is_one_picture_is_so_in_the_pool_and_nothing_else(
    sets: tuple[PreparedSet, PreparedSet, PreparedSet],
) -> None:
    pool = Pool.join(sets)
    images = [image.image_id for prepared in sets for image in prepared.catalogue.images]
    codes, counts = np.unique(pool.pictures, return_counts=True)
    assert len(codes) == len(pool) - 2
    for code in codes[counts > 1]:
        alike = np.flatnonzero(pool.pictures == code)
        assert [images[index] for index in alike] == ["3_0.png", "3_1.png"]
