"""The classifier gives a logit for every label, at whatever size the image comes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from prichexy_model.backbones import BACKBONES
from prichexy_model.classifier import AbnormalityClassifier
from prichexy_model.preprocessing import imagenet, resize

LABELS = ("Atelectasis", "Cardiomegaly", "Effusion")


def images(batch: int, size: int = 32, seed: int = 0) -> torch.Tensor:
    return torch.rand(batch, 1, size, size, generator=torch.Generator().manual_seed(seed))


def tiny() -> AbnormalityClassifier:
    """Give a small classifier in eval mode whose batch norms have seen something."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        classifier = AbnormalityClassifier("tiny", LABELS, size=32)
        with torch.no_grad():
            for _ in range(30):
                classifier(images(8))
    return classifier.eval()


def test_with_the_papers_backbone_it_has_the_papers_number_of_parameters() -> None:
    classifier = AbnormalityClassifier("densenet121", [str(number) for number in range(14)])
    count = sum(parameter.numel() for parameter in classifier.parameters())
    assert count == 6_953_856 + 1024 * 14 + 14
    assert classifier.size == 224


def test_it_is_a_linear_layer_on_the_features() -> None:
    classifier = tiny().double()
    x = images(4).double()
    with torch.inference_mode():
        features = classifier.backbone(imagenet(resize(x, 32))).numpy()
        logits = classifier(x).numpy()
    state = {name: value.numpy() for name, value in classifier.state_dict().items()}
    expected = features @ state["decision.weight"].T + state["decision.bias"]
    assert expected.shape == (4, 3)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-12)


def test_it_knows_its_labels_in_their_order() -> None:
    assert tiny().labels == LABELS


def test_it_resizes_whatever_it_is_given() -> None:
    classifier = tiny()
    large = images(2, size=77)
    with torch.inference_mode():
        assert torch.equal(classifier(large), classifier(resize(large, 32)))


def test_in_eval_mode_an_image_does_not_see_the_others_of_its_batch() -> None:
    classifier = tiny()
    x = images(3)
    with torch.inference_mode():
        alone = torch.cat([classifier(image[None]) for image in x])
        torch.testing.assert_close(classifier(x), alone, rtol=0, atol=1e-5)


def test_under_autocast_its_logits_are_in_single_precision() -> None:
    classifier = tiny().to(memory_format=torch.channels_last)
    x = images(64)
    with torch.inference_mode():
        expected = classifier(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = classifier(x)
    assert logits.dtype == torch.float32
    assert torch.count_nonzero(logits.bfloat16().float() == logits) < 8
    assert (logits - expected).abs().max() < 0.1


def test_a_gradient_reaches_the_image_and_every_parameter() -> None:
    classifier = AbnormalityClassifier("tiny", LABELS, size=32)
    x = images(4, size=40).requires_grad_()
    classifier(x).square().sum().backward()
    for name, value in [("x", x), *classifier.named_parameters()]:
        assert value.grad is not None, name
        assert value.grad.abs().sum() > 0, name


@pytest.mark.parametrize("name", [name for name in BACKBONES if name != "resnet50"])
def test_every_backbone_serves(name: str) -> None:
    classifier = AbnormalityClassifier(name, LABELS, size=32).eval()
    with torch.inference_mode():
        assert classifier(images(2)).isfinite().all()


@pytest.mark.parametrize("labels", [(), ("Effusion", "Effusion")])
def test_no_label_and_one_named_twice_are_refused(labels: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="one label at least, and none of them twice"):
        AbnormalityClassifier("tiny", labels)


def test_an_unknown_backbone_is_refused() -> None:
    with pytest.raises(ValueError, match="a backbone is one of"):
        AbnormalityClassifier("vgg", LABELS)
