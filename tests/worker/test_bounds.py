"""A worker bounds itself: an image that never ends."""

from __future__ import annotations

import subprocess
import sys

import pytest

from prichexy_worker.bounds import ending_with_an_image

#: Holds Python's own lock for ever: no other thread of the process runs.
LOOPING = """
import re, sys
from prichexy_worker.bounds import ending_with_an_image
def loop(content, tools):
    return re.match(r"(a|aa)+$", content + "b")
ending_with_an_image(loop, 1.0, sys.stderr)("a" * 200, None)
"""


def test_an_image_that_never_ends_ends_its_worker_and_tells_no_value():
    ended = subprocess.run(
        [sys.executable, "-c", LOOPING], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 1
    assert "bounds.py" in ended.stderr
    assert "aaaa" not in ended.stderr


def test_an_image_in_time_is_given_and_the_bound_is_gone(tmp_path):
    with (tmp_path / "log").open("w") as log:
        bounded = ending_with_an_image(lambda content, tools: (content, tools), 60.0, log)
        assert bounded(b"content", "tools") == (b"content", "tools")

        def fail(content, tools):
            raise ValueError("of the image")

        with pytest.raises(ValueError, match="of the image"):
            ending_with_an_image(fail, 60.0, log)(b"", None)
    assert (tmp_path / "log").read_text() == ""
