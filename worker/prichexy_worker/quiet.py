"""Keeps what libraries say about a patient's file out of logs, terminals and warnings."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["without_noise"]


@contextmanager
def without_noise() -> Iterator[None]:
    """Drop Python warnings and pydicom's log records while the block runs.

    Both quote values of the object at hand. Changes the whole process for that time, so it is for
    code that runs one study at a time; exceptions pass through.
    """
    logger = logging.getLogger("pydicom")
    before = logger.level
    # The level, as pydicom's modules log under names below this one and inherit only that.
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
