"""Every file in train/configs works: each takes one tiny step on the miniature set.

Only what makes a step large is changed: the network, the size of images and of the batch, the
number of steps. All else is as the file says.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click
import pytest
from typer.main import get_command

from prichexy_testing import miniature_chestxray14, miniature_runs
from prichexy_train.attacks.settings import AttackSettings
from prichexy_train.cli import create_app
from prichexy_train.data.settings import PrepareSettings
from prichexy_train.errors import Misconfigured
from prichexy_train.experiment import Experiment, Places, steps_of
from prichexy_train.performing import Stages
from prichexy_train.records import read_records
from prichexy_train.runs import RunFolder
from prichexy_train.settings import flat, read_settings
from prichexy_train.stages.classifier import ClassifierSettings
from prichexy_train.stages.verifier import VerifierSettings

CONFIGS: Final = Path(__file__).resolve().parents[2] / "train" / "configs"
SIZE: Final = miniature_runs.SIZE

#: No file of weights is needed to read an experiment.
WEIGHTS: Final[tuple[str, ...]] = (
    "train.verifier.change.network.pretrained=none",
    "train.classifier.change.network.pretrained=none",
    "attack.change.fresh.network.pretrained=none",
    "attack.change.other.pretrained=none",
    "attack.change.features.pretrained=none",
)

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
        "network.pretrained=none",
        f"network.size={SIZE}",
        "training.batch_size=8",
        "contrast.patients=4",
    ),
    "classifier": (
        *ONE_STEP,
        "network.backbone=tiny",
        "network.pretrained=none",
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
        "fresh.network.pretrained=none",
        "other.pretrained=none",
        "fresh.training.batch_size=8",
        "fresh.contrast.patients=4",
        "tuning.training.batch_size=8",
        "tuning.contrast.patients=4",
        *(f"{table}.training.{change}" for table in ("fresh", "tuning") for change in one_step),
    )
    if "[features]" in config.read_text(encoding="utf-8"):
        changes += (
            "features.backbone=tiny",
            f"features.size={SIZE}",
            "features.pretrained=none",
        )
    words = ("--data", runs.data, "--run", tmp_path / "run", "--method", f"run:{runs.pretrained}")
    run("attack", config, *words, "--verifier", runs.verifier, changes=changes)
    kinds = {stored.record.kind for stored in read_records(tmp_path / "run")}
    assert kinds == {"attack", "retrieval"}


@pytest.mark.parametrize(
    ("config", "key"),
    [
        (f"{stage}-{size}.toml", key)
        for size in ("paper", "light")
        for stage, key in (
            ("verifier", "network.pretrained"),
            ("classifier", "network.pretrained"),
            ("attack", "fresh.network.pretrained"),
            ("attack", "features.pretrained"),
        )
    ]
    + [("attack-paper.toml", "other.pretrained")],
)
def test_imagenet_weights_are_given_or_done_without_on_purpose(config: str, key: str) -> None:
    model = {
        "verifier": VerifierSettings,
        "classifier": ClassifierSettings,
        "attack": AttackSettings,
    }[command_of(CONFIGS / config)]
    given = [change.partition("change.")[2] for change in WEIGHTS[2:]]
    others = [change for change in given if not change.startswith(f"{key}=")]
    if model is not AttackSettings:
        others = []
    with pytest.raises(Misconfigured, match=rf'{key}: .*file of ImageNet weights, or "none"'):
        read_settings(CONFIGS / config, model, others)
    for value, expected in (("none", None), ("weights.pth", "weights.pth")):
        chosen = flat(
            read_settings(CONFIGS / config, model, [*others, f"{key}={value}"]).model_dump()
        )
        assert chosen[key] == (expected and Path(expected))


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
    experiment = read_settings(config, Experiment, without_weights(config))
    assert experiment.name == config.stem
    places = Places(config, tmp_path / "data", tmp_path / "runs", tmp_path / "report", {})
    stages = Stages(experiment, places.runs)
    steps = steps_of(experiment, places)
    for step in steps:
        if step.stage != "report":
            assert stages.settings(step)
    curve = {"trial"} if experiment.curve else set()
    assert {step.stage for step in steps} == curve | {
        "prepare",
        "verifier",
        "classifier",
        "pretrain",
        "anonymizer",
        "attack",
        "utility",
        "report",
    }


def without_weights(config: Path) -> list[str]:
    """Give the changes by which every network of an experiment begins at random, on purpose."""
    trainings = tomllib.loads(config.read_text(encoding="utf-8"))["train"]
    named = [name for name, one in trainings.items() if one["stage"] in {"verifier", "classifier"}]
    return [*(f"train.{name}.change.network.pretrained=none" for name in named), *WEIGHTS[2:]]


def attacks_of(name: str) -> dict[str, Mapping[str, Any]]:
    """Give an experiment's attack settings, dotted, by row."""
    config = CONFIGS / "experiments" / f"{name}.toml"
    experiment = read_settings(config, Experiment, without_weights(config))
    places = Places(config, Path("data"), Path("runs"), Path("report"), {})
    stages = Stages(experiment, places.runs)
    steps = (step for step in steps_of(experiment, places) if step.stage == "attack")
    return {step.method: stages.settings(step) for step in steps}


@pytest.mark.parametrize("name", ["miniature", "slice", "paper", "results"])
def test_every_row_meets_the_baselines_and_undoing(name: str) -> None:
    rows = attacks_of(name)
    for method, settings in rows.items():
        assert {0, 1, 3, 4, 8, 9} <= set(settings["rungs"]), method
    assert set().union(*(settings["rungs"] for settings in rows.values())) == set(range(10))
    assert any(settings["control_seeds"] for settings in rows.values())


@pytest.mark.parametrize("name", ["miniature", "slice", "results", "results-cpu"])
def test_real_images_are_asked_for_shortcuts_and_the_curve_is_one_of_the_strong_verifier(
    name: str,
) -> None:
    assert {row for row, settings in attacks_of(name).items() if settings.get("shortcuts")} == {
        "real"
    }
    config = CONFIGS / "experiments" / f"{name}.toml"
    experiment = read_settings(config, Experiment, without_weights(config))
    places = Places(config, Path("data"), Path("runs"), Path("report"), {})
    stages = Stages(experiment, places.runs)
    steps = {step.name: step for step in steps_of(experiment, places)}
    base = stages.settings(steps["curve-1"])
    assert "share_of_patients" not in base
    for name, step in steps.items():
        if name.startswith("curve-"):
            ours = stages.settings(step)
            assert ours["objective"] == "contrastive"
            differs = {key for key in base if ours.get(key) != base[key]}
            is_share = "share_of_patients" in ours
            other_data = step.data != steps["curve-1"].data
            assert is_share or differs or other_data or name == "curve-1"
            assert not (is_share and (differs or other_data)), "one thing at a time"
            trial = stages.settings(steps[f"trial-{name}"])
            assert trial["pair_lists"] == ["test", "test_matched"]


def test_a_cpu_has_the_rows_of_a_gpu_the_main_ones_with_as_many_trainings() -> None:
    ours, theirs = attacks_of("results-cpu"), attacks_of("results")
    assert {Path(row).name for row in ours} == {Path(row).name for row in theirs}
    for row, settings in ours.items():
        assert settings["seeds"] == theirs[row]["seeds"], row
        if settings["seeds"] == 5:
            assert set(settings["rungs"]) == set(theirs[row]["rungs"]), row
        assert {0, 1, 3, 4, 8} <= set(settings["rungs"]), row


def test_the_papers_attackers_are_trained_ten_times() -> None:
    assert {settings["seeds"] for settings in attacks_of("paper").values()} == {10}


def test_a_generator_for_the_published_operator_is_pretrained_with_its_own_mu() -> None:
    config = CONFIGS / "experiments" / "paper.toml"
    experiment = read_settings(config, Experiment, WEIGHTS)
    places = Places(config, Path("data"), Path("runs"), Path("report"), {})
    stages = Stages(experiment, places.runs)
    by_name = {step.name: step for step in steps_of(experiment, places)}
    for step in by_name.values():
        if step.stage == "anonymizer" and step.name.endswith("-border"):
            settings = stages.settings(step)
            (pretrained,) = (name for name in step.needs if name.startswith("pretrain"))
            start = stages.settings(by_name[pretrained])
            for key in ("anonymizer.mu", "anonymizer.border"):
                assert start[key] == settings[key], step.name


def test_the_slice_tests_both_sets_and_learns_from_them_together() -> None:
    config = CONFIGS / "experiments" / "slice.toml"
    assert read_settings(config, Experiment, WEIGHTS).tested == (("nih512", "kermany224"),)


def test_the_strong_verifier_of_the_paper_learns_from_all_pairs_and_its_attackers_do_not() -> None:
    config = CONFIGS / "experiments" / "paper.toml"
    experiment = read_settings(config, Experiment, WEIGHTS)
    places = Places(config, Path("data"), Path("runs"), Path("report"), {})
    (verifier,) = (one for one in steps_of(experiment, places) if one.name == "verifier")
    assert Stages(experiment, places.runs).settings(verifier)["train_pairs"] == "train_all"
    assert {row["fresh.train_pairs"] for row in attacks_of("paper").values()} == {"train"}


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
