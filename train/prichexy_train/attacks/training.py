"""How an attacker trains a verifier: with the stage that trains real ones, on other images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
from pydantic import JsonValue

from prichexy_model.verifier import SiameseVerifier
from prichexy_train.anonymised import NotInTime
from prichexy_train.attacks.comparison import OfVerifier
from prichexy_train.attacks.features import scored
from prichexy_train.attacks.rung import Attempt, Interrupted, Workplace
from prichexy_train.attacks.settings import TrainedOn
from prichexy_train.attacks.target import Target, learning_rows
from prichexy_train.data.pairs import Pairs
from prichexy_train.precision import Computing
from prichexy_train.randomness import derive, numpy_generator
from prichexy_train.stages.training_run import train
from prichexy_train.stages.verifier import STAGE, VerifierData, VerifierSettings, VerifierTask
from prichexy_train.trained import load_verifier

__all__ = ["attack_with", "seeded", "shuffled", "train_attacker", "training_data"]


def seeded(settings: VerifierSettings, target: Target, workplace: Workplace) -> VerifierSettings:
    """Give ``settings`` with the attempt's own seed of training, and on the target's device."""
    training = settings.training.model_copy(
        update={
            "seed": derive(target.settings.seed, "attack", workplace.rung, workplace.seed),
            "device": target.settings.device,
        }
    )
    return settings.model_copy(update={"training": training})


def training_data(target: Target, settings: VerifierSettings, on: TrainedOn) -> VerifierData:
    """Give training and validation pairs, anonymised on both sides or on the first alone.

    What a random method makes of the training images is another draw in every epoch, as far as
    there are draws.
    """
    second = target.anonymised if on == "anonymised" else target.pool.images
    data = VerifierData.of(target.pool, settings, first=target.anonymised, second=second)
    rows = np.intersect1d(learning_rows(target.pool, target.settings), data.rows)
    return dataclasses.replace(data, rows=rows, redrawn=target.redrawn)


def shuffled(data: VerifierData, seed: int) -> VerifierData:
    """Give ``data`` where training and validation images have changed their patients at random.

    Every patient has as many images as before, others'. What is left to learn is nothing about
    identity. The pairs keep their answers; their images are exchanged.
    """
    source = numpy_generator(seed, "shuffled identities")
    images = np.arange(len(data.patients))
    for rows in (data.rows, _images(data.validation)):
        images[rows] = source.permutation(rows)
    patients = np.empty_like(data.patients)
    # The image that stands in for image i has i's patient.
    patients[images] = data.patients
    return dataclasses.replace(
        data,
        train=Pairs(images[data.train.first], images[data.train.second], data.train.same),
        validation=Pairs(
            images[data.validation.first], images[data.validation.second], data.validation.same
        ),
        patients=patients,
        # Neighbours of the real numbering mean nothing any more.
        serials=np.empty((0, 2), dtype=np.int64),
    )


def train_attacker(
    target: Target,
    settings: VerifierSettings,
    data: VerifierData,
    workplace: Workplace,
    *,
    begin: Callable[[], SiameseVerifier],
    read: Mapping[str, str],
) -> tuple[SiameseVerifier, dict[str, JsonValue]]:
    """Train what ``begin`` gives until early stopping; give its best weights, and how it went.

    Goes on from wherever the workplace's run stands. ``read`` names what beside the data the
    training depends on, each with its digest. Raises NotInTime and Interrupted.
    """
    computing = Computing.of(settings.training)
    fitted = train(
        STAGE,
        settings,
        settings.training,
        workplace.folder,
        lambda: VerifierTask(begin(), data, settings, computing),
        data={target.pool.name: target.pool.digest, "method": target.method.digest, **read},
        device=computing.device,
        result={"attack": target.method.name},
        deadline=workplace.deadline,
    )
    if fitted.ended == "deadline":
        raise NotInTime
    if fitted.ended == "interrupted":
        raise Interrupted
    # Where it stood is needed no more, and three times as large as what came of it.
    (workplace.folder / "checkpoint.pt").unlink(missing_ok=True)
    best = fitted.history[fitted.best_epoch - 1]
    details: dict[str, JsonValue] = {
        "epochs": len(fitted.history),
        "best_epoch": fitted.best_epoch,
        "validation": dict(best["validation"]),
        "trained_seconds": round(fitted.seconds, 1),
    }
    return load_verifier(workplace.folder).to(target.device), details


def attack_with(
    target: Target, verifier: SiameseVerifier, details: Mapping[str, JsonValue] | None = None
) -> Attempt:
    """Give a verifier's scores of all lists: the first image anonymised, the second real."""
    return Attempt(scored(target, OfVerifier(verifier)), details=details or {})


def _images(pairs: Pairs) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.unique(np.concatenate((pairs.first, pairs.second)))
