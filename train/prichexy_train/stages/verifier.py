"""The verification network: is it the same patient? Trained on pairs, or by contrast.

"pairs" is the paper's way: pairs of a list, cross-entropy. "contrastive" takes images of many
patients at once and learns from all of their pairs, which a smaller set can be learned from.

The attackers train theirs with the same task: its images may be anonymised ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional

from prichexy_model.losses import supervised_contrastive, verification_bce
from prichexy_model.preprocessing import resize
from prichexy_model.verifier import Head, SiameseVerifier
from prichexy_train.augment import Augmentation, apply, draw
from prichexy_train.data.images import Images
from prichexy_train.data.pairs import Pairs
from prichexy_train.data.pool import Pool
from prichexy_train.data.shares import rows_of_a_share
from prichexy_train.errors import Misconfigured
from prichexy_train.feed import Feed
from prichexy_train.judging import pair_logits
from prichexy_train.loop import Fitted, Moment, Task
from prichexy_train.measures.auc import auc
from prichexy_train.optimizers import build_optimizer, descend
from prichexy_train.parallel import gather_rows
from prichexy_train.precision import Computing
from prichexy_train.randomness import initialising, numpy_generator
from prichexy_train.settings import ImageNetWeights, Section, Training
from prichexy_train.stages.batches import ContrastBatches, in_batches
from prichexy_train.stages.training_run import open_pool, pretrained_digest, train
from prichexy_train.unseen import held_back

__all__ = [
    "STAGE",
    "Contrast",
    "VerifierData",
    "VerifierNetwork",
    "VerifierSettings",
    "VerifierTask",
    "build_verifier",
    "run_verifier",
]

#: The stage's name in provenance, and the network's in ``best.pt``.
STAGE: Final = "verifier"

#: The learning rate of a cosine verifier's scale and bias.
_COMPARISON_RATE: Final = 0.03


class VerifierNetwork(Section):
    """Which network: the table ``[network]``."""

    # Where the file lies; which one it is, its digest says.
    changeable = frozenset({"pretrained"})

    backbone: str = "resnet50"
    head: Head = "difference"
    #: Numbers that stand for an image.
    embedding: Annotated[int, Field(ge=1)] = 128
    #: Rows and columns that every image is resized to.
    size: Annotated[int, Field(ge=16)] = 256
    #: For the backbone.
    pretrained: ImageNetWeights = None


class Contrast(Section):
    """What a batch of objective "contrastive" is made of: the table ``[contrast]``."""

    #: Patients with several images in a batch.
    patients: Annotated[int, Field(ge=2)] = 32
    #: Images of each of them; of those who have fewer, all. The rest of the batch are images of
    #: one patient each.
    images: Annotated[int, Field(ge=2)] = 2
    temperature: Annotated[float, Field(gt=0)] = 0.1


class VerifierSettings(Section):
    """The whole configuration file of ``prichexy-train verifier``."""

    later = frozenset({"share_of_patients"})

    objective: Literal["pairs", "contrastive"] = "pairs"
    #: The lists of pairs to train on ("pairs" only) and to validate on.
    train_pairs: str = "train"
    validation_pairs: str = "val"
    #: What early stopping and the best epoch go by.
    monitor: Literal["loss", "auc"] = "loss"
    #: Of the training patients, what share it learns from, for a learning curve: drawn by
    #: ``training.seed``, a smaller share's among a larger one's. An epoch keeps its steps.
    share_of_patients: Annotated[float, Field(gt=0, le=1)] = 1.0
    network: VerifierNetwork = VerifierNetwork()
    contrast: Contrast = Contrast()
    augmentation: Augmentation = Augmentation()
    training: Training = Training()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        wanted = self.contrast.patients * self.contrast.images
        if self.objective == "contrastive" and wanted > self.training.batch_size:
            raise ValueError(
                f"contrast.patients times contrast.images is {wanted}, more than "
                f"training.batch_size, {self.training.batch_size}"
            )
        if self.objective == "pairs" and self.share_of_patients < 1:
            raise ValueError(
                "share_of_patients: a list of pairs of two patients loses more than its share of "
                'them; give objective = "contrastive"'
            )
        if self.augmentation.flip:
            raise ValueError("augmentation.flip: a mirrored radiograph is another patient's")
        return self


@dataclass(frozen=True, eq=False)
class VerifierData:
    """What a verifier is trained and validated on.

    The first image of every pair is looked up in ``first``, the second in ``second``, under the
    same numbering: give real images for both, anonymised ones for both (the paper's attacker), or
    one of each. "contrastive" takes ``rows``, each from either side by chance where they differ.
    ``patients`` holds each image's patient, ``serials`` (images, 2) a series, -1 for none, and the
    place in it: neighbours are never contrasted, since they may be one patient.
    ``redrawn`` are training images that stand in for those of ``first`` (and of ``second``, where
    that is the same) in other epochs: epoch e trains with number e modulo all of them, of which
    ``first`` is number 0. Validation is with ``first``, always.
    """

    first: Images
    second: Images
    train: Pairs
    validation: Pairs
    patients: NDArray[np.int64]
    rows: NDArray[np.int64]
    serials: NDArray[np.int64] = field(default_factory=lambda: np.full((0, 2), -1))
    redrawn: tuple[Images, ...] = ()

    @classmethod
    def of(
        cls,
        pool: Pool,
        settings: VerifierSettings,
        *,
        first: Images | None = None,
        second: Images | None = None,
    ) -> VerifierData:
        """Give the pool's training and validation data; its real images where none are given."""
        return cls(
            first=pool.images if first is None else first,
            second=pool.images if second is None else second,
            train=pool.pairs(settings.train_pairs),
            validation=pool.pairs(settings.validation_pairs),
            patients=pool.patients,
            rows=_rows(pool, settings),
            serials=pool.serials,
        )


def _rows(pool: Pool, settings: VerifierSettings) -> NDArray[np.int64]:
    """Give the images that are learned from: the training part, or a share of its patients'."""
    rows = pool.split("train")
    share = settings.share_of_patients
    if share == 1:
        return rows
    source = numpy_generator(settings.training.seed, STAGE, "share of patients")
    return rows_of_a_share(rows, pool.patients, pool.set_codes, share, source)


def build_verifier(network: VerifierNetwork, seed: int) -> SiameseVerifier:
    """Give the network of the settings on the CPU, with the weights that ``seed`` stands for."""
    with initialising(seed, STAGE, "initial weights"):
        return SiameseVerifier(
            network.backbone,
            network.head,
            embedding=network.embedding,
            size=network.size,
            pretrained=network.pretrained.expanduser() if network.pretrained else None,
        )


class VerifierTask(Task):
    """Trains a ``SiameseVerifier``; see ``loop.Task``.

    ``verifier`` is put on the device and changed; it may be a fresh one or one to be tuned.
    Validation gives "loss", the mean cross-entropy of the validation pairs, and their "auc".
    """

    def __init__(
        self,
        verifier: SiameseVerifier,
        data: VerifierData,
        settings: VerifierSettings,
        computing: Computing,
    ) -> None:
        """Take everything that is needed; raises Misconfigured when the data do not do."""
        self._settings = settings
        self._data = data
        self._computing = computing
        self.verifier = computing.prepare(verifier)
        computing.compile(verifier.backbone)
        self.networks = {STAGE: verifier}
        self.optimizers = {STAGE: _optimizer(verifier, settings.training)}
        self.monitor = settings.monitor
        self.better = "lower" if settings.monitor == "loss" else "higher"
        if data.validation.same.all() or not data.validation.same.any():
            raise Misconfigured("the validation pairs are not of both kinds: no AUC can be taken")
        self._contrast: ContrastBatches | None = None
        if settings.objective == "contrastive":
            self._contrast = ContrastBatches(
                data.patients,
                data.rows,
                data.serials,
                patients_in_batch=settings.contrast.patients,
                images_of_each=settings.contrast.images,
                batch_size=settings.training.batch_size,
            )
        self._first, self._second = self._feeds()
        # From the disk: memory that is full of draws has no room for a network.
        self._redrawn = [Feed(one, computing.device, hold=False) for one in data.redrawn]

    def batches(self, epoch: int) -> Sequence[NDArray[np.int64]]:
        """Give places in the list of training pairs or, for "contrastive", numbers of images."""
        training = self._settings.training
        source = numpy_generator(training.seed, STAGE, "batches", epoch)
        if self._contrast is not None:
            return self._contrast.epoch(source, share=self._settings.share_of_patients)
        return in_batches(source.permutation(len(self._data.train)), training.batch_size)

    def step(self, rows: NDArray[np.int64], moment: Moment) -> Mapping[str, float | Tensor]:
        """Learn from pairs, or from images by contrast."""
        self.verifier.train()
        if self._contrast is not None:
            losses = self._contrast_losses(rows, moment)
        else:
            losses = {"loss": self._pair_loss(rows, moment)}
        total = torch.stack(tuple(losses.values())).sum()
        clip = self._settings.training.gradient_clip
        descend(total, self.verifier, self.optimizers[STAGE], clip)
        return {name: loss.detach() for name, loss in losses.items()}

    def validate(self) -> Mapping[str, float]:
        """Give "loss" and "auc" of the validation pairs."""
        pairs = self._data.validation
        logits = pair_logits(
            self.verifier, self._first, self._second, pairs, precision=self._computing.autocast
        )
        loss = float(verification_bce(logits, torch.from_numpy(pairs.same).to(logits.device)))
        if not math.isfinite(loss):
            return {"loss": loss, "auc": math.nan}
        return {"loss": loss, "auc": auc(logits.double().cpu().numpy(), pairs.same)}

    def _feeds(self) -> tuple[Feed, Feed]:
        data, device = self._data, self._computing.device
        hold = self._settings.training.cache_on_device
        first, second = [data.validation.first], [data.validation.second]
        if self._contrast is None:
            first.append(data.train.first)
            second.append(data.train.second)
        else:
            first.append(data.rows)
            second.append(data.rows)
        if data.first is data.second:
            both = Feed(data.first, device, np.concatenate(first + second), hold=hold)
            return both, both
        return (
            Feed(data.first, device, np.concatenate(first), hold=hold),
            Feed(data.second, device, np.concatenate(second), hold=hold),
        )

    def _sides(self, epoch: int) -> tuple[Feed, Feed]:
        """Give what the first and second images of an epoch's training are looked up in."""
        # By the epoch's number alone, so that a run that was stopped goes on as it would have.
        number = epoch % (1 + len(self._redrawn))
        if not number:
            return self._first, self._second
        first = self._redrawn[number - 1]
        return first, first if self._first is self._second else self._second

    def _pair_loss(self, rows: NDArray[np.int64], moment: Moment) -> Tensor:
        pairs = self._data.train.take(rows)
        one, other = self._sides(moment.epoch)
        first = self._varied(one.gather(pairs.first), moment, "first")
        second = self._varied(other.gather(pairs.second), moment, "second")
        with self._computing.autocast():
            logits = self.verifier(first, second)
        return verification_bce(logits, torch.from_numpy(pairs.same).to(logits.device))

    def _contrast_losses(self, rows: NDArray[np.int64], moment: Moment) -> dict[str, Tensor]:
        images = self._varied(self._either_side(rows, moment), moment, "images")
        with self._computing.autocast():
            embedded = self.verifier.embed(images)
        # Over all processes: whom a patient differs from is a matter of the whole batch.
        embedded = gather_rows(embedded)
        patients = torch.from_numpy(self._data.patients[rows]).to(embedded.device)
        patients = gather_rows(patients)
        directions = functional.normalize(embedded, dim=1)
        return {
            "loss": supervised_contrastive(
                directions, patients, self._settings.contrast.temperature
            ),
            "calibration": _calibration(self.verifier, embedded.detach(), patients),
        }

    def _either_side(self, rows: NDArray[np.int64], moment: Moment) -> Tensor:
        first, second = self._sides(moment.epoch)
        if first is second:
            return first.gather(rows)
        drawn = torch.rand(len(rows) * moment.world, generator=moment.common_generator("side"))
        on_first = drawn[moment.rank :: moment.world] < 0.5
        chosen = on_first.to(self._computing.device)[:, None, None, None]
        return torch.where(chosen, first.gather(rows), second.gather(rows))

    def _varied(self, images: Tensor, moment: Moment, purpose: str) -> Tensor:
        images = resize(images, self.verifier.size)
        # Drawn for all processes, so that one process draws the same for the same images.
        parameters = draw(
            self._settings.augmentation,
            len(images) * moment.world,
            moment.common_generator(purpose),
        )
        return apply(images, parameters.every(moment.world, moment.rank))


def run_verifier(
    settings: VerifierSettings,
    data: Sequence[str | Path],
    run_folder: str | Path,
    *,
    deadline: float | None = None,
) -> Fitted:
    """Train a verifier on the real images of the prepared sets in the folders ``data``.

    Goes on from wherever the run stands. Raises as ``training_run.train`` does, and UnusableData.
    """
    computing = Computing.of(settings.training)
    pool = open_pool(data)
    digests = {
        pool.name: pool.digest,
        "network.pretrained": pretrained_digest(settings.network.pretrained),
    }

    def make_task() -> VerifierTask:
        verifier = build_verifier(settings.network, settings.training.seed)
        return VerifierTask(verifier, VerifierData.of(pool, settings), settings, computing)

    return train(
        STAGE,
        settings,
        settings.training,
        run_folder,
        make_task,
        data=digests,
        device=computing.device,
        held_back=held_back(pool),
        result={"learned_from": _learned_from(pool, settings)},
        deadline=deadline,
    )


def _learned_from(pool: Pool, settings: VerifierSettings) -> dict[str, int]:
    rows = _rows(pool, settings)
    of_each = np.bincount(pool.patients[rows])
    return {
        "images": len(rows),
        "patients": int((of_each > 0).sum()),
        "patients_with_several": int((of_each > 1).sum()),
    }


def _optimizer(verifier: SiameseVerifier, training: Training) -> torch.optim.Optimizer:
    if verifier.head != "cosine":
        return build_optimizer(verifier.parameters(), training)
    # Adam moves a number by about its rate a step. Scale and bias have units to go, where weights
    # have hundredths: at a network's rate a short training would end before they had arrived.
    comparison = [verifier.log_scale, verifier.bias]
    known = {id(number) for number in comparison}
    weights = [weight for weight in verifier.parameters() if id(weight) not in known]
    optimizer = build_optimizer(weights, training)
    rate = max(_COMPARISON_RATE, training.learning_rate)
    optimizer.add_param_group({"params": comparison, "lr": rate, "weight_decay": 0.0})
    return optimizer


def _calibration(verifier: SiameseVerifier, embedded: Tensor, patients: Tensor) -> Tensor:
    """Give the cross-entropy of all pairs in a batch, equal and different patients even.

    Contrast says nothing about a threshold: this teaches the verifier's comparison alone, whose
    logit the attacked and the attackers go by, and not the embedding.
    """
    a, b = torch.triu_indices(len(patients), len(patients), 1, device=patients.device)
    same = (patients[a] == patients[b]).to(embedded.dtype)
    logits = verifier.compare(embedded[a], embedded[b])
    each = functional.binary_cross_entropy_with_logits(logits, same, reduction="none")
    kinds = torch.stack((same, 1 - same))
    return ((kinds * each).sum(1) / kinds.sum(1).clamp(min=1)).mean()
