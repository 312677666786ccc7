"""The engine gives the bundle's displacement on the device that was asked for, always the same."""

import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from prichexy_model.bundle import (
    CLASSIFIER_FILE,
    VERIFIER_FILE,
    load_anonymizer,
    load_classifier,
    load_verifier,
)
from prichexy_model.classifier import AbnormalityClassifier
from prichexy_model.weights import save_weights
from prichexy_testing.bundles import describe, judging_bundle
from prichexy_testing.dicoms import phantom
from prichexy_testing.shared_data import REPO
from prichexy_worker import engine as engine_module
from prichexy_worker.engine import Engine, choose_device
from prichexy_worker.errors import Misconfigured

BUNDLE = REPO / "model" / "untrained"


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.load(BUNDLE, "cpu", threads=1)


@pytest.fixture
def image() -> np.ndarray:
    return (phantom(256, 256) / 4095).astype(np.float32)


def test_the_displacement_is_the_bundles_own(engine, image):
    anonymizer, bundle = load_anonymizer(BUNDLE)
    with torch.inference_mode():
        expected = anonymizer.displacement(torch.from_numpy(image)[None, None])[0].numpy()
    field = engine.displacement(image)
    assert field.shape == (2, 256, 256)
    assert field.dtype == np.float32
    assert np.abs(field - expected).max() < 1e-6
    assert 0 < np.abs(field).max() <= bundle.mu


def test_the_same_view_gives_the_same_bytes(engine, image):
    again = Engine.load(BUNDLE, "cpu", threads=1)
    assert engine.displacement(image).tobytes() == engine.displacement(image).tobytes()
    assert again.displacement(image).tobytes() == engine.displacement(image).tobytes()


def test_a_read_only_view_is_taken_and_left_as_it_is(engine, image):
    before = image.copy()
    image.setflags(write=False)
    engine.displacement(image)
    assert np.array_equal(image, before)


def test_the_model_says_what_it_is(engine):
    _, bundle = load_anonymizer(BUNDLE)
    assert engine.model.digest == bundle.digest
    assert engine.model.evidence == bundle.evidence
    assert engine.model.statement == bundle.statement
    assert (engine.model.name, engine.model.model_version) == (bundle.name, bundle.version)
    assert engine.model == type(engine.model).from_json(engine.model.to_json())


@pytest.mark.parametrize(
    "view",
    [
        np.zeros((255, 256), np.float32),
        np.zeros((1, 256, 256), np.float32),
        np.full((256, 256), 255, np.float32),
        np.full((256, 256), -1, np.float32),
        np.full((256, 256), np.nan, np.float32),
    ],
)
def test_a_view_of_another_shape_or_range_is_refused(engine, view):
    with pytest.raises(ValueError, match="the generator sees"):
        engine.displacement(view)


def test_a_link_is_followed_once_and_the_folder_behind_it_is_told(engine, tmp_path):
    (tmp_path / "current").symlink_to(BUNDLE)
    assert Engine.load(tmp_path / "current", "cpu").folder == engine.folder == BUNDLE.resolve()
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(Misconfigured, match=r"model\.bundle"):
        Engine.load(tmp_path / "loop", "cpu")


def test_threads_are_set_by_argument():
    before = torch.get_num_threads()
    try:
        Engine.load(BUNDLE, "cpu", threads=2)
        assert torch.get_num_threads() == 2
        Engine.load(BUNDLE, "cpu")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    with pytest.raises(Misconfigured, match="threads"):
        Engine.load(BUNDLE, "cpu", threads=0)


@pytest.fixture(scope="module")
def judging(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return Engine.load(judging_bundle(tmp_path_factory.mktemp("judging") / "bundle"), "cpu")


def test_without_networks_to_judge_with_nothing_is_judged(engine, image):
    assert engine.judges == frozenset()
    assert engine.judged(image, image) == {}


def test_verifier_and_classifier_say_what_they_say_of_the_same_two_images(judging, image):
    other = np.ascontiguousarray(image[::-1] ** 2)
    first, second = (torch.from_numpy(one)[None, None] for one in (image, other))
    with torch.inference_mode():
        likeness = load_verifier(judging.folder)[0](first, second).sigmoid()
        classifier = load_classifier(judging.folder)[0]
        moved = (classifier(first).sigmoid() - classifier(second).sigmoid()).abs().max()
    figures = judging.judged(image, other)
    assert figures.keys() == judging.judges == {"max_recognised", "max_finding_change"}
    assert figures["max_recognised"] == pytest.approx(float(likeness), abs=1e-5)
    assert figures["max_finding_change"] == pytest.approx(float(moved), abs=1e-5)
    assert figures["max_finding_change"] > 0
    assert judging.judged(image, other) == figures


def test_an_image_that_did_not_change_is_recognised_as_surely_as_any(judging, image):
    alike = judging.judged(image, image)
    assert alike["max_finding_change"] == 0
    assert alike["max_recognised"] > judging.judged(image, 1 - image)["max_recognised"]


def test_what_cannot_be_seen_cannot_be_judged(judging, image):
    with pytest.raises(ValueError, match="the generator sees"):
        judging.judged(image, image[:-1])


@pytest.mark.parametrize("file", [VERIFIER_FILE, CLASSIFIER_FILE])
def test_a_bundle_whose_judges_are_damaged_is_not_used(tmp_path, file):
    folder = judging_bundle(tmp_path / "bundle")
    (folder / file).write_bytes(b"no weights")
    with pytest.raises(Misconfigured, match=r"model\.bundle"):
        Engine.load(folder, "cpu")


def test_a_judge_that_cannot_look_at_an_image_is_not_used(tmp_path):
    folder = judging_bundle(tmp_path / "bundle")
    part = {"backbone": "efficientnet-lite0", "labels": ["Mass"], "input_size": 8}
    network = AbnormalityClassifier("efficientnet-lite0", ["Mass"], size=8)
    part["weights_sha256"] = save_weights(folder / CLASSIFIER_FILE, network.state_dict())
    describe(folder, prichexy={"classifier": part})
    with pytest.raises(Misconfigured, match=r"model\.bundle: its judges cannot look"):
        Engine.load(folder, "cpu")


def test_a_judge_whose_word_is_no_number_is_not_used(tmp_path):
    folder = judging_bundle(tmp_path / "bundle")
    network, part = load_verifier(folder)
    # The root of a negative variance.
    state = {
        name: -1 - value if name.endswith("running_var") else value
        for name, value in network.state_dict().items()
    }
    digest = save_weights(folder / VERIFIER_FILE, state)
    told = {name: value for name, value in asdict(part).items() if name != "digest"}
    describe(folder, prichexy={"verifier": told | {"weights_sha256": digest}})
    with pytest.raises(Misconfigured, match=r"model\.bundle: max recognised is no number"):
        Engine.load(folder, "cpu")


def test_a_missing_bundle_is_a_misconfiguration_that_names_the_setting(tmp_path):
    with pytest.raises(Misconfigured, match=r"model\.bundle"):
        Engine.load(tmp_path / "nowhere", "cpu")


def test_weights_that_are_not_the_metadatas_are_refused(tmp_path):
    copy = tmp_path / "bundle"
    shutil.copytree(BUNDLE, copy)
    weights = copy / "models" / "model.pt"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    with pytest.raises(Misconfigured, match=r"model\.bundle"):
        Engine.load(copy, "cpu")


@pytest.mark.parametrize("setting", ["", "gpu", "CPU", "cuda:", "cuda:-1", "cuda:x", "mps"])
def test_a_device_nobody_knows_is_a_misconfiguration(setting):
    with pytest.raises(Misconfigured, match=r"model\.device"):
        choose_device(setting)


class TwoGpus:
    """What torch.cuda answers on a machine with two GPUs."""

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def device_count() -> int:
        return 2

    @staticmethod
    def get_device_name(index: int) -> str:
        return f"Example GPU {index}"


class NoGpu(TwoGpus):
    @staticmethod
    def is_available() -> bool:
        return False


@pytest.mark.parametrize(
    ("cuda", "setting", "device"),
    [
        (NoGpu, "auto", "cpu"),
        (NoGpu, "cpu", "cpu"),
        (TwoGpus, "auto", "cuda:0"),
        (TwoGpus, "cpu", "cpu"),
        (TwoGpus, "cuda", "cuda:0"),
        (TwoGpus, "cuda:1", "cuda:1"),
    ],
)
def test_the_device_is_found_and_its_reason_said(monkeypatch, cuda, setting, device):
    monkeypatch.setattr(engine_module.torch, "cuda", cuda)
    chosen, reason = choose_device(setting)
    assert chosen == device
    assert reason.endswith(".")
    if device.startswith("cuda"):
        assert f"Example GPU {device[-1]}" in reason


@pytest.mark.parametrize(("cuda", "setting"), [(NoGpu, "cuda"), (TwoGpus, "cuda:2")])
def test_a_gpu_that_is_not_there_is_a_misconfiguration(monkeypatch, cuda, setting):
    monkeypatch.setattr(engine_module.torch, "cuda", cuda)
    with pytest.raises(Misconfigured, match="not there"):
        choose_device(setting)


def test_torch_is_imported_by_the_engine_and_for_one_switch_of_the_text_search():
    package = Path(engine_module.__file__).parent
    users = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if "import torch" in path.read_text() or "from torch" in path.read_text()
    }
    assert users == {"engine.py", "text/models.py"}


@pytest.mark.gpu
def test_a_gpu_gives_the_cpus_displacement_to_a_hundredth_of_a_pixel(engine, image):
    if not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device here")
    found = Engine.load(BUNDLE, "cuda")
    difference = np.abs(found.displacement(image) - engine.displacement(image)).max()
    assert difference * 2500 / 2 < 0.01
    assert found.displacement(image).tobytes() == found.displacement(image).tobytes()
