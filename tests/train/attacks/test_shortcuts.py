"""What verifiers may look at is hidden, and nothing else of the images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from prichexy_testing.attackers import CPU, SIZE
from prichexy_testing.training import MemoryImages
from prichexy_train.attacks.frozen import Frozen
from prichexy_train.attacks.ladder import climb
from prichexy_train.attacks.rung import NotApplicable, Workplace
from prichexy_train.attacks.shortcut_checks import SHORTCUT_CHECKS, ShortcutCheck
from prichexy_train.attacks.shortcuts import (
    CENTRE,
    centre_enlarged,
    from_one_aspect,
    grey_quantiles,
    with_one_histogram,
    without,
    without_markers,
)
from prichexy_train.attacks.target import Target
from prichexy_train.data.pool import Pool
from prichexy_train.measures.auc import auc
from prichexy_train.measures.summary import AttackSummary, strongest, summarise
from prichexy_train.records import MethodOf, read_records

MakeTarget = Callable[..., Target]
REAL = MethodOf(name="real", digest="d-real")


def some(count: int = 3, size: int = 40) -> Tensor:
    """Smooth radiographs, 8-bit as the cache has them."""
    coarse = torch.rand(count, 1, 6, 6, generator=torch.Generator().manual_seed(4))
    images = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
    return (images * 255).round() / 255


@pytest.mark.parametrize(
    "change",
    [
        without_markers,
        lambda images: without(images, "border", 0.1),
        lambda images: without(images, "centre", 0.1),
        lambda images: from_one_aspect(images, torch.full((len(images),), 0.7), 1.0),
        lambda images: with_one_histogram(images, torch.linspace(0, 1, 256)),
        centre_enlarged,
    ],
)
def test_a_change_keeps_shape_and_range_and_leaves_its_input_alone(
    change: Callable[[Tensor], Tensor],
) -> None:
    images = some()
    before = images.clone()
    changed = change(images)
    assert changed.shape == images.shape
    assert changed.dtype == images.dtype
    assert 0 <= float(changed.min()) <= float(changed.max()) <= 1
    assert torch.equal(images, before)
    assert not torch.equal(changed, images)
    # An image's change does not depend on the others of its batch.
    torch.testing.assert_close(change(images[:1]), changed[:1])


def test_a_marker_in_a_corner_or_at_the_upper_edge_is_gone_and_the_chest_is_not() -> None:
    plain = torch.full((1, 1, 40, 40), 0.2)
    plain[..., 12:32, 10:30] = 0.8
    for rows, columns in (
        (slice(1, 5), slice(1, 5)),
        (slice(34, 38), slice(33, 38)),
        (slice(0, 2), slice(18, 24)),
    ):
        marked = plain.clone()
        marked[..., rows, columns] = 1.0
        assert torch.equal(without_markers(marked), plain)


def test_each_corner_is_painted_in_its_own_background() -> None:
    image = torch.zeros(1, 1, 40, 40)
    image[..., 24:] = 0.5
    assert torch.equal(without_markers(image), image)


def test_the_border_is_painted_over_in_the_grey_of_the_rest() -> None:
    image = torch.zeros(1, 1, 10, 10)
    image[..., 2:-2, 2:-2] = 1
    assert torch.equal(without(image, "border", 0.2), torch.ones_like(image))
    assert torch.equal(without(image, "centre", 0.2), torch.zeros_like(image))


def test_images_of_one_aspect_already_or_of_none_known_stay_as_they_are() -> None:
    images = some(2)
    aspects = torch.tensor([0.8, torch.nan])
    torch.testing.assert_close(from_one_aspect(images, aspects, 0.8), images, atol=1e-5, rtol=0)


def test_one_aspect_undoes_that_one_original_was_wider_than_another() -> None:
    # One scene, and what machines of three formats make of it: the same height, another width.
    scene = torch.nn.functional.interpolate(some(1), size=(120, 180), mode="bilinear")
    shapes = {1.0: scene[..., 30:150], 1.5: scene, 0.5: scene[..., 60:120]}

    def squeezed(image: Tensor) -> Tensor:
        return torch.nn.functional.interpolate(image, size=(120, 120), mode="bilinear")

    aspects = torch.tensor([1.0, 1.5])
    both = torch.cat([squeezed(shapes[1.0]), squeezed(shapes[1.5])])
    one, other = from_one_aspect(both, aspects, 1.0)
    torch.testing.assert_close(one, other, atol=0.02, rtol=0)
    # A narrower one lacks the sides, so it is shown in less than its height.
    (narrow,) = from_one_aspect(squeezed(shapes[0.5]), torch.tensor([0.5]), 1.0)
    middle = torch.nn.functional.interpolate(
        shapes[0.5][..., 30:90, :], size=(120, 120), mode="bilinear"
    )[0]
    torch.testing.assert_close(narrow, middle, atol=0.03, rtol=0)


def test_exposure_is_gone_when_all_have_one_histogram() -> None:
    images = some(1, 64)
    darker = (images**2 * 0.8 * 255).round() / 255
    quantiles = grey_quantiles(images)
    one, other = (with_one_histogram(one, quantiles) for one in (images, darker))
    torch.testing.assert_close(one, images, atol=0.02, rtol=0)
    torch.testing.assert_close(other, one, atol=0.03, rtol=0)


def test_what_is_equally_grey_stays_so() -> None:
    image = torch.zeros(1, 1, 20, 20)
    image[..., 10:] = 0.5
    changed = with_one_histogram(image, torch.linspace(0, 1, 256))
    assert len(changed.unique()) == 2


def test_the_centre_fills_the_image() -> None:
    image = torch.zeros(1, 1, 50, 50)
    edge = round((1 - CENTRE) / 2 * 50)
    image[..., edge : 50 - edge, edge : 50 - edge] = 0.7
    torch.testing.assert_close(centre_enlarged(image), torch.full_like(image, 0.7))


def checked(check: ShortcutCheck, target: Target, folder: Path) -> dict[str, float]:
    attempt = check.attack(target, Workplace(folder, check.name, 1))
    assert attempt.scores.keys() == target.lists.keys()
    return {name: auc(attempt.scores[name], pairs.same) for name, pairs in target.lists.items()}


def test_unchanged_images_tell_one_verifier_what_they_told_it_on_rung_three(
    target: MakeTarget, tmp_path: Path
) -> None:
    against = target(method=REAL)
    found = checked(ShortcutCheck("unchanged"), against, tmp_path)
    frozen = Frozen().attack(against, Workplace(tmp_path, "frozen", 1)).scores
    for name, pairs in against.lists.items():
        assert found[name] == pytest.approx(auc(frozen[name], pairs.same), abs=1e-6)
    assert found["test"] > 0.8


def test_a_verifier_that_knows_patients_by_their_markers_is_found_out(
    target: MakeTarget, pool: Pool, tmp_path: Path
) -> None:
    pixels = torch.full((len(pool), 1, SIZE, SIZE), 0.5)
    grey = torch.rand(int(pool.patients.max()) + 1, generator=torch.Generator().manual_seed(1))
    pixels[:, :, :3, :3] = grey[torch.from_numpy(pool.patients)][:, None, None, None]
    marked = MemoryImages(pixels)
    words: dict[str, Any] = {"method": REAL, "pool": Pool(**vars(pool) | {"images": marked})}
    against = target(marked, **words)
    assert checked(ShortcutCheck("unchanged"), against, tmp_path)["test"] > 0.8
    assert checked(ShortcutCheck("without-markers"), against, tmp_path)["test"] == 0.5
    assert checked(ShortcutCheck("without-border"), against, tmp_path)["test"] == 0.5
    assert checked(ShortcutCheck("border-alone"), against, tmp_path)["test"] > 0.8
    assert checked(ShortcutCheck("centre-enlarged"), against, tmp_path)["test"] == 0.5


def test_several_verifiers_look_together_and_say_who_they_are(
    target: MakeTarget, strong: Path, tmp_path: Path
) -> None:
    against = target(method=REAL, verifiers=(strong, strong))
    attempt = ShortcutCheck("one-aspect").attack(against, Workplace(tmp_path, "x", 1))
    assert attempt.details["verifiers"] == [strong.name, strong.name]
    assert attempt.shares["miniature"] == {"frozen 1": 0.5, "frozen 2": 0.5}
    aspect = attempt.details["aspect"]
    assert isinstance(aspect, dict)
    assert aspect.keys() == {"miniature"}
    assert len({check.name for check in SHORTCUT_CHECKS}) == len(SHORTCUT_CHECKS) == 8


def test_any_aspect_stretches_each_image_its_own_way_and_always_the_same(
    target: MakeTarget, tmp_path: Path
) -> None:
    against = target(method=REAL)
    one, again = (
        ShortcutCheck("any-aspect").attack(against, Workplace(tmp_path, "x", 1)).scores["test"]
        for _ in range(2)
    )
    assert np.array_equal(one, again)
    whole = ShortcutCheck("unchanged").attack(against, Workplace(tmp_path, "x", 1)).scores["test"]
    assert not np.allclose(one, whole)


def test_checks_are_records_beside_the_ladder_and_never_its_maximum(
    target: MakeTarget, tmp_path: Path
) -> None:
    checks = [ShortcutCheck("unchanged"), ShortcutCheck("one-histogram")]
    assert climb(target(method=REAL), tmp_path, rungs=checks).finished
    summaries = [one for one in summarise(read_records(tmp_path)) if one.kind == "attack"]
    assert {one.rung for one in summaries} == {check.name for check in checks}
    assert {one.role for one in summaries if isinstance(one, AttackSummary)} == {"shortcut"}
    assert strongest(summaries) == {}


@pytest.mark.parametrize(
    ("words", "reason"),
    [({"verifiers": ()}, "no strong verifier"), ({"method": MethodOf(name="dp-pix:b=4")}, "real")],
)
def test_a_check_that_cannot_be_made_says_why(
    words: dict[str, Any], reason: str, target: MakeTarget
) -> None:
    with pytest.raises(NotApplicable, match=reason):
        ShortcutCheck("unchanged").seeds(target(**{"method": REAL, **words}))


def test_one_aspect_for_all_is_no_check(target: MakeTarget, pool: Pool) -> None:
    (only,) = pool.sets
    square = [replace(image, original=(1024, 1024)) for image in only.catalogue.images]
    alike = replace(only, catalogue=replace(only.catalogue, images=tuple(square)))
    with pytest.raises(NotApplicable, match="aspect"):
        ShortcutCheck("one-aspect").seeds(target(method=REAL, pool=Pool.join([alike])))


def test_a_set_that_tells_no_sizes_has_no_record_of_it(
    target: MakeTarget, pool: Pool, tmp_path: Path
) -> None:
    (only,) = pool.sets
    bare = [replace(image, original=None) for image in only.catalogue.images]
    silent = replace(
        only, name="silent", catalogue=replace(only.catalogue, name="silent", images=tuple(bare))
    )
    against = target(method=REAL, pool=Pool.join([only, silent]), device=CPU)
    attempt = ShortcutCheck("one-aspect").attack(against, Workplace(tmp_path, "x", 1))
    assert {name.partition(".")[0] for name in attempt.scores} == {"miniature"}
    assert np.isfinite(next(iter(attempt.scores.values()))).all()
