from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from prichexy_train.data.catalogue import Catalogue
from prichexy_train.data.pairs import Pairs
from prichexy_train.data.problems import UnusableData

Build = Callable[..., Catalogue]


def pairs_of(*rows: tuple[int, int, bool]) -> Pairs:
    table = np.array(rows, dtype=np.int64)
    return Pairs(table[:, 0], table[:, 1], table[:, 2].astype(np.bool_))


def lists(pairs: Pairs) -> tuple[list[int], list[int], list[bool]]:
    return pairs.first.tolist(), pairs.second.tolist(), pairs.same.tolist()


def test_pairs_come_back_from_their_text_as_they_were(catalogue_of: Build, tmp_path: Path) -> None:
    catalogue = catalogue_of(["a", "a", "b"])
    pairs = pairs_of((1, 0, True), (0, 2, False))
    assert pairs.text(catalogue) == "first,second,same\n1.png,0.png,1\n0.png,2.png,0\n"
    (tmp_path / "p.csv").write_text(pairs.text(catalogue), encoding="utf-8")
    assert lists(Pairs.read(tmp_path / "p.csv", catalogue)) == lists(pairs)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "has not the columns"),
        ("first,second,same\n0.png,9.png,0\n", "9.png is not in the catalogue"),
        ("first,second,same\n0.png,1.png\n", "no pair"),
        ("first,second,same\n0.png,1.png,yes\n", "no pair"),
        ("first,second,same\n0.png,1.png,0\n", "contradicts the catalogue"),
        ("first,second,same\n0.png,1.png,2\n", "no pair"),
    ],
)
def test_what_is_no_list_of_pairs_is_told(
    catalogue_of: Build, tmp_path: Path, text: str, told: str
) -> None:
    (tmp_path / "p.csv").write_text(text, encoding="utf-8")
    with pytest.raises(UnusableData, match=told):
        Pairs.read(tmp_path / "p.csv", catalogue_of(["a", "a", "b"]))


def test_lists_are_joined_shifted_and_taken_from() -> None:
    pairs = pairs_of((1, 0, True), (0, 2, False))
    joined = Pairs.joined([pairs, pairs.shifted(10)])
    assert lists(joined) == ([1, 0, 11, 10], [0, 2, 10, 12], [True, False, True, False])
    assert lists(joined.take(np.array([3, 0]))) == ([10, 1], [12, 0], [False, True])
    assert len(Pairs.joined([])) == 0


def test_lengths_that_differ_are_an_error() -> None:
    with pytest.raises(ValueError, match="different lengths"):
        Pairs(np.array([1]), np.array([1, 2]), np.array([True]))
