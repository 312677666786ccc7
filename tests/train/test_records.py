from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prichexy_train.errors import Damaged
from prichexy_train.records import (
    AttackRecord,
    MethodOf,
    RecordError,
    RungOf,
    find_record,
    read_records,
    record_name,
    write_record,
)

SCORES = {"scores": np.array([0.5, 1.5]), "same": np.array([True, False])}


def record(**changes: Any) -> AttackRecord:
    words: dict[str, Any] = {
        "data": "miniature",
        "method": MethodOf(name="real"),
        "rung": RungOf(number=3, name="frozen"),
        "pair_list": "test",
        "seed": 1,
        "auc": 0.75,
        "interval": (0.6, 0.9),
        "pairs": 2,
        "positives": 1,
        "patients": 2,
        "seconds": 0.5,
        "device": "CPU",
        "scores": "",
    }
    return AttackRecord.model_validate(words | changes)


def test_what_is_written_is_read_with_its_scores(tmp_path: Path) -> None:
    path = write_record(tmp_path / "a", "one", record(), SCORES)
    write_record(tmp_path / "b" / "c", "two", record(seed=2), SCORES)
    stored = read_records(tmp_path)
    assert [one.record.seed for one in stored] == [1, 2]
    assert stored[0].path == path
    assert stored[0].record == record(scores="one.npz")
    assert {name: values.tolist() for name, values in stored[0].scores().items()} == {
        name: values.tolist() for name, values in SCORES.items()
    }


def test_a_record_is_there_only_when_its_scores_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr("prichexy_train.records.write_whole", full)
    with pytest.raises(OSError, match="no space"):
        write_record(tmp_path, "one", record(), SCORES)
    assert find_record(tmp_path, "one") is None
    assert read_records(tmp_path) == []


def test_a_record_that_is_written_again_replaces_the_first(tmp_path: Path) -> None:
    write_record(tmp_path, "one", record(), SCORES)
    write_record(tmp_path, "one", record(auc=0.5), SCORES)
    found = find_record(tmp_path, "one")
    assert found is not None and isinstance(found.record, AttackRecord)
    assert found.record.auc == 0.5
    assert len(list((tmp_path / "records").iterdir())) == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [({"auc": 1.5}, "auc"), ({"kind": "guess"}, "guess"), ({"colour": 1}, "colour")],
)
def test_an_odd_record_is_an_error_that_names_file_and_key(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    path = write_record(tmp_path, "one", record(), SCORES)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(RecordError, match=rf"one\.json.*{said}"):
        read_records(tmp_path)
    path.write_text("{")
    with pytest.raises(RecordError, match="is no record"):
        find_record(tmp_path, "one")


def test_lost_or_damaged_scores_are_an_error_that_names_the_file(tmp_path: Path) -> None:
    write_record(tmp_path, "one", record(), SCORES)
    scores = tmp_path / "records" / "one.npz"
    scores.write_bytes(scores.read_bytes()[:50])
    (stored,) = read_records(tmp_path)
    with pytest.raises(Damaged, match=r"one\.npz"):
        stored.scores()
    scores.unlink()
    with pytest.raises(Damaged, match=r"one\.npz"):
        stored.scores()


@pytest.mark.parametrize("name", ["../one", "", ".hidden", "a/b"])
def test_a_name_cannot_lead_out_of_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        write_record(tmp_path, name, record(), SCORES)


def test_names_tell_attempts_apart() -> None:
    assert record_name(3, "frozen", 1, "test") == "rung-3.frozen.seed-1.test"
    assert record_name(9, "retrieval-frozen", 2) == "rung-9.retrieval-frozen.seed-2"
