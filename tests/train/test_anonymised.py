"""Anonymised images on disk: the same whenever, in whatever order, and however often stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from prichexy_model.flow import warp
from prichexy_testing.miniature_runs import SIZE, Runs
from prichexy_train import anonymised
from prichexy_train.anonymised import (
    AnonymisedImages,
    NotInTime,
    anonymise,
    displacements,
    image_ids,
)
from prichexy_train.data.pool import Pool
from prichexy_train.errors import Damaged, Diverged, Misconfigured
from prichexy_train.methods_from import ChosenMethod, method_from
from prichexy_train.randomness import generator
from prichexy_train.records import MethodOf
from prichexy_train.stages.training_run import open_pool


@dataclass
class Counting:
    """Adds an offset to each image, and counts what it was asked for."""

    offset: float = 0.0
    asked: int = 0
    die_after: int = 10**9

    name = "counting"
    stochastic = True

    def __call__(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        self.asked += len(images)
        if self.asked > self.die_after:
            raise KeyboardInterrupt
        noise = torch.stack([torch.rand((), generator=one) for one in generators])
        return (images + self.offset) * noise[:, None, None, None]


def counting(**words: float) -> tuple[ChosenMethod, Counting]:
    method = Counting(**words)  # type: ignore[arg-type]
    return ChosenMethod(method, MethodOf(name="counting", digest="c0")), method


@pytest.fixture
def pool(miniature_runs_made: Runs) -> Pool:
    return open_pool([miniature_runs_made.data])


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(anonymised, "_BLOCK", 8)
    yield


def test_images_are_found_under_their_pools_numbers(pool: Pool, tmp_path: Path) -> None:
    chosen = method_from("dp-pix:b=4")
    rows = pool.split("test")
    images = anonymise(pool, rows, chosen, 5, tmp_path)
    assert len(images) == len(pool)
    assert images.size == SIZE
    wanted = rows[[7, 2, 2]]
    found = images.gather(wanted)
    ids = image_ids(pool)
    expected = chosen.method(
        pool.images.gather(wanted), [generator(5, "anonymise", ids[row]) for row in wanted]
    )
    assert found.dtype == torch.float32
    # Half precision, whose steps are at most 1/2048 in [0, 1].
    torch.testing.assert_close(found, expected, rtol=0, atol=2.5e-4)
    assert images.holds(np.arange(len(pool))).nonzero()[0].tolist() == rows.tolist()


def test_an_image_depends_on_seed_and_id_and_not_on_its_company(pool: Pool, tmp_path: Path) -> None:
    chosen, _ = counting()
    rows = pool.split("test")
    many = anonymise(pool, rows, chosen, 5, tmp_path / "many", batch_size=3)
    few = anonymise(pool, rows[[9, 4]], chosen, 5, tmp_path / "few", batch_size=1)
    other = anonymise(pool, rows[[9, 4]], chosen, 6, tmp_path / "other")
    assert torch.equal(few.gather(rows[[4, 9]]), many.gather(rows[[4, 9]]))
    assert not torch.equal(few.gather(rows[[4]]), other.gather(rows[[4]]))


def test_each_draw_is_another_one_and_the_first_is_what_it_always_was(
    pool: Pool, tmp_path: Path
) -> None:
    chosen, _ = counting()
    rows = pool.split("test")[:9]
    plain = anonymise(pool, rows, chosen, 5, tmp_path / "0")
    draws = [anonymise(pool, rows, chosen, 5, tmp_path / f"{k}", draw=k) for k in (1, 2)]
    again = anonymise(pool, rows, chosen, 5, tmp_path / "again", draw=1, batch_size=2)
    assert len({plain.digest, *(one.digest for one in draws)}) == 3
    assert again.digest == draws[0].digest
    for folder, draw in (("0", 1), ("1", 0), ("1", 2)):
        with pytest.raises(Misconfigured, match="another draw"):
            anonymise(pool, rows, chosen, 5, tmp_path / folder, draw=draw)


def test_displacements_are_those_that_made_the_images(pool: Pool, tmp_path: Path) -> None:
    chosen, rows = method_from("random:mu=0.2,coarseness=8"), pool.split("test")[:5]
    fields = torch.cat(list(displacements(pool, rows, chosen, 3, batch_size=2)))
    expected = anonymise(pool, rows, chosen, 3, tmp_path).gather(rows)
    found = warp(pool.images.gather(rows), fields)
    torch.testing.assert_close(found, expected, rtol=0, atol=2.5e-4)
    with pytest.raises(Misconfigured, match="no deformation"):
        next(displacements(pool, rows, method_from("dp-pix:b=4"), 3))


def test_an_image_that_was_not_anonymised_is_never_given(pool: Pool, tmp_path: Path) -> None:
    rows = pool.split("test")
    images = anonymise(pool, rows[:3], counting()[0], 1, tmp_path)
    with pytest.raises(IndexError, match=f"image {rows[3]} was not"):
        images.gather(rows[2:4])
    for outside in (-1, len(pool)):
        with pytest.raises(IndexError, match="there are images"):
            images.gather(np.array([rows[0], outside]))


def test_what_is_there_is_not_made_again(pool: Pool, tmp_path: Path) -> None:
    chosen, method = counting()
    rows = pool.split("test")
    first = anonymise(pool, rows, chosen, 1, tmp_path)
    again = anonymise(pool, np.concatenate((rows[::-1], rows)), chosen, 1, tmp_path)
    assert method.asked == len(rows)
    assert again.digest == first.digest


def test_a_kill_costs_no_more_than_the_block_under_way(pool: Pool, tmp_path: Path) -> None:
    rows = pool.split("test")[:20]
    whole = anonymise(pool, rows, counting()[0], 1, tmp_path / "whole")
    dying, _ = counting(die_after=13)
    with pytest.raises(KeyboardInterrupt):
        anonymise(pool, rows, dying, 1, tmp_path / "killed", batch_size=2)
    with pytest.raises(Damaged, match="not finished"):
        AnonymisedImages(tmp_path / "killed")
    chosen, method = counting()
    images = anonymise(pool, rows, chosen, 1, tmp_path / "killed")
    assert method.asked == 12
    assert images.digest == whole.digest
    assert torch.equal(images.gather(rows), whole.gather(rows))


def test_past_the_deadline_it_stops_between_two_blocks_and_goes_on_later(
    pool: Pool, tmp_path: Path
) -> None:
    rows = pool.split("test")[:20]
    chosen, method = counting()
    times = iter([0.0, 10.0, 20.0])
    with pytest.raises(NotInTime):
        anonymise(pool, rows, chosen, 1, tmp_path, deadline=15.0, clock=lambda: next(times))
    assert method.asked == 16
    assert anonymise(pool, rows, chosen, 1, tmp_path).holds(rows).all()
    assert method.asked == 20


def test_a_folder_of_something_else_is_refused(pool: Pool, tmp_path: Path) -> None:
    rows = pool.split("test")
    chosen, _ = counting()
    anonymise(pool, rows, chosen, 1, tmp_path)
    another = replace(chosen, of=MethodOf(name="counting", digest="c1"))
    for words, changed in (
        ("another method", (pool, rows, another, 1)),
        ("another seed", (pool, rows, chosen, 2)),
        ("another indices", (pool, rows[1:], chosen, 1)),
        ("another data", (replace(pool, digest="d"), rows, chosen, 1)),
    ):
        with pytest.raises(Misconfigured, match=words):
            anonymise(*changed, tmp_path)


def test_the_folder_tells_what_it_holds(pool: Pool, tmp_path: Path) -> None:
    chosen = method_from("dp-pix:b=2,eps=0.3")
    images = anonymise(pool, pool.split("test"), chosen, 4, tmp_path)
    about = json.loads((tmp_path / "anonymised.json").read_text())
    assert about["method"]["name"] == "dp-pix:b=2,eps=0.3"
    assert about["method"]["settings"] == {"b": 2, "eps": 0.3}
    assert about["of"]["data"] == pool.digest
    assert about["of"]["seed"] == 4
    assert about["digest"] == images.digest
    assert about["of"]["method"] == chosen.of.digest
    assert AnonymisedImages(tmp_path).digest == images.digest


def test_what_a_method_cannot_do_is_refused(pool: Pool, tmp_path: Path) -> None:
    rows = pool.split("test")
    broken, _ = counting(offset=float("nan"))
    with pytest.raises(Diverged, match="counting: made something else"):
        anonymise(pool, rows, broken, 1, tmp_path / "nan")
    with pytest.raises(Misconfigured, match="cells of 5 pixels do not fill 32"):
        anonymise(pool, rows, method_from("dp-pix:b=5"), 1, tmp_path / "cells")
    large = replace(counting()[0], size=256)
    with pytest.raises(Misconfigured, match="takes images of 256 pixels"):
        anonymise(pool, rows, large, 1, tmp_path / "large")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "anonymised.json").write_text("[]")
    with pytest.raises(Damaged, match="are these anonymised images"):
        AnonymisedImages(tmp_path / "text")


def test_a_trained_generators_images_can_be_made_again(
    pool: Pool, miniature_runs_made: Runs, tmp_path: Path
) -> None:
    chosen = method_from(miniature_runs_made.pretrained)
    rows = pool.split("test")[:9]
    one = anonymise(pool, rows, chosen, 1, tmp_path / "one", batch_size=4)
    other = anonymise(pool, rows, chosen, 2, tmp_path / "other", batch_size=9)
    torch.testing.assert_close(one.gather(rows), other.gather(rows), rtol=0, atol=1e-3)
