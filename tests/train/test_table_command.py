"""``prichexy-train table`` and ``report`` say what is wrong before anything is begun."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.main import get_command

from prichexy_testing.made_up_runs import REAL, STRONG, MadeUp
from prichexy_testing.miniature_runs import Runs
from prichexy_train.cli import create_app
from prichexy_train.errors import Failed, Misconfigured

CONFIGS = Path(__file__).resolve().parents[2] / "train" / "configs"

EXPERIMENT = """
name = "small"
title = "A small one"
[sets.one]
config = "one.toml"
[train.classifier]
stage = "classifier"
config = "classifier.toml"
[attack]
config = "attack.toml"
[utility]
config = "utility.toml"
classifier = "classifier"
[method.real]
method = "real"
"""


def run(*words: object) -> None:
    get_command(create_app()).main([str(word) for word in words], standalone_mode=False)


@pytest.fixture
def table(tmp_path: Path) -> list[object]:
    experiment = tmp_path / "small.toml"
    experiment.write_text(EXPERIMENT)
    (tmp_path / "one.toml").write_bytes((CONFIGS / "data" / "nih512.toml").read_bytes())
    return ["table", experiment, "--data", tmp_path / "data", "--runs", tmp_path / "runs"]


def test_a_dry_run_lists_the_steps_and_makes_nothing(
    table: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(*table, "--dry-run")
    lines = capsys.readouterr().out.splitlines()
    steps = [line.removeprefix("to do").split()[0] for line in lines]
    assert steps == ["prepare-one", "attack-real", "classifier", "utility-real", "report"]
    assert {path.name for path in tmp_path.iterdir()} == {"small.toml", "one.toml"}


def test_weights_that_are_not_given_are_asked_for_before_the_data(tmp_path: Path) -> None:
    experiment = CONFIGS / "experiments" / "slice.toml"
    words = ("table", experiment, "--data", tmp_path / "data", "--runs", tmp_path / "runs")
    with pytest.raises(Misconfigured, match=r"step verifier: .* network\.pretrained: .*\"none\""):
        run(*words)
    assert not list(tmp_path.iterdir())


def test_a_set_that_is_not_prepared_says_how_to(table: list[object], tmp_path: Path) -> None:
    for stage in ("classifier", "attack", "utility"):
        file = CONFIGS / f"{stage}-miniature.toml"
        (tmp_path / f"{stage}.toml").write_bytes(file.read_bytes())
    with pytest.raises(Misconfigured, match=r"step prepare-one: .*--source one=FOLDER"):
        run(*table)


def test_a_set_that_was_prepared_otherwise_is_refused(
    tmp_path: Path, miniature_runs_made: Runs
) -> None:
    experiment = CONFIGS / "experiments" / "miniature.toml"
    words = ("table", experiment, "--data", miniature_runs_made.data, "--runs", tmp_path / "runs")
    with pytest.raises(Misconfigured, match=r"was prepared with .*sets\.chestxray14\.change\."):
        run(*words)


def test_a_source_without_a_name_is_refused(table: list[object]) -> None:
    with pytest.raises(Misconfigured, match="NAME=FOLDER"):
        run(*table, "--source", "somewhere")


def test_several_processes_are_told_what_to_do_instead(
    table: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(Misconfigured, match="torchrun"):
        run(*table)


def test_a_report_of_any_folder_of_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    MadeUp(tmp_path / "runs").attack(REAL, STRONG, 1.0)
    run("report", tmp_path / "runs", "--to", tmp_path / "report", "--title", "Of one attack")
    written = capsys.readouterr().out.split()
    assert [Path(path).name for path in written] == ["report.html", "report.md"]
    assert "<h1>Of one attack</h1>" in Path(written[0]).read_text()


def test_examples_of_a_set_need_its_folder(tmp_path: Path) -> None:
    MadeUp(tmp_path / "runs").attack(REAL, STRONG, 1.0)
    with pytest.raises(Misconfigured, match="--data"):
        run("report", tmp_path / "runs", "--to", tmp_path / "report", "--examples", "one")
    with pytest.raises(Failed, match="no folder"):
        run("report", tmp_path / "nowhere", "--to", tmp_path / "report")
