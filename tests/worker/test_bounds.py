"""A worker bounds itself: an image or an attempt that never ends, and memory that others need."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from prichexy_worker.bounds import ProcessBounds, yield_memory_to_others

BEGIN = """
import socket, re, sys
from prichexy_worker.bounds import ProcessBounds
bounds = ProcessBounds(sys.stderr)
def loop(content, tools):
    "Holds Python's own lock for ever: no other thread of the process runs."
    return re.match(r"(a|aa)+$", content + "b")
def wait(*_):
    "A call of the system that does not come back."
    caller = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    caller.recv(1)
def work(*_):
    return None
"""
HANGING = {
    "an image loops": "bounds.of_each_image(loop, 1.0)('a' * 200, None)",
    "an attempt loops": "with bounds.within(1.0): loop('a' * 200, None)",
    "an attempt waits": "with bounds.within(1.0): wait()",
    "an attempt waits after an image": """
with bounds.within(1.0):
    bounds.of_each_image(work, 3600.0)(b"", None)
    wait()
""",
    "an image waits for longer than its attempt": """
with bounds.within(1.0):
    bounds.of_each_image(wait, 3600.0)(b"", None)
""",
    "an image waits in an attempt": """
with bounds.within(3600.0):
    bounds.of_each_image(wait, 1.0)(b"", None)
""",
    "an attempt is over when an image ends": """
with bounds.within(0.0):
    bounds.of_each_image(work, 3600.0)(b"", None)
    wait()
""",
}


@pytest.mark.parametrize("code", HANGING.values(), ids=HANGING)
def test_what_never_ends_ends_its_worker_and_tells_no_value(code: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        ended = subprocess.run(
            [sys.executable, "-c", BEGIN + code, str(silent.getsockname()[1])],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert ended.returncode == 1
    assert "most recent call first" in ended.stderr
    assert "aaaa" not in ended.stderr


def test_what_is_in_time_is_given_and_the_bounds_are_gone() -> None:
    code = """
import threading
with bounds.within(60.0):
    assert bounds.of_each_image(lambda *both: both, 0.5)(b"image", "tools") == (b"image", "tools")
    def fail(content, tools):
        raise ValueError("of the image")
    try:
        bounds.of_each_image(fail, 0.5)(b"", None)
    except ValueError:
        pass
    else:
        sys.exit(3)
threading.Event().wait(1.0)  # beyond every bound
"""
    ended = subprocess.run(
        [sys.executable, "-c", BEGIN + code],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_an_error_of_an_image_goes_through() -> None:
    def fail(_content: bytes, _tools: object) -> None:
        raise ValueError("of the image")

    with pytest.raises(ValueError, match="of the image"):
        ProcessBounds().of_each_image(fail, 60.0)(b"", None)  # type: ignore[arg-type]


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
