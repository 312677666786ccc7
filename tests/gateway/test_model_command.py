"""``prichexy model``: what is refused, what is told, and with which exit code."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from prichexy_gateway import cli, native
from prichexy_gateway.bundle_check import store_at
from prichexy_gateway.errors import Refused
from prichexy_gateway.home import Home
from prichexy_model.bundle import METADATA_FILE, WEIGHTS_FILE, load_anonymizer
from prichexy_model.weights import save_weights
from prichexy_store.bundles import describe_bundle
from prichexy_testing.bundles import another_bundle, describe

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Give what runs ``prichexy model … --home``; it gives the exit code and all that was said."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> tuple[int, str]:
        words = ["prichexy", "model", *map(str, arguments), "--home", str(tmp_path / "home")]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out + captured.err

    return run


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Give real bundles; no test may alter them."""
    folder = tmp_path_factory.mktemp("bundles")
    found = {"trained": another_bundle(folder / "trained", 1, evidence="trained")}
    found["untrained"] = another_bundle(folder / "untrained", 2)
    found["cut short"] = another_bundle(folder / "cut", 3)
    weights = found["cut short"] / WEIGHTS_FILE
    weights.write_bytes(weights.read_bytes()[:1000])
    found["idle"] = another_bundle(folder / "idle", 4)
    state = load_anonymizer(found["idle"])[0].generator.state_dict()
    digest = save_weights(found["idle"] / WEIGHTS_FILE, {k: v * 0 for k, v in state.items()})
    describe(found["idle"], prichexy={"weights_sha256": digest})
    found["garbled"] = another_bundle(folder / "garbled", 5, mu=7)
    return found


def test_a_bundle_that_only_says_it_was_measured_is_refused_by_its_own_name(
    run: Run, tmp_path: Path
) -> None:
    boast = another_bundle(tmp_path / "boast", 6, evidence="measured")
    code, told = run("promote", boast)
    assert code == 3
    assert f"{boast / METADATA_FILE}: evidence is measured" in " ".join(told.split())
    assert ".incoming" not in told
    assert "model.bundle" not in told


def test_the_list_can_be_read_in_eighty_columns(
    run: Run, bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run("promote", bundles["trained"])
    monkeypatch.setenv("COLUMNS", "80")
    told = run("list")[1]
    (version,) = json.loads(run("list", "--json")[1])["versions"]
    for whole in (version["version"]["digest"][:8], version["version"]["weights"][:12], "trained"):
        assert whole in told
    assert "…" not in told


@pytest.mark.parametrize("command", ["list", "add", "promote", "rollback"])
def test_every_command_documents_its_exit_codes(run: Run, command: str) -> None:
    code, text = run(command, "--help")
    assert code == 0
    assert "Exit codes" in text


def test_a_bundle_that_was_added_is_listed_and_promoted_by_its_digest(
    run: Run, bundles: dict[str, Path], tmp_path: Path
) -> None:
    run("promote", bundles["untrained"])
    code, told = run("add", bundles["trained"])
    assert code == 0, told
    assert "added: prichexy-generator 1, trained" in told
    listed = json.loads(run("list", "--json")[1])["versions"]
    [added] = [one for one in listed if not one["in_use"]]
    assert (added["last_used"], added["whole"]) == ("", True)
    assert run("list")[0] == 0
    assert run("promote", added["version"]["digest"][:8])[0] == 0
    boast = another_bundle(tmp_path / "boast", 6, evidence="measured")
    assert run("add", boast)[0] == 3


def test_the_way_of_a_promotion_and_back(run: Run, bundles: dict[str, Path]) -> None:
    assert "No model was in use yet" in run("list")[1]

    code, told = run("promote", bundles["untrained"], "--reason", "to begin", "--by", "alice")
    assert code == 0, told
    assert "promoted: prichexy-generator 2, untrained" in told
    assert "Random initial weights; no privacy is claimed." in told
    assert run("promote", bundles["trained"])[0] == 0
    assert "in use already" in run("promote", bundles["trained"])[1]

    code, told = run("promote", bundles["untrained"])
    assert (code, "is untrained, but what is in use" in told) == (3, True)
    assert run("promote", bundles["untrained"], "--force")[0] == 2

    code, told = run("rollback", "--reason", "it blurs [ribs]")
    assert code == 0
    assert "rolled back: prichexy-generator 2, untrained" in told
    code, told = run("rollback")
    assert (code, "no former version" in told) == (3, True)

    listed = json.loads(run("list", "--json")[1])
    versions = {entry["version"]["version"]: entry for entry in listed["versions"]}
    assert [versions[v]["in_use"] for v in ("1", "2")] == [False, True]
    trained = versions["1"]["version"]
    code, told = run("promote", trained["weights"][:12])
    assert (code, trained["weights"] in told) == (0, True)

    code, told = run("list")
    assert code == 0
    lines = told.splitlines()
    assert lines[1].split()[:2] == ["former", versions["2"]["version"]["digest"][:8]]
    assert lines[2].split()[:4] == ["in", "use", trained["digest"][:8], trained["weights"][:12]]

    code, told = run("list", "--history")
    assert code == 0
    for word in ("alice", "to begin", "it blurs [ribs]", "rolled back", "promoted"):
        assert word in told
    history = json.loads(run("list", "--history", "--json")[1])
    assert [change["action"] for change in history] == [
        "promoted",
        "promoted",
        "rolled back",
        "promoted",
    ]
    assert "@" in history[1]["by"]


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("cut short", "SHA-256 is not"),
        ("idle", "gives no displacement"),
        ("garbled", "mu is not a number"),
    ],
)
def test_a_bundle_that_no_worker_could_use_is_refused_with_its_fault(
    run: Run, bundles: dict[str, Path], tmp_path: Path, name: str, complaint: str
) -> None:
    code, told = run("promote", bundles[name], "--force", "--reason", "now")
    assert (code, complaint in told) == (3, True), told
    assert not (tmp_path / "home" / "models" / "current").exists()


def test_what_is_no_bundle_and_no_version_is_wrong_use(run: Run, tmp_path: Path) -> None:
    code, told = run("promote", tmp_path / "nowhere")
    assert (code, "no such folder" in told) == (2, True)
    code, told = run("promote", tmp_path)
    assert (code, "metadata.json" in told) == (3, True)


def test_a_store_of_another_place_can_be_named(
    run: Run, bundles: dict[str, Path], tmp_path: Path
) -> None:
    assert run("promote", bundles["untrained"], "--store", tmp_path / "shared")[0] == 0
    assert (tmp_path / "shared" / "current" / WEIGHTS_FILE).is_file()
    assert not (tmp_path / "home" / "models").exists()


@pytest.mark.parametrize(
    ("section", "complaint"),
    [
        ({"weights_sha256": "0" * 64}, "weights are not those"),
        ({"evidence": "proven"}, "weights are not those"),
        ({"coarse": {"mu": 0.1}}, "is not as it should be"),
    ],
)
def test_a_quick_look_refuses_what_is_plainly_wrong(
    bundles: dict[str, Path], tmp_path: Path, section: dict[str, object], complaint: str
) -> None:
    shutil.copytree(bundles["untrained"], tmp_path / "bundle")
    describe(tmp_path / "bundle", prichexy=section)
    with pytest.raises(Refused, match=complaint):
        describe_bundle(tmp_path / "bundle", "0" * 64)
    (tmp_path / "bundle" / "configs" / "metadata.json").write_text("[]")
    with pytest.raises(Refused, match="is not as it should be"):
        describe_bundle(tmp_path / "bundle", "0" * 64)


class TestServe:
    """Which model ``prichexy serve`` starts with."""

    @pytest.fixture
    def home(self, tmp_path: Path) -> Home:
        return Home(tmp_path / "home")

    @pytest.fixture
    def shipped(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        folder = another_bundle(tmp_path / "shipped", 1)
        monkeypatch.setattr(native, "default_bundle", lambda: folder)
        return folder

    def start(self, home: Home, bundle: Path | None = None) -> list[str]:
        told: list[str] = []
        assert native._model_in_use(home, bundle, told.append) == home.models / "current"
        return told

    def actions(self, home: Home) -> list[str]:
        return [change.action for change in store_at(home.models).history()]

    def test_the_shipped_one_is_kept_up_with_until_somebody_promotes(
        self, home: Home, shipped: Path, bundles: dict[str, Path]
    ) -> None:
        self.start(home)
        self.start(home)
        assert self.actions(home) == ["installed"]
        describe(shipped, version="1.1")
        self.start(home)
        assert self.actions(home) == ["installed", "installed"]
        store_at(home.models).promote(bundles["trained"], "alice")
        describe(shipped, version="1.2", prichexy={"evidence": "trained"})
        self.start(home)
        assert self.actions(home) == ["installed", "installed", "promoted"]

    def test_a_shipped_one_with_weaker_evidence_is_left_and_said(
        self, home: Home, shipped: Path
    ) -> None:
        describe(shipped, prichexy={"evidence": "trained"})
        self.start(home)
        describe(shipped, version="1.1", prichexy={"evidence": "untrained"})
        (told,) = self.start(home)
        assert told.startswith("the model in use stays: ")
        assert self.actions(home) == ["installed"]

    def test_a_broken_shipped_one_is_no_model_to_begin_with(
        self, home: Home, shipped: Path
    ) -> None:
        (shipped / WEIGHTS_FILE).unlink()
        with pytest.raises(Refused, match=r"model\.pt"):
            self.start(home)

    def test_a_named_one_is_promoted_by_the_same_rules(
        self, home: Home, shipped: Path, bundles: dict[str, Path]
    ) -> None:
        self.start(home, bundles["trained"])
        assert self.actions(home) == ["promoted"]
        with pytest.raises(Refused, match="--force"):
            self.start(home, bundles["untrained"])
