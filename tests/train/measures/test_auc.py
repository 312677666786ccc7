from __future__ import annotations

import numpy as np
import pytest

from prichexy_train.measures.auc import MeasureError, auc, mean_auc_by_set, roc_points

RANDOM = np.random.default_rng(5)


def by_counting(scores: np.ndarray, positive: np.ndarray) -> float:
    wins = [
        (a > b) + (a == b) / 2
        for a in scores[positive].tolist()
        for b in scores[~positive].tolist()
    ]
    return float(np.mean(wins))


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_it_is_the_share_of_pairs_in_the_right_order(levels: int) -> None:
    scores = RANDOM.integers(levels, size=60).astype(float)
    positive = RANDOM.random(60) < 0.3
    assert auc(scores, positive) == pytest.approx(by_counting(scores, positive))


def test_equal_scores_are_as_good_as_guessing() -> None:
    assert auc(np.zeros(4), np.array([True, False, True, False])) == 0.5


def test_an_attacker_who_is_wrong_is_not_turned_into_one_who_is_right() -> None:
    assert auc(np.array([0.0, 1.0]), np.array([True, False])) == 0.0


@pytest.mark.parametrize(
    ("scores", "positive"),
    [
        (np.array([1.0, 2.0]), np.array([True, True])),
        (np.array([1.0, 2.0]), np.array([False, False])),
        (np.array([1.0, np.nan]), np.array([True, False])),
        (np.array([1.0, np.inf]), np.array([True, False])),
        (np.array([1.0]), np.array([True, False])),
    ],
)
def test_there_is_no_figure_where_none_exists(scores: np.ndarray, positive: np.ndarray) -> None:
    with pytest.raises(MeasureError):
        auc(scores, positive)


def test_a_label_that_all_or_no_images_have_is_not_in_the_mean() -> None:
    targets = np.array([[1, 0, 1], [0, 0, 1], [1, 0, 1], [0, 0, 1]], float)
    scores = np.array([[4.0, 1, 1], [3, 2, 2], [2, 3, 3], [1, 4, 4]])
    alone = np.zeros(4, int)
    assert mean_auc_by_set(scores, targets, alone) == (0.75, (0.75, None, None))
    with pytest.raises(MeasureError):
        mean_auc_by_set(scores[:, 1:], targets[:, 1:], alone)


def test_telling_sets_apart_tells_no_label() -> None:
    sets = np.repeat([0, 1], 50)
    targets = (RANDOM.random((100, 1)) < np.where(sets == 0, 0.1, 0.9)[:, None]).astype(float)
    of_the_set = sets[:, None].astype(float)
    assert auc(of_the_set[:, 0], targets[:, 0] > 0) > 0.7
    assert mean_auc_by_set(of_the_set, targets, sets) == (0.5, (0.5,))


def test_a_label_is_measured_where_it_was_looked_for() -> None:
    unknown = np.nan
    targets = np.array([[1, 1], [0, 0], [1, unknown], [0, unknown], [1, unknown]])
    scores = np.array([[2.0, 1], [1, 2], [2, 9], [3, 9], [4, 9]])
    sets = np.array([0, 0, 1, 1, 1])
    mean, each = mean_auc_by_set(scores, targets, sets)
    assert each == (pytest.approx((1 + 0.5) / 2), 0.0)
    assert mean == pytest.approx(0.375)


def test_the_curve_runs_from_corner_to_corner_over_the_same_area() -> None:
    scores, positive = RANDOM.normal(size=50), RANDOM.random(50) < 0.5
    false, true = roc_points(scores, positive)
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(true, false) == pytest.approx(auc(scores, positive))
