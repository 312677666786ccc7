"""An image that has to be deleted before a new one can take its place comes back when none does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prichexy_worker.errors import Retryable

__all__ = ["or_else"]


@contextmanager
def or_else(put_back: Callable[[], object]) -> Iterator[None]:
    """Call ``put_back`` when the block raises Retryable, and let that out.

    Where the target does not take the earlier image back either, the error says so, and the image
    is missing there until the study is made again.
    """
    try:
        yield
    except Retryable as error:
        try:
            put_back()
        except Retryable:
            detail = f"{error.detail}; the earlier image is not there any more".lstrip("; ")
            raise Retryable(error.reason, detail) from None
        raise
