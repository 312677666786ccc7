"""Images by their index, as tensors: from the uint8 cache, from anonymised files, from several."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prichexy_train.data.problems import UnusableData

__all__ = ["CachedImages", "HalfImages", "Images", "JoinedImages"]


class Images(Protocol):
    """Square grey images of one size."""

    @property
    def size(self) -> int:
        """Give rows and columns."""
        ...

    def __len__(self) -> int:
        """Give the number of images."""
        ...

    def gather(self, indices: NDArray[np.int64]) -> Tensor:
        """Give these images, float32 (B, 1, size, size) in [0, 1] on the CPU, in this order.

        The tensor is a copy, the caller's to change. Raises IndexError for an index that is
        negative or too large.
        """
        ...


class _FileImages:
    """Images in one ``.npy`` file of shape (N, size, size), read as they are asked for.

    Pickles as its path, so that a worker process maps the same file and copies nothing.
    """

    _dtype: type[np.generic]

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._stored = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UnusableData(
                f"{path}: cannot be read as images; prepare again ({error})"
            ) from error
        shape = self._stored.shape
        if self._stored.dtype != self._dtype or len(shape) != 3 or shape[1] != shape[2]:
            raise UnusableData(
                f"{path}: holds {self._stored.dtype} of shape {shape}, "
                f"not {np.dtype(self._dtype)} of (images, size, size)"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._path,)

    def __len__(self) -> int:
        return len(self._stored)

    @property
    def size(self) -> int:
        return int(self._stored.shape[1])

    def _take(self, indices: NDArray[np.int64]) -> Tensor:
        _check(indices, len(self))
        return torch.from_numpy(np.asarray(self._stored[indices]))[:, None]


class CachedImages(_FileImages):
    """The cache of ``prichexy-train prepare``: uint8, 0 black to 255 white."""

    _dtype = np.uint8

    def gather(self, indices: NDArray[np.int64]) -> Tensor:
        """Give these images; see ``Images``."""
        return self._take(indices).to(torch.float32).div_(255)


class HalfImages(_FileImages):
    """Anonymised images: float16 in [0, 1]."""

    _dtype = np.float16

    def gather(self, indices: NDArray[np.int64]) -> Tensor:
        """Give these images; see ``Images``."""
        return self._take(indices).to(torch.float32)


class JoinedImages:
    """Several sets' images one after the other. Raises UnusableData where their sizes differ."""

    def __init__(self, parts: Sequence[Images]) -> None:
        sizes = sorted({part.size for part in parts})
        if len(sizes) != 1:
            raise UnusableData(
                f"images of {' and '.join(map(str, sizes)) or 'no'} pixels a side cannot be "
                "joined; prepare all sets with one size"
            )
        self._parts = tuple(parts)
        self._starts = np.cumsum([0, *(len(part) for part in parts)])

    def __len__(self) -> int:
        """Give the number of images."""
        return int(self._starts[-1])

    @property
    def size(self) -> int:
        """Give rows and columns."""
        return self._parts[0].size

    def gather(self, indices: NDArray[np.int64]) -> Tensor:
        """Give these images; see ``Images``."""
        _check(indices, len(self))
        part_of = np.searchsorted(self._starts, indices, side="right") - 1
        gathered = torch.empty((len(indices), 1, self.size, self.size))
        for number in np.unique(part_of):
            rows = np.flatnonzero(part_of == number)
            found = self._parts[number].gather(indices[rows] - self._starts[number])
            gathered[torch.from_numpy(rows)] = found
        return gathered


def _check(indices: NDArray[np.int64], length: int) -> None:
    """Raise IndexError where NumPy would count from the end or fail in the middle."""
    if len(indices) and (int(indices.min()) < 0 or int(indices.max()) >= length):
        raise IndexError(f"there are images 0 to {length - 1}")
