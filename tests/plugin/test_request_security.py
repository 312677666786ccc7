"""Who may change something."""

from __future__ import annotations

import base64

import pytest

from prichexy_plugin import pictures
from prichexy_plugin.security import (
    ATTACHMENTS,
    Role,
    Roles,
    allows,
    named_attachments,
    named_changers,
    named_user,
    user_of,
)
from prichexy_testing.fake_orthanc import orthanc_id
from prichexy_worker.contract import API_ROOT

POST = 2
ID = orthanc_id("a")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"sec-fetch-site": "same-origin", "origin": "http://gateway:8042"},
        {"user-agent": "curl/7.88.1", "accept": "*/*"},
        {"user-agent": "node", "accept-language": "*"},
        {"user-agent": "Mozilla/5.0", "origin": "http://gateway:8042", "host": "gateway:8042"},
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
        # A link in a mail, or an address that was typed.
        {"sec-fetch-site": "none"},
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


@pytest.mark.parametrize(
    "headers",
    [
        {"user-agent": "Mozilla/5.0 (X11; Linux x86_64) Chrome/140"},
        {"accept-language": "de-DE,de;q=0.9"},
        {"user-agent": "Opera/9", "accept-language": "en"},
    ],
)
@pytest.mark.parametrize("method", [3, 4])
def test_a_browser_that_names_no_page_follows_a_link_and_changes_nothing(
    method: int, headers: dict[str, str]
) -> None:
    assert not allows(f"/studies/{ID}", method=method, headers=headers)
    assert allows(f"/studies/{ID}", method=1, headers=headers)
    assert allows("/tools/find", method=POST, headers=headers), "which no link can be"


def test_a_link_from_another_site_may_be_followed() -> None:
    assert allows("/prichexy", method=1, headers={"sec-fetch-site": "cross-site"})


def _as_user(method: int, uri: str, user: str = "worker") -> bool:
    token = base64.b64encode(f"{user}:secret".encode()).decode()
    headers = {"authorization": f"Basic {token}"}
    return allows(
        uri,
        method=method,
        headers=headers,
        worker_user="worker",
        monitor_user="watch",
        changers=frozenset({"admin", "omar"}),
        ip="127.0.0.1",
        get={},
    )


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
        (2, f"{API_ROOT}/patients"),
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
        (2, "/tools/lookup"),
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
    "uri",
    [
        "/system",
        "/tools/metrics-prometheus",
        "/prichexy/metrics",
        f"{API_ROOT}/health",
        f"{API_ROOT}/ready",
    ],
)
def test_who_watches_over_the_gateway_may_read_how_it_does(uri: str) -> None:
    assert _as_user(1, uri, user="watch")
    assert not _as_user(2, uri, user="watch")
    assert not _as_user(4, uri, user="watch")


@pytest.mark.parametrize(
    "uri",
    [
        *("/studies", "/changes", "/patients", "/statistics", "/prichexy", "/prichexy/audit"),
        *(f"/instances/{ID}/file", f"{API_ROOT}/studies", "/prichexy/metrics/", "/system\n"),
    ],
)
def test_who_watches_over_the_gateway_may_read_nothing_of_a_study(uri: str) -> None:
    assert not _as_user(1, uri, user="watch")


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
    assert named_user(configuration, "WorkerUser") == user
    as_monitor = configuration.replace("WorkerUser", "MonitorUser")
    assert named_user(as_monitor, "MonitorUser") == user


def test_the_user_is_read_from_what_orthanc_let_through() -> None:
    token = base64.b64encode(b"worker:pass:word").decode()
    assert user_of({"authorization": f"Basic {token}"}) == "worker"


@pytest.mark.parametrize(
    "value", ["", "Bearer abc", "Basic", "Basic !!!", "Basic d29ya2Vy", "Basic /w==", "Basic é"]
)
def test_what_names_no_user_is_no_user(value: str) -> None:
    assert user_of({"authorization": value}) is None


@pytest.mark.parametrize(
    ("method", "uri", "may"),
    [
        (1, "/studies", True),
        (1, "/prichexy/studies", True),
        (2, "/tools/find", True),
        (2, "/tools/lookup", True),
        (2, "/instances", False),
        (2, "/tools/reset", False),
        (2, f"/prichexy/studies/{'0' * 32}/retry", False),
        (3, "/tools/find", False),
        (4, f"/studies/{ID}", False),
    ],
)
def test_who_is_no_operator_reads_all_of_orthanc_and_changes_nothing_there(
    method: int, uri: str, may: bool
) -> None:
    """Whether a viewer or in no list at all: being taken out of one gives nobody a right."""
    changers = frozenset({"admin", "omar"})
    assert _as_user(method, uri, user="vera") is may
    assert _as_user(method, uri, user="omar")
    assert allows(uri, method=method, headers={}, changers=changers) is may, "who has no name"
    assert allows(uri, method=method, headers={}), "without Roles"


@pytest.mark.parametrize(
    ("configuration", "changers"),
    [
        (
            '{"PriCheXy": {"Roles": {"Operators": [" o ", 5], "Administrators": ["a"]}}}',
            {"o", "a"},
        ),
        ('{"PriCheXy": {"Roles": {"Operators": ["o"]}, "Broker": 5}}', {"o"}),
        ('{"PriCheXy": {"Roles": {"Operators": "o", "Administrators": ["a"]}}}', {"a"}),
        ('{"PriCheXy": {"Roles": {}}}', set()),
        ('{"PriCheXy": {"Roles": 5}}', set()),
        ('{"PriCheXy": {"Roles": null}}', None),
        ('{"PriCheXy": {}}', None),
        ('{"PriCheXy": []}', None),
        ("", None),
    ],
)
def test_who_may_change_something_is_known_even_when_the_rest_is_wrong(
    configuration: str, changers: set[str] | None
) -> None:
    assert named_changers(configuration) == changers


def test_all_that_the_plugin_keeps_as_attachments_is_its_own() -> None:
    assert set(ATTACHMENTS) >= pictures._OURS


@pytest.mark.parametrize(
    "name", [*map(str, (20569, 20592, 20736, 21247)), "020581", "+20581", "20581/data", "ours"]
)
@pytest.mark.parametrize("level", ["patients", "studies", "series", "instances"])
def test_nobody_replaces_or_deletes_the_plugins_pictures(level: str, name: str) -> None:
    uri = f"/{level}/{ID}/attachments/{name}"
    for method, may in ((1, True), (3, False), (4, False)):
        assert allows(uri, method=method, headers={}, attachments=frozenset({"ours"})) is may
    theirs = f"/{level}/{ID}/attachments/4999"
    assert allows(theirs, method=4, headers={}, attachments=frozenset({"ours"}))


@pytest.mark.parametrize(
    ("configuration", "names"),
    [
        ('{"UserContentType": {"a": 20581, "b": [20600, "image/png"], "c": 5000}}', {"a", "b"}),
        ('{"UserContentType": {"a": []}}', set()),
        ('{"UserContentType": 5}', set()),
        ("{}", set()),
        ("[]", set()),
        ("", set()),
    ],
)
def test_names_for_the_plugins_numbers_are_known(configuration: str, names: set[str]) -> None:
    assert named_attachments(configuration) == names


def test_who_is_not_named_has_no_role_once_anybody_is_named() -> None:
    assert Roles().of("admin") is Role.ADMINISTRATOR
    assert Roles().of(None) is Role.VIEWER
    named = Roles({"omar": Role.OPERATOR})
    assert named.of("omar") is Role.OPERATOR
    assert named.of("admin") is Role.NOBODY
    assert named.of(None) is Role.NOBODY
    assert Roles({}).of("admin") is Role.NOBODY
