"""The losses, against their definitions in float64 and against what they are for."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from prichexy_model.losses import (
    classification_bce,
    paper_privacy,
    rank_privacy,
    rank_scale,
    supervised_contrastive,
    verification_bce,
)

SAME = torch.tensor([True, False, True, True, False, False])
PATIENTS = torch.tensor([3, 8, 3, 5, 8, 3])
unhurried = settings(deadline=None, max_examples=30)


def logits(*shape: int, seed: int = 0, scale: float = 3.0) -> torch.Tensor:
    source = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=source, dtype=torch.float64) * scale


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def auc(values: torch.Tensor, same: torch.Tensor) -> float:
    return (values[same][:, None] > values[~same][None]).double().mean().item()


@unhurried
@given(seed=st.integers(0, 2**32))
def test_the_cross_entropies_are_what_the_definition_says(seed: int) -> None:
    for loss, shape in ((verification_bce, (6,)), (classification_bce, (6, 3))):
        values = logits(*shape, seed=seed)
        targets = (logits(*shape, seed=seed + 1) > 0).double()
        p, y = sigmoid(values.numpy()), targets.numpy()
        expected = -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean()
        assert loss(values, targets).item() == pytest.approx(expected, rel=1e-9)


def test_what_is_not_known_has_no_part_in_the_classes_cross_entropy() -> None:
    values = logits(6, 3).requires_grad_()
    known = logits(6, 3, seed=3) > 0
    labels = (logits(6, 3, seed=4) > 0).double()
    expected = classification_bce(values[known][:, None], labels[known][:, None])
    for elsewhere in (0.0, 1.0):
        given = labels.where(known, torch.tensor(elsewhere, dtype=torch.float64))
        torch.testing.assert_close(classification_bce(values, given, known), expected)
    classification_bce(values, labels, known).backward()
    assert values.grad is not None
    assert torch.count_nonzero(values.grad[~known]) == 0
    assert classification_bce(values, labels, torch.zeros(6, 3)).item() == 0


def test_targets_may_be_true_and_false_or_numbers() -> None:
    values = logits(6)
    assert torch.equal(verification_bce(values, SAME), verification_bce(values, SAME.float()))


@unhurried
@given(seed=st.integers(0, 2**32))
def test_the_papers_privacy_is_what_the_definition_says(seed: int) -> None:
    values = logits(6, seed=seed)
    expected = -np.log(1 - sigmoid(values.numpy())).mean()
    assert paper_privacy(values).item() == pytest.approx(expected, rel=1e-9)


def test_the_papers_privacy_is_satisfied_by_a_shift_that_hides_nobody() -> None:
    values = logits(6)
    values[SAME] += 10
    shifted = values - 100
    assert auc(values, SAME) == auc(shifted, SAME) == 1
    assert paper_privacy(values) > 5
    assert paper_privacy(shifted) < 1e-9


def test_large_logits_do_not_overflow() -> None:
    values = torch.tensor([1000.0, -1000.0])
    assert paper_privacy(values).item() == 500
    assert verification_bce(values, torch.tensor([1, 0])).item() == 0
    assert verification_bce(values, torch.tensor([0, 1])).item() == 1000


@unhurried
@given(seed=st.integers(0, 2**32))
def test_the_rank_loss_is_what_the_definition_says(seed: int) -> None:
    values = logits(6, seed=seed)
    far = (values[SAME].numpy()[:, None] - values[~SAME].numpy()[None]).flatten()
    scale = sorted(abs(far))[(len(far) - 1) // 2] / 2
    assert rank_scale(values, SAME).item() == pytest.approx(scale, rel=1e-9)
    expected = np.tanh(far / scale).mean() ** 2
    assert rank_privacy(values, SAME).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_the_rank_loss_ignores_a_shift_and_a_scale_as_an_attackers_ranking_does() -> None:
    values = logits(6)
    expected = rank_privacy(values, SAME).item()
    assert rank_privacy(values - 50, SAME).item() == pytest.approx(expected, rel=1e-6)
    assert rank_privacy(7 * values, SAME).item() == pytest.approx(expected, rel=1e-6)
    assert rank_privacy(-values, SAME).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("outliers", [1, 2])
@pytest.mark.parametrize("far", [20.0, 50.0, 1000.0])
def test_a_few_outliers_do_not_hide_a_ranking(outliers: int, far: float) -> None:
    same = torch.arange(64) % 2 == 1
    values = logits(64, scale=1.0) + 2 * same.double()
    moved = values.clone()
    moved[:outliers] += far * torch.tensor([1.0, -1.0], dtype=torch.float64)[:outliers]
    before, after = auc(values, same), auc(moved, same)
    assert after > 0.85
    # As much less as the ranking is worse, and no more.
    worse = ((2 * after - 1) / (2 * before - 1)) ** 2
    expected = worse * rank_privacy(values, same).item()
    assert rank_privacy(moved, same).item() == pytest.approx(expected, rel=0.1)


def test_chance_is_no_loss_and_order_in_either_direction_is_nearly_one() -> None:
    level = torch.tensor([1.0, 2.0, 3.0, 2.0, 1.0, 3.0])
    assert auc(level, SAME) + (level[SAME][:, None] == level[~SAME]).double().mean() / 2 == 0.5
    assert rank_privacy(level, SAME).item() == pytest.approx(0, abs=1e-12)
    for direction in (50, -50):
        assert 0.9 < rank_privacy(level + direction * SAME.float(), SAME) <= 1


def test_descending_the_rank_loss_brings_a_strong_attacker_to_chance() -> None:
    same = torch.arange(64) % 2 == 0
    values = logits(64, scale=1.0) + 8 * same.double()
    assert auc(values, same) > 0.99
    values.requires_grad_()
    optimizer = torch.optim.Adam([values], lr=0.3)
    for _ in range(60):
        optimizer.zero_grad()
        rank_privacy(values, same).backward()
        optimizer.step()
    assert auc(values.detach(), same) == pytest.approx(0.5, abs=0.1)


def test_the_rank_loss_has_a_slope_however_far_apart_the_logits_are() -> None:
    for far in (2.0, 200.0):
        values = (logits(6, scale=1.0) + far * SAME.double()).requires_grad_()
        rank_privacy(values, SAME).backward()
        assert values.grad is not None
        # In units of the distance, that is: of what there is to go.
        assert (values.grad * far).abs().min() > 1e-2


@pytest.mark.parametrize("same", [torch.zeros(6), torch.ones(6)], ids=["no pair", "only pairs"])
def test_a_batch_of_one_kind_has_no_rank_and_a_gradient_of_zero(same: torch.Tensor) -> None:
    values = logits(6).requires_grad_()
    loss = rank_privacy(values, same)
    loss.backward()
    assert loss.item() == 0
    assert values.grad is not None
    assert torch.count_nonzero(values.grad) == 0


@pytest.mark.parametrize("values", [SAME.double(), torch.zeros(6, dtype=torch.float64)])
def test_pairs_that_are_all_alike_have_a_finite_loss(values: torch.Tensor) -> None:
    values = values.clone().requires_grad_()
    loss = rank_privacy(values, SAME)
    loss.backward()
    assert loss.isfinite()
    assert values.grad is not None
    assert values.grad.isfinite().all()


def test_no_gradient_runs_through_the_scale() -> None:
    one, other = (logits(6, scale=1.0).requires_grad_() for _ in range(2))
    rank_privacy(one, SAME).backward()
    rank_privacy(other, SAME, rank_scale(other, SAME)).backward()
    assert one.grad is not None
    assert other.grad is not None
    assert torch.equal(one.grad, other.grad)


@unhurried
@given(seed=st.integers(0, 2**32), temperature=st.floats(0.05, 2))
def test_the_contrastive_loss_is_what_the_definition_says(seed: int, temperature: float) -> None:
    z = functional.normalize(logits(6, 4, seed=seed), dim=1).numpy()
    patients = PATIENTS.tolist()
    terms = []
    for i, patient in enumerate(patients):
        others = [j for j in range(6) if j != i]
        positives = [j for j in others if patients[j] == patient]
        if positives:
            everyone = sum(math.exp(z[i] @ z[j] / temperature) for j in others)
            shares = [math.exp(z[i] @ z[j] / temperature) / everyone for j in positives]
            terms.append(-sum(math.log(share) for share in shares) / len(positives))
    assert len(terms) == 5
    result = supervised_contrastive(torch.from_numpy(z), PATIENTS, temperature)
    assert result.item() == pytest.approx(sum(terms) / len(terms), rel=1e-9)


def test_one_who_occurs_once_is_a_negative_of_the_others_and_has_no_term() -> None:
    east, north = torch.eye(2)
    patients = torch.tensor([1, 1, 2])
    # Both terms are those of the first patient: one other like it, one more in the denominator.
    like = supervised_contrastive(torch.stack((east, east, east)), patients, 1.0)
    unlike = supervised_contrastive(torch.stack((east, east, north)), patients, 1.0)
    assert like.item() == pytest.approx(math.log(2))
    assert unlike.item() == pytest.approx(math.log(1 + 1 / math.e))


@pytest.mark.parametrize("batch", [1, 4])
def test_a_batch_without_a_second_image_of_anybody_gives_nothing(batch: int) -> None:
    raw = logits(batch, 4).requires_grad_()
    z = functional.normalize(raw, dim=1)
    loss = supervised_contrastive(z, torch.arange(batch), 0.1)
    loss.backward()
    assert loss.item() == 0
    assert raw.grad is not None
    assert torch.count_nonzero(raw.grad) == 0


@pytest.mark.parametrize("temperature", [0, -1, math.nan])
def test_a_temperature_that_makes_no_sense_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        supervised_contrastive(torch.eye(3), torch.arange(3), temperature)


LOSSES: dict[str, tuple[Callable[..., torch.Tensor], tuple[int, ...], tuple[Any, ...]]] = {
    "verification": (verification_bce, (6,), (SAME,)),
    "classification": (classification_bce, (6, 3), (logits(6, 3, seed=9) > 0,)),
    "paper": (paper_privacy, (6,), ()),
    "rank": (rank_privacy, (6,), (SAME, torch.tensor(1.5))),
    "contrastive": (supervised_contrastive, (6, 4), (PATIENTS, 0.2)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_gradient_agrees_with_finite_differences(name: str) -> None:
    loss, shape, arguments = LOSSES[name]
    values = logits(*shape, scale=1.0).requires_grad_()
    assert torch.autograd.gradcheck(lambda given: loss(given, *arguments), (values,))


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_computed_in_single_precision_under_autocast(name: str) -> None:
    loss, shape, arguments = LOSSES[name]
    values = logits(*shape, scale=1.0).float()
    expected = loss(values, *arguments)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = loss(values, *arguments)
        half = loss(values.bfloat16(), *arguments)
    assert torch.equal(result, expected)
    assert half.dtype == torch.float32
