"""``python -m prichexy_testing.rehearsal``: see script/images and script/compat."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from prichexy_testing.rehearsal.base import BaseError
from prichexy_testing.rehearsal.build import BuildError, Built, build, find_built
from prichexy_testing.rehearsal.compose import ComposeError, ComposeFile, Service, read_compose
from prichexy_testing.rehearsal.container import ContainerError, Place
from prichexy_testing.rehearsal.context import BuildContext, read_context
from prichexy_testing.rehearsal.dockerfile import DockerfileError
from prichexy_testing.rehearsal.host import pip_environment
from prichexy_testing.rehearsal.network import raise_loopback
from prichexy_testing.rehearsal.sandbox import NAMESPACES
from prichexy_testing.rehearsal.start import rehearse

__all__ = ["main"]

REPO: Final = Path(__file__).resolve().parents[3]
CACHE: Final = REPO / ".cache" / "images"
COMPOSE: Final = REPO / "docker" / "compose.yaml"
#: Images that are not built here and cannot be pulled, and the Dockerfile that stands in.
STAND_INS: Final = {"redis:8-bookworm": REPO / "tests" / "docker" / "redis.Dockerfile"}
#: System tests that another version of Orthanc says nothing about: the fault tests are of this
#: system's own, whatever root folder is named, and the others of broker, order and model.
NOT_OF_ORTHANC: Final = (
    *("test_faults.py", "test_fault_soak.py", "test_fault_invariants.py"),
    *("test_broker_over_tls.py", "test_urgent_first.py", "test_pauses.py", "test_promotion.py"),
)
#: The rehearsal does not wait a minute for a study to be complete.
VARIABLES: Final = {"PRICHEXY_STABLE_AGE": "2"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; give the exit status."""
    parser = argparse.ArgumentParser(prog="script/images")
    parser.add_argument("what", choices=("all", "orthanc", "worker", "compat", "inside"))
    parser.add_argument("--sample", type=Path, help="a chest radiograph to send through")
    options, rest = parser.parse_known_args(arguments)
    if os.geteuid() != 0:
        sys.stderr.write("This makes root folders and namespaces: run it as root.\n")
        return 1
    CACHE.mkdir(parents=True, exist_ok=True)
    try:
        return _run(options.what, options.sample, rest)
    except (BaseError, BuildError, ComposeError, ContainerError, DockerfileError) as error:
        sys.stderr.write(f"{error}\n")
        return 1


def _run(what: str, sample: Path | None, rest: Sequence[str]) -> int:
    compose = read_compose(COMPOSE.read_text(encoding="utf-8"), VARIABLES)
    if what == "inside":
        _start_all(compose, sample)
        return 0
    context = read_context(REPO)
    if what == "compat":
        return _compat(_build(compose, context, "ingest").root, rest)
    for name in {"orthanc": ["ingest"], "worker": ["worker"]}.get(what, [*compose.services]):
        if not compose.services[name].profiles:
            _build(compose, context, name)
    if what != "all":
        return 0
    command = [sys.executable, "-m", "prichexy_testing.rehearsal", "inside"]
    command += ["--sample", str(sample)] if sample else []
    apart = [*NAMESPACES, "--mount", "--mount-proc", "--net", "--pid"]
    return subprocess.run([*apart, *command], check=False, cwd=REPO).returncode


def _build(compose: ComposeFile, context: BuildContext, name: str) -> Built:
    """Build the image of a service, or take it as it is when nothing has changed."""
    dockerfile, arguments, folder = _image_of(compose.services[name])
    return build(dockerfile, context, arguments, CACHE, folder)


def _image_of(service: Service) -> tuple[Path, dict[str, str], str]:
    """Give the Dockerfile, its build arguments and the folder of a service's image."""
    folder = service.image.replace(":", "-")
    if service.build is None:
        return STAND_INS[service.image], {}, folder
    dockerfile, arguments = REPO / service.build.dockerfile, dict(service.build.arguments)
    # Where pip's own configuration says where packages are, it says so for torch, too.
    configured = {"PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"} & set(pip_environment())
    if configured and "ARG TORCH_CPU_INDEX" in dockerfile.read_text(encoding="utf-8"):
        arguments["TORCH_CPU_INDEX"] = ""
    return dockerfile, arguments, folder


def _start_all(compose: ComposeFile, sample: Path | None) -> None:
    """Start all services; called in namespaces of its own, after the images were built."""
    raise_loopback()
    built: dict[str, Built] = {}
    for service in compose.started():
        dockerfile, arguments, folder = _image_of(service)
        built[service.image] = find_built(dockerfile, arguments, CACHE, folder)
    logs = CACHE / "logs"
    logs.mkdir(exist_ok=True)
    # In memory and in this mount namespace only: secrets and data are gone with it.
    running = CACHE / "running"
    running.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", running], check=True)
    hosts = running / "hosts"
    hosts.write_text(f"127.0.0.1 localhost {' '.join(compose.services)}\n", encoding="utf-8")
    place = Place(COMPOSE.parent, running / "secrets", running / "volumes", logs, hosts)
    rehearse(compose, built, place, sample)


def _compat(root: Path, arguments: Sequence[str]) -> int:
    """Run the system test with both Orthancs inside ``root``, its mounts gone with the test."""
    mounts = "".join(
        f'mount {options} "$0/{target}"; '
        for options, target in (("-t proc proc", "proc"), ("--rbind /dev", "dev"))
    )
    script = f'set -eu; {mounts}exec "$@"'
    apart = [*NAMESPACES, "--mount", "--mount-proc", "--pid"]
    command = [*apart, "/bin/sh", "-c", script, str(root)]
    without = [f"--ignore=tests/system/{name}" for name in NOT_OF_ORTHANC]
    marked = ["-m", "orthanc"]
    pytest = [sys.executable, "-m", "pytest", "tests/system", *marked, *without, *arguments]
    environment = {**os.environ, "PRICHEXY_TEST_ORTHANC_ROOT": str(root)}
    return subprocess.run([*command, *pytest], check=False, cwd=REPO, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
