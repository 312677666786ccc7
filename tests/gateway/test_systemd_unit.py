"""The unit that is shipped for systemd is one, and runs a command that there is."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from prichexy_gateway.cli import create_app
from prichexy_gateway.home import checkout
from prichexy_gateway.services import LETS_GO_WITHIN
from prichexy_worker.settings import Limits

UNIT = checkout() / "systemd" / "prichexy.service"


@pytest.fixture
def service() -> configparser.SectionProxy:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(UNIT.read_text(encoding="utf-8"))
    return parser["Service"]


@pytest.mark.parametrize(("wrong", "said"), [(None, ""), ("Restarts=always\n", "Restarts")])
def test_systemd_finds_nothing_to_say_of_it(tmp_path: Path, wrong: str | None, said: str) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    text = UNIT.read_text(encoding="utf-8").replace("Restart=always\n", wrong or "Restart=always\n")
    # The command is not installed where it will be.
    copy = tmp_path / UNIT.name
    copy.write_text(re.sub(r"(?m)^ExecStart=\S+", "ExecStart=/bin/true", text), encoding="utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0
    told = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert said in "".join(told)
    assert bool(told) == bool(said), told


def test_its_command_line_is_one(service: configparser.SectionProxy) -> None:
    program, *words = shlex.split(service["ExecStart"])
    assert Path(program).name == "prichexy"
    # Help is shown in place of the work, and only after every option was read.
    answer = CliRunner().invoke(create_app(), [*words, "--help"])
    assert answer.exit_code == 0, answer.output
    assert {word for word in words if word.startswith("--")} <= set(answer.output.split())
    refused = CliRunner().invoke(create_app(), [*words, "--once"])
    assert "--no-source" in str(refused.exception)


def test_what_it_may_write_is_its_own_folder_and_the_page_says_how_to_add_another(
    service: configparser.SectionProxy,
) -> None:
    assert service["ProtectSystem"] == "strict"
    home = f"PRICHEXY_HOME=/var/lib/{service['StateDirectory']}"
    assert f"Environment={home}" in UNIT.read_text(encoding="utf-8")
    page = (checkout() / "docs" / "operating.md").read_text(encoding="utf-8")
    [written] = re.findall(r"(?m)^ReadWritePaths=(\S+)$", page)
    assert f"RequiresMountsFor={written}" in page


def test_it_waits_for_the_worker_and_outlives_one_that_takes_all_memory(
    service: configparser.SectionProxy,
) -> None:
    assert float(service["TimeoutStopSec"]) > Limits().stop_seconds + LETS_GO_WITHIN
    assert service["KillMode"] == "mixed"
    assert service["OOMPolicy"] == "continue"
    assert service["MemoryMax"].endswith("%")
    assert service["MemorySwapMax"] == "0"
    assert int(service["TasksMax"]) > 0
    assert service["Restart"] == "always"
