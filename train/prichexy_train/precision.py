"""Where a network computes and how exactly: device, precision, memory format, compilation."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from prichexy_train.errors import Misconfigured
from prichexy_train.settings import Training

__all__ = ["Computing", "choose_device", "device_name"]

Network = TypeVar("Network", bound=nn.Module)


def choose_device(name: str) -> torch.device:
    """Give the device of a setting: "auto", "cpu", "cuda" or "cuda:N".

    "auto" is a GPU where there is one. Under torchrun each process takes the GPU of its local
    rank, unless the setting names one. Raises Misconfigured when the device is absent.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    device = torch.device(name)
    if device.type == "cuda":
        if not torch.cuda.is_available() or device.index >= torch.cuda.device_count():
            raise Misconfigured(f"device {name}: there is no such GPU here; use cpu or auto")
        torch.cuda.set_device(device)
    return device


def device_name(device: torch.device) -> str:
    """Give what the device is called, for people."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


@dataclass(frozen=True, slots=True)
class Computing:
    """How networks compute: on which device, and what the settings say beyond it."""

    training: Training
    device: torch.device

    @classmethod
    def of(cls, training: Training) -> Computing:
        """Give what the settings say. Raises Misconfigured when the device is absent."""
        return cls(training, choose_device(training.device))

    def prepare(self, network: Network) -> Network:
        """Put ``network`` on the device, in the memory format of the settings; gives it back."""
        network.to(self.device)
        if self.training.channels_last:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return network

    def compile(self, module: nn.Module) -> None:
        """Compile calls of ``module``, in place, where the settings say so.

        Its names and weights stay as they are. Only calls: another method than ``forward`` is not
        compiled, so give the part that does the work.
        """
        if self.training.compile:
            module.compile()

    def autocast(self) -> AbstractContextManager[object]:
        """Give the context for a forward pass in the settings' precision.

        Losses, and what else needs single precision, belong outside.
        """
        return torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.training.precision == "bfloat16"
        )
