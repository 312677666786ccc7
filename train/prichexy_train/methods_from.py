"""A method of anonymisation from one line of text: what attackers and the classifier are given.

``real``                                   nothing is done
``dp-pix:b=4`` (``,eps=0.1``)              DP-Pix with cells of 4 pixels
``random:mu=0.01`` (``,border=paper``, ``,coarseness=8``)  a random smooth deformation
``run:FOLDER``                             what a run of ``pretrain`` or ``anonymizer`` trained
``bundle:FOLDER``                          the generator of a bundle
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from prichexy_model.anonymizer import Anonymizer
from prichexy_model.bundle import load_anonymizer
from prichexy_model.flow import BORDERS, Border
from prichexy_model.methods import Deformation, DPPix, Method, PrivacyNetMethod, RandomWarp, Real
from prichexy_model.multiscale import MultiscaleAnonymizer, MultiscaleDeformation
from prichexy_model.privacynet import PrivacyNet
from prichexy_model.weights import WeightsError
from prichexy_train import trained
from prichexy_train.errors import Damaged, Misconfigured
from prichexy_train.records import MethodOf
from prichexy_train.runs import RunFolder
from prichexy_train.stages.anonymizers import DeformationSettings, trained_network

__all__ = ["ChosenMethod", "method_from", "weights_digest"]


@dataclass(frozen=True, eq=False)
class ChosenMethod:
    """A method, ready to use on its device, and what identifies it.

    ``of.digest`` covers the settings and, where something was trained, every weight: two methods
    with one digest give the same images for the same seed. ``size`` is the rows and columns that
    it takes, None for any; ``run`` the folder of the run that trained it, if one did.
    """

    method: Method
    of: MethodOf
    size: int | None = None
    run: Path | None = None

    @property
    def name(self) -> str:
        """Give the method's name, on one line."""
        return self.of.name

    @property
    def anonymizer(self) -> Anonymizer | None:
        """Give the generator and its operator where the method is a trained deformation."""
        return self.method.anonymizer if isinstance(self.method, Deformation) else None


def method_from(text: str | Path, device: torch.device | str = "cpu") -> ChosenMethod:
    """Give the method that ``text`` names, its network, if any, in eval mode on ``device``.

    The folder of a run is understood without ``run:``, too. Raises Misconfigured when the text
    names no method, Damaged when a run or bundle cannot be read.
    """
    text = str(text)
    kind, _, rest = text.partition(":")
    if kind == "run" and rest:
        return _of_run(Path(rest), device)
    if kind == "bundle" and rest:
        return _of_bundle(Path(rest), device)
    if kind in _PLAIN:
        return _plain(text, kind, rest)
    if RunFolder(text).settings_file.is_file():
        return _of_run(Path(text), device)
    raise Misconfigured(
        f"{text}: is no method; give real, dp-pix:b=4, random:mu=0.01, run:FOLDER or bundle:FOLDER"
    )


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """Give the SHA-256 of named tensors: of their names, types, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name].detach().cpu().contiguous()
        digest.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _of_run(run: Path, device: torch.device | str) -> ChosenMethod:
    anonymizer, settings = trained.load_anonymizer(run)
    chosen = _trained(_on(device, anonymizer), settings.model_dump(mode="json"), settings.size)
    return replace(chosen, run=run)


def _of_bundle(folder: Path, device: torch.device | str) -> ChosenMethod:
    try:
        anonymizer, bundle = load_anonymizer(folder)
    except WeightsError as error:
        raise Damaged(str(error)) from error
    table: dict[str, Any] = {"size": bundle.input_size, "mu": bundle.mu, "border": bundle.border}
    if bundle.field_size is not None:
        table["field_size"] = bundle.field_size
    if isinstance(anonymizer, MultiscaleAnonymizer):
        table |= {"mu_coarse": anonymizer.mu_coarse, "cells": anonymizer.cells}
    settings = DeformationSettings.model_validate(table)
    values = settings.model_dump(mode="json")
    return _trained(_on(device, anonymizer), values, settings.size)


def _on(device: torch.device | str, network: nn.Module) -> nn.Module:
    network.requires_grad_(requires_grad=False).to(device)
    # Channels last runs a third faster on a CPU, and no slower on a GPU.
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _trained(anonymizer: nn.Module, settings: dict[str, Any], size: int) -> ChosenMethod:
    method: Method
    if isinstance(anonymizer, MultiscaleAnonymizer):
        method = MultiscaleDeformation(anonymizer)
    elif isinstance(anonymizer, Anonymizer):
        method = Deformation(anonymizer)
    elif isinstance(anonymizer, PrivacyNet):
        method = PrivacyNetMethod(anonymizer)
    else:
        raise TypeError(f"{type(anonymizer).__name__} is no anonymizer")
    weights = weights_digest(trained_network(anonymizer).state_dict())
    return ChosenMethod(method, _identified(method.name, settings, weights), size)


def _identified(name: str, settings: dict[str, Any], weights: str = "") -> MethodOf:
    text = json.dumps([name, settings, weights], sort_keys=True)
    return MethodOf(name=name, settings=settings, digest=hashlib.sha256(text.encode()).hexdigest())


def _plain(text: str, kind: str, rest: str) -> ChosenMethod:
    words = dict(part.partition("=")[::2] for part in rest.split(",") if part)
    values: dict[str, Any] = {}
    for key, (read, default) in _PLAIN[kind].items():
        word = words.pop(key, default)
        if word is None:
            raise Misconfigured(f"{text}: {kind} needs {key}=…")
        try:
            values[key] = read(word)
        except ValueError as error:
            raise Misconfigured(f"{text}: {key} cannot be {word}") from error
    if words:
        raise Misconfigured(f"{text}: {kind} knows no {', '.join(words)}")
    method: Method = Real()
    if kind == "dp-pix":
        method = DPPix(values["b"], values["eps"])
    elif kind == "random":
        method = RandomWarp(values["mu"], values["border"], values["coarseness"])
    return ChosenMethod(method, _identified(method.name, values))


def _count(word: str) -> int:
    number = int(word)
    if number < 1:
        raise ValueError("below 1")
    return number


def _positive(word: str) -> float:
    number = float(word)
    if not 0 < number < float("inf"):
        raise ValueError("not above 0")
    return number


def _mu(word: str) -> float:
    number = float(word)
    if not 0 <= number < 1:
        raise ValueError("not from 0 to below 1")
    return number


def _border(word: str) -> Border:
    if word not in BORDERS:
        raise ValueError("no border")
    return word


#: Of each method without weights: its keys, how each is read, and its value when left out.
_PLAIN: Final[Mapping[str, Mapping[str, tuple[Callable[[str], Any], str | None]]]] = {
    "real": {},
    "dp-pix": {"b": (_count, None), "eps": (_positive, "0.1")},
    "random": {
        "mu": (_mu, None),
        "border": (_border, "corrected"),
        "coarseness": (_count, "1"),
    },
}
