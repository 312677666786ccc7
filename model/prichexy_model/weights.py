"""State dictionaries on disk: half precision, tensors only, known by their SHA-256 digest."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

__all__ = ["WeightsError", "load_weights", "save_weights"]

_DIGEST = re.compile(r"[0-9a-f]{64}")


class WeightsError(Exception):
    """The weights cannot be used; the text names the file and what is wrong with it."""


def load_weights(path: str | Path, digest: str) -> dict[str, Tensor]:
    """Give the tensors of the file at ``path`` by name, on the CPU, half precision as float32.

    The file's SHA-256 must be ``digest`` (64 lower-case hexadecimal digits): that is checked
    first, on the very bytes that are read afterwards, and those may hold tensors only. Raises
    WeightsError otherwise, and when a value is not finite.
    """
    path = Path(path)
    if not _DIGEST.fullmatch(digest):
        raise WeightsError(f"{path}: no valid SHA-256 digest is given for it")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise WeightsError(f"{path}: its SHA-256 is not {digest}: damaged, or another file")
    try:
        loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        raise WeightsError(f"{path}: is no file of tensors that torch can load safely") from error
    if not isinstance(loaded, Mapping) or not loaded:
        raise WeightsError(f"{path}: holds no state dictionary")
    return {name: _restored(path, name, value) for name, value in loaded.items()}


def save_weights(path: str | Path, tensors: Mapping[str, Tensor]) -> str:
    """Write ``tensors`` to ``path``, floating ones in half precision, and give the file's SHA-256.

    The file appears whole or not at all. The same tensors give the same bytes with the same
    version of torch. Raises WeightsError for a value that half precision cannot hold.
    """
    path = Path(path)
    halved = {name: _halved(path, name, value) for name, value in tensors.items()}
    # Through memory: torch writes a file's own name into it, and the digest would depend on it.
    buffer = io.BytesIO()
    torch.save(halved, buffer)
    content = buffer.getvalue()
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise WeightsError(f"{path}: cannot be written ({error.strerror})") from error
    return hashlib.sha256(content).hexdigest()


def _halved(path: Path, name: str, value: Tensor) -> Tensor:
    # A clone: a view would drag the whole storage that it looks into onto the disk.
    value = value.detach().to("cpu").clone(memory_format=torch.contiguous_format)
    if not value.is_floating_point():
        return value
    half = value.to(torch.float16)
    if not half.isfinite().all():
        raise WeightsError(f"{path}: {name} holds a value that half precision cannot hold")
    return half


def _restored(path: Path, name: object, value: object) -> Tensor:
    if not isinstance(name, str) or not isinstance(value, Tensor):
        raise WeightsError(f"{path}: holds something other than named tensors")
    if not value.is_floating_point():
        return value
    if not value.isfinite().all():
        raise WeightsError(f"{path}: {name} holds a value that is not finite")
    return value.to(torch.float32)
