"""``prichexy-train attack`` and ``utility`` as a user runs them, on the miniature."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from prichexy_testing.shared_data import REPO
from prichexy_train.cli import create_app
from prichexy_train.data.prepared import PreparedSet
from prichexy_train.errors import Misconfigured
from prichexy_train.records import UtilityRecord, read_records
from prichexy_train.stages.classifier import ClassifierSettings, run_classifier

CONFIGS = REPO / "train" / "configs"
BRIEF = {"batch_size": 8, "epochs": 1, "steps_per_epoch": 2, "device": "cpu"}


@pytest.fixture(scope="session")
def classifier(data: PreparedSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("classifier")
    words = {"least_positives": 1, "network": {"backbone": "tiny", "size": 24}, "training": BRIEF}
    run_classifier(ClassifierSettings.model_validate(words), [data.folder], run)
    return run


def command(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(create_app(), [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def attack(data: PreparedSet, run: Path, strong: Path, *more: object) -> tuple[int, str]:
    return command(
        "attack",
        CONFIGS / "attack-miniature.toml",
        *("--data", data.folder, "--run", run, "--verifier", strong),
        *("--set", "device=cpu", "--set", "fresh.training.steps_per_epoch=2"),
        *more,
    )


def test_an_attack_is_stopped_taken_up_and_extended(
    data: PreparedSet, strong: Path, tmp_path: Path
) -> None:
    run, method = tmp_path / "run", ("--method", "random:mu=0.02,coarseness=4")
    words = (*method, "--rungs", "0,1,3")
    code, said = attack(data, run, strong, *words, "--minutes", 0)
    assert code == 75
    assert "run the same command again" in said
    assert not (run / "result.json").exists()

    code, said = attack(data, run, strong, *words)
    assert code == 0, said
    result = json.loads((run / "result.json").read_text())
    assert result["records"] == len(read_records(run))
    assert set(result["strongest"]) == {"miniature.test", "miniature.test_matched"}
    assert "one verifier" not in said, "with features it is an ensemble"

    code, said = attack(data, run, strong, *words)
    assert code == 0
    assert "0 new records" in said
    code, said = attack(data, run, strong, *method, "--rungs", "1,8", "--seeds", 3)
    assert code == 0
    assert "rung 8 undone: left out: random:mu=0.02,coarseness=4 has no generator" in said
    seeds = [one.record.seed for one in read_records(run) if "fresh-anonymised" in one.path.name]
    assert sorted(seeds) == [1, 1, 2, 2, 3, 3]

    with pytest.raises(Misconfigured, match="fresh"):
        attack(data, run, strong, *method, "--set", "fresh.training.learning_rate=0.5")
    with pytest.raises(Misconfigured, match="method"):
        attack(data, run, strong, "--method", "real")


def test_what_is_no_strong_verifier_is_refused_at_once(
    data: PreparedSet, classifier: Path, tmp_path: Path
) -> None:
    with pytest.raises(Misconfigured, match="classifier"):
        attack(data, tmp_path / "run", classifier, "--method", "real")
    assert read_records(tmp_path) == []


def test_utility_is_measured_on_the_attacks_images(
    data: PreparedSet, strong: Path, classifier: Path, tmp_path: Path
) -> None:
    shared = tmp_path / "anonymised"
    words = ("--method", "dp-pix:b=4", "--anonymised", shared)
    assert attack(data, tmp_path / "attack", strong, *words, "--rungs", 3)[0] == 0
    written = {path: path.stat().st_mtime_ns for path in shared.rglob("images.npy")}
    for _ in range(2):
        code, said = command(
            "utility",
            CONFIGS / "utility-miniature.toml",
            *("--data", data.folder, "--run", tmp_path / "utility", "--classifier", classifier),
            *("--set", "device=cpu"),
            *words,
        )
        assert code == 0, said
        assert "finished" in said
    assert {path: path.stat().st_mtime_ns for path in shared.rglob("images.npy")} == written
    (stored,) = read_records(tmp_path / "utility")
    assert isinstance(stored.record, UtilityRecord)
    assert stored.record.method.name == "dp-pix:b=4"


@pytest.mark.parametrize("name", ["paper", "light", "miniature"])
def test_every_configuration_file_is_valid(name: str) -> None:
    from prichexy_train.attacks.settings import AttackSettings
    from prichexy_train.settings import read_settings
    from prichexy_train.utility import UtilitySettings

    assert read_settings(CONFIGS / f"attack-{name}.toml", AttackSettings).other is not None
    read_settings(CONFIGS / f"utility-{name}.toml", UtilitySettings)
