"""One container: a service's process in its image, with what the compose file gives it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from prichexy_testing.rehearsal.compose import Service
from prichexy_testing.rehearsal.recipe import HealthCheck, Image
from prichexy_testing.rehearsal.sandbox import Process, bind, launch, tmpfs

__all__ = ["Container", "ContainerError", "Place", "start"]


class ContainerError(Exception):
    """A container did not do what its image and the compose file promise."""


@dataclass(frozen=True, slots=True)
class Place:
    """The folders of one rehearsal: secrets by name, one folder a volume, logs, the hosts file."""

    compose_folder: Path
    secrets: Path
    volumes: Path
    logs: Path
    hosts: Path


@dataclass(frozen=True, slots=True)
class Container:
    """A started container."""

    service: Service
    process: Process
    health: HealthCheck
    child: subprocess.Popen[bytes]
    log: Path

    def wait_until_healthy(self) -> float:
        """Give the seconds until the health check passed. Raises ContainerError."""
        started = time.monotonic()
        deadline = started + self.health.start_period + self.health.interval * self.health.retries
        answer = "it was never asked"
        while time.monotonic() < deadline:
            self._refuse_when_ended()
            pid = self._first_process()
            if pid is not None:
                answer = self._ask(pid)
                if not answer:
                    return time.monotonic() - started
            threading.Event().wait(1.0)
        raise self.failure(f"its health check did not pass: {answer}")

    def stop(self) -> float:
        """Ask it to end, as ``docker stop`` does; give the seconds that took.

        Raises ContainerError when it does not end by itself in time, or not with 0.
        """
        started = time.monotonic()
        pid = self._first_process()
        if pid is None:
            raise self.failure("it has ended before it was stopped")
        os.kill(pid, signal.SIGTERM)
        try:
            status = self.child.wait(self.service.stop_grace_period)
        except subprocess.TimeoutExpired:
            raise self.failure("it does not end when asked to") from None
        if status != 0:
            raise self.failure(f"it ended with {status} when asked to stop")
        return time.monotonic() - started

    def kill(self) -> None:
        """End it and all it started, at once."""
        self.child.kill()
        self.child.wait()

    def failure(self, why: str) -> ContainerError:
        """Give the error with the end of the container's log."""
        written = self.log.read_text(encoding="utf-8", errors="replace")
        return ContainerError(f"{self.service.name}: {why}\n--- its log ends:\n{written[-4000:]}")

    def _refuse_when_ended(self) -> None:
        status = self.child.poll()
        if status is not None:
            raise self.failure(f"it ended with {status}")

    def _first_process(self) -> int | None:
        """Give the process id of the container's process 1 once it is inside its root."""
        children = Path(f"/proc/{self.child.pid}/task/{self.child.pid}/children")
        try:
            pid = int(children.read_text(encoding="ascii").split()[0])
            inside = Path(f"/proc/{pid}/root").readlink() != Path("/")
        except (OSError, IndexError):
            return None
        return pid if inside else None

    def _ask(self, pid: int) -> str:
        """Run the health check inside; give "" when it passes, else what it said."""
        argv = ["nsenter", "--target", str(pid), "--mount", "--pid", "--root", "--"]
        argv += self.process.become(self.health.argv)
        try:
            done = subprocess.run(
                argv,
                env=dict(self.process.environment),
                check=False,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=self.health.timeout,
            )
        except subprocess.TimeoutExpired:
            return "it took too long"
        said = done.stdout.decode(errors="replace").strip()
        return "" if done.returncode == 0 else said or f"ended with {done.returncode}"


def start(
    service: Service,
    root: Path,
    image: Image,
    place: Place,
    secrets: Mapping[str, Path] | None = None,
) -> Container:
    """Start the service as Docker would. ``secrets`` replaces the files of secrets by target."""
    health = service.health or image.health
    if health is None:
        raise ContainerError(f"{service.name}: neither image nor compose file has a health check")
    if not (service.read_only and service.drops_all_capabilities and service.no_new_privileges):
        raise ContainerError(f"{service.name}: is not hardened as all others are")
    mounts = [bind(place.hosts, "/etc/hosts", read_only=True)]
    mounts += [tmpfs(target, options) for target, options in service.tmpfs]
    for secret in service.secrets:
        file = (secrets or {}).get(secret.target, place.secrets / Path(secret.file).name)
        mounts.append(bind(file, f"/run/secrets/{secret.target}", read_only=True))
    for target, volume in service.volumes.items():
        mounts.append(bind(_volume(place.volumes / volume, root, target), target, read_only=False))
    if service.entrypoint is None:
        argv = image.entrypoint + (service.command or image.command)
    else:  # The image's command belongs to the image's entry point.
        argv = service.entrypoint + (service.command or ())
    process = Process(
        argv=argv,
        environment={**image.environment, **service.environment},
        folder=image.folder,
        user=service.user or image.user,
        mounts=tuple(mounts),
        capabilities=(),
        read_only=True,
        new_privileges=False,
    )
    log = place.logs / f"{service.name}.log"
    with log.open("wb") as output:
        child = launch(root, process, output)
    return Container(service, process, health, child, log)


def _volume(folder: Path, root: Path, target: str) -> Path:
    """Give the volume's folder; a new one is owned as the image's folder is, as Docker does."""
    if not folder.exists():
        folder.mkdir(parents=True)
        model = root / target.lstrip("/")
        if model.is_dir():
            status = model.stat()
            os.chown(folder, status.st_uid, status.st_gid)
            shutil.copymode(model, folder)
    return folder
