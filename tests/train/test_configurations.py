"""Every file in train/configs works: each takes one tiny step on the miniature set.

Only what makes a step large is changed: the network, the size of images and of the batch, the
number of steps. All else is as the file says.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click
import pytest
from typer.main import get_command

from prichexy_testing import miniature_chestxray14, miniature_runs
from prichexy_train.cli import create_app
from prichexy_train.data.settings import PrepareSettings
from prichexy_train.experiment import Experiment, Places, steps_of
from prichexy_train.performing import Stages
from prichexy_train.records import read_records
from prichexy_train.runs import RunFolder
from prichexy_train.settings import read_settings

CONFIGS: Final = Path(__file__).resolve().parents[2] / "train" / "configs"
SIZE: Final = miniature_runs.SIZE

#: A file's first word, and the command that it is for.
COMMANDS: Final = {
    "verifier": "verifier",
    "classifier": "classifier",
    "pretrain": "pretrain",
    "prichexynet": "anonymizer",
    "privacynet": "anonymizer",
    "attack": "attack",
    "utility": "utility",
}
ONE_STEP: Final = (
    "training.device=cpu",
    "training.epochs=1",
    "training.steps_per_epoch=1",
    "training.compile=false",
)
TINY: Final = {
    "verifier": (
        *ONE_STEP,
        "network.backbone=tiny",
        f"network.size={SIZE}",
        "training.batch_size=8",
        "contrast.patients=4",
    ),
    "classifier": (
        *ONE_STEP,
        "network.backbone=tiny",
        f"network.size={SIZE}",
        "training.batch_size=8",
        "least_positives=1",
    ),
    "pretrain": (*ONE_STEP, f"anonymizer.size={SIZE}", "training.batch_size=4"),
    "anonymizer": (*ONE_STEP, f"anonymizer.size={SIZE}", "training.batch_size=4"),
}


def stage_files() -> list[Path]:
    return sorted(CONFIGS.glob("*.toml"))


def command_of(file: Path) -> str:
    return COMMANDS[re.split(r"[-.]", file.name)[0]]


def files_of(*commands: str) -> list[Path]:
    return [file for file in stage_files() if command_of(file) in commands]


def run(command: str, config: Path, *words: object, changes: Sequence[str] = ()) -> None:
    """Run a command as the shell would, in this process; an exit code is an error."""
    arguments = [command, str(config), *map(str, words)]
    for change in changes:
        arguments += ["--set", change]
    try:
        get_command(create_app()).main(arguments, standalone_mode=False)
    except click.exceptions.Exit as ended:
        assert ended.exit_code == 0, arguments


@pytest.fixture
def runs(miniature_runs_made: miniature_runs.Runs) -> miniature_runs.Runs:
    return miniature_runs_made


def test_every_file_is_for_a_command() -> None:
    for file in stage_files():
        command_of(file)
    assert {folder.name for folder in CONFIGS.iterdir() if folder.is_dir()} == {
        "data",
        "experiments",
    }


@pytest.mark.parametrize(
    "config", files_of("verifier", "classifier", "pretrain"), ids=lambda file: file.stem
)
def test_a_network_is_trained_for_a_step(
    config: Path, runs: miniature_runs.Runs, tmp_path: Path
) -> None:
    command = command_of(config)
    run(command, config, "--data", runs.data, "--run", tmp_path / "run", changes=TINY[command])
    assert RunFolder(tmp_path / "run").finished


@pytest.mark.parametrize("config", files_of("anonymizer"), ids=lambda file: file.stem)
def test_an_anonymizer_is_trained_for_a_step(
    config: Path, runs: miniature_runs.Runs, tmp_path: Path
) -> None:
    painted = config.name.startswith("privacynet")
    start = runs.pretrained_privacy_net if painted else runs.pretrained
    changes = (
        *TINY["anonymizer"],
        f'critics.verifiers=["{runs.verifier}"]',
        f"critics.classifier={runs.classifier}",
        f"start={start}",
    )
    run("anonymizer", config, "--data", runs.data, "--run", tmp_path / "run", changes=changes)
    assert RunFolder(tmp_path / "run").finished


@pytest.mark.parametrize("config", files_of("attack"), ids=lambda file: file.stem)
def test_an_attack_is_made_for_a_step(
    config: Path, runs: miniature_runs.Runs, tmp_path: Path
) -> None:
    one_step = [change.removeprefix("training.") for change in ONE_STEP[1:]]
    changes = (
        "device=cpu",
        "rungs=[1, 3, 4, 7, 9]",
        "seeds=1",
        "fresh.network.backbone=tiny",
        f"fresh.network.size={SIZE}",
        "fresh.training.batch_size=8",
        "fresh.contrast.patients=4",
        "tuning.training.batch_size=8",
        "tuning.contrast.patients=4",
        *(f"{table}.training.{change}" for table in ("fresh", "tuning") for change in one_step),
    )
    if "[features]" in config.read_text(encoding="utf-8"):
        changes += ("features.backbone=tiny", f"features.size={SIZE}")
    words = ("--data", runs.data, "--run", tmp_path / "run", "--method", f"run:{runs.pretrained}")
    run("attack", config, *words, "--verifier", runs.verifier, changes=changes)
    kinds = {stored.record.kind for stored in read_records(tmp_path / "run")}
    assert kinds == {"attack", "retrieval"}


@pytest.mark.parametrize("config", files_of("utility"), ids=lambda file: file.stem)
def test_utility_is_measured(config: Path, runs: miniature_runs.Runs, tmp_path: Path) -> None:
    words = ("--data", runs.data, "--run", tmp_path / "run", "--method", "dp-pix:b=4")
    changes = ("device=cpu", "replicates=100", "least=1")
    run("utility", config, *words, "--classifier", runs.classifier, changes=changes)
    (stored,) = read_records(tmp_path / "run")
    assert stored.record.kind == "utility"


@pytest.mark.parametrize(
    "config", sorted((CONFIGS / "data").glob("*.toml")), ids=lambda file: file.stem
)
def test_a_set_is_described(config: Path) -> None:
    assert read_settings(config, PrepareSettings).name == config.stem


def test_the_official_layout_is_prepared_as_its_file_says(tmp_path: Path) -> None:
    miniature = miniature_chestxray14.make(tmp_path / "source", size=64)
    changes = (f"split.train_images={miniature.train_images}", f"size={SIZE}")
    config = CONFIGS / "data" / "chestxray14.toml"
    words = ("--source", miniature.folder, "--to", tmp_path / "set", "--jobs", 1)
    run("prepare", config, *words, changes=changes)
    assert (tmp_path / "set" / "prepared.json").is_file()


@pytest.mark.parametrize(
    "config", sorted((CONFIGS / "experiments").glob("*.toml")), ids=lambda file: file.stem
)
def test_each_step_of_an_experiment_has_settings(config: Path, tmp_path: Path) -> None:
    experiment = read_settings(config, Experiment)
    assert experiment.name == config.stem
    places = Places(config, tmp_path / "data", tmp_path / "runs", tmp_path / "report", {})
    stages = Stages(experiment, places.runs)
    steps = steps_of(experiment, places)
    for step in steps:
        if step.stage != "report":
            assert stages.settings(step)
    assert {step.stage for step in steps} == {
        "prepare",
        "verifier",
        "classifier",
        "pretrain",
        "anonymizer",
        "attack",
        "utility",
        "report",
    }


def test_one_command_makes_the_whole_table(tmp_path: Path) -> None:
    miniature = miniature_chestxray14.make(tmp_path / "source", size=64)
    command = [
        sys.executable,
        "-m",
        "prichexy_train",
        "table",
        CONFIGS / "experiments" / "miniature.toml",
        "--data",
        tmp_path / "data",
        "--runs",
        tmp_path / "runs",
        "--source",
        f"chestxray14={miniature.folder}",
        "--set",
        f"sets.chestxray14.change.split.train_images={miniature.train_images}",
    ]
    listed = subprocess.run(
        [*command, "--dry-run"], capture_output=True, text=True, check=True, timeout=120
    )
    assert {line.split()[0] for line in listed.stdout.splitlines()} == {"to"}  # "to do"

    first = subprocess.run(
        [*command, "--minutes", "0.05"], capture_output=True, text=True, check=False, timeout=120
    )
    assert first.returncode == 75, first.stderr
    assert "run the same command again" in first.stdout

    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "runs" / "report" / "report.html").read_text(encoding="utf-8")
    for label in ("Real images", "Privacy-Net", "DP-Pix", "Random deformation", "paper’s operator"):
        assert label in page
    assert "interim" not in page
    # Nothing is left of the images that were made for the attacks.
    assert not list((tmp_path / "runs" / "anonymised").glob("*"))
