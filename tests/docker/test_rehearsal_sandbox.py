"""What the rehearsal runs is shut in, and gone when it is ended."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from pathlib import Path

import pytest

from prichexy_testing.rehearsal.recipe import BASE_ENVIRONMENT
from prichexy_testing.rehearsal.sandbox import Process, bind, launch, tmpfs

HOST_FOLDERS = [path for path in ("/bin", "/lib", "/lib64", "/sbin", "/usr") if Path(path).exists()]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An image of the machine's own programs."""
    can = subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], check=False)
    if os.geteuid() != 0 or can.returncode != 0:
        pytest.skip("needs root, and the right to make namespaces")
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


def process(script: str, **more: object) -> Process:
    mounts = [bind(Path(folder), folder, read_only=True) for folder in HOST_FOLDERS]
    return Process(
        argv=("/bin/sh", "-c", script),
        environment=BASE_ENVIRONMENT,
        mounts=(*mounts, tmpfs("/tmp")),
        **more,  # type: ignore[arg-type]
    )


def said(root: Path, script: str, **more: object) -> str:
    child = launch(root, process(script, **more), subprocess.PIPE)
    return child.communicate(timeout=120)[0].decode().strip()


def test_it_sees_its_own_root_and_its_own_processes_only(root: Path) -> None:
    assert (
        said(root, "echo /proc/[0-9]*; ls /; ls /root 2>&1 | head -1").split("\n")[0] == "/proc/1"
    )
    assert str(root) not in said(root, "cat /proc/self/mountinfo | cut -d ' ' -f 5")


def test_it_runs_as_the_given_user_without_capabilities_or_new_rights(root: Path) -> None:
    status = said(
        root,
        "id -u; id -G; grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status | cut -f 2",
        user="10001:10002",
        capabilities=(),
        new_privileges=False,
    )
    assert status.split() == ["10001", "10002", "0" * 16, "0" * 16, "1"]


def test_a_read_only_root_takes_no_file_while_tmp_does(root: Path) -> None:
    script = "touch /tmp/a && echo in tmp; touch /a 2>/dev/null || echo not in root"
    assert said(root, script, read_only=True) == "in tmp\nnot in root"


@pytest.mark.parametrize("user", ["0:0", "10001:10001"])
def test_nothing_stays_mounted_or_running_when_it_is_killed(root: Path, user: str) -> None:
    seconds = f"9{os.getpid()}"
    child = launch(root, process(f"sleep {seconds} & wait", user=user))
    try:
        assert _becomes(1, seconds)
    finally:
        child.kill()
        child.wait()
    assert _becomes(0, seconds)
    # Of this root only: others may mount and unmount theirs on the same machine.
    assert str(root) not in Path("/proc/self/mountinfo").read_text(encoding="utf-8")


def _becomes(count: int, seconds: str) -> bool:
    """Wait until so many ``sleep seconds`` run on this machine; False when that takes too long."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if len(_sleepers(seconds)) == count:
            return True
        threading.Event().wait(0.05)
    return False


def _sleepers(seconds: str) -> list[str]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "cmdline").read_bytes() == f"sleep\0{seconds}\0".encode():
                found.append(folder.name)
        except OSError:  # it ended meanwhile
            continue
    return found
