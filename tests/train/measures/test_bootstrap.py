from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from prichexy_train.measures import bootstrap
from prichexy_train.measures.auc import auc
from prichexy_train.measures.bootstrap import (
    Resamples,
    interval,
    mean_over_seeds,
    pair_weights,
    weighted_auc,
    weighted_mean,
)

ROWS = 12


@settings(max_examples=50, deadline=None)
@given(
    arrays.arrays(np.int64, ROWS, elements=st.integers(0, 5)),
    arrays.arrays(np.int64, ROWS, elements=st.integers(0, 3)),
)
def test_a_row_of_weight_three_counts_as_three_rows(scores: np.ndarray, times: np.ndarray) -> None:
    positive = np.arange(ROWS) % 3 == 0
    found = weighted_auc(scores, positive)(times[:, None].astype(np.float32))
    repeated = np.repeat(np.arange(ROWS), times)
    kinds = positive[repeated]
    if kinds.all() or not kinds.any():
        assert np.isnan(found[0])
    else:
        assert found[0] == pytest.approx(auc(scores[repeated], kinds))
    total = times.sum()
    mean = weighted_mean(scores)(times[:, None].astype(np.float32))[0]
    assert np.isnan(mean) if total == 0 else mean == pytest.approx(scores[repeated].mean())


def test_a_pair_of_two_patients_counts_as_often_as_it_could_be_formed() -> None:
    times = np.array([[0.0], [2.0], [3.0]], np.float32)
    first, second = np.array([0, 1, 1, 2]), np.array([1, 1, 2, 2])
    assert pair_weights(times, first, second).tolist() == [[0.0], [2.0], [6.0], [3.0]]


def test_a_resample_draws_as_many_patients_as_there_are() -> None:
    resamples = Resamples(np.array([7, 3, 3, 11]), 50)
    drawn = resamples.of(lambda weights: weights.sum(axis=0), np.array([3, 7, 11]))
    assert drawn.tolist() == [3.0] * 50


def test_resamples_depend_on_who_the_patients_are_and_on_nothing_else() -> None:
    one = Resamples(np.array([5, 9, 2]), 20)
    other = Resamples(np.array([2, 9, 9, 5, 5]), 20)
    rows = np.array([9, 2, 5, 9])
    assert np.array_equal(one.of(np.transpose, rows), other.of(np.transpose, rows))
    with pytest.raises(ValueError, match="not among"):
        one.rows(np.array([4]))


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    source = np.random.default_rng(0)
    scores, positive = source.normal(size=40), source.random(40) < 0.5
    patients, others = source.integers(10, size=40), source.integers(10, size=40)
    resamples = Resamples(np.arange(10), 101)
    whole = resamples.of(weighted_auc(scores, positive), patients, others)
    monkeypatch.setattr(bootstrap, "_BLOCK", 90)
    assert np.array_equal(
        whole, resamples.of(weighted_auc(scores, positive), patients, others), equal_nan=True
    )


def test_there_is_no_interval_where_half_of_the_resamples_have_no_figure() -> None:
    assert interval(np.array([0.5, np.nan])) is None
    assert interval(np.array([])) is None
    assert interval(np.array([0.4, 0.5, 0.6, np.nan])) == pytest.approx((0.405, 0.595))


def pairs_of_a_study(
    source: np.random.Generator, patients: int, kind: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give first, second patients and scores; a patient has an effect on all pairs of theirs."""
    if kind == "matched":
        first = np.tile(np.arange(patients), 2)
        second = np.concatenate([np.arange(patients), np.roll(np.arange(patients), 1)])
    else:
        share = source.pareto(1.5, size=patients) + 0.1
        positives = source.choice(patients, size=4 * patients, p=share / share.sum())
        others = source.integers(patients, size=4 * patients)
        shift = 1 + source.integers(patients - 1, size=4 * patients)
        first = np.concatenate([positives, others])
        second = np.concatenate([positives, (others + shift) % patients])
    same = first == second
    own, common = source.normal(size=(2, patients)) * 0.7
    scores = np.where(same, 1 + own[first], (common[first] + common[second]) / np.sqrt(2))
    return first, second, scores + source.normal(size=len(first)) * 0.7


def coverage(kind: str, patients: int, trials: int, *, by_patient: bool) -> float:
    # Positive scores are N(1, 0.98), negative ones N(0, 0.98).
    truth = NormalDist().cdf(1 / np.sqrt(2 * 0.98))
    held = 0
    for trial in range(trials):
        source = np.random.default_rng([trial, patients])
        first, second, scores = pairs_of_a_study(source, patients, kind)
        measure = weighted_auc(scores, first == second)
        if by_patient:
            resamples = Resamples(np.arange(patients), 200, seed=trial)
            around = interval(resamples.of(measure, first, second))
        else:
            rows = np.arange(len(scores))
            around = interval(Resamples(rows, 200, seed=trial).of(measure, rows))
        assert around is not None
        held += around[0] <= truth <= around[1]
    return held / trials


def test_intervals_hold_the_truth_on_a_list_with_one_pair_a_patient() -> None:
    assert coverage("matched", 60, 120, by_patient=True) >= 0.94


def test_intervals_hold_the_truth_where_a_few_patients_have_most_pairs() -> None:
    # Pairs that are resampled one by one pass for independent: that is what patients are for.
    assert coverage("skewed", 40, 80, by_patient=True) >= 0.89
    assert coverage("skewed", 40, 80, by_patient=False) < 0.75


def test_drawn_seeds_vary_as_much_as_a_mean_of_trainings_does() -> None:
    seeds = np.array([0.55, 0.7, 0.62, 0.66, 0.81])
    means = mean_over_seeds(np.repeat(seeds[:, None], 200_000, axis=1), stream=0)
    assert means.mean() == pytest.approx(seeds.mean(), abs=1e-3)
    assert means.std() == pytest.approx(seeds.std(ddof=1) / 5**0.5, rel=0.01)


def test_one_seed_is_taken_as_it_is() -> None:
    values = np.linspace(0, 1, 9)[None]
    assert np.array_equal(mean_over_seeds(values, stream=0), values[0])


def test_seeds_are_drawn_alike_in_one_stream_and_apart_in_two() -> None:
    values = np.random.default_rng(1).normal(size=(4, 100))
    again = mean_over_seeds(values, stream=0)
    assert np.array_equal(mean_over_seeds(values, stream=0), again)
    assert not np.array_equal(mean_over_seeds(values, stream=1), again)
