"""A trial tests one verifier as the attacks do, and stands beside the ladder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from prichexy_testing.shared_data import REPO
from prichexy_train.attacks import trial
from prichexy_train.attacks.running import run_attack
from prichexy_train.attacks.settings import AttackSettings
from prichexy_train.attacks.trial import run_trial
from prichexy_train.cli import create_app
from prichexy_train.data.prepared import PreparedSet
from prichexy_train.errors import Misconfigured
from prichexy_train.measures.summary import strongest, summarise
from prichexy_train.records import AttackRecord, RetrievalRecord, read_records
from prichexy_train.runs import RunFolder

SETTINGS = AttackSettings.model_validate(
    {"device": "cpu", "rungs": [3, 9], "retrieval": {"queries": 20}}
)


def figures(run: Path) -> dict[tuple[str, str], float]:
    """Give what was reached, by the record's kind and list."""
    found = {}
    for stored in read_records(run):
        record = stored.record
        if isinstance(record, AttackRecord):
            found["auc", record.pair_list] = record.auc
        elif isinstance(record, RetrievalRecord):
            found["rank1", ""] = record.rank1
    return found


def test_a_trial_finds_what_rungs_three_and_nine_find_on_real_images(
    data: PreparedSet, strong: Path, tmp_path: Path
) -> None:
    folders = [data.folder]
    assert run_trial(SETTINGS, folders, tmp_path / "trial", verifier=strong).finished
    run_attack(SETTINGS, folders, tmp_path / "attack", method="real", verifiers=[strong])
    tried = figures(tmp_path / "trial")
    assert tried == figures(tmp_path / "attack")
    assert tried.keys() == {("auc", "test"), ("auc", "test_matched"), ("rank1", "")}
    for stored in read_records(tmp_path / "trial"):
        assert stored.record.kind != "utility"
        assert stored.record.rung.role == "trial"
        assert stored.record.rung.name == strong.name
    assert strongest(summarise(read_records(tmp_path / "trial"))) == {}


def test_a_record_says_what_the_verifier_learned_from_and_how(
    data: PreparedSet, strong: Path, tmp_path: Path
) -> None:
    run_trial(SETTINGS, [data.folder], tmp_path / "trial", verifier=strong)
    record = next(
        one.record for one in read_records(tmp_path / "trial") if one.record.kind == "attack"
    )
    details: dict[str, Any] = record.details
    result = RunFolder(strong).result()
    assert details["learned_from"] == result["learned_from"]
    assert (details["epochs"], details["best_epoch"]) == (result["epochs"], result["best_epoch"])
    assert details["share_of_patients"] == 1
    assert details["data"] == data.name
    assert details["settings"]["network.backbone"] == "tiny"
    assert "network.pretrained" not in details["settings"]
    assert details["validation_auc"] > 0.5


def test_what_is_tested_is_not_tested_again(
    data: PreparedSet, strong: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "trial"
    late = run_trial(SETTINGS, [data.folder], run, verifier=strong, deadline=0.0)
    assert (late.ended, late.records) == ("deadline", 0)
    assert not RunFolder(run).finished
    first = run_trial(SETTINGS, [data.folder], run, verifier=strong)
    assert (first.finished, first.records) == (True, 3)
    monkeypatch.setattr(trial, "attack_with", None)
    assert run_trial(SETTINGS, [data.folder], run, verifier=strong).records == 0
    # What decides about attackers alone is no matter here; other queries are.
    more = SETTINGS.model_copy(update={"seeds": 7, "rungs": (1, 2)})
    assert run_trial(more, [data.folder], run, verifier=strong).records == 0
    fewer = AttackSettings.model_validate({"device": "cpu", "retrieval": {"queries": 5}})
    with pytest.raises(Misconfigured, match="queries"):
        run_trial(fewer, [data.folder], run, verifier=strong)


def test_an_unfinished_verifier_is_refused(data: PreparedSet, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="no finished run"):
        run_trial(SETTINGS, [data.folder], tmp_path / "trial", verifier=tmp_path / "nowhere")


def test_the_command_makes_a_trial(data: PreparedSet, strong: Path, tmp_path: Path) -> None:
    config = REPO / "train" / "configs" / "attack-miniature.toml"
    words = ["trial", config, "--data", data.folder, "--run", tmp_path / "trial"]
    words += ["--verifier", strong, "--set", "device=cpu"]
    result = CliRunner().invoke(create_app(), [str(word) for word in words])
    assert result.exit_code == 0, result.output
    told = json.loads((tmp_path / "trial" / "result.json").read_text())
    assert told["auc"].keys() == {f"{data.name}.test", f"{data.name}.test_matched"}
