"""What test_adversarial_step.py runs in two processes: each plays its share, and the whole."""

from __future__ import annotations

from contextlib import nullcontext

import torch

from prichexy_testing.tiny_players import batches, players
from prichexy_train.parallel import connected, synchronise_batch_norms
from prichexy_train.stages.adversarial_step import (
    Batch,
    Objective,
    Optimizers,
    Players,
    adversarial_step,
)


def descent(networks: Players) -> Optimizers:
    """Give plain descent: Adam would make a step of a rounding error."""
    one, *several, last = (
        torch.optim.SGD(network.parameters(), lr=0.1)
        for network in (networks.anonymizer, *networks.critics)
    )
    return Optimizers(one, several, last)


def check(rank: int, world: int, objective: Objective, *, partly: bool = False) -> None:
    whole, shared = players(verifiers=2), players(verifiers=2)
    for network in (shared.anonymizer, *shared.critics):
        synchronise_batch_norms(network)
    both = [
        (whole, descent(whole), slice(None)),
        (shared, descent(shared), slice(rank, None, world)),
    ]
    for batch in batches(3):
        # Of the six images' labels the processes know more and less.
        known = torch.arange(batch.labels.numel()).reshape(batch.labels.shape) > 4
        for networks, optimizers, rows in both:
            part = Batch(
                batch.first[rows],
                batch.second[rows],
                batch.same[rows],
                batch.labels[rows],
                known[rows] if partly else None,
            )
            adversarial_step(networks, optimizers, part, objective, nullcontext)
    for one, other in zip(
        (whole.anonymizer, *whole.critics), (shared.anonymizer, *shared.critics), strict=True
    ):
        for name, value in one.state_dict().items():
            torch.testing.assert_close(other.state_dict()[name], value, rtol=0, atol=TOLERANCE)


#: Gradients and statistics are sums over the processes, in another order than one process's.
TOLERANCE = 1e-9

with connected() as process:
    assert process.world == 2
    check(process.rank, process.world, Objective())
    check(process.rank, process.world, Objective(privacy="rank"))
    check(process.rank, process.world, Objective(), partly=True)
    if process.first:
        print("all checks passed")  # noqa: T201
