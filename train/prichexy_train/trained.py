"""Networks of finished runs, with their best weights: on the CPU, in eval mode, as they learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import TypeAdapter, ValidationError
from torch import nn

from prichexy_model.classifier import AbnormalityClassifier
from prichexy_model.verifier import SiameseVerifier
from prichexy_train.errors import Damaged, Misconfigured
from prichexy_train.runs import RunFolder, load_best
from prichexy_train.settings import Section
from prichexy_train.stages.anonymizers import (
    GENERATOR,
    AnonymizerSettings,
    DeformationSettings,
    PrivacyNetSettings,
    build_anonymizer,
    trained_network,
)
from prichexy_train.stages.classifier import ClassifierSettings, build_classifier
from prichexy_train.stages.verifier import VerifierNetwork, VerifierSettings, build_verifier

__all__ = ["load_anonymizer", "load_classifier", "load_critics", "load_verifier", "network_of"]

_ANONYMIZER: Final[TypeAdapter[DeformationSettings | PrivacyNetSettings]] = TypeAdapter(
    AnonymizerSettings
)

Network = TypeVar("Network", bound=nn.Module)
Settings = TypeVar("Settings", bound=Section)


def load_verifier(run: str | Path) -> SiameseVerifier:
    """Give what a run of ``verifier`` trained.

    Raises Misconfigured when the run is another stage's or not finished, and Damaged when it
    cannot be read.
    """
    network = _settings(run, "verifier", VerifierSettings).network
    return _with_weights(run, "verifier", _verifier(network))


def load_classifier(run: str | Path) -> AbnormalityClassifier:
    """Give what a run of ``classifier`` trained; its ``labels`` are those it knows. Raises so."""
    network = _settings(run, "classifier", ClassifierSettings).network
    network = network.model_copy(update={"pretrained": None})
    labels = _result(run)["labels"]
    return _with_weights(run, "classifier", build_classifier(network, labels, seed=0))


def load_anonymizer(
    run: str | Path,
) -> tuple[nn.Module, DeformationSettings | PrivacyNetSettings]:
    """Give what a run of ``pretrain`` or ``anonymizer`` trained, from images to images.

    And its table ``[anonymizer]``. Raises as ``load_verifier`` does.
    """
    _result(run)
    table = RunFolder(run).settings().get("anonymizer")
    if table is None:
        raise Misconfigured(f"{run}: is a run that trained no anonymizer")
    try:
        settings = _ANONYMIZER.validate_python(table)
    except ValidationError as error:
        raise Damaged(f"{run}: its settings are not those of an anonymizer") from error
    anonymizer = build_anonymizer(settings)
    _with_weights(run, GENERATOR, trained_network(anonymizer))
    return anonymizer.eval(), settings


def load_critics(run: str | Path) -> dict[str, SiameseVerifier]:
    """Give the verifiers that a run of ``anonymizer`` trained against, by name, as they ended.

    At the best epoch, that is, with the generator that they then knew. Raises as
    ``load_verifier`` does.
    """
    critics = _result(run).get("critics")
    if critics is None:
        raise Misconfigured(f"{run}: is a run without critics")
    return {
        name: _with_weights(run, name, _verifier(VerifierNetwork.model_validate(network)))
        for name, network in critics.items()
    }


def network_of(run: str | Path) -> VerifierNetwork:
    """Give which network a run of ``verifier`` trained. Raises as ``load_verifier`` does."""
    return _settings(run, "verifier", VerifierSettings).network


def _verifier(network: VerifierNetwork) -> SiameseVerifier:
    # The weights that it began with are not needed, and their file may be gone.
    return build_verifier(network.model_copy(update={"pretrained": None}), seed=0)


def _result(run: str | Path) -> dict[str, Any]:
    folder = RunFolder(run)
    if not folder.finished:
        raise Misconfigured(f"{run}: is no finished run")
    return folder.result()


def _settings(run: str | Path, stage: str, kind: type[Settings]) -> Settings:
    found = _result(run).get("stage")
    if found != stage:
        raise Misconfigured(f"{run}: is a run of {found}, not of {stage}")
    try:
        return kind.model_validate(RunFolder(run).settings())
    except ValidationError as error:
        raise Damaged(f"{run}: its settings are not those of {stage}") from error


def _with_weights(run: str | Path, name: str, network: Network) -> Network:
    try:
        network.load_state_dict(load_best(run, name))
    except RuntimeError as error:
        raise Damaged(f"{run}: its weights do not fit its settings") from error
    return network.eval()
