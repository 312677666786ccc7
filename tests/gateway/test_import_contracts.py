"""What pyproject.toml has lint-imports check: each forbidden import is noticed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from prichexy_gateway.home import checkout

AREAS = ("plugin", "worker", "model", "gateway")
PACKAGES = (*((area, f"prichexy_{area}") for area in AREAS), ("model", "prichexy_store"))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Give a copy of all packages and of the contracts."""
    for area, package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(checkout() / area / package, tmp_path / area / package, ignore=ignored)
    shutil.copy(checkout() / "pyproject.toml", tmp_path)
    return tmp_path


def linted(copy: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(str(copy / area) for area in AREAS)
    command = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    return subprocess.run(
        [sys.executable, "-c", command, "--no-cache"],
        cwd=copy,
        env=dict(os.environ) | {"PYTHONPATH": path, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_the_packages_as_they_are_keep_all_contracts(copy: Path) -> None:
    assert linted(copy).returncode == 0


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        # One that the plugin had no contract against, and one that it always had.
        ("plugin/prichexy_plugin/intake.py", "import prichexy_worker.study", "The plugin knows"),
        ("plugin/prichexy_plugin/intake.py", "import numpy", "The plugin knows"),
        ("worker/prichexy_worker/deform.py", "import torch", "Only engine.py"),
        ("worker/prichexy_worker/view.py", "import prichexy_model.flow", "Only engine.py"),
        ("worker/prichexy_worker/contract/reading.py", "import pydantic", "The contract and"),
        ("model/prichexy_store/history.py", "import prichexy_worker.errors", "The model store"),
        ("gateway/prichexy_gateway/ports.py", "import prichexy_plugin.schema", "The command line"),
    ],
)
def test_a_forbidden_import_breaks_its_contract(
    copy: Path, module: str, line: str, contract: str
) -> None:
    with (copy / module).open("a", encoding="utf-8") as stream:
        stream.write(f"\n{line}\n")
    ended = linted(copy)
    assert ended.returncode == 1
    broken = ended.stdout.partition("Broken contracts")[2]
    assert broken.count(" is not allowed to import ") >= 1
    assert contract in broken
