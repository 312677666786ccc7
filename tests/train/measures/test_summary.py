from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prichexy_train.measures.auc import auc
from prichexy_train.measures.summary import (
    AttackSummary,
    RetrievalSummary,
    strongest,
    summarise,
)
from prichexy_train.records import (
    AttackRecord,
    MethodOf,
    RecordError,
    RetrievalRecord,
    RungOf,
    Stored,
    read_records,
    write_record,
)

PATIENTS = 40
FIRST = np.tile(np.arange(PATIENTS), 2)
SECOND = np.concatenate([np.arange(PATIENTS), np.roll(np.arange(PATIENTS), 1)])


def attack(
    folder: Path, seed: int, strength: float, number: int = 3, name: str = "frozen", **words: Any
) -> None:
    source = np.random.default_rng([seed, number])
    second = words.pop("second", SECOND)
    same = second == FIRST
    scores = strength * same + source.normal(size=len(FIRST))
    known: dict[str, Any] = {
        "data": "set",
        "method": MethodOf(name="real"),
        "rung": RungOf(number=number, name=name, role=words.pop("role", "attack")),
        "pair_list": "test",
        "seed": seed,
        "auc": auc(scores, same),
        "interval": None,
        "pairs": len(FIRST),
        "positives": PATIENTS,
        "patients": PATIENTS,
        "seconds": 2.0,
        "device": "CPU",
        "scores": "",
    }
    record = AttackRecord.model_validate(known | words)
    arrays = {"scores": scores, "same": same, "first": FIRST, "second": second}
    write_record(folder, f"{number}-{name}-{seed}-{record.pair_list}", record, arrays)


def attacks(records: list[Stored]) -> list[AttackSummary]:
    return [one for one in summarise(records) if isinstance(one, AttackSummary)]


def test_seeds_become_mean_spread_and_an_interval_of_the_mean(tmp_path: Path) -> None:
    for seed in range(1, 6):
        attack(tmp_path, seed, 1.0)
    (found,) = attacks(read_records(tmp_path))
    assert found.seeds == (1, 2, 3, 4, 5)
    assert found.auc.mean == pytest.approx(np.mean(found.auc.values))
    assert found.auc.sd == pytest.approx(np.std(found.auc.values, ddof=1))
    assert found.auc.interval is not None
    low, high = found.auc.interval
    assert low < found.auc.mean < high
    assert found.seconds == 10.0
    # Independent attackers' mean depends less on who is in the test than each of them.
    (one,) = attacks(read_records(tmp_path)[:1]) or [None]
    assert one is not None and one.auc.sd is None and one.auc.interval is not None
    assert high - low < one.auc.interval[1] - one.auc.interval[0]


def test_the_strongest_is_an_attack_and_neither_floor_nor_control(tmp_path: Path) -> None:
    attack(tmp_path, 1, 0.5)
    attack(tmp_path, 1, 1.0, number=0, name="imagenet-features", role="baseline")
    attack(tmp_path, 1, 8.0, number=7, name="sex-age-view", role="floor")
    attack(tmp_path, 1, 8.0, number=0, name="border-alone", role="control")
    attack(tmp_path, 1, 0.1, pair_list="test_matched")
    best = strongest(summarise(read_records(tmp_path)))
    assert {key[1]: one.rung for key, one in best.items()} == {
        "test": "imagenet-features",
        "test_matched": "frozen",
    }


def test_methods_of_one_name_with_other_weights_are_kept_apart(tmp_path: Path) -> None:
    attack(tmp_path / "a", 1, 1.0, method=MethodOf(name="run", digest="a"))
    attack(tmp_path / "b", 1, 0.0, method=MethodOf(name="run", digest="b"))
    assert len(strongest(summarise(read_records(tmp_path)))) == 2


def test_the_same_attempt_twice_is_an_error_that_names_both_files(tmp_path: Path) -> None:
    attack(tmp_path / "a", 1, 1.0)
    attack(tmp_path / "b", 1, 1.0)
    with pytest.raises(RecordError, match=r"b/records/.*a/records/"):
        summarise(read_records(tmp_path))


def test_attempts_on_other_pairs_are_not_averaged(tmp_path: Path) -> None:
    attack(tmp_path, 1, 1.0)
    second = np.concatenate([np.arange(PATIENTS), np.roll(np.arange(PATIENTS), 2)])
    attack(tmp_path, 2, 1.0, second=second)
    with pytest.raises(RecordError, match="not of the same pairs"):
        summarise(read_records(tmp_path))


def test_retrieval_is_summarised_by_queries_patients(tmp_path: Path) -> None:
    patients = np.repeat(np.arange(10), 3)
    for seed in (1, 2):
        rank1 = (np.arange(30) % (seed + 1) == 0).astype(float)
        record = RetrievalRecord(
            data="set",
            method=MethodOf(name="real"),
            rung=RungOf(number=9, name="retrieval-frozen"),
            seed=seed,
            patients=10,
            seconds=1,
            device="CPU",
            scores="",
            rank1=float(rank1.mean()),
            rank1_interval=None,
            map_at_r=0.25,
            map_interval=None,
            chance_rank1=0.1,
            queries=30,
            gallery=29,
        )
        arrays = {"rank1": rank1, "average_precision": rank1 / 2, "patient": patients}
        write_record(tmp_path, f"r-{seed}", record, arrays)
    (found,) = summarise(read_records(tmp_path))
    assert isinstance(found, RetrievalSummary)
    assert found.rank1.values == (0.5, pytest.approx(1 / 3))
    assert found.rank1.interval is not None
    assert found.rank1.interval[0] < found.rank1.mean < found.rank1.interval[1]
