"""Adversarial training: an anonymizer against networks that know patients and diagnoses.

The paper's game (see ``adversarial_step``), for the deformation of either operator and for
Privacy-Net. The epoch with the lowest validation total is kept, or the lowest of a measure that
does not depend on how far the critics of that epoch happen to be.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import model_validator
from torch import Tensor, nn

from prichexy_model.classifier import AbnormalityClassifier
from prichexy_model.verifier import SiameseVerifier
from prichexy_train.augment import Augmentation, apply, draw
from prichexy_train.data.images import Images
from prichexy_train.data.pairs import Pairs
from prichexy_train.data.pool import Pool
from prichexy_train.errors import Misconfigured
from prichexy_train.feed import Feed
from prichexy_train.judging import embed_images
from prichexy_train.loop import Fitted, Moment, Task
from prichexy_train.measures.auc import auc
from prichexy_train.measures.fidelity import psnr, ssim
from prichexy_train.optimizers import build_optimizer
from prichexy_train.precision import Computing
from prichexy_train.randomness import initialising, numpy_generator
from prichexy_train.runs import RunFolder, load_best
from prichexy_train.settings import Section, Training
from prichexy_train.stages.adversarial_step import (
    Batch,
    Objective,
    Optimizers,
    Players,
    adversarial_step,
)
from prichexy_train.stages.anonymizers import (
    GENERATOR,
    AnonymizerSettings,
    DeformationSettings,
    build_anonymizer,
    check_size,
    trained_network,
)
from prichexy_train.stages.batches import in_batches
from prichexy_train.stages.critics import (
    CLASSIFIER,
    CriticSettings,
    critic_name,
    critic_optimizers,
    is_due,
)
from prichexy_train.stages.known_labels import label_loss, split_known
from prichexy_train.stages.training_run import file_digest, open_pool, train
from prichexy_train.trained import load_classifier, load_verifier, network_of
from prichexy_train.unseen import check_unseen, held_back

__all__ = [
    "STAGE",
    "AdversarialData",
    "AdversarialSettings",
    "AdversarialTask",
    "run_adversarial",
]

#: The stage's name in provenance.
STAGE: Final = "anonymizer"

Network = TypeVar("Network", bound=nn.Module)

#: Images that are validated at a time.
_AT_ONCE: Final = 64


class AdversarialSettings(Section):
    """The whole configuration file of ``prichexy-train anonymizer``.

    ``training`` is the anonymizer's; a schedule moves the critics' learning rates along with it.
    """

    changeable = frozenset({"start"})

    anonymizer: AnonymizerSettings = DeformationSettings()
    #: The run folder, of ``pretrain`` or ``anonymizer``, whose weights to begin with; left out:
    #: random ones.
    start: Path | None = None
    #: The lists of pairs to train on and to validate on.
    train_pairs: str = "train"
    validation_pairs: str = "val"
    critics: CriticSettings
    objective: Objective = Objective()
    #: What early stopping and the best epoch go by; see ``AdversarialTask``. "total" is the
    #: paper's, and judges each epoch by that epoch's critics: where these restart, it is lowest
    #: just after a restart, when they know least. "frozen" has one yardstick for all epochs.
    monitor: Literal["total", "frozen"] = "total"
    #: How the images vary that the critics learn from; not at all, as published, by default. A
    #: verifier learns a small list of pairs by heart, and then has nothing to teach.
    augmentation: Augmentation = Augmentation()
    training: Training = Training(batch_size=64, epochs=250)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.augmentation.flip:
            raise ValueError("augmentation.flip: a mirrored radiograph is another patient's")
        return self


@dataclass(frozen=True, eq=False)
class AdversarialData:
    """What is trained and validated on: pairs of ``images``, and the labels of each image.

    ``targets`` is (images, label names), 0 or 1, or NaN where an image was not read for a label.
    """

    images: Images
    train: Pairs
    validation: Pairs
    label_names: tuple[str, ...]
    targets: NDArray[np.float32]

    @classmethod
    def of(cls, pool: Pool, settings: AdversarialSettings) -> AdversarialData:
        """Give the pool's data. Raises UnusableData where it lacks a list of pairs."""
        return cls(
            images=pool.images,
            train=pool.pairs(settings.train_pairs),
            validation=pool.pairs(settings.validation_pairs),
            label_names=pool.label_names,
            targets=pool.targets,
        )


class AdversarialTask(Task):
    """Trains ``anonymizer`` and the critics against each other; see ``loop.Task``.

    All networks are put on the device and changed. Validation gives, over the validation pairs:

    ``total``, ``privacy``, ``classification``  the generator's losses, with the critics of now
    ``auc``         of the critics of now: the best verifier's
    ``frozen_auc``  of the verifiers as they began, the best one's: what has been hidden from an
                    attacker who did not follow the training, and the least that counts
    ``frozen``      what these and the classifier as it began still find: the largest distance of
                    an AUC from chance, twice, so 0 to 1, and the classification loss, each with
                    its weight in the objective. Twice, for that is the root of what the rank
                    objective minimises: privacy in the measure, too, goes from 1 to 0
    ``psnr``, ``ssim``  between the anonymised images and the real ones
    """

    better: Literal["lower", "higher"] = "lower"

    def __init__(
        self,
        anonymizer: nn.Module,
        verifiers: Sequence[SiameseVerifier],
        classifier: AbnormalityClassifier,
        data: AdversarialData,
        settings: AdversarialSettings,
        computing: Computing,
    ) -> None:
        """Raise Misconfigured when the data lack a label or a kind of pair that is needed."""
        training = settings.training
        self._settings = settings
        self._computing = computing
        self.monitor = settings.monitor
        self._at_first = [_held(one, computing) for one in verifiers]
        self._classifier_at_first = _held(classifier, computing)
        for network in (anonymizer, *verifiers, classifier):
            computing.prepare(network)
        generator = trained_network(anonymizer)
        for network in (generator, classifier.backbone, *(one.backbone for one in verifiers)):
            computing.compile(network)
        self._players = Players(anonymizer, verifiers, classifier)
        self._verifiers = tuple(verifiers)
        self._optimizers = Optimizers(
            build_optimizer(generator.parameters(), training),
            *critic_optimizers(verifiers, classifier, settings.critics),
        )
        names = (GENERATOR, *map(critic_name, range(len(verifiers))), CLASSIFIER)
        self.networks = dict(zip(names, (generator, *verifiers, classifier), strict=True))
        self.optimizers = dict(zip(names, self._optimizers.all, strict=True))

        self._train, self._validation = data.train, data.validation
        if data.validation.same.all() or not data.validation.same.any():
            raise Misconfigured("the validation pairs are not of both kinds: no AUC can be taken")
        targets, known = split_known(_targets(data, classifier))
        self._targets = torch.from_numpy(targets).to(computing.device)
        self._known_targets = (
            None if known is None else torch.from_numpy(known).to(computing.device)
        )
        lists = (data.train, data.validation)
        used = np.concatenate([side for pairs in lists for side in (pairs.first, pairs.second)])
        self._feed = Feed(data.images, computing.device, used, hold=training.cache_on_device)
        self._known: list[Tensor] | None = None

    def batches(self, epoch: int) -> Sequence[NDArray[np.int64]]:
        """Give rows of the training pairs, each once an epoch."""
        training = self._settings.training
        source = numpy_generator(training.seed, STAGE, "batches", epoch)
        return in_batches(source.permutation(len(self._train)), training.batch_size)

    def step(self, rows: NDArray[np.int64], moment: Moment) -> Mapping[str, float | Tensor]:
        """Play one round with these pairs; gives the losses of ``adversarial_step``."""
        pairs = self._train.take(rows)
        labels, known = self._labels_of(pairs.first)
        batch = Batch(
            first=self._feed.gather(pairs.first),
            second=self._feed.gather(pairs.second),
            same=self._here(pairs.same).float(),
            labels=labels,
            known=known,
        )
        return adversarial_step(
            self._players,
            self._optimizers,
            batch,
            self._settings.objective,
            self._computing.autocast,
            self._settings.training.gradient_clip,
            vary=lambda images, purpose: self._varied(images, moment, purpose),
        )

    def validate(self) -> Mapping[str, float]:
        """Give the measures of the validation pairs."""
        pairs = self._validation
        firsts, first = np.unique(pairs.first, return_inverse=True)
        seconds, second = np.unique(pairs.second, return_inverse=True)
        verifiers = (*self._verifiers, *self._at_first)
        if self._known is None:
            self._known = [self._embedded(one, seconds) for one in self._at_first]
        real = [*(self._embedded(one, seconds) for one in self._verifiers), *self._known]
        seen = self._look(firsts, verifiers)
        same = self._here(pairs.same)
        labels, read = self._labels_of(pairs.first)
        with torch.no_grad():
            logits = [
                verifier.compare(a[self._here(first)], b[self._here(second)])
                for verifier, a, b in zip(verifiers, seen.embedded, real, strict=True)
            ]
            losses = self._settings.objective.losses(
                logits[: len(self._at_first)],
                seen.classified[self._here(first)],
                same,
                labels,
                read,
            )
            utility = label_loss(seen.classified_at_first[self._here(first)], labels, read)
        scores = [_auc(one, pairs.same) for one in logits]
        known = scores[len(self._at_first) :]
        objective = self._settings.objective
        frozen = objective.privacy_weight * max(2 * abs(one - 0.5) for one in known)
        frozen += objective.classification_weight * float(utility)
        return {
            **{name: float(value) for name, value in losses.items()},
            "auc": max(scores[: len(self._at_first)]),
            "frozen_auc": max(known),
            "frozen": frozen,
            "psnr": float(seen.psnr.double().mean()),
            "ssim": float(seen.ssim.double().mean()),
        }

    def end_epoch(self, epoch: int, measures: Mapping[str, float]) -> None:  # noqa: ARG002
        """Set back the verifier whose turn it is."""
        every = self._settings.critics.restart_every
        count = len(self._verifiers)
        for number in range(count):
            if is_due(number, count, epoch, every):
                first = self._at_first[number].state_dict()
                self._verifiers[number].load_state_dict(first)
                self._optimizers.verifiers[number].state.clear()

    def _varied(self, images: Tensor, moment: Moment, purpose: str) -> Tensor:
        # Drawn for all processes, so that one process draws the same for the same images.
        parameters = draw(
            self._settings.augmentation,
            len(images) * moment.world,
            moment.common_generator(purpose),
        )
        return apply(images, parameters.every(moment.world, moment.rank))

    def _look(self, rows: NDArray[np.int64], verifiers: Sequence[SiameseVerifier]) -> _Seen:
        """Anonymise the images numbered ``rows`` and show them to all who judge."""
        anonymizer, classifier = self._players.anonymizer, self._players.classifier
        classifiers = (classifier, self._classifier_at_first)
        for network in (anonymizer, *verifiers, classifier):
            network.eval()
        parts: list[list[Tensor]] = []
        with torch.no_grad():
            for start in range(0, len(rows), _AT_ONCE):
                images = self._feed.gather(rows[start : start + _AT_ONCE])
                with self._computing.autocast():
                    made = anonymizer(images)
                    found = [one(made) for one in classifiers]
                    found += [one.embed(made) for one in verifiers]
                parts.append([psnr(made, images), ssim(made, images), *found])
        psnrs, ssims, now, at_first, *embedded = (
            torch.cat(part) for part in zip(*parts, strict=True)
        )
        return _Seen(now, at_first, embedded, psnrs, ssims)

    def _embedded(self, verifier: SiameseVerifier, rows: NDArray[np.int64]) -> Tensor:
        return embed_images(verifier, self._feed, rows, precision=self._computing.autocast)

    def _labels_of(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor | None]:
        """Give the labels of these images, and which of them are known; None: all."""
        here = self._here(rows)
        known = self._known_targets
        return self._targets[here], None if known is None else known[here]

    def _here(self, values: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(values).to(self._computing.device, non_blocking=True)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was found in some anonymised images: logits of labels, embeddings, likeness."""

    classified: Tensor
    classified_at_first: Tensor
    embedded: Sequence[Tensor]
    psnr: Tensor
    ssim: Tensor


def run_adversarial(
    settings: AdversarialSettings,
    data: Sequence[str | Path],
    run_folder: str | Path,
    *,
    deadline: float | None = None,
) -> Fitted:
    """Train on the prepared sets in the folders ``data``, from wherever the run stands.

    The result says which networks the critics are. Raises as ``training_run.train`` does;
    UnusableData when the sets cannot be read; Misconfigured when a run that the settings name is
    not finished, or does not fit them or the sets; Damaged when one cannot be read.
    """
    computing = Computing.of(settings.training)
    pool = open_pool(data)
    check_size(settings.anonymizer, pool)
    critics = {critic_name(k): run for k, run in enumerate(settings.critics.verifiers)}
    named = {**critics, CLASSIFIER: settings.critics.classifier}
    if settings.start is not None:
        named["start"] = settings.start
    networks = {
        name: network_of(run).model_dump(mode="json", exclude={"pretrained"})
        for name, run in critics.items()
    }
    words: dict[str, Any] = {"critics": networks}
    # Before the run folder is claimed: what does not fit leaves no trace there.
    anonymizer = _anonymizer(settings)
    verifiers = [load_verifier(run) for run in settings.critics.verifiers]
    classifier = load_classifier(settings.critics.classifier)
    for one in named.values():
        check_unseen(one, pool)

    def make_task() -> AdversarialTask:
        of = AdversarialData.of(pool, settings)
        return AdversarialTask(anonymizer, verifiers, classifier, of, settings, computing)

    return train(
        STAGE,
        settings,
        settings.training,
        run_folder,
        make_task,
        data={pool.name: pool.digest} | {name: _best_digest(run) for name, run in named.items()},
        device=computing.device,
        held_back=held_back(pool),
        result=words,
        deadline=deadline,
    )


def _anonymizer(settings: AdversarialSettings) -> nn.Module:
    with initialising(settings.training.seed, GENERATOR, "initial weights"):
        anonymizer = build_anonymizer(settings.anonymizer)
    if settings.start is not None:
        try:
            trained_network(anonymizer).load_state_dict(load_best(settings.start, GENERATOR))
        except RuntimeError as error:
            raise Misconfigured(f"start: {settings.start} trained another network") from error
    return anonymizer


def _held(network: Network, computing: Computing) -> Network:
    """Give a copy on the device that stays as it is."""
    return computing.prepare(copy.deepcopy(network)).requires_grad_(requires_grad=False).eval()


def _best_digest(run: Path) -> str:
    folder = RunFolder(run)
    if not folder.finished:
        raise Misconfigured(f"{run}: is no finished run")
    return file_digest(folder.best_file)


def _targets(data: AdversarialData, classifier: AbnormalityClassifier) -> NDArray[np.float32]:
    """Give the targets (images, labels) in the order of the classifier's outputs."""
    absent = [label for label in classifier.labels if label not in data.label_names]
    if absent:
        raise Misconfigured(
            f"the classifier knows {', '.join(absent)}, which the data were not prepared with"
        )
    columns = [data.label_names.index(label) for label in classifier.labels]
    return data.targets[:, columns]


def _auc(logits: Tensor, same: NDArray[np.bool_]) -> float:
    scores = logits.double().cpu().numpy()
    # What is not finite has no order; the loop ends the run for the loss that it comes with.
    return auc(scores, same) if np.isfinite(scores).all() else np.nan
