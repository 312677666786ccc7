"""The scripts that set up, serve and test."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
from pathlib import Path

import pytest

from prichexy_gateway.home import checkout

ROOT = checkout()
SCRIPTS = ("script/bootstrap", "script/install", "script/server", "script/test", ".ci/run")


def run(
    *command: str, path: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ) | variables
    if path is not None:
        environment["PATH"] = f"{path}:{environment['PATH']}"
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    """Give a folder whose commands come before the system's."""
    folder = tmp_path / "commands"
    folder.mkdir()
    return folder


def replace(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_can_be_run_and_stops_at_the_first_error(name: str) -> None:
    path = ROOT / name
    assert os.access(path, os.X_OK)
    assert "set -euo pipefail" in path.read_text()
    assert run("bash", "-n", name).returncode == 0


def test_ci_runs_what_people_run() -> None:
    lines = (ROOT / ".ci/run").read_text().splitlines()
    assert lines[-1] == 'exec "$(dirname "$0")/../script/test"'


def test_all_checks_are_made_and_one_failure_is_enough(tmp_path: Path) -> None:
    text = (ROOT / "script/test").read_text()
    for check in ("ruff check", "ruff format --check", "mypy", "lint-imports", "pytest"):
        assert f"check {check}" in text
    # The same script over tools of which one fails.
    (tmp_path / "script").mkdir()
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / "script/test").write_text(text)
    replace(tmp_path / "script", "bootstrap", "exit 0")
    for tool in ("ruff", "mypy", "lint-imports", "pytest"):
        replace(tmp_path / ".venv/bin", tool, f"echo {tool} ran")
    assert subprocess.run(["bash", tmp_path / "script/test"], check=False).returncode == 0
    replace(tmp_path / ".venv/bin", "mypy", "exit 1")
    ended = subprocess.run(
        ["bash", tmp_path / "script/test"], check=False, capture_output=True, text=True
    )
    assert ended.returncode == 1
    assert "pytest ran" in ended.stdout
    assert "failed: mypy" in ended.stderr


def test_without_root_the_missing_packages_are_named(commands: Path) -> None:
    replace(commands, "dpkg-query", "exit 1")
    replace(commands, "id", "echo 1000")
    replace(commands, "apt-get", "echo must not run; exit 99")
    ended = run("script/install", "system", "redis", path=commands)
    assert ended.returncode == 1
    assert "sudo apt-get install redis-server" in ended.stderr


def test_without_network_the_set_up_says_so(commands: Path, tmp_path: Path) -> None:
    replace(commands, "dpkg-query", "exit 1")
    replace(commands, "id", "echo 0")
    replace(commands, "apt-get", "exit 100")
    ended = run("script/install", "system", "redis", path=commands)
    assert ended.returncode == 1
    assert "Is there a network" in ended.stderr


def test_what_is_installed_is_not_asked_for_again(commands: Path) -> None:
    replace(commands, "dpkg-query", "printf installed")
    replace(commands, "apt-get", "echo must not run; exit 99")
    ended = run("script/install", "system", "redis", "orthanc", "worker", "dev", path=commands)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("system",),
        ("system", "nobody"),
        ("python", "nobody", "v"),
        ("python", "all", "v", "--x"),
    ],
)
def test_wrong_use_is_said_and_changes_nothing(arguments: tuple[str, ...], tmp_path: Path) -> None:
    ended = run("script/install", *arguments)
    assert ended.returncode == 1
    assert ended.stderr.startswith("script/install: ")
    assert not (ROOT / "v").exists()


def test_every_role_has_a_list_and_every_list_packages() -> None:
    for role in ("orthanc", "redis", "worker", "dev"):
        lines = (ROOT / f"requirements/apt-{role}.txt").read_text().splitlines()
        packages = [line for line in lines if line and not line.startswith("#")]
        assert packages
        assert all(re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", package) for package in packages)


def test_constraints_pin_every_package_that_setup_names() -> None:
    lines = (ROOT / "requirements/constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    pinned = {name.lower().replace("_", "-") for name in pins}
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    for extra, requirements in setup["options.extras_require"].items():
        for line in requirements.strip().splitlines():
            name = re.split(r"[\[<>=;]", line)[0].strip().lower().replace("_", "-")
            assert name in pinned, f"{extra}: {name}"
    assert pins["torch"] == "2.13.0"
