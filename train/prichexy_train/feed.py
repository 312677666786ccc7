"""Images where they are computed on: held in the GPU's memory whole, when they fit."""

from __future__ import annotations

import math
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prichexy_train.data.images import Images

__all__ = ["Feed", "Gathers", "stored_exactly"]

#: The part of the free memory that images may take; networks and activations need the rest.
_PART: Final = 0.5
#: Images copied at a time.
_AT_ONCE: Final = 1024


class Gathers(Protocol):
    """What images are looked up in, as they lie on a device."""

    def gather(self, rows: NDArray[np.int64]) -> Tensor:
        """Give these images, float32 (B, 1, size, size) in [0, 1], on the device."""
        ...


class Feed:
    """Some images on a device.

    With ``hold``, on a GPU with room for them, all are copied there once, in the smallest type
    that keeps them exactly (uint8 for the cache of radiographs, float16 for anonymised ones), and
    steps wait for no copy. Otherwise each batch is read and sent when it is asked for.
    """

    def __init__(
        self,
        images: Images,
        device: torch.device,
        rows: NDArray[np.int64] | None = None,
        *,
        hold: bool = True,
    ) -> None:
        """Offer the images numbered ``rows``, all without it; no others may be asked for."""
        self.device = device
        self.size = images.size
        self._images = images
        self._stored: Tensor | None = None
        if hold and device.type == "cuda":
            rows = np.arange(len(images)) if rows is None else np.unique(rows)
            free, _ = torch.cuda.mem_get_info(device)
            self._stored = stored_exactly(images, rows, device, room=int(_PART * free))
            self._places = np.full(len(images), -1, dtype=np.int64)
            self._places[rows] = np.arange(len(rows))

    @property
    def held(self) -> bool:
        """Whether the images lie in the device's memory."""
        return self._stored is not None

    def gather(self, rows: NDArray[np.int64]) -> Tensor:
        """Give these images, float32 (B, 1, size, size) in [0, 1], on the device.

        Raises IndexError for an image that was not offered.
        """
        if self._stored is None:
            return self._images.gather(rows).to(self.device, non_blocking=True)
        places = self._places[rows]
        if len(places) and places.min() < 0:
            raise IndexError("an image is asked for that was not offered")
        chosen = self._stored[torch.from_numpy(places).to(self.device, non_blocking=True)]
        return _restored(chosen)


def stored_exactly(
    images: Images, rows: NDArray[np.int64], device: torch.device, *, room: int
) -> Tensor | None:
    """Give these images on the device in the smallest type that keeps every one of them exactly.

    uint8 (255 is 1), float16 or float32, (n, 1, size, size). None when that takes more than
    ``room`` bytes.
    """
    shape = (len(rows), 1, images.size, images.size)
    for dtype in (torch.uint8, torch.float16, torch.float32):
        if math.prod(shape) * dtype.itemsize > room:
            return None
        stored = torch.empty(shape, dtype=dtype, device=device)
        if all(
            _store(stored[start : start + _AT_ONCE], images.gather(rows[start : start + _AT_ONCE]))
            for start in range(0, len(rows), _AT_ONCE)
        ):
            return stored
        del stored
    return None


def _store(place: Tensor, images: Tensor) -> bool:
    """Put ``images`` there and say whether they come back the same."""
    narrow = (images * 255).round() if place.dtype == torch.uint8 else images
    narrow = narrow.to(place.dtype)
    place.copy_(narrow)
    return torch.equal(_restored(narrow), images)


def _restored(stored: Tensor) -> Tensor:
    values = stored.to(torch.float32)
    return values.div_(255) if stored.dtype == torch.uint8 else values
