"""How an epoch's rows become steps, above all those of contrastive training."""

from __future__ import annotations

import numpy as np
import pytest

from prichexy_train.errors import Misconfigured
from prichexy_train.stages.batches import ContrastBatches, in_batches

#: Patients 0 to 19 have 3 images, 20 to 59 have one.
PATIENTS = np.concatenate((np.repeat(np.arange(20), 3), np.arange(20, 60)))


def batches(serials: np.ndarray | None = None, rows: np.ndarray | None = None) -> ContrastBatches:
    return ContrastBatches(
        PATIENTS,
        np.arange(100) if rows is None else rows,
        np.full((100, 2), -1) if serials is None else serials,
        patients_in_batch=4,
        images_of_each=2,
        batch_size=12,
    )


def test_every_row_comes_up_once() -> None:
    pieces = in_batches(np.arange(10)[::-1], 4)

    assert [len(piece) for piece in pieces] == [4, 4, 2]
    assert np.concatenate(pieces).tolist() == list(range(10))[::-1]


def test_a_last_batch_of_one_row_is_left_out() -> None:
    assert [len(piece) for piece in in_batches(np.arange(9), 4)] == [4, 4]
    assert [len(piece) for piece in in_batches(np.arange(3), 1)] == [1, 1, 1]


def test_a_batch_holds_several_images_of_some_patients_and_one_of_others() -> None:
    for batch in batches().epoch(np.random.default_rng(1)):
        _, counts = np.unique(PATIENTS[batch], return_counts=True)

        assert sorted(counts) == [1] * 4 + [2] * 4
        assert len(np.unique(batch)) == 12


def test_each_patient_with_several_images_comes_up_once_an_epoch() -> None:
    epoch = np.concatenate(batches().epoch(np.random.default_rng(1)))

    seen, counts = np.unique(PATIENTS[epoch], return_counts=True)
    assert counts[seen < 20].tolist() == [2] * 20


def test_epochs_differ_and_follow_from_their_generator() -> None:
    def epoch(seed: int) -> list[list[int]]:
        return [batch.tolist() for batch in batches().epoch(np.random.default_rng(seed))]

    assert epoch(1) == epoch(1)
    assert epoch(1) != epoch(2)


def test_only_the_given_rows_are_used() -> None:
    rows = np.flatnonzero(PATIENTS % 2 == 0)

    epoch = np.concatenate(batches(rows=rows).epoch(np.random.default_rng(1)))

    assert set(epoch) <= set(rows)


def test_neighbours_of_a_series_are_never_in_one_batch() -> None:
    # All in one series, the patients' numbers their places.
    serials = np.stack((np.zeros(100, np.int64), PATIENTS), axis=1)

    for seed in range(20):
        epoch = batches(serials).epoch(np.random.default_rng(seed))
        assert len(epoch) == 5
        for batch in epoch:
            places = np.unique(PATIENTS[batch])
            assert (np.diff(places) > 1).all()
            assert len(batch) >= 8


def test_too_few_patients_are_an_error_that_says_what_to_do() -> None:
    with pytest.raises(Misconfigured, match=r"3 patients .* wants 4: set contrast\.patients lower"):
        batches(rows=np.arange(9))


def test_an_epoch_over_a_share_of_the_patients_has_as_many_steps_as_one_over_all() -> None:
    few = np.flatnonzero((PATIENTS < 5) | (PATIENTS >= 50))  # 5 of 20 with several images
    epoch = batches(rows=few).epoch(np.random.default_rng(1), share=0.25)

    assert len(epoch) == len(batches().epoch(np.random.default_rng(1))) == 5
    assert set(np.concatenate(epoch).tolist()) <= set(few.tolist())
    for batch in epoch:
        _, counts = np.unique(PATIENTS[batch], return_counts=True)
        assert (counts == 2).sum() == 4
