"""Starting, watching and stopping processes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from prichexy_gateway.errors import Failed, Interrupted
from prichexy_gateway.home import RunningProcess
from prichexy_gateway.supervisor import (
    Service,
    Supervisor,
    is_running,
    start_time,
    stop_leftovers,
)
from prichexy_gateway.waiting import wait_until

SLEEP = "import signal; signal.pause()"
STUBBORN = (
    "import pathlib, signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "pathlib.Path(sys.argv[1]).touch()\nwhile True: signal.pause()"
)
#: Says at its end that it ended.
TELLING = (
    "import pathlib, signal, sys\n"
    "def end(*_):\n"
    "    with open(sys.argv[1], 'a') as order: order.write(sys.argv[2] + ' ')\n"
    "    sys.exit(0)\n"
    "signal.signal(signal.SIGTERM, end)\n"
    "pathlib.Path(sys.argv[1] + sys.argv[2]).touch()\n"
    "signal.pause()"
)


def service(
    tmp_path: Path,
    name: str,
    code: str,
    *arguments: str,
    ready: Callable[[float], bool] = lambda _: True,
    tier: int = 0,
    ready_within: float = 120.0,
    stop_within: float = 120.0,
) -> Service:
    return Service(
        name=name,
        command=(sys.executable, "-c", code, *arguments),
        log=tmp_path / f"{name}.log",
        ready=ready,
        tier=tier,
        environment=dict(os.environ),
        ready_within=ready_within,
        stop_within=stop_within,
    )


def test_all_that_was_started_is_gone_at_the_end_and_said_so(tmp_path: Path) -> None:
    told: list[tuple[RunningProcess, ...]] = []
    with Supervisor(told.append) as supervisor:
        for name in ("one", "two"):
            supervisor.start(service(tmp_path, name, SLEEP))
            supervisor.wait_until_ready(name)
        running = supervisor.running()
        assert [process.name for process in running] == ["one", "two"]
        assert all(is_running(process) for process in running)
    assert not any(is_running(process) for process in running)
    assert told[-1] == ()
    assert len(told[1]) == 2


def test_those_who_use_a_service_are_stopped_before_it(tmp_path: Path) -> None:
    order = tmp_path / "order"
    with Supervisor(lambda _: None) as supervisor:
        for name, tier in (("broker", 0), ("worker", 2), ("orthanc", 1)):
            supervisor.start(service(tmp_path, name, TELLING, str(order), name, tier=tier))
            assert wait_until(Path(f"{order}{name}").exists, 120)
    assert order.read_text().split() == ["worker", "orthanc", "broker"]


def test_a_service_that_ignores_the_request_to_stop_is_ended(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    with Supervisor(lambda _: None) as supervisor:
        supervisor.start(
            service(
                tmp_path, "deaf", STUBBORN, str(ready), ready=lambda _: ready.exists(),
                stop_within=0.2,
            )
        )  # fmt: skip
        supervisor.wait_until_ready("deaf")
        (process,) = supervisor.running()
    assert not is_running(process)


def test_a_service_that_dies_while_starting_is_named_with_its_log(tmp_path: Path) -> None:
    with Supervisor(lambda _: None) as supervisor:
        supervisor.start(service(tmp_path, "broken", "raise SystemExit(7)", ready=lambda _: False))
        with pytest.raises(Failed, match=r"broken ended with exit code 7.*broken\.log"):
            supervisor.wait_until_ready("broken")


def test_a_service_that_is_never_ready_is_an_error_in_time(tmp_path: Path) -> None:
    with Supervisor(lambda _: None) as supervisor:
        supervisor.start(service(tmp_path, "slow", SLEEP, ready=lambda _: False, ready_within=0.2))
        with pytest.raises(Failed, match=r"slow was not ready"):
            supervisor.wait_until_ready("slow")


def test_waiting_for_a_service_can_be_called_off(tmp_path: Path) -> None:
    off = threading.Event()
    off.set()
    with Supervisor(lambda _: None) as supervisor:
        supervisor.start(service(tmp_path, "slow", SLEEP, ready=lambda _: False))
        with pytest.raises(Interrupted):
            supervisor.wait_until_ready("slow", off)


def test_a_crash_is_noticed_and_the_service_can_be_started_again(tmp_path: Path) -> None:
    with Supervisor(lambda _: None) as supervisor:
        supervisor.start(service(tmp_path, "one", SLEEP))
        assert supervisor.deaths() == []
        supervisor.kill("one")
        (death,) = supervisor.deaths()
        assert "one was killed by SIGKILL" in death.sentence()
        supervisor.restart("one")
        supervisor.wait_until_ready("one")
        assert supervisor.deaths() == []


def test_readiness_is_asked_with_the_age_of_this_start(tmp_path: Path) -> None:
    births: list[float] = []

    def ready(age: float) -> bool:
        births.append(time.monotonic() - age)
        return age > 0.3

    with Supervisor(lambda _: None) as supervisor:
        supervisor.start(service(tmp_path, "one", SLEEP, ready=ready))
        supervisor.wait_until_ready("one")
        first = len(births)
        restarted = time.monotonic()
        supervisor.restart("one")
        supervisor.wait_until_ready("one")
    assert max(births[:first]) < restarted <= min(births[first:])


def test_leftovers_of_a_killed_gateway_are_stopped_and_others_left_alone() -> None:
    with subprocess.Popen([sys.executable, "-c", SLEEP]) as left:
        started = start_time(left.pid)
        assert started is not None
        another = RunningProcess("reused pid", left.pid, started - 1)
        assert stop_leftovers([another]) == []
        assert left.poll() is None

        assert stop_leftovers([RunningProcess("redis", left.pid, started)]) == ["redis"]
        assert left.wait(120) == -signal.SIGTERM


#: Starts one service, says which process it is, and waits to be killed.
GATEWAY = (
    "import sys, pathlib, signal, os\n"
    "from prichexy_gateway.supervisor import Service, Supervisor\n"
    "supervisor = Supervisor(lambda _: None)\n"
    "supervisor.start(Service('one', (sys.executable, '-c', *sys.argv[1:]),\n"
    "    pathlib.Path(sys.argv[2] + '.log'), lambda _: True, 0, dict(os.environ)))\n"
    "(process,) = supervisor.running()\n"
    "print(process.pid, process.started, flush=True)\n"
    "signal.pause()\n"
)
MARK = "import pathlib, signal, sys; pathlib.Path(sys.argv[1]).touch(); signal.pause()"


def killed_gateways_service(mark: Path, path: str, *, once_there: Path) -> RunningProcess:
    """Give the service of a gateway that was killed as soon as the file `once_there` was."""
    environment = dict(os.environ) | {"PYTHONPATH": os.pathsep.join(sys.path), "PATH": path}
    with subprocess.Popen(
        [sys.executable, "-c", GATEWAY, MARK, str(mark)], stdout=subprocess.PIPE, env=environment
    ) as gateway:
        assert gateway.stdout is not None
        pid, started = map(int, gateway.stdout.readline().split())
        process = RunningProcess("one", pid, started)
        assert is_running(process)
        assert wait_until(once_there.exists, 120)
        gateway.kill()
        gateway.wait(120)
    return process


def test_services_end_when_the_gateway_is_killed(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    process = killed_gateways_service(mark, os.environ["PATH"], once_there=mark)
    assert wait_until(lambda: not is_running(process), 120)


def test_a_service_of_a_gateway_that_is_gone_already_does_not_start(tmp_path: Path) -> None:
    # Before the kernel was asked to tell it of the gateway's end, the gateway ends.
    real = shutil.which("setpriv")
    slow, knows_its_parent = tmp_path / "bin" / "setpriv", tmp_path / "knows-its-parent"
    slow.parent.mkdir()
    slow.write_text(
        f"""#!/bin/sh
        touch {knows_its_parent}
        while kill -0 "$PPID" 2>/dev/null; do sleep 0.1; done
        exec {real} "$@"
        """
    )
    slow.chmod(0o755)
    path = f"{slow.parent}{os.pathsep}{os.environ['PATH']}"
    process = killed_gateways_service(tmp_path / "mark", path, once_there=knows_its_parent)
    assert wait_until(lambda: not is_running(process), 120)
    assert not (tmp_path / "mark").exists()


def test_a_command_that_is_not_there_is_a_death_with_a_log(tmp_path: Path) -> None:
    with Supervisor(lambda _: None) as supervisor:
        supervisor.start(
            Service("none", (str(tmp_path / "no"),), tmp_path / "log", lambda _: False, 0)
        )
        with pytest.raises(Failed, match="none ended"):
            supervisor.wait_until_ready("none")
