"""What tests of the plugin share: a clock that stands still, and ledgers on both databases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine

from prichexy_plugin.database import open_database
from prichexy_plugin.ledger import Ledger
from prichexy_testing.plugin_fakes import FakeClock
from prichexy_testing.servers import PostgresServer, running_postgres


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


@pytest.fixture(
    params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)],
)
def open_ledger_database(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Callable[[], Engine]]:
    """Open one and the same database again and again, a file or one of a real PostgreSQL."""
    if request.param == "sqlite":
        url, password = f"sqlite:///{tmp_path}/ledger.sqlite", None
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        url, password = server.new_database(), SecretStr(server.password)
    engines: list[Engine] = []

    def opened() -> Engine:
        engines.append(open_database(url, password))
        return engines[-1]

    yield opened
    for engine in engines:
        engine.dispose()


@pytest.fixture
def engine(open_ledger_database: Callable[[], Engine]) -> Engine:
    return open_ledger_database()


@pytest.fixture
def ledger(engine: Engine, clock: FakeClock) -> Ledger:
    return Ledger(engine, clock)
