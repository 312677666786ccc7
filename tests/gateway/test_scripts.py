"""The scripts that set up, serve and test."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from prichexy_gateway.home import checkout

ROOT = checkout()
SCRIPTS = (
    "script/bootstrap",
    "script/install",
    "script/server",
    "script/soak",
    "script/test",
    ".ci/run",
)


def run(
    *command: str, path: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ) | variables
    if path is not None:
        environment["PATH"] = f"{path}:{environment['PATH']}"
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False
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


def test_ci_runs_what_people_run_with_no_arguments(tmp_path: Path) -> None:
    for folder in (".ci", "script"):
        (tmp_path / folder).mkdir()
    shutil.copy(ROOT / ".ci/run", tmp_path / ".ci/run")
    replace(tmp_path / "script", "test", 'echo "test ran with $# arguments"; exit 7')
    ended = subprocess.run(
        [tmp_path / ".ci/run"], cwd="/", check=False, capture_output=True, text=True
    )
    assert (ended.returncode, ended.stdout) == (7, "test ran with 0 arguments\n")


def checked(
    folder: Path, *arguments: str, failing: str = ""
) -> tuple[int, list[str], subprocess.CompletedProcess[str]]:
    """Run script/test over tools that only note their call, of which one fails."""
    calls = folder / "calls"
    calls.unlink(missing_ok=True)
    for name in ("script", ".venv/bin"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "script/test", folder / "script/test")
    for place, tools in (
        ("script", ("bootstrap", "compat")),
        (".venv/bin", ("ruff", "mypy", "lint-imports", "pytest")),
    ):
        for tool in tools:
            code = int(tool == failing)
            replace(folder / place, tool, f'echo "{tool} $*" >>"{calls}"; exit {code}')
    ended = subprocess.run(
        [folder / "script/test", *arguments], check=False, capture_output=True, text=True
    )
    return ended.returncode, calls.read_text().splitlines(), ended


def test_all_checks_are_made(tmp_path: Path) -> None:
    code, calls, _ = checked(tmp_path)
    assert code == 0
    assert [call.split()[:2] for call in calls] == [
        ["bootstrap", "--dev"],
        ["ruff", "check"],
        ["ruff", "format"],
        ["mypy"],
        ["lint-imports"],
        ["compat", "-q"],
        ["pytest", "--numprocesses"],
    ]


@pytest.mark.parametrize("tool", ["ruff", "mypy", "lint-imports", "compat", "pytest"])
def test_one_failed_check_is_enough_and_the_tests_run_all_the_same(
    tmp_path: Path, tool: str
) -> None:
    code, calls, ended = checked(tmp_path, failing=tool)
    assert code == 1
    assert tool in ended.stderr
    assert calls[-1].startswith("pytest")


def test_arguments_go_to_pytest_and_leave_the_other_orthanc_out(tmp_path: Path) -> None:
    code, calls, _ = checked(tmp_path, "tests/worker", "-x")
    assert code == 0
    assert calls[-1] == "pytest tests/worker -x"
    assert not any(call.startswith("compat") for call in calls)


class Checkout:
    """A copy of what sets up Python, over a virtual environment whose pip only notes its calls."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.calls = root / "calls"
        for name in (
            "script/install",
            "setup.cfg",
            "pyproject.toml",
            "requirements/constraints.txt",
            "worker/prichexy_worker/contract/__init__.py",
        ):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, root / name)
        commands = root / ".venv" / "bin"
        commands.mkdir(parents=True)
        replace(commands, "python", f'[ "$1" = -c ] || echo "$*" >>"{self.calls}"')
        (commands / "pip").write_text(f"#!{commands}/python\n")

    def install(self, role: str) -> list[str]:
        """Give pip's calls for ``role``."""
        self.calls.write_text("")
        ended = subprocess.run(
            [self.root / "script/install", "python", role, ".venv", "--editable"],
            check=False,
            capture_output=True,
            text=True,
        )
        assert ended.returncode == 0, ended.stderr
        return self.calls.read_text().splitlines()


def extras_in(call: str) -> set[str]:
    return set(call.rpartition("[")[2].rstrip("]").split(","))


def test_a_machine_that_only_serves_gets_no_test_or_lint_tools(tmp_path: Path) -> None:
    _, project = Checkout(tmp_path).install("gateway")
    assert extras_in(project) == {"worker", "gateway", "sample"}


def test_serving_after_testing_installs_and_removes_nothing(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    assert checkout.install("gateway")
    _, project = checkout.install("dev")
    everything = {"worker", "gateway", "sample", "plugin", "postgresql", "train", "bundle"}
    assert everything | {"test", "lint"} == extras_in(project)
    assert checkout.install("gateway") == []
    assert checkout.install("dev") == []


def test_a_changed_requirement_is_installed(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    checkout.install("dev")
    with (tmp_path / "requirements/constraints.txt").open("a") as constraints:
        constraints.write("# changed\n")
    assert checkout.install("gateway")


def test_torch_is_installed_as_the_constraints_pin_it(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    constraints = tmp_path / "requirements/constraints.txt"
    constraints.write_text(re.sub(r"(?m)^torch==.*$", "torch==9.9.9", constraints.read_text()))
    torch, project = checkout.install("gateway")
    assert torch.split()[-1] == "torch==9.9.9"
    assert "--constraint requirements/constraints.txt" in project


@pytest.mark.parametrize(("arguments", "role"), [((), "gateway"), (("--dev",), "dev")])
def test_bootstrap_asks_for_what_is_needed(
    tmp_path: Path, arguments: tuple[str, ...], role: str
) -> None:
    (tmp_path / "script").mkdir()
    shutil.copy(ROOT / "script/bootstrap", tmp_path / "script/bootstrap")
    replace(tmp_path / "script", "install", 'echo "$*"')
    asked = subprocess.run(
        [tmp_path / "script/bootstrap", *arguments], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert f"python {role} .venv --editable" in asked
    assert "python plugin .venv-plugin --dependencies-only" in asked
    assert (" dev" in asked[0]) is (role == "dev")


def test_bootstrap_takes_one_option_and_no_more(tmp_path: Path) -> None:
    (tmp_path / "script").mkdir()
    shutil.copy(ROOT / "script/bootstrap", tmp_path / "script/bootstrap")
    replace(tmp_path / "script", "install", "exit 99")
    ended = subprocess.run(
        [tmp_path / "script/bootstrap", "--train", "--dev"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 2
    assert "usage" in ended.stderr


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
        ("python", "dev", "v", "--x"),
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
