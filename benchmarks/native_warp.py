"""How long the native warp takes, as ratios measured in one run, so that machines compare.

    python benchmarks/native_warp.py [--rows 2500] [--columns 2048] [--threads 1]

Every way warps the same 14-bit image by the same field: ours, the parts of ours, a plain copy, and
torch's ``grid_sample`` on the lifted field, which is what a network's own warp would cost here.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from prichexy_worker import deform
from prichexy_worker.pixels import Radiograph
from prichexy_worker.view import shrink

REPEATS = 7


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2500)
    parser.add_argument("--columns", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=1)
    wanted = parser.parse_args()
    torch.set_num_threads(wanted.threads)
    cv2.setNumThreads(wanted.threads)
    radiograph, displacement = _example(wanted.rows, wanted.columns)
    padded = replace(radiograph, padding=(0, 3000))
    view = radiograph.values.astype(np.float32) / (1 << 14)
    ways: dict[str, Callable[[], object]] = {
        "copy of the image": radiograph.values.copy,
        "deform.warp": lambda: deform.warp(radiograph, displacement),
        "  of which lifting the field": lambda: deform.displacement_in_pixels(
            displacement, wanted.rows, wanted.columns
        ),
        "deform.warp beside padding": lambda: deform.warp(padded, displacement),
        "deform.measure": lambda: deform.measure(radiograph, radiograph, displacement),
        "torch grid_sample, bicubic": lambda: _torch_warp(radiograph, displacement, "bicubic"),
        "torch grid_sample, bilinear": lambda: _torch_warp(radiograph, displacement, "bilinear"),
        "view.shrink": lambda: shrink(view),
    }
    seconds = {name: _best(way) for name, way in ways.items()}
    copy = seconds["copy of the image"]
    print(f"{wanted.rows} x {wanted.columns}, uint16, {wanted.threads} thread(s)")  # noqa: T201
    for name, taken in seconds.items():
        print(f"{name:30} {taken * 1e3:8.1f} ms {taken / copy:8.1f} copies")  # noqa: T201


def _example(rows: int, columns: int) -> tuple[Radiograph, NDArray[np.float32]]:
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 1 << 14, (rows // 8, columns // 8)).astype(np.float32)
    image = cv2.resize(noise, (columns, rows), interpolation=cv2.INTER_CUBIC)
    values = np.clip(image, 0, (1 << 14) - 1).astype(np.uint16)
    field = cv2.GaussianBlur(rng.uniform(-1, 1, (256, 256, 2)).astype(np.float32), (9, 9), 2)
    return Radiograph(values, 14), np.ascontiguousarray(0.01 * field.transpose(2, 0, 1))


def _torch_warp(radiograph: Radiograph, displacement: NDArray[np.float32], mode: str) -> object:
    rows, columns = radiograph.values.shape
    image = torch.from_numpy(radiograph.values.astype(np.float32))[None, None]
    field = torch.nn.functional.interpolate(
        torch.from_numpy(displacement)[None], (rows, columns), mode="bilinear", align_corners=False
    )
    y, x = torch.linspace(-1, 1, rows), torch.linspace(-1, 1, columns)
    identity = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)[None]
    warped = torch.nn.functional.grid_sample(
        image,
        identity + field.permute(0, 2, 3, 1),
        mode=mode,
        padding_mode="border",
        align_corners=True,
    )
    return warped.round().to(torch.int32).numpy().astype(np.uint16)


def _best(way: Callable[[], object]) -> float:
    """Give the least time of several runs: what is more was somebody else's."""
    taken = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        way()
        taken.append(time.perf_counter() - start)
    return min(taken)


if __name__ == "__main__":
    main()
