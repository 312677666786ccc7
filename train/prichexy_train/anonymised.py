"""Anonymised images on disk: made once by a method, read as often as attackers want them.

A folder holds ``images.npy`` (float16, one row an image), ``indices.npy`` (which images of the
pool the rows are) and ``anonymised.json`` (of what, by what, how far, with digests).
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prichexy_model.methods import Deforming
from prichexy_train.checkpoints import write_whole
from prichexy_train.data.images import HalfImages, Images
from prichexy_train.data.pool import Pool
from prichexy_train.errors import Damaged, Diverged, Misconfigured
from prichexy_train.locks import held
from prichexy_train.methods_from import ChosenMethod
from prichexy_train.randomness import generator

__all__ = ["AnonymisedImages", "NotInTime", "anonymise", "displacements", "image_ids"]

_VERSION: Final = 1
#: Rows that are written, digested and, after a kill, made again together.
_BLOCK: Final = 256


class NotInTime(Exception):
    """The deadline came before the last image; what was made is kept for the next call."""


class AnonymisedImages:
    """Anonymised images by the index that the real ones have in their pool."""

    def __init__(self, folder: str | Path) -> None:
        """Open a finished folder. Raises Damaged when it is not finished or not such a folder."""
        self.folder = Path(folder)
        about = _read(self.folder / "anonymised.json")
        if len(about["blocks"]) != _blocks(about["rows"]):
            raise Damaged(f"{folder}: is not finished; run what makes it again")
        self._stored = HalfImages(self.folder / "images.npy")
        indices = np.load(self.folder / "indices.npy", allow_pickle=False)
        if len(indices) != len(self._stored):
            raise Damaged(f"{folder}: images.npy and indices.npy are of different lengths")
        self._row = np.full(about["images"], -1, dtype=np.int64)
        self._row[indices] = np.arange(len(indices))
        #: The SHA-256 of all values.
        self.digest: str = about["digest"]

    def __len__(self) -> int:
        """Give the number of images of the pool, whether anonymised or not."""
        return len(self._row)

    @property
    def size(self) -> int:
        """Give rows and columns."""
        return self._stored.size

    def holds(self, indices: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Say for each index of the pool whether its anonymised image is here."""
        held: NDArray[np.bool_] = self._row[indices] >= 0
        return held

    def gather(self, indices: NDArray[np.int64]) -> Tensor:
        """Give these images, float32 (B, 1, size, size) in [0, 1], in this order, on the CPU.

        Raises IndexError for an image that was not anonymised.
        """
        if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < len(self):
            raise IndexError(f"there are images 0 to {len(self) - 1}")
        rows = self._row[indices]
        if (rows < 0).any():
            absent = int(indices[np.argmin(rows)])
            raise IndexError(f"{self.folder}: image {absent} was not anonymised")
        return self._stored.gather(rows)


def image_ids(pool: Pool) -> list[str]:
    """Give a name of each image of the pool that no other image has: set and image id."""
    return [f"{one.name}/{image.image_id}" for one in pool.catalogues for image in one.images]


def anonymise(
    pool: Pool,
    indices: NDArray[np.int64],
    chosen: ChosenMethod,
    seed: int,
    folder: str | Path,
    *,
    draw: int = 0,
    device: torch.device | str = "cpu",
    batch_size: int = 32,
    deadline: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> AnonymisedImages:
    """Give the images at ``indices`` anonymised, from ``folder``, where they are made if need be.

    Each image has a random generator of its own, derived from ``seed`` and its id, so it does not
    depend on which others are made, nor in what order; and another one for each ``draw``, for what
    a random method makes of it another time. In float32 throughout, as the gateway's
    worker computes. What is there already is not made again; another process that is at it is
    waited for.

    Raises NotInTime past ``deadline``, a value of ``clock``; the same call goes on from there.
    Raises Misconfigured when the folder holds other images, another method's, or another seed's,
    and when the method does not take images of this size; Diverged when what it makes is not
    finite. The method must be on ``device``.
    """
    folder = Path(folder)
    indices = np.unique(indices).astype(np.int64)
    if chosen.size not in {None, pool.images.size}:
        raise Misconfigured(
            f"{chosen.name}: takes images of {chosen.size} pixels, and the prepared ones have "
            f"{pool.images.size}"
        )
    of = {
        "method": chosen.of.digest,
        "seed": seed,
        "data": pool.digest,
        "indices": hashlib.sha256(indices.tobytes()).hexdigest(),
    }
    if draw:
        of["draw"] = draw
    with held(folder / ".lock", wait=True):
        about = _begin(folder, of, chosen, pool, indices)
        if len(about["blocks"]) < _blocks(len(indices)):
            make = _Maker(pool.images, image_ids(pool), chosen, seed, draw, torch.device(device))
            _fill(folder, about, indices, make, batch_size, deadline, clock)
    return AnonymisedImages(folder)


def displacements(
    pool: Pool,
    indices: NDArray[np.int64],
    chosen: ChosenMethod,
    seed: int,
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 32,
) -> Iterator[Tensor]:
    """Give the displacements (B, 2, size, size) of images of the pool, some at a time.

    Those by which ``anonymise`` with the same seed, draw 0, deforms them. Raises Misconfigured
    for a method that is no deformation.
    """
    if not isinstance(chosen.method, Deforming):
        raise Misconfigured(f"{chosen.name}: is no deformation")
    make = _Maker(pool.images, image_ids(pool), chosen, seed, 0, torch.device(device))
    for start in range(0, len(indices), batch_size):
        rows = indices[start : start + batch_size]
        with torch.inference_mode(), make.exact():
            images = pool.images.gather(rows).to(device)
            field = chosen.method.displacement(images, make.generators(rows))
        yield field


class _Maker:
    """Anonymises a few images of the pool, each with a generator of its own."""

    def __init__(
        self,
        images: Images,
        ids: Sequence[str],
        chosen: ChosenMethod,
        seed: int,
        draw: int,
        device: torch.device,
    ) -> None:
        self._images = images
        self._ids = ids
        self._chosen = chosen
        self._seed = seed
        self._draw = draw
        self._device = device

    def __call__(self, indices: NDArray[np.int64]) -> NDArray[np.float16]:
        with torch.inference_mode(), self.exact():
            images = self._images.gather(indices).to(self._device)
            try:
                made = self._chosen.method(images, self.generators(indices))
            except ValueError as error:
                raise Misconfigured(f"{self._chosen.name}: {error}") from error
            half: NDArray[np.float16] = made[:, 0].to("cpu", torch.float16).numpy()
        finite = np.isfinite(half).all(axis=(1, 2))
        if not finite.all():
            image = self._ids[indices[np.argmin(finite)]]
            raise Diverged(f"{self._chosen.name}: made something else than grey values of {image}")
        return half

    def generators(self, indices: NDArray[np.int64]) -> list[torch.Generator]:
        """Give the images' own generators."""
        words = (self._draw,) if self._draw else ()
        return [generator(self._seed, "anonymise", self._ids[index], *words) for index in indices]

    def exact(self) -> AbstractContextManager[Any]:
        """Forbid TF32, whose ten bits would move pixels, and algorithms that differ by run."""
        if self._device.type != "cuda":
            return nullcontext()
        flags: AbstractContextManager[Any] = torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        )
        return flags


def _begin(
    folder: Path,
    of: dict[str, Any],
    chosen: ChosenMethod,
    pool: Pool,
    indices: NDArray[np.int64],
) -> dict[str, Any]:
    """Give what ``anonymised.json`` says, and make the files of a folder that has none."""
    path = folder / "anonymised.json"
    if path.exists():
        about = _read(path)
        for word in sorted(of.keys() | about["of"].keys()):
            if about["of"].get(word) != of.get(word):
                raise Misconfigured(
                    f"{folder}: holds images of another {word}; remove it or name another folder"
                )
        return about
    shape = (len(indices), pool.images.size, pool.images.size)
    stored = np.lib.format.open_memmap(
        folder / "images.npy", mode="w+", dtype=np.float16, shape=shape
    )
    stored.flush()
    np.save(folder / "indices.npy", indices)
    about = {
        "version": _VERSION,
        "of": of,
        "method": chosen.of.model_dump(mode="json"),
        "images": len(pool),
        "rows": len(indices),
        "blocks": [],
        "digest": "",
    }
    _write(path, about)
    return about


def _fill(
    folder: Path,
    about: dict[str, Any],
    indices: NDArray[np.int64],
    make: _Maker,
    batch_size: int,
    deadline: float | None,
    clock: Callable[[], float],
) -> None:
    stored = np.load(folder / "images.npy", mmap_mode="r+", allow_pickle=False)
    for block in range(len(about["blocks"]), _blocks(len(indices))):
        if deadline is not None and clock() >= deadline:
            raise NotInTime
        first, last = block * _BLOCK, min((block + 1) * _BLOCK, len(indices))
        for start in range(first, last, batch_size):
            rows = slice(start, min(start + batch_size, last))
            stored[rows] = make(indices[rows])
        # On the disk before it is called done.
        stored.flush()
        about["blocks"].append(hashlib.sha256(stored[first:last].tobytes()).hexdigest())
        about["digest"] = hashlib.sha256("".join(about["blocks"]).encode()).hexdigest()
        _write(folder / "anonymised.json", about)


def _blocks(rows: int) -> int:
    return -(-rows // _BLOCK)


def _read(path: Path) -> dict[str, Any]:
    try:
        about = json.loads(path.read_bytes())
        if about["version"] != _VERSION:
            raise Damaged(f"{path}: was written by another version; remove its folder")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{path}: cannot be read: are these anonymised images?") from error
    values: dict[str, Any] = about
    return values


def _write(path: Path, about: dict[str, Any]) -> None:
    write_whole(path, (json.dumps(about, indent=1) + "\n").encode())
