"""The protocol on the small real sets: their own settings, tables alone, no pixels."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from prichexy_testing.shared_data import REPO, SHARED, need
from prichexy_train.data.catalogue import PARTS, Catalogue
from prichexy_train.data.drawing import draw_pairs
from prichexy_train.data.folders import read_catalogue, read_near_duplicates
from prichexy_train.data.pairs import Pairs
from prichexy_train.data.problems import Problems
from prichexy_train.data.settings import DrawnPairs, DrawnSplit, FolderSource, PrepareSettings
from prichexy_train.data.splits import drawn_split, kin
from prichexy_train.measures.demographics import demographics_auc
from prichexy_train.settings import read_settings


@dataclass(frozen=True)
class Protocol:
    catalogue: Catalogue
    near: list[tuple[int, int]]
    parts: NDArray[np.int64]
    pairs: dict[str, Pairs]


@pytest.fixture(scope="module", params=["nih512", "kermany224"])
def protocol(request: pytest.FixtureRequest) -> Protocol:
    folder = need(SHARED / request.param)
    settings = read_settings(REPO / f"train/configs/data/{request.param}.toml", PrepareSettings)
    assert isinstance(settings.source, FolderSource)
    assert isinstance(settings.split, DrawnSplit)
    problems = Problems()
    catalogue = read_catalogue(folder, request.param, settings.source, problems).catalogue
    near_file = folder / str(settings.source.near_duplicates)
    near = read_near_duplicates(near_file, catalogue, problems)
    assert problems.text() == ""
    relatives = kin(catalogue, near)
    parts, _ = drawn_split(catalogue, relatives, settings.split)
    pairs = {}
    for name, wanted in settings.pairs.items():
        assert isinstance(wanted, DrawnPairs)
        inside = np.flatnonzero(parts == PARTS.index("test" if "test" in name else name))
        random = np.random.default_rng(1)
        pairs[str(name)], _ = draw_pairs(catalogue, inside, relatives, near, wanted, random)
    return Protocol(catalogue, near, parts, pairs)


def test_no_patient_and_no_near_duplicate_is_on_two_sides(protocol: Protocol) -> None:
    sides = defaultdict(set)
    for image, part in zip(protocol.catalogue.images, protocol.parts.tolist(), strict=True):
        sides[image.patient_id].add(part)
    assert all(len(those) == 1 for those in sides.values())
    assert protocol.near
    assert all(protocol.parts[a] == protocol.parts[b] for a, b in protocol.near)


def test_no_neighbours_by_number_are_on_two_sides(protocol: Protocol) -> None:
    sides = {
        (int(series), int(number)): part
        for (series, number), part in zip(
            protocol.catalogue.serials, protocol.parts.tolist(), strict=True
        )
        if series >= 0
    }
    for (series, number), part in sides.items():
        neighbour = sides.get((series, number + 1), -1)
        assert -1 in (part, neighbour) or part == neighbour


def test_few_images_are_left_out_for_that(protocol: Protocol) -> None:
    assert (protocol.parts == -1).mean() < 0.02


def test_near_duplicates_and_neighbours_are_in_no_pair(protocol: Protocol) -> None:
    near = {frozenset(pair) for pair in protocol.near}
    series, numbers = protocol.catalogue.serials.T
    for pairs in protocol.pairs.values():
        both = zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)
        assert near.isdisjoint(frozenset(pair) for pair in both)
        others = pairs.take(np.flatnonzero(~pairs.same))
        neighbours = (series[others.first] == series[others.second]) & (
            abs(numbers[others.first] - numbers[others.second]) <= 1
        )
        assert not (neighbours & (series[others.first] >= 0)).any()


def test_pairs_of_two_patients_are_matched_on_label_and_view(protocol: Protocol) -> None:
    targets = protocol.catalogue.targets()
    images = protocol.catalogue.images
    for name in ("train", "val", "test"):
        pairs, half = protocol.pairs[name], len(protocol.pairs[name]) // 2
        own, other = pairs.second[:half], pairs.second[half:]
        np.testing.assert_array_equal(pairs.first[:half], pairs.first[half:])
        np.testing.assert_array_equal(targets[own], targets[other])
        assert all(images[a].view == images[b].view for a, b in zip(own, other, strict=True))


def test_the_matched_list_gives_demographics_little_to_tell(protocol: Protocol) -> None:
    matched = protocol.pairs["test_matched"]
    behind = protocol.catalogue.patients[matched.first[matched.same]]
    assert len(set(behind.tolist())) == len(behind) >= 30
    assert demographics_auc([protocol.catalogue], matched) < 0.65


def test_enough_patients_are_behind_the_test(protocol: Protocol) -> None:
    test = protocol.pairs["test"]
    behind = set(protocol.catalogue.patients[test.first[test.same]].tolist())
    assert len(behind) >= {"nih512": 33, "kermany224": 145}[protocol.catalogue.name]
