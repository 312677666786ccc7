"""What test_parallel.py runs in two processes: each compares its share with the whole."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from prichexy_model.losses import verification_bce
from prichexy_model.verifier import SiameseVerifier
from prichexy_testing.training import Ticks, fit_line, losses, training
from prichexy_train.parallel import (
    average_gradients,
    broadcast,
    connected,
    gather_rows,
    same_weights,
    share,
    sum_values,
    synchronise_batch_norms,
    this_process,
    whether_any,
)
from prichexy_train.randomness import initialising


def network() -> nn.Sequential:
    with initialising(1):
        return nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.BatchNorm2d(3)
        ).double()


def check_batch_norm(rank: int, world: int) -> None:
    """Two steps of training, in which each output depends on every input of the batch."""
    whole, shared = network(), network()
    names = list(shared.state_dict())
    parameters = list(shared.parameters())
    synchronise_batch_norms(shared)
    assert list(shared.state_dict()) == names
    assert all(a is b for a, b in zip(parameters, shared.parameters(), strict=True))
    optimizers = [torch.optim.SGD(one.parameters(), lr=0.1) for one in (whole, shared)]
    source = torch.Generator().manual_seed(3)
    for _ in range(2):
        images = 3 + torch.randn(6, 2, 8, 8, generator=source, dtype=torch.float64)
        weights = torch.randn(6, 3, 4, 4, generator=source, dtype=torch.float64)
        for one, rows in ((whole, slice(None)), (shared, slice(rank, None, world))):
            one.zero_grad()
            (one(images[rows]).square() * weights[rows]).mean((1, 2, 3)).mean().backward()
        average_gradients(shared)
        for optimizer in optimizers:
            optimizer.step()
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(shared.state_dict()[name], value, msg=name)
    images = torch.randn(2, 2, 8, 8, generator=source, dtype=torch.float64)
    torch.testing.assert_close(shared.eval()(images), whole.eval()(images))


def check_gathering(rank: int, world: int) -> None:
    rows = torch.randn(6, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)

    def loss(embedded: torch.Tensor) -> torch.Tensor:
        return (embedded @ embedded.T).softmax(1).diagonal().log().sum()

    whole, part = nn.Linear(4, 3).double(), nn.Linear(4, 3).double()
    same_weights([whole])
    part.load_state_dict(whole.state_dict())
    loss(whole(rows)).backward()
    gathered = gather_rows(part(rows[rank::world]))
    torch.testing.assert_close(gathered, whole(rows))
    loss(gathered).backward()
    average_gradients(part)
    torch.testing.assert_close(part.weight.grad, whole.weight.grad)
    numbers = torch.arange(6)
    assert torch.equal(gather_rows(numbers[rank::world]), numbers)


def check_agreeing(rank: int) -> None:
    assert whether_any((rank == 1, False, True)) == (True, False, True)
    assert sum_values([rank + 1.0, 0.5]) == [3.0, 1.0]
    assert broadcast({"rank": rank}) == {"rank": 0}
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    nn.init.constant_(network[0].weight, rank)
    same_weights([network])
    assert network[0].weight.eq(0).all()


def check_sharing() -> None:
    assert (
        share(np.arange(6), this_process()).tolist()
        == [
            [0, 2, 4],
            [1, 3, 5],
        ][this_process().rank]
    )
    assert len(share(np.arange(5), this_process())) == 2
    assert len(share(np.arange(1), this_process())) == 0


def check_loop(folder: Path) -> None:
    """Several starts, of which each is stopped, and then the history of a single process."""
    settings = training(epochs=3, batch_size=10, optimizer="sgd", checkpoint_seconds=1e-9)
    folder.mkdir(exist_ok=True)
    starts = 0
    fitted = None
    while fitted is None or not fitted.finished:
        fitted, _ = fit_line(folder, settings, clock=Ticks(), deadline=20)
        starts += 1
    assert starts > 1
    if this_process().first:
        print(json.dumps(losses(fitted.history)))  # noqa: T201


def check_pairs(rank: int, world: int) -> None:
    """A step of the paper's verifier, whose backbone and batch norms are used twice in it."""
    with initialising(1):
        whole = SiameseVerifier("tiny", embedding=8, size=32)
    shared = copy.deepcopy(whole)
    synchronise_batch_norms(shared)
    source = torch.Generator().manual_seed(3)
    images = torch.rand(2, 6, 1, 32, 32, generator=source)
    same = torch.tensor([True, False] * 3)
    for one, rows in ((whole, slice(None)), (shared, slice(rank, None, world))):
        optimizer = torch.optim.SGD(one.parameters(), lr=0.1)
        for _ in range(2):
            one.zero_grad()
            verification_bce(one(images[0, rows], images[1, rows]), same[rows]).backward()
            if one is shared:
                average_gradients(one)
            optimizer.step()
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(shared.state_dict()[name], value, rtol=1e-4, atol=1e-5, msg=name)


with connected() as process:
    assert process.world == 2
    check_batch_norm(process.rank, process.world)
    check_pairs(process.rank, process.world)
    check_gathering(process.rank, process.world)
    check_agreeing(process.rank)
    check_sharing()
    check_loop(Path(sys.argv[1]))
    if process.first:
        print("all checks passed")  # noqa: T201
assert this_process().world == 1
