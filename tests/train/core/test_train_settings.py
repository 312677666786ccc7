"""Configuration files: read strictly, and written so that they read back the same."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prichexy_testing.shared_data import REPO
from prichexy_train.attacks.running import attackers_digest
from prichexy_train.attacks.settings import AttackSettings
from prichexy_train.errors import Misconfigured
from prichexy_train.settings import Section, Training, changeable_keys, flat, read_settings
from prichexy_train.stages.classifier import ClassifierSettings
from prichexy_train.stages.verifier import VerifierSettings
from prichexy_train.toml_text import toml_text

CONFIGS = REPO / "train" / "configs"


class Stage(Section):
    objective: str = "pairs"
    training: Training = Training()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "stage.toml"
    path.write_text('objective = "other"\n[training]\nepochs = 7\n', encoding="utf-8")
    return path


def test_a_file_is_read_and_what_it_leaves_out_is_the_default(file: Path) -> None:
    read = read_settings(file, Stage)

    assert (read.objective, read.training.epochs) == ("other", 7)
    assert read.training.seed == Training().seed


def test_changes_take_the_place_of_what_the_file_says(file: Path) -> None:
    changes = [
        "training.epochs=3",
        "training.learning_rate=1e-3",
        "objective=a text",
        "training.compile=true",
    ]

    read = read_settings(file, Stage, changes)

    assert read.objective == "a text"
    assert read.training.epochs == 3
    assert read.training.learning_rate == 1e-3
    assert read.training.compile


@pytest.mark.parametrize(
    ("text", "changes", "error"),
    [
        ("[training]\nepoch = 3", [], r"stage\.toml: training\.epoch: there is no such"),
        ("[training]\nepochs = 0", [], r"stage\.toml: training\.epochs: .* greater than or equal"),
        ('[training]\ndevice = "gpu"', [], r"training\.device"),
        ("objective = ", [], r"stage\.toml: is not TOML"),
        ("", ["epochs"], r"--set epochs: not of the form key=value"),
        ("", ["=3"], "not of the form key=value"),
        ("", ["objective.x=3"], r"objective.*"),
        ('objective = "a"', ["objective.x=3"], "objective is no table"),
        ("", ["training.learning_rate=inf"], r"training\.learning_rate: .*finite"),
        ("", ['training.epochs=3\nobjective="x"'], r"--set training\.epochs: is more than one"),
        ("", ["training.epochs=many"], r"training\.epochs: .*integer"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_by_file_and_key(
    tmp_path: Path, text: str, changes: list[str], error: str
) -> None:
    path = tmp_path / "stage.toml"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(Misconfigured, match=error):
        read_settings(path, Stage, changes)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"none\.toml: cannot be read"):
        read_settings(tmp_path / "none.toml", Stage)


def test_keys_that_may_change_are_those_of_the_machine() -> None:
    keys = changeable_keys(VerifierSettings())

    assert {"training.device", "training.compile", "network.pretrained"} <= keys
    assert not {"training.seed", "training.epochs", "network.backbone"} & keys


def test_tables_become_dotted_keys() -> None:
    assert flat({"a": 1, "b": {"c": {"d": 2}, "e": 3}}) == {"a": 1, "b.c.d": 2, "b.e": 3}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (path.name, kind)
        for pattern, kind in (
            ("verifier-*.toml", VerifierSettings),
            ("classifier-*.toml", ClassifierSettings),
        )
        for path in sorted(CONFIGS.glob(pattern))
    ],
)
def test_every_shipped_configuration_is_valid(name: str, kind: type[Section]) -> None:
    settings = read_settings(CONFIGS / name, kind, ["network.pretrained=none"])

    assert (
        kind.model_validate(tomllib.loads(toml_text(settings.model_dump(mode="json")))) == settings
    )


_VALUES: Any = st.one_of(
    st.booleans(), st.integers(-(2**62), 2**62), st.floats(allow_nan=False), st.text()
)
_TABLES: Any = st.recursive(
    st.dictionaries(st.text(), st.one_of(_VALUES, st.lists(_VALUES))),
    lambda inner: st.dictionaries(st.text(), st.one_of(inner, _VALUES, st.lists(inner))),
)


@settings(max_examples=40, deadline=None)
@given(_TABLES)
def test_toml_reads_back_as_it_was_written(values: dict[str, Any]) -> None:
    assert tomllib.loads(toml_text(values)) == values


def test_what_is_none_is_left_out() -> None:
    assert toml_text({"a": None, "b": {"c": None, "d": 1}}) == "[b]\nd = 1\n"


class Grown(Section):
    later = frozenset({"added"})

    objective: str = "pairs"
    added: int = 1


class Outer(Section):
    inner: Grown = Grown()


def test_a_key_that_came_later_is_not_written_at_its_default() -> None:
    assert flat(Outer().model_dump(mode="json")) == {"inner.objective": "pairs"}
    grown = Outer(inner=Grown(added=2))
    assert flat(grown.model_dump(mode="json")) == {"inner.objective": "pairs", "inner.added": 2}
    assert Outer.model_validate(grown.model_dump()) == grown


def test_runs_of_before_have_the_settings_of_now() -> None:
    assert "share_of_patients" not in VerifierSettings().model_dump()
    attack = AttackSettings()
    assert not {"shortcuts", "fresh.share_of_patients"} & flat(attack.model_dump()).keys()
    assert attackers_digest(attack) == attackers_digest(
        attack.model_copy(update={"shortcuts": True})
    )
