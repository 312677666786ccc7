"""What the plugin asks its ledger again and again does not grow with what has ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, event, text

from prichexy_plugin.database import open_database
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.relay import RECALL_AFTER
from prichexy_plugin.retention import Rules
from prichexy_testing.plugin_fakes import FakeClock
from prichexy_worker.contract import ENDED

DAY = timedelta(days=1)
RULES = Rules(originals=dict.fromkeys(ENDED, DAY), pictures=DAY, ledger=DAY)
NONE = Rules()
#: By an index of its own, which holds only what has to be done.
BOUNDED = "USING INDEX studies_losing_originals"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """Give a ledger in SQLite, whose plans do not depend on how many rows there are."""
    engine = open_database(f"sqlite:///{tmp_path}/ledger.sqlite")
    yield engine
    engine.dispose()


@pytest.mark.parametrize(
    "question",
    [
        lambda ledger: ledger.due(),
        lambda ledger: ledger.outbox(),
        lambda ledger: ledger.silent_jobs(RECALL_AFTER),
        lambda ledger: ledger.recall_orphans(),
        lambda ledger: ledger.late(ledger._clock(), broker_reachable=True),
        lambda ledger: ledger.due_originals(NONE, 10),
        lambda ledger: ledger.due_originals(RULES, 10),
        lambda ledger: ledger.due_pictures(RULES, 10),
        lambda ledger: ledger.forgettable(RULES, 10),
    ],
    ids=[
        *("due", "outbox", "silent", "orphans", "late"),
        *("originals, no rule", "originals", "pictures", "forgettable"),
    ],
)
def test_no_question_at_rest_reads_all_studies(
    engine: Engine, clock: FakeClock, question: Callable[[Ledger], object]
) -> None:
    asked: list[tuple[str, object]] = []

    @event.listens_for(engine, "before_cursor_execute")
    def _note(
        _connection: Connection, _cursor: object, statement: str, values: object, *_: object
    ) -> None:
        if statement.startswith("SELECT") and "FROM studies" in statement:
            asked.append((statement, values))

    question(Ledger(engine, clock))
    event.remove(engine, "before_cursor_execute", _note)
    assert asked
    with engine.connect() as connection:
        for statement, values in asked:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).all()  # type: ignore[arg-type]
            scans = [row[3] for row in plan if row[3].startswith("SCAN") and BOUNDED not in row[3]]
            assert scans == [], statement


def test_a_ledger_of_before_gets_the_indices_that_it_lacks(tmp_path, clock: FakeClock) -> None:
    url = f"sqlite:///{tmp_path}/ledger.sqlite"
    engine = open_database(url)
    with engine.begin() as connection:
        connection.execute(text("DROP INDEX studies_losing_originals"))
    engine.dispose()
    again = open_database(url)
    assert Ledger(again, clock).due_originals(NONE, 10) == ()
    with again.connect() as connection:
        names = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'index'")
        assert "studies_losing_originals" in set(names.scalars())
    again.dispose()
