"""One training from its settings to its result: what the stages have in common."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel

from prichexy_model.weights import WeightsError
from prichexy_train.data.pool import Pool
from prichexy_train.data.prepared import PreparedSet
from prichexy_train.errors import Misconfigured
from prichexy_train.loop import Fitted, Task, fit
from prichexy_train.precision import device_name
from prichexy_train.runs import RunFolder
from prichexy_train.settings import RANDOM_WEIGHTS, Training

__all__ = ["file_digest", "open_pool", "pretrained_digest", "train"]


def train(
    stage: str,
    settings: BaseModel,
    training: Training,
    run_folder: str | Path,
    make_task: Callable[[], Task],
    *,
    data: Mapping[str, str],
    device: torch.device,
    held_back: Mapping[str, str] | None = None,
    result: Mapping[str, Any] | None = None,
    deadline: float | None = None,
) -> Fitted:
    """Train what ``make_task`` gives in a run folder, from wherever the run stands.

    ``data`` names what the run reads, each with its digest, and ``held_back`` the test images that
    it does not learn from, as ``unseen.held_back`` gives them. A finished run is not trained
    again, and its task not even made. ``result`` is written to the run's ``result.json``, beside
    the best epoch and its measures. Raises as ``RunFolder.claimed`` and ``fit`` do, and
    Misconfigured for ImageNet weights that are none or do not fit.
    """
    run = RunFolder(run_folder)
    name = device_name(device)
    with run.claimed(
        stage, settings, data=data, seed=training.seed, device=name, held_back=held_back
    ):
        if run.finished:
            return _as_it_ended(run)
        try:
            task = make_task()
        except WeightsError as error:
            raise Misconfigured(str(error)) from error
        fitted = fit(task, training, run, deadline=deadline)
        if fitted.finished:
            best = fitted.history[fitted.best_epoch - 1]
            run.finish(
                {
                    "stage": stage,
                    "best_epoch": fitted.best_epoch,
                    "best": fitted.best,
                    "validation": best["validation"],
                    "epochs": len(fitted.history),
                    "seconds": round(fitted.seconds, 1),
                    **(result or {}),
                },
                seconds=fitted.seconds,
            )
    return fitted


def open_pool(folders: Sequence[str | Path]) -> Pool:
    """Give the prepared sets in ``folders`` as one pool. Raises UnusableData."""
    return Pool.join([PreparedSet.open(folder) for folder in folders])


def file_digest(path: Path) -> str:
    """Give the SHA-256 of a file that the settings name. Raises Misconfigured without it."""
    try:
        return hashlib.sha256(path.expanduser().read_bytes()).hexdigest()
    except OSError as error:
        raise Misconfigured(f"{path}: cannot be read ({error.strerror})") from error


def pretrained_digest(weights: Path | None) -> str:
    """Give what a provenance says of the weights a network began with: their digest, or "none".

    Raises Misconfigured where the file cannot be read.
    """
    return RANDOM_WEIGHTS if weights is None else file_digest(weights)


def _as_it_ended(run: RunFolder) -> Fitted:
    result = run.result()
    return Fitted(
        "finished", result["best_epoch"], result["best"], run.history(), result["seconds"]
    )
