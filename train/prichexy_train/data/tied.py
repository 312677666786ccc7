"""Which entries of a list belong together, by ties between two of them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from itertools import chain

import numpy as np
from numpy.typing import NDArray

__all__ = ["alike", "tied"]


def alike(words: Iterable[Hashable | None]) -> Iterator[tuple[int, int]]:
    """Tie each entry to the first one that is equal; None is equal to nothing."""
    first: dict[Hashable, int] = {}
    for index, word in enumerate(words):
        if word is not None and first.setdefault(word, index) != index:
            yield first[word], index


def tied(count: int, *ties: Iterable[tuple[int, int]]) -> NDArray[np.int64]:
    """Give a code for each of ``count`` entries, equal where ties lead from one to the other."""
    leader = list(range(count))

    def find(entry: int) -> int:
        while leader[entry] != entry:
            leader[entry] = leader[leader[entry]]
            entry = leader[entry]
        return entry

    for first, second in chain(*ties):
        one, other = find(first), find(second)
        leader[max(one, other)] = min(one, other)
    return np.array([find(entry) for entry in range(count)], dtype=np.int64)
