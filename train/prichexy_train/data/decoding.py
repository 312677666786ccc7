"""From an image file to a square of grey: what one decoding process does.

Nothing here imports torch: these processes start in a moment and stay small.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import threading
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

__all__ = ["Decoder", "Row", "Undecodable", "decode", "end_with_parent", "recall", "work"]

#: Channels of a grey picture may differ by so much: a JPEG's rounding. More is colour.
_GREY: Final = 8
_ABSENT: Final = "No such file: fetch it"
_EIGHT_BIT: Final = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")


class Undecodable(Exception):
    """The file cannot be used; the text says why and what to do, without the file's name."""


class Row(NamedTuple):
    """What became of one image: the SHA-256 of its pixels in the cache, or else its problem.

    ``origin`` is the SHA-256 of the file's name and size, and of how it was decoded.
    """

    digest: bytes
    origin: bytes
    problem: str | None


def decode(path: Path, size: int, *, upscale: bool) -> NDArray[np.uint8]:
    """Give the image as (size, size), 0 black to 255 white, whatever its aspect ratio.

    Bilinear, with a kernel as wide as the reduction: the resize of what workers show the
    generator, rounded to whole grey levels once, at the end. Grey pictures stored with three or
    four channels are taken as grey; an alpha channel is not looked at.

    Raises Undecodable for a file that is absent, truncated or no PNG or JPEG, for colour, for
    more than 8 bits a pixel, and for an image smaller than ``size`` unless ``upscale``.
    """
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            if not upscale and min(image.size) < size:
                raise Undecodable(
                    f"Smaller than {size} pixels: set a smaller size, or upscale = true"
                )
            image.load()
            grey = _grey(image)
    except FileNotFoundError as error:
        raise Undecodable(_ABSENT) from error
    except UnidentifiedImageError as error:
        raise Undecodable("No PNG or JPEG file, or its beginning is damaged: fetch it") from error
    except Image.DecompressionBombError as error:
        raise Undecodable("Too many pixels for a radiograph: look at the file") from error
    except (OSError, SyntaxError, ValueError, EOFError, zlib.error) as error:
        raise Undecodable("Truncated or damaged: fetch it again") from error
    # In float: Pillow's 8-bit resize rounds between its two passes, up to one level off.
    resized = grey.convert("F").resize((size, size), Image.Resampling.BILINEAR)
    levels: NDArray[np.uint8] = np.rint(np.asarray(resized)).clip(0, 255).astype(np.uint8)
    return levels


def _grey(image: Image.Image) -> Image.Image:
    if image.mode not in _EIGHT_BIT:
        raise Undecodable(
            f"Not 8-bit grey but {image.mode}: convert it, with the window that shows it best"
        )
    if image.mode in ("1", "L"):
        return image.convert("L")
    if image.mode == "LA":
        return image.getchannel("L")
    colours = image.convert("RGB")
    red, green, blue = (np.asarray(channel, np.int16) for channel in colours.split())
    if max(np.abs(red - green).max(), np.abs(green - blue).max()) > _GREY:
        raise Undecodable("In colour: no radiograph as it was taken; convert or remove it")
    return colours.convert("L")


@dataclass(frozen=True)
class Decoder:
    """How a cache is filled: from files below ``source`` into the rows of ``cache``."""

    source: Path
    cache: Path
    size: int
    upscale: bool

    def fill(
        self, start: int, paths: Sequence[str], known: Sequence[tuple[bytes, bytes]]
    ) -> list[Row]:
        """Decode ``paths`` into the rows from ``start``, and say what became of each.

        A row that still has the digest ``known`` of it, from the origin known of it, is left as it
        is: then nothing is decoded.
        """
        rows = np.load(self.cache, mmap_mode="r+", allow_pickle=False)[start : start + len(paths)]
        return [
            self._one(row, path, *before)
            for row, path, before in zip(rows, paths, known, strict=True)
        ]

    def _one(self, row: NDArray[np.uint8], path: str, digest: bytes, origin: bytes) -> Row:
        file = self.source / path
        try:
            here = self._origin(path, file.stat().st_size)
            if here == origin and _digest(row) == digest:
                return Row(digest, origin, None)
            row[:] = decode(file, self.size, upscale=self.upscale)
        except FileNotFoundError:
            return Row(bytes(32), bytes(32), _ABSENT)
        except Undecodable as problem:
            return Row(bytes(32), bytes(32), str(problem))
        return Row(_digest(row), here, None)

    def _origin(self, path: str, file_bytes: int) -> bytes:
        # A setting that only turns files away is part of it, so that they are looked at again.
        return hashlib.sha256(f"{path} {file_bytes} {self.upscale}".encode()).digest()


def _digest(row: NDArray[np.uint8]) -> bytes:
    return hashlib.sha256(row.data).digest()


_decoder: Decoder | None = None


def recall(decoder: Decoder) -> None:
    """Begin a decoding process: with this decoder, until the parent ends."""
    global _decoder  # noqa: PLW0603 - a process has one, handed over when it starts
    _decoder = decoder
    # The parent is told of Ctrl-C, too, and ends the processes in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()


def work(task: tuple[int, Sequence[str], Sequence[tuple[bytes, bytes]]]) -> list[Row]:
    """Fill some rows in a process that ``recall`` began."""
    if _decoder is None:
        raise RuntimeError("the process was not begun with recall")
    return _decoder.fill(*task)


def end_with_parent() -> None:
    """End this process as soon as its parent has: a killed parent cannot say goodbye."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
