"""Rung 8: undoing the deformation first, by the public generator or by registration."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prichexy_model.flow import warp
from prichexy_model.multiscale import lift
from prichexy_model.preprocessing import resize
from prichexy_train.anonymised import NotInTime
from prichexy_train.attacks.comparison import OfVerifier, embed_rows
from prichexy_train.attacks.inversion import undeformed
from prichexy_train.attacks.registration import correlation, register
from prichexy_train.attacks.rung import (
    Attempt,
    NotApplicable,
    OfStrongVerifier,
    Rung,
    Scores,
    Workplace,
    strong_verifiers,
)
from prichexy_train.attacks.target import Target
from prichexy_train.checkpoints import write_whole
from prichexy_train.data.pairs import Pairs
from prichexy_train.errors import Damaged
from prichexy_train.trained import load_verifier

__all__ = ["Registered", "RegistrationResidual", "Undone"]

#: Pairs, or images, whose registration or undoing is kept on disk together.
_TOGETHER: Final = 256


class Undone(OfStrongVerifier):
    """The deformation estimated with the public generator and inverted, then a strong verifier."""

    number = 8
    name = "undone"
    rests_on = frozenset({"undone"})

    def seeds(self, target: Target) -> Sequence[int]:
        """Give one number a strong verifier.

        Raises NotApplicable without one, and where the method is no deformation by a generator.
        """
        if target.anonymizer is None:
            raise NotApplicable(f"{target.method.name} has no generator that proposes a field")
        return super().seeds(target)

    def attack(self, target: Target, workplace: Workplace) -> Attempt:
        """Undo, then score with the verifier of that number; see ``Rung``."""
        run = strong_verifiers(target)[workplace.seed - 1]
        comparator = OfVerifier(load_verifier(run).to(target.device))
        rows = np.unique(np.concatenate([pairs.first for pairs in target.scored.values()]))
        first = torch.cat(list(_undone(target, rows, workplace)))
        scores: dict[str, Scores] = {}
        for name, pairs in target.scored.items():
            a = first[_places(rows, pairs.first).to(first.device)]
            scores[name] = _compared(comparator, a, _second(comparator, target, pairs))
        return Attempt(scores, details={"verifier": run.name})


class Registered(OfStrongVerifier):
    """The first image registered to the second, then a strong verifier."""

    number = 8
    name = "registered"
    rests_on = frozenset({"registration-residual"})

    def attack(self, target: Target, workplace: Workplace) -> Attempt:
        """Register, then score with the verifier of that number; see ``Rung``."""
        run = strong_verifiers(target)[workplace.seed - 1]
        comparator = OfVerifier(load_verifier(run).to(target.device))
        scores: dict[str, Scores] = {}
        for name, pairs in target.scored.items():
            moved: list[Tensor] = []
            for part, control in _registrations(target, name, workplace):
                for start in range(0, len(part), target.settings.batch_size):
                    _in_time(workplace)
                    rows = slice(start, start + target.settings.batch_size)
                    images = target.first.gather(part.first[rows])
                    images = warp(images, lift(control[rows], images.shape[-1]))
                    moved.append(_embedded(comparator, images))
            second = _second(comparator, target, pairs)
            scores[name] = _compared(comparator, torch.cat(moved), second)
        return Attempt(scores, details={"verifier": run.name})


class RegistrationResidual(Rung):
    """How alike the pixels of both images are after registration; no network at all."""

    number = 8
    name = "registration-residual"

    def attack(self, target: Target, workplace: Workplace) -> Attempt:
        """Register, then correlate; see ``Rung``."""
        size = target.settings.registration.size
        scores: dict[str, Scores] = {}
        for name in target.scored:
            found: list[Tensor] = []
            for part, control in _registrations(target, name, workplace):
                first = resize(target.first.gather(part.first), size)
                second = resize(target.second.gather(part.second), size)
                found.append(correlation(warp(first, lift(control, size)), second))
            scores[name] = torch.cat(found).double().cpu().numpy()
        return Attempt(scores)


def _undone(target: Target, rows: NDArray[np.int64], workplace: Workplace) -> Iterator[Tensor]:
    """Give embeddings of the images before their deformation, some at a time.

    Those of the workplace's verifier. The generator, which is what takes time, is asked once for
    all verifiers: their embeddings are kept in the shared folder. Raises NotInTime.
    """
    folder = workplace.shared / "undone"
    folder.mkdir(parents=True, exist_ok=True)
    everyone: list[OfVerifier] = []
    for start in range(0, len(rows), _TOGETHER):
        path = folder / f"{start}.npz"
        if not path.is_file():
            _in_time(workplace)
            everyone = everyone or [
                OfVerifier(load_verifier(run).to(target.device)) for run in strong_verifiers(target)
            ]
            images = _undeformed(target, rows[start : start + _TOGETHER])
            embedded = {
                str(number): _embedded(one, images).cpu().numpy()
                for number, one in enumerate(everyone, start=1)
            }
            buffer = io.BytesIO()
            np.savez(buffer, **embedded)  # type: ignore[arg-type]
            write_whole(path, buffer.getbuffer())
        found = _load(path, str(workplace.seed))
        if len(found) != len(rows[start : start + _TOGETHER]):
            raise Damaged(f"{path}: is of other images; remove its folder")
        yield torch.from_numpy(found).to(target.device)


def _undeformed(target: Target, rows: NDArray[np.int64]) -> Tensor:
    settings, anonymizer = target.settings.undoing, target.anonymizer
    if anonymizer is None:
        raise NotApplicable("there is no generator")
    with torch.no_grad():
        return torch.cat(
            [
                undeformed(
                    target.first.gather(rows[start : start + target.settings.batch_size]),
                    anonymizer.displacement,
                    rounds=settings.rounds,
                    steps=settings.steps,
                )
                for start in range(0, len(rows), target.settings.batch_size)
            ]
        )


def _registrations(
    target: Target, name: str, workplace: Workplace
) -> Iterator[tuple[Pairs, Tensor]]:
    """Give a list's pairs, some at a time, with the control points that register them.

    Points that were found before are read from the shared folder. Raises NotInTime.
    """
    pairs, settings = target.scored[name], target.settings.registration
    folder = workplace.shared / "registrations" / name
    folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(pairs), _TOGETHER):
        part = pairs.take(np.arange(start, min(start + _TOGETHER, len(pairs))))
        path = folder / f"{start}.npy"
        if not path.is_file():
            _in_time(workplace)
            control = register(
                target.first.gather(part.first),
                target.second.gather(part.second),
                cells=settings.cells,
                size=settings.size,
                steps=settings.steps,
                rate=settings.rate,
                stiffness=settings.stiffness,
            )
            buffer = io.BytesIO()
            np.save(buffer, control.cpu().numpy())
            write_whole(path, buffer.getbuffer())
        found = _load(path)
        if found.shape != (len(part), 2, settings.cells, settings.cells):
            raise Damaged(f"{path}: is of other registrations; remove its folder")
        yield part, torch.from_numpy(found).to(target.device)


def _load(path: Path, name: str = "") -> NDArray[np.float32]:
    """Give a ``.npy`` file's values, or those of a name in an ``.npz`` file."""
    try:
        loaded = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
        values: NDArray[np.float32] = loaded[name] if name else loaded
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise Damaged(f"{path}: cannot be read ({error}); remove it") from error
    return values


def _second(comparator: OfVerifier, target: Target, pairs: Pairs) -> Tensor:
    rows = np.unique(pairs.second)
    batch_size = target.settings.batch_size
    embedded = embed_rows(comparator, target.second, rows, "second", batch_size)
    return embedded[_places(rows, pairs.second).to(embedded.device)]


def _embedded(comparator: OfVerifier, images: Tensor) -> Tensor:
    with torch.no_grad():
        return comparator.embed(images, "first")


def _compared(comparator: OfVerifier, a: Tensor, b: Tensor) -> Scores:
    with torch.no_grad():
        scores: Scores = comparator.compare(a, b).double().cpu().numpy()
    return scores


def _places(rows: NDArray[np.int64], wanted: NDArray[np.int64]) -> Tensor:
    return torch.from_numpy(np.searchsorted(rows, wanted))


def _in_time(workplace: Workplace) -> None:
    if workplace.late:
        raise NotInTime
