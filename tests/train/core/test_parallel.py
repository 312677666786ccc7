"""Several processes: together they compute what one computes alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from prichexy_testing import torchrun as launcher
from prichexy_testing.torchrun import torchrun
from prichexy_testing.training import fit_line, losses, training
from prichexy_train.parallel import (
    Process,
    average_gradients,
    broadcast,
    connected,
    gather_rows,
    share,
    sum_values,
    synchronise_batch_norms,
    this_process,
    whether_any,
)

PROGRAM = Path(launcher.__file__).with_name("parallel_program.py")


def test_two_processes_compute_what_one_computes_alone(tmp_path: Path) -> None:
    """Statistics, gradients, losses of the whole batch, and a loop that is stopped and goes on."""
    done = torchrun(PROGRAM, tmp_path / "two")

    assert done.returncode == 0, done.stderr
    history, last = done.stdout.splitlines()
    assert last == "all checks passed"
    alone, _ = fit_line(tmp_path / "one", training(epochs=3, batch_size=10, optimizer="sgd"))
    for entry, expected in zip(json.loads(history), losses(alone.history), strict=True):
        assert entry[1]["loss"] == pytest.approx(expected[1]["loss"], rel=1e-4)
        assert entry[2] == pytest.approx(expected[2], rel=1e-4)


def test_one_process_alone_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    values = torch.randn(3, 2)

    with connected() as process:
        assert process == this_process() == Process(0, 1)
        synchronise_batch_norms(network)
        assert type(network[1]) is nn.BatchNorm2d
        average_gradients(network)
        assert gather_rows(values) is values
        assert broadcast({"a": 1}) == {"a": 1}
        assert whether_any((True, False)) == (True, False)
        assert sum_values([1.0]) == [1.0]
        assert share(np.arange(5), process).tolist() == [0, 1, 2, 3, 4]


def test_shares_are_even_and_leave_out_no_more_than_they_must() -> None:
    rows = np.arange(100, 111)

    shares = [share(rows, Process(rank, 4)) for rank in range(4)]

    assert [len(one) for one in shares] == [2, 2, 2, 2]
    assert sorted(np.concatenate(shares)) == list(range(100, 108))
