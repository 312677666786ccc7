"""``prichexy-train attack`` and ``utility`` as a user runs them, on the miniature."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
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


def exchanged(data: PreparedSet, folder: Path) -> PreparedSet:
    """Give the set as it would be with training and test patients in each other's place."""
    shutil.copytree(data.folder, folder)
    split = (folder / "split.csv").read_text()
    split = re.sub(
        ",(train|test)$", lambda m: {",train": ",test"}.get(m[0], ",train"), split, flags=re.M
    )
    (folder / "split.csv").write_text(split)
    about = json.loads((folder / "prepared.json").read_text())
    about["files"]["split.csv"] = hashlib.sha256(split.encode()).hexdigest()
    (folder / "prepared.json").write_text(json.dumps(about | {"digest": "another"}))
    return PreparedSet.open(folder)


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
    # An attempt that was tested on two lists took its time once.
    each = {
        (one.record.rung.name, one.record.seed): one.record.seconds
        for one in read_records(run)
        if not isinstance(one.record, UtilityRecord)
    }
    assert len(each) < len(read_records(run))
    told = json.loads((run / "provenance.json").read_text())["seconds"]
    assert told == pytest.approx(sum(each.values()), abs=0.06)

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


def test_what_is_made_of_the_images_is_what_the_rungs_look_at(
    data: PreparedSet, strong: Path, tmp_path: Path
) -> None:
    def made(method: str, rungs: str, *more: str) -> set[str]:
        run = tmp_path / method[:3] / rungs
        assert not run.exists()
        assert attack(data, run, strong, "--method", method, "--rungs", rungs, *more)[0] == 0
        return {path.parent.name for path in run.rglob("images.npy")}

    always = {"test", "validation"}
    assert made("random:mu=0.2", "0", "--set", "control_seeds=0") == {*always, "means"}
    assert made("dp-pix:b=4", "8") == always
    redrawn = {f"learning-draw-{draw}" for draw in (1, 2, 3)}
    assert made("dp-pix:b=4", "2", "--seeds", "1") == {*always, "learning", *redrawn}
    run = tmp_path / "dp-" / "2"
    (tmp_path / "other").mkdir()
    bent = ("random:mu=0.1", "2", "--seeds", "1", "--set", "draws=1")
    assert made(*bent) == {*always, "learning"}
    details = [stored.record.details for stored in read_records(run)]
    assert all(one["sign"] in {1, -1} and "validation_auc" in one for one in details)


def test_a_run_that_may_know_the_test_patients_is_refused(
    data: PreparedSet, strong: Path, classifier: Path, tmp_path: Path
) -> None:
    other = exchanged(data, tmp_path / "other")
    with pytest.raises(Misconfigured, match="other test images"):
        attack(other, tmp_path / "attack", strong, "--method", "real", "--rungs", 3)
    with pytest.raises(Misconfigured, match="other test images"):
        command(
            "utility",
            CONFIGS / "utility-miniature.toml",
            *("--data", other.folder, "--run", tmp_path / "utility", "--classifier", classifier),
            *("--method", "real", "--set", "device=cpu"),
        )
    assert not (tmp_path / "attack").exists()
    assert not (tmp_path / "utility").exists()


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

    random = [f"{key}.pretrained=none" for key in ("fresh.network", "other", "features")]
    settings = read_settings(CONFIGS / f"attack-{name}.toml", AttackSettings, random)
    assert settings.other is not None
    read_settings(CONFIGS / f"utility-{name}.toml", UtilitySettings)
