"""How ``main`` puts a worker together from its settings."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from prichexy_testing.bundles import another_bundle, judging_bundle
from prichexy_testing.fakes_worker import study_message
from prichexy_worker import main
from prichexy_worker.contract import ModelInfo, State
from prichexy_worker.errors import Misconfigured
from prichexy_worker.header import BASIC
from prichexy_worker.pseudonyms import Pseudonyms
from prichexy_worker.settings import Settings, load_settings
from prichexy_worker.study import Outcome

ENGINE = SimpleNamespace(
    device="cpu",
    device_reason="No CUDA device was found.",
    model=ModelInfo("prichexy-net", "0.1.0", "0" * 64, "untrained", "Random weights."),
)

TOOLS = SimpleNamespace(pseudonyms=Pseudonyms(bytes(32)), profile=BASIC)


def configure(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the settings be those of a file in ``folder``."""
    (folder / "worker.toml").write_text(
        f"""
        [ingest]
        url = "http://127.0.0.1:1"
        [broker]
        url = "redis://127.0.0.1:1/0"
        redelivery_seconds = 1000
        [export]
        kind = "folder"
        folder = "{folder}/export"
        [pseudonyms]
        key_file = "{folder}/key"
        [model]
        bundle = "{folder}"
        """
    )
    monkeypatch.setenv("PRICHEXY_WORKER_CONFIG", str(folder / "worker.toml"))


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Give what one study is processed with by a worker from these settings alone."""
    configure(tmp_path, monkeypatch)
    seen: dict[str, Any] = {}

    def process_study(*ports: object, **options: Any) -> Outcome:
        seen.update(options, tools=ports[-1])
        return Outcome(State.EXPORTED)

    def register(_app: object, process: Callable[..., Outcome], _policy: object) -> None:
        process(study_message())

    def call_between_studies(_app: object, look: Callable[[], None], _seconds: float) -> None:
        look()
        seen["looked"] = True

    def work(_app: object, settings: Settings) -> int:
        seen["celery_name"] = settings.worker_id
        return 0

    monkeypatch.setattr(main, "process_study", process_study)
    monkeypatch.setattr(main, "register", register)
    monkeypatch.setattr(main, "call_between_studies", call_between_studies)
    monkeypatch.setattr(main, "work", work)
    engine = SimpleNamespace(**vars(ENGINE), folder=tmp_path.resolve())
    monkeypatch.setattr(main, "load_tools", lambda _settings: (TOOLS, engine))
    monkeypatch.setattr(main, "configure_logging", lambda: None)
    limits: list[tuple[int, tuple[int, int]]] = seen.setdefault("limits", [])
    monkeypatch.setattr(main.resource, "setrlimit", lambda *limit: limits.append(limit))
    monkeypatch.setattr(main, "yield_memory_to_others", lambda: seen.update(yields=True))
    assert main.main([]) == 0
    return seen


def test_a_study_has_to_end_before_the_broker_takes_its_worker_for_lost(
    asked: dict[str, Any],
) -> None:
    assert asked["max_seconds"] == 800
    assert asked["withdrawal_seconds"] == 900


def test_a_crash_leaves_no_core_file(asked: dict[str, Any]) -> None:
    assert asked["limits"] == [(resource.RLIMIT_CORE, (0, 0))]


def test_where_memory_runs_out_the_worker_ends_before_the_servers(asked: dict[str, Any]) -> None:
    assert asked["yields"]


def test_a_study_is_bounded_by_the_settings(asked: dict[str, Any]) -> None:
    assert (asked["max_instances"], asked["max_bytes"]) == (64, 2**30)


def test_the_worker_has_its_processs_name_everywhere(asked: dict[str, Any]) -> None:
    assert asked["worker_id"].endswith(f"-{os.getpid()}")
    assert asked["celery_name"] == asked["worker_id"]


def test_a_study_gets_the_tools_of_the_model_in_use_which_is_looked_for_between_studies(
    asked: dict[str, Any],
) -> None:
    assert asked["tools"] is TOOLS
    assert asked["looked"]


def test_the_log_names_the_key_and_the_profile(
    asked: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="prichexy_worker"):
        assert main.main([]) == 0
    assert f"key {TOOLS.pseudonyms.key_id}, profile basic, SHA-256 {BASIC.digest}" in caplog.text


def test_what_is_to_be_measured_needs_a_bundle_that_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(tmp_path, monkeypatch)
    Pseudonyms.create_key_file(tmp_path / "key")
    monkeypatch.setenv("PRICHEXY_WORKER_RISK__RECOGNISED", "0.75")
    without = another_bundle(tmp_path / "without", 1)
    monkeypatch.setenv("PRICHEXY_WORKER_MODEL__BUNDLE", str(without))
    with pytest.raises(Misconfigured, match=r"risk\.recognised: .* no verifier"):
        main.load_tools(load_settings())
    able = judging_bundle(tmp_path / "able")
    monkeypatch.setenv("PRICHEXY_WORKER_MODEL__BUNDLE", str(able))
    tools, _ = main.load_tools(load_settings())
    assert (tools.tolerated.recognised, tools.tolerated.finding_change) == (0.75, 1.0)


def test_a_model_that_a_worker_with_limits_would_not_take_up_is_not_offered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(tmp_path, monkeypatch)
    monkeypatch.setenv("PRICHEXY_WORKER_RISK__FINDING_CHANGE", "0.2")
    settings = load_settings()
    able = judging_bundle(tmp_path / "able")
    assert main.read_usable(settings, able).name == "prichexy-generator"
    without = another_bundle(tmp_path / "without", 1)
    with pytest.raises(Misconfigured, match=r"risk\.finding_change: .* no classifier"):
        main.read_usable(settings, without)
    monkeypatch.delenv("PRICHEXY_WORKER_RISK__FINDING_CHANGE")
    assert main.read_usable(load_settings(), without).name == "prichexy-generator"


def test_a_retired_key_and_kept_uids_do_not_go_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(tmp_path, monkeypatch)
    profile = tmp_path / "profile.yaml"
    profile.write_text("name: kept\noptions: [uids]\n")
    Pseudonyms.create_key_file(tmp_path / "key")
    monkeypatch.setenv("PRICHEXY_WORKER_PROFILE__FILE", str(profile))
    retired = json.dumps([str(tmp_path / "key")])
    monkeypatch.setenv("PRICHEXY_WORKER_PSEUDONYMS__RETIRED_KEY_FILES", retired)
    with pytest.raises(Misconfigured, match="retired_key_files"):
        main.load_tools(load_settings())
