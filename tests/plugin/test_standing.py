"""Only lines of the chain say where a study stands, on both databases."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import Engine

from prichexy_plugin.chain import Deed
from prichexy_plugin.intake import Decision
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.standing import contradicted, digest_of_named, tells_of_deletion
from prichexy_testing.fake_orthanc import orthanc_id
from prichexy_testing.forgers import drop_guards, put_in_line
from prichexy_testing.plugin_fakes import FakeClock
from prichexy_worker.contract import Reason

ORIGINAL = orthanc_id("an original")


@pytest.fixture
def job(ledger: Ledger, clock: FakeClock) -> str:
    """Give a study whose lines follow a checkpoint."""
    for _ in range(3):
        ledger.record(Deed.ACTION, by="anna")
    clock.move(60)
    assert ledger.prune(clock(), told=None, most=3) == 3
    ledger.note({orthanc_id("a"): clock()}, cursor=1)
    ledger.settle(orthanc_id("a"), Decision(Reason.NO_RULE_MATCHES), content="c", instances=1)
    return ledger.studies().studies[0].job_id


def beyond_the_head(ledger: Ledger) -> int:
    return ledger.chain_state().head.number + 1


@pytest.mark.parametrize("number", [-1, 1, 3, None])
def test_a_row_outside_the_chain_orders_no_deletion(
    ledger: Ledger, engine: Engine, job: str, number: int | None
) -> None:
    named = json.dumps({"named": digest_of_named([ORIGINAL])})
    at = beyond_the_head(ledger) if number is None else number
    with engine.begin() as connection:
        drop_guards(connection)
        put_in_line(connection, at, Deed.ORIGINALS_DELETING.value, job, named)
        connection.exec_driver_sql("UPDATE studies SET originals = 'deleting'")
        connection.exec_driver_sql(
            "INSERT INTO disposed_originals (study_id, instance_id) "
            f"VALUES ('{orthanc_id('a')}', '{ORIGINAL}')"
        )
        assert not tells_of_deletion(connection, job, [ORIGINAL])
        assert contradicted(connection, job) == [job]


@pytest.mark.parametrize("number", [-1, 1, 3, None])
def test_a_row_outside_the_chain_hides_no_study_that_was_taken_out(
    ledger: Ledger, engine: Engine, job: str, number: int | None
) -> None:
    at = beyond_the_head(ledger) if number is None else number
    with engine.begin() as connection:
        drop_guards(connection)
        put_in_line(connection, at, Deed.FORGOTTEN.value, job)
        connection.exec_driver_sql("DELETE FROM studies")
        assert contradicted(connection) == [job]


def test_a_row_beyond_the_head_says_of_no_line_that_it_was_pruned(
    ledger: Ledger, engine: Engine, job: str
) -> None:
    """By such a word a row without lines would be believed, as one that is older than all."""
    at = beyond_the_head(ledger)
    with engine.begin() as connection:
        drop_guards(connection)
        connection.exec_driver_sql(f"DELETE FROM events WHERE job_id = '{job}'")
        put_in_line(connection, at, Deed.PRUNED.value, job, '{"before": "2030-01-01T00:00:00"}')
        assert contradicted(connection, job) == [job]


@pytest.mark.parametrize("altered", ["name = 'gone'", "number = 99"])
def test_where_the_checkpoint_is_altered_no_line_counts(
    engine: Engine, job: str, altered: str
) -> None:
    with engine.begin() as connection:
        drop_guards(connection)
        connection.exec_driver_sql(f"UPDATE audit_chain SET {altered} WHERE name = 'checkpoint'")
        assert contradicted(connection, job) == [job]
