"""What a gateway says may be lost; nobody ends for it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest
from rich.console import Console
from typer.testing import CliRunner

from prichexy_gateway import serving
from prichexy_gateway.cli import create_app
from prichexy_gateway.unfailing import unfailing


def _on_a_full_disk() -> IO[str]:
    return Path("/dev/full").open("w", encoding="utf-8", buffering=1)


def _without_a_reader() -> IO[str]:
    reads, writes = os.pipe()
    os.close(reads)
    return os.fdopen(writes, "w", encoding="utf-8", buffering=1)


def _abandon(stream: IO[str]) -> None:
    """Close it without what it still holds."""
    descriptor = os.open(os.devnull, os.O_WRONLY)
    os.dup2(descriptor, stream.fileno())
    os.close(descriptor)
    stream.close()


@pytest.mark.parametrize("make", [_on_a_full_disk, _without_a_reader])
def test_what_cannot_be_written_ends_nobody(make: Callable[[], IO[str]]) -> None:
    stream = make()
    with pytest.raises(OSError, match=r"No space|Broken pipe"):
        stream.write("a line\n")
    console = Console(file=unfailing(stream))
    for _ in range(3):
        console.print("a line")
    with console.status("waiting"):
        pass
    _abandon(stream)


def test_what_can_be_written_is(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w", encoding="utf-8") as stream:
        Console(file=unfailing(stream)).print("a line")
        assert (tmp_path / "log").read_text() == "a line\n", "at once"
        assert unfailing(stream).fileno() == stream.fileno()
        assert not unfailing(stream).isatty()


def test_serve_goes_on_when_its_own_output_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def full(text: str) -> int:
        said.append(text)
        raise OSError(28, "No space left on device")

    def runs(_request: serving.Request, console: Console) -> int:
        monkeypatch.setattr(sys.stdout, "write", full)
        console.print("worker was killed")
        return 0

    monkeypatch.setattr(serving, "run", runs)
    done = CliRunner().invoke(create_app(), ["serve", "--no-source", "--home", str(tmp_path)])
    assert (done.exit_code, done.exception) == (0, None)
    assert said
