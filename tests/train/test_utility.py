from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prichexy_testing.miniature_chestxray14 import prepared
from prichexy_train.data.prepared import PreparedSet
from prichexy_train.errors import Misconfigured
from prichexy_train.measures.auc import auc
from prichexy_train.records import MethodOf, UtilityRecord, read_records
from prichexy_train.stages.classifier import ClassifierSettings, run_classifier
from prichexy_train.utility import UtilitySettings, run_utility, utility_record

LABELS = ("Cardiomegaly", "Effusion", "Mass")
SETTINGS = UtilitySettings(least=2, replicates=200, device="cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    return prepared(tmp_path_factory.mktemp("chests"), patients=32)


@pytest.fixture(scope="module")
def classifier(data: PreparedSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("classifier")
    words = {
        "least_positives": 1,
        "network": {"backbone": "tiny", "size": 24},
        "training": {"batch_size": 8, "epochs": 1, "steps_per_epoch": 2, "device": "cpu"},
    }
    run_classifier(ClassifierSettings.model_validate(words), [data.folder], run)
    return run


def measured(
    data: PreparedSet, scores: np.ndarray, control: np.ndarray, **settings: Any
) -> UtilityRecord:
    record, _ = utility_record(
        data,
        MethodOf(name="method"),
        LABELS,
        scores,
        control,
        settings=SETTINGS.model_copy(update=settings),
        device="CPU",
        details={},
        provenance={},
    )
    return record


def truth(data: PreparedSet) -> np.ndarray:
    columns = [data.catalogue.label_names.index(label) for label in LABELS]
    return data.catalogue.targets()[data.split("test")][:, columns].astype(float)


def test_it_is_each_labels_auc_and_their_mean(data: PreparedSet) -> None:
    source, answers = np.random.default_rng(1), truth(data)
    scores = answers + source.normal(size=answers.shape)
    record = measured(data, scores, answers)
    each = [auc(scores[:, k], answers[:, k] > 0) for k in range(3)]
    assert [record.labels[label].auc for label in LABELS] == each
    assert record.auc == pytest.approx(np.mean(each))
    assert record.control == 1.0
    assert record.control_interval == (1.0, 1.0)
    assert record.difference == pytest.approx(record.auc - 1)
    assert record.interval is not None
    assert record.interval[0] < record.auc < record.interval[1]


def test_a_difference_is_taken_in_the_same_resamples(data: PreparedSet) -> None:
    source, answers = np.random.default_rng(2), truth(data)
    control = answers + 2 * source.normal(size=answers.shape)
    record = measured(data, control, control)
    assert record.difference_interval == (0.0, 0.0)
    assert record.interval is not None
    assert record.interval[1] - record.interval[0] > 0.05


def test_a_label_that_is_too_rare_has_no_figure(data: PreparedSet) -> None:
    answers = truth(data)
    rarest, others = answers.sum(0).min(), np.sort(answers.sum(0))[1]
    assert rarest < others
    record = measured(data, answers, answers, least=int(rarest) + 1)
    empty = [one for one in record.labels.values() if one.auc is None]
    assert [one.positives for one in empty] == [rarest]
    assert record.auc == 1.0
    with pytest.raises(Misconfigured, match="none of the classifier's labels"):
        measured(data, answers, answers, least=1000)


def test_real_images_lose_nothing(data: PreparedSet, classifier: Path, tmp_path: Path) -> None:
    words = {"method": "real", "classifier": classifier}
    assert run_utility(SETTINGS, [data.folder], tmp_path / "real", **words)
    (stored,) = read_records(tmp_path / "real")
    record = stored.record
    assert isinstance(record, UtilityRecord)
    # But for the rounding of what is stored.
    assert record.difference == pytest.approx(0, abs=0.01)
    scores = stored.scores()
    assert np.abs(scores["scores"] - scores["control"]).max() < 1e-3
    assert record.images == len(scores["targets"])
    assert 0 <= record.seconds < 3600


def test_noise_loses_what_there_was_and_the_control_is_the_same(
    data: PreparedSet, classifier: Path, tmp_path: Path
) -> None:
    for name in ("real", "dp-pix:b=2"):
        words = {"method": name, "classifier": classifier}
        assert run_utility(SETTINGS, [data.folder], tmp_path / name[:3], **words)
    noise, real = read_records(tmp_path / "dp-", tmp_path / "rea")
    assert isinstance(noise.record, UtilityRecord)
    assert isinstance(real.record, UtilityRecord)
    assert noise.record.control == real.record.control
    a, b = noise.scores()["scores"], real.scores()["scores"]
    assert np.abs(a - b).max() > 20 * np.abs(b - real.scores()["control"]).max()


def test_a_deformations_movement_is_measured_and_nothing_elses(
    data: PreparedSet, classifier: Path, tmp_path: Path
) -> None:
    found = {}
    for name in ("random:mu=0.1,coarseness=8", "random:mu=0.05,coarseness=8", "dp-pix:b=2"):
        run = tmp_path / name[-17:]
        assert run_utility(SETTINGS, [data.folder], run, method=name, classifier=classifier)
        (stored,) = read_records(run)
        found[name] = stored.record.details.get("displacement")
    strong, weak, none = found.values()
    assert none is None
    assert isinstance(strong, dict)
    assert isinstance(weak, dict)
    assert strong.keys() == {"rms", "p95", "max"}
    assert 0 < weak["rms"] < weak["p95"] < weak["max"] <= 0.05 * 127.5 * 2**0.5 + 1e-3
    assert strong["rms"] == pytest.approx(2 * weak["rms"], rel=1e-3), "the same draws, twice as far"


def test_a_run_out_of_time_goes_on(data: PreparedSet, classifier: Path, tmp_path: Path) -> None:
    words: dict[str, Any] = {"method": "dp-pix:b=4", "classifier": classifier}
    assert not run_utility(SETTINGS, [data.folder], tmp_path, deadline=0.0, **words)
    assert read_records(tmp_path) == []
    assert run_utility(SETTINGS, [data.folder], tmp_path, **words)
    (before,) = read_records(tmp_path)
    assert run_utility(SETTINGS, [data.folder], tmp_path, **words)
    assert read_records(tmp_path) == [before]


def test_a_label_that_the_set_was_not_read_for_is_not_in_the_record(data: PreparedSet) -> None:
    answers = np.hstack((np.zeros((len(data.split("test")), 1)), truth(data)))
    record, arrays = utility_record(
        data,
        MethodOf(name="method"),
        ("Gallstones", *LABELS),
        answers,
        answers,
        settings=SETTINGS,
        device="CPU",
        details={},
        provenance={},
    )
    assert tuple(record.labels) == tuple(LABELS)
    assert arrays["scores"].shape == arrays["targets"].shape == (record.images, len(LABELS))
    assert record.auc == 1.0


def test_each_set_of_a_pool_has_a_record_of_its_own(
    data: PreparedSet, classifier: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(data.folder, other)
    about = json.loads((other / "prepared.json").read_text())
    (other / "prepared.json").write_text(json.dumps(about | {"name": "other"}))
    words: dict[str, Any] = {"method": "real", "classifier": classifier}
    assert run_utility(SETTINGS, [data.folder, other], tmp_path / "run", **words)
    records = [stored.record for stored in read_records(tmp_path / "run")]
    assert [record.data for record in records] == ["miniature", "other"]
    one, two = records
    assert isinstance(one, UtilityRecord)
    assert isinstance(two, UtilityRecord)
    assert (one.auc, one.interval, one.labels) == (two.auc, two.interval, two.labels)
