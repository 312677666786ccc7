"""Which way scores point, and how much they are worth, from pairs that are no test."""

from __future__ import annotations

import numpy as np
import pytest

from prichexy_train.attacks.validating import (
    Scores,
    Validated,
    combined,
    standardised,
    validated,
    weights,
)

PATIENTS = np.arange(150)
SAME = np.arange(300) < 150
FIRST = np.concatenate((PATIENTS, PATIENTS))
SECOND = np.concatenate((PATIENTS, np.roll(PATIENTS, 1)))


def reached(signal: float, seed: int = 1) -> Validated:
    noise: Scores = np.random.default_rng(seed).normal(size=len(SAME))
    return validated(signal * SAME + noise, SAME, FIRST, SECOND)


def test_who_is_wrong_beyond_doubt_is_turned_round() -> None:
    right, wrong = reached(2.0), reached(-2.0)
    assert right.auc > 0.9
    assert wrong.auc < 0.1
    assert (right.sign, wrong.sign) == (1, -1)
    assert wrong.interval is not None
    assert wrong.interval[1] < 0.5
    assert wrong.weight > 0.8
    assert right.weight > 0.8


def test_who_is_below_chance_by_chance_is_not_turned() -> None:
    found = [reached(0.0, seed) for seed in range(40)]
    below = [one for one in found if one.auc < 0.5]
    assert len(below) > 10
    assert sum(one.sign == -1 for one in found) <= 3
    assert all(one.weight == 0 for one in below if one.sign == 1)
    assert Validated(0.2, None).sign == 1, "without an interval nothing is known"


def test_shares_go_by_what_validation_gave() -> None:
    members = {
        "good": Validated(0.9, (0.8, 1.0)),
        "inverted": Validated(0.3, (0.2, 0.4)),
        "at chance": Validated(0.49, (0.4, 0.6)),
    }
    found = weights(members)
    assert found == pytest.approx({"good": 2 / 3, "inverted": -1 / 3, "at chance": 0.0})
    lost = {"a": Validated(0.49, (0.4, 0.6)), "b": Validated(0.5, (0.4, 0.6))}
    assert weights(lost) == {"a": 0.5, "b": 0.5}
    assert weights({"good": members["good"], "unknown": None}) == {"good": 0.5, "unknown": 0.5}


def test_an_ensemble_hears_a_quiet_member_as_well_as_a_loud_one() -> None:
    a, b = np.random.default_rng(8).normal(size=(2, 50))
    even = {"a": 0.5, "b": 0.5}
    quiet, loud = combined({"a": a, "b": b}, even), combined({"a": 1000 * a + 3, "b": b}, even)
    assert np.allclose(quiet, loud)
    assert np.array_equal(standardised(np.full(5, 0.1)), np.zeros(5))
    # A member that says nothing changes no order, and one that is turned round turns it.
    silent = combined({"a": a, "b": np.full(50, 0.7)}, even)
    assert np.array_equal(silent.argsort(), a.argsort())
    assert np.allclose(combined({"a": a}, {"a": -1.0}), -standardised(a))
