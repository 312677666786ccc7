"""The MONAI bundle on disk: what the model is, what is known about it, and the model itself."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

from prichexy_model.anonymizer import Anonymizer
from prichexy_model.flow import BORDERS, Border
from prichexy_model.generator import STRIDE, build_generator
from prichexy_model.weights import WeightsError, load_weights

__all__ = [
    "METADATA_FILE",
    "WEIGHTS_FILE",
    "Bundle",
    "BundleError",
    "Evidence",
    "load_anonymizer",
    "read_bundle",
]

#: Where these lie inside a bundle.
METADATA_FILE: Final = "configs/metadata.json"
WEIGHTS_FILE: Final = "models/model.pt"

#: "untrained": random initial weights, no privacy is claimed; "trained": not yet attacked;
#: "measured": with an attack report.
Evidence = Literal["untrained", "trained", "measured"]

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_SENTENCE: Final = re.compile(r"[^\x00-\x1f]{1,400}")
_SECTION: Final = "prichexy"
_KEYS: Final = {"evidence", "statement", "mu", "border", "input_size", "weights_sha256"}


class BundleError(WeightsError):
    """The bundle cannot be used; the text names the file and the key that is wrong.

    A WeightsError, so whoever loads a model has one error to catch.
    """


@dataclass(frozen=True, slots=True)
class Bundle:
    """What a bundle says about its model.

    ``digest`` is the SHA-256 of the weights' file, ``statement`` the sentence people are shown,
    ``mu`` the largest displacement in normalised coordinates along an axis, ``input_size`` the
    rows and columns of the image that the generator sees.
    """

    name: str
    version: str
    digest: str
    evidence: Evidence
    statement: str
    mu: float
    border: Border
    input_size: int


def read_bundle(folder: str | Path) -> Bundle:
    """Give what the bundle in ``folder`` says about its model; the weights are not read.

    Raises BundleError when the metadata is missing, is not JSON, or lacks or garbles a key.
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
    section = metadata.get(_SECTION)
    if not isinstance(section, Mapping):
        raise BundleError(f"{path}: has no section {_SECTION}")
    odd = sorted(str(key) for key in set(section) ^ _KEYS)
    if odd:
        raise BundleError(f"{path}: {_SECTION}: missing or unknown: {', '.join(odd)}")
    return Bundle(
        name=_text(path, metadata, "name", _SENTENCE),
        version=_text(path, metadata, "version", _SENTENCE),
        digest=_text(path, section, "weights_sha256", _DIGEST),
        evidence=_one_of(path, section, "evidence", get_args(Evidence)),
        statement=_text(path, section, "statement", _SENTENCE),
        mu=_mu(path, section),
        border=_one_of(path, section, "border", BORDERS),
        input_size=_input_size(path, section),
    )


def load_anonymizer(folder: str | Path) -> tuple[Anonymizer, Bundle]:
    """Give the bundle's model, in eval mode on the CPU without gradients, and what it says.

    Raises BundleError as ``read_bundle`` does, and WeightsError when the weights are not those
    the metadata names or do not fit the generator.
    """
    bundle = read_bundle(folder)
    path = Path(folder) / WEIGHTS_FILE
    weights = load_weights(path, bundle.digest)
    generator = build_generator()
    try:
        generator.load_state_dict(weights)
    except RuntimeError as error:
        raise WeightsError(f"{path}: these are not the weights of this generator") from error
    anonymizer = Anonymizer(generator, bundle.mu, bundle.border, size=bundle.input_size)
    anonymizer.requires_grad_(requires_grad=False).eval()
    return anonymizer, bundle


def _text(path: Path, data: Mapping[str, Any], key: str, pattern: re.Pattern[str]) -> str:
    value = data.get(key)
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise BundleError(f"{path}: {key} is missing or not valid")
    return value


def _one_of(path: Path, data: Mapping[str, Any], key: str, choices: tuple[Any, ...]) -> Any:
    if data[key] not in choices:
        raise BundleError(f"{path}: {key} is not one of {', '.join(choices)}")
    return data[key]


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
