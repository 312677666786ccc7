"""Where randomness comes from: one seed, and words that say what it is used for.

No global state is read. Two uses with different words are independent; the same words give the
same numbers on every machine and after every restart.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["derive", "generator", "initialising", "numpy_generator"]


def derive(seed: int, *words: str | int) -> int:
    """Give the seed, in [0, 2⁶³), for the use that ``words`` name."""
    text = json.dumps([seed, *words]).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8]) >> 1


def generator(seed: int, *words: str | int, device: str | torch.device = "cpu") -> torch.Generator:
    """Give a torch generator for the use that ``words`` name."""
    return torch.Generator(device).manual_seed(derive(seed, *words))


def numpy_generator(seed: int, *words: str | int) -> np.random.Generator:
    """Give a NumPy generator for the use that ``words`` name."""
    return np.random.Generator(np.random.PCG64(derive(seed, *words)))


@contextmanager
def initialising(seed: int, *words: str | int) -> Iterator[None]:
    """Within the block, networks built on the CPU get the weights that ``words`` stand for.

    torch draws initial weights from its global state only: that is seeded here, and put back
    afterwards.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(seed, *words))
        yield
