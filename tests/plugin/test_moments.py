"""A clock that was ahead and is set right holds nothing up for as long as it was ahead."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from prichexy_plugin.moments import has_come, has_passed

NOW = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)


def test_a_pause_has_passed_at_its_end_and_not_before() -> None:
    assert has_passed(HOUR, None, NOW)
    assert not has_passed(HOUR, NOW, NOW)
    assert not has_passed(HOUR, NOW - HOUR + SECOND, NOW)
    assert has_passed(HOUR, NOW - HOUR, NOW)


def test_a_moment_has_come_at_that_moment_and_not_before() -> None:
    assert has_come(None, NOW, longest=HOUR)
    assert has_come(NOW, NOW, longest=HOUR)
    assert not has_come(NOW + SECOND, NOW, longest=HOUR)
    assert not has_come(NOW + HOUR, NOW, longest=HOUR)


@given(st.timedeltas(SECOND, timedelta(days=10_000)))
def test_a_clock_that_was_ahead_however_far_holds_nothing_up_for_longer(ahead: timedelta) -> None:
    assert has_passed(HOUR, NOW + ahead, NOW)
    assert has_come(NOW + ahead, NOW, longest=HOUR) == (ahead > HOUR)
