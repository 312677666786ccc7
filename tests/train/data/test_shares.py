"""A share of the patients: whole patients, of every kind, and the smaller share in the larger."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from prichexy_train.data.shares import rows_of_a_share

#: Two sets: 40 patients with one to four images each, then 24.
PATIENTS = np.concatenate([np.full(1 + n % 4, n) for n in range(64)])
SETS = (PATIENTS >= 40).astype(np.int64)
ROWS = np.flatnonzero(PATIENTS % 5 > 0)


def drawn(share: float, seed: int = 1) -> NDArray[np.int64]:
    return rows_of_a_share(ROWS, PATIENTS, SETS, share, np.random.default_rng(seed))


def test_all_patients_are_all_rows() -> None:
    np.testing.assert_array_equal(drawn(1.0), ROWS)


@given(st.floats(0.01, 1), st.floats(0.01, 1), st.integers(0, 9))
def test_a_smaller_shares_rows_are_among_a_larger_ones(a: float, b: float, seed: int) -> None:
    small, large = (set(drawn(share, seed).tolist()) for share in sorted((a, b)))
    assert small <= large


@given(st.floats(0.01, 1))
def test_a_patient_is_there_with_all_images_or_not_at_all(share: float) -> None:
    rows = drawn(share)
    assert np.all(np.diff(rows) > 0)
    np.testing.assert_array_equal(rows, ROWS[np.isin(PATIENTS[ROWS], PATIENTS[rows])])


@pytest.mark.parametrize("share", [0.125, 0.25, 0.5])
def test_each_set_and_those_with_several_images_keep_their_share(share: float) -> None:
    counts = np.bincount(PATIENTS)
    chosen = np.unique(PATIENTS[drawn(share)])
    for own in (0, 1):
        for several in (False, True):
            there = [
                p
                for p in np.unique(PATIENTS[ROWS])
                if (p >= 40) == own and (counts[p] > 1) == several
            ]
            kept = np.isin(there, chosen).sum()
            assert kept == max(1, round(share * len(there)))


def test_another_generator_draws_other_patients() -> None:
    assert set(drawn(0.25, 1).tolist()) != set(drawn(0.25, 2).tolist())
