"""Device, precision, memory format and compilation, each by its setting."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from prichexy_train.errors import Misconfigured
from prichexy_train.precision import Computing, choose_device, device_name
from prichexy_train.settings import Training

CPU = torch.device("cpu")


def test_auto_is_the_processor_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    assert choose_device("auto") == CPU
    assert device_name(choose_device("cpu")) == "CPU"
    for name in ("cuda", "cuda:1"):
        with pytest.raises(Misconfigured, match="no such GPU here; use cpu or auto"):
            choose_device(name)


def test_every_process_takes_the_gpu_of_its_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    monkeypatch.setenv("LOCAL_RANK", "2")

    assert choose_device("auto") == torch.device("cuda:2")
    assert choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(Misconfigured, match="cuda:4"):
        choose_device("cuda:4")


@pytest.mark.parametrize(("precision", "kind"), [
    ("float32", torch.float32), ("bfloat16", torch.bfloat16)
])  # fmt: skip
def test_networks_run_in_the_precision_of_the_settings(precision: str, kind: torch.dtype) -> None:
    computing = Computing(Training.model_validate({"precision": precision}), CPU)
    network = computing.prepare(nn.Conv2d(1, 2, 3))

    with computing.autocast():
        found = network(torch.rand(1, 1, 8, 8))

    assert found.dtype == kind
    assert network.weight.dtype == torch.float32


@pytest.mark.parametrize("wanted", [True, False])
def test_weights_lie_in_the_memory_format_of_the_settings(wanted: bool) -> None:
    network = Computing(Training(channels_last=wanted), CPU).prepare(nn.Conv2d(4, 2, 3))

    assert network.weight.is_contiguous(memory_format=torch.channels_last) == wanted


def test_compiling_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []

    def record(network: nn.Module) -> None:
        compiled.append(network)

    monkeypatch.setattr(nn.Linear, "compile", record)
    network = nn.Linear(1, 1)

    Computing(Training(compile=False), CPU).compile(network)
    assert compiled == []
    Computing(Training(compile=True), CPU).compile(network)
    assert compiled == [network]
