from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prichexy_train.data.catalogue import Catalogue, ImageRecord
from prichexy_train.data.drawing import draw_pairs
from prichexy_train.data.pairs import Pairs
from prichexy_train.data.settings import DrawnPairs
from prichexy_train.data.splits import kin

Build = Callable[..., Catalogue]


def draw(
    catalogue: Catalogue,
    *,
    images: list[int] | None = None,
    near: list[tuple[int, int]] | None = None,
    seed: int = 1,
    **settings: Any,
) -> tuple[Pairs, dict[str, int]]:
    chosen = np.array(range(len(catalogue)) if images is None else images, np.int64)
    return draw_pairs(
        catalogue,
        chosen,
        kin(catalogue, near or []),
        near or [],
        DrawnPairs(**{"count": 10_000, **settings}),
        np.random.default_rng(seed),
    )


def rows(pairs: Pairs) -> list[tuple[int, int, bool]]:
    return list(zip(pairs.first.tolist(), pairs.second.tolist(), pairs.same.tolist(), strict=True))


@st.composite
def catalogues(draws: st.DrawFn) -> Catalogue:
    patients = draws(st.lists(st.integers(0, 15), min_size=0, max_size=40))
    serial = draws(st.booleans())
    images = []
    for index, patient in enumerate(patients):
        sex = "MF"[patient % 2] if patient % 5 else ""
        age = draws(st.sampled_from([None, 30, 31, 32, 40]))
        view = draws(st.sampled_from(["PA", "AP"]))
        labels = frozenset(draws(st.sets(st.sampled_from(["Mass", "Other"]))))
        number = ("s", patient) if serial else None
        images.append(
            ImageRecord(str(index), str(patient), "", labels, view, sex, age, serial=number)
        )
    return Catalogue("any", ("Mass",), tuple(images))


@given(
    catalogue=catalogues(),
    near=st.lists(st.tuples(st.integers(0, 39), st.integers(0, 39)), max_size=5),
    a_patient=st.sampled_from([None, 1, 3]),
    match=st.sets(st.sampled_from(["labels", "view", "sex", "age"])),
    count=st.integers(2, 60),
    keep=st.integers(1, 4),
)
def test_whatever_is_drawn_keeps_every_rule(
    catalogue: Catalogue,
    near: list[tuple[int, int]],
    a_patient: int | None,
    match: set[str],
    count: int,
    keep: int,
) -> None:
    near = [pair for pair in near if max(pair) < len(catalogue)]
    images = [index for index in range(len(catalogue)) if index % keep == 0]
    settings = {"count": count, "a_patient": a_patient, "match": tuple(match)}
    pairs, _ = draw(catalogue, images=images, near=near, **settings)
    relatives, (series, numbers) = kin(catalogue, near), catalogue.serials.T
    half = len(pairs) // 2
    assert pairs.same.tolist() == [True] * half + [False] * half
    assert len(pairs) <= count
    unordered = [frozenset((a, b)) for a, b, _ in rows(pairs)]
    assert len(set(unordered)) == len(unordered)
    assert all(len(pair) == 2 for pair in unordered)
    assert set(pairs.first.tolist()) | set(pairs.second.tolist()) <= set(images)
    forbidden = {frozenset(pair) for pair in near}
    for a, b, same in rows(pairs):
        assert same == bool(catalogue.patients[a] == catalogue.patients[b])
        assert frozenset((a, b)) not in forbidden
        if not same:
            assert relatives[a] != relatives[b]
            assert not (series[a] == series[b] >= 0 and abs(numbers[a] - numbers[b]) <= 1)
    behind = Counter(catalogue.patients[pairs.first[pairs.same]].tolist())
    assert a_patient is None or all(times <= a_patient for times in behind.values())
    if match:
        for (a, b, _), (again, c, _) in zip(rows(pairs)[:half], rows(pairs)[half:], strict=True):
            assert again == a
            one, other = catalogue.images[b], catalogue.images[c]
            if "labels" in match:
                assert one.labels & {"Mass"} == other.labels & {"Mass"}
            if "view" in match:
                assert one.view == other.view
            if "sex" in match:
                assert one.sex == other.sex != ""
            if "age" in match:
                assert one.age is not None
                assert other.age is not None
                assert abs(one.age - other.age) <= 2


def test_the_same_seed_draws_the_same_and_another_seed_others(catalogue_of: Build) -> None:
    catalogue = catalogue_of([patient for patient in range(30) for _ in range(3)])
    first, again, other = (rows(draw(catalogue, seed=seed, count=40)[0]) for seed in (1, 1, 2))
    assert first == again != other


def test_few_images_give_all_the_pairs_there_are(catalogue_of: Build) -> None:
    catalogue = catalogue_of(["a", "a", "a", "b"])
    pairs, left_out = draw(catalogue)
    assert {frozenset(row[:2]) for row in rows(pairs) if row[2]} == {
        frozenset(pair) for pair in ((0, 1), (0, 2), (1, 2))
    }
    assert {frozenset(row[:2]) for row in rows(pairs) if not row[2]} == {
        frozenset(pair) for pair in ((0, 3), (1, 3), (2, 3))
    }
    assert left_out == {}


@pytest.mark.parametrize("patients", [[], ["a"], ["a", "a"], ["a", "b"], ["a", "b", "c"]])
def test_where_one_kind_of_pair_is_impossible_there_are_none(
    catalogue_of: Build, patients: list[str]
) -> None:
    assert len(draw(catalogue_of(patients))[0]) == 0


def test_without_a_limit_every_two_images_of_a_patient_are_as_likely(catalogue_of: Build) -> None:
    # 45 pairs of one patient against 10 of the ten others: the paper's test list is like this.
    catalogue = catalogue_of(["many"] * 10 + [p for p in range(10) for _ in range(2)])
    times = Counter[int]()
    for seed in range(60):
        pairs, _ = draw(catalogue, seed=seed, count=22)
        times.update(catalogue.patients[pairs.first[pairs.same]].tolist())
    assert times[0] / sum(times.values()) == pytest.approx(45 / 55, abs=0.05)


def test_with_a_limit_of_one_every_patient_is_as_likely(catalogue_of: Build) -> None:
    # The paper's training list is like this.
    catalogue = catalogue_of(["many"] * 10 + [p for p in range(10) for _ in range(2)])
    times = Counter[int]()
    for seed in range(60):
        pairs, _ = draw(catalogue, seed=seed, count=10, a_patient=1)
        times.update(catalogue.patients[pairs.first[pairs.same]].tolist())
    assert set(times) == set(range(11))
    assert times[0] / sum(times.values()) == pytest.approx(1 / 11, abs=0.05)


def test_either_image_may_be_the_first(catalogue_of: Build) -> None:
    catalogue = catalogue_of([patient for patient in range(100) for _ in range(2)])
    pairs, _ = draw(catalogue)
    assert 25 < (pairs.first < pairs.second)[pairs.same].sum() < 75


def test_near_duplicates_are_counted_where_they_are_left_out(catalogue_of: Build) -> None:
    catalogue = catalogue_of(["a", "a", "a", "b", "c"])
    pairs, left_out = draw(catalogue, near=[(1, 0), (3, 4)])
    assert left_out == {"pairs of nearly the same picture": 1}
    assert (3, 4) not in [tuple(sorted(row[:2])) for row in rows(pairs)]


def test_a_pair_without_a_twin_is_counted_and_another_takes_its_place(catalogue_of: Build) -> None:
    view = [{"view": "AP"}, {"view": "PA"}, {"view": "PA"}, {"view": "PA"}]
    catalogue = catalogue_of([("a", view[0]), ("a", view[0]), ("b", view[1]), ("b", view[2])])
    pairs, left_out = draw(catalogue, match=("view",))
    assert len(pairs) == 0
    assert left_out == {"pairs of one patient that have no match among the others": 2}
    more = catalogue_of(
        [("a", view[0]), ("a", view[0]), ("b", view[1]), ("b", view[2]), ("c", view[3])]
    )
    pairs, left_out = draw(more, match=("view",))
    assert len(pairs) == 2
    assert left_out == {"pairs of one patient that have no match among the others": 1}


def test_the_nearest_age_is_taken_first_and_an_image_used_least(catalogue_of: Build) -> None:
    def aged(patient: str, *ages: int) -> list[tuple[str, dict[str, int]]]:
        return [(patient, {"age": age}) for age in ages]

    catalogue = catalogue_of(
        aged("a", 50, 50) + aged("b", 50, 50) + aged("c", 52) + aged("d", 50, 50)
    )
    pairs, _ = draw(catalogue, match=("age",), a_patient=1)
    assert len(pairs) == 6
    chosen = Counter(pairs.second[~pairs.same].tolist())
    assert 4 not in chosen, "two years away, while others are of the same age"
    assert set(chosen.values()) == {1}
