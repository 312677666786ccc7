"""Who may change something."""

from __future__ import annotations

import base64

import pytest

from prichexy_plugin.security import allows, user_of

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
    ],
)
@pytest.mark.parametrize("method", [2, 3, 4])
def test_another_sites_page_may_not(method: int, headers: dict[str, str]) -> None:
    assert not allows("/studies", method=method, headers=headers)


def test_a_link_from_another_site_may_be_followed() -> None:
    assert allows("/prichexy", method=1, headers={"sec-fetch-site": "cross-site"})


def test_the_user_is_read_from_what_orthanc_let_through() -> None:
    token = base64.b64encode(b"worker:pass:word").decode()
    assert user_of({"authorization": f"Basic {token}"}) == "worker"


@pytest.mark.parametrize(
    "value", ["", "Bearer abc", "Basic", "Basic !!!", "Basic d29ya2Vy", "Basic /w==", "Basic é"]
)
def test_what_names_no_user_is_no_user(value: str) -> None:
    assert user_of({"authorization": value}) is None
