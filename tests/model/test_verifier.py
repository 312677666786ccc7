"""The verifier compares two radiographs, either as the paper does or by a cosine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from prichexy_model.backbones import BACKBONES
from prichexy_model.preprocessing import imagenet, resize
from prichexy_model.verifier import HEADS, Head, SiameseVerifier
from prichexy_testing.shared_data import WEIGHTS, need


def images(batch: int, size: int = 32, seed: int = 0) -> torch.Tensor:
    return torch.rand(batch, 1, size, size, generator=torch.Generator().manual_seed(seed))


def tiny(head: Head, *, size: int = 32, embedding: int = 16) -> SiameseVerifier:
    """Give a small verifier in eval mode whose batch norms have seen something."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        verifier = SiameseVerifier("tiny", head, embedding=embedding, size=size)
        with torch.no_grad():
            for _ in range(30):
                verifier(images(8, size), images(8, size, seed=1))
    return verifier.eval()


def test_by_default_it_is_the_papers() -> None:
    verifier = SiameseVerifier("tiny")
    assert (verifier.head, verifier.size, verifier.backbone_name) == ("difference", 256, "tiny")
    assert verifier.embedding.out_features == 128
    assert verifier.decision.out_features == 1


def test_with_the_papers_backbone_it_has_the_papers_number_of_parameters() -> None:
    verifier = SiameseVerifier("resnet50")
    count = sum(parameter.numel() for parameter in verifier.parameters())
    assert count == 23_508_032 + 2048 * 128 + 128 + 128 + 1


def test_difference_is_what_the_definition_says() -> None:
    verifier = tiny("difference").double()
    x1, x2 = images(5).double(), images(5, seed=3).double()
    with torch.inference_mode():
        logits = verifier(x1, x2).numpy()
        features = [verifier.backbone(imagenet(resize(x, 32))).numpy() for x in (x1, x2)]
    state = {name: value.numpy() for name, value in verifier.state_dict().items()}
    embedded = [
        1 / (1 + np.exp(-(f @ state["embedding.weight"].T + state["embedding.bias"])))
        for f in features
    ]
    distance = np.abs(embedded[0] - embedded[1])
    expected = distance @ state["decision.weight"][0] + state["decision.bias"][0]
    assert expected.std() > 1e-3
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-12)


def test_cosine_is_what_the_definition_says() -> None:
    verifier = tiny("cosine").double()
    verifier.bias.data.fill_(-1.5)
    x1, x2 = images(5).double(), images(5, seed=3).double()
    with torch.inference_mode():
        logits = verifier(x1, x2).numpy()
        features = [verifier.backbone(imagenet(resize(x, 32))).numpy() for x in (x1, x2)]
    state = {name: value.numpy() for name, value in verifier.state_dict().items()}
    a, b = (f @ state["embedding.weight"].T + state["embedding.bias"] for f in features)
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    np.testing.assert_allclose(logits, np.exp(2.0) * cosine - 1.5, rtol=0, atol=1e-12)


def test_a_cosines_embeddings_have_length_one_and_the_papers_lie_between_zero_and_one() -> None:
    with torch.inference_mode():
        length = tiny("cosine").embed(images(4)).norm(dim=1)
        torch.testing.assert_close(length, torch.ones(4))
        embedded = tiny("difference").embed(images(4))
    assert embedded.shape == (4, 16)
    assert embedded.min() > 0
    assert embedded.max() < 1


@pytest.mark.parametrize("head", HEADS)
def test_the_comparison_is_symmetric_and_the_whole_is_embed_and_compare(head: Head) -> None:
    verifier = tiny(head)
    x1, x2 = images(3), images(3, seed=1)
    with torch.inference_mode():
        logits = verifier(x1, x2)
        assert logits.shape == (3,)
        assert torch.equal(logits, verifier(x2, x1))
        assert torch.equal(logits, verifier.compare(verifier.embed(x1), verifier.embed(x2)))


@pytest.mark.parametrize("head", HEADS)
def test_in_eval_mode_a_pair_does_not_see_the_others_of_its_batch(head: Head) -> None:
    verifier = tiny(head)
    x1, x2 = images(3), images(3, seed=1)
    with torch.inference_mode():
        together = verifier(x1, x2)
        alone = torch.cat([verifier(x1[i : i + 1], x2[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_it_resizes_whatever_it_is_given() -> None:
    verifier = tiny("difference")
    large = images(2, size=77)
    with torch.inference_mode():
        expected = verifier.embed(resize(large, 32))
        assert torch.equal(verifier.embed(large), expected)
        assert verifier.embed(images(2, size=20)).shape == expected.shape


@pytest.mark.parametrize("head", HEADS)
def test_under_autocast_its_logits_are_not_rounded_to_eight_bits(head: Head) -> None:
    verifier = tiny(head).to(memory_format=torch.channels_last)
    x1, x2 = images(64), images(64, seed=1)
    with torch.inference_mode():
        expected = verifier(x1, x2)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = verifier(x1, x2)
    assert logits.dtype == torch.float32
    assert torch.count_nonzero(logits.bfloat16().float() == logits) < 8
    assert len(logits.unique()) > 60
    assert (logits - expected).abs().max() < 0.1


@pytest.mark.parametrize("head", HEADS)
def test_a_gradient_reaches_both_images_and_every_parameter(head: Head) -> None:
    verifier = SiameseVerifier("tiny", head, embedding=16, size=32)
    x1, x2 = images(4).requires_grad_(), images(4, seed=1).requires_grad_()
    verifier(x1, x2).square().sum().backward()
    for name, value in [("x1", x1), ("x2", x2), *verifier.named_parameters()]:
        assert value.grad is not None, name
        assert value.grad.abs().sum() > 0, name


def test_equal_images_have_the_largest_cosine() -> None:
    verifier = tiny("cosine")
    x = images(3)
    with torch.inference_mode():
        itself = verifier(x, x)
        torch.testing.assert_close(itself, verifier.log_scale.exp().expand(3))
        assert (verifier(x, images(3, seed=9)) < itself).all()


@pytest.mark.parametrize("name", [name for name in BACKBONES if name != "resnet50"])
def test_every_backbone_serves(name: str) -> None:
    verifier = SiameseVerifier(name, size=32).eval()
    with torch.inference_mode():
        assert verifier(images(2), images(2, seed=1)).isfinite().all()


def test_it_starts_from_imagenets_weights() -> None:
    path = need(WEIGHTS)
    verifier = SiameseVerifier("efficientnet-lite0", size=64, pretrained=path)
    stem = verifier.backbone.network.get_submodule("_conv_stem").weight
    assert torch.equal(stem, torch.load(path, weights_only=True)["_conv_stem.weight"])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [({"head": "euclid"}, "difference, cosine"), ({"backbone_name": "vgg"}, "a backbone is one")],
)
def test_an_unknown_head_or_backbone_is_refused(arguments: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        SiameseVerifier(**{"backbone_name": "tiny", **arguments})
