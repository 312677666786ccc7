"""Runs one process inside a root folder, in Linux namespaces of its own.

The mounts live in the process's own mount namespace and its children in its own PID namespace:
when it ends, or is killed, or the rehearsal is killed, the kernel takes all of them away.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

__all__ = ["DOCKER_CAPABILITIES", "NAMESPACES", "Mount", "Process", "bind", "launch", "tmpfs"]

#: What Docker leaves to a container that asks for nothing.
DOCKER_CAPABILITIES: Final = (
    "chown",
    "dac_override",
    "fsetid",
    "fowner",
    "mknod",
    "net_raw",
    "setgid",
    "setuid",
    "setfcap",
    "setpcap",
    "net_bind_service",
    "sys_chroot",
    "kill",
    "audit_write",
)
#: Runs what follows in namespaces of its own. It ends when its parent does, and the other way
#: round, even by SIGKILL.
NAMESPACES: Final = (
    *("setpriv", "--pdeathsig", "KILL"),
    *("unshare", "--propagation", "private", "--fork", "--kill-child"),
)
_DEVICES: Final = ("null", "zero", "full", "random", "urandom")


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount inside the root folder: ``arguments`` of mount(8) before the target."""

    arguments: tuple[str, ...]
    target: str
    is_file: bool = False
    read_only: bool = False

    def commands(self, root: Path) -> list[str]:
        """Give the shell lines that make the mount point and mount."""
        point = str(root / self.target.lstrip("/"))
        folder = str(Path(point).parent) if self.is_file else point
        lines = [f"mkdir -p {shlex.quote(folder)}"]
        if self.is_file:
            lines.append(f"[ -e {shlex.quote(point)} ] || : > {shlex.quote(point)}")
        lines.append(shlex.join(["mount", *self.arguments, point]))
        if self.read_only:
            lines.append(shlex.join(["mount", "-o", "remount,bind,ro", point]))
        return lines


def bind(source: Path, target: str, *, read_only: bool) -> Mount:
    """Show the file or folder ``source`` at ``target``."""
    return Mount(("--bind", str(source)), target, source.is_file(), read_only)


def tmpfs(target: str, options: str = "mode=1777") -> Mount:
    """Give an empty folder in memory, as Docker mounts it: nothing in it can be executed."""
    return Mount(("-t", "tmpfs", "-o", f"noexec,nosuid,nodev,{options}", "tmpfs"), target)


@dataclass(frozen=True, slots=True)
class Process:
    """What to run, as whom, and what it sees."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    folder: str = "/"
    user: str = "0:0"
    mounts: tuple[Mount, ...] = ()
    capabilities: tuple[str, ...] = DOCKER_CAPABILITIES
    read_only: bool = False
    new_privileges: bool = True

    def script(self, root: Path) -> str:
        """Give the shell script that mounts, enters ``root`` and becomes the process."""
        lines = ["set -eu", shlex.join(["mount", "--bind", str(root), str(root)])]
        lines += Mount(("-t", "proc", "proc"), "/proc").commands(root)
        lines += Mount(("-t", "sysfs", "-o", "ro", "sysfs"), "/sys").commands(root)
        lines += Mount(("-t", "tmpfs", "-o", "nosuid,mode=755", "tmpfs"), "/dev").commands(root)
        for device in _DEVICES:
            lines += bind_device(device).commands(root)
        lines += tmpfs("/dev/shm", "size=64m,mode=1777").commands(root)
        for number, name in enumerate(("stdin", "stdout", "stderr")):
            lines.append(f"ln -s /proc/self/fd/{number} {shlex.quote(str(root / 'dev' / name))}")
        lines.append(f"ln -s /proc/self/fd {shlex.quote(str(root / 'dev/fd'))}")
        # Deeper targets after the folders that hold them.
        for mount in sorted(self.mounts, key=lambda mount: mount.target.count("/")):
            lines += mount.commands(root)
        if self.read_only:
            lines.append(shlex.join(["mount", "-o", "remount,bind,ro", str(root)]))
        lines.append(f"exec {shlex.join(['chroot', str(root), *self.become(self.argv)])}")
        return "\n".join(lines)

    def become(self, argv: Sequence[str]) -> list[str]:
        """Give the words that take the folder, user and capabilities, then become ``argv``."""
        user, _, group = self.user.partition(":")
        kept = ",".join(["-all", *(f"+{name}" for name in self.capabilities)])
        words = ["env", f"--chdir={self.folder}", "setpriv"]
        words += ["--reuid", user, "--regid", group, "--clear-groups"]
        # A change of user would forget that the process is to die with its parent.
        words += ["--bounding-set", kept, "--inh-caps", "-all", "--pdeathsig", "keep"]
        words += [] if self.new_privileges else ["--no-new-privs"]
        return [*words, "--", *argv]


def bind_device(name: str) -> Mount:
    """Show one of the machine's own device files."""
    return Mount(("--bind", f"/dev/{name}"), f"/dev/{name}", is_file=True)


def launch(
    root: Path,
    process: Process,
    output: IO[bytes] | int | None = None,
) -> subprocess.Popen[bytes]:
    """Start ``process`` in ``root``; killing what this returns kills all that it started.

    Standard output and error both go to ``output`` (inherited when None).
    """
    return subprocess.Popen(
        [*NAMESPACES, "--mount", "--pid", "/bin/sh", "-c", process.script(root)],
        env=dict(process.environment),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT if output is not None else None,
    )
