"""From finished runs to a MONAI bundle: what the gateway deforms with, and what is known of it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

import prichexy_model
from prichexy_model.anonymizer import Anonymizer
from prichexy_model.bundle import (
    CLASSIFIER_FILE,
    METADATA_FILE,
    VERIFIER_FILE,
    WEIGHTS_FILE,
    load_anonymizer,
    load_classifier,
    load_verifier,
)
from prichexy_model.multiscale import MultiscaleAnonymizer
from prichexy_model.weights import WeightsError, save_weights
from prichexy_train import trained
from prichexy_train.bundle_card import Card, metadata, readme
from prichexy_train.bundle_figures import Figures, figures_of, no_figures
from prichexy_train.errors import Damaged, Failed, Misconfigured
from prichexy_train.methods_from import method_from
from prichexy_train.randomness import generator
from prichexy_train.runs import RunFolder, origin
from prichexy_train.stages.anonymizers import DeformationSettings
from prichexy_train.stages.critics import CLASSIFIER
from prichexy_train.stages.training_run import file_digest

__all__ = ["DEFAULT_TEMPLATE", "Exported", "export_bundle"]

#: The untrained bundle of the checkout: licence, schema and inference are taken from it.
DEFAULT_TEMPLATE: Final = Path(prichexy_model.__file__).parents[1] / "untrained"

_SCHEMA: Final = "configs/metadata.schema.json"
_INFERENCE: Final = "configs/inference.json"
_LICENCE: Final = "LICENSE"
#: Of a bundle's name and version, which stand in every result.
_WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,59}")
_README: Final = "docs/README.md"
#: Half precision may move a displacement by this, in pixels, before the export is refused.
_MOST_MOVED: Final = 0.02
#: And what verifier or classifier give by this share. Sound ones were seen to be off by 0.015.
_MOST_OFF: Final = 0.1
_TRIED: Final = 4


@dataclass(frozen=True)
class Exported:
    """A finished bundle: its folder, version, and what is known about it.

    ``moved`` is the largest change, in pixels, that half precision made to a displacement.
    """

    folder: Path
    version: str
    figures: Figures
    moved: float


def export_bundle(
    anonymizer: Path,
    to: Path,
    *,
    verifier: Path | None = None,
    classifier: Path | None = None,
    records: Path | None = None,
    name: str = "prichexy-generator",
    version: str | None = None,
    data_source: str = "",
    template: Path = DEFAULT_TEMPLATE,
) -> Exported:
    """Make the bundle in the new folder ``to`` from finished runs; it appears whole or not at all.

    ``records`` is a folder below which the records of attacks and utility lie: they decide
    whether the evidence is "measured", and verifier and classifier must then be among the networks
    that they were measured with. Weights go in half precision, and what the networks that come
    back out give is compared with what those of the runs give. ``version`` by default follows from
    all that decides over the result. Raises Misconfigured for a run that is none of a deformation,
    when ``to`` is there, for a name or version that is no word, when no record is about the
    anonymizer, and for a network that the records do not know; Damaged, Failed, RecordError.
    """
    if to.exists():
        raise Misconfigured(f"{to}: is there already; name a folder that is not")
    for option, word in (("--name", name), ("--version", version)):
        if word is not None and not _WORD.fullmatch(word):
            raise Misconfigured(f"{option} {word!r}: letters, digits and . _ + - only, at most 60")
    network, settings = trained.load_anonymizer(anonymizer)
    if not isinstance(network, Anonymizer) or not isinstance(settings, DeformationSettings):
        raise Misconfigured(f"{anonymizer}: trained no deformation; a worker can apply no other")
    if not (settings.mu > 0):
        raise Misconfigured(f"{anonymizer}: with mu = 0 nothing is anonymised")
    digest = method_from(f"run:{anonymizer}").of.digest
    figures = no_figures()
    if records is not None:
        critics = "critics" in RunFolder(anonymizer).result()
        figures = figures_of(records, digest, critics=critics)
        _check_measured_with("verifier", verifier, figures.sources["verifiers"])
        _check_measured_with("classifier", classifier, figures.sources["classifiers"])
    partial = to.with_name(f".{to.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        for folder in ("configs", "docs", "models"):
            (partial / folder).mkdir(parents=True)
        for file in (_LICENCE, _SCHEMA):
            shutil.copyfile(template / file, partial / file)
        base = _read(template / METADATA_FILE)
        inference = _read(template / _INFERENCE)
        if isinstance(network, MultiscaleAnonymizer):
            inference["anonymizer"] |= _COARSE_INFERENCE
        if settings.field_size is not None:
            inference["network_def"] |= _FIELD_INFERENCE
        section = _generator_section(partial, network, settings, figures)
        runs = {"anonymizer": anonymizer}
        if verifier is not None:
            section["verifier"] = _verifier_section(partial, verifier)
            runs["verifier"] = verifier
        if classifier is not None:
            section["classifier"] = _classifier_section(partial, classifier)
            runs["classifier"] = classifier
        provenance = {
            "method_digest": digest,
            "runs": {role: _told(run) for role, run in runs.items()},
            "records": dict(figures.sources),
            "exported_by": origin(),
        }
        card = Card(
            name=name,
            version=version or _version(section, figures),
            section=section,
            figures=figures,
            provenance=provenance,
            data_source=data_source,
        )
        _write(partial / METADATA_FILE, metadata(base, card))
        _write(partial / _INFERENCE, inference)
        (partial / _README).write_text(readme(card), encoding="utf-8")
        moved = _compared(partial, network, verifier, classifier)
        partial.rename(to)
    except (WeightsError, OSError) as error:
        raise Failed(f"{to}: the bundle cannot be made: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Exported(to, card.version, figures, moved)


_COARSE_INFERENCE: Final[Mapping[str, str]] = {
    "_target_": "prichexy_model.multiscale.MultiscaleAnonymizer",
    "mu_coarse": "@_meta_::prichexy::coarse::mu",
    "cells": "@_meta_::prichexy::coarse::cells",
}
_FIELD_INFERENCE: Final[Mapping[str, str]] = {
    "field_size": "@_meta_::prichexy::field_size",
}


def _check_measured_with(role: str, run: Path | None, known: Sequence[str]) -> None:
    if run is not None and file_digest(RunFolder(run).best_file) not in known:
        raise Misconfigured(
            f"{run}: is no {role} that the records were measured with, so their figures are not "
            f"its own; name that one's run, or leave --{role} out"
        )


def _generator_section(
    folder: Path, network: Anonymizer, settings: DeformationSettings, figures: Figures
) -> dict[str, Any]:
    section: dict[str, Any] = {
        "evidence": figures.evidence,
        "statement": figures.statement,
        "mu": settings.mu,
        "border": settings.border,
        "input_size": settings.size,
        "weights_sha256": save_weights(folder / WEIGHTS_FILE, network.generator.state_dict()),
    }
    if figures.evidence == "measured":
        section["protects"] = figures.protects
    if settings.field_size is not None:
        section["field_size"] = settings.field_size
    if isinstance(network, MultiscaleAnonymizer):
        section["coarse"] = {"mu": settings.mu_coarse, "cells": settings.cells}
    return section


def _verifier_section(folder: Path, run: Path) -> dict[str, Any]:
    network, settings = trained.load_verifier(run), trained.network_of(run)
    return {
        "backbone": settings.backbone,
        "head": settings.head,
        "embedding": settings.embedding,
        "input_size": settings.size,
        "weights_sha256": save_weights(folder / VERIFIER_FILE, network.state_dict()),
    }


def _classifier_section(folder: Path, run: Path) -> dict[str, Any]:
    network = trained.load_classifier(run)
    return {
        "backbone": network.backbone_name,
        "labels": list(network.labels),
        "input_size": network.size,
        "weights_sha256": save_weights(folder / CLASSIFIER_FILE, network.state_dict()),
    }


def _compared(
    folder: Path, network: Anonymizer, verifier: Path | None, classifier: Path | None
) -> float:
    """Load the bundle as others will, and give how far its displacements lie from the run's.

    In pixels, at most. Raises WeightsError for a bundle that cannot be loaded, Failed where half
    precision changed what a network does.
    """
    ours, _ = load_anonymizer(folder)
    # Smooth noise over the whole range: not radiographs, but no easy case either.
    coarse = torch.rand(_TRIED, 1, 16, 16, generator=generator(1, "export"))
    images = nn.functional.interpolate(coarse, size=ours.size, mode="bilinear")
    others = images.roll(1, 0)
    with torch.inference_mode():
        if verifier is not None:
            back, _ = load_verifier(folder)
            before = trained.load_verifier(verifier)
            _check_alike("verifier", back.embed(images), before.embed(images))
            _check_alike("verifier", back(images, others), before(images, others))
        if classifier is not None:
            judge, _ = load_classifier(folder)
            _check_alike("classifier", judge(images), trained.load_classifier(classifier)(images))
        difference = (ours.displacement(images) - network.eval().displacement(images)).abs()
    moved = float(difference.max()) * (ours.size - 1) / 2
    if not moved <= _MOST_MOVED:
        raise Failed(
            f"in half precision the generator moves pixels by {moved:.3f} more or less than as it "
            f"was trained and measured; {_MOST_MOVED} are allowed"
        )
    return moved


def _check_alike(role: str, ours: Tensor, expected: Tensor) -> None:
    """Compare outputs (B, ...) by the length of their difference, as a share of what is expected.

    At least 1 is expected: logits near 0 mean a guess, whatever share of them is lost.
    """
    length = max(float(expected.norm()), 1.0)
    off = float((ours - expected).norm()) / length
    if not off <= _MOST_OFF:
        raise Failed(
            f"in half precision the {role} answers otherwise than as it was trained and measured: "
            f"its outputs are off by {100 * off:.1f} %; {100 * _MOST_OFF:.0f} are allowed"
        )


def _version(section: Mapping[str, Any], figures: Figures) -> str:
    """Give the software's version with what tells this bundle from any other."""
    text = json.dumps([section, figures.metrics], sort_keys=True)
    return f"{origin()['software']}+{sha256(text.encode()).hexdigest()[:8]}"


def _told(run: Path) -> dict[str, Any]:
    """Give how a run came to be; files are named without their folders, which are a machine's."""
    folder = RunFolder(run)
    best, provenance = folder.result(), folder.provenance()
    # Beside the sets stand the networks that it began with, by the digests of their weights.
    networks = {CLASSIFIER, "start", "network.pretrained", *best.get("critics", ())}
    data = provenance.pop("data")
    return {
        **provenance,
        "sets": {name: digest for name, digest in data.items() if name not in networks},
        "began_with": {name: digest for name, digest in data.items() if name in networks},
        "settings": _without_folders(folder.settings()),
        "best_epoch": best.get("best_epoch"),
        "validation": best.get("validation"),
    }


def _without_folders(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_folders(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_folders(one) for one in value]
    return Path(value).name if isinstance(value, str) and "/" in value else value


def _read(path: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(path.read_bytes())
    except OSError as error:
        text = f"{path}: cannot be read ({error.strerror}); name the checkout's model/untrained"
        raise Misconfigured(f"{text} as --template") from error
    except ValueError as error:
        raise Damaged(f"{path}: is not JSON") from error
    return value


def _write(path: Path, value: Mapping[str, Any]) -> None:
    text = json.dumps(value, indent=4, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")
