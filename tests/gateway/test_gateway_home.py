"""The gateway's own folder."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from prichexy_gateway.errors import Failed, Misconfigured
from prichexy_gateway.home import (
    PASSWORDS,
    Addresses,
    Home,
    Record,
    RunningProcess,
    default_home,
    read_secret,
    write_privately,
)
from prichexy_worker.pseudonyms import Pseudonyms

ADDRESSES = Addresses("http://h:1", "h", 2, "PRICHEXY", "http://h:3", "redis://h:4/0")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_set_up_makes_every_secret_readable_by_its_owner_alone(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    before = os.umask(0)
    try:
        home.prepare()
    finally:
        os.umask(before)

    assert mode(home.root) == 0o700
    assert mode(home.folder("secrets")) == 0o700
    for name in PASSWORDS:
        assert mode(home.password_file(name)) == 0o600
    assert mode(home.key_file) == 0o600
    assert Pseudonyms.from_key_file(home.key_file).key_id


def test_no_two_passwords_and_no_two_homes_are_alike(tmp_path: Path) -> None:
    one, other = Home(tmp_path / "one"), Home(tmp_path / "other")
    one.prepare()
    other.prepare()
    passwords = [home.password(name) for home in (one, other) for name in PASSWORDS]
    assert len(set(passwords)) == len(passwords)
    assert min(map(len, passwords)) >= 24


def test_setting_up_twice_keeps_passwords_and_key(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.prepare()
    first = {path: path.read_bytes() for path in home.folder("secrets").iterdir()}
    home.prepare()
    assert {path: path.read_bytes() for path in home.folder("secrets").iterdir()} == first


def test_a_second_gateway_in_the_same_home_is_refused(tmp_path: Path) -> None:
    with (
        Home(tmp_path).locked(),
        pytest.raises(Failed, match="Another gateway"),
        Home(tmp_path).locked(),
    ):
        pytest.fail("the lock was given twice")
    with Home(tmp_path).locked():
        pass  # free again


def test_the_record_of_a_start_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    record = Record(
        ADDRESSES, "/bundle", RunningProcess("prichexy", 1, 2), (RunningProcess("redis", 3, 4),)
    )
    home = Home(tmp_path)
    home.write_record(record)
    assert home.read_record() == record
    assert mode(home.record_file) == 0o600
    with home.locked():
        assert home.addresses() == ADDRESSES
    with pytest.raises(Failed, match=r"does not run now; .* Start it again: prichexy serve"):
        home.addresses()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 2}', '{"version": 1}'])
def test_a_damaged_record_counts_as_none(tmp_path: Path, text: str) -> None:
    home = Home(tmp_path)
    home.record_file.write_text(text)
    assert home.read_record() is None
    with pytest.raises(Failed, match="No gateway has run"):
        home.addresses()


def test_a_secret_that_was_world_readable_is_private_after_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("old")
    path.chmod(0o644)
    write_privately(path, "new\n")
    assert mode(path) == 0o600
    assert read_secret(path) == "new"
    assert [item.name for item in tmp_path.iterdir()] == ["secret"]


def test_a_missing_secret_is_named_by_its_file(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"admin\.password"):
        Home(tmp_path).password("admin")


def test_the_environment_names_another_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRICHEXY_HOME", str(tmp_path))
    assert default_home() == tmp_path
    monkeypatch.delenv("PRICHEXY_HOME")
    assert default_home().name == ".gateway"
