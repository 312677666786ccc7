"""The cache of all images: one uint8 file, filled once, in parallel, and taken up after a kill."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from tqdm import tqdm

from prichexy_train.data.decoding import Decoder, Row, recall, work
from prichexy_train.data.problems import Problems, UnusableData

__all__ = ["DIGESTS", "fill_cache", "rows_digest"]

#: Beside the images: the digest of each row, and of where it came from.
DIGESTS: Final = "images.digests.npy"
_ROW: Final = np.dtype([("digest", np.uint8, 32), ("origin", np.uint8, 32)])
#: Images that a process decodes at a time.
_AT_A_TIME: Final = 64


def fill_cache(
    cache: Path,
    source: Path,
    paths: Sequence[str],
    size: int,
    problems: Problems,
    *,
    upscale: bool,
    jobs: int,
    progress: bool,
) -> NDArray[np.uint8]:
    """Make ``cache`` hold all images in their order, and give their digests, (images, 32).

    Whatever an earlier call left there and is still right is kept, so a call that was killed is
    taken up by the next. A file that cannot be used goes to ``problems``, and the others are
    decoded all the same. Raises UnusableData where the disk has no room, and where ``cache`` was
    begun for another number or size of images.
    """
    records = _open(cache, (len(paths), size, size))
    decoder = Decoder(source, cache, size, upscale)
    known = [(record["digest"].tobytes(), record["origin"].tobytes()) for record in records]
    starts = range(0, len(paths), _AT_A_TIME)
    chunks = [slice(start, start + _AT_A_TIME) for start in starts]
    tasks = [(chunk.start, paths[chunk], known[chunk]) for chunk in chunks]
    bar = tqdm(total=len(paths), unit="image", desc="decoding", disable=None if progress else True)
    with bar, _results(decoder, tasks, min(jobs, max(len(tasks), 1))) as results:
        for start, rows in zip(starts, results, strict=True):
            _note(records, start, rows, paths, problems)
            bar.update(len(rows))
    records.flush()
    digests: NDArray[np.uint8] = np.array(records["digest"])
    return digests


def rows_digest(digests: NDArray[np.uint8]) -> str:
    """Give one SHA-256 over the digests of all rows, in their order."""
    return hashlib.sha256(digests.tobytes()).hexdigest()


def _note(
    records: NDArray[Any], start: int, rows: list[Row], paths: Sequence[str], problems: Problems
) -> None:
    for number, row in enumerate(rows, start=start):
        records[number] = np.frombuffer(row.digest + row.origin, _ROW)[0]
        if row.problem is not None:
            problems.add(row.problem, paths[number])


@contextmanager
def _results(decoder: Decoder, tasks: Sequence[Any], jobs: int) -> Iterator[Iterator[list[Row]]]:
    """Give each task's rows as they are done, in order: here, or in ``jobs`` processes."""
    if jobs == 1:
        yield (decoder.fill(*task) for task in tasks)
        return
    pool = ProcessPoolExecutor(
        jobs,
        # Not forked: this process may hold torch's threads and locks.
        mp_context=multiprocessing.get_context("spawn"),
        initializer=recall,
        initargs=(decoder,),
    )
    try:
        yield pool.map(work, tasks)
    except BrokenProcessPool as error:
        raise UnusableData(
            "a decoding process ended unasked (was memory short?); run the same command again, "
            "it goes on from here"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _open(cache: Path, shape: tuple[int, int, int]) -> np.memmap[Any, Any]:
    """Make sure that both files are there and of this shape, and give the records, writable."""
    digests = cache.with_name(DIGESTS)
    if not (cache.exists() and digests.exists()):
        digests.unlink(missing_ok=True)
        cache.parent.mkdir(parents=True, exist_ok=True)
        images = open_memmap(cache, mode="w+", dtype=np.uint8, shape=shape)
        del images
        _reserve(cache)
        # Last: only with it the pair counts as begun.
        return open_memmap(digests, mode="w+", dtype=_ROW, shape=shape[:1])
    try:
        images = np.load(cache, mmap_mode="r", allow_pickle=False)
        records = np.load(digests, mmap_mode="r+", allow_pickle=False)
    except (ValueError, EOFError):  # damaged: to be made anew
        digests.unlink()
        return _open(cache, shape)
    except OSError as error:
        raise UnusableData(f"{cache.parent}: cannot be read ({error.strerror})") from error
    if images.shape != shape or records.shape != shape[:1] or records.dtype != _ROW:
        raise UnusableData(
            f"{cache.parent}: was begun for {images.shape[0]:,} images of {images.shape[1]} "
            f"pixels, not {shape[0]:,} of {shape[1]}; empty it, or name another folder"
        )
    opened: np.memmap[Any, Any] = records
    return opened


def _reserve(cache: Path) -> None:
    """Take the disk space now: a disk that is full later would end the processes, not tell them."""
    needed = cache.stat().st_size
    if not hasattr(os, "posix_fallocate"):
        return
    with cache.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, needed)
        except OSError as error:
            cache.unlink()
            raise UnusableData(
                f"{cache}: needs {needed / 1e9:.1f} GB ({error.strerror})"
            ) from error
