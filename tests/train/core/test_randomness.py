"""One seed, and words for its uses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from prichexy_train.randomness import derive, generator, initialising, numpy_generator


def test_seeds_are_the_same_on_every_machine_and_for_good() -> None:
    # Written down once: a run that is taken up by a later version must draw the same.
    assert derive(1, "batches", 3) == 2803701289468543125
    assert derive(0) == 7520536977032167579


def test_uses_do_not_run_into_one_another() -> None:
    uses = [(1,), (2,), (1, "a"), (1, "a", "b"), (1, "ab"), (1, "a", 1), (1, "a", "1"), (1, 1)]

    assert len({derive(*use) for use in uses}) == len(uses)
    assert all(0 <= derive(*use) < 2**63 for use in uses)


@pytest.mark.parametrize("draw", [
    lambda *words: torch.rand(3, generator=generator(*words)).tolist(),
    lambda *words: numpy_generator(*words).random(3).tolist(),
])  # fmt: skip
def test_generators_follow_from_their_words(draw) -> None:  # type: ignore[no-untyped-def]
    assert draw(1, "a") == draw(1, "a")
    assert draw(1, "a") != draw(1, "b")
    assert draw(1, "a") != draw(2, "a")


def test_initial_weights_follow_from_words_and_leave_no_trace() -> None:
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)

    weights = []
    for word in ("a", "a", "b"):
        with initialising(1, word):
            weights.append(torch.nn.Linear(3, 3).weight.detach().numpy())

    assert np.array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])
    assert torch.equal(torch.rand(2), expected)
