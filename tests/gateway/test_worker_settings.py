"""What a file adds to the settings of the worker that ``prichexy serve`` starts."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest

from prichexy_gateway.errors import Misconfigured
from prichexy_gateway.home import Home
from prichexy_gateway.worker_settings import (
    export_elsewhere,
    load_settings_at,
    merged,
    read_sections,
    toml,
)
from prichexy_worker.settings import CONFIG_VARIABLE


def generated(home: Home) -> dict[str, dict[str, str | float | bool]]:
    return {
        "ingest": {"url": "http://127.0.0.1:1", "user": "worker"},
        "broker": {"url": "redis://127.0.0.1:2/0"},
        "export": {
            "kind": "orthanc",
            "url": "http://127.0.0.1:3",
            "password_file": str(home.password_file("export")),
        },
        "pseudonyms": {"key_file": str(home.key_file)},
        "model": {"bundle": str(home.root), "device": "cpu"},
    }


def given(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text)
    return path


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.prepare()
    return home


def test_given_keys_win_and_the_others_stay(home: Home, tmp_path: Path) -> None:
    mine = given(tmp_path, "[limits]\ninstances = 5\n[model]\nthreads = 2\n")
    written = tmp_path / "worker.toml"
    written.write_text(toml(merged(generated(home), read_sections(mine))))
    settings = load_settings_at(written)
    assert settings.limits.instances == 5
    assert (settings.model.threads, settings.model.device) == (2, "cpu")
    assert settings.export_targets()["export"].place == "http://127.0.0.1:3"


def test_another_export_peer_is_not_sent_our_peers_password(home: Home, tmp_path: Path) -> None:
    mine = given(tmp_path, '[export]\nkind = "orthanc"\nurl = "https://research.example"\n')
    sections = merged(generated(home), read_sections(mine))
    assert sections["export"] == {"kind": "orthanc", "url": "https://research.example"}


def test_targets_by_name_stand_in_our_peers_place(home: Home, tmp_path: Path) -> None:
    mine = given(
        tmp_path,
        f"""
        [targets.research]
        kind = "orthanc"
        url = "https://research.example"
        default = true
        [targets.archive]
        kind = "folder"
        folder = "{tmp_path}/archive"
        """,
    )
    sections = merged(generated(home), read_sections(mine))
    assert "export" not in sections
    assert export_elsewhere(read_sections(mine))
    written = tmp_path / "worker.toml"
    written.write_text(toml(sections))
    targets = load_settings_at(written).export_targets()
    assert {name: target.kind for name, target in targets.items()} == {
        "research": "orthanc",
        "archive": "folder",
    }
    assert targets["research"].password_file is None


@pytest.mark.parametrize(
    ("text", "elsewhere"),
    [
        ("[export]\ntimeout = 5", False),
        ('[export]\nkind = "folder"\nfolder = "/f"', True),
        ("", False),
    ],
)
def test_our_peer_is_started_unless_another_target_is_named(
    tmp_path: Path, text: str, elsewhere: bool
) -> None:
    assert export_elsewhere(read_sections(given(tmp_path, text))) is elsewhere


def test_what_was_written_is_toml_whatever_it_holds(tmp_path: Path) -> None:
    sections = {"export": {"folder": 'C:\\a "b"', "timeout": 1.5, "x": True, "n": 3}}
    assert tomllib.loads(toml(sections)) == sections


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('[ingest]\nurl = "http://elsewhere"', "ingest.url is set by"),
        ('[broker]\nqueue = "other"', "broker.queue is set by"),
        ('[export]\nkind = "orthanc"\npassword = "CANARY"', "password_file"),
        ('[targets.a]\nkind = "orthanc"\npassword = "CANARY"', "targets.a.password"),
        ('targets = "CANARY"', "targets is no section"),
        ('worker_id = "CANARY"', "worker_id is no section"),
        ("[model]\nthreads = [1]", "model.threads"),
        ("CANARY", "not TOML"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_key(
    tmp_path: Path, text: str, complaint: str
) -> None:
    with pytest.raises(Misconfigured, match=complaint) as refused:
        read_sections(given(tmp_path, text))
    assert "CANARY" not in str(refused.value)


def test_reading_the_settings_leaves_the_environment_as_it_was(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(CONFIG_VARIABLE, raising=False)
    written = tmp_path / "worker.toml"
    written.write_text(toml(generated(home)))
    load_settings_at(written)
    assert CONFIG_VARIABLE not in os.environ
