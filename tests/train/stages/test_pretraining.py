"""Pretraining: the anonymizer learns to give back what it is given."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from prichexy_testing.miniature_runs import Runs, pretraining_settings
from prichexy_testing.training import losses
from prichexy_train.errors import Misconfigured
from prichexy_train.loop import Moment
from prichexy_train.precision import Computing
from prichexy_train.randomness import initialising
from prichexy_train.runs import RunFolder, load_best
from prichexy_train.stages.anonymizers import build_anonymizer
from prichexy_train.stages.pretraining import (
    PretrainingSettings,
    PretrainingTask,
    run_pretraining,
)
from prichexy_train.stages.training_run import open_pool

MOMENT = Moment(seed=1, epoch=1, iteration=1, rank=0, world=1)


def task(runs: Runs, kind: str = "privacy-net", **changes: object) -> PretrainingTask:
    settings = pretraining_settings(kind, **changes)
    with initialising(3):
        anonymizer = build_anonymizer(settings.anonymizer)
    pool = open_pool([runs.data])
    return PretrainingTask(anonymizer, pool, settings, Computing.of(settings.training))


def test_an_epoch_shows_every_training_image_once(miniature_runs_made: Runs) -> None:
    pretraining = task(miniature_runs_made, batch_size=5)
    train = open_pool([miniature_runs_made.data]).split("train")
    first, again, second = (pretraining.batches(epoch) for epoch in (1, 1, 2))
    shown = [row for rows in first for row in rows.tolist()]
    assert len(shown) == len(set(shown)) >= len(train) - 1
    assert set(shown) <= set(train.tolist())
    assert [rows.tolist() for rows in first] == [rows.tolist() for rows in again]
    assert [rows.tolist() for rows in first] != [rows.tolist() for rows in second]


@pytest.mark.parametrize("kind", ["deformation", "privacy-net"])
def test_a_step_is_one_of_adam_on_the_squared_error(kind: str, miniature_runs_made: Runs) -> None:
    pretraining, plain = (task(miniature_runs_made, kind) for _ in range(2))
    images = open_pool([miniature_runs_made.data]).images
    rows = pretraining.batches(1)[0]
    found = pretraining.step(rows, MOMENT)

    batch = images.gather(rows)
    loss = ((plain.anonymizer(batch) - batch) ** 2).mean()
    loss.backward()
    torch.optim.Adam(plain.anonymizer.parameters(), lr=1e-4).step()
    torch.testing.assert_close(found["mse"], loss.detach())
    expected = plain.anonymizer.state_dict()
    for name, value in pretraining.anonymizer.state_dict().items():
        # Adam's first step is all of its size, whichever sign a vanishing gradient has.
        torch.testing.assert_close(value, expected[name], rtol=0, atol=2.1e-4, msg=name)


def test_steps_bring_the_image_back(miniature_runs_made: Runs) -> None:
    pretraining = task(miniature_runs_made, learning_rate=0.003)
    errors = [
        float(pretraining.step(rows, MOMENT)["mse"])
        for epoch in (1, 2)
        for rows in pretraining.batches(epoch)
    ]
    assert sum(errors[-3:]) < 0.4 * sum(errors[:3])


def test_validation_is_of_the_validation_images_in_eval_mode(miniature_runs_made: Runs) -> None:
    pretraining = task(miniature_runs_made)
    pool = open_pool([miniature_runs_made.data])
    found = pretraining.validate()
    images = pool.images.gather(pool.split("val"))
    pretraining.anonymizer.eval()
    with torch.no_grad():
        same = pretraining.anonymizer(images)
    error = ((same - images) ** 2).double().mean(dim=(1, 2, 3))
    assert found["mse"] == pytest.approx(error.mean().item(), rel=1e-5)
    assert found["psnr"] == pytest.approx((-10 * error.log10()).mean().item(), rel=1e-5)


def test_a_run_stopped_after_every_step_comes_to_the_very_same(
    miniature_runs_made: Runs, tmp_path: Path
) -> None:
    settings = pretraining_settings("privacy-net", epochs=2)
    whole = run_pretraining(settings, [miniature_runs_made.data], tmp_path / "whole")
    for _ in range(10):
        passed = time.monotonic()
        parts = run_pretraining(
            settings, [miniature_runs_made.data], tmp_path / "parts", deadline=passed
        )
        if parts.finished:
            break
    assert parts.finished
    assert losses(parts.history) == losses(whole.history)
    one, other = (load_best(tmp_path / name, "generator") for name in ("whole", "parts"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert RunFolder(tmp_path / "parts").result()["stage"] == "pretrain"


def test_images_of_another_size_are_refused_before_anything_is_written(
    miniature_runs_made: Runs, tmp_path: Path
) -> None:
    settings = PretrainingSettings.model_validate({"anonymizer": {"kind": "deformation"}})
    with pytest.raises(Misconfigured, match=r"anonymizer\.size is 256"):
        run_pretraining(settings, [miniature_runs_made.data], tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "table",
    [
        {"kind": "deformation", "mu": -0.1},
        {"kind": "deformation", "border": "reflect"},
        {"kind": "deformation", "size": 100},
        {"kind": "deformation", "mu_coarse": 0.01, "cells": 7},
        {"kind": "deformation", "mu_coarse": 0.2},
        {"kind": "privacy-net", "mu": 0.1},
        {"kind": "u-net"},
    ],
)
def test_an_anonymizer_that_cannot_be_is_refused_when_the_file_is_read(
    table: dict[str, object],
) -> None:
    with pytest.raises(ValidationError):
        PretrainingSettings.model_validate({"anonymizer": table})
