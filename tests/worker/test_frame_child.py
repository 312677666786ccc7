"""Codecs run at arm's length: whatever a frame does to one, the worker goes on."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from pydicom import uid
from pydicom.encaps import encapsulate, get_frame

from prichexy_testing.dicoms import radiograph_dataset
from prichexy_testing.faults import poisoned_child
from prichexy_testing.faults.poisoned_child import ENDLESS, GREEDY, IDLE, KILLED, POISONS, SEGFAULT
from prichexy_worker import codestream, gate, pixels
from prichexy_worker.contract import Reason
from prichexy_worker.errors import Rejected, Retryable
from prichexy_worker.gate import sanity


@pytest.fixture
def bad_codecs(monkeypatch, tmp_path):
    """Give codecs that misbehave when a frame says so, a folder for what they leave, 2 s."""
    monkeypatch.setattr(codestream, "_CHILD", Path(poisoned_child.__file__))
    monkeypatch.setattr(codestream, "MOST_SECONDS", 2)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def coded(syntax: pixels.Syntax, poison: bytes = b""):
    original = radiograph_dataset()
    dataset = pixels.with_pixels(original, pixels.decode(original), syntax)
    if poison:
        frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
        dataset.PixelData = encapsulate([frame + poison])
    return dataset


@pytest.mark.parametrize("syntax", ["rle-lossless", "jpeg-ls-lossless"])
@pytest.mark.parametrize("poison", [SEGFAULT, ENDLESS], ids=["segfault", "endless"])
def test_a_codec_that_dies_or_never_comes_back_costs_its_study_and_nothing_else(
    bad_codecs, monkeypatch, syntax, poison
):
    # pydicom's own RLE decoder is tried after the codec; it bears what follows the last segment.
    monkeypatch.setitem(pixels._DECODERS, uid.RLELossless, ("child",))
    core = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (core[1], core[1]))
    start = time.monotonic()
    try:
        with pytest.raises(Rejected) as caught:
            pixels.decode(coded(syntax, poison))
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, core)
    assert caught.value.reason is Reason.UNDECODABLE
    assert time.monotonic() - start < 60
    assert list(bad_codecs.iterdir()) == [], "no memory of it, which holds the image, in a file"
    expected = pixels.decode(radiograph_dataset()).values
    np.testing.assert_array_equal(pixels.decode(coded(syntax)).values, expected)


def test_a_codec_that_wants_all_memory_gets_what_its_image_may_take_and_no_more(bad_codecs):
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    with pytest.raises(Rejected) as caught:
        pixels.decode(coded("jpeg-ls-lossless", GREEDY))
    assert caught.value.reason is Reason.UNDECODABLE
    bound = codestream.memory_for(96, 80) / 1024
    assert max(before, bound) >= resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss > 2**18


@pytest.mark.parametrize("syntax", ["rle-lossless", "jpeg-ls-lossless"])
@pytest.mark.parametrize("fate", [KILLED, IDLE], ids=["killed", "idle"])
def test_a_codec_that_the_machine_keeps_from_its_end_speaks_against_no_study(
    bad_codecs, monkeypatch, syntax, fate
):
    monkeypatch.setattr(codestream, "_MOST_WAITED", 2)
    with pytest.raises(Retryable) as caught:
        pixels.decode(coded(syntax, fate))
    assert caught.value.reason is Reason.UNEXPECTED


@pytest.mark.usefixtures("bad_codecs")
def test_a_check_whose_codec_is_killed_is_made_again():
    with pytest.raises(Retryable):
        gate._checked("pixels", lambda: sanity.read_pixels(coded("jpeg-ls-lossless", KILLED)))


def test_a_codec_whose_worker_was_killed_ends_by_itself():
    poison = coded("rle-lossless", ENDLESS)
    frame = get_frame(poison.PixelData, 0, number_of_frames=1)
    numbers = [1 << 30, 1, uid.RLELossless, 96, 80, 16, 12, 0]
    command = [sys.executable, "-I", poisoned_child.__file__, *map(str, numbers)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert child.stdin is not None
    child.stdin.write(frame)
    child.stdin.close()
    assert child.wait(60) < 0, "ended by a signal of the kernel's, nobody waits for it"


def test_the_largest_image_fits_the_memory_that_its_decoding_may_take():
    # 32 bits a pixel for JPEG 2000's transform, twice, and its result once more in 16 bits.
    assert codestream.memory_for(20_000, 10_000) > (1 << 30) + 10 * 200_000_000
    assert all(len(poison) <= 32 for poison in POISONS)
