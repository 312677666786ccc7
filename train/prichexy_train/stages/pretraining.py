"""Pretraining: an anonymizer learns to change nothing, so that training begins with the image.

The paper's way: mean squared error between the anonymised image and the image itself. An
adversarial training from random weights begins with images that no critic has ever seen the like
of, and the first thing the critics learn is that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from prichexy_train.data.pool import Pool
from prichexy_train.feed import Feed
from prichexy_train.loop import Fitted, Moment, Task
from prichexy_train.measures.fidelity import psnr, ssim
from prichexy_train.optimizers import build_optimizer, descend
from prichexy_train.precision import Computing
from prichexy_train.randomness import initialising, numpy_generator
from prichexy_train.settings import Section, Training
from prichexy_train.stages.anonymizers import (
    GENERATOR,
    AnonymizerSettings,
    DeformationSettings,
    build_anonymizer,
    check_size,
    trained_network,
)
from prichexy_train.stages.batches import in_batches
from prichexy_train.stages.training_run import open_pool, train
from prichexy_train.unseen import held_back

__all__ = ["STAGE", "PretrainingSettings", "PretrainingTask", "run_pretraining"]

#: The stage's name in provenance.
STAGE: Final = "pretrain"


class PretrainingSettings(Section):
    """The whole configuration file of ``prichexy-train pretrain``."""

    anonymizer: AnonymizerSettings = DeformationSettings()
    training: Training = Training()


class PretrainingTask(Task):
    """Trains ``anonymizer`` to give back what it is given; see ``loop.Task``.

    Validation gives "mse", and how much is left of the images: "psnr" in dB and "ssim".
    """

    monitor = "mse"
    better: Literal["lower", "higher"] = "lower"

    def __init__(
        self,
        anonymizer: nn.Module,
        pool: Pool,
        settings: PretrainingSettings,
        computing: Computing,
    ) -> None:
        """Put ``anonymizer`` on the device; it is changed."""
        training = settings.training
        self._training = training
        self._computing = computing
        self.anonymizer = computing.prepare(anonymizer)
        network = trained_network(anonymizer)
        computing.compile(network)
        self.networks = {GENERATOR: network}
        self.optimizers = {GENERATOR: build_optimizer(network.parameters(), training)}
        self._train, self._validation = pool.split("train"), pool.split("val")
        self._feed = Feed(
            pool.images,
            computing.device,
            np.concatenate((self._train, self._validation)),
            hold=training.cache_on_device,
        )

    def batches(self, epoch: int) -> Sequence[NDArray[np.int64]]:
        """Give numbers of training images, each image once an epoch."""
        source = numpy_generator(self._training.seed, STAGE, "batches", epoch)
        return in_batches(source.permutation(self._train), self._training.batch_size)

    def step(self, rows: NDArray[np.int64], moment: Moment) -> Mapping[str, float | Tensor]:  # noqa: ARG002 - nothing here is random
        """Learn from images."""
        self.anonymizer.train()
        images = self._feed.gather(rows)
        with self._computing.autocast():
            same = self.anonymizer(images)
        loss = functional.mse_loss(same, images)
        descend(
            loss,
            self.networks[GENERATOR],
            self.optimizers[GENERATOR],
            self._training.gradient_clip,
        )
        return {"mse": loss.detach()}

    def validate(self) -> Mapping[str, float]:
        """Give the measures of the validation images."""
        self.anonymizer.eval()
        found: list[Tensor] = []
        with torch.no_grad():
            for start in range(0, len(self._validation), self._training.batch_size):
                rows = self._validation[start : start + self._training.batch_size]
                images = self._feed.gather(rows)
                with self._computing.autocast():
                    same = self.anonymizer(images)
                error = (same - images).square().mean(dim=(1, 2, 3))
                found.append(torch.stack((error, psnr(same, images), ssim(same, images))))
        means = torch.cat(found, dim=1).double().mean(dim=1).tolist()
        return dict(zip(("mse", "psnr", "ssim"), means, strict=True))


def run_pretraining(
    settings: PretrainingSettings,
    data: Sequence[str | Path],
    run_folder: str | Path,
    *,
    deadline: float | None = None,
) -> Fitted:
    """Pretrain on the real images of the prepared sets in the folders ``data``.

    Goes on from wherever the run stands. Raises as ``training_run.train`` does, UnusableData when
    the sets cannot be read, and Misconfigured when their images are of another size.
    """
    computing = Computing.of(settings.training)
    pool = open_pool(data)
    check_size(settings.anonymizer, pool)

    def make_task() -> PretrainingTask:
        with initialising(settings.training.seed, GENERATOR, "initial weights"):
            anonymizer = build_anonymizer(settings.anonymizer)
        return PretrainingTask(anonymizer, pool, settings, computing)

    return train(
        STAGE,
        settings,
        settings.training,
        run_folder,
        make_task,
        data={pool.name: pool.digest},
        device=computing.device,
        held_back=held_back(pool),
        deadline=deadline,
    )
