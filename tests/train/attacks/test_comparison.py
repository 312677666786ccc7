from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from prichexy_model.backbones import build_backbone
from prichexy_model.verifier import HEADS, Head, SiameseVerifier
from prichexy_testing.training import MemoryImages
from prichexy_train.attacks import comparison
from prichexy_train.attacks.comparison import (
    Features,
    OfVerifier,
    Pixels,
    likeness,
    score,
)
from prichexy_train.data.pairs import Pairs
from prichexy_train.errors import Misconfigured
from prichexy_train.feed import Feed
from prichexy_train.judging import pair_logits
from prichexy_train.randomness import initialising

CPU = torch.device("cpu")
SIZE = 32
SOURCE = np.random.default_rng(8)
PAIRS = Pairs(SOURCE.integers(10, size=30), SOURCE.integers(10, size=30), np.arange(30) < 15)


def images(seed: int) -> MemoryImages:
    return MemoryImages(
        torch.rand(10, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
    )


def verifier(head: Head) -> SiameseVerifier:
    with initialising(1, "test"):
        return SiameseVerifier("tiny", head, embedding=8, size=SIZE).eval()


@pytest.mark.parametrize("head", HEADS)
def test_a_verifier_scores_anonymised_first_and_real_second_images(head: Head) -> None:
    network, first, second = verifier(head), Feed(images(1), CPU), Feed(images(2), CPU)
    found = score(OfVerifier(network), first, second, PAIRS, batch_size=3)
    expected = pair_logits(network, first, second, PAIRS).double().numpy()
    assert np.allclose(found, expected, atol=1e-5)
    assert not np.allclose(found, score(OfVerifier(network), second, first, PAIRS), atol=1e-3)


@pytest.mark.parametrize("head", HEADS)
def test_a_gallery_is_ranked_as_pairs_are(head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    comparator = OfVerifier(verifier(head))
    with torch.no_grad():
        a = comparator.embed(images(1).pixels, "first")
        b = comparator.embed(images(2).pixels[:7], "second")
        across = comparator.across(a, b)
        each = torch.stack([comparator.compare(a, b[k].expand_as(a)) for k in range(7)], 1)
        assert torch.equal(across.argsort(1), each.argsort(1))
        monkeypatch.setattr(comparison, "_BLOCK", 60)
        assert torch.allclose(comparator.across(a, b), across)


def test_pixels_are_correlated_and_a_flat_image_is_like_none() -> None:
    first, second = images(1), images(2)
    first.pixels[0] = 0.25
    found = score(Pixels(SIZE), Feed(first, CPU), Feed(second, CPU), PAIRS)
    for row, (i, j) in enumerate(zip(PAIRS.first, PAIRS.second, strict=True)):
        a, b = first.pixels[i].numpy().ravel(), second.pixels[j].numpy().ravel()
        expected = 0.0 if i == 0 else np.corrcoef(a, b)[0, 1]
        assert found[row] == pytest.approx(expected, abs=1e-5)


def test_what_all_images_of_a_side_have_in_common_counts_for_nothing() -> None:
    with initialising(1, "test"):
        backbone = build_backbone("tiny")
    features = Features(backbone, SIZE)
    one, other = Feed(images(1), CPU), Feed(images(2), CPU)
    features.centre("first", one, np.arange(10), 4)
    features.centre("second", other, np.arange(10), 4)
    found = score(features, one, other, PAIRS)

    class Shifted(torch.nn.Module):
        features = backbone.features

        def forward(self, given: Tensor) -> Tensor:
            shifted: Tensor = backbone(given) + torch.arange(backbone.features)
            return shifted

    shifted = Features(Shifted(), SIZE)  # type: ignore[arg-type]
    shifted.centre("first", one, np.arange(10), 10)
    shifted.centre("second", other, np.arange(10), 10)
    assert np.allclose(found, score(shifted, one, other, PAIRS), atol=1e-3)


def test_features_without_weights_are_the_same_each_time_and_with_odd_ones_refused(
    tmp_path: Path,
) -> None:
    one, other = (Features.of("tiny", None, SIZE, CPU) for _ in range(2))
    feed = Feed(images(1), CPU)
    for features in (one, other):
        features.centre("first", feed, np.arange(10), 5)
    assert torch.equal(*(features.embed(images(2).pixels, "first") for features in (one, other)))
    (tmp_path / "weights.pt").write_bytes(b"no weights")
    with pytest.raises(Misconfigured, match=r"weights\.pt"):
        Features.of("resnet50", tmp_path / "weights.pt", SIZE, CPU)


def test_one_comparators_ranking_is_not_changed_by_standardising() -> None:
    comparator = OfVerifier(verifier("cosine"))
    a, b = torch.rand(2, 6, 8, generator=torch.Generator().manual_seed(2))
    alone = likeness([(comparator, 1.0, a, b)])
    assert torch.equal(alone.argsort(1), comparator.across(a, b).argsort(1))
    assert torch.allclose(
        likeness([(comparator, 0.75, a, b), (comparator, -0.25, a, b)]), alone / 2
    )
    assert likeness([(comparator, 1.0, a, torch.ones(6, 8))]).isfinite().all()
