"""The script that measures what a study costs runs, over a worker."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from prichexy_testing.shared_data import REPO

SCRIPT = REPO / "benchmarks" / "capacity.py"


def test_a_worker_is_measured() -> None:
    paths = (REPO / area for area in ("plugin", "worker", "model", "tests"))
    done = subprocess.run(
        [sys.executable, SCRIPT, "--only", "worker", "--studies", "2"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"\*\*all\*\* \| \d+\.\d{3}", done.stdout)
