from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from prichexy_train.data.catalogue import Catalogue, ImageRecord
from prichexy_train.data.pairs import Pairs
from prichexy_train.measures.demographics import (
    DIFFERENCES,
    demographics_auc,
    demographics_differences,
    demographics_score,
    fitted,
    original_size_score,
)


def catalogue_of(*people: dict[str, Any]) -> Catalogue:
    records = [ImageRecord(str(n), str(n), "", **person) for n, person in enumerate(people)]
    return Catalogue("x", (), tuple(records))


def scores(*pairs: tuple[int, int], catalogues: list[Catalogue]) -> list[float]:
    table = np.array(pairs, dtype=np.int64)
    return demographics_score(
        catalogues, Pairs(table[:, 0], table[:, 1], np.zeros(len(table), np.bool_))
    ).tolist()


def test_another_sex_weighs_more_than_any_age_and_age_more_than_the_view() -> None:
    people = catalogue_of(
        {"sex": "F", "age": 40, "view": "PA"},
        {"sex": "F", "age": 40, "view": "PA"},
        {"sex": "F", "age": 40, "view": "AP"},
        {"sex": "F", "age": 41, "view": "PA"},
        {"sex": "F", "age": 1, "view": "AP"},
        {"sex": "M", "age": 40, "view": "PA"},
    )
    found = scores(*[(0, other) for other in range(1, 6)], catalogues=[people])
    assert found == sorted(found, reverse=True)
    assert len(set(found)) == 5
    assert found == scores(*[(other, 0) for other in range(1, 6)], catalogues=[people])


def test_what_is_unknown_counts_as_the_known_ones_do_on_average() -> None:
    people = catalogue_of({"age": 10}, {"age": 12}, {"age": 16}, {})
    near, far, unknown = scores((0, 1), (0, 2), (0, 3), catalogues=[people])
    assert unknown == (near + far) / 2


def test_where_nothing_is_known_nothing_is_told_apart() -> None:
    people = catalogue_of({}, {}, {})
    pairs = Pairs(np.array([0, 1]), np.array([1, 2]), np.array([True, False]))
    assert demographics_auc([people], pairs) == 0.5


def test_pairs_count_through_several_catalogues() -> None:
    first, second = catalogue_of({"age": 10}), catalogue_of({"age": 10}, {"age": 30})
    assert scores((0, 1), (0, 2), catalogues=[first, second]) == pytest.approx([0, -20])


def test_sizes_are_compared_by_their_ratio_and_the_unknown_is_in_the_middle() -> None:
    sizes = [(1000, 1000), (1000, 1000), (2000, 2000), (1000, 2000), None, (500, 250)]
    images = catalogue_of(*({"original": size} for size in sizes))
    others = np.arange(1, len(sizes))
    pairs = Pairs(np.zeros_like(others), others, np.zeros(len(others), np.bool_))
    equal, doubled, taller, unknown, other = original_size_score([images], pairs).tolist()
    assert equal == 0
    assert taller == pytest.approx(-np.log(2))
    assert doubled == pytest.approx(-2 * np.log(2))
    assert other == pytest.approx(-3 * np.log(2))
    assert unknown == pytest.approx(-1.5 * np.log(2))


def test_what_is_fitted_counts_only_what_it_may_look_at_and_speaks_against_a_difference() -> None:
    random = np.random.default_rng(3)
    same = np.arange(400) < 200
    columns = [
        np.where(same, 0, random.random(400) < 0.5),
        np.where(same, random.integers(0, 3, 400), random.integers(0, 60, 400)),
        random.random(400) < 0.4,
    ]
    differences = np.stack(columns, axis=1).astype(np.float64)
    both = fitted(differences, same, ("sex", "age"))
    assert (both.weights[:2] < 0).all()
    assert both.weights[DIFFERENCES.index("view")] == 0
    unlike = np.array([[1.0, 0.0, 0.0], [0.0, 30.0, 0.0], [0.0, 0.0, 1.0]])
    assert both.score(unlike)[0] < both.score(unlike)[2] > both.score(unlike)[1]
    # A difference that no pair has weighs nothing.
    assert fitted(differences * [0, 1, 1], same, ("sex",)).weights.tolist() == [0, 0, 0]


def test_differences_count_the_unknown_as_the_known_ones_do_on_average() -> None:
    people = catalogue_of(
        {"sex": "F", "age": 40, "view": "PA"},
        {"sex": "M", "age": 50, "view": "PA"},
        {"sex": "", "age": None, "view": "AP"},
    )
    pairs = Pairs(np.array([0, 0]), np.array([1, 2]), np.zeros(2, np.bool_))
    assert demographics_differences([people], pairs).tolist() == [[1, 10, 0], [1, 10, 1]]
