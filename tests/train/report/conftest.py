"""Folders of made-up runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from prichexy_testing import made_up_runs
from prichexy_testing.made_up_runs import MadeUp


@pytest.fixture
def made_up(tmp_path: Path) -> MadeUp:
    return MadeUp(tmp_path / "runs")


@pytest.fixture
def table_of_runs(tmp_path: Path) -> MadeUp:
    return made_up_runs.table_of_runs(tmp_path / "runs")
