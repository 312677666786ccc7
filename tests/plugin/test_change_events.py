"""What a line of ``/changes`` means."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from prichexy_plugin.events import Arrival, Level, arrival_of, moment_of

AT = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)


def _change(kind: str) -> dict[str, object]:
    return {"ChangeType": kind, "Date": "20260301T080000", "ID": "an-id", "Seq": 1}


@pytest.mark.parametrize(
    ("kind", "arrival"),
    [
        ("NewStudy", Arrival(Level.STUDY, "an-id", stable=False, at=AT)),
        ("StableStudy", Arrival(Level.STUDY, "an-id", stable=True, at=AT)),
        ("NewInstance", Arrival(Level.INSTANCE, "an-id", stable=False, at=AT)),
    ],
)
def test_what_comes_in_is_an_arrival(kind: str, arrival: Arrival) -> None:
    assert arrival_of(_change(kind)) == arrival


@pytest.mark.parametrize(
    "kind", ["NewSeries", "NewPatient", "StableSeries", "StablePatient", "Deleted", "OfTheFuture"]
)
def test_everything_else_tells_of_no_arrival(kind: str) -> None:
    assert arrival_of(_change(kind)) is None


@pytest.mark.parametrize("text", [None, "", "2026-03-01", "20260301T080000Z", 5])
def test_a_time_that_cannot_be_read_is_none(text: object) -> None:
    assert moment_of(text) is None
