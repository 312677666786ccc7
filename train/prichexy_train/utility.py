"""Utility: what a classifier that was trained on real images still reads in anonymised ones.

The control is the same classifier on the same real images, on the same way: the prepared image,
rounded to half precision as anonymised ones are stored, resized by the classifier. A difference
between the two is the method's alone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, JsonValue
from torch import Tensor

from prichexy_model.methods import Deforming
from prichexy_train.anonymised import NotInTime, displacements
from prichexy_train.attacks.target import anonymised_images
from prichexy_train.data.images import Images
from prichexy_train.data.pool import Pool
from prichexy_train.data.prepared import PreparedSet
from prichexy_train.errors import Misconfigured
from prichexy_train.feed import Feed
from prichexy_train.judging import label_logits
from prichexy_train.measures.auc import auc
from prichexy_train.measures.bootstrap import Resamples, Weights, interval, weighted_auc
from prichexy_train.measures.fidelity import moved
from prichexy_train.methods_from import method_from
from prichexy_train.precision import choose_device, device_name
from prichexy_train.records import LabelFigures, MethodOf, UtilityRecord, write_record
from prichexy_train.runs import RunFolder, origin
from prichexy_train.settings import Device, Section
from prichexy_train.stages.training_run import file_digest, open_pool
from prichexy_train.trained import load_classifier
from prichexy_train.unseen import check_unseen

__all__ = ["RECORD", "STAGE", "UtilitySettings", "run_utility", "utility_record"]

_log: Final = logging.getLogger(__name__)

#: The stage's name in provenance, and the record's.
STAGE: Final = "utility"
RECORD: Final = "utility"
#: Of how many test images of a set, at the most, the displacement is measured.
_MOVED: Final = 500

Scores = NDArray[np.float64]


class UtilitySettings(Section):
    """The whole configuration file of ``prichexy-train utility``."""

    changeable = frozenset({"device", "batch_size"})

    #: Of the draws of random methods; that of the attack, to use its anonymised images.
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1
    #: Labels on fewer test images than this, or missing on fewer, have no figure.
    least: Annotated[int, Field(ge=1)] = 5
    #: Resamples of the test patients.
    replicates: Annotated[int, Field(ge=100)] = 1000
    device: Device = "auto"
    batch_size: Annotated[int, Field(ge=1)] = 64


def run_utility(
    settings: UtilitySettings,
    data: Sequence[str | Path],
    run_folder: str | Path,
    *,
    method: str,
    classifier: Path,
    anonymised: Path | None = None,
    deadline: float | None = None,
) -> bool:
    """Measure a method's utility on the test images of the prepared sets in ``data``.

    Writes one record a set into the run folder. ``classifier`` is a finished run. Anonymised
    images are made, or found, below ``anonymised``, in the run folder by default. False when the
    deadline came first: the same call goes on. Raises as ``RunFolder.claimed``, ``method_from`` and
    ``load_classifier`` do, and Misconfigured where the classifier can be judged on no label, and
    where a run may have learned from the test patients.
    """
    device = choose_device(settings.device)
    pool, chosen, run = open_pool(data), method_from(method, device), RunFolder(run_folder)
    network = load_classifier(classifier).to(device)
    for named in (classifier, chosen.run):
        if named is not None:
            check_unseen(named, pool)
    digests = {
        pool.name: pool.digest,
        "method": chosen.of.digest,
        "classifier": file_digest(RunFolder(classifier).best_file),
    }
    with run.claimed(STAGE, settings, data=digests, seed=settings.seed, device=device_name(device)):
        if run.finished:
            return True
        began = time.monotonic()
        try:
            images = anonymised_images(
                pool,
                chosen,
                anonymised or run.path / "anonymised",
                seed=settings.seed,
                device=device,
                batch_size=settings.batch_size,
                deadline=deadline,
            )
        except NotInTime:
            return False
        rows = pool.split("test")
        logits = [
            label_logits(
                network,
                Feed(each, device, rows, hold=False),
                rows,
                batch_size=settings.batch_size,
            )
            .double()
            .cpu()
            .numpy()
            for each in (images, _Halved(pool.images))
        ]
        seconds = time.monotonic() - began

        def displaced(some: NDArray[np.int64]) -> dict[str, JsonValue]:
            """Give how far these images' pixels were moved, where the method moves them."""
            if not isinstance(chosen.method, Deforming):
                return {}
            some = some[np.linspace(0, len(some) - 1, min(len(some), _MOVED), dtype=np.int64)]
            fields = displacements(
                pool, some, chosen, settings.seed, device=device, batch_size=settings.batch_size
            )
            return {"displacement": {**asdict(moved(fields))}}

        for prepared, place in _by_set(pool, rows):
            record, scores = utility_record(
                prepared,
                chosen.of,
                network.labels,
                *(each[place] for each in logits),
                settings=settings,
                device=device_name(device),
                details={"classifier": classifier.name, **displaced(rows[place])},
                provenance={**digests, **origin()},
            )
            record = record.model_copy(update={"seconds": round(seconds, 2)})
            name = RECORD if len(pool.sets) == 1 else f"{RECORD}.{prepared.name}"
            write_record(run.path, name, record, scores)
            _log.info(
                "%s, %s: mean AUC %.3f, of the real images %.3f",
                chosen.name,
                prepared.name,
                record.auc,
                record.control,
            )
        run.finish({"stage": STAGE, "records": len(pool.sets)}, seconds=seconds)
    return True


def utility_record(
    prepared: PreparedSet,
    method: MethodOf,
    labels: Sequence[str],
    scores: Scores,
    control: Scores,
    *,
    settings: UtilitySettings,
    device: str,
    details: dict[str, JsonValue],
    provenance: dict[str, JsonValue],
) -> tuple[UtilityRecord, dict[str, NDArray[Any]]]:
    """Give the record, and its arrays, of a classifier's ``scores`` and ``control``.

    Both are (test images, labels), in the order of the set's part test. A label that the set was
    not read for is not in the record: nobody knows which of its images show it. The mean of a
    resample is over the labels that have both kinds of images in it. Raises Misconfigured where no
    label can be judged.
    """
    rows = prepared.split("test")
    known = prepared.catalogue.label_names
    columns = [column for column, name in enumerate(labels) if name in known]
    labels = [labels[column] for column in columns]
    scores, control = scores[:, columns], control[:, columns]
    told = [known.index(name) for name in labels]
    targets = prepared.catalogue.targets()[rows][:, told] > 0
    enough = np.minimum(targets.sum(0), len(rows) - targets.sum(0)) >= settings.least
    judged = [label for label in range(len(labels)) if enough[label]]
    if not judged:
        raise Misconfigured(
            f"{prepared.name}: none of the classifier's labels is on {settings.least} test images "
            "and missing on as many"
        )
    patients = prepared.catalogue.patients[rows]
    resamples = Resamples(patients, settings.replicates)
    measures = [
        weighted_auc(values[:, label], targets[:, label])
        for values in (scores, control)
        for label in judged
    ]

    def every(weights: Weights) -> NDArray[np.float64]:
        return np.stack([measure(weights) for measure in measures], axis=1)

    drawn = resamples.of(every, patients).reshape(-1, 2, len(judged))
    figures = {name: LabelFigures(**_counts(targets, k)) for k, name in enumerate(labels)}
    for k, label in enumerate(judged):
        figures[labels[label]] = LabelFigures(
            auc=auc(scores[:, label], targets[:, label]),
            interval=interval(drawn[:, 0, k]),
            control=auc(control[:, label], targets[:, label]),
            control_interval=interval(drawn[:, 1, k]),
            **_counts(targets, label),
        )
    own = [figures[labels[label]] for label in judged]
    mean = float(np.mean([one.auc for one in own if one.auc is not None]))
    mean_control = float(np.mean([one.control for one in own if one.control is not None]))
    with np.errstate(invalid="ignore"):
        counted = np.isfinite(drawn)
        means = np.where(counted, drawn, 0).sum(2) / counted.sum(2)
    record = UtilityRecord(
        data=prepared.name,
        data_digest=prepared.digest,
        method=method,
        seed=settings.seed,
        patients=len(resamples.codes),
        seconds=0,
        device=device,
        scores="",
        details=details,
        provenance=provenance,
        auc=mean,
        interval=interval(means[:, 0]),
        control=mean_control,
        control_interval=interval(means[:, 1]),
        difference=mean - mean_control,
        difference_interval=interval(means[:, 0] - means[:, 1]),
        labels=figures,
        images=len(rows),
    )
    return record, {
        "scores": scores.astype(np.float32),
        "control": control.astype(np.float32),
        "targets": targets,
        "patient": patients,
    }


def _by_set(pool: Pool, rows: NDArray[np.int64]) -> Iterator[tuple[PreparedSet, NDArray[np.int64]]]:
    """Give each set, and where its test images are among ``rows``, those of the pool."""
    start = 0
    for prepared in pool.sets:
        yield prepared, np.searchsorted(rows, prepared.split("test") + start)
        start += len(prepared.catalogue)


def _counts(targets: NDArray[np.bool_], label: int) -> dict[str, Any]:
    positives = int(targets[:, label].sum())
    return {"positives": positives, "negatives": len(targets) - positives}


class _Halved:
    """Real images with the rounding that anonymised ones have on the disk."""

    def __init__(self, images: Images) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    @property
    def size(self) -> int:
        return self._images.size

    def gather(self, indices: NDArray[np.int64]) -> Tensor:
        return self._images.gather(indices).to(torch.float16).to(torch.float32)
