"""The worker's settings: one place, checked at start, silent about values."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest
from pydantic import ValidationError

from prichexy_worker.errors import Misconfigured
from prichexy_worker.settings import Settings, load_settings
from prichexy_worker.target_settings import OrthancPeer, default_names, told_targets

SECRET = "hunter2-very-secret"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with what is required, named by the environment."""
    path = tmp_path / "worker.toml"
    path.write_text(
        """
        [ingest]
        url = "http://127.0.0.1:8042/"
        [broker]
        url = "redis://127.0.0.1:6379/0"
        [export]
        kind = "orthanc"
        url = "https://export.example:8043"
        [pseudonyms]
        key_file = "/etc/prichexy/key"
        [model]
        bundle = "/usr/share/prichexy/bundle"
        """
    )
    monkeypatch.setenv("PRICHEXY_WORKER_CONFIG", str(path))
    return path


def complaint() -> str:
    with pytest.raises(Misconfigured) as caught:
        load_settings()
    assert caught.value.__cause__ is None
    assert SECRET not in str(caught.value)
    return str(caught.value)


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def test_a_worker_is_not_called_as_the_plugin_is(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRICHEXY_WORKER_WORKER_ID", "plugin")
    assert "worker_id" in complaint()


def test_the_required_keys_are_enough(config: Path) -> None:
    settings = load_settings()
    assert settings.ingest.url == "http://127.0.0.1:8042"
    assert settings.ingest.timeout == 60
    assert settings.broker.queue == "prichexy"
    assert settings.model.device == "auto"
    assert settings.limits.instances == 64
    assert settings.limits.study_bytes == 2**30
    assert settings.output.syntax == "explicit-little-endian"
    assert settings.worker_id


def test_an_environment_variable_wins_over_the_file(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRICHEXY_WORKER_BROKER__QUEUE", "night")
    monkeypatch.setenv("PRICHEXY_WORKER_WORKER_ID", "worker-7")
    settings = load_settings()
    assert settings.broker.queue == "night"
    assert settings.broker.url == "redis://127.0.0.1:6379/0"  # from the file, same section
    assert settings.worker_id == "worker-7"


def test_two_workers_of_one_machine_have_two_names(config: Path) -> None:
    settings = load_settings()
    names = {settings.of_process(pid).worker_id for pid in (4711, 4712)}
    assert names == {f"{settings.worker_id}-4711", f"{settings.worker_id}-4712"}


def test_the_only_worker_of_a_container_has_the_containers_name(config: Path) -> None:
    """Its health check reads the same settings in a process of another number."""
    settings = load_settings()
    assert settings.of_process(1).worker_id == settings.worker_id


def test_a_name_that_was_given_is_used_as_it_stands(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRICHEXY_WORKER_WORKER_ID", "worker-7")
    assert load_settings().of_process(4711).worker_id == "worker-7"


def test_a_study_is_given_back_before_the_broker_takes_its_worker_for_lost(config: Path) -> None:
    broker = load_settings().broker
    assert 0 < broker.study_seconds() < broker.attempt_seconds() < broker.redelivery_seconds
    # What is left is enough for a request under way, and those that withdraw and report.
    assert broker.redelivery_seconds - broker.study_seconds() >= 5 * load_settings().ingest.timeout
    # No removal is under way any more when another worker gets the study.
    settings = load_settings()
    (target,) = settings.export_targets().values()
    assert isinstance(target, OrthancPeer)
    latest = broker.withdrawal_seconds() + target.timeout
    assert broker.study_seconds() < latest < broker.redelivery_seconds


def test_the_environment_alone_is_enough(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PRICHEXY_WORKER_CONFIG", raising=False)
    for key, value in {
        "INGEST__URL": "http://ingest:8042",
        "BROKER__URL": "redis://redis:6379/0",
        "EXPORT__KIND": "folder",
        "EXPORT__FOLDER": str(tmp_path),
        "PSEUDONYMS__KEY_FILE": "/run/secrets/key",
        "MODEL__BUNDLE": "/bundle",
    }.items():
        monkeypatch.setenv(f"PRICHEXY_WORKER_{key}", value)
    assert load_settings().export_targets()["export"].place == str(tmp_path)


def test_a_missing_key_is_named(config: Path) -> None:
    config.write_text(config.read_text().replace('bundle = "/usr/share/prichexy/bundle"', ""))
    assert "model.bundle" in complaint()


def test_an_unknown_key_is_named(config: Path) -> None:
    append(config, f'\n[limits]\ninstanses = "{SECRET}"\n')
    assert "limits.instanses" in complaint()


def test_an_unknown_section_in_the_file_is_named(config: Path) -> None:
    append(config, "\n[limit]\ninstances = 3\n")
    assert "limit" in complaint()


def test_an_unknown_section_in_the_environment_is_named(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRICHEXY_WORKER_BROKR__URL", SECRET)
    assert "PRICHEXY_WORKER_BROKR__URL" in complaint()


@pytest.mark.parametrize("section", ["text", "gate", "check"])
def test_no_setting_turns_the_release_gate_off(
    config: Path, monkeypatch: pytest.MonkeyPatch, section: str
) -> None:
    monkeypatch.setenv(f"PRICHEXY_WORKER_{section.upper()}__CHECK", "false")
    assert "no such setting" in complaint()
    monkeypatch.delenv(f"PRICHEXY_WORKER_{section.upper()}__CHECK")
    append(config, f"\n[{section}]\ncheck = false\n")
    assert section in complaint()


def test_a_variable_of_someone_else_is_no_setting(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRICHEXY_WORKER_PASSWORD", SECRET)  # the ingest Orthanc's
    assert SECRET not in repr(load_settings())


def test_a_secret_in_the_file_is_refused(config: Path) -> None:
    config.write_text(config.read_text().replace("[broker]", f'[broker]\npassword = "{SECRET}"'))
    text = complaint()
    assert "broker.password" in text
    assert "password_file" in text


@pytest.mark.parametrize("section", ["ingest", "broker", "export"])
def test_a_secret_comes_from_a_file_without_its_line_break(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, section: str
) -> None:
    secret = tmp_path / "secret"
    secret.write_text(f"{SECRET} \n")
    monkeypatch.setenv(f"PRICHEXY_WORKER_{section.upper()}__PASSWORD_FILE", str(secret))
    assert getattr(load_settings(), section).secret() == f"{SECRET} "


def test_a_secret_from_the_environment_is_never_shown(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRICHEXY_WORKER_BROKER__PASSWORD", SECRET)
    settings = load_settings()
    assert settings.broker.secret() == SECRET
    assert SECRET not in repr(settings)
    assert SECRET not in settings.model_dump_json()


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff\xfe"])
def test_an_unusable_secret_file_is_named_by_its_key(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("PRICHEXY_WORKER_INGEST__PASSWORD_FILE", str(path))
    assert complaint().startswith("ingest: ")


def test_two_secrets_for_one_server_are_refused(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "secret"
    path.write_text(SECRET)
    monkeypatch.setenv("PRICHEXY_WORKER_EXPORT__PASSWORD", SECRET)
    monkeypatch.setenv("PRICHEXY_WORKER_EXPORT__PASSWORD_FILE", str(path))
    assert "both given" in complaint()


@pytest.mark.parametrize(
    "url",
    [
        f"http://admin:{SECRET}@127.0.0.1:8042",
        "ftp://127.0.0.1",
        "127.0.0.1:8042",
        "http://",
        f"http://127.0.0.1:{SECRET}",
        "http://[::1",
    ],
)
def test_an_address_with_a_secret_or_without_sense_is_refused_and_not_repeated(
    config: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("PRICHEXY_WORKER_INGEST__URL", url)
    assert "ingest.url" in complaint()


@pytest.mark.parametrize(
    "url", ["redis://h:6379/1", "rediss://h:6379/1", "redis+socket:///run/redis.sock"]
)
def test_the_broker_may_be_reached_by_tcp_tls_or_socket(
    config: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("PRICHEXY_WORKER_BROKER__URL", url)
    assert load_settings().broker.url == url


@pytest.mark.parametrize("which", ["key_file", "retired_key_files"])
def test_a_key_beside_the_results_is_refused(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    config.write_text(config.read_text().replace('url = "https://export.example:8043"', ""))
    monkeypatch.setenv("PRICHEXY_WORKER_EXPORT__KIND", "folder")
    monkeypatch.setenv("PRICHEXY_WORKER_EXPORT__FOLDER", str(tmp_path))
    inside = str(tmp_path / "keys" / ".." / "key")
    value = inside if which == "key_file" else f'["{inside}"]'
    monkeypatch.setenv(f"PRICHEXY_WORKER_PSEUDONYMS__{which.upper()}", value)
    assert "a key file lies in export.folder" in complaint()


@pytest.mark.parametrize("kind", ["orthanc", "folder"])
def test_an_export_says_where_to(config: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    config.write_text(config.read_text().replace('url = "https://export.example:8043"', ""))
    monkeypatch.setenv("PRICHEXY_WORKER_EXPORT__KIND", kind)
    assert "export" in complaint()


def test_a_file_that_is_absent_is_not_taken_for_an_empty_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PRICHEXY_WORKER_CONFIG", str(tmp_path / "absent.toml"))
    assert "PRICHEXY_WORKER_CONFIG" in complaint()


def test_a_file_that_is_not_toml_is_complained_about_by_place(config: Path) -> None:
    config.write_text(f"[ingest]\npassword {SECRET}\n")
    assert "line 2" in complaint()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MODEL__DEVICE", "gpu"),
        ("MODEL__DEVICE", "cuda:first"),
        ("MODEL__THREADS", "0"),
        ("LIMITS__INSTANCES", "-1"),
        ("OUTPUT__SYNTAX", "jpeg"),
        ("BROKER__REDELIVERY_SECONDS", "1"),
        ("WORKER_ID", "a worker"),
    ],
)
def test_a_value_out_of_range_names_its_key(
    config: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(f"PRICHEXY_WORKER_{variable}", value)
    assert variable.lower().replace("__", ".") in complaint()


def test_settings_cannot_be_altered(config: Path) -> None:
    settings: Settings = load_settings()
    with pytest.raises(ValidationError):
        settings.limits.instances = 1


# --- export targets by name -----------------------------------------------------------------

TWO = """
[targets.research]
kind = "orthanc"
url = "https://research.example"
default = true
[targets.archive]
kind = "folder"
folder = "/srv/archive"
"""


def name_targets(config: Path, text: str) -> None:
    """Put targets by name into the place of the section export."""
    before, _export, after = re.split(r"\[export\]|\[pseudonyms\]", config.read_text())
    config.write_text(f"{before}[pseudonyms]{after}{textwrap.dedent(text)}")


def test_the_section_export_is_a_target_called_export(config: Path) -> None:
    targets = load_settings().export_targets()
    assert [(name, target.kind) for name, target in targets.items()] == [("export", "orthanc")]
    assert default_names(targets) == {"export"}


def test_targets_have_names_and_some_are_the_default(config: Path) -> None:
    name_targets(config, TWO)
    targets = load_settings().export_targets()
    assert {name: target.kind for name, target in targets.items()} == {
        "research": "orthanc",
        "archive": "folder",
    }
    assert default_names(targets) == {"research"}


def test_of_a_target_people_are_told_where_it_is_and_no_secret(config: Path) -> None:
    more = f"""
    [targets.web]
    kind = "dicomweb"
    url = "http://pacs.example/dicom-web?key={SECRET}"
    [targets.node]
    kind = "dicom"
    host = "pacs.example"
    called_aet = "PACS"
    [targets.safe]
    kind = "dicom"
    host = "pacs.example"
    called_aet = "PACS"
    tls = true
    commitment = true
    """
    name_targets(config, TWO + textwrap.dedent(more))
    told = told_targets(load_settings().export_targets())
    assert [(one.name, one.kind, one.place, one.encrypted, one.check) for one in told] == [
        ("archive", "folder", "/srv/archive", True, "read_back"),
        ("node", "dicom", "PACS at pacs.example:104", False, "none"),
        ("research", "orthanc", "https://research.example", True, "read_back"),
        ("safe", "dicom", "PACS at pacs.example:104", True, "commitment"),
        ("web", "dicomweb", "http://pacs.example/dicom-web", False, "read_back"),
    ]
    assert {one.name for one in told if one.default} == default_names(
        load_settings().export_targets()
    )


def test_a_target_may_come_from_the_environment(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name_targets(config, TWO)
    monkeypatch.setenv("PRICHEXY_WORKER_TARGETS__RESEARCH__TIMEOUT", "5")
    monkeypatch.setenv("PRICHEXY_WORKER_TARGETS__NIGHT__KIND", "folder")
    monkeypatch.setenv("PRICHEXY_WORKER_TARGETS__NIGHT__FOLDER", "/srv/night")
    targets = load_settings().export_targets()
    assert targets["night"].place == "/srv/night"
    assert targets["research"].timeout == 5  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "targets: none is given"),
        (TWO.replace("default = true", ""), "targets: none of several has default = true"),
        (TWO.replace("targets.archive", "targets.Archive"), "targets: a name has"),
        (TWO.replace('"folder"', f'"{SECRET}"'), "targets.archive.kind: not one of orthanc"),
        (TWO.replace('url = "https://research.example"', ""), "targets.research.url"),
        (TWO + f'depth = "{SECRET}"', "targets.archive.depth"),
        (TWO + '[export]\nkind = "folder"\nfolder = "/f"', "export and targets are both given"),
        (TWO + f'[targets.b]\npassword = "{SECRET}"', "PRICHEXY_WORKER_TARGETS__B__PASSWORD"),
        (TWO + '[targets.b]\nkind = "orthanc"\nurl = "http://b"\nkey_file = "/k"', "together"),
        (TWO + '[targets.b]\nkind = "png"\nfolder = "/srv/archive"', "b are one place"),
    ],
)
def test_targets_that_do_not_fit_are_named(config: Path, text: str, named: str) -> None:
    name_targets(config, text)
    assert named in complaint()


@pytest.mark.parametrize("which", ["key_file", "retired_key_files"])
@pytest.mark.parametrize("kind", ["folder", "png"])
def test_a_key_beside_the_results_of_any_target_is_refused(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, which: str
) -> None:
    name_targets(config, TWO + f'[targets.night]\nkind = "{kind}"\nfolder = "{tmp_path}"')
    value = str(tmp_path / "key") if which == "key_file" else f'["{tmp_path / "key"}"]'
    monkeypatch.setenv(f"PRICHEXY_WORKER_PSEUDONYMS__{which.upper()}", value)
    assert "a key file lies in targets.night.folder" in complaint()


def test_a_target_is_never_the_ingest_orthanc(config: Path) -> None:
    ingest = load_settings().ingest.url
    name_targets(config, f'[targets.one]\nkind = "orthanc"\nurl = "{ingest}"\n')
    assert "the export target one is the ingest Orthanc" in complaint()


@pytest.mark.parametrize(("mode", "fits"), [(0o600, True), (0o400, True), (0o640, False)])
def test_a_password_of_a_named_target_is_for_its_owner_alone(
    config: Path, tmp_path: Path, mode: int, fits: bool
) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    secret.chmod(mode)
    research = '[targets.r]\nkind = "orthanc"\nurl = "https://r.example"\n'
    name_targets(config, f'{research}password_file = "{secret}"')
    if fits:
        assert load_settings().targets["r"].secret() == SECRET  # type: ignore[union-attr]
    else:
        assert "targets.r.password_file: others can read" in complaint()
