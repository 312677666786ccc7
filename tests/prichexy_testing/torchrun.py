"""Starts programs as several processes that are joined, on this machine's processor."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["torchrun"]


def torchrun(
    *arguments: str | Path, processes: int = 2, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """Run ``python ARGUMENTS`` by torchrun; gives its end, whatever it was."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={processes}"]
    rest = list(map(str, arguments))
    if rest[0] == "-m":
        command.append(rest.pop(0))
    # Without --, torchrun takes our --run for an abbreviation of its own --run-path.
    command += ["--", *rest]
    tests = Path(__file__).resolve().parents[1]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(tests)}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )
