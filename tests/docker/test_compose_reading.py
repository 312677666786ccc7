"""The rehearsal understands each key of the compose file, or refuses it."""

from __future__ import annotations

import pytest
import yaml

from prichexy_testing.rehearsal.compose import ComposeError, ComposeFile, read_compose


def compose(service: dict[str, object], **top: object) -> ComposeFile:
    services = {"one": {"image": "i", **service}, "two": {"image": "i"}}
    return read_compose(yaml.safe_dump({"services": services, **top}), {"SET": "value"})


@pytest.mark.parametrize(
    "service",
    [
        {"privileged": True},
        {"command": "a shell command"},
        {"networks": ["unknown"]},
        {"volumes": ["unknown:/data"]},
        {"volumes": ["/etc:/data"]},
        {"secrets": ["unknown"]},
        {"depends_on": {"one": {"condition": "service_healthy"}}},
        {"depends_on": {"two": {"condition": "service_started"}}},
        {"healthcheck": {"test": "true"}},
        {"healthcheck": {"test": ["CMD", "true"], "start_interval": "1s"}},
        {"build": {"context": "."}},
    ],
)
def test_what_is_not_rehearsed_is_refused(service: dict[str, object]) -> None:
    with pytest.raises(ComposeError):
        compose(service)


def test_an_unknown_part_of_the_file_is_refused() -> None:
    with pytest.raises(ComposeError, match="configs"):
        compose({}, configs={})


def test_variables_are_filled_in_and_two_dollars_are_one() -> None:
    one = compose({"entrypoint": ["${SET} ${NONE:-default}", r"$$(cat x) '%s\n'"]}).services["one"]
    assert one.entrypoint == ("value default", r"$(cat x) '%s\n'")


def test_environment_values_are_as_docker_writes_them() -> None:
    one = compose({"environment": {"A": True, "B": 5, "C": "x"}}).services["one"]
    assert one.environment == {"A": "true", "B": "5", "C": "x"}


def test_a_service_comes_after_those_it_depends_on() -> None:
    waiting = compose({"depends_on": {"two": {"condition": "service_healthy"}}})
    assert list(waiting.services) == ["two", "one"]


def test_a_service_with_a_profile_is_not_started() -> None:
    started = compose({"profiles": ["cuda"]}).started()
    assert [service.name for service in started] == ["two"]
