"""Runs and records that a report is made from, with figures that nobody trained for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from prichexy_train.measures.auc import auc
from prichexy_train.measures.bootstrap import Resamples, interval, weighted_auc
from prichexy_train.records import (
    AttackRecord,
    LabelFigures,
    MethodOf,
    RetrievalRecord,
    RungOf,
    UtilityRecord,
    write_record,
)

REAL = MethodOf(name="real", digest="d-real")
CORRECTED = MethodOf(
    name="prichexy-net:mu=0.01",
    settings={"kind": "deformation", "size": 64, "mu": 0.01, "border": "corrected", "mu_coarse": 0},
    digest="d-corrected",
)
PAPER = MethodOf(
    name="prichexy-net:mu=0.01,border=paper",
    settings={"kind": "deformation", "size": 64, "mu": 0.01, "border": "paper", "mu_coarse": 0},
    digest="d-paper",
)
DP_PIX = MethodOf(name="dp-pix:b=4", settings={"b": 4, "eps": 0.1}, digest="d-dp-pix")
RANDOM = MethodOf(
    name="random:mu=0.01",
    settings={"mu": 0.01, "border": "corrected", "coarseness": 1},
    digest="d-random",
)
PAPERS_ATTACK = RungOf(number=1, name="fresh-anonymised")
MIXED = RungOf(number=2, name="fresh-mixed")
TUNED = RungOf(number=4, name="fine-tuned")
CRITIC = RungOf(number=5, name="critic")
UNDONE = RungOf(number=8, name="undone")
ENSEMBLE = RungOf(number=4, name="trained-ensemble")
STRONG = RungOf(number=3, name="strong-frozen")
SEARCH = RungOf(number=9, name="retrieval")
FLOOR = RungOf(number=7, name="metadata", role="floor")
CONTROL = RungOf(number=0, name="shuffled-identities", role="control")


class MadeUp:
    """A folder of runs, and what may be put into it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        generator = np.random.default_rng(5)
        patients = np.arange(60)
        #: One positive and one negative pair of each patient.
        self.first = np.concatenate([patients, patients])
        self.second = np.concatenate([patients, generator.permutation(np.roll(patients, 1))])
        self.same = self.first == self.second

    def scores(self, separation: float, seed: int) -> NDArray[np.float64]:
        noise = np.random.default_rng(seed).normal(size=len(self.same))
        return noise + separation * self.same

    def attack(
        self,
        method: MethodOf,
        rung: RungOf,
        separation: float,
        *,
        seeds: Sequence[int] = (1, 2, 3),
        pair_list: str = "test",
        data: str = "made-up",
        run: str | None = None,
        details: dict[str, JsonValue] | None = None,
        provenance: dict[str, JsonValue] | None = None,
    ) -> None:
        for seed in seeds:
            scores = self.scores(separation, seed + 10 * rung.number)
            resamples = Resamples(np.concatenate([self.first, self.second]))
            found = resamples.of(weighted_auc(scores, self.same), self.first, self.second)
            record = AttackRecord(
                data=data,
                data_digest="da7a",
                method=method,
                seed=seed,
                patients=60,
                seconds=12.0,
                device="made-up CPU",
                scores="",
                rung=rung,
                pair_list=pair_list,
                auc=auc(scores, self.same),
                interval=interval(found),
                pairs=len(self.same),
                positives=int(self.same.sum()),
                details=details or {},
                provenance=provenance or {},
            )
            arrays = {
                "scores": scores,
                "same": self.same,
                "first": self.first,
                "second": self.second,
            }
            where = self.folder / (run or f"attack-{method.digest}")
            write_record(
                where, f"{data}.{pair_list}.{rung.number}.{rung.name}.{seed}", record, arrays
            )

    def ladder(
        self, method: MethodOf, separation: float, *, pair_list: str = "test", data: str = "made-up"
    ) -> None:
        """Put in the attacks that evidence of a measured method is made of."""
        for rung in (PAPERS_ATTACK, MIXED, TUNED):
            seeds = (1, 2, 3, 4, 5)
            self.attack(method, rung, separation / 2, seeds=seeds, pair_list=pair_list, data=data)
        alone = (STRONG,) if method == REAL else (STRONG, CRITIC, UNDONE)
        for rung in alone:
            self.attack(method, rung, separation, seeds=(1,), pair_list=pair_list, data=data)

    def retrieval(
        self,
        method: MethodOf,
        found: float,
        *,
        rung: RungOf = SEARCH,
        data: str = "made-up",
    ) -> None:
        hits = (np.arange(60) < 60 * found).astype(float)
        record = RetrievalRecord(
            data=data,
            method=method,
            seed=1,
            patients=60,
            seconds=1.0,
            device="made-up CPU",
            scores="",
            rung=rung,
            rank1=float(hits.mean()),
            rank1_interval=None,
            map_at_r=float(hits.mean()) / 2,
            map_interval=None,
            chance_rank1=1 / 60,
            queries=60,
            gallery=120,
        )
        arrays = {"rank1": hits, "average_precision": hits / 2, "patient": np.arange(60)}
        write_record(self.folder / f"attack-{method.digest}", rung.name, record, arrays)

    def trial(
        self,
        name: str,
        separation: float,
        *,
        share: float = 1.0,
        best: int = 3,
        **settings: JsonValue,
    ) -> None:
        """Put in a training of a learning curve, and what it reached on real images."""
        self.run(name, best=best)
        details: dict[str, JsonValue] = {
            "verifier": name,
            "data": "made-up",
            "learned_from": {"patients": round(400 * share), "images": round(1000 * share)},
            "share_of_patients": share,
            "epochs": 4,
            "best_epoch": best,
            "validation_auc": 0.7,
            "validation_interval": [0.6, 0.8],
            "settings": {"network.size": 160, "share_of_patients": share, **settings},
        }
        rung, run = RungOf(number=0, name=name, role="trial"), f"trial-{name}"
        for pair_list in ("test", "test_matched"):
            self.attack(
                REAL, rung, separation, seeds=(1,), pair_list=pair_list, run=run, details=details
            )
        self.retrieval(REAL, separation / 4, rung=rung.model_copy(update={"number": 9}))

    def utility(
        self,
        method: MethodOf,
        value: float,
        *,
        control: float = 0.8,
        data: str = "made-up",
        details: dict[str, JsonValue] | None = None,
        provenance: dict[str, JsonValue] | None = None,
    ) -> None:
        def figures(positives: int) -> LabelFigures:
            return LabelFigures(
                auc=value,
                interval=(value - 0.05, min(value + 0.05, 1)),
                control=control,
                control_interval=(control - 0.05, control + 0.05),
                positives=positives,
                negatives=200 - positives,
            )

        difference = value - control
        record = UtilityRecord(
            data=data,
            method=method,
            seed=1,
            patients=60,
            seconds=1.0,
            device="made-up CPU",
            scores="",
            auc=value,
            interval=(value - 0.03, min(value + 0.03, 1)),
            control=control,
            control_interval=(control - 0.03, control + 0.03),
            difference=difference,
            difference_interval=(difference - 0.01, difference + 0.01),
            labels={"Pneumonia": figures(80), "Effusion": figures(9)},
            images=200,
            details=details or {},
            provenance=provenance or {},
        )
        write_record(self.folder / f"utility-{method.digest}", "utility", record, {})

    def run(
        self,
        name: str,
        stage: str = "verifier",
        *,
        settings: str = "",
        epochs: int = 4,
        best: int = 3,
        finished: bool = True,
    ) -> Path:
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "settings.toml").write_text(settings)
        start = {
            "at": "2026-01-02T03:04:05+00:00",
            "device": "made-up CPU",
            "software": "0.1.0",
            "commit": "c0ffee",
            "libraries": {"torch": "2.9"},
        }
        provenance: dict[str, Any] = {"stage": stage, "seed": 7, "data": {}, "starts": [start]}
        if finished:
            provenance["seconds"] = 5400.0
            result = {"best_epoch": best} if epochs else {}
            (folder / "result.json").write_text(json.dumps({"stage": stage, **result}))
        (folder / "provenance.json").write_text(json.dumps(provenance))
        lines = [
            {
                "epoch": epoch,
                "train": {"loss": 1 / epoch},
                "validation": {"loss": 1.2 / epoch, "auc": 0.5 + epoch / 10},
            }
            for epoch in range(1, epochs + 1)
        ]
        if lines:
            (folder / "history.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
        return folder


def table_of_runs(folder: Path) -> MadeUp:
    """Give five methods under three attacks, with utility, retrieval and two trainings."""
    made_up = MadeUp(folder)
    strengths = (
        (REAL, 2.0, 0.8),
        (CORRECTED, 1.2, 0.78),
        (PAPER, 0.9, 0.77),
        (DP_PIX, 0.1, 0.55),
        (RANDOM, 1.9, 0.79),
    )
    for method, separation, use in strengths:
        made_up.attack(method, PAPERS_ATTACK, separation / 2)
        made_up.attack(method, STRONG, separation, seeds=(1,))
        made_up.attack(method, FLOOR, 0.3, seeds=(1,))
        made_up.retrieval(method, separation / 4)
        made_up.utility(method, use)
    made_up.attack(REAL, CONTROL, 0.0, seeds=(1, 2))
    made_up.run("verifier", settings='[network]\nbackbone = "tiny"\nsize = 64\n')
    made_up.run("generator", "anonymizer", best=4)
    return made_up


def set_summaries() -> dict[str, dict[str, Any]]:
    """Give what ``prepare`` would have counted."""
    counts = {"images": 200, "patients": 100, "patients_with_several": 60}
    pairs = {
        "pairs": 120,
        "same": 60,
        "patients_behind_same": 60,
        "share_of_top_50": 0.83,
        "demographics_auc": 0.71,
    }
    left_out = {"unreadable images": 3}
    whole = {"all": counts, "parts": {"test": counts}, "pairs": {"test": pairs}}
    return {"made-up": {**whole, "left_out": left_out}}
