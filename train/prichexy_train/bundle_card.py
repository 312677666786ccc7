"""What an exported bundle says of itself: MONAI's metadata, and the model card for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata as installed
from typing import Any, Final

from prichexy_model.flow import BORDER_PIXELS, border_defect
from prichexy_train.bundle_figures import Figures

__all__ = ["Card", "metadata", "readme"]

_RESEARCH: Final = (
    "Research on the anonymisation of chest radiographs. Not for releasing patients' images: "
    "{why}. Not for diagnosis."
)
_USE: Final = (
    "Lowering the risk that a frontal chest radiograph is matched to other radiographs of its "
    "patient, beside and never in place of de-identifying its header. Whoever releases images "
    "decides whether the risk that the figures leave is low enough. Not for diagnosis; not for "
    "other images than frontal chest radiographs."
)
_ALWAYS: Final = (
    (
        "No list of attacks is complete: a stronger attacker may exist, so the figures bound the "
        "risk from below."
    ),
    (
        "The networks were trained and measured on the data sets named here; other devices, other "
        "patients and other body parts were not."
    ),
    (
        "Weights are stored in half precision; the figures are of the weights of the runs, which "
        "may be more precise."
    ),
)


@dataclass(frozen=True)
class Card:
    """All that a bundle's texts are made from; ``section`` is what the gateway reads."""

    name: str
    version: str
    section: Mapping[str, Any]
    figures: Figures
    provenance: Mapping[str, Any]
    data_source: str = ""

    @property
    def limits(self) -> tuple[str, ...]:
        """Give the limits as sentences, those of the figures first."""
        return (*self.figures.limits, *_ALWAYS)

    @property
    def intended_use(self) -> str:
        """Give what the bundle is for, and what not."""
        if self.figures.evidence != "measured":
            return _RESEARCH.format(why="what attackers can do has not been measured")
        if not self.figures.protects:
            return _RESEARCH.format(why="no protection was shown")
        return _USE

    @property
    def trained_on(self) -> str:
        """Name the prepared sets that the anonymizer was trained on, with their digests."""
        sets = (
            f"{name} (SHA-256 of the prepared set {digest})"
            for name, digest in self.provenance["runs"]["anonymizer"]["sets"].items()
        )
        return f"{', '.join(sets)}. {self.data_source}".strip()


def metadata(base: Mapping[str, Any], card: Card) -> dict[str, Any]:
    """Give the bundle's metadata; ``base`` is another bundle's, for what does not depend on it."""
    size = card.section["input_size"]
    data = {**base}
    data |= {
        "version": card.version,
        "changelog": {
            card.version: f"exported from its runs; evidence: {card.section['evidence']}"
        },
        "monai_version": installed.version("monai"),
        "pytorch_version": installed.version("torch").partition("+")[0],
        "numpy_version": installed.version("numpy"),
        "required_packages_version": {"prichexy": installed.version("prichexy")},
        "name": card.name,
        "description": "A U-Net proposes a smooth displacement for every pixel of a chest "
        f"radiograph; the radiograph is resampled along it: {_reach(card.section)}. "
        f"{card.section['statement']}",
        "data_source": card.trained_on,
        "data_type": f"grey image in [0, 1], {size} by {size} pixels, bone bright",
        "image_classes": "one channel: a frontal chest radiograph as displayed, bilinearly "
        f"resized to {size} by {size}",
        "eval_metrics": dict(card.figures.metrics),
        "intended_use": card.intended_use,
        "limits": list(card.limits),
        "provenance": dict(card.provenance),
        "network_data_format": _of_size(base["network_data_format"], size),
        "prichexy": dict(card.section),
    }
    return data


def readme(card: Card) -> str:
    """Give the model card, in Markdown."""
    return "\n".join(_lines(card)) + "\n"


def _of_size(formats: Mapping[str, Any], size: int) -> dict[str, Any]:
    return {
        side: {name: {**one, "spatial_shape": [size, size]} for name, one in tensors.items()}
        for side, tensors in formats.items()
    }


def _lines(card: Card) -> Iterator[str]:
    section = card.section
    yield f"# {card.name} {card.version}"
    yield ""
    yield f"**Evidence: {section['evidence']}.** {section['statement']}"
    if card.figures.missing:
        yield ""
        yield f"For the evidence `measured` there lacks: {'; '.join(card.figures.missing)}."
    yield from _heading("What it is for, and what not")
    yield card.intended_use
    yield from _heading("What it is")
    yield (
        "A U-Net looks at a chest radiograph and proposes a displacement for every pixel; the "
        "radiograph is resampled along it. The method is PriCheXy-Net (Packhäuser et al., MICCAI "
        "2023, [arXiv:2209.11531](https://arxiv.org/abs/2209.11531))."
    )
    yield ""
    yield from _networks(section)
    if card.figures.metrics:
        yield from _heading("Figures")
        yield (
            "AUC of telling pairs of one patient from pairs of two: an attacker's, so lower is "
            "better, and 0.5 is guessing. After ± the deviation over seeds, in brackets 95 % of "
            "resamples of the patients. All figures were computed from the records of the runs."
        )
        for data, figures in card.figures.metrics.items():
            yield from _figures(data, figures)
    yield from _heading("Limits")
    yield from (f"- {sentence}" for sentence in card.limits)
    yield from _heading("Where it comes from")
    yield f"Trained on {card.trained_on}"
    yield ""
    yield from _runs(card)
    yield from _heading("Check and run it")
    yield (
        "From this folder, with the project installed and, for MONAI's command line, `fire`, "
        "`jsonschema` and `pillow`:"
    )
    yield ""
    yield "```"
    yield from _COMMANDS
    yield "```"
    yield ""
    yield "`prichexy model promote FOLDER` puts it to use in a gateway."
    yield from _heading("Licence")
    yield "See `LICENSE`. Whether the licences of the training images allow your use, they say."


_COMMANDS: Final = (
    (
        "python -m monai.bundle verify_metadata --meta_file configs/metadata.json "
        "--filepath configs/metadata.schema.json"
    ),
    (
        "python -m monai.bundle verify_net_in_out network_def --meta_file configs/metadata.json "
        "--config_file configs/inference.json"
    ),
    (
        "python -m monai.bundle run --config_file configs/inference.json --images 'pictures/*.png' "
        "--output_dir deformed"
    ),
)


def _heading(text: str) -> Iterator[str]:
    yield ""
    yield f"## {text}"
    yield ""


def _networks(section: Mapping[str, Any]) -> Iterator[str]:
    coarse = section.get("coarse")
    size = section["input_size"]
    yield "| network | file | what it is | SHA-256 of its file |"
    yield "|---|---|---|---|"
    field = f"μ = {section['mu']:g}, border `{section['border']}`"
    if coarse:
        field += f", and a coarse field of μ = {coarse['mu']:g} on {coarse['cells']} cells"
    seen = section.get("field_size", size)
    shrunk = f" (shrunk to {seen} × {seen})" if seen != size else ""
    yield (
        f"| generator | `models/model.pt` | sees {size} × {size} pixels{shrunk}; {field}: "
        f"{_reach(section)} | `{section['weights_sha256']}` |"
    )
    if "verifier" in section:
        part = section["verifier"]
        yield (
            f"| verifier | `models/verifier.pt` | {part['backbone']}, {part['head']}, "
            f"{part['embedding']} numbers an image, {part['input_size']} pixels: tells whether two "
            f"radiographs are of one patient | `{part['weights_sha256']}` |"
        )
    if "classifier" in section:
        part = section["classifier"]
        yield (
            f"| classifier | `models/classifier.pt` | {part['backbone']}, {part['input_size']} "
            f"pixels: {', '.join(part['labels'])} | `{part['weights_sha256']}` |"
        )
    yield ""
    yield (
        "The gateway deforms with the generator alone, and tells what the others say of each "
        "result beside its original. Whoever has the verifier can attack with it."
        if len(section.keys() & {"verifier", "classifier"})
        else "The gateway deforms with it."
    )


def _reach(section: Mapping[str, Any]) -> str:
    """Say how far pixels are moved at most, at the generator's own size."""
    coarse, size = section.get("coarse"), section["input_size"]
    mu = section["mu"] + (coarse["mu"] if coarse else 0.0)
    reach = f"at most {mu * (size - 1) / 2:.2f} pixels along an axis"
    if section["border"] == "corrected":
        return f"{reach} at that size"
    return (
        f"{reach} at that size, {BORDER_PIXELS} pixels and more inside the border; nearer to it a "
        f"field of zeros already moves pixels by up to {border_defect(size):.1f} along an axis"
    )


def _figures(data: str, figures: Mapping[str, Any]) -> Iterator[str]:
    for name, found in figures["verification"].items():
        yield ""
        yield f"### {data}, list `{name}`: {found['pairs']} pairs of {found['patients']} patients"
        yield ""
        yield "| rung | attack | AUC | seeds |"
        yield "|---|---|---|---|"
        if found["real_images"]:
            yield _row("real images, the strongest attack", found["real_images"])
        for attack in found["attacks"]:
            words = (
                attack["name"]
                if attack["role"] == "attack"
                else (f"{attack['name']} ({attack['role']})")
            )
            yield _row(words, attack)
        strongest, change = found["strongest"], found["change"]
        if strongest:
            yield ""
            yield f"The strongest is {strongest['name']}."
        if change:
            yield (
                f"Of the {len(change['attacks'])} attacks that real images met, too, the strongest "
                f"does by {change['difference']:+.3f}{_ends(change)} otherwise than there; in "
                "brackets 95 % of resamples of the patients and seeds."
            )
    for one in figures["retrieval"]:
        yield ""
        yield (
            f"Retrieval by {one['name']} in a gallery of {one['gallery']} images: rank-1 "
            f"{_spread(one['rank1'])} (guessing {one['rank1_of_guessing']:.3f}), mAP@R "
            f"{_spread(one['map_at_r'])}."
        )
    utility = figures["utility"]
    if utility:
        yield ""
        yield (
            f"Utility: a classifier trained on real images reads {utility['images']} test images "
            f"of {data} with a mean class AUC of {utility['auc']:.3f}{_ends(utility)}; the same "
            f"images undeformed {utility['real_images']:.3f}."
        )


def _row(words: str, attack: Mapping[str, Any]) -> str:
    return f"| {attack['rung']} | {words} | {_spread(attack['auc'])} | {attack['seeds']} |"


def _spread(figure: Mapping[str, Any]) -> str:
    deviation = "" if figure["sd"] is None else f" ± {figure['sd']:.3f}"
    return f"{figure['mean']:.3f}{deviation}{_ends(figure)}"


def _ends(figure: Mapping[str, Any]) -> str:
    interval = figure["interval"]
    return "" if interval is None else f" [{interval[0]:.3f}, {interval[1]:.3f}]"


def _runs(card: Card) -> Iterator[str]:
    yield "| run | stage | seed | code | epochs, best | hours |"
    yield "|---|---|---|---|---|---|"
    for role, run in card.provenance["runs"].items():
        last = run["starts"][-1]
        code = f"{last['software']}, {last['commit'] or 'no commit'}"
        hours = run.get("seconds", 0.0) / 3600
        yield (
            f"| {role} | {run['stage']} | {run['seed']} | {code} | {run['best_epoch']} "
            f"| {hours:.2f} on {last['device']} |"
        )
    yield ""
    yield (
        "Settings, library versions and digests of the data stand in `configs/metadata.json` "
        "under `provenance`."
    )
