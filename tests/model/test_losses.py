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
    gap_privacy,
    paper_privacy,
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
def test_the_gap_is_what_the_definition_says(seed: int) -> None:
    values = logits(6, seed=seed)
    positive, negative = values[SAME].numpy(), values[~SAME].numpy()
    within = (positive.var() * len(positive) + negative.var() * len(negative)) / 6
    d = (positive.mean() - negative.mean()) / math.sqrt(within + 1e-6)
    expected = math.sqrt(1 + d**2) - 1
    assert gap_privacy(values, SAME).item() == pytest.approx(expected, rel=1e-9)


def test_the_gap_ignores_a_shift_and_a_scale_as_an_attackers_ranking_does() -> None:
    values = logits(6)
    expected = gap_privacy(values, SAME).item()
    assert gap_privacy(values - 50, SAME).item() == pytest.approx(expected, rel=1e-6)
    assert gap_privacy(7 * values, SAME).item() == pytest.approx(expected, rel=1e-6)
    assert gap_privacy(-values, SAME).item() == pytest.approx(expected, rel=1e-6)


def test_no_gap_is_no_loss_and_the_reverse_order_is_one() -> None:
    level = torch.tensor([1.0, 2.0, 3.0, 2.0, 1.0, 3.0])
    assert gap_privacy(level, SAME).item() == 0
    assert gap_privacy(level - 5 * SAME.float(), SAME) > 1


def test_descending_the_gap_brings_a_strong_attacker_to_chance() -> None:
    same = torch.arange(64) % 2 == 0
    values = logits(64, scale=1.0) + 8 * same.double()
    assert auc(values, same) > 0.99
    values.requires_grad_()
    optimizer = torch.optim.Adam([values], lr=0.3)
    for _ in range(60):
        optimizer.zero_grad()
        gap_privacy(values, same).backward()
        optimizer.step()
    assert auc(values.detach(), same) == pytest.approx(0.5, abs=0.1)


def test_the_gap_has_a_slope_where_a_sigmoid_would_have_none() -> None:
    values = (logits(6, scale=1.0) + 200 * SAME.double()).requires_grad_()
    gap_privacy(values, SAME).backward()
    assert values.grad is not None
    assert values.grad.abs().min() > 1e-3


@pytest.mark.parametrize("same", [torch.zeros(6), torch.ones(6)], ids=["no pair", "only pairs"])
def test_a_batch_of_one_kind_has_no_gap_and_a_gradient_of_zero(same: torch.Tensor) -> None:
    values = logits(6).requires_grad_()
    loss = gap_privacy(values, same)
    loss.backward()
    assert loss.item() == 0
    assert values.grad is not None
    assert torch.count_nonzero(values.grad) == 0


def test_pairs_that_are_all_alike_have_a_finite_gap() -> None:
    values = SAME.double().requires_grad_()
    loss = gap_privacy(values, SAME)
    loss.backward()
    assert loss.isfinite()
    assert values.grad is not None
    assert values.grad.isfinite().all()


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
    "gap": (gap_privacy, (6,), (SAME,)),
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
