"""What tests of the plugin share: a clock that stands still, and a ledger in a file of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from prichexy_plugin.database import open_database
from prichexy_plugin.ledger import Ledger
from prichexy_testing.plugin_fakes import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def ledger(tmp_path: Path, clock: FakeClock) -> Iterator[Ledger]:
    engine = open_database(f"sqlite:///{tmp_path}/ledger.sqlite")
    yield Ledger(engine, clock)
    engine.dispose()
