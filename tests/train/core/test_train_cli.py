"""The command line as a whole: its commands, its errors, and how fast it is there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from prichexy_train.cli import create_app, main


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["prichexy-train", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_every_stage_has_a_command() -> None:
    names = [
        command.callback.__name__
        for command in create_app().registered_commands
        if command.callback
    ]

    assert names == ["prepare", "verifier", "classifier", "pretrain", "anonymizer", "attack",
                     "utility", "trial", "report", "export", "table", "pack",
                     "official_lists"]  # fmt: skip


def test_help_does_not_wait_for_torch() -> None:
    program = (
        "import sys; from prichexy_train.cli import create_app; create_app()\n"
        "assert not {'torch', 'monai', 'ignite', 'sklearn'} & set(sys.modules)"
    )

    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_wrong_configuration_ends_with_2_and_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "verifier.toml"
    config.write_text("objectives = 1\n")
    places = ("--data", str(tmp_path), "--run", str(tmp_path / "run"))

    assert run(monkeypatch, "verifier", str(config), *places) == 2
    assert "verifier.toml: objectives: there is no such setting" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_an_error_ends_with_1_and_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "verifier.toml"
    config.write_text("")
    places = ("--data", str(tmp_path / "none"), "--run", str(tmp_path / "run"))

    assert run(monkeypatch, "verifier", str(config), *places) == 1
    assert "is not a finished set; run prichexy-train prepare" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--version"], ["verifier", "--help"]])
def test_version_and_help_end_well(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *arguments) == 0
    assert capsys.readouterr().out
