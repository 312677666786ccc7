"""How many hours the paper's trainings would take on this machine.

    python benchmarks/training_hours.py [--device auto] [--steps 20] [--set KEY=VALUE …]

Every stage of train/configs/…-paper.toml takes two epochs of so many steps on made-up images of
256 pixels; the second is timed, its validation of a few images included. The hours are those of
ChestX-ray14's numbers of images and pairs, at the most epochs that the file allows: early stopping
ends most trainings sooner. ``--set`` changes every training, as in training.precision=float32.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from prichexy_train.anonymised import anonymise
from prichexy_train.data.pool import Pool
from prichexy_train.data.prepared import PreparedSet
from prichexy_train.data.preparing import prepare_set
from prichexy_train.data.settings import PrepareSettings
from prichexy_train.methods_from import method_from
from prichexy_train.precision import choose_device, device_name
from prichexy_train.runs import RunFolder
from prichexy_train.settings import read_settings
from prichexy_train.stages.adversarial import AdversarialSettings, run_adversarial
from prichexy_train.stages.classifier import ClassifierSettings, run_classifier
from prichexy_train.stages.pretraining import PretrainingSettings, run_pretraining
from prichexy_train.stages.verifier import VerifierSettings, run_verifier

CONFIGS = Path(__file__).resolve().parents[1] / "train" / "configs"
SIZE = 256
LABELS = tuple(f"Finding {number}" for number in range(1, 15))
#: Of ChestX-ray14 as the paper uses it.
TRAINING_IMAGES, TRAINING_PAIRS, ALL_IMAGES = 75_708, 10_000, 112_120


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--patients", type=int, default=700)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    wanted = parser.parse_args()
    device = choose_device(wanted.device)
    print(f"torch {torch.__version__}, {device_name(device)}, {torch.get_num_threads()} threads")  # noqa: T201
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = [_made_up(folder, wanted.patients)]
        changes = [
            *(f"training.{key}" for key in ("epochs=2", f"steps_per_epoch={wanted.steps}")),
            f"training.device={wanted.device}",
            *wanted.set,
        ]
        stages = _stages(folder)
        for title, run, model, file, more, examples in stages:
            settings = read_settings(CONFIGS / file, model, [*more, *changes])
            whole = read_settings(CONFIGS / file, model, [*more, *wanted.set])
            run(settings, data, folder / title)
            first, second = (line["seconds"] for line in RunFolder(folder / title).history())
            each = (second - first) / wanted.steps
            steps = examples // whole.training.batch_size
            hours = each * steps * whole.training.epochs / 3600
            print(  # noqa: T201
                f"{title:12} batch {whole.training.batch_size:3}: {1 / each:8.2f} steps/s, "
                f"{steps * each / 60:8.1f} min an epoch, at most {hours:7.1f} h "
                f"({whole.training.epochs} epochs)"
            )
        _anonymising(folder, data, device)


def _stages(folder: Path) -> Sequence[tuple[str, Any, Any, str, Sequence[str], int]]:
    uses = (
        f'critics.verifiers=["{folder / "verifier"}"]',
        f"critics.classifier={folder / 'classifier'}",
        f"start={folder / 'pretrain'}",
    )
    # What a step takes does not depend on what the weights are.
    random = ("network.pretrained=none",)
    return (
        (
            "verifier",
            run_verifier,
            VerifierSettings,
            "verifier-paper.toml",
            random,
            TRAINING_PAIRS,
        ),
        (
            "classifier",
            run_classifier,
            ClassifierSettings,
            "classifier-paper.toml",
            random,
            TRAINING_IMAGES,
        ),
        (
            "pretrain",
            run_pretraining,
            PretrainingSettings,
            "pretrain-paper.toml",
            (),
            TRAINING_IMAGES,
        ),
        (
            "anonymizer",
            run_adversarial,
            AdversarialSettings,
            "prichexynet-paper-mu0.01.toml",
            uses,
            TRAINING_PAIRS,
        ),
    )


def _anonymising(folder: Path, data: Sequence[Path], device: torch.device) -> None:
    pool = Pool.join([PreparedSet.open(one) for one in data])
    chosen = method_from(f"run:{folder / 'anonymizer'}", device)
    rows = np.arange(min(len(pool), 512))
    began = time.monotonic()
    anonymise(pool, rows, chosen, 1, folder / "anonymised", device=device)
    each = (time.monotonic() - began) / len(rows)
    print(  # noqa: T201
        f"{'anonymising':12} float32: {1 / each:8.1f} images/s, "
        f"{each * ALL_IMAGES / 60:8.1f} min for {ALL_IMAGES:,}"
    )


def _made_up(folder: Path, patients: int) -> Path:
    """Write and prepare a set of two random images a patient, with random findings."""
    source = folder / "source"
    source.mkdir()
    random = np.random.default_rng(1)
    with (source / "metadata.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("image", "patient_id", "labels", "view", "sex", "age"))
        for patient in range(patients):
            for image in range(2):
                name = f"{patient}_{image}.png"
                pixels = random.integers(0, 256, (SIZE, SIZE), dtype=np.uint8)
                Image.fromarray(pixels).save(source / name, compress_level=0)
                found = [label for label in LABELS if random.random() < 0.3]
                labels = "|".join(found) or "No Finding"
                rows.writerow((name, patient, labels, "PA", "MF"[patient % 2], 50))
    pairs = {"count": 10_000, "a_patient": 1}
    settings = PrepareSettings.model_validate(
        {
            "name": "made-up",
            "size": SIZE,
            "source": {"layout": "folder", "labels": LABELS},
            "split": {"by": "drawn", "val": 0.04, "test": 0.04},
            "pairs": dict.fromkeys(("train", "val", "test"), pairs),
        }
    )
    prepare_set(settings, source, folder / "data", jobs=1)
    return folder / "data"


if __name__ == "__main__":
    main()
