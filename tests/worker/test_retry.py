"""When a study is tried again, and how often."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from prichexy_worker.contract import MAX_ATTEMPTS
from prichexy_worker.retry import RetryPolicy


def test_pauses_double_up_to_ten_minutes() -> None:
    delays = [RetryPolicy().delay(retries) for retries in range(8)]
    assert delays == [10, 20, 40, 80, 160, 320, 600, 600]


def test_as_many_attempts_are_made_as_the_plugin_allows() -> None:
    policy = RetryPolicy()
    assert [policy.is_last(failures) for failures in range(MAX_ATTEMPTS)] == [
        *[False] * (MAX_ATTEMPTS - 1),
        True,
    ]


@given(st.integers(0, 10**9), st.floats(5, 10**6))
def test_no_pause_outlasts_the_brokers_patience(retries: int, redelivery: float) -> None:
    policy = RetryPolicy.below(redelivery)
    assert 0 < policy.delay(retries) < redelivery


@given(st.integers(0, 1000))
def test_pauses_never_shrink(retries: int) -> None:
    assert RetryPolicy().delay(retries) <= RetryPolicy().delay(retries + 1)
