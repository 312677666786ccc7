"""The weights that stand before training: ``python -m prichexy_model.initial BUNDLE``.

They are random. What they do is deform, visibly and smoothly, so that everything around the
model can be built and tested; what they do not do is hide anybody.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from prichexy_model.bundle import METADATA_FILE, WEIGHTS_FILE, BundleError, read_bundle
from prichexy_model.generator import build_generator
from prichexy_model.weights import WeightsError, save_weights

__all__ = ["SEED", "initial_weights", "main", "write_initial_weights"]

#: The paper's number on arXiv, so that nobody need ask how often another seed was tried.
SEED: Final = 220911531

#: The uniform distribution's interval is drawn in so many steps.
_STEPS: Final = 2**24


def initial_weights(seed: int = SEED) -> dict[str, Tensor]:
    """Give the generator's state dictionary of He's uniform initialisation, by ``seed`` alone.

    Every convolution is uniform in ±gain · √(3 / fan-in) with the fan-in that one output value
    really sums over, gain √2 before a ReLU and 1 elsewhere (He et al. 2015; Glorot & Bengio
    2010); biases are 0, batch norms the identity. So a signal keeps its size through the network
    and the field is neither nothing nor saturated. Torch's own default would lose it on the way.

    The numbers are the same on every machine: integers are drawn, and scaled in float64.
    """
    with torch.random.fork_rng(devices=[]):  # building draws weights too, from torch's own state
        generator = build_generator()
    source = torch.Generator().manual_seed(seed)
    head = generator.get_submodule("head.conv")
    for module in generator.modules():
        if isinstance(module, nn.ConvTranspose2d):
            # Stride and kernel are equal: one output value sees one place of every channel.
            _draw(module, fan_in=module.in_channels, gain=1.0, source=source)
        elif isinstance(module, nn.Conv2d):
            fan_in = module.in_channels * math.prod(module.kernel_size)
            _draw(module, fan_in, gain=1.0 if module is head else math.sqrt(2), source=source)
    return generator.state_dict()


def write_initial_weights(folder: str | Path, seed: int = SEED) -> str:
    """Put the initial weights into the bundle in ``folder`` and their digest into its metadata.

    Gives the digest. Raises BundleError when the bundle cannot be read or says that its weights
    were trained: those are not overwritten.
    """
    folder = Path(folder)
    if read_bundle(folder).evidence != "untrained":
        raise BundleError(f"{folder}: its weights are trained; they are not overwritten")
    (folder / WEIGHTS_FILE).parent.mkdir(exist_ok=True)
    digest = save_weights(folder / WEIGHTS_FILE, initial_weights(seed))
    path = folder / METADATA_FILE
    metadata = json.loads(path.read_bytes())
    metadata["prichexy"]["weights_sha256"] = digest
    path.write_text(json.dumps(metadata, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")
    return digest


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 when the weights are written, 1 when they are not."""
    parser = argparse.ArgumentParser(
        prog="python -m prichexy_model.initial",
        description="Write the random initial weights into a bundle that holds no trained ones.",
    )
    parser.add_argument("bundle", type=Path, help="the bundle's folder")
    folder: Path = parser.parse_args(arguments).bundle
    try:
        digest = write_initial_weights(folder)
    except WeightsError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{folder / WEIGHTS_FILE}: seed {SEED}, SHA-256 {digest}\n")
    return 0


def _draw(
    module: nn.Conv2d | nn.ConvTranspose2d, fan_in: int, gain: float, source: torch.Generator
) -> None:
    bound = gain * math.sqrt(3 / fan_in)
    # Not Tensor.uniform_: processors with and without fused multiply-add round it differently.
    steps = torch.randint(_STEPS, module.weight.shape, generator=source)
    uniform = (2 * steps + 1).to(torch.float64) / _STEPS - 1
    with torch.no_grad():
        module.weight.copy_(bound * uniform)
        if module.bias is not None:
            module.bias.zero_()


if __name__ == "__main__":
    raise SystemExit(main())
