"""How often and when a study is tried again. All of the arithmetic is here.

Two counts exist, on purpose:

* ``failures``: attempts that a worker had claimed and that then failed. It travels in the task's
  own arguments. After ``attempts`` of them the study is reported FAILED with the last reason.
* Celery's ``retries``: how often the task was sent back for any cause. It only sets the pause.
  An attempt that could not even be claimed, or whose end could not be reported, because the
  ingest Orthanc does not answer, counts here alone: a night without Orthanc loses no study.

The plugin counts claims for itself, because a kill leaves no failure to count. A claim past
``MAX_ATTEMPTS`` is for giving the study up, and that may take some tries as well (see study.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from prichexy_worker.contract import MAX_ATTEMPTS

__all__ = ["RetryPolicy"]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Pauses of ``first``, ``first * factor``, ``first * factor**2`` … ``ceiling`` seconds.

    No jitter: one worker holds one study at a time, so no herd can form. ``ceiling`` has to be
    below the broker's redelivery time: a waiting task counts as not acknowledged, and a longer
    pause would make a second copy of it.
    """

    attempts: int = MAX_ATTEMPTS
    first: float = 10.0
    factor: float = 2.0
    ceiling: float = 600.0

    def delay(self, retries: int) -> float:
        """Give the seconds before the next try of a task sent back ``retries`` times so far."""
        # 2**64 is beyond any ceiling; the bound keeps the power from overflowing.
        return min(self.ceiling, self.first * self.factor ** min(retries, 64))

    def is_last(self, failures: int) -> bool:
        """Tell whether the attempt that follows ``failures`` failed ones is the last."""
        return failures + 1 >= self.attempts

    @classmethod
    def below(cls, redelivery_seconds: float) -> RetryPolicy:
        """Give the default policy with pauses of at most half the broker's redelivery time."""
        return cls(
            first=min(10.0, redelivery_seconds / 2),
            ceiling=min(600.0, redelivery_seconds / 2),
        )
