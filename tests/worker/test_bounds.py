"""A worker bounds itself: an image that never ends, and memory that others need."""

from __future__ import annotations

import subprocess
import sys

import pytest

from prichexy_worker.bounds import ending_with_an_image, yield_memory_to_others

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


#: Says what the system thinks of this process, before and after.
YIELDING = """
from pathlib import Path
from prichexy_worker.bounds import yield_memory_to_others
file = Path("/proc/self/oom_score_adj")
for _ in range(2):
    yield_memory_to_others()
    print(file.read_text().strip())
file.write_text("900")
yield_memory_to_others()
print(file.read_text().strip())
"""


def test_a_worker_is_ended_before_the_servers_and_after_its_codecs():
    ended = subprocess.run(
        [sys.executable, "-c", YIELDING], capture_output=True, text=True, timeout=120, check=True
    )
    assert ended.stdout.split() == ["500", "500", "900"]


def test_a_system_that_does_not_let_it_choose_stops_no_worker(tmp_path):
    yield_memory_to_others(tmp_path / "missing")
    assert list(tmp_path.iterdir()) == []
