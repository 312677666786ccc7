"""The MONAI bundle on disk: what its models are, what is known about them, and the models."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, get_args

from torch import nn

from prichexy_model.anonymizer import Anonymizer
from prichexy_model.flow import BORDERS, Border
from prichexy_model.generator import STRIDE, build_generator
from prichexy_model.multiscale import LEAST_CELLS, MultiscaleAnonymizer, largest_coarse_mu
from prichexy_model.weights import WeightsError, load_weights

if TYPE_CHECKING:
    from prichexy_model.classifier import AbnormalityClassifier
    from prichexy_model.verifier import SiameseVerifier

__all__ = [
    "CLASSIFIER_FILE",
    "METADATA_FILE",
    "VERIFIER_FILE",
    "WEIGHTS_FILE",
    "Bundle",
    "BundleError",
    "ClassifierPart",
    "CoarsePart",
    "Evidence",
    "Head",
    "VerifierPart",
    "load_anonymizer",
    "load_classifier",
    "load_verifier",
    "read_bundle",
]

#: Where these lie inside a bundle; the last two only where the metadata names them.
METADATA_FILE: Final = "configs/metadata.json"
WEIGHTS_FILE: Final = "models/model.pt"
VERIFIER_FILE: Final = "models/verifier.pt"
CLASSIFIER_FILE: Final = "models/classifier.pt"

#: "untrained": random initial weights, no privacy is claimed; "trained": not fully attacked;
#: "measured": with an attack report.
Evidence = Literal["untrained", "trained", "measured"]
#: How a verifier compares two embeddings; see ``verifier.SiameseVerifier``.
Head = Literal["difference", "cosine"]

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_SENTENCE: Final = re.compile(r"[^\x00-\x1f]{1,400}")
_BACKBONE: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_SECTION: Final = "prichexy"
_KEYS: Final = {"evidence", "statement", "mu", "border", "input_size", "weights_sha256"}
_COARSE: Final = {"mu", "cells"}
_VERIFIER: Final = {"backbone", "head", "embedding", "input_size", "weights_sha256"}
_CLASSIFIER: Final = {"backbone", "labels", "input_size", "weights_sha256"}


class BundleError(WeightsError):
    """The bundle cannot be used; the text names the file and the key that is wrong.

    A WeightsError, so whoever loads a model has one error to catch.
    """


@dataclass(frozen=True, slots=True)
class CoarsePart:
    """The coarse field that ``multiscale.MultiscaleAnonymizer`` adds: its bound and its cells."""

    mu: float
    cells: int


@dataclass(frozen=True, slots=True)
class VerifierPart:
    """The network that tells whether two radiographs are of one patient.

    ``digest`` is the SHA-256 of its weights' file, ``input_size`` the rows and columns it sees.
    """

    digest: str
    backbone: str
    head: Head
    embedding: int
    input_size: int


@dataclass(frozen=True, slots=True)
class ClassifierPart:
    """The network that tells which of ``labels`` a radiograph shows, one logit a label."""

    digest: str
    backbone: str
    labels: tuple[str, ...]
    input_size: int


@dataclass(frozen=True, slots=True)
class Bundle:
    """What a bundle says about its models.

    ``digest`` is the SHA-256 of the generator's weights' file, ``statement`` the sentence people
    are shown, ``protects`` whether what was measured shows that attackers do worse than on real
    images, ``mu`` the largest displacement in normalised coordinates along an axis (of the
    fine field, where there is a coarse one, too; with border "paper" only four pixels and more
    inside the border, see ``flow.displacement``), ``input_size`` the rows and columns of the
    image that the field is for, ``field_size`` those at which the generator sees it and proposes
    the field, where these are others. The other networks are there for judging the generator:
    nothing that deforms needs them.
    """

    name: str
    version: str
    digest: str
    evidence: Evidence
    statement: str
    mu: float
    border: Border
    input_size: int
    field_size: int | None = None
    coarse: CoarsePart | None = None
    verifier: VerifierPart | None = None
    classifier: ClassifierPart | None = None
    protects: bool = False


def read_bundle(folder: str | Path) -> Bundle:
    """Give what the bundle in ``folder`` says about its models; no weights are read.

    Raises BundleError when the metadata is missing, is not JSON, or lacks or garbles a key, and
    when it says "measured" without a figure, or that it protects and was not measured.
    """
    path = Path(folder) / METADATA_FILE
    try:
        metadata = json.loads(path.read_bytes())
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise BundleError(f"{path}: is not JSON") from error
    if not isinstance(metadata, Mapping):
        raise BundleError(f"{path}: is no JSON object")
    optional = {"field_size", "coarse", "verifier", "classifier", "protects"}
    section = _section(path, metadata, _SECTION, _KEYS, optional)
    if section is None:
        raise BundleError(f"{path}: has no section {_SECTION}")
    evidence: Evidence = _one_of(path, section, "evidence", get_args(Evidence))
    if evidence == "measured" and not _holds_a_number(metadata.get("eval_metrics")):
        raise BundleError(f"{path}: evidence is measured, but eval_metrics holds no figure")
    protects = section.get("protects", False)
    if not isinstance(protects, bool) or (protects and evidence != "measured"):
        raise BundleError(f"{path}: protects is not true or false, or evidence is not measured")
    input_size = _input_size(path, section)
    return Bundle(
        name=_text(path, metadata, "name", _SENTENCE),
        version=_text(path, metadata, "version", _SENTENCE),
        digest=_text(path, section, "weights_sha256", _DIGEST),
        evidence=evidence,
        statement=_text(path, section, "statement", _SENTENCE),
        mu=_mu(path, section),
        border=_one_of(path, section, "border", BORDERS),
        input_size=input_size,
        field_size=_field_size(path, section, input_size),
        coarse=_coarse(path, section, input_size),
        verifier=_verifier(path, section),
        classifier=_classifier(path, section),
        protects=protects,
    )


def load_anonymizer(folder: str | Path) -> tuple[Anonymizer, Bundle]:
    """Give the bundle's model, in eval mode on the CPU without gradients, and what it says.

    Raises BundleError as ``read_bundle`` does, and WeightsError when the weights are not those
    the metadata names or do not fit the generator.
    """
    bundle = read_bundle(folder)
    generator = build_generator(bundle.field_size)
    _load(generator, Path(folder) / WEIGHTS_FILE, bundle.digest, "generator")
    mu, border, size = bundle.mu, bundle.border, bundle.input_size
    if bundle.coarse is None:
        anonymizer = Anonymizer(generator, mu, border, size=size)
    else:
        coarse = bundle.coarse
        anonymizer = MultiscaleAnonymizer(
            generator, mu, border, size=size, mu_coarse=coarse.mu, cells=coarse.cells
        )
    return _ready(anonymizer), bundle


def load_verifier(folder: str | Path) -> tuple[SiameseVerifier, VerifierPart]:
    """Give the bundle's verifier, ready as ``load_anonymizer`` gives the model, and its part.

    Raises BundleError, also when the bundle has none, and WeightsError.
    """
    # Not for whoever deforms only: backbones take their time to import.
    from prichexy_model.verifier import SiameseVerifier  # noqa: PLC0415

    part = read_bundle(folder).verifier
    if part is None:
        raise BundleError(f"{Path(folder)}: holds no verifier")
    try:
        network = SiameseVerifier(
            part.backbone, part.head, embedding=part.embedding, size=part.input_size
        )
    except ValueError as error:
        raise BundleError(f"{Path(folder) / METADATA_FILE}: verifier: {error}") from error
    _load(network, Path(folder) / VERIFIER_FILE, part.digest, "verifier")
    return _ready(network), part


def load_classifier(folder: str | Path) -> tuple[AbnormalityClassifier, ClassifierPart]:
    """Give the bundle's classifier, ready as ``load_anonymizer`` gives the model, and its part.

    Raises BundleError, also when the bundle has none, and WeightsError.
    """
    from prichexy_model.classifier import AbnormalityClassifier  # noqa: PLC0415

    part = read_bundle(folder).classifier
    if part is None:
        raise BundleError(f"{Path(folder)}: holds no classifier")
    try:
        network = AbnormalityClassifier(part.backbone, part.labels, size=part.input_size)
    except ValueError as error:
        raise BundleError(f"{Path(folder) / METADATA_FILE}: classifier: {error}") from error
    _load(network, Path(folder) / CLASSIFIER_FILE, part.digest, "classifier")
    return _ready(network), part


_Network = TypeVar("_Network", bound=nn.Module)


def _load(network: nn.Module, path: Path, digest: str, what: str) -> None:
    try:
        network.load_state_dict(load_weights(path, digest))
    except RuntimeError as error:
        raise WeightsError(f"{path}: these are not the weights of this {what}") from error


def _ready(network: _Network) -> _Network:
    network.requires_grad_(requires_grad=False).eval()
    return network


def _section(
    path: Path,
    data: Mapping[str, Any],
    name: str,
    keys: AbstractSet[str],
    optional: AbstractSet[str] = frozenset(),
) -> Mapping[str, Any] | None:
    """Give the object under ``name``, which holds exactly these keys; None where there is none."""
    if name not in data:
        return None
    section = data[name]
    if not isinstance(section, Mapping):
        raise BundleError(f"{path}: {name} is no JSON object")
    odd = sorted(str(key) for key in set(section) ^ keys if key not in optional)
    if odd:
        raise BundleError(f"{path}: {name}: missing or unknown: {', '.join(odd)}")
    return section


def _coarse(path: Path, data: Mapping[str, Any], size: int) -> CoarsePart | None:
    section = _section(path, data, "coarse", _COARSE)
    if section is None:
        return None
    mu, cells = section["mu"], _count(path, section, "cells")
    if cells < LEAST_CELLS or size % cells:
        raise BundleError(
            f"{path}: coarse: cells are fewer than {LEAST_CELLS} or do not part {size} pixels "
            "evenly"
        )
    number = isinstance(mu, int | float) and not isinstance(mu, bool)
    if not number or not 0 < mu <= largest_coarse_mu(cells):
        raise BundleError(f"{path}: coarse: mu is not above 0 or is so large that images may fold")
    return CoarsePart(mu=float(mu), cells=cells)


def _verifier(path: Path, data: Mapping[str, Any]) -> VerifierPart | None:
    section = _section(path, data, "verifier", _VERIFIER)
    if section is None:
        return None
    return VerifierPart(
        digest=_text(path, section, "weights_sha256", _DIGEST),
        backbone=_text(path, section, "backbone", _BACKBONE),
        head=_one_of(path, section, "head", get_args(Head)),
        embedding=_count(path, section, "embedding"),
        input_size=_count(path, section, "input_size"),
    )


def _classifier(path: Path, data: Mapping[str, Any]) -> ClassifierPart | None:
    section = _section(path, data, "classifier", _CLASSIFIER)
    if section is None:
        return None
    labels = section["labels"]
    fitting = isinstance(labels, list) and all(
        isinstance(label, str) and _SENTENCE.fullmatch(label) for label in labels
    )
    if not fitting or not labels or len(set(labels)) != len(labels):
        raise BundleError(f"{path}: labels is no list of different labels")
    return ClassifierPart(
        digest=_text(path, section, "weights_sha256", _DIGEST),
        backbone=_text(path, section, "backbone", _BACKBONE),
        labels=tuple(labels),
        input_size=_count(path, section, "input_size"),
    )


def _text(path: Path, data: Mapping[str, Any], key: str, pattern: re.Pattern[str]) -> str:
    value = data.get(key)
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise BundleError(f"{path}: {key} is missing or not valid")
    return value


def _one_of(path: Path, data: Mapping[str, Any], key: str, choices: tuple[Any, ...]) -> Any:
    if data[key] not in choices:
        raise BundleError(f"{path}: {key} is not one of {', '.join(choices)}")
    return data[key]


def _count(path: Path, data: Mapping[str, Any], key: str) -> int:
    value = data[key]
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise BundleError(f"{path}: {key} is not a whole number above 0")
    return value


def _mu(path: Path, data: Mapping[str, Any]) -> float:
    mu = data["mu"]
    # Not 0: a bundle whose model changes nothing must not pass for one that anonymises.
    if isinstance(mu, bool) or not isinstance(mu, int | float) or not 0 < mu < 1:
        raise BundleError(f"{path}: mu is not a number above 0 and below 1")
    return float(mu)


def _input_size(path: Path, data: Mapping[str, Any]) -> int:
    size = data["input_size"]
    if isinstance(size, bool) or not isinstance(size, int) or size <= 0 or size % STRIDE:
        raise BundleError(f"{path}: input_size is not a positive multiple of {STRIDE}")
    return size


def _field_size(path: Path, data: Mapping[str, Any], input_size: int) -> int | None:
    if "field_size" not in data:
        return None
    size = _count(path, data, "field_size")
    if size % STRIDE or size > input_size:
        raise BundleError(
            f"{path}: field_size is no multiple of {STRIDE} up to input_size, {input_size}"
        )
    return size


def _holds_a_number(value: object) -> bool:
    """Whether a number stands in nested tables and lists, at any depth."""
    if isinstance(value, Mapping):
        return any(map(_holds_a_number, value.values()))
    if isinstance(value, list):
        return any(map(_holds_a_number, value))
    return isinstance(value, int | float) and not isinstance(value, bool)
