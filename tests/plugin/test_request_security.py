"""Who may change something."""

from __future__ import annotations

import base64

import pytest

from prichexy_plugin.security import allows, named_worker_user, user_of
from prichexy_testing.fake_orthanc import orthanc_id
from prichexy_worker.contract import API_ROOT

POST = 2


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"sec-fetch-site": "same-origin", "origin": "http://gateway:8042"},
        {"sec-fetch-site": "none"},
        {"origin": "http://gateway:8042", "host": "gateway:8042"},
        {"origin": "https://Gateway", "host": "gateway"},
    ],
)
@pytest.mark.parametrize("method", [2, 3, 4])
def test_programs_and_own_pages_may_change_things(method: int, headers: dict[str, str]) -> None:
    assert allows("/studies", method=method, headers=headers, ip="127.0.0.1", get={})


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "http://evil", "host": "gateway:8042"},
        {"origin": "http://gateway", "host": "gateway:8042"},
        {"origin": "null", "host": "gateway:8042"},
        {"origin": "null", "host": ""},
        {"origin": "", "host": ""},
        {"origin": "http://gateway:8042"},
        {"origin": "http://[", "host": "gateway:8042"},
    ],
)
@pytest.mark.parametrize("method", [2, 3, 4])
def test_another_sites_page_may_not(method: int, headers: dict[str, str]) -> None:
    assert not allows("/studies", method=method, headers=headers)


def test_a_link_from_another_site_may_be_followed() -> None:
    assert allows("/prichexy", method=1, headers={"sec-fetch-site": "cross-site"})


ID = orthanc_id("a")


def _as_user(method: int, uri: str, user: str = "worker") -> bool:
    token = base64.b64encode(f"{user}:secret".encode()).decode()
    headers = {"authorization": f"Basic {token}"}
    return allows(uri, method=method, headers=headers, worker_user="worker", ip="127.0.0.1", get={})


@pytest.mark.parametrize(
    ("method", "uri"),
    [
        (1, "/system"),
        (1, f"/studies/{ID}"),
        (1, f"/studies/{ID}/instances"),
        (1, f"/instances/{ID}/file"),
        (1, f"{API_ROOT}/health"),
        (2, f"{API_ROOT}/reports"),
        (2, f"{API_ROOT}/workers"),
        (2, "/tools/lookup"),
    ],
)
def test_the_workers_user_may_do_what_workers_do(method: int, uri: str) -> None:
    assert _as_user(method, uri)


@pytest.mark.parametrize(
    ("method", "uri"),
    [
        (1, "/studies"),
        (1, "/patients"),
        (1, "/changes"),
        (1, f"/studies/{ID}/archive"),
        (1, f"/instances/{ID}/simplified-tags"),
        (1, "/prichexy"),
        (1, f"{API_ROOT}/studies"),
        (1, f"{API_ROOT}/reports"),
        (1, f"/studies/{ID}\n"),
        (2, "/instances"),
        (2, "/tools/find"),
        (2, "/modalities/x/store"),
        (2, f"/studies/{ID}"),
        (3, "/modalities/x"),
        (3, f"{API_ROOT}/reports"),
        (4, f"/studies/{ID}"),
        (4, f"/instances/{ID}/file"),
    ],
)
def test_the_workers_user_may_do_nothing_else_and_other_users_may(method: int, uri: str) -> None:
    assert not _as_user(method, uri)
    assert _as_user(method, uri, user="admin")


@pytest.mark.parametrize(
    ("configuration", "user"),
    [
        ('{"PriCheXy": {"WorkerUser": " worker "}}', "worker"),
        ('{"PriCheXy": {"WorkerUser": "w", "Broker": 5}}', "w"),
        ('{"PriCheXy": {"WorkerUser": null}}', None),
        ('{"PriCheXy": {"WorkerUser": 5}}', None),
        ('{"PriCheXy": []}', None),
        ("{}", None),
        ("[]", None),
        ("", None),
    ],
)
def test_the_workers_user_is_known_even_when_the_rest_is_wrong(
    configuration: str, user: str | None
) -> None:
    assert named_worker_user(configuration) == user


def test_the_user_is_read_from_what_orthanc_let_through() -> None:
    token = base64.b64encode(b"worker:pass:word").decode()
    assert user_of({"authorization": f"Basic {token}"}) == "worker"


@pytest.mark.parametrize(
    "value", ["", "Bearer abc", "Basic", "Basic !!!", "Basic d29ya2Vy", "Basic /w==", "Basic é"]
)
def test_what_names_no_user_is_no_user(value: str) -> None:
    assert user_of({"authorization": value}) is None
