from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from prichexy_testing.shared_data import NIH512, REPO, need
from prichexy_train.data.decoding import Undecodable, decode
from prichexy_worker.view import shrink

Array = NDArray[Any]


@pytest.fixture
def grey() -> Array:
    """Give an image (90, 70) that is smooth, so that JPEG keeps it, and has all grey levels."""
    small = np.random.default_rng(3).integers(0, 256, (9, 7), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((70, 90), Image.Resampling.BICUBIC))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def saved(folder: Path, data: bytes) -> Path:
    (folder / "image").write_bytes(data)
    return folder / "image"


def as_the_worker_shrinks(values: Array, size: int) -> Array:
    """Give grey levels from 0 to 255, not rounded."""
    return shrink(values.astype(np.float32) / 255, size) * 255


def off(path: Path, values: Array, size: int, *, upscale: bool = False) -> float:
    """Give how far the decoded image is from the worker's, at most, in grey levels."""
    wanted = as_the_worker_shrinks(values, size)
    return float(np.abs(decode(path, size, upscale=upscale) - wanted).max())


#: The nearest whole level: half a level, and float32's own rounding.
NEAREST = 0.5 + 1e-3


@pytest.mark.parametrize("size", [16, 32, 64])
def test_the_resize_is_the_workers(tmp_path: Path, grey: Array, size: int) -> None:
    path = saved(tmp_path, encoded(Image.fromarray(grey), "PNG"))
    assert off(path, grey, size) < NEAREST


def test_the_resize_is_the_workers_on_a_real_radiograph() -> None:
    path = sorted(need(NIH512 / "images").iterdir())[0]
    with Image.open(path) as image:
        values = np.asarray(image.convert("L"))
    assert off(path, values, 256) < NEAREST


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P"])
def test_grey_pictures_in_several_channels_are_the_grey_picture(
    tmp_path: Path, grey: Array, mode: str
) -> None:
    # Some of ChestX-ray14's files have four channels.
    plain = saved(tmp_path, encoded(Image.fromarray(grey), "PNG"))
    expected = decode(plain, 32, upscale=False)
    other = saved(tmp_path, encoded(Image.fromarray(grey).convert(mode), "PNG"))
    np.testing.assert_array_equal(decode(other, 32, upscale=False), expected)


def test_what_is_transparent_is_there_all_the_same(tmp_path: Path, grey: Array) -> None:
    layers = Image.merge("LA", (Image.fromarray(grey), Image.new("L", (70, 90), 0)))
    plain = decode(saved(tmp_path, encoded(Image.fromarray(grey), "PNG")), 32, upscale=False)
    for mode in ("LA", "RGBA"):
        path = saved(tmp_path, encoded(layers.convert(mode), "PNG"))
        np.testing.assert_array_equal(decode(path, 32, upscale=False), plain)


def test_a_grey_jpeg_in_colour_channels_is_grey(tmp_path: Path, grey: Array) -> None:
    path = saved(tmp_path, encoded(Image.fromarray(grey).convert("RGB"), "JPEG", quality=90))
    assert off(path, grey, 32) < 8


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_colour_is_told(tmp_path: Path, grey: Array, kind: str) -> None:
    colours = np.stack([grey] * 3, axis=2)
    colours[5:15, 5:40] = (255, 0, 0)  # somebody's arrow
    path = saved(tmp_path, encoded(Image.fromarray(colours), kind))
    with pytest.raises(Undecodable, match="In colour"):
        decode(path, 32, upscale=False)


def test_more_than_8_bits_are_told(tmp_path: Path, grey: Array) -> None:
    path = saved(tmp_path, encoded(Image.fromarray(grey.astype(np.uint16) * 16), "PNG"))
    with pytest.raises(Undecodable, match="Not 8-bit grey"):
        decode(path, 32, upscale=False)


def test_images_are_stretched_only_when_asked(tmp_path: Path, grey: Array) -> None:
    path = saved(tmp_path, encoded(Image.fromarray(grey), "PNG"))
    with pytest.raises(Undecodable, match="Smaller than 80 pixels: set a smaller size"):
        decode(path, 80, upscale=False)
    assert off(path, grey, 80, upscale=True) < NEAREST


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_file_cut_anywhere_is_told_or_has_all_its_pixels(tmp_path: Path, kind: str) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (64, 64), dtype=np.uint8)
    whole = encoded(Image.fromarray(noise), kind)
    expected = decode(saved(tmp_path, whole), 32, upscale=False)
    told = "Truncated or damaged|beginning is damaged"
    for kept in range(0, len(whole) - 64, 97):
        with pytest.raises(Undecodable, match=told):
            decode(saved(tmp_path, whole[:kept]), 32, upscale=False)
    for kept in range(len(whole) - 64, len(whole)):
        # Behind the last pixel lie checksums and an end mark.
        try:
            found = decode(saved(tmp_path, whole[:kept]), 32, upscale=False)
        except Undecodable as problem:
            assert re.match(told, str(problem)) or "beginning" in str(problem)
        else:
            np.testing.assert_array_equal(found, expected)


def test_bytes_that_were_changed_in_a_png_are_told(tmp_path: Path, grey: Array) -> None:
    whole = bytearray(encoded(Image.fromarray(grey), "PNG"))
    whole[len(whole) // 2] ^= 0xFF
    with pytest.raises(Undecodable, match="Truncated or damaged"):
        decode(saved(tmp_path, bytes(whole)), 32, upscale=False)


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF"])
def test_other_formats_are_told(tmp_path: Path, grey: Array, kind: str) -> None:
    path = saved(tmp_path, encoded(Image.fromarray(grey), kind))
    with pytest.raises(Undecodable, match="No PNG or JPEG file"):
        decode(path, 32, upscale=False)


def test_an_absent_file_and_a_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(Undecodable, match="No such file"):
        decode(tmp_path / "absent", 32, upscale=False)
    with pytest.raises(Undecodable, match="Truncated or damaged"):
        decode(tmp_path, 32, upscale=False)


def test_a_decoding_process_does_not_import_torch() -> None:
    code = "import sys, prichexy_train.data.decoding; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPO / "train")
