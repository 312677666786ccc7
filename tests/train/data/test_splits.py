from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prichexy_train.data.catalogue import Catalogue, ImageRecord
from prichexy_train.data.settings import DrawnSplit
from prichexy_train.data.splits import drawn_split, kin

Build = Callable[..., Catalogue]
TRAIN, VAL, TEST = 0, 1, 2


def numbered(series: str, *numbers: int) -> list[tuple[str, dict[str, Any]]]:
    return [(f"{series}{number}", {"serial": (series, number)}) for number in numbers]


def split(
    catalogue: Catalogue, near: list[tuple[int, int]] | None = None, **settings: Any
) -> tuple[list[int], dict[str, int]]:
    parts, left_out = drawn_split(
        catalogue, kin(catalogue, near or []), DrawnSplit(by="drawn", **settings)
    )
    return parts.tolist(), left_out


def test_near_duplicates_tie_patients_together_also_over_others(catalogue_of: Build) -> None:
    catalogue = catalogue_of(["a", "a", "b", "c", "d", "c", "e"])
    relatives = kin(catalogue, [(1, 2), (2, 5)])
    assert len(set(relatives[[0, 1, 2, 3, 5]].tolist())) == 1
    assert len(set(relatives[[0, 4, 6]].tolist())) == 3


@given(
    patients=st.lists(st.integers(0, 40), min_size=1, max_size=120),
    near=st.lists(st.tuples(st.integers(0, 119), st.integers(0, 119)), max_size=10),
    serial=st.booleans(),
    seed=st.integers(0, 5),
    block=st.integers(2, 9),
)
def test_no_patient_no_near_duplicate_and_no_neighbour_is_on_two_sides(
    patients: list[int], near: list[tuple[int, int]], serial: bool, seed: int, block: int
) -> None:
    images = tuple(
        ImageRecord(str(index), str(patient), "", serial=("s", patient) if serial else None)
        for index, patient in enumerate(patients)
    )
    catalogue = Catalogue("any", (), images)
    near = [(a % len(images), b % len(images)) for a, b in near]
    parts, left_out = split(catalogue, near, seed=seed, block=block, val=0.2, test=0.3)
    assert parts.count(-1) == sum(left_out.values())
    for a, b in combinations(range(len(images)), 2):
        if -1 in (parts[a], parts[b]) or parts[a] == parts[b]:
            continue
        assert patients[a] != patients[b]
        assert (a, b) not in near
        assert (b, a) not in near
        assert not (serial and abs(patients[a] - patients[b]) == 1)


def test_parts_have_their_shares_of_those_with_several_images_and_of_the_others(
    catalogue_of: Build,
) -> None:
    several = [f"m{patient}" for patient in range(40) for _ in range(3)]
    catalogue = catalogue_of([*several, *(f"s{patient}" for patient in range(100))])
    parts, left_out = split(catalogue, val=0.1, test=0.3)
    assert left_out == {}
    assert [parts[:120].count(part) for part in (TRAIN, VAL, TEST)] == [72, 12, 36]
    assert [parts[120:].count(part) for part in (TRAIN, VAL, TEST)] == [60, 10, 30]


def test_another_seed_is_another_split_and_the_same_seed_the_same(catalogue_of: Build) -> None:
    catalogue = catalogue_of([f"p{patient}" for patient in range(60)])
    assert split(catalogue, seed=1) == split(catalogue, seed=1) != split(catalogue, seed=2)


def test_each_series_is_shared_out_for_itself(catalogue_of: Build) -> None:
    rows = numbered("bacteria", *range(400)) + numbered("virus", *range(400))
    parts, _ = split(catalogue_of(rows), block=10, val=0.1, test=0.2)
    for series in (parts[:400], parts[400:]):
        assert series.count(TEST) == pytest.approx(80, abs=15)
        assert series.count(VAL) == pytest.approx(40, abs=10)


def test_at_an_edge_the_neighbour_in_the_larger_part_is_left_out_with_all_its_images(
    catalogue_of: Build,
) -> None:
    rows = [row for row in numbered("s", *range(200)) for _ in range(2)]
    catalogue = catalogue_of(rows)
    parts, left_out = split(catalogue, block=20, val=0.1, test=0.2)
    gone = np.flatnonzero(np.array(parts) == -1)
    assert left_out == {"images of neighbours by number across the split's edge": len(gone)}
    assert len(gone) > 0
    numbers = {catalogue.serials[image, 1] for image in gone}
    assert len(gone) == 2 * len(numbers)
    # Training is by far the largest part: only where validation meets test does another lose.
    assert parts.count(TEST) == 80 or parts.count(VAL) == 40


def test_numbers_in_different_series_are_no_neighbours(catalogue_of: Build) -> None:
    rows = numbered("bacteria", *range(0, 100, 2)) + numbered("virus", *range(1, 100, 2))
    _, left_out = split(catalogue_of(rows), block=2)
    assert left_out == {}
