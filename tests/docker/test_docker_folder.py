"""docker/ is consistent in itself, with the configuration and with the installation's lists."""

from __future__ import annotations

import ast
import os
import re
import subprocess
from pathlib import Path

import pytest

from prichexy_testing.rehearsal.base import SUITES
from prichexy_testing.rehearsal.compose import ComposeFile, Service, read_compose
from prichexy_testing.rehearsal.context import read_context
from prichexy_testing.rehearsal.recipe import Copy, Recipe, Run, read_recipe
from prichexy_worker.contract import SOFTWARE_VERSION
from prichexy_worker.settings import Limits, load_settings

REPO = Path(__file__).resolve().parents[2]
DOCKER = REPO / "docker"
DOCKERFILES = sorted([*DOCKER.glob("*.Dockerfile"), *Path(__file__).parent.glob("*.Dockerfile")])


@pytest.fixture(scope="module")
def compose() -> ComposeFile:
    return read_compose((DOCKER / "compose.yaml").read_text(encoding="utf-8"), {})


def recipe(dockerfile: Path) -> Recipe:
    return read_recipe(dockerfile.read_text(encoding="utf-8"), {})


def commands(dockerfile: Path) -> str:
    return "\n".join(step.argv[-1] for step in recipe(dockerfile).steps if isinstance(step, Run))


def image(service: Service) -> Recipe:
    assert service.build is not None
    arguments = service.build.arguments
    return read_recipe((REPO / service.build.dockerfile).read_text(encoding="utf-8"), arguments)


def entrypoint_text(service: Service) -> str:
    """What decides how the container starts: its entry point's text, or its settings' values."""
    if service.entrypoint:
        return " ".join(service.entrypoint)
    script = Path(image(service).image.entrypoint[0]).name
    return (DOCKER / script).read_text(encoding="utf-8") + " ".join(service.environment.values())


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_every_dockerfile_can_be_rehearsed(dockerfile: Path) -> None:
    made = recipe(dockerfile)
    assert made.base in SUITES
    files = read_context(REPO)
    absent = [
        source
        for step in made.steps
        if isinstance(step, Copy)
        for source in step.sources
        if not files.below(source)
    ]
    assert absent == []


@pytest.mark.parametrize("name", ["orthanc", "worker"])
def test_every_image_runs_as_a_user_without_rights_and_says_whether_it_is_well(name: str) -> None:
    made = recipe(DOCKER / f"{name}.Dockerfile").image
    assert made.user == "10001:10001"
    assert made.health is not None
    assert made.entrypoint


def test_every_image_installs_by_the_native_command_and_every_list_is_used() -> None:
    text = "\n".join(commands(dockerfile) for dockerfile in DOCKERFILES)
    roles = set(re.findall(r"script/install system (\w+)", text))
    assert roles | {"dev"} == {
        path.stem.removeprefix("apt-") for path in (REPO / "requirements").glob("apt-*.txt")
    }
    assert not re.search(r"apt-get install|pip install", text)
    assert "script/install python plugin" in commands(DOCKER / "orthanc.Dockerfile")
    assert "script/install python worker" in commands(DOCKER / "worker.Dockerfile")


def test_the_debian_list_for_tests_is_used_by_the_rehearsal() -> None:
    assert "script/install system dev" in (REPO / "script/images").read_text(encoding="utf-8")


def test_the_scripts_read_as_shell_and_python() -> None:
    for file in DOCKER.iterdir():
        first = file.read_text(encoding="utf-8").split("\n")[0] if file.is_file() else ""
        if "python" in first:
            ast.parse(file.read_text(encoding="utf-8"))
        elif first == "#!/bin/sh":
            subprocess.run(["sh", "-n", str(file)], check=True)
            assert os.access(file, os.X_OK)


def test_only_ingest_is_reached_from_outside_and_by_default_from_this_machine_only(
    compose: ComposeFile,
) -> None:
    for service in compose.services.values():
        outside = set(service.networks) - compose.internal_networks
        assert bool(service.ports) == bool(outside) == (service.name == "ingest")
        assert all(port.startswith("127.0.0.1:") for port in service.ports)


def test_only_workers_reach_both_the_originals_and_the_results(compose: ComposeFile) -> None:
    def reached(name: str) -> set[str]:
        own = set(compose.services[name].networks)
        return {
            other.name
            for other in compose.services.values()
            if own & set(other.networks) and other.name != name
        }

    workers = {"worker", "worker-cuda"}
    assert reached("export") == workers
    assert reached("ingest") == workers | {"redis"}
    assert reached("redis") == workers | {"ingest"}
    for name in workers:
        assert reached(name) >= {"ingest", "redis", "export"}
        assert set(compose.services[name].networks) <= compose.internal_networks


def test_every_service_is_hardened_and_has_a_health_check(compose: ComposeFile) -> None:
    for service in compose.services.values():
        assert service.read_only, service.name
        assert service.drops_all_capabilities, service.name
        assert service.no_new_privileges, service.name
        assert service.leaves_no_core, service.name
        assert service.pids_limit, service.name
        assert service.health or image(service).image.health, service.name
        user = service.user or image(service).image.user
        assert not user.startswith("0"), service.name


@pytest.mark.parametrize("name", ["worker", "worker-cuda"])
def test_what_opens_images_has_a_bound_of_memory_that_its_limits_fit_into(
    name: str, compose: ComposeFile
) -> None:
    worker = compose.services[name]
    assert worker.memory_limit is not None
    assert not worker.swaps
    gibibytes = int(worker.memory_limit.removesuffix("g"))
    # As docs/operating.md says, with images of 100 megapixels.
    assert gibibytes * 2**30 > 0.9e9 + 40 * 100e6 + Limits().study_bytes


def test_every_secret_of_a_service_is_consumed_when_it_starts(compose: ComposeFile) -> None:
    for service in compose.services.values():
        assert service.secrets, service.name
        for secret in service.secrets:
            assert secret.target in entrypoint_text(service), (service.name, secret.target)


def test_the_secrets_script_makes_exactly_the_secrets_that_are_used(compose: ComposeFile) -> None:
    script = (DOCKER / "make-secrets").read_text(encoding="utf-8")
    made = set(re.findall(r"^make (\w+) ", script, re.MULTILINE))
    files = [secret.file for service in compose.services.values() for secret in service.secrets]
    assert made == {Path(file).name for file in files}
    assert {str(Path(file).parent) for file in files} == {"secrets"}
    # No secret gets into the repository either.
    assert "/secrets/" in (DOCKER / ".gitignore").read_text(encoding="utf-8").split("\n")


@pytest.mark.parametrize("name", ["ingest", "export"])
def test_every_variable_that_orthanc_cannot_do_without_is_set(
    name: str, compose: ComposeFile
) -> None:
    configuration = (REPO / "orthanc-config" / f"{name}.json").read_text(encoding="utf-8")
    # A default that is no JSON makes Orthanc refuse to start without the variable.
    required = set(re.findall(r"\$\{(PRICHEXY_\w+)(?:\}|:-\\)", configuration))
    service = compose.services[name]
    given = {*service.environment, *image(service).image.environment}
    given |= set(re.findall(r"export_secret (PRICHEXY_\w+)", entrypoint_text(service)))
    assert required
    assert required <= given


def test_the_variables_of_the_image_are_known_to_orthancs_configuration() -> None:
    texts = [path.read_text(encoding="utf-8") for path in (REPO / "orthanc-config").iterdir()]
    known = set(re.findall(r"\$\{(PRICHEXY_\w+)", "".join(texts))) | {"PRICHEXY_ORTHANC"}
    given = recipe(DOCKER / "orthanc.Dockerfile").image.environment
    assert {name for name in given if name.startswith("PRICHEXY_")} <= known


@pytest.mark.parametrize("name", ["worker", "worker-cuda"])
def test_the_workers_settings_are_valid_once_the_secrets_are_there(
    name: str, compose: ComposeFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = compose.services[name]
    for variable in [name for name in os.environ if name.startswith("PRICHEXY_WORKER_")]:
        monkeypatch.delenv(variable)
    for variable, value in {**image(service).image.environment, **service.environment}.items():
        if variable.startswith("PRICHEXY_WORKER_"):
            monkeypatch.setenv(variable, value.replace("/run/secrets", str(tmp_path)))
    for secret in service.secrets:
        (tmp_path / secret.target).write_text("0" * 64, encoding="ascii")
    settings = load_settings()
    assert settings.export.kind == "orthanc"
    assert settings.model.device == ("cuda" if name.endswith("cuda") else "cpu")


def test_the_images_are_tagged_with_the_software_version(compose: ComposeFile) -> None:
    for service in compose.services.values():
        if service.build is not None:
            assert service.image.split(":")[1].split("-")[0] == SOFTWARE_VERSION


def test_the_compatibility_run_sets_the_variable_that_the_system_test_reads() -> None:
    testing = REPO / "tests" / "prichexy_testing"
    for reader in (testing / "gateway.py", testing / "rehearsal" / "__main__.py"):
        assert '"PRICHEXY_TEST_ORTHANC_ROOT"' in reader.read_text(encoding="utf-8")
