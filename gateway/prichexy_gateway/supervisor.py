"""Starts processes, sees that they are ready, notices when one dies, stops them all."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from prichexy_gateway.errors import Failed
from prichexy_gateway.home import RunningProcess
from prichexy_gateway.waiting import wait_until

__all__ = ["Death", "Service", "Supervisor", "is_running", "start_time", "stop_leftovers"]

#: A shell's program: becomes the command, unless the parent that $0 names is gone already.
_ONLY_WITH_ITS_PARENT: Final = '[ "$PPID" = "$0" ] && exec "$@"'
_KILL_WITHIN: Final = 10.0  # seconds until a killed process is gone
_LOG_KEPT: Final = 16 * 1024 * 1024  # bytes; a larger log makes room at the next start


@dataclass(frozen=True, slots=True)
class Service:
    """One process to be run. Secrets go into ``environment`` or files, never ``command``.

    ``ready`` is given the process's age in seconds and says whether it serves already; it is
    asked again and again and must not raise. ``tier``: the services of a higher tier use those
    of a lower one, so they are stopped before them.
    """

    name: str
    command: tuple[str, ...]
    log: Path
    ready: Callable[[float], bool]
    tier: int
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    folder: Path | None = None
    # Seconds. Long, for a busy machine: one that dies meanwhile is noticed at once.
    ready_within: float = 120.0
    stop_within: float = 60.0  # from SIGTERM to SIGKILL


@dataclass(frozen=True, slots=True)
class Death:
    """A service that ended without being told to."""

    name: str
    exit_code: int
    log: Path

    def sentence(self) -> str:
        """Say who died and where to look."""
        how = (
            f"was killed by {signal.Signals(-self.exit_code).name}"
            if self.exit_code < 0
            else f"ended with exit code {self.exit_code}"
        )
        return f"{self.name} {how}; its log is {self.log}"


def start_time(pid: int) -> int | None:
    """Give when a process started, in the system's ticks, or None when there is none.

    With the pid it names a process for good: a pid alone is used again. A zombie is no process.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name before ")" may hold anything
    return None if fields[0] == "Z" else int(fields[19])


def is_running(process: RunningProcess) -> bool:
    """Say whether this very process still runs."""
    return start_time(process.pid) == process.started


def stop_leftovers(processes: Iterable[RunningProcess], within: float = 30.0) -> list[str]:
    """Stop what a killed gateway left running; give the names of those that were.

    Raises Failed when one cannot be stopped.
    """
    alive = [process for process in processes if is_running(process)]
    for process in alive:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)
    wait_until(lambda: not any(map(is_running, alive)), within)
    stubborn = [process for process in alive if is_running(process)]
    for process in stubborn:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    if not wait_until(lambda: not any(map(is_running, stubborn)), _KILL_WITHIN):
        names = ", ".join(f"{item.name} (process {item.pid})" for item in stubborn)
        raise Failed(f"Left over from an earlier start and not to be stopped: {names}.")
    return [process.name for process in alive]


class Supervisor:
    """Owns the processes it started. As a context manager it stops them all at the end.

    ``on_change`` is told the running processes whenever one was started or stopped.
    """

    def __init__(self, on_change: Callable[[tuple[RunningProcess, ...]], None]) -> None:
        self._on_change = on_change
        self._services: dict[str, Service] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._started_at: dict[str, float] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop_all()

    def start(self, service: Service) -> None:
        """Start a service and return at once. Raises Failed when it cannot be started.

        Its end follows ours even when this process is killed: setpriv (util-linux) has the
        kernel send it SIGTERM then, and where we were gone before that was asked for, it never
        starts. Call this from the thread that lives longest. A crash leaves no core file behind:
        patients' data would be in it.
        """
        try:
            _make_room(service.log)
            with service.log.open("ab") as log:
                process = subprocess.Popen(
                    (
                        *("prlimit", "--core=0", "--"),
                        *("setpriv", "--pdeathsig", "TERM", "--"),
                        *("sh", "-c", _ONLY_WITH_ITS_PARENT, str(os.getpid()), *service.command),
                    ),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=dict(service.environment),
                    cwd=service.folder,
                    # Ctrl-C in the terminal reaches us alone; we stop the services in order.
                    start_new_session=True,
                )
        except OSError as error:
            raise Failed(f"{service.name} cannot be started ({error.strerror}).") from None
        self._services[service.name] = service
        self._processes[service.name] = process
        self._started_at[service.name] = time.monotonic()
        self._tell()

    def wait_until_ready(self, name: str, called_off: threading.Event | None = None) -> None:
        """Return once the service is ready.

        Raises Failed when it died or is not ready in time, Interrupted when called off.
        """
        service, process = self._services[name], self._processes[name]

        def ready() -> bool:
            return service.ready(time.monotonic() - self._started_at[name])

        in_time = wait_until(
            lambda: process.poll() is not None or ready(), service.ready_within, called_off
        )
        death = self._death(name)
        if death:
            raise Failed(death.sentence())
        if not in_time:
            raise Failed(
                f"{name} was not ready within {service.ready_within:.0f} s; "
                f"its log is {service.log}"
            )

    def is_ready(self, name: str) -> bool:
        """Say whether a service runs and serves, without waiting for it."""
        process = self._processes.get(name)
        if process is None or process.poll() is not None:
            return False
        return self._services[name].ready(time.monotonic() - self._started_at[name])

    def deaths(self) -> list[Death]:
        """Give the services that ended without being told to."""
        return [death for name in self._processes if (death := self._death(name))]

    def running(self) -> tuple[RunningProcess, ...]:
        """Give the processes that run now."""
        found = []
        for name, process in self._processes.items():
            started = start_time(process.pid) if process.poll() is None else None
            if started is not None:
                found.append(RunningProcess(name, process.pid, started))
        return tuple(found)

    def stop(self, name: str) -> None:
        """Stop one service and return when its process is gone."""
        self._stop([name])

    def kill(self, name: str) -> None:
        """End one service at once, as a crash would (SIGKILL); it counts as dead after."""
        process = self._processes[name]
        process.kill()
        process.wait(_KILL_WITHIN)

    def restart(self, name: str) -> None:
        """Start a service anew, as it was; it is stopped first when it still runs."""
        service = self._services[name]
        if name in self._processes:
            self._stop([name])
        self.start(service)

    def stop_all(self) -> None:
        """Stop all services, the highest tier first, and return when all are gone."""
        for tier in sorted({self._services[name].tier for name in self._processes}, reverse=True):
            self._stop([name for name in self._processes if self._services[name].tier == tier])

    def _stop(self, names: list[str]) -> None:
        """Tell each to end, then wait for each: an Orthanc takes seconds."""
        for name in names:
            self._processes[name].terminate()
        for name in names:
            process = self._processes[name]
            try:
                process.wait(self._services[name].stop_within)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(_KILL_WITHIN)
            del self._processes[name]
        self._tell()

    def _death(self, name: str) -> Death | None:
        code = self._processes[name].poll()
        return None if code is None else Death(name, code, self._services[name].log)

    def _tell(self) -> None:
        self._on_change(self.running())


def _make_room(log: Path) -> None:
    """Set a log aside that has grown large; one earlier log is kept."""
    if log.exists() and log.stat().st_size > _LOG_KEPT:
        log.replace(log.with_suffix(".log.1"))
