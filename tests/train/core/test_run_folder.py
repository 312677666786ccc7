"""A run's folder: whose it is, what may differ when it is taken up again, what it tells later."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch

from prichexy_train.errors import Damaged, Failed, InUse, Misconfigured
from prichexy_train.runs import RunFolder, load_best
from prichexy_train.settings import Section, Training


class Stage(Section):
    objective: str = "pairs"
    training: Training = Training()


def claimed(path: Path, settings: Section | None = None, **words: Any) -> Any:
    defaults: dict[str, Any] = {"data": {"set": "d1"}, "seed": 1, "device": "CPU"}
    stage = words.pop("stage", "verifier")
    return RunFolder(path).claimed(stage, settings or Stage(), **(defaults | words))


def test_a_run_says_where_it_comes_from(tmp_path: Path) -> None:
    with claimed(tmp_path / "a" / "run"):
        pass
    with claimed(tmp_path / "a" / "run", device="another"):
        pass

    run = RunFolder(tmp_path / "a" / "run")
    provenance = run.provenance()
    assert (provenance["stage"], provenance["seed"]) == ("verifier", 1)
    assert provenance["data"] == {"set": "d1"}
    assert [start["device"] for start in provenance["starts"]] == ["CPU", "another"]
    assert provenance["starts"][0]["libraries"]["torch"] == torch.__version__
    assert provenance["starts"][0]["software"]
    assert run.settings()["training"]["seed"] == 1


def test_the_end_is_written_with_the_result(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with claimed(tmp_path):
        assert not run.finished
        run.finish({"auc": 0.5}, seconds=12.34)

    assert run.finished
    assert run.result() == {"auc": 0.5}
    assert run.provenance()["seconds"] == 12.3
    assert run.provenance()["ended"]

    with claimed(tmp_path):
        pass
    assert len(run.provenance()["starts"]) == 1, "a finished run is not started again"


def test_a_new_run_that_fails_before_its_first_checkpoint_leaves_its_folder_free(
    tmp_path: Path,
) -> None:
    run = RunFolder(tmp_path / "run")
    with pytest.raises(Misconfigured), claimed(run.path, data={"weights": "wrong"}):
        run.tensorboard.mkdir()
        (run.tensorboard / "events").touch()
        raise Misconfigured("the weights do not fit")
    assert sorted(path.name for path in run.path.iterdir()) == [".lock", ".turn"]
    with claimed(run.path, data={"weights": "right"}):
        pass


def test_what_a_run_has_written_stays_when_it_fails(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    with pytest.raises(RuntimeError), claimed(run.path):
        run.write_history([{"epoch": 1}])
        raise RuntimeError
    assert run.history() == [{"epoch": 1}]
    assert run.settings_file.exists()
    with pytest.raises(RuntimeError), claimed(run.path):
        raise RuntimeError
    assert run.settings_file.exists()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Failed, match="cannot be written to"), claimed(tmp_path / "file" / "run"):
        pass


def test_two_processes_cannot_work_in_one_folder(tmp_path: Path) -> None:
    program = (
        "import sys; from prichexy_train.runs import RunFolder\n"
        "from prichexy_train.settings import Training\n"
        "with RunFolder(sys.argv[1]).claimed('verifier', Training(), data={}, seed=1,"
        " device='CPU'):\n"
        "    print('mine', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "mine\n"
        before = sorted(tmp_path.iterdir())
        with pytest.raises(InUse, match="another process works"), claimed(tmp_path):
            pass
        assert sorted(tmp_path.iterdir()) == before
        other.kill()
    # kill -9 leaves no lock behind.
    with claimed(tmp_path, Training(), data={}):
        pass


def test_a_run_that_is_shared_out_is_shared_with_who_shares_it(tmp_path: Path) -> None:
    with claimed(tmp_path, together=True):
        with claimed(tmp_path, together=True):
            pass
        with pytest.raises(InUse, match="another process works"), claimed(tmp_path):
            pass
    with claimed(tmp_path), pytest.raises(InUse), claimed(tmp_path, together=True):
        pass
    assert len(RunFolder(tmp_path).provenance()["starts"]) == 3


def test_a_new_run_that_fails_leaves_it_to_who_shares_it(tmp_path: Path) -> None:
    with ExitStack() as other, pytest.raises(RuntimeError), claimed(tmp_path, together=True):
        other.enter_context(claimed(tmp_path, together=True))
        raise RuntimeError
    assert RunFolder(tmp_path).settings_file.is_file()


@pytest.mark.parametrize(
    ("settings", "words", "error"),
    [
        (Stage(objective="contrastive"), {}, r"objective is pairs there and contrastive now"),
        (Stage(training=Training(epochs=3)), {}, r"training\.epochs is 100 there and 3 now"),
        (Stage(training=Training(patience=3)), {}, r"training\.patience is None there and 3 now"),
        (Stage(), {"stage": "classifier"}, "holds a run of verifier, not of classifier"),
        (Stage(), {"data": {"set": "d2"}}, "other data: set differs"),
        (Stage(), {"data": {"set": "d1", "more": "d3"}}, "other data: more differs"),
    ],
)
def test_a_folder_of_another_run_is_refused_with_what_differs(
    tmp_path: Path, settings: Stage, words: dict[str, Any], error: str
) -> None:
    with claimed(tmp_path):
        pass

    with pytest.raises(Misconfigured, match=error), claimed(tmp_path, settings, **words):
        pass


def test_another_machine_may_go_on(tmp_path: Path) -> None:
    with claimed(tmp_path):
        pass
    other = Stage(training=Training(device="cpu", checkpoint_seconds=7, cache_on_device=False))
    with claimed(tmp_path, other):
        pass

    assert RunFolder(tmp_path).settings()["training"]["device"] == "cpu"


def test_the_best_networks_are_loaded_by_name(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.save_best({"verifier": {"weight": torch.ones(2)}}, epoch=3)

    assert torch.equal(load_best(tmp_path, "verifier")["weight"], torch.ones(2))
    with pytest.raises(Damaged, match=r"best\.pt: holds no critic, but verifier"):
        load_best(tmp_path, "critic")
    with pytest.raises(Damaged, match=r"best\.pt: cannot be read"):
        load_best(tmp_path / "none", "verifier")


@pytest.mark.parametrize("name", ["settings.toml", "provenance.json", "result.json"])
def test_a_folder_that_is_no_run_is_named(tmp_path: Path, name: str) -> None:
    run = RunFolder(tmp_path)
    read = {
        "settings.toml": run.settings, "provenance.json": run.provenance, "result.json": run.result
    }  # fmt: skip

    with pytest.raises(Damaged, match=f"{name}: cannot be read: is this a run"):
        read[name]()
    (tmp_path / name).write_text("[[[")
    with pytest.raises(Damaged, match=f"{name}: cannot be read: is this a run"):
        read[name]()
