"""Files that appear whole or not at all, and checkpoints among them."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from prichexy_train.errors import Damaged, Failed

__all__ = ["kept_as", "load_checkpoint", "save_checkpoint", "write_whole"]


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Put ``content`` at ``path``, on the disk when this returns; what was there is replaced.

    After a crash the old content stands there or the new, never a mixture. Raises Failed when
    the disk does not take it; the old content then still stands.
    """
    # Of this process alone: two may write the same report.
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise Failed(f"{path}: cannot be written ({error.strerror})") from error


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values to ``path``, whole or not at all. Raises Failed."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_whole(path, buffer.getbuffer())


def kept_as(
    precision: Literal["float32", "float16"], state: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Give a state dictionary with its numbers in that precision, counts as they are.

    A tensor with a number that float16 cannot hold stays in float32.
    """
    if precision == "float32":
        return dict(state)
    halved = {
        name: value.half() if value.is_floating_point() else value for name, value in state.items()
    }
    return {
        name: value if bool(value.isfinite().all()) else state[name]
        for name, value in halved.items()
    }


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Give what ``save_checkpoint`` wrote, tensors on the CPU.

    Raises Damaged when the file is missing, cut short, altered or not such a file. Nothing in it
    is executed.
    """
    try:
        content = path.read_bytes()
        # torch checks no sums: the zip archive that it writes has them.
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            broken = archive.testzip()
        if broken is not None:
            raise Damaged(f"{path}: is damaged (in {broken})")
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except OSError as error:
        raise Damaged(f"{path}: cannot be read ({error.strerror})") from error
    except (
        zipfile.BadZipFile,
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        KeyError,
        ValueError,
    ) as error:
        raise Damaged(f"{path}: is damaged or no checkpoint") from error
    if not isinstance(state, dict):
        raise Damaged(f"{path}: is no checkpoint")
    return state
