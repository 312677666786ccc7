"""At the shipped export Orthanc the workers' user may do what the worker does, and nothing else.

That all which the worker does is let through, tests/worker/test_orthanc_rim.py shows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from prichexy_gateway.home import Addresses, Home, checkout
from prichexy_gateway.native import CALLED_AET
from prichexy_gateway.orthanc_runtime import native_runtime
from prichexy_gateway.services import LOOPBACK, Plan, export_service
from prichexy_gateway.supervisor import Supervisor
from prichexy_testing.gateway import needs_native_parts
from prichexy_testing.servers import free_port

NOTHING = "0a1b2c3d-0a1b2c3d-0a1b2c3d-0a1b2c3d-0a1b2c3d"  # an id that no instance has


def plan_in(folder: Path) -> Plan:
    home = Home(folder / "gateway")
    home.prepare()
    ports = [free_port() for _ in range(4)]
    return Plan(
        home=home,
        addresses=Addresses(
            ingest_url=f"http://{LOOPBACK}:{ports[0]}",
            dicom_host=LOOPBACK,
            dicom_port=ports[1],
            dicom_aet=CALLED_AET,
            export_url=f"http://{LOOPBACK}:{ports[2]}",
            broker_url=f"redis://{LOOPBACK}:{ports[3]}/0",
        ),
        runtime=native_runtime(),
        orthanc_config=checkout() / "orthanc-config",
        model_bundle=folder,
        stable_age=1,
        device="cpu",
    )


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plan]:
    """The export Orthanc as `prichexy serve` runs it."""
    needs_native_parts()
    plan = plan_in(tmp_path_factory.mktemp("export"))
    with Supervisor(lambda _processes: None) as supervisor:
        supervisor.start(export_service(plan))
        supervisor.wait_until_ready("export")
        yield plan


def asked(plan: Plan, user: str, method: str, path: str, **more: object) -> int:
    """Give the status of the answer to ``user``, "gateway" or "admin"."""
    password = plan.home.password("export" if user == "gateway" else "admin")
    with httpx.Client(base_url=plan.addresses.export_url, trust_env=False, timeout=60) as client:
        return client.request(
            method,
            path,
            auth=(user, password),
            **more,  # type: ignore[arg-type]
        ).status_code


@pytest.mark.orthanc
@pytest.mark.parametrize(
    ("method", "path"),
    [
        # Looking round.
        ("GET", "/"),
        ("GET", "/app/explorer.html"),
        ("GET", "/instances"),
        ("GET", "/studies"),
        ("GET", "/patients"),
        ("GET", "/changes"),
        ("GET", "/statistics"),
        ("GET", "/tools/metrics-prometheus"),
        ("POST", "/tools/find"),
        # More of what is stored than is read back.
        ("GET", f"/studies/{NOTHING}/archive"),
        ("GET", f"/instances/{NOTHING}/attachments"),
        # Making something of it, sending it on, deleting more.
        ("POST", f"/studies/{NOTHING}/modify"),
        ("POST", "/tools/create-dicom"),
        ("POST", "/modalities/pacs/store"),
        ("PUT", "/modalities/pacs"),
        ("PUT", "/peers/elsewhere"),
        ("POST", "/tools/bulk-delete"),
        ("DELETE", f"/patients/{NOTHING}"),
        ("DELETE", f"/series/{NOTHING}"),
        ("DELETE", "/changes"),
        ("DELETE", "/exports"),
        # The server itself.
        ("POST", "/tools/shutdown"),
        ("POST", "/tools/reset"),
        ("POST", "/tools/execute-script"),
        ("PUT", "/tools/log-level"),
        # Other ways to say it.
        ("GET", f"/instances/{NOTHING}/../../studies"),
        ("GET", "//studies"),
        ("GET", "/system/../studies"),
        ("POST", f"/patients/{NOTHING}?_method=DELETE"),
        ("PROPFIND", "/webdav/"),
    ],
)
def test_the_workers_user_is_refused_all_that_no_worker_asks_for(
    export: Plan, method: str, path: str
) -> None:
    assert asked(export, "gateway", method, path, content=b"{}") == httpx.codes.FORBIDDEN


@pytest.mark.orthanc
def test_another_method_by_a_header_is_judged_as_that_method(export: Plan) -> None:
    headers = {"X-HTTP-Method-Override": "DELETE"}
    status = asked(export, "gateway", "POST", "/instances", content=b"no DICOM", headers=headers)
    assert status == httpx.codes.FORBIDDEN


@pytest.mark.orthanc
@pytest.mark.parametrize(
    ("method", "path", "content"),
    [
        ("GET", "/studies", b""),
        ("GET", "/app/explorer.html", b""),
        ("POST", "/tools/find", b'{"Level": "Study", "Query": {}}'),
        ("PUT", "/tools/log-level", b"default"),
        ("DELETE", "/changes", b""),
    ],
)
def test_people_may_do_everything(export: Plan, method: str, path: str, content: bytes) -> None:
    assert asked(export, "admin", method, path, content=content) == httpx.codes.OK


def test_an_orthanc_in_a_folder_finds_the_filter_beside_its_configuration(tmp_path: Path) -> None:
    needs_native_parts()
    plan = plan_in(tmp_path)
    service = export_service(replace(plan, runtime=replace(plan.runtime, root=tmp_path)))
    configuration = tmp_path / service.command[-1].removeprefix("/")
    shipped = checkout() / "orthanc-config" / "export-filter.lua"
    assert (configuration.parent / shipped.name).read_bytes() == shipped.read_bytes()
