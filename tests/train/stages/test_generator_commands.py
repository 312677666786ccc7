"""``prichexy-train pretrain`` and ``anonymizer`` on the command line."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from prichexy_testing.miniature_runs import Runs
from prichexy_train.cli import create_app
from prichexy_train.errors import Misconfigured
from prichexy_train.runs import RunFolder

CONFIGS = Path(__file__).parents[3] / "train" / "configs"


def call(*words: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(create_app(), [str(word) for word in words])
    if isinstance(done.exception, Misconfigured):
        return 2, str(done.exception)
    return done.exit_code, done.output


def test_a_stage_stops_in_time_and_the_same_command_goes_on(
    miniature_runs_made: Runs, tmp_path: Path
) -> None:
    command = ["pretrain", CONFIGS / "pretrain-privacynet-miniature.toml"]
    command += ["--data", miniature_runs_made.data, "--run", tmp_path / "run"]
    command += ["--set", "training.device=cpu", "--set", "training.epochs=1"]
    code, output = call(*command, "--minutes", "0")
    assert code == 75, output
    assert "run the same command again" in output
    code, output = call(*command)
    assert code == 0, output
    assert "finished after 1 epochs" in output
    assert RunFolder(tmp_path / "run").result()["stage"] == "pretrain"


def test_the_critics_and_the_start_are_named_on_the_command_line(
    miniature_runs_made: Runs, tmp_path: Path
) -> None:
    runs = miniature_runs_made
    command = ["anonymizer", CONFIGS / "privacynet-miniature.toml"]
    command += ["--data", runs.data, "--run", tmp_path / "run"]
    code, output = call(*command)
    assert code == 2
    assert "critics.verifiers" in output
    assert "critics.classifier" in output
    command += ["--set", f"critics.verifiers={runs.verifier}"]
    command += ["--set", f"critics.classifier={runs.classifier}"]
    command += ["--set", f"start={runs.pretrained_privacy_net}"]
    command += ["--set", "training.steps_per_epoch=1", "--set", "training.device=cpu"]
    code, output = call(*command)
    assert code == 0, output
    assert RunFolder(tmp_path / "run").provenance()["data"].keys() == {
        "miniature",
        "verifier",
        "classifier",
        "start",
    }
