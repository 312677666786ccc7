"""What reading radiographs costs: decoded from files, against gathered from the cache.

    python benchmarks/image_cache.py [--files 64] [--rows 4096] [--jobs 2]

The files are 1024-pixel PNGs of about ChestX-ray14's 400 KB, drawn here. The ratios are measured
in one run, in processor time of one thread, so that machines compare; the figures for all 112,120
images are this machine's, by multiplication.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from PIL import Image

from prichexy_train.data.cache import fill_cache
from prichexy_train.data.catalogue import Catalogue, ImageRecord
from prichexy_train.data.decoding import decode
from prichexy_train.data.drawing import draw_pairs
from prichexy_train.data.problems import Problems
from prichexy_train.data.settings import DrawnPairs
from prichexy_train.data.splits import kin

WHOLE = 112_120
SIZE = 256
BATCH = 64


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=64)
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--jobs", type=int, default=2)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        decoding = _decoding(Path(folder), wanted.files, wanted.jobs)
        _gathering(Path(folder), wanted.rows, decoding)
    _tables()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"memory: {peak:.0f} MB here, {child:.0f} MB in a decoding process")  # noqa: T201


def _decoding(folder: Path, files: int, jobs: int) -> float:
    """Print what decoding costs, and give one process's images a second."""
    random = np.random.default_rng(1)
    names = [f"{number}.png" for number in range(files)]
    for name in names:
        small = random.integers(40, 216, (24, 24), dtype=np.uint8)
        body = np.asarray(Image.fromarray(small).resize((1024, 1024), Image.Resampling.BICUBIC))
        noisy = body + random.normal(0, 1.6, body.shape)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / name)
    weight = sum((folder / name).stat().st_size for name in names) / files
    one = files / _seconds(_each(lambda n: decode(folder / n, SIZE, upscale=False), names))

    paths = names * jobs * 2

    def fill() -> None:
        cache = folder / "cache" / "images.npy"
        problems = Problems()
        fill_cache(cache, folder, paths, SIZE, problems, upscale=False, jobs=jobs, progress=False)
        problems.stop("benchmark")

    def fill_anew() -> None:
        shutil.rmtree(folder / "cache", ignore_errors=True)
        fill()

    several = len(paths) / _seconds(fill_anew, time.perf_counter)
    again = len(paths) / _seconds(fill, time.perf_counter)
    print(f"files of {weight / 1024:.0f} KB, 1024 to {SIZE} pixels")  # noqa: T201
    print(  # noqa: T201
        f"decode, one process {one:12,.0f} images/s; all {WHOLE:,}: {WHOLE / one / 60:.0f} minutes"
    )
    print(  # noqa: T201
        f"fill_cache, {jobs} jobs {several:13,.0f} images/s, their start included; "
        f"once more, nothing to decode: {again:,.0f}"
    )
    return one


def _gathering(folder: Path, rows: int, decoding: float) -> None:
    # Here, since they import torch, and decoding processes import this file.
    from prichexy_train.data.images import CachedImages  # noqa: PLC0415
    from prichexy_train.data.prepared import array_digest  # noqa: PLC0415

    path = folder / "rows.npy"
    cache = open_memmap(path, mode="w+", dtype=np.uint8, shape=(rows, SIZE, SIZE))
    random = np.random.default_rng(1)
    for row in cache:
        row[:] = random.integers(0, 256, (SIZE, SIZE), dtype=np.uint8)
    images = CachedImages(path)
    batches = np.split(random.permutation(rows)[: rows // BATCH * BATCH], rows // BATCH)
    count = len(batches) * BATCH
    raw = count / _seconds(_each(lambda batch: cache[batch], batches))
    gathered = count / _seconds(_each(images.gather, batches))
    verified = rows / _seconds(lambda: array_digest(path))
    for name, rate in (
        ("gather, uint8", raw),
        ("gather, float32", gathered),
        ("verify digests", verified),
    ):
        print(  # noqa: T201
            f"{name:20} {rate:11,.0f} images/s = {rate / decoding:6,.0f} times decoding; "
            f"all {WHOLE:,}: {WHOLE / rate:.1f} s"
        )
    print(f"disk for all: {WHOLE * SIZE * SIZE / 1e9:.2f} GB")  # noqa: T201


def _tables() -> None:
    """Print what pairs cost in a set as large, with as many images a patient."""
    random = np.random.default_rng(1)
    images_of_each = 1 + random.exponential(2.7, WHOLE).astype(np.int64)
    patients = np.repeat(np.arange(WHOLE), images_of_each)[:WHOLE]
    catalogue = Catalogue(
        "whole",
        ("Mass",),
        tuple(
            ImageRecord(str(n), str(patient), "", view="PA", sex="MF"[patient % 2], age=50)
            for n, patient in enumerate(random.permutation(patients).tolist())
        ),
    )
    relatives, everything = kin(catalogue, []), np.arange(WHOLE)
    for name, settings in (
        ("10,000 pairs", DrawnPairs(count=10_000, a_patient=1)),
        ("2,000 matched pairs", DrawnPairs(count=2_000, a_patient=1, match=("sex", "age"))),
    ):
        draw = partial(draw_pairs, catalogue, everything, relatives, [], settings, random)
        taken = _seconds(draw)
        print(f"{name} of {WHOLE:,} images: {taken:.1f} s")  # noqa: T201


def _each(work: Callable[[Any], object], items: Sequence[Any]) -> Callable[[], None]:
    """Give the work of doing this to each item and keeping nothing."""

    def run() -> None:
        for item in items:
            work(item)

    return run


def _seconds(work: Callable[[], object], clock: Callable[[], float] = time.process_time) -> float:
    """Give the least time of three, of this process alone unless ``clock`` is another."""
    taken = []
    for _ in range(3):
        start = clock()
        work()
        taken.append(clock() - start)
    return min(taken)


if __name__ == "__main__":
    main()
