"""The backbones compute what their papers say, with the weights their authors published."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.networks.nets.densenet import DenseNet
from monai.networks.nets.efficientnet import EfficientNet
from monai.networks.nets.resnet import ResNet
from numpy.typing import NDArray
from torch import nn

from prichexy_model.backbones import BACKBONES, build_backbone
from prichexy_model.preprocessing import imagenet
from prichexy_model.weights import WeightsError
from prichexy_testing import network_reference
from prichexy_testing.shared_data import WEIGHTS, need

FEATURES = {"resnet50": 2048, "densenet121": 1024, "efficientnet-lite0": 1280, "tiny": 64}
#: Without the layer of the thousand classes: 25,557,032, 7,978,856 and 4,652,008 with it.
PARAMETERS = {"resnet50": 23_508_032, "densenet121": 6_953_856, "efficientnet-lite0": 3_371_008}
#: Places of ImageNet's list that a photograph of a temple in Beijing may be given.
BELL_COTE, MONASTERY, PALACE, STUPA = 442, 663, 698, 832

Reference = Callable[[network_reference.Weights, NDArray[np.float64]], NDArray[np.float64]]
REFERENCES: dict[str, Reference] = {
    "resnet50": network_reference.resnet50,
    "densenet121": network_reference.densenet121,
    "efficientnet-lite0": network_reference.efficientnet_lite0,
}


def grey(size: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(1, 1, size, size, generator=torch.Generator().manual_seed(seed))


def fed(name: str, image: torch.Tensor) -> NDArray[np.float64]:
    """Give a grey image as the authors of the backbone fed it."""
    values = image[0, 0].double().numpy()
    if name == "efficientnet-lite0":
        return np.repeat((values[None] * 255 - 127) / 128, 3, axis=0)
    return network_reference.normalised(values)


def saved(path: Path, arrays: Mapping[str, NDArray[np.float32]]) -> Path:
    torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, path)
    return path


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Give a file of made-up weights in the layout that the network is published in."""
    folder = tmp_path_factory.mktemp("published")

    def write(name: str) -> Path:
        path = folder / f"{name}.pth"
        if not path.exists():
            weights = network_reference.Drawn(seed=4)
            REFERENCES[name](weights, fed(name, grey(32)))
            head = {"resnet50": "fc", "densenet121": "classifier", "efficientnet-lite0": "_fc"}
            shape = (1000, FEATURES[name])
            weights(f"{head[name]}.weight", *shape)
            weights(f"{head[name]}.bias", 1000)
            saved(path, weights.arrays)
        return path

    return write


@pytest.mark.parametrize("name", BACKBONES)
def test_it_gives_as_many_features_as_it_says(name: str) -> None:
    backbone = build_backbone(name).eval()
    assert backbone.features == FEATURES[name]
    with torch.inference_mode():
        for size in (32, 64):
            assert backbone(imagenet(grey(size).expand(2, -1, -1, -1))).shape == (2, FEATURES[name])


@pytest.mark.parametrize(
    ("name", "kind"),
    [("resnet50", ResNet), ("densenet121", DenseNet), ("efficientnet-lite0", EfficientNet)],
)
def test_it_is_monais_network_of_the_published_number_of_parameters(
    name: str, kind: type[nn.Module]
) -> None:
    backbone = build_backbone(name)
    assert isinstance(backbone.network, kind)
    assert sum(parameter.numel() for parameter in backbone.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", list(REFERENCES))
def test_it_computes_what_the_definition_says_with_weights_of_the_published_layout(
    name: str, published: Callable[[str], Path]
) -> None:
    path = published(name)
    backbone = build_backbone(name, pretrained=path).double().eval()
    arrays = {key: value.numpy() for key, value in torch.load(path, weights_only=True).items()}
    image = grey(64, seed=5)
    expected = REFERENCES[name](network_reference.Given(arrays), fed(name, image))
    with torch.inference_mode():
        result = backbone(imagenet(image.double()))[0].numpy()
    assert expected.std() > 1e-2
    # The conversion of the light network's input is held in single precision.
    tolerance = 1e-4 if name == "efficientnet-lite0" else 1e-9
    np.testing.assert_allclose(result, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("size", [64, 96, 160])
def test_the_light_one_gives_the_features_of_its_imagenet_weights_at_every_size(size: int) -> None:
    path = need(WEIGHTS)
    backbone = build_backbone("efficientnet-lite0", pretrained=path).eval()
    arrays = {key: value.numpy() for key, value in torch.load(path, weights_only=True).items()}
    weights = network_reference.Given(arrays)
    image = grey(size, seed=size)
    expected = network_reference.efficientnet_lite0(weights, fed("efficientnet-lite0", image))
    with torch.inference_mode():
        result = backbone(imagenet(image))[0].numpy()
    assert expected.max() > 1
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)
    unused = arrays.keys() - weights.used
    assert {name for name in unused if "num_batches" not in name} == {"_fc.weight", "_fc.bias"}


def test_the_light_one_knows_a_temple_in_a_photograph() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    path = need(WEIGHTS)
    photograph = torch.from_numpy(datasets.load_sample_image("china.jpg").copy())
    image = photograph.permute(2, 0, 1)[None].float() / 255
    image = nn.functional.interpolate(image, size=(224, 224), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(three) for three in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    backbone = build_backbone("efficientnet-lite0", pretrained=path).eval()
    head = torch.load(path, weights_only=True)
    with torch.inference_mode():
        features = backbone((image - mean[:, None, None]) / std[:, None, None])
        logits = features @ head["_fc.weight"].T + head["_fc.bias"]
    assert logits[0].argmax().item() in {BELL_COTE, MONASTERY, PALACE, STUPA}


def test_the_light_ones_weights_remember_the_normalisation_they_were_trained_with() -> None:
    # The file does not tell. But the mean that its first batch norm has seen is what the first
    # convolution makes of the mean of all inputs: that one is solved for.
    weights = torch.load(need(WEIGHTS), weights_only=True)
    stem = weights["_conv_stem.weight"].sum(dim=(2, 3)).double()
    seen = weights["_bn0.running_mean"].double()[:, None]
    mean = torch.linalg.lstsq(stem, seen).solution[:, 0]
    imagenet_mean = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64)
    googles = (imagenet_mean * 255 - 127) / 128
    torchvisions = torch.zeros(3, dtype=torch.float64)
    assert (mean - googles).norm() < 0.08
    assert (mean - torchvisions).norm() > 0.14


def test_the_first_densenets_names_are_understood_too(
    published: Callable[[str], Path], tmp_path: Path
) -> None:
    path = published("densenet121")
    today = torch.load(path, weights_only=True)
    old = {}
    for name, value in today.items():
        for part in ("norm", "conv"):
            for number in ("1", "2"):
                if f".{part}{number}." in name and "denselayer" in name:
                    name = name.replace(f".{part}{number}.", f".{part}.{number}.")  # noqa: PLW2901
        old[name] = value
    assert old.keys() != today.keys()
    torch.save(old, tmp_path / "old.pth")
    expected, result = (
        build_backbone("densenet121", pretrained=file).state_dict()
        for file in (path, tmp_path / "old.pth")
    )
    assert result.keys() == expected.keys()
    assert all(torch.equal(result[name], expected[name]) for name in expected)


def spoilt(path: Path, tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    weights = torch.load(path, weights_only=True)
    change(weights)
    torch.save(weights, tmp_path / "spoilt.pth")
    return tmp_path / "spoilt.pth"


def test_a_tensor_without_a_place_is_named(
    published: Callable[[str], Path], tmp_path: Path
) -> None:
    path = spoilt(
        published("efficientnet-lite0"),
        tmp_path,
        lambda weights: weights.update(extra=torch.zeros(1)),
    )
    with pytest.raises(
        WeightsError, match=r"spoilt\.pth: extra has no place in efficientnet-lite0"
    ):
        build_backbone("efficientnet-lite0", pretrained=path)


def test_a_place_without_its_tensor_is_named(
    published: Callable[[str], Path], tmp_path: Path
) -> None:
    def change(weights: dict[str, torch.Tensor]) -> None:
        del weights["_bn1.weight"], weights["_conv_head.weight"]

    path = spoilt(published("efficientnet-lite0"), tmp_path, change)
    with pytest.raises(WeightsError, match=r"lacks 2 tensors .* _bn1\.weight"):
        build_backbone("efficientnet-lite0", pretrained=path)


def test_a_tensor_of_another_shape_is_named(
    published: Callable[[str], Path], tmp_path: Path
) -> None:
    path = spoilt(
        published("efficientnet-lite0"),
        tmp_path,
        lambda weights: weights.update({"_bn0.bias": torch.zeros(31)}),
    )
    with pytest.raises(WeightsError, match=r"_bn0\.bias has the shape \(31,\), not \(32,\)"):
        build_backbone("efficientnet-lite0", pretrained=path)


def test_a_value_that_is_not_finite_is_named(
    published: Callable[[str], Path], tmp_path: Path
) -> None:
    path = spoilt(
        published("efficientnet-lite0"),
        tmp_path,
        lambda weights: weights.update({"_bn0.bias": torch.full((32,), torch.nan)}),
    )
    with pytest.raises(WeightsError, match=r"_bn0\.bias holds a value that is not finite"):
        build_backbone("efficientnet-lite0", pretrained=path)


def test_weights_of_another_network_are_refused(published: Callable[[str], Path]) -> None:
    with pytest.raises(WeightsError, match="has no place in densenet121"):
        build_backbone("densenet121", pretrained=published("efficientnet-lite0"))


def test_there_are_no_imagenet_weights_for_the_tiny_one(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no ImageNet weights for the backbone tiny"):
        build_backbone("tiny", pretrained=tmp_path / "any.pth")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(None, "cannot be read"), (b"", "safely"), (b"no zip at all", "safely")],
    ids=["absent", "empty", "nonsense"],
)
def test_a_file_that_is_no_file_of_weights_is_named(
    tmp_path: Path, content: bytes | None, complaint: str
) -> None:
    path = tmp_path / "weights.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match=rf"weights\.pth: .*{complaint}"):
        build_backbone("resnet50", pretrained=path)


@pytest.mark.parametrize("content", [{}, [1], {"w": 1}, {1: torch.zeros(1)}], ids=str)
def test_what_is_no_state_dictionary_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match="holds"):
        build_backbone("resnet50", pretrained=tmp_path / "weights.pth")


def test_an_unknown_backbone_is_refused() -> None:
    with pytest.raises(ValueError, match="resnet50, densenet121, efficientnet-lite0, tiny"):
        build_backbone("vgg16")


@pytest.mark.parametrize("name", BACKBONES)
def test_a_gradient_reaches_every_parameter_in_channels_last_too(name: str) -> None:
    backbone = build_backbone(name).to(memory_format=torch.channels_last)
    backbone(imagenet(grey(64).expand(2, -1, -1, -1))).square().sum().backward()
    for parameter, value in backbone.named_parameters():
        assert value.grad is not None, parameter
        assert value.grad.isfinite().all(), parameter


def test_it_runs_under_autocast_and_inference_mode(published: Callable[[str], Path]) -> None:
    path = published("efficientnet-lite0")
    backbone = build_backbone("efficientnet-lite0", pretrained=path)
    backbone.eval().to(memory_format=torch.channels_last)
    images = imagenet(grey(64))
    with torch.inference_mode():
        expected = backbone(images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            result = backbone(images)
    assert result.dtype == torch.bfloat16
    assert nn.functional.cosine_similarity(result.float(), expected) > 0.99


def test_the_input_conversion_of_the_light_one_is_no_part_of_its_state() -> None:
    names = build_backbone("efficientnet-lite0").state_dict().keys()
    assert all(name.startswith("network.") for name in names)
