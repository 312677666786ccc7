"""What each setting does to the time of a training step, as ratios measured in one run.

    python benchmarks/train_step.py [--device auto] [--step verifier|adversarial]
        [--backbone resnet50] [--size 256] [--batch 32] [--threads N] [--steps 10] [--compile]

"adversarial" is the generator's step with its critics: a verifier of the backbone, and a
classifier, DenseNet-121 beside the paper's ResNet-50 and otherwise of the same backbone. Every
variant takes the same steps on the same made-up images, gathering them and the optimizer
included. The first is float32 with plain memory, read from the processor's memory; each further
one adds one setting. ``--compile`` adds compilation: minutes, and on a processor it may not pay.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prichexy_train.data.pairs import Pairs
from prichexy_train.loop import Moment, Task
from prichexy_train.precision import Computing, choose_device, device_name
from prichexy_train.settings import Training
from prichexy_train.stages.adversarial import (
    AdversarialData,
    AdversarialSettings,
    AdversarialTask,
)
from prichexy_train.stages.anonymizers import DeformationSettings, build_anonymizer
from prichexy_train.stages.classifier import ClassifierNetwork, build_classifier
from prichexy_train.stages.critics import CriticSettings
from prichexy_train.stages.verifier import (
    VerifierData,
    VerifierNetwork,
    VerifierSettings,
    VerifierTask,
    build_verifier,
)

IMAGES = 512
STORED = 256


class MadeUp:
    """Images of 8 bits, as the cache of radiographs has them."""

    def __init__(self, size: int = STORED) -> None:
        self.size = size
        source = torch.Generator().manual_seed(1)
        shape = (IMAGES, 1, size, size)
        self._bytes = torch.randint(256, shape, dtype=torch.uint8, generator=source)

    def __len__(self) -> int:
        return IMAGES

    def gather(self, indices: NDArray[np.int64]) -> Tensor:
        """Give these images, as the cache of radiographs does."""
        return self._bytes[torch.from_numpy(indices)].to(torch.float32).div_(255)


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--step", choices=sorted(STEPS), default="verifier")
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--size", type=int, default=STORED)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--compile", action="store_true")
    wanted = parser.parse_args()
    torch.set_num_threads(wanted.threads)
    device = choose_device(wanted.device)
    print(  # noqa: T201
        f"torch {torch.__version__}, {device_name(device)}, {wanted.threads} thread(s): "
        f"{wanted.step}, {wanted.backbone}, {wanted.size} pixels, batch {wanted.batch}"
    )
    images = MadeUp()
    first = None
    for name, words in _variants(device, with_compile=wanted.compile).items():
        training = Training.model_validate({"batch_size": wanted.batch, **words})
        task = STEPS[wanted.step](images, wanted, training, device)
        seconds = _seconds(task, training, wanted.steps, device)
        first = first or seconds
        print(  # noqa: T201
            f"{name:32} {seconds * 1e3:9.1f} ms a step, {wanted.batch / seconds:9.1f} rows/s, "
            f"{first / seconds:6.2f} times as fast"
        )
        del task


def _variants(device: torch.device, *, with_compile: bool) -> Mapping[str, Mapping[str, Any]]:
    words: dict[str, Any] = {
        "precision": "float32", "channels_last": False, "cache_on_device": False
    }  # fmt: skip
    found = {"float32": dict(words)}
    steps: list[tuple[str, dict[str, Any]]] = [("channels_last", {"channels_last": True})]
    if device.type == "cuda":
        steps.append(("images on the GPU", {"cache_on_device": True}))
    steps.append(("bfloat16", {"precision": "bfloat16"}))
    if with_compile:
        steps.append(("compiled", {"compile": True}))
    for name, more in steps:
        words |= more
        found[f"+ {name}"] = dict(words)
    # What bfloat16 gives without the memory format it likes.
    found["bfloat16 without channels_last"] = found["+ bfloat16"] | {"channels_last": False}
    return found


def _verifier(
    images: MadeUp, wanted: argparse.Namespace, training: Training, device: torch.device
) -> Task:
    random = np.random.default_rng(1)
    rows = random.integers(0, IMAGES, (2, 4096))
    pairs = Pairs(rows[0], rows[1], np.arange(4096) % 2 == 0)
    network = VerifierNetwork(backbone=wanted.backbone, size=wanted.size)
    settings = VerifierSettings(network=network, training=training)
    data = VerifierData(images, images, pairs, pairs, np.arange(IMAGES), np.arange(IMAGES))
    return VerifierTask(build_verifier(network, 1), data, settings, Computing(training, device))


def _adversarial(
    _: MadeUp, wanted: argparse.Namespace, training: Training, device: torch.device
) -> Task:
    images, labels = MadeUp(wanted.size), tuple(f"finding {number}" for number in range(14))
    random = np.random.default_rng(1)
    rows = random.integers(0, IMAGES, (2, 4096))
    pairs = Pairs(rows[0], rows[1], np.arange(4096) % 2 == 0)
    targets = (random.random((IMAGES, len(labels))) < 0.1).astype(np.float32)
    settings = AdversarialSettings(
        anonymizer=DeformationSettings(size=wanted.size),
        critics=CriticSettings(verifiers=(Path("here"),), classifier=Path("here")),
        training=training,
    )
    backbone = "densenet121" if wanted.backbone == "resnet50" else wanted.backbone
    size = min(224, wanted.size)
    return AdversarialTask(
        build_anonymizer(settings.anonymizer),
        [build_verifier(VerifierNetwork(backbone=wanted.backbone, size=wanted.size), 1)],
        build_classifier(ClassifierNetwork(backbone=backbone, size=size), labels, 1),
        AdversarialData(images, pairs, pairs, labels, targets),
        settings,
        Computing(training, device),
    )


#: Gives the task whose step is measured.
STEPS: Mapping[str, Callable[[MadeUp, argparse.Namespace, Training, torch.device], Task]] = {
    "adversarial": _adversarial,
    "verifier": _verifier,
}


def _seconds(task: Task, training: Training, steps: int, device: torch.device) -> float:
    """Give the least seconds of a step in three runs of ``steps``: what is more was another's.

    Three steps before, which choose algorithms or compile, do not count. With one thread on a
    processor the time is the processor's own, so that a busy machine measures the same.
    """
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter
    batches = task.batches(1)
    number = 0

    def take(count: int) -> float:
        nonlocal number
        _wait(device)
        began = clock()
        for _ in range(count):
            number += 1
            moment = Moment(training.seed, 1, number, 0, 1)
            task.step(batches[number % len(batches)], moment)
        _wait(device)
        return (clock() - began) / count

    take(3)
    return min(take(steps) for _ in range(3))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
