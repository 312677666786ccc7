"""The abnormality classifier: what utility is measured by, and the generator's second critic."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from prichexy_model.classifier import AbnormalityClassifier
from prichexy_model.preprocessing import resize
from prichexy_train.augment import Augmentation, apply, draw
from prichexy_train.data.images import Images
from prichexy_train.data.pool import Pool
from prichexy_train.errors import Misconfigured
from prichexy_train.feed import Feed
from prichexy_train.judging import label_logits
from prichexy_train.loop import Fitted, Moment, Task
from prichexy_train.measures.auc import mean_auc_by_set
from prichexy_train.optimizers import build_optimizer, descend
from prichexy_train.precision import Computing
from prichexy_train.randomness import initialising, numpy_generator
from prichexy_train.settings import ImageNetWeights, Section, Training
from prichexy_train.stages.batches import in_batches
from prichexy_train.stages.known_labels import label_loss, split_known
from prichexy_train.stages.training_run import open_pool, pretrained_digest, train
from prichexy_train.unseen import held_back

__all__ = [
    "STAGE",
    "ClassifierData",
    "ClassifierNetwork",
    "ClassifierSettings",
    "ClassifierTask",
    "build_classifier",
    "run_classifier",
]

#: The stage's name in provenance, and the network's in ``best.pt``.
STAGE: Final = "classifier"


class ClassifierNetwork(Section):
    """Which network: the table ``[network]``."""

    # Where the file lies; which one it is, its digest says.
    changeable = frozenset({"pretrained"})

    backbone: str = "densenet121"
    #: Rows and columns that every image is resized to.
    size: Annotated[int, Field(ge=16)] = 224
    #: For the backbone.
    pretrained: ImageNetWeights = None


class ClassifierSettings(Section):
    """The whole configuration file of ``prichexy-train classifier``."""

    #: Labels on fewer training images than this are left out, and named in the result.
    least_positives: Annotated[int, Field(ge=1)] = 20
    #: What early stopping and the best epoch go by.
    monitor: Literal["loss", "auc"] = "loss"
    network: ClassifierNetwork = ClassifierNetwork()
    augmentation: Augmentation = Augmentation()
    training: Training = Training()


@dataclass(frozen=True, eq=False)
class ClassifierData:
    """What a classifier is trained and validated on: numbers of images, and their labels.

    ``targets`` is (images, labels), 0 or 1, or NaN where the image was not read for the label;
    ``sets`` holds the number of each image's set. ``left_out`` are the labels that are too rare,
    each with the number of training images that show it.
    """

    images: Images
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    labels: tuple[str, ...]
    targets: NDArray[np.float32]
    sets: NDArray[np.int64]
    left_out: Mapping[str, int]

    @classmethod
    def of(
        cls, pool: Pool, settings: ClassifierSettings, *, images: Images | None = None
    ) -> ClassifierData:
        """Give the pool's training and validation data; its real images where none are given.

        A label is left out, too, where in each set every validation image shows it or none does:
        its AUC could not be taken. Raises Misconfigured when no label is left.
        """
        train, validation = pool.split("train"), pool.split("val")
        shown, sets = pool.targets > 0, pool.set_codes
        counts = shown[train].sum(0).astype(int)
        read = (~np.isnan(pool.targets[train])).sum(0)
        measurable = np.zeros(len(counts), dtype=np.bool_)
        for own in np.unique(sets[validation]):
            rows = validation[sets[validation] == own]
            measurable |= shown[rows].any(0) & (pool.targets[rows] == 0).any(0)
        kept = (counts >= settings.least_positives) & (counts < read) & measurable
        if not kept.any():
            raise Misconfigured(
                f"{pool.name}: no label is on {settings.least_positives} training images or more "
                "and on some validation images: set least_positives lower"
            )
        return cls(
            images=pool.images if images is None else images,
            train=train,
            validation=validation,
            labels=tuple(np.array(pool.label_names)[kept].tolist()),
            targets=pool.targets[:, kept],
            sets=sets,
            left_out={
                name: int(count)
                for name, count, keep in zip(pool.label_names, counts, kept, strict=True)
                if not keep
            },
        )


def build_classifier(
    network: ClassifierNetwork, labels: Sequence[str], seed: int
) -> AbnormalityClassifier:
    """Give the network of the settings on the CPU, with the weights that ``seed`` stands for."""
    with initialising(seed, STAGE, "initial weights"):
        return AbnormalityClassifier(
            network.backbone,
            labels,
            size=network.size,
            pretrained=network.pretrained.expanduser() if network.pretrained else None,
        )


class ClassifierTask(Task):
    """Trains an ``AbnormalityClassifier``; see ``loop.Task``.

    Validation gives "loss", the mean cross-entropy, "auc", the mean over the labels, and each
    label's own as "auc LABEL", the mean over the sets that know it. What an image was not read for
    has no part in either.
    """

    def __init__(
        self,
        classifier: AbnormalityClassifier,
        data: ClassifierData,
        settings: ClassifierSettings,
        computing: Computing,
    ) -> None:
        """Put ``classifier`` on the device; it is changed."""
        self._settings = settings
        self._data = data
        self._computing = computing
        self.classifier = computing.prepare(classifier)
        computing.compile(classifier.backbone)
        self.networks = {STAGE: classifier}
        self.optimizers = {STAGE: build_optimizer(classifier.parameters(), settings.training)}
        self.monitor = settings.monitor
        self.better = "lower" if settings.monitor == "loss" else "higher"
        self._images = Feed(
            data.images,
            computing.device,
            np.concatenate((data.train, data.validation)),
            hold=settings.training.cache_on_device,
        )
        targets, known = split_known(data.targets)
        self._targets = torch.from_numpy(targets).to(computing.device)
        self._known = None if known is None else torch.from_numpy(known).to(computing.device)

    def batches(self, epoch: int) -> Sequence[NDArray[np.int64]]:
        """Give numbers of images."""
        training = self._settings.training
        order = numpy_generator(training.seed, STAGE, "batches", epoch).permutation(
            self._data.train
        )
        return in_batches(order, training.batch_size)

    def step(self, rows: NDArray[np.int64], moment: Moment) -> Mapping[str, float | Tensor]:
        """Learn from images and their labels."""
        self.classifier.train()
        images = resize(self._images.gather(rows), self.classifier.size)
        # Drawn for all processes, so that one process draws the same for the same images.
        parameters = draw(
            self._settings.augmentation, len(rows) * moment.world, moment.common_generator("images")
        )
        images = apply(images, parameters.every(moment.world, moment.rank))
        with self._computing.autocast():
            logits = self.classifier(images)
        loss = label_loss(logits, *self._labels_of(rows))
        clip = self._settings.training.gradient_clip
        descend(loss, self.classifier, self.optimizers[STAGE], clip)
        return {"loss": loss.detach()}

    def validate(self) -> Mapping[str, float]:
        """Give loss and AUC of the validation images."""
        rows = self._data.validation
        logits = label_logits(
            self.classifier, self._images, rows, precision=self._computing.autocast
        )
        loss = float(label_loss(logits, *self._labels_of(rows)))
        if not math.isfinite(loss):
            return {"loss": loss, "auc": math.nan}
        mean, each = mean_auc_by_set(
            logits.double().cpu().numpy(), self._data.targets[rows], self._data.sets[rows]
        )
        labels = zip(self._data.labels, each, strict=True)
        return {
            "loss": loss,
            "auc": mean,
            **{f"auc {label}": value for label, value in labels if value is not None},
        }

    def _labels_of(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor | None]:
        """Give the labels of these images, and which of them are known; None: all."""
        here = torch.from_numpy(rows).to(self._targets.device, non_blocking=True)
        return self._targets[here], None if self._known is None else self._known[here]


def run_classifier(
    settings: ClassifierSettings,
    data: Sequence[str | Path],
    run_folder: str | Path,
    *,
    deadline: float | None = None,
) -> Fitted:
    """Train a classifier on the real images of the prepared sets in the folders ``data``.

    The result says which labels it knows, in the order of its outputs, and which were left out.
    Raises as ``training_run.train`` does, and UnusableData.
    """
    computing = Computing.of(settings.training)
    pool = open_pool(data)
    chosen = ClassifierData.of(pool, settings)
    digests = {
        pool.name: pool.digest,
        "network.pretrained": pretrained_digest(settings.network.pretrained),
    }
    words: dict[str, Any] = {"labels": list(chosen.labels), "left_out": dict(chosen.left_out)}

    def make_task() -> ClassifierTask:
        classifier = build_classifier(settings.network, chosen.labels, settings.training.seed)
        return ClassifierTask(classifier, chosen, settings, computing)

    return train(
        STAGE,
        settings,
        settings.training,
        run_folder,
        make_task,
        data=digests,
        device=computing.device,
        held_back=held_back(pool),
        result=words,
        deadline=deadline,
    )
