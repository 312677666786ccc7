"""Images on the device: exact, in order, and only those that were offered."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from prichexy_testing.training import MemoryImages
from prichexy_train.feed import Feed, stored_exactly

BYTES = torch.arange(256.0).reshape(4, 1, 8, 8) / 255
HALVES = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(1)).half().float()
SINGLES = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize(
    ("images", "kind"),
    [(BYTES, torch.uint8), (HALVES, torch.float16), (SINGLES, torch.float32)],
)
def test_images_are_stored_in_the_smallest_type_that_keeps_them(
    images: Tensor, kind: torch.dtype
) -> None:
    stored = stored_exactly(MemoryImages(images), np.array([1, 3]), DEVICE, room=10**6)

    assert stored is not None
    assert stored.dtype == kind
    assert stored.shape == (2, 1, 8, 8)


def test_a_type_that_keeps_the_first_images_only_is_not_taken() -> None:
    mixed = MemoryImages(torch.cat([BYTES] * 500 + [HALVES]))

    stored = stored_exactly(mixed, np.arange(len(mixed)), DEVICE, room=10**7)

    assert stored is not None
    assert stored.dtype != torch.uint8


def test_what_does_not_fit_is_not_stored() -> None:
    rows = np.arange(4)
    assert stored_exactly(MemoryImages(BYTES), rows, DEVICE, room=4 * 64) is not None
    assert stored_exactly(MemoryImages(BYTES), rows, DEVICE, room=4 * 64 - 1) is None
    assert stored_exactly(MemoryImages(HALVES), rows, DEVICE, room=4 * 64) is None


def test_on_a_processor_images_are_read_when_they_are_asked_for() -> None:
    feed = Feed(MemoryImages(BYTES), torch.device("cpu"), hold=True)

    assert not feed.held
    assert feed.size == 8
    assert torch.equal(feed.gather(np.array([2, 0, 2])), BYTES[[2, 0, 2]])


@pytest.mark.gpu
@pytest.mark.parametrize("images", [BYTES, HALVES, SINGLES])
def test_held_images_come_back_exactly(images: Tensor) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    feed = Feed(MemoryImages(images), torch.device("cuda"), np.array([3, 1, 1]))

    assert feed.held
    assert torch.equal(feed.gather(np.array([1, 3, 1])).cpu(), images[[1, 3, 1]])
    with pytest.raises(IndexError, match="not offered"):
        feed.gather(np.array([0]))
