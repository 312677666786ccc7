"""Optimizers and learning rates as the settings say."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from prichexy_train.optimizers import Schedule, build_optimizer, descend
from prichexy_train.settings import Training


def rates(training: Training, steps: int = 10, monitored: tuple[float, ...] = ()) -> list[float]:
    """Give the rate of the first step of each epoch, after the validations so far."""
    optimizer = build_optimizer(nn.Linear(1, 1).parameters(), training)
    schedule = Schedule([optimizer], training, steps, "lower")
    found = []
    for epoch in range(training.epochs):
        schedule.before(epoch * steps + 1)
        found.append(optimizer.param_groups[0]["lr"])
        if epoch < len(monitored):
            schedule.after(monitored[epoch])
    return found


@pytest.mark.parametrize(
    ("words", "kind", "group"),
    [
        ({"optimizer": "adam"}, torch.optim.Adam, {"lr": 0.1, "weight_decay": 0.01}),
        ({"optimizer": "adamw"}, torch.optim.AdamW, {"lr": 0.1, "weight_decay": 0.01}),
        ({"optimizer": "sgd", "momentum": 0.8}, torch.optim.SGD, {"lr": 0.1, "momentum": 0.8}),
    ],
)
def test_the_optimizer_is_the_one_named(
    words: dict[str, Any], kind: type, group: dict[str, float]
) -> None:
    network = nn.Linear(2, 2)
    network.bias.requires_grad_(requires_grad=False)
    training = Training.model_validate({"learning_rate": 0.1, "weight_decay": 0.01, **words})

    optimizer = build_optimizer(network.parameters(), training)

    assert type(optimizer) is kind
    assert {key: optimizer.param_groups[0][key] for key in group} == group
    assert optimizer.param_groups[0]["params"] == [network.weight]


def test_a_constant_rate_stays() -> None:
    assert rates(Training(epochs=3, learning_rate=0.1)) == [0.1] * 3


def test_a_cosine_falls_from_the_rate_to_nothing() -> None:
    found = rates(Training(epochs=100, learning_rate=1.0, schedule="cosine"))

    assert found[0] == 1
    assert found[50] == pytest.approx(0.5)
    assert found[99] < 0.001
    assert found == sorted(found, reverse=True)


def test_the_rate_first_rises_over_the_warmup() -> None:
    training = Training(epochs=4, learning_rate=1.0, schedule="cosine", warmup_epochs=2)
    optimizer = build_optimizer(nn.Linear(1, 1).parameters(), training)
    schedule = Schedule([optimizer], training, 5, "lower")

    assert [schedule.factor(step) for step in range(1, 12)] == pytest.approx(
        [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1]
    )
    assert schedule.factor(20) < 0.05


def test_the_rate_falls_on_a_plateau_and_only_there() -> None:
    training = Training(epochs=8, learning_rate=1.0, schedule="plateau", plateau_patience=1)

    found = rates(training, monitored=(5, 4, 4, 4, 4, 3, 3, 3))

    assert found == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.1, 0.1])
    training = training.model_copy(update={"plateau_patience": 0})
    assert rates(training, monitored=(5, 4, 4, 4)) == pytest.approx(
        [1, 1, 1, 0.1, 0.01] + 3 * [0.01]
    )


def test_a_schedule_goes_on_from_its_state_and_that_of_its_optimizer() -> None:
    training = Training(epochs=8, learning_rate=1.0, schedule="plateau", plateau_patience=0)
    before = build_optimizer(nn.Linear(1, 1).parameters(), training)
    schedule = Schedule([before], training, 5, "higher")
    for value in (0.5, 0.6, 0.6):
        schedule.after(value)
    schedule.before(16)

    after = build_optimizer(nn.Linear(1, 1).parameters(), training)
    resumed = Schedule([after], training, 5, "higher")
    after.load_state_dict(before.state_dict())
    resumed.load_state_dict(schedule.state_dict())
    resumed.before(17)
    assert after.param_groups[0]["lr"] == pytest.approx(0.1)
    resumed.after(0.55)
    resumed.before(21)
    assert after.param_groups[0]["lr"] == pytest.approx(0.01)


def test_each_optimizer_keeps_its_own_rate() -> None:
    training = Training(epochs=2, learning_rate=1.0, schedule="cosine")
    optimizers = [
        build_optimizer(
            nn.Linear(1, 1).parameters(), training.model_copy(update={"learning_rate": rate})
        )
        for rate in (1.0, 0.01)
    ]
    Schedule(optimizers, training, 10, "lower").before(11)

    assert [one.param_groups[0]["lr"] for one in optimizers] == pytest.approx([0.5, 0.005])


def test_a_step_down_goes_down_and_no_further_than_the_clip() -> None:
    network = nn.Linear(3, 1, bias=False)
    nn.init.constant_(network.weight, 1.0)
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    network.weight.grad = torch.full((1, 3), 1e6)  # left behind by somebody else

    descend(network(torch.full((1, 3), 100.0)).sum(), network, optimizer, clip=0.5)

    moved = (1.0 - network.weight).detach()
    assert moved.norm() == pytest.approx(0.5)
    assert (moved > 0).all()
