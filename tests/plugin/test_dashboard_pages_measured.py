"""The script that measures the dashboard's pages runs, over all of them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
SCRIPT = REPO / "benchmarks" / "dashboard_pages.py"


def test_every_page_of_the_benchmark_answers() -> None:
    command = [sys.executable, SCRIPT, "--studies", "60", "--times", "1"]
    environment = {**os.environ, "PYTHONPATH": str(REPO / "tests")}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=300, env=environment
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()[1:]
    assert len(lines) > 20
    assert all(re.fullmatch(r"\S.*?\s+\d+\s+\d+", line) for line in lines), done.stdout
